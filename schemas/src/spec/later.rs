//! What is of the language and not of this build yet: the one list.

/// The reader's name of a job as it stands in a file.
pub(crate) const JOB: &str = "JobFile";
/// The reader's name of a task as it stands in a file.
pub(crate) const TASK: &str = "TaskFile";

/// Fields and values that are refused with `not supported yet`, each with the type of the file it
/// is of. Whoever makes one work takes its line out; nothing else has to be changed for it.
const LATER: &[(&str, &str)] = &[
    (JOB, "on"),
    (TASK, "plugin"),
    (TASK, "inputs"),
    (TASK, "outputs"),
    (TASK, "volumes"),
    (TASK, "secrets"),
    (TASK, "commands"),
    (TASK, "lost_after"),
    (TASK, "on_return"),
    (TASK, "when_cut_off"),
];

/// The fields or values of a type that are on the list.
pub(crate) fn later(of: &str) -> Vec<&'static str> {
    let listed = LATER.iter().filter(|(name, _)| *name == of);
    listed.map(|(_, field)| *field).collect()
}

/// Those fields of a type that this build takes.
pub(crate) fn supported(of: &str, fields: &[&'static str]) -> Vec<&'static str> {
    let later = later(of);
    let taken = |field: &&&'static str| !later.contains(*field);
    fields.iter().filter(taken).copied().collect()
}

/// Whether a field or value is on the list.
pub(crate) fn is_later(of: &str, name: &str) -> bool {
    let is_it = |(listed, field): &(&str, &str)| *field == name && *listed == of;
    LATER.iter().any(is_it)
}
