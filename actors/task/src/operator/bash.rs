//! References in a shell script become quoted environment variables, never text.
//!
//! What quoting that takes depends on where the reference stands:
//!
//! | it stands | it becomes |
//! |---|---|
//! | outside of quotes | `"${LOOM_JOB}"` |
//! | in `"..."`, or in a here-document | `${LOOM_JOB}` |
//! | in `'...'` or `$'...'` | `'"${LOOM_JOB}"'`: out of the quotes and in again |
//! | in a comment, or in a here-document with a quoted end | left as it is: the shell expands nothing there |

use std::iter::Peekable;
use std::str::Chars;

use loom_schemas::spec::reference::{Context, Piece, ReferenceError, Template};

use super::environment::variable;

/// The script with its references replaced.
pub fn with_variables(script: &str) -> Result<String, ReferenceError> {
    let template = Template::parse(script, Context::Script)?;
    let mut quoting = Quoting::default();
    let mut out = String::with_capacity(script.len());
    for piece in template.pieces() {
        match piece {
            Piece::Text(text) => {
                quoting.read(text);
                out.push_str(text);
            }
            Piece::Reference(reference) => {
                let name = variable(reference);
                let text = match quoting.here() {
                    Inside::Nothing | Inside::Parens { .. } => format!("\"${{{name}}}\""),
                    Inside::Double | Inside::HereDoc { quoted: false, .. } => {
                        format!("${{{name}}}")
                    }
                    Inside::Single => format!("'\"${{{name}}}\"'"),
                    Inside::DollarSingle => format!("'\"${{{name}}}\"$'"),
                    Inside::Comment | Inside::HereDoc { quoted: true, .. } => {
                        format!("${{{reference}}}")
                    }
                };
                quoting.before = Some('x');
                out.push_str(&text);
            }
        }
    }
    Ok(out)
}

/// What the shell's reader is in.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Inside {
    Nothing,
    /// `( ... )` and `$( ... )`; `((` is arithmetic, where `<<` shifts.
    Parens {
        arithmetic: bool,
    },
    Double,
    Single,
    DollarSingle,
    Comment,
    HereDoc {
        end: String,
        quoted: bool,
        /// `<<-`: tabs before the end are ignored.
        tabs: bool,
        line: String,
    },
}

/// Follows the quoting of a script as far as references need it.
#[derive(Debug, Default)]
struct Quoting {
    stack: Vec<Inside>,
    before: Option<char>,
    /// Here-documents announced on this line, which begin on the next.
    announced: Vec<Inside>,
}

impl Quoting {
    fn here(&self) -> &Inside {
        self.stack.last().unwrap_or(&Inside::Nothing)
    }

    fn read(&mut self, text: &str) {
        let mut chars = text.chars().peekable();
        while let Some(char) = chars.next() {
            self.take(char, &mut chars);
            self.before = Some(char);
        }
    }

    fn take(&mut self, char: char, rest: &mut Peekable<Chars<'_>>) {
        let before = self.before;
        match (self.stack.last_mut(), char) {
            (Some(Inside::HereDoc { .. }), _) => self.take_in_document(char),
            (Some(Inside::Comment), '\n') => {
                self.stack.pop();
                self.line_ends();
            }
            (Some(Inside::Single | Inside::DollarSingle), '\'') | (Some(Inside::Double), '"') => {
                self.stack.pop();
            }
            (Some(Inside::Comment | Inside::Single), _) => {}
            (_, '\\') => {
                rest.next();
            }
            (Some(Inside::Double), '(') if before == Some('$') => self.open(rest),
            (Some(Inside::Double | Inside::DollarSingle), _) => {}
            (_, char) => self.take_plain(char, rest),
        }
    }

    fn take_plain(&mut self, char: char, rest: &mut Peekable<Chars<'_>>) {
        match char {
            '"' => self.stack.push(Inside::Double),
            '\'' if self.before == Some('$') => self.stack.push(Inside::DollarSingle),
            '\'' => self.stack.push(Inside::Single),
            '(' => self.open(rest),
            ')' => {
                if matches!(self.here(), Inside::Parens { .. }) {
                    self.stack.pop();
                }
            }
            '#' if self
                .before
                .is_none_or(|c| c.is_whitespace() || ";|&()`".contains(c)) =>
            {
                self.stack.push(Inside::Comment);
            }
            '<' if rest.peek() == Some(&'<') => {
                rest.next();
                let shifts = *self.here() == Inside::Parens { arithmetic: true };
                if rest.peek() == Some(&'<') {
                    rest.next();
                } else if !shifts {
                    self.announce(rest);
                }
            }
            '\n' => self.line_ends(),
            _ => {}
        }
    }

    fn open(&mut self, rest: &Peekable<Chars<'_>>) {
        let doubled = rest.clone().peek() == Some(&'(');
        let inner = *self.here() == Inside::Parens { arithmetic: true };
        let arithmetic = doubled || inner;
        self.stack.push(Inside::Parens { arithmetic });
    }

    /// Reads the word after `<<`.
    fn announce(&mut self, rest: &mut Peekable<Chars<'_>>) {
        let tabs = rest.next_if_eq(&'-').is_some();
        while rest.next_if(|c| *c == ' ' || *c == '\t').is_some() {}
        let mut end = String::new();
        let mut quoted = false;
        let ends = |c: &char| c.is_whitespace() || ";|&()<>".contains(*c);
        while let Some(char) = rest.next_if(|c| !ends(c)) {
            match char {
                '\'' | '"' | '\\' => quoted = true,
                char => end.push(char),
            }
        }
        if !end.is_empty() {
            self.announced.push(Inside::HereDoc {
                end,
                quoted,
                tabs,
                line: String::new(),
            });
        }
    }

    fn line_ends(&mut self) {
        // The first announced is read first, so it lies on top.
        while let Some(document) = self.announced.pop() {
            self.stack.push(document);
        }
    }

    fn take_in_document(&mut self, char: char) {
        let Some(Inside::HereDoc {
            end, tabs, line, ..
        }) = self.stack.last_mut()
        else {
            return;
        };
        if char != '\n' {
            line.push(char);
            return;
        }
        let text = if *tabs {
            line.trim_start_matches('\t')
        } else {
            line.as_str()
        };
        if text == end {
            self.stack.pop();
        } else {
            line.clear();
        }
    }
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
        ] {
            assert_eq!(with_variables(script).unwrap(), expected, "{script}");
        }
    }

    #[test]
    fn an_unknown_reference_is_an_error() {
        assert!(with_variables("echo ${job.nope}").is_err());
    }
}
