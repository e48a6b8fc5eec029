//! Signals as people write them.

use nix::sys::signal::Signal;

/// The first real-time signal of Linux; the kernel numbers them from here to 64.
const FIRST_REAL_TIME: i32 = 32;
const LAST_REAL_TIME: i32 = 64;

/// Reads `HUP`, `SIGHUP`, `hup` or `1`; the error says what was expected.
pub fn parse(text: &str) -> Result<Signal, String> {
    let text = text.trim();
    if let Ok(number) = text.parse::<i32>() {
        if (FIRST_REAL_TIME..=LAST_REAL_TIME).contains(&number) {
            return Err(real_time(text));
        }
        return Signal::try_from(number).map_err(|_| unknown(text));
    }
    let upper = text.to_ascii_uppercase();
    let bare = upper.strip_prefix("SIG").unwrap_or(&upper);
    if bare.starts_with("RTMIN") || bare.starts_with("RTMAX") {
        return Err(real_time(text));
    }
    let full = match bare {
        "CLD" => "SIGCHLD".to_owned(),
        "POLL" => "SIGIO".to_owned(),
        "IOT" => "SIGABRT".to_owned(),
        _ => format!("SIG{bare}"),
    };
    full.parse().map_err(|_| unknown(text))
}

fn real_time(text: &str) -> String {
    let text = shortened(text);
    format!("`{text}` is a real-time signal: only the standard signals 1 to 31 are sent")
}

fn unknown(text: &str) -> String {
    let text = shortened(text);
    format!("`{text}` is not a signal: expected a name like HUP or SIGHUP, or a number 1 to 31")
}

fn shortened(text: &str) -> String {
    text.chars().take(40).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_signal_is_named_with_or_without_its_prefix_or_numbered() {
        for text in ["HUP", "SIGHUP", "hup", "sighup", "1", " HUP\n"] {
            assert_eq!(parse(text), Ok(Signal::SIGHUP), "{text}");
        }
        assert_eq!(parse("USR1"), Ok(Signal::SIGUSR1));
        assert_eq!(parse("31"), Ok(Signal::SIGSYS));
        assert_eq!(parse("iot"), Ok(Signal::SIGABRT));
    }

    #[test]
    fn what_is_no_signal_is_refused_with_what_was_expected() {
        for text in ["", "HUPP", "0", "-1", "65", "SIG", "ä", "99999999999"] {
            assert!(
                parse(text).unwrap_err().contains("is not a signal"),
                "{text}"
            );
        }
        for text in ["RTMIN", "SIGRTMIN+3", "34", "RTMAX-1", "64"] {
            assert!(parse(text).unwrap_err().contains("real-time"), "{text}");
        }
    }
}
