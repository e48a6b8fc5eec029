//! Tests of the whole program, and of the house it lives in.

mod clients;
mod documents;
mod files;
mod jobs;
mod kills;
mod tidy;
mod troubles;
