//! The bus: codec, request and serve, the log, events, the queue and the embedded server.
//!
//! The only crate that names `async_nats`; everybody else speaks through it.
//!
//! | room | what is in it |
//! |---|---|
//! | [`connection`] | one connection: connect with a version check, publish, subscribe |
//! | [`call`] | requests: one answer, or all that come |
//! | [`serve`] | the other end: requests with limits, a caller and an answer |
//! | [`caller`] | who sent a request, as the server knows them |
//! | [`codec`] | MessagePack, JSON or text, by header or first byte; caps |
//! | [`events`] | the streams of events, commands and output; relay and history |
//! | [`header`] | the names of message headers |
//! | [`log`] | the log: entries, fold, fenced writer, followers, snapshots |
//! | [`logs`] | what a message of task output holds |
//! | [`queue`] | submissions that wait for a leader |
//! | [`facts`] | what a server says of itself |
//! | [`stream`] | the calls of the `JetStream` API that the log, events and queue stand on |
//! | [`server`] | the embedded nats-server |

pub mod call;
pub mod caller;
pub mod codec;
pub mod connection;
pub mod events;
pub mod facts;
pub mod header;
pub mod log;
pub mod logs;
pub mod queue;
pub mod serve;
pub mod server;
pub mod stream;

mod inbox;

pub use call::{CallError, Replies, Reply};
pub use codec::Form;
pub use connection::{
    Bus, BusError, ConnectError, ConnectOptions, ConnectionState, Login, Message, Messages, Tls,
};
pub use facts::ServerFacts;
pub use serve::{Request, Requests, ServeCounters, ServeLimits};
