//! What clients and nodes ask of the leader, read at the edge: what cannot be read never reaches
//! the manager's mailbox.

use std::collections::BTreeMap;

use loom_bus::caller;
use loom_bus::codec::Form;
use loom_bus::header::{CONTENT_TYPE, IF_VERSION, SET};
use loom_bus::serve::Request;
use loom_schemas::error::{ErrorCode, WireError};
use loom_schemas::ids::Name;
use loom_schemas::spec::{Sets, Syntax, read_set};
use loom_schemas::wire::{
    Bye, DispatchRequest, DrainRequest, Hello, HelloPart, JobRequest, LabelRequest, NodeRequest,
    RebalanceRequest, RollbackRequest, ScaleRequest, StatusReport, TaintRequest, UpdateRequest,
};

use crate::decide::{Command, Submission};
use crate::plan::Found;

/// What a client wants done.
#[derive(Debug)]
pub(crate) enum Wish {
    /// Take a job in.
    Submit(Box<Submission>),
    /// Stop a job or a part of it.
    Stop(JobRequest),
    /// Restart a job or a part of it.
    Restart(JobRequest),
    /// Change how many slots a task has.
    Scale(ScaleRequest),
    /// Run a batch job once more, as a child job.
    Dispatch(DispatchRequest),
    /// Say what taking a job in would do.
    Plan(Box<Submission>),
    /// Bring an earlier version back.
    Rollback(RollbackRequest),
    /// Promote, pause or continue an update.
    Update(UpdateRequest),
    /// A node is not coming back as it was.
    NodeLost(NodeRequest),
    /// The runs of a node are to leave it.
    Drain(DrainRequest),
    /// A node takes runs again.
    Undrain(NodeRequest),
    /// Set labels of a node, or take them away.
    Label(LabelRequest),
    /// Set taints of a node, or take them away.
    Taint(TaintRequest),
    /// Move runs to where they cost less, or say which would be.
    Rebalance(RebalanceRequest),
    /// Carry out the moves that were found for that.
    Relocate(Box<Found>, RebalanceRequest),
}

/// A request of a client that could be read.
#[derive(Debug)]
pub(crate) struct Asked {
    /// To be answered.
    pub(crate) request: Box<Request>,
    /// What it wants.
    pub(crate) wish: Wish,
    /// Under which id it may be repeated.
    pub(crate) command: Option<Command>,
}

impl Word {
    /// What it says of who the node is.
    pub(crate) fn hello(&self) -> Option<&Hello> {
        match self {
            Self::Hello(hello) => Some(hello),
            Self::HelloPart(part) => Some(&part.hello),
            Self::Status(_) | Self::Bye(_) => None,
        }
    }
}

impl Asked {
    /// Reads a request, on `orch.job.<verb>` or `orch.admin.<noun>.<verb>`; gives it back with the
    /// error if it cannot be read.
    pub(crate) fn read(request: Request) -> Result<Self, Box<(Request, WireError)>> {
        let read = read_wish(&request).and_then(|wish| Ok((wish, read_command(&request)?)));
        match read {
            Ok((wish, command)) => Ok(Self {
                request: Box::new(request),
                wish,
                command,
            }),
            Err(error) => Err(Box::new((request, error))),
        }
    }
}

/// What a node says to the leader.
#[derive(Debug)]
pub(crate) enum Word {
    /// Who it is and all it has.
    Hello(Box<Hello>),
    /// The same, and a part of all it has.
    HelloPart(Box<HelloPart>),
    /// What became of runs.
    Status(StatusReport),
    /// Its agent ends.
    Bye(Bye),
}

/// The verbs of `orch.job.<verb>`: those of [`Wish`], and those that are to come.
pub(crate) const JOB_VERBS: [&str; 9] = [
    "submit", "stop", "restart", "scale", "plan", "rollback", "update", "dispatch", "remove",
];

fn read_wish(request: &Request) -> Result<Wish, WireError> {
    match request.token(1).unwrap_or_default() {
        "admin" => read_admin(request),
        _ => read_job_wish(request),
    }
}

fn read_command(request: &Request) -> Result<Option<Command>, WireError> {
    let Some(id) = request.command_id() else {
        return Ok(None);
    };
    let if_version = request.header(IF_VERSION).unwrap_or_default();
    let mut asked = vec![
        request.subject.as_bytes(),
        if_version.as_bytes(),
        &request.payload,
    ];
    asked.extend(request.header(SET).map(str::as_bytes));
    Command::new(&request.caller.user, id, &asked).map(Some)
}

fn read_admin(request: &Request) -> Result<Wish, WireError> {
    let (noun, verb) = (
        request.token(2).unwrap_or_default(),
        request.token(3).unwrap_or_default(),
    );
    match (noun, verb) {
        ("node", "lost") => read_node(request).map(Wish::NodeLost),
        ("node", "undrain") => read_node(request).map(Wish::Undrain),
        ("node", "drain") => read_drain(request).map(Wish::Drain),
        ("node", "label") => request.decode().map(Wish::Label),
        ("node", "taint") => request.decode().map(Wish::Taint),
        ("node", "rebalance") => request.decode().map(Wish::Rebalance),
        _ => Err(not_yet(&format!("`{verb}` of a {noun}"))),
    }
}

/// Bare text is the node's name.
fn read_node(request: &Request) -> Result<NodeRequest, WireError> {
    let Some(text) = request.text() else {
        return request.decode();
    };
    let node = Name::new(text).map_err(|error| WireError::invalid(error.to_string()))?;
    Ok(NodeRequest { node, reason: None })
}

/// Bare text is the node's name.
fn read_drain(request: &Request) -> Result<DrainRequest, WireError> {
    if request.text().is_none() {
        return request.decode();
    }
    let NodeRequest { node, reason } = read_node(request)?;
    Ok(DrainRequest {
        node,
        deadline_ms: None,
        no_deadline: false,
        reason,
    })
}

fn read_job_wish(request: &Request) -> Result<Wish, WireError> {
    match request.token(2).unwrap_or_default() {
        "submit" => submission(request).map(|submission| Wish::Submit(Box::new(submission))),
        "stop" => job_request(request).map(Wish::Stop),
        "restart" => job_request(request).map(Wish::Restart),
        "scale" => request.decode().map(Wish::Scale),
        "dispatch" => dispatch(request).map(Wish::Dispatch),
        "plan" => submission(request).map(|submission| Wish::Plan(Box::new(submission))),
        "rollback" => read_rollback(request).map(Wish::Rollback),
        "update" => request.decode().map(Wish::Update),
        verb => Err(not_yet(&format!("`{verb}` of a job"))),
    }
}

/// Bare text is the job's name.
fn dispatch(request: &Request) -> Result<DispatchRequest, WireError> {
    let Some(text) = request.text() else {
        return request.decode();
    };
    let job = Name::new(text).map_err(|error| WireError::invalid(error.to_string()))?;
    Ok(DispatchRequest {
        job,
        params: BTreeMap::new(),
    })
}

/// Bare text is the job's name.
fn read_rollback(request: &Request) -> Result<RollbackRequest, WireError> {
    let Some(text) = request.text() else {
        return request.decode();
    };
    let job = Name::new(text).map_err(|error| WireError::invalid(error.to_string()))?;
    Ok(RollbackRequest {
        job,
        to: None,
        if_version: None,
        reason: None,
    })
}

/// Bare text is an address, as in `web/api/0`.
fn job_request(request: &Request) -> Result<JobRequest, WireError> {
    match request.text() {
        Some(text) => Ok(JobRequest {
            address: text.parse().map_err(WireError::invalid)?,
            reason: None,
        }),
        None => request.decode(),
    }
}

/// Reads a request on `orch.ctl.<node>.<verb>`, and who says it.
pub(crate) fn read_word(request: &Request) -> Result<(Name, Word), WireError> {
    let node = Name::new(request.token(2).unwrap_or_default())
        .map_err(|error| WireError::invalid(format!("not a node: {error}")))?;
    let word = match request.token(3).unwrap_or_default() {
        "hello" => Word::Hello(Box::new(request.decode()?)),
        "hello-part" => Word::HelloPart(Box::new(request.decode()?)),
        "status" => Word::Status(request.decode()?),
        "bye" => Word::Bye(request.decode()?),
        verb => {
            let message = format!("a node says hello, status or bye, not `{verb}`");
            return Err(WireError::not_found(message));
        }
    };
    Ok((node, word))
}

/// Reads a job file by the `Content-Type`, or by what it looks like.
pub(crate) fn read_job(
    content_type: Option<&str>,
    payload: &[u8],
    if_version: Option<&str>,
    sets: Option<&str>,
) -> Result<Submission, WireError> {
    let sets: Sets = match sets {
        Some(text) => serde_json::from_str(text)
            .map_err(|_| WireError::invalid(format!("{SET}: expected a JSON object of texts")))?,
        None => Sets::new(),
    };
    let syntax = syntax_of(content_type, payload);
    let if_version = if_version
        .map(|text| {
            text.trim().parse().map_err(|_| {
                WireError::invalid(format!("{IF_VERSION}: expected a number, found `{text}`"))
            })
        })
        .transpose()?;
    let spec = read_set(payload, syntax, "job", &sets)
        .map_err(|report| WireError::new(report.code(), report.to_string()))?;
    Ok(Submission {
        spec,
        text: payload.to_vec(),
        sets,
        if_version,
    })
}

/// Loom does not do this yet.
pub(crate) fn not_yet(what: &str) -> WireError {
    WireError::new(ErrorCode::NotYet, format!("{what} is not there yet"))
}

/// Whether a caller may act for others: managers and nodes have credentials of their own.
pub(crate) fn is_admin(user: &str) -> bool {
    user == caller::OWN
}

fn submission(request: &Request) -> Result<Submission, WireError> {
    read_job(
        request.header(CONTENT_TYPE),
        &request.payload,
        request.header(IF_VERSION),
        request.header(SET),
    )
}

fn syntax_of(content_type: Option<&str>, payload: &[u8]) -> Syntax {
    let subtype = content_type
        .and_then(|media| media.split(';').next())
        .and_then(|essence| essence.trim().rsplit('/').next())
        .unwrap_or_default();
    match subtype.trim_start_matches("x-") {
        "yaml" => return Syntax::Yaml,
        "toml" => return Syntax::Toml,
        _ => {}
    }
    match content_type.map(|media| Form::of(Some(media), payload)) {
        Some(Form::Json) => Syntax::Json,
        Some(Form::MessagePack) => Syntax::MessagePack,
        _ => Syntax::guess(payload),
    }
}
