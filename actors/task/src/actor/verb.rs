//! The verbs a task's address takes.

use std::fmt;

use loom_schemas::error::{ErrorCode, WireError};

/// What a task can be asked at its address, `orch.task.<job>.<task>.<index>.<verb>`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Verb {
    /// Send a signal to the main process, or to the whole tree.
    Signal,
    /// Stop every process from being scheduled.
    Pause,
    /// Undo `pause`.
    Resume,
    /// Say how the run stands.
    Inspect,
    /// The last lines of output.
    Logs,
    /// Usage figures.
    Stats,
    /// End it: the leader's, because it changes what is wanted.
    Stop,
    /// Start it anew: the leader's.
    Restart,
    /// Change its limits: the leader's.
    Resize,
    /// Run a program beside it.
    Exec,
    /// One of the task's own commands.
    Cmd,
    /// Its terminal.
    Attach,
    /// Copy files in or out.
    Cp,
    /// Save its state.
    Checkpoint,
}

impl Verb {
    /// All verbs there are, in the order they are listed to people.
    pub const ALL: [Self; 14] = [
        Self::Signal,
        Self::Pause,
        Self::Resume,
        Self::Inspect,
        Self::Logs,
        Self::Stats,
        Self::Stop,
        Self::Restart,
        Self::Resize,
        Self::Exec,
        Self::Cmd,
        Self::Attach,
        Self::Cp,
        Self::Checkpoint,
    ];

    /// Reads the last token of a subject; the error lists the verbs there are.
    pub fn parse(token: &str) -> Result<Self, WireError> {
        let found = Self::ALL.into_iter().find(|verb| verb.as_str() == token);
        found.ok_or_else(|| {
            let known: Vec<_> = Self::ALL.iter().map(|verb| verb.as_str()).collect();
            let token: String = token.chars().take(40).collect();
            let known = known.join(", ");
            WireError::invalid(format!("unknown verb `{token}`: a task takes {known}"))
        })
    }

    /// The token in the subject.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Signal => "signal",
            Self::Pause => "pause",
            Self::Resume => "resume",
            Self::Inspect => "inspect",
            Self::Logs => "logs",
            Self::Stats => "stats",
            Self::Stop => "stop",
            Self::Restart => "restart",
            Self::Resize => "resize",
            Self::Exec => "exec",
            Self::Cmd => "cmd",
            Self::Attach => "attach",
            Self::Cp => "cp",
            Self::Checkpoint => "checkpoint",
        }
    }

    /// Why the verb is refused at a task's address by this build, if it is.
    pub fn refusal(self) -> Option<WireError> {
        match self {
            Self::Signal
            | Self::Pause
            | Self::Resume
            | Self::Inspect
            | Self::Logs
            | Self::Stats => None,
            Self::Stop | Self::Restart => Some(WireError::invalid(format!(
                "`{self}` changes what is wanted, so the leader does it: \
                 ask `orch.job.{self}` with {{\"address\": {{\"job\", \"task\", \"index\"}}}}"
            ))),
            Self::Resize | Self::Exec | Self::Cmd | Self::Attach | Self::Cp | Self::Checkpoint => {
                Some(WireError::new(
                    ErrorCode::NotYet,
                    format!("`{self}` is not built yet"),
                ))
            }
        }
    }

    /// Whether the verb changes the run: such ones are carried out one after the other, in order.
    pub(crate) fn is_ordered(self) -> bool {
        matches!(self, Self::Signal | Self::Pause | Self::Resume)
    }
}

impl fmt::Display for Verb {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}
