//! A strict serde deserializer over the tree.
//!
//! Three things are its own. A [`Field`](super::field::Field) gets the place and path of its value,
//! and when the value does not read, the problem is noted and reading goes on, so that all of them
//! are reported at once. A [`Form`](super::field::Form) learns whether the value is a map. And the
//! keys of a struct are checked before it is read, for the same reason.

mod access;

use std::cell::RefCell;
use std::fmt::{self, Display, Write};

use serde::de::value::StrDeserializer;
use serde::de::{Deserializer, Error, Expected, IntoDeserializer, Unexpected, Visitor};

use self::access::{Entries, Items, Parts};
use super::file::JOB_FIELDS;
use super::later::{JOB, TASK, is_later, later, supported};
use super::problem::{Problem, Problems, nearest, shown, suggestion};
use super::tree::{Entry, Node, Place, Value};

/// The name under which a `Field` asks for line, column, path and value.
pub(crate) const FIELD: &str = "$field";
/// The name under which a `Form` asks whether the value is a map, and for the value.
pub(crate) const FORM: &str = "$form";
/// The name under which a number, `true` and `false` are given as text.
pub(crate) const TEXT: &str = "$text";

/// Reads one node.
#[derive(Clone, Copy)]
pub(crate) struct Reader<'a> {
    node: &'a Node,
    path: Path<'a>,
    problems: &'a RefCell<Problems>,
}

/// The way from the top of the file to a value.
#[derive(Clone, Copy)]
pub(crate) enum Path<'a> {
    Root,
    Key(&'a Path<'a>, &'a str),
    Index(&'a Path<'a>, usize),
}

impl Path<'_> {
    /// As messages name it. Every field has its own, so no text is made on the way.
    fn text(&self) -> String {
        let mut text = String::with_capacity(self.length());
        self.append_to(&mut text);
        text
    }

    /// About so many bytes.
    fn length(&self) -> usize {
        match self {
            Self::Root => 0,
            Self::Key(parent, key) => parent.length() + 1 + key.len(),
            Self::Index(parent, _) => parent.length() + 4,
        }
    }

    fn append_to(&self, text: &mut String) {
        match self {
            Self::Root => {}
            Self::Key(parent, key) => {
                parent.append_to(text);
                if !matches!(parent, Path::Root) {
                    text.push('.');
                }
                if is_plain(key) {
                    text.push_str(key);
                } else {
                    text.push_str(&shown(key));
                }
            }
            Self::Index(parent, index) => {
                parent.append_to(text);
                // Writing to a text cannot fail.
                let _ = write!(text, "[{index}]");
            }
        }
    }
}

/// Whether a key is shown as it is: short, and nothing in it would be written otherwise.
fn is_plain(key: &str) -> bool {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-');
    key.len() <= 60 && key.bytes().all(plain)
}

/// Why a value does not read.
#[derive(Debug)]
pub(crate) enum ReadError {
    /// The place is that of the value being read.
    Wrong(Problem),
    /// The value is not what was expected; what it is, its place tells.
    Expected(String),
    /// With its place and path.
    Placed(Box<Problem>),
}

impl<'a> Reader<'a> {
    pub(crate) fn new(node: &'a Node, problems: &'a RefCell<Problems>) -> Self {
        Self {
            node,
            path: Path::Root,
            problems,
        }
    }

    /// Notes what is wrong here.
    fn note(&self, error: ReadError) {
        self.problems.borrow_mut().push(self.place(error));
    }

    fn place(&self, error: ReadError) -> Problem {
        let problem = match error {
            ReadError::Placed(problem) => return *problem,
            ReadError::Wrong(problem) => problem,
            ReadError::Expected(expected) => unexpected(&expected, &self.node.value),
        };
        let Place { line, column } = self.node.place;
        problem.at(line, column).on(self.path.text())
    }

    fn placed<T>(&self, result: Result<T, ReadError>) -> Result<T, ReadError> {
        result.map_err(|error| ReadError::Placed(Box::new(self.place(error))))
    }

    /// Notes every key that is none of `fields`.
    fn check_keys(&self, name: &str, entries: &[Entry], fields: &[&'static str]) {
        for entry in entries {
            let key = entry.key.as_str();
            let refused = self.problems.borrow().refuses(name, key);
            if (fields.contains(&key) && !refused) || self.problems.borrow().is_full() {
                continue;
            }
            let problem = if refused {
                Problem::not_yet(key)
            } else if name == TASK && (JOB_FIELDS.contains(&key) || is_later(JOB, key)) {
                let message = format!("`{key}` is a field of the job, not of a task");
                Problem::new(message, "move it to the top of the file")
            } else {
                unknown_field(key, &supported(name, fields), &later(name))
            };
            let path = Path::Key(&self.path, key).text();
            let problem = problem.at(entry.place.line, entry.place.column).on(path);
            self.problems.borrow_mut().push(problem);
        }
    }
}

/// `unknown field`, with the nearest valid one, or all that this build supports.
pub(crate) fn unknown_field(key: &str, fields: &[&str], later: &[&str]) -> Problem {
    let message = format!("unknown field `{}`", shown(key));
    let near = nearest(key, fields.iter().chain(later).copied());
    Problem::new(message, near.unwrap_or_else(|| suggestion(key, fields)))
}

fn unexpected(expected: &str, value: &Value) -> Problem {
    let expected = match expected {
        "a string" => "text",
        "a boolean" => "`true` or `false`",
        "a sequence" => "a list",
        "f64" => "a number",
        other if other.starts_with("struct ") => "a map",
        other => other,
    };
    let found = match value {
        Value::Null => "nothing".to_owned(),
        Value::Bool(_, text) => format!("`{text}`"),
        Value::Integer(_, text) | Value::Float(_, text) => format!("the number `{}`", shown(text)),
        Value::Text(text) => format!("the text `{}`", shown(text)),
        Value::List(_) => "a list".to_owned(),
        Value::Map(_) => "a map".to_owned(),
    };
    let help = match (expected, value) {
        ("text", Value::Bool(..) | Value::Integer(..) | Value::Float(..)) => "put it in quotes",
        (_, Value::Text(text)) if expected.contains("number") && text.parse::<f64>().is_ok() => {
            "remove the quotes"
        }
        ("`true` or `false`", Value::Text(text))
            if matches!(text.to_lowercase().as_str(), "yes" | "on" | "y" | "true") =>
        {
            "write `true`"
        }
        ("`true` or `false`", Value::Text(text))
            if matches!(text.to_lowercase().as_str(), "no" | "off" | "n" | "false") =>
        {
            "write `false`"
        }
        ("a list", Value::Text(_)) => "write a list, such as `[sleep, \"10\"]`",
        _ => "",
    };
    Problem::new(format!("expected {expected}, found {found}"), help)
}

impl Display for ReadError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Wrong(problem) => Display::fmt(problem, f),
            Self::Expected(expected) => write!(f, "expected {expected}"),
            Self::Placed(problem) => Display::fmt(problem, f),
        }
    }
}

impl std::error::Error for ReadError {}

impl Error for ReadError {
    /// The first line is the message, a second one the help.
    fn custom<T: Display>(text: T) -> Self {
        let text = text.to_string();
        let (message, help) = text.split_once('\n').unwrap_or((&text, ""));
        Self::Wrong(Problem::new(message, help))
    }

    fn invalid_type(_: Unexpected<'_>, expected: &dyn Expected) -> Self {
        Self::Expected(expected.to_string())
    }

    fn invalid_value(_: Unexpected<'_>, expected: &dyn Expected) -> Self {
        Self::Expected(expected.to_string())
    }

    fn unknown_variant(variant: &str, expected: &'static [&'static str]) -> Self {
        let help = suggestion(variant, expected);
        Self::Wrong(Problem::new(
            format!("unknown value `{}`", shown(variant)),
            help,
        ))
    }

    fn unknown_field(field: &str, expected: &'static [&'static str]) -> Self {
        Self::Wrong(unknown_field(field, expected, &[]))
    }

    fn missing_field(field: &'static str) -> Self {
        Self::Wrong(Problem::new(format!("`{field}` is missing"), ""))
    }

    fn duplicate_field(field: &'static str) -> Self {
        Self::Wrong(Problem::new(format!("`{field}` is there twice"), ""))
    }
}

impl<'de> Deserializer<'de> for Reader<'_> {
    type Error = ReadError;

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, ReadError> {
        self.placed(match &self.node.value {
            Value::Null => visitor.visit_unit(),
            Value::Bool(value, _) => visitor.visit_bool(*value),
            Value::Integer(value, _) => visitor.visit_i64(*value),
            Value::Float(value, _) => visitor.visit_f64(*value),
            Value::Text(text) => visitor.visit_str(text),
            Value::List(nodes) => visitor.visit_seq(Items {
                reader: self,
                nodes: nodes.iter().enumerate(),
            }),
            Value::Map(entries) => visitor.visit_map(Entries {
                reader: self,
                rest: entries.iter(),
                fields: None,
                current: None,
            }),
        })
    }

    fn deserialize_newtype_struct<V: Visitor<'de>>(
        self,
        name: &'static str,
        visitor: V,
    ) -> Result<V::Value, ReadError> {
        if name != TEXT {
            return self.placed(visitor.visit_newtype_struct(self));
        }
        match (&self.node.value, self.node.value.as_written()) {
            (_, Some(text)) => self.placed(visitor.visit_str(text)),
            (Value::Bool(_, text) | Value::Integer(_, text) | Value::Float(_, text), None) => {
                let message = format!("`{}` can be read in more than one way", shown(text));
                let problem = Problem::new(message, "put it in quotes");
                self.placed(Err(ReadError::Wrong(problem)))
            }
            _ => self.deserialize_any(visitor),
        }
    }

    fn deserialize_tuple_struct<V: Visitor<'de>>(
        self,
        name: &'static str,
        _: usize,
        visitor: V,
    ) -> Result<V::Value, ReadError> {
        let parts: &'static [Part] = match name {
            FIELD => &[Part::Line, Part::Column, Part::Path, Part::Noted],
            FORM => &[Part::IsMap, Part::Value],
            _ => return self.deserialize_any(visitor),
        };
        visitor.visit_seq(Parts {
            reader: self,
            parts: parts.iter(),
        })
    }

    fn deserialize_struct<V: Visitor<'de>>(
        self,
        name: &'static str,
        fields: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, ReadError> {
        let Value::Map(entries) = &self.node.value else {
            return self.deserialize_any(visitor);
        };
        self.check_keys(name, entries, fields);
        self.placed(visitor.visit_map(Entries {
            reader: self,
            rest: entries.iter(),
            fields: Some((name, fields)),
            current: None,
        }))
    }

    fn deserialize_enum<V: Visitor<'de>>(
        self,
        name: &'static str,
        variants: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, ReadError> {
        let result = match &self.node.value {
            Value::Text(text) if self.problems.borrow().refuses(name, text) => {
                Err(ReadError::Wrong(Problem::not_yet(text)))
            }
            Value::Text(text) => {
                let text: StrDeserializer<'_, ReadError> = text.as_str().into_deserializer();
                visitor.visit_enum(text)
            }
            _ => Err(ReadError::Expected(format!(
                "one of {}",
                supported(name, variants).join(", ")
            ))),
        };
        self.placed(result)
    }

    serde::forward_to_deserialize_any! {
        bool i8 i16 i32 i64 u8 u16 u32 u64 f32 f64 char str string bytes byte_buf option unit
        unit_struct seq tuple map identifier ignored_any
    }
}

/// What a `Field` or `Form` is given, one after the other.
enum Part {
    Line,
    Column,
    Path,
    /// The value; if it does not read, that is noted and there is none.
    Noted,
    IsMap,
    Value,
}
