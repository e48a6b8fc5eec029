//! What is said about a command line that makes no sense: a line of what is wrong, and a hint.

/// Makes of the many lines the parser prints one, and one or two hints.
pub(crate) fn lines(rendered: &str) -> Vec<String> {
    let mut wrong = String::new();
    let mut hints = Vec::new();
    for line in rendered.lines().map(str::trim) {
        if let Some(tip) = line.strip_prefix("tip: ") {
            hints.push(format!("  hint: {tip}"));
        } else if let Some(usage) = line.strip_prefix("Usage: ") {
            // A bus in the environment counts as typed for the parser.
            let usage = usage
                .replace(" --bus <URL>", "")
                .replace(" --creds <FILE>", "");
            hints.push(format!("  usage: {usage}"));
        } else if !line.is_empty() && !line.starts_with("For more information") {
            let text = line.strip_prefix("error: ").unwrap_or(line);
            // A list in square brackets explains, one that follows a colon goes on.
            let joint = match wrong.chars().last() {
                None => "",
                Some(':') => " ",
                Some(_) if text.starts_with('[') => " ",
                Some(_) => ", ",
            };
            wrong = format!("{wrong}{joint}{text}");
        }
    }
    let mut lines = vec![format!("loomctl: {wrong}")];
    lines.extend(hints);
    lines
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;
    use crate::cli::Cli;

    fn said(words: &[&str]) -> Vec<String> {
        let error = Cli::try_parse_from(words).unwrap_err();
        lines(&error.render().to_string())
    }

    #[test]
    fn bad_usage_is_a_line_and_a_hint() {
        let lines = said(&["loomctl", "run"]);
        assert_eq!(
            lines[0],
            "loomctl: the following required arguments were not provided: <FILE>"
        );
        assert!(lines[1].starts_with("  usage: loomctl run"), "{lines:?}");
        assert_eq!(lines.len(), 2, "{lines:?}");

        let lines = said(&["loomctl", "run", "--detatch", "web.yaml"]);
        assert_eq!(lines[0], "loomctl: unexpected argument '--detatch' found");
        assert!(lines[1].contains("--detach"), "{lines:?}");

        let lines = said(&["loomctl", "status", "-o", "jsn"]);
        assert!(
            lines[0].contains("'jsn'") && lines[0].contains("[possible values: table,"),
            "{lines:?}"
        );
        let lines = said(&["loomctl", "statsu"]);
        assert!(lines[0].contains("statsu"), "{lines:?}");
        assert!(lines[1].contains("status"), "{lines:?}");
        let lines = said(&["loomctl", "logs", "web", "--since", "1 fortnight"]);
        assert!(lines[0].contains("--since"), "{lines:?}");
    }

    #[test]
    fn help_names_variables_of_the_environment_but_not_their_values() {
        fn check(command: &clap::Command) {
            for flag in command.get_arguments() {
                let hides = flag.get_env().is_none() || flag.is_hide_env_values_set();
                assert!(hides, "{} {flag}", command.get_name());
            }
            command.get_subcommands().for_each(check);
        }
        check(&<Cli as clap::CommandFactory>::command());
    }
}
