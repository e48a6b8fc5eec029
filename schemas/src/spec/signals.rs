//! The names of signals.

use super::problem::{nearest, shown};

/// The standard signals of Linux, in the order of their numbers.
const NAMES: [&str; 31] = [
    "SIGHUP",
    "SIGINT",
    "SIGQUIT",
    "SIGILL",
    "SIGTRAP",
    "SIGABRT",
    "SIGBUS",
    "SIGFPE",
    "SIGKILL",
    "SIGUSR1",
    "SIGSEGV",
    "SIGUSR2",
    "SIGPIPE",
    "SIGALRM",
    "SIGTERM",
    "SIGSTKFLT",
    "SIGCHLD",
    "SIGCONT",
    "SIGSTOP",
    "SIGTSTP",
    "SIGTTIN",
    "SIGTTOU",
    "SIGURG",
    "SIGXCPU",
    "SIGXFSZ",
    "SIGVTALRM",
    "SIGPROF",
    "SIGWINCH",
    "SIGIO",
    "SIGPWR",
    "SIGSYS",
];

/// The full name of the signal that a text comes nearest to, if it comes near one.
pub fn nearest_signal(text: &str) -> Option<&'static str> {
    let upper = text.trim().to_uppercase();
    let bare = upper.strip_prefix("SIG").unwrap_or(&upper);
    if bare.len() > 20 || bare.chars().all(|c| c.is_ascii_digit()) {
        return None;
    }
    let distance = |name: &str| strsim::damerau_levenshtein(bare, &name["SIG".len()..]);
    let near = NAMES
        .into_iter()
        .filter(|name| distance(name) <= 1.max(bare.len() / 3));
    near.min_by_key(|name| distance(name))
}

/// The full name of a signal written `TERM` or `SIGTERM`; else message and help.
pub(crate) fn full_name(text: &str) -> Result<String, (String, String)> {
    let full = format!("SIG{}", text.strip_prefix("SIG").unwrap_or(text));
    if NAMES.contains(&full.as_str()) {
        return Ok(full);
    }
    let message = format!("`{}` is not a signal", shown(text));
    let upper = text.to_uppercase();
    let upper = format!("SIG{}", upper.strip_prefix("SIG").unwrap_or(&upper));
    let help = nearest(&upper, NAMES.into_iter())
        .unwrap_or_else(|| "expected a name such as SIGTERM, SIGINT or SIGHUP".to_owned());
    Err((message, help))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slip_of_the_pen_is_near_and_anything_else_is_not() {
        for (text, near) in [
            ("HUPP", "SIGHUP"),
            ("sigtrem", "SIGTERM"),
            ("usr", "SIGUSR1"),
        ] {
            assert_eq!(nearest_signal(text), Some(near), "{text}");
        }
        for text in ["NOPE", "99", "", "SIG", "something else entirely"] {
            assert_eq!(nearest_signal(text), None, "{text}");
        }
    }
}
