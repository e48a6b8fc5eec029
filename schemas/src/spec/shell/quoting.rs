//! Where in a shell script a place stands: read as the shell's own reader would, as far as
//! references need it.

use std::iter::Peekable;
use std::str::Chars;

/// Words after which the shell looks for a command again.
const BEFORE_COMMAND: [&str; 9] = [
    "if", "then", "elif", "else", "while", "until", "do", "time", "!",
];
/// After the name in `${...}` they take a pattern, which may be quoted even within `"..."`.
const ON_PATTERNS: &str = "#%/^,";

/// What the shell's reader is in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Inside {
    Nothing,
    /// `( ... )` and `$( ... )`; `((` is arithmetic, where `<<` shifts.
    Parens {
        arithmetic: bool,
        /// `$(`: part of a word.
        of_word: bool,
    },
    /// `case ... esac`, whose patterns end with a `)` that closes nothing.
    Case(Clause),
    /// `${ ... }`
    Braces {
        /// Within `"..."`, where only the operators on patterns know single quotes.
        quoted: bool,
        /// How many characters of the parameter were read.
        name: u32,
        operator: Option<char>,
    },
    Backticks {
        /// Backslashes in it are undone before its quotes are read.
        escapes: bool,
    },
    Double,
    Single,
    /// `'...'` in `"${x:-...}"`: what is in it is expanded, but no brace closes in it.
    Apostrophes,
    DollarSingle,
    Comment,
    HereDoc {
        end: String,
        quoted: bool,
        /// `<<-`: tabs before the end are ignored.
        tabs: bool,
        line: String,
        /// Commands begun in it with `$(` or a backtick.
        commands: Commands,
    },
}

/// How far a `case` is read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Clause {
    /// The words up to `in`; how many.
    Subject(u32),
    /// A pattern; whether any of it was read.
    Pattern { begun: bool },
    /// The commands up to `;;`.
    Body,
}

/// Commands in a here-document; their quotes are not followed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Commands {
    parens: u32,
    backticks: bool,
}

/// Follows the quoting of a script.
#[derive(Debug, Default)]
pub(super) struct Quoting {
    stack: Vec<Inside>,
    before: Option<char>,
    /// A backslash came last, and takes the meaning from what follows.
    escaped: bool,
    /// The plain word that is being read.
    word: String,
    /// Whether the word is one after the command's name, and so no reserved one.
    argument: bool,
    /// Here-documents announced on this line, which begin on the next.
    announced: Vec<Inside>,
}

impl Quoting {
    pub(super) fn here(&self) -> &Inside {
        self.stack.last().unwrap_or(&Inside::Nothing)
    }

    /// Whether the next character has no meaning of its own.
    pub(super) fn is_escaped(&self) -> bool {
        self.escaped
    }

    /// Whether nobody can say from here how the shell will read this place.
    pub(super) fn is_uncertain(&self) -> bool {
        self.stack.iter().any(|inside| match inside {
            Inside::Backticks { escapes } => *escapes,
            Inside::HereDoc { commands, .. } => *commands != Commands::default(),
            _ => false,
        })
    }

    pub(super) fn read(&mut self, text: &str) {
        let mut chars = text.chars().peekable();
        while let Some(char) = chars.next() {
            self.take(char, &mut chars);
        }
    }

    /// Something stands here that has no meaning to the reader, like the value of a variable.
    pub(super) fn pass(&mut self) {
        self.escaped = false;
        self.before = Some('x');
        match self.stack.last_mut() {
            // No end of a document has it in it.
            Some(Inside::HereDoc { line, .. }) => line.push('\0'),
            _ => self.in_word('\0'),
        }
    }

    fn take(&mut self, char: char, rest: &mut Peekable<Chars<'_>>) {
        if std::mem::take(&mut self.escaped) {
            if char != '\n' || matches!(self.here(), Inside::HereDoc { .. }) {
                self.pass();
            }
            return;
        }
        let before = self.before.replace(char);
        if let Some(Inside::HereDoc { .. }) = self.stack.last() {
            return self.take_in_document(char, before);
        }
        if char == '`' && self.closes_backticks() {
            return;
        }
        let dollar = before == Some('$');
        match (self.stack.last_mut(), char) {
            (Some(Inside::Comment), '\n') => {
                self.stack.pop();
                self.line_ends();
            }
            (Some(Inside::Single | Inside::Apostrophes | Inside::DollarSingle), '\'')
            | (Some(Inside::Double), '"') => {
                self.stack.pop();
            }
            (Some(Inside::Comment | Inside::Single | Inside::Apostrophes), _) => {}
            (_, '\\') => self.escape(),
            (Some(Inside::Braces { .. }), _) => self.take_in_braces(char, dollar, rest),
            (Some(Inside::Double), '(') if dollar => self.open(true, rest),
            (Some(Inside::Double), '{') if dollar => self.brace(true),
            (Some(Inside::Double), '`') => self.backtick(),
            (Some(Inside::Double | Inside::DollarSingle), _) => {}
            _ => self.take_plain(char, before, rest),
        }
    }

    fn escape(&mut self) {
        self.escaped = true;
        for inside in &mut self.stack {
            if let Inside::Backticks { escapes } = inside {
                *escapes = true;
            }
        }
    }

    fn take_plain(&mut self, char: char, before: Option<char>, rest: &mut Peekable<Chars<'_>>) {
        let dollar = before == Some('$');
        let starts = before.is_none_or(|c| c.is_whitespace() || ";|&()`".contains(c));
        if char.is_whitespace() || ";|&<>)".contains(char) || (char == '(' && !dollar) {
            self.word_ends();
        }
        match char {
            '"' => self.quote(Inside::Double),
            '\'' if dollar => self.quote(Inside::DollarSingle),
            '\'' => self.quote(Inside::Single),
            '`' => self.backtick(),
            '{' if dollar => self.brace(false),
            '(' if !self.begins_pattern() => self.open(dollar, rest),
            ')' => self.close(),
            '#' if starts => self.stack.push(Inside::Comment),
            '<' if rest.next_if_eq(&'<').is_some() => {
                let shifts = matches!(
                    self.here(),
                    Inside::Parens {
                        arithmetic: true,
                        ..
                    }
                );
                if rest.next_if_eq(&'<').is_none() && !shifts {
                    self.announce(rest);
                }
            }
            '\n' => {
                self.argument = false;
                self.line_ends();
            }
            ';' | '|' | '&' => {
                self.argument = false;
                if before == Some(';')
                    && let Some(Inside::Case(clause @ Clause::Body)) = self.stack.last_mut()
                {
                    *clause = Clause::Pattern { begun: false };
                }
            }
            '(' | '<' | '>' => {}
            char if char.is_whitespace() => {}
            char => self.in_word(char),
        }
    }

    fn in_word(&mut self, char: char) {
        self.word.push(char);
        if let Some(Inside::Case(Clause::Pattern { begun })) = self.stack.last_mut() {
            *begun = true;
        }
    }

    /// What is quoted or replaced makes a word that is no reserved one.
    fn quote(&mut self, quote: Inside) {
        self.in_word('\0');
        self.stack.push(quote);
    }

    fn backtick(&mut self) {
        self.quote(Inside::Backticks { escapes: false });
        self.command_begins();
    }

    /// A backtick ends the backticks it is in, whatever is open in them.
    fn closes_backticks(&mut self) -> bool {
        let is_backticks = |inside: &Inside| matches!(inside, Inside::Backticks { .. });
        let Some(open) = self.stack.iter().rposition(is_backticks) else {
            return false;
        };
        self.stack.truncate(open);
        self.word_goes_on();
        true
    }

    fn brace(&mut self, quoted: bool) {
        self.quote(Inside::Braces {
            quoted,
            name: 0,
            operator: None,
        });
    }

    fn take_in_braces(&mut self, char: char, dollar: bool, rest: &Peekable<Chars<'_>>) {
        let Some(Inside::Braces {
            quoted,
            name,
            operator,
        }) = self.stack.last_mut()
        else {
            return;
        };
        let quoted = *quoted;
        let of_name = char.is_alphanumeric() || "_[]@*$}".contains(char);
        if operator.is_none() && *name > 0 && !of_name {
            *operator = Some(char);
        }
        *name += 1;
        let of_pattern = operator.is_some_and(|operator| ON_PATTERNS.contains(operator));
        match char {
            '}' => {
                self.stack.pop();
            }
            '"' => self.stack.push(Inside::Double),
            '\'' if dollar && !quoted => self.stack.push(Inside::DollarSingle),
            '\'' if !quoted || of_pattern => self.stack.push(Inside::Single),
            '\'' => self.stack.push(Inside::Apostrophes),
            '`' => self.backtick(),
            '{' if dollar => self.brace(quoted),
            '(' if dollar => self.open(true, rest),
            _ => {}
        }
    }

    /// Takes the `(` that may stand before the pattern of a `case`.
    fn begins_pattern(&mut self) -> bool {
        match self.stack.last_mut() {
            Some(Inside::Case(Clause::Pattern { begun })) => !std::mem::replace(begun, true),
            _ => false,
        }
    }

    fn open(&mut self, of_word: bool, rest: &Peekable<Chars<'_>>) {
        let doubled = rest.clone().peek() == Some(&'(');
        let inner = matches!(
            self.here(),
            Inside::Parens {
                arithmetic: true,
                ..
            }
        );
        self.stack.push(Inside::Parens {
            arithmetic: doubled || inner,
            of_word,
        });
        self.command_begins();
    }

    fn close(&mut self) {
        match self.stack.last_mut() {
            Some(Inside::Parens { of_word: true, .. }) => {
                self.stack.pop();
                self.word_goes_on();
            }
            Some(Inside::Parens { .. }) => {
                self.stack.pop();
                self.command_begins();
            }
            Some(Inside::Case(clause)) => {
                *clause = Clause::Body;
                self.command_begins();
            }
            _ => {}
        }
    }

    fn command_begins(&mut self) {
        self.word.clear();
        self.argument = false;
    }

    /// After a part of a word that was commands of its own.
    fn word_goes_on(&mut self) {
        "\0".clone_into(&mut self.word);
        self.argument = true;
    }

    fn word_ends(&mut self) {
        let word = std::mem::take(&mut self.word);
        if word.is_empty() {
            return;
        }
        match self.stack.last_mut() {
            Some(Inside::Case(clause @ Clause::Subject(1..))) if word == "in" => {
                *clause = Clause::Pattern { begun: false };
            }
            Some(Inside::Case(Clause::Subject(words))) => *words += 1,
            Some(Inside::Case(Clause::Pattern { .. })) => {
                if word == "esac" {
                    self.stack.pop();
                }
            }
            Some(Inside::Case(Clause::Body)) if word == "esac" && !self.argument => {
                self.stack.pop();
            }
            _ if word == "{" => self.argument = false,
            _ if self.argument => {}
            _ if word == "case" => self.stack.push(Inside::Case(Clause::Subject(0))),
            _ => self.argument = !BEFORE_COMMAND.contains(&word.as_str()),
        }
    }

    /// Reads the word after `<<`.
    fn announce(&mut self, rest: &mut Peekable<Chars<'_>>) {
        let tabs = rest.next_if_eq(&'-').is_some();
        while rest.next_if(|c| *c == ' ' || *c == '\t').is_some() {}
        let mut end = String::new();
        let mut quoted = false;
        let mut quote = None;
        let ends = |c: char| c.is_whitespace() || ";|&()<>".contains(c);
        while let Some(char) = rest.next_if(|c| quote.is_some() || !ends(*c)) {
            match char {
                char if quote == Some(char) => quote = None,
                '\'' | '"' if quote.is_none() => {
                    quoted = true;
                    quote = Some(char);
                }
                '\\' if quote.is_none() => quoted = true,
                char => end.push(char),
            }
        }
        if quoted || !end.is_empty() {
            self.announced.push(Inside::HereDoc {
                end,
                quoted,
                tabs,
                line: String::new(),
                commands: Commands::default(),
            });
        }
    }

    fn line_ends(&mut self) {
        // The first announced is read first, so it lies on top.
        while let Some(document) = self.announced.pop() {
            self.stack.push(document);
        }
    }

    fn take_in_document(&mut self, char: char, before: Option<char>) {
        let Some(Inside::HereDoc {
            end,
            quoted,
            tabs,
            line,
            commands,
        }) = self.stack.last_mut()
        else {
            return;
        };
        if char != '\n' {
            line.push(char);
            if !*quoted {
                self.escaped = char == '\\';
                commands.take(char, before == Some('$'));
            }
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

impl Commands {
    fn take(&mut self, char: char, dollar: bool) {
        match char {
            '`' => self.backticks = !self.backticks,
            '(' if dollar || self.parens > 0 => self.parens += 1,
            ')' => self.parens = self.parens.saturating_sub(1),
            _ => {}
        }
    }
}
