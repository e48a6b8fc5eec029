//! What is kept of a container in its run's directory, beside the records every run has there.

use std::fs;
use std::io;
use std::path::Path;

use jiff::Timestamp;
use loom_schemas::spec::LogSpec;
use serde::{Deserialize, Serialize};

use crate::driver::{Ended, Left, RESULT, Started, StartedContainer};
use crate::shim::record::{self, Process, STARTED, STATUS, StartedRecord, StatusRecord};
use loom_schemas::record::Exit;

/// The name of the file.
const CONTAINER: &str = "container";

/// A container that was created for a run.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct ContainerRecord {
    /// The engine's id.
    pub id: String,
    /// Its image, by digest or by the engine's id.
    pub image: String,
    /// As the task names the image, for messages.
    pub name: String,
    /// What is kept of its output.
    pub logs: LogSpec,
    /// Whether what it leaves in `$LOOM_RESULT` is wanted.
    #[serde(default)]
    pub result: bool,
}

impl ContainerRecord {
    pub(super) fn read(directory: &Path) -> Option<Self> {
        let bytes = fs::read(directory.join(CONTAINER)).ok()?;
        serde_json::from_slice(&bytes).ok()
    }

    pub(super) fn write(&self, directory: &Path) -> io::Result<()> {
        let bytes = serde_json::to_vec(self)?;
        record::put(directory, CONTAINER, &bytes)
    }

    /// Whether it says which image it is: it is written before that has to be known.
    pub(super) fn is_whole(&self) -> bool {
        !self.image.is_empty()
    }

    pub(super) fn started(&self) -> StartedContainer {
        StartedContainer {
            id: self.id.clone(),
            image: self.image.clone(),
        }
    }
}

/// Writes down that a run runs, and where its output is.
pub(super) fn write_started(
    directory: &Path,
    pid: Option<u32>,
    at: Timestamp,
    output: &Path,
    base: u64,
    notes: &[String],
) -> io::Result<()> {
    let started = StartedRecord {
        shim: Process::default(),
        main: Process {
            pid: pid.unwrap_or(0),
            ticks: 0,
        },
        boot: record::boot_id(),
        at,
        output: output.to_path_buf(),
        base,
        notes: notes.to_vec(),
    };
    record::put(directory, STARTED, &started.encode())
}

/// The start of a run, if it was written down.
pub(super) fn read_started(directory: &Path) -> Option<StartedRecord> {
    let bytes = fs::read(directory.join(STARTED)).ok()?;
    StartedRecord::decode(&bytes)
}

/// As a driver tells it.
pub(super) fn started(directory: &Path, container: &ContainerRecord) -> Option<Started> {
    let record = read_started(directory)?;
    Some(Started {
        pid: Some(record.main.pid).filter(|pid| *pid > 0),
        at: record.at,
        directory: Some(directory.to_path_buf()),
        unenforced: record.notes,
        container: Some(container.started()),
    })
}

/// Writes down how a run ended; `end` is where its output ends in files that others write to as well.
pub(super) fn write_ended(directory: &Path, ended: &Ended, end: Option<u64>) -> io::Result<()> {
    let Exit {
        code,
        signal,
        out_of_memory,
        ..
    } = ended.exit;
    if let Left::Result(text) = &ended.left {
        record::put(directory, RESULT, text.as_bytes())?;
    }
    let status = StatusRecord {
        // One of the two stands for the other; neither, for an end of which nothing is known.
        code: code.filter(|_| signal.is_none()),
        signal,
        oom: out_of_memory,
        at: ended.at,
        end,
        notes: ended.reason.iter().cloned().collect(),
    };
    record::put(directory, STATUS, &status.encode())
}

/// How a run ended, if it was written down.
pub(super) fn read_ended(directory: &Path) -> Option<Ended> {
    let bytes = fs::read(directory.join(STATUS)).ok()?;
    let status = StatusRecord::decode(&bytes)?;
    Some(Ended {
        exit: Exit {
            code: status.code.or(status.signal.map(|signal| 128 + signal)),
            signal: status.signal,
            out_of_memory: status.oom,
            timed_out: false,
        },
        at: status.at,
        reason: (!status.notes.is_empty()).then(|| status.notes.join("; ")),
        left: match status.code {
            Some(0) => Left::read(&directory.join(RESULT)),
            _ => Left::Nothing,
        },
    })
}
