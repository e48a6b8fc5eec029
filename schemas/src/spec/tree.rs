//! The tree that every syntax is read into: values with their places.

use std::collections::HashMap;

use super::problem::{Problem, ProblemKind, shown};

/// The deepest nesting that is read; a job needs 5.
pub(crate) const DEPTH_MAX: usize = 32;

/// The most values in a file; bounds what a file of the largest size can cost.
pub(crate) const VALUES_MAX: usize = 50_000;

/// Where a value begins: line and character, both from 1; 0 where the syntax has no lines.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Place {
    pub(crate) line: u32,
    pub(crate) column: u32,
}

/// A value with its place.
#[derive(Debug)]
pub(crate) struct Node {
    pub(crate) place: Place,
    pub(crate) value: Value,
}

/// A value of the data model that the syntaxes share.
#[derive(Debug)]
pub(crate) enum Value {
    Null,
    /// With the text it was written as.
    Bool(bool, String),
    /// With the text it was written as.
    Integer(i64, String),
    /// With the text it was written as. Also integers past 64 bits.
    Float(f64, String),
    Text(String),
    List(Vec<Node>),
    Map(Vec<Entry>),
}

/// A key of a map and its value.
#[derive(Debug)]
pub(crate) struct Entry {
    pub(crate) key: String,
    pub(crate) place: Place,
    pub(crate) node: Node,
}

impl Node {
    /// As a JSON value. What JSON has no number for becomes text.
    pub(crate) fn to_json(&self) -> serde_json::Value {
        use serde_json::Value as Json;
        match &self.value {
            Value::Null => Json::Null,
            Value::Bool(value, _) => Json::from(*value),
            Value::Integer(value, _) => Json::from(*value),
            Value::Float(value, _) if value.is_finite() => Json::from(*value),
            Value::Float(_, text) | Value::Text(text) => Json::from(text.as_str()),
            Value::List(nodes) => nodes.iter().map(Self::to_json).collect(),
            Value::Map(entries) => entries
                .iter()
                .map(|entry| (entry.key.clone(), entry.node.to_json()))
                .collect(),
        }
    }
}

impl Value {
    /// The text of a scalar, if it is the only way to write that value: `80`, but not `022`, `1.10`
    /// or `True`, which another syntax would write otherwise.
    pub(crate) fn as_written(&self) -> Option<&str> {
        let (written, usual) = match self {
            Self::Text(text) => return Some(text),
            Self::Bool(value, text) => (text, value.to_string()),
            Self::Integer(value, text) => (text, value.to_string()),
            Self::Float(value, text) => (text, serde_json::Value::from(*value).to_string()),
            Self::Null | Self::List(_) | Self::Map(_) => return None,
        };
        (*written == usual).then_some(written)
    }
}

/// Counts what is read, so that a small text cannot become a large tree.
#[derive(Debug, Default)]
pub(crate) struct Budget {
    values: usize,
}

impl Budget {
    /// Takes one value at this depth of nesting; the error has no place yet.
    pub(crate) fn take(&mut self, depth: usize) -> Result<(), Problem> {
        self.values += 1;
        if depth > DEPTH_MAX {
            return Err(too_deep());
        }
        if self.values > VALUES_MAX {
            let message = format!("the file has more than {VALUES_MAX} values");
            return Err(Problem::new(message, "").of(ProblemKind::TooLarge));
        }
        Ok(())
    }
}

/// Nested deeper than is read, also where a parser's own limit was met first.
pub(crate) fn too_deep() -> Problem {
    let message = format!("the file is nested deeper than {DEPTH_MAX} levels");
    Problem::new(message, "").of(ProblemKind::TooLarge)
}

/// Gathers the entries of a map.
#[derive(Debug, Default)]
pub(crate) struct MapBuilder {
    entries: Vec<Entry>,
    /// The lines of the keys, once there are more than a glance takes in.
    lines: HashMap<String, u32>,
}

/// So many keys are looked through; most maps of a job have no more.
const GLANCE: usize = 16;

impl MapBuilder {
    /// Adds an entry; a key that is already there is a problem that names both places.
    pub(crate) fn push(&mut self, key: String, place: Place, node: Node) -> Result<(), Problem> {
        if let Some(line) = self.line_of(&key) {
            let first = match line {
                0 => String::new(),
                _ => format!(" (first on line {line})"),
            };
            let message = format!("`{}` is there twice{first}", shown(&key));
            let problem = Problem::new(message, "remove one of the two");
            return Err(problem.at(place.line, place.column));
        }
        if self.entries.len() == GLANCE {
            let known = self.entries.iter();
            let known = known.map(|entry| (entry.key.clone(), entry.place.line));
            self.lines = known.collect();
        }
        if self.entries.len() >= GLANCE {
            self.lines.insert(key.clone(), place.line);
        }
        self.entries.push(Entry { key, place, node });
        Ok(())
    }

    /// The line on which a key stands already.
    fn line_of(&self, key: &str) -> Option<u32> {
        if self.entries.len() > GLANCE {
            return self.lines.get(key).copied();
        }
        let known = self.entries.iter().find(|entry| entry.key == key);
        known.map(|entry| entry.place.line)
    }

    pub(crate) fn finish(self) -> Value {
        Value::Map(self.entries)
    }
}

/// How often the characters of a text are counted up to, in bytes.
const BLOCK: usize = 1024;

/// Lines and columns of byte offsets in a text.
#[derive(Debug)]
pub(crate) struct Lines<'a> {
    text: &'a str,
    /// Where each line begins.
    starts: Vec<usize>,
    /// The characters before each block, so that a column in a line of megabytes is cheap.
    characters: Vec<usize>,
}

impl<'a> Lines<'a> {
    pub(crate) fn new(text: &'a str) -> Self {
        let breaks = text.bytes().enumerate().filter(|(_, byte)| *byte == b'\n');
        let starts = std::iter::once(0)
            .chain(breaks.map(|(at, _)| at + 1))
            .collect();
        let mut count = 0;
        let characters = text
            .as_bytes()
            .chunks(BLOCK)
            .map(|block| {
                let before = count;
                count += characters_in(block);
                before
            })
            .collect();
        Self {
            text,
            starts,
            characters,
        }
    }

    /// The place of a byte offset; one past the end is the end.
    pub(crate) fn place(&self, offset: usize) -> Place {
        let offset = offset.min(self.text.len());
        let line = self.starts.partition_point(|start| *start <= offset).max(1);
        let start = self.starts.get(line - 1).copied().unwrap_or(0);
        let column = self.characters_before(offset) - self.characters_before(start) + 1;
        Place {
            line: u32::try_from(line).unwrap_or(u32::MAX),
            column: u32::try_from(column).unwrap_or(u32::MAX),
        }
    }

    /// The byte offset of a byte in a line, both from 1.
    pub(crate) fn offset(&self, line: usize, byte: usize) -> usize {
        let start = self.starts.get(line.saturating_sub(1)).copied();
        start.map_or(self.text.len(), |start| start + byte.saturating_sub(1))
    }

    fn characters_before(&self, offset: usize) -> usize {
        let block = offset / BLOCK;
        let Some(before) = self.characters.get(block) else {
            // Only the end of a text that fills its last block.
            return characters_in(self.text.as_bytes());
        };
        before + characters_in(&self.text.as_bytes()[block * BLOCK..offset])
    }
}

fn characters_in(bytes: &[u8]) -> usize {
    // All but the continuation bytes of UTF-8.
    bytes.iter().filter(|byte| **byte & 0xc0 != 0x80).count()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_that_is_there_twice_is_found_in_maps_of_any_size() {
        for size in [1, GLANCE - 1, GLANCE, GLANCE + 1, 3 * GLANCE] {
            for again in [0, size / 2, size - 1] {
                let mut map = MapBuilder::default();
                let mut push = |key: usize, line| {
                    let place = Place { line, column: 1 };
                    let value = Value::Null;
                    map.push(format!("key-{key}"), place, Node { place, value })
                };
                for key in 0..size {
                    push(key, u32::try_from(key).unwrap() + 1).unwrap();
                }
                let twice = push(again, 99).unwrap_err();
                let first = format!("(first on line {})", again + 1);
                assert!(twice.message.ends_with(&first), "{size}: {}", twice.message);
            }
        }
    }
}
