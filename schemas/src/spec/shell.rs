//! References in a shell script become quoted environment variables, never text.
//!
//! What quoting that takes depends on where the reference stands:
//!
//! | it stands | it becomes |
//! |---|---|
//! | outside of quotes, in `$(...)` or in backticks | `"${LOOM_JOB}"` |
//! | in `"..."`, or in a here-document | `${LOOM_JOB}` |
//! | in `'...'` or `$'...'` | `'"${LOOM_JOB}"'`: out of the quotes and in again |
//! | after a backslash | left as it is: the shell prints it |
//! | in a comment, or in a here-document with a quoted end | left as it is: the shell expands nothing there |
//!
//! The quotes of commands within a here-document, and of backticks with a backslash in them, are
//! not followed: a reference there is refused.

mod quoting;

use super::reference::{Context, Piece, Reference, ReferenceError, Template};
use crate::ids::Name;
use quoting::{Inside, Quoting};

/// Why the references of a script cannot be replaced.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ScriptError {
    /// One is wrong.
    #[error(transparent)]
    Reference(#[from] ReferenceError),
    /// How the shell quotes the place cannot be told.
    #[error(
        "`${{{reference}}}` stands in a command within a here-document, or in backticks with a \
         backslash, where no quoting is sure (line {line} of the script)"
    )]
    Uncertain {
        /// The line of the script, from 1.
        line: usize,
        /// What stands there.
        reference: Reference,
        /// The variable with its value.
        variable: String,
    },
}

impl ScriptError {
    /// What to do about it.
    pub fn help(&self) -> String {
        match self {
            Self::Reference(error) => error.help(),
            Self::Uncertain { variable, .. } => {
                format!("write \"${variable}\" in its place, quoted as the place needs")
            }
        }
    }
}

/// The variable of the environment that holds the value of a reference.
pub fn variable(reference: &Reference) -> String {
    match reference {
        Reference::JobName => "LOOM_JOB".to_owned(),
        Reference::JobVersion => "LOOM_VERSION".to_owned(),
        Reference::TaskName => "LOOM_TASK".to_owned(),
        Reference::TaskIndex => "LOOM_TASK_INDEX".to_owned(),
        Reference::NodeName => "LOOM_NODE".to_owned(),
        Reference::NodeIp => "LOOM_NODE_IP".to_owned(),
        Reference::NodeLabel(key) => format!("LOOM_NODE_LABEL_{}", of_key(key)),
        Reference::Port(name) => variable_of("LOOM_PORT_", name),
        Reference::Var(name) => variable_of("LOOM_VAR_", name),
        Reference::Result(of) => {
            let task = variable_of("LOOM_RESULT_OF_", &of.task);
            format!("{task}__{}", of_key(&of.key))
        }
    }
}

/// A key as a part of a variable's name; no two keys become the same.
fn of_key(key: &str) -> String {
    let mut name = String::with_capacity(key.len());
    for c in key.chars() {
        if c.is_ascii_alphanumeric() {
            name.push(c);
        } else {
            name.extend(['_']);
            name.extend(format!("{:02X}", u32::from(c)).chars());
        }
    }
    name
}

/// The variable of what has a name: `LOOM_PORT_HTTP_2`.
pub fn variable_of(prefix: &str, name: &Name) -> String {
    let name = name.as_str().to_ascii_uppercase().replace('-', "_");
    format!("{prefix}{name}")
}

/// The script with its references replaced.
pub fn with_variables(script: &str) -> Result<String, ScriptError> {
    let template = Template::parse(script, Context::Script)?;
    let mut quoting = Quoting::default();
    let mut out = String::with_capacity(script.len());
    let mut line = 1;
    for piece in template.pieces() {
        match piece {
            Piece::Text(text) => {
                quoting.read(text);
                line += text.matches('\n').count();
                out.push_str(text);
            }
            Piece::Reference(reference) => {
                out.push_str(&replaced(reference, &quoting, line)?);
                quoting.pass();
            }
        }
    }
    Ok(out)
}

fn replaced(reference: &Reference, quoting: &Quoting, line: usize) -> Result<String, ScriptError> {
    let name = variable(reference);
    let plain = format!("${{{name}}}");
    // The backslash before it says that the shell shall expand nothing.
    if quoting.is_escaped() {
        return Ok(format!("${{{reference}}}"));
    }
    Ok(match quoting.here() {
        Inside::Comment | Inside::HereDoc { quoted: true, .. } => format!("${{{reference}}}"),
        _ if quoting.is_uncertain() => {
            return Err(ScriptError::Uncertain {
                line,
                reference: reference.clone(),
                variable: name,
            });
        }
        Inside::Double
        | Inside::Apostrophes
        | Inside::Braces { quoted: true, .. }
        | Inside::HereDoc { quoted: false, .. } => plain,
        Inside::Single => format!("'\"{plain}\"'"),
        Inside::DollarSingle => format!("'\"{plain}\"$'"),
        Inside::Nothing
        | Inside::Parens { .. }
        | Inside::Case(_)
        | Inside::Braces { quoted: false, .. }
        | Inside::Backticks { .. } => format!("\"{plain}\""),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reference_is_quoted_as_the_place_needs() {
        for (script, expected) in [
            ("echo ${job.name}", r#"echo "${LOOM_JOB}""#),
            (r#"echo "a ${job.name} b""#, r#"echo "a ${LOOM_JOB} b""#),
            ("echo 'a ${job.name} b'", r#"echo 'a '"${LOOM_JOB}"' b'"#),
            ("echo $'a\\'${job.name}'", r#"echo $'a\''"${LOOM_JOB}"$''"#),
            (r"echo \'${job.name}\'", r#"echo \'"${LOOM_JOB}"\'"#),
            (
                r#"echo "$(id ${task.index})""#,
                r#"echo "$(id "${LOOM_TASK_INDEX}")""#,
            ),
            (
                "# don't\necho ${port.http-2}",
                "# don't\necho \"${LOOM_PORT_HTTP_2}\"",
            ),
            (
                "echo $# ${#a} '${node.ip}'",
                r#"echo $# ${#a} ''"${LOOM_NODE_IP}"''"#,
            ),
            ("# ${job.name}", "# ${job.name}"),
            (
                "cat <<E\n${job.name} it's\nE\n: ${job.name}",
                "cat <<E\n${LOOM_JOB} it's\nE\n: \"${LOOM_JOB}\"",
            ),
            (
                "cat <<-'E'\n${job.name}\n\tE\n: ${job.name}",
                "cat <<-'E'\n${job.name}\n\tE\n: \"${LOOM_JOB}\"",
            ),
            (
                "echo $((1<<2)) ${job.name}\necho ${job.name}",
                "echo $((1<<2)) \"${LOOM_JOB}\"\necho \"${LOOM_JOB}\"",
            ),
            (
                "cat <<<${job.name}\n: '${job.name}'",
                "cat <<<\"${LOOM_JOB}\"\n: ''\"${LOOM_JOB}\"''",
            ),
            ("echo ${HOME} $${job.name}", "echo ${HOME} ${job.name}"),
            (
                "cat <<'A B'\n${job.name}\nA B\n: ${job.name}",
                "cat <<'A B'\n${job.name}\nA B\n: \"${LOOM_JOB}\"",
            ),
        ] {
            assert_eq!(with_variables(script).unwrap(), expected, "{script}");
        }
    }

    #[test]
    fn a_backslash_leaves_a_reference_to_be_printed() {
        for (script, expected) in [
            (
                r"echo \${job.name} ${job.name}",
                r#"echo \${job.name} "${LOOM_JOB}""#,
            ),
            (r#"echo "\${job.name}""#, r#"echo "\${job.name}""#),
            (r"echo '\${job.name}'", r#"echo '\'"${LOOM_JOB}"''"#),
            (r"echo \\${job.name}", r#"echo \\"${LOOM_JOB}""#),
            (
                "cat <<E\n\\${job.name} ${job.name}\nE",
                "cat <<E\n\\${job.name} ${LOOM_JOB}\nE",
            ),
        ] {
            assert_eq!(with_variables(script).unwrap(), expected, "{script}");
        }
    }

    #[test]
    fn a_case_closes_no_parens_with_its_patterns() {
        let quoted = r#"'"${LOOM_JOB}"'"#;
        for script in [
            r#"x="$(case a in a) echo '@' ;; esac)"; echo '@'"#,
            r#"x="$(case a in (a|b) echo '@' ;; (c) case '@' in d) esac;; esac)"; echo '@'"#,
            r#"x="$(case "$y" in "a b") if case a in b) : ;; esac; then :; fi; esac)"; echo '@'"#,
            r#"f() { case $1 in in) echo '@';; esac; }; x="$(f in)"; echo '@'"#,
            r#"x="$(echo case; for case in esac; do echo '@'; done)"; echo '@'"#,
            r#"x="$(case x in esac)"; echo '@'"#,
        ] {
            let found = with_variables(&script.replace('@', "${job.name}")).unwrap();
            assert_eq!(
                found,
                script.replace("'@'", &format!("'{quoted}'")),
                "{script}"
            );
        }
    }

    #[test]
    fn braces_and_backticks_have_quotes_of_their_own() {
        for (script, expected) in [
            (
                "echo ${x/ #/} ${job.name}",
                r#"echo ${x/ #/} "${LOOM_JOB}""#,
            ),
            ("echo ${x:-${job.name}}", r#"echo ${x:-"${LOOM_JOB}"}"#),
            (
                r#"echo "${x:-'} ${job.name}'}" '${job.name}'"#,
                r#"echo "${x:-'} ${LOOM_JOB}'}" ''"${LOOM_JOB}"''"#,
            ),
            (
                r#"echo "${x#'}'} ${job.name}" ${job.name}"#,
                r#"echo "${x#'}'} ${LOOM_JOB}" "${LOOM_JOB}""#,
            ),
            (
                r#"echo "`echo '${job.name}'` ${job.name}""#,
                r#"echo "`echo ''"${LOOM_JOB}"''` ${LOOM_JOB}""#,
            ),
            (
                "echo ${#x} ${x#a} ${#} ${job.name}",
                r#"echo ${#x} ${x#a} ${#} "${LOOM_JOB}""#,
            ),
        ] {
            assert_eq!(with_variables(script).unwrap(), expected, "{script}");
        }
    }

    #[test]
    fn a_line_with_a_reference_is_not_the_end_of_a_here_document() {
        let script = "cat <<E\n${job.name}E\nE${job.name}\n'${job.name}'\nE\n: ${job.name}";
        let expected = "cat <<E\n${LOOM_JOB}E\nE${LOOM_JOB}\n'${LOOM_JOB}'\nE\n: \"${LOOM_JOB}\"";
        assert_eq!(with_variables(script).unwrap(), expected);
    }

    #[test]
    fn where_the_quoting_is_not_sure_only_a_reference_is_refused() {
        for (script, refused) in [
            ("cat <<E\n$(echo '@')\nE", true),
            ("cat <<E\n$(echo \"$USER\") @\nE\necho @", false),
            (r#"echo `echo \"@\"`"#, true),
            (r#"echo `echo \"x\"` @"#, false),
        ] {
            let outcome = with_variables(&script.replace('@', "${job.name}"));
            assert_eq!(outcome.is_err(), refused, "{script}");
            if let Err(error) = outcome {
                let text = error.to_string();
                let line = script.lines().position(|line| line.contains('@')).unwrap() + 1;
                assert!(text.contains(&format!("(line {line} of")), "{text}");
                assert!(error.help().contains("write \"$LOOM_JOB\""), "{error:?}");
            }
        }
    }

    #[test]
    fn an_unknown_reference_is_an_error() {
        assert!(with_variables("echo ${job.nope}").is_err());
    }
}
