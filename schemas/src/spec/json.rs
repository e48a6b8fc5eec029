//! JSON into the tree.
//!
//! `serde_json` is the only judge of what is JSON. It gives no places, but it gives raw values that
//! are slices of the text, and a slice knows where it begins. Each level is read again for the
//! next; the depth is bounded, so the cost is too.

use std::fmt;

use serde::de::{Deserialize, Deserializer, MapAccess, Visitor};
use serde_json::value::RawValue;

use super::problem::Problem;
use super::tree::{Budget, DEPTH_MAX, Lines, MapBuilder, Node, Place, Value, too_deep};

/// Reads a document.
pub(crate) fn parse(text: &str) -> Result<Node, Problem> {
    let lines = Lines::new(text);
    let root: &RawValue = serde_json::from_str(text).map_err(|error| {
        let place = lines.place(lines.offset(error.line(), error.column()));
        Problem::new(format!("not JSON: {}", message(&error)), "").at(place.line, place.column)
    })?;
    if let Some(offset) = too_deep_at(text) {
        let place = lines.place(offset);
        return Err(too_deep().at(place.line, place.column));
    }
    let mut reader = Reader {
        text,
        lines,
        budget: Budget::default(),
    };
    reader.node(root, 0)
}

/// Where a text, known to be JSON, nests too deep: found before its levels are read one by one.
fn too_deep_at(text: &str) -> Option<usize> {
    let mut depth = 0;
    let mut in_string = false;
    let mut escaped = false;
    for (offset, byte) in text.bytes().enumerate() {
        match byte {
            _ if escaped => escaped = false,
            b'\\' => escaped = true,
            b'"' => in_string = !in_string,
            _ if in_string => {}
            b'[' | b'{' => depth += 1,
            b']' | b'}' => depth -= 1,
            _ => {}
        }
        if depth > DEPTH_MAX {
            return Some(offset);
        }
    }
    None
}

struct Reader<'a> {
    text: &'a str,
    lines: Lines<'a>,
    budget: Budget,
}

/// The entries of an object as slices of the text, in order, doubles included.
struct Object<'a>(Vec<(&'a RawValue, &'a RawValue)>);

impl<'a> Reader<'a> {
    fn node(&mut self, raw: &'a RawValue, depth: usize) -> Result<Node, Problem> {
        let text = raw.get();
        let place = self.place(text);
        let at = |problem: Problem| problem.at(place.line, place.column);
        let first = text.as_bytes().first();
        let depth = depth + usize::from(matches!(first, Some(b'{' | b'[')));
        self.budget.take(depth).map_err(at)?;
        let value = match first {
            Some(b'{') => {
                let object: Object<'a> = decode(text).map_err(at)?;
                let mut map = MapBuilder::default();
                for (key, value) in object.0 {
                    let place = self.place(key.get());
                    let name: String = decode(key.get())
                        .map_err(|problem| problem.at(place.line, place.column))?;
                    map.push(name, place, self.node(value, depth)?)?;
                }
                map.finish()
            }
            Some(b'[') => {
                let list: Vec<&'a RawValue> = decode(text).map_err(at)?;
                let nodes = list.into_iter().map(|item| self.node(item, depth));
                Value::List(nodes.collect::<Result<_, _>>()?)
            }
            Some(b'"') => Value::Text(decode(text).map_err(at)?),
            _ => plain(text),
        };
        Ok(Node { place, value })
    }

    /// Where a slice of the text begins.
    fn place(&self, slice: &str) -> Place {
        let offset = (slice.as_ptr() as usize).saturating_sub(self.text.as_ptr() as usize);
        self.lines.place(offset)
    }
}

fn plain(text: &str) -> Value {
    let own = || text.to_owned();
    match text {
        "true" => Value::Bool(true, own()),
        "false" => Value::Bool(false, own()),
        _ => match (text.parse::<i64>(), text.parse::<f64>()) {
            (Ok(value), _) => Value::Integer(value, own()),
            (Err(_), Ok(value)) => Value::Float(value, own()),
            _ => Value::Null,
        },
    }
}

fn decode<'a, T: Deserialize<'a>>(text: &'a str) -> Result<T, Problem> {
    serde_json::from_str(text)
        .map_err(|error| Problem::new(format!("not JSON: {}", message(&error)), ""))
}

/// The error without its own place, which is relative to what was decoded.
fn message(error: &serde_json::Error) -> String {
    let text = error.to_string();
    let end = text.rfind(" at line ").unwrap_or(text.len());
    text[..end].to_owned()
}

impl<'de> Deserialize<'de> for Object<'de> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Entries;
        impl<'de> Visitor<'de> for Entries {
            type Value = Object<'de>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
                let mut entries = Vec::new();
                while let Some(entry) = map.next_entry()? {
                    entries.push(entry);
                }
                Ok(Object(entries))
            }
        }
        deserializer.deserialize_map(Entries)
    }
}
