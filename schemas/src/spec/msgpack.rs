//! `MessagePack` into the tree: what programs submit on the bus. There are no lines, only paths.

use std::fmt;
use std::io::Cursor;

use serde::Deserializer;
use serde::de::{DeserializeSeed, Error, MapAccess, SeqAccess, Visitor};

use super::problem::Problem;
use super::tree::{Budget, DEPTH_MAX, MapBuilder, Node, Place, Value, too_deep};

/// Reads one value, to the end of the bytes.
pub(crate) fn parse(bytes: &[u8]) -> Result<Node, Problem> {
    let mut state = State::default();
    let mut decoder = rmp_serde::Deserializer::new(Cursor::new(bytes));
    decoder.set_max_depth(DEPTH_MAX + 2);
    let seed = Seed {
        state: &mut state,
        depth: 0,
    };
    let node = seed.deserialize(&mut decoder).map_err(|error| {
        let refused = state.refused.take();
        refused.unwrap_or_else(|| match error {
            rmp_serde::decode::Error::DepthLimitExceeded => too_deep(),
            error => Problem::new(format!("not MessagePack: {error}"), ""),
        })
    })?;
    let end = decoder.get_ref().position();
    if usize::try_from(end) != Ok(bytes.len()) {
        let message = format!("not MessagePack: bytes follow the job at offset {end}");
        return Err(Problem::new(message, ""));
    }
    Ok(node)
}

#[derive(Default)]
struct State {
    budget: Budget,
    /// A problem of our own, which the decoder's error type cannot carry.
    refused: Option<Problem>,
}

struct Seed<'a> {
    state: &'a mut State,
    depth: usize,
}

impl Seed<'_> {
    fn take<E: Error>(&mut self, depth: usize) -> Result<(), E> {
        let taken = self.state.budget.take(depth);
        taken.map_err(|problem| self.refuse(problem))
    }

    fn refuse<E: Error>(&mut self, problem: Problem) -> E {
        let error = E::custom(&problem);
        self.state.refused = Some(problem);
        error
    }

    fn leaf<E: Error>(mut self, value: Value) -> Result<Node, E> {
        self.take(self.depth)?;
        Ok(node(value))
    }
}

fn node(value: Value) -> Node {
    Node {
        place: Place::default(),
        value,
    }
}

impl<'de> DeserializeSeed<'de> for Seed<'_> {
    type Value = Node;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Node, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Seed<'_> {
    type Value = Node;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a value of a job")
    }

    fn visit_unit<E: Error>(self) -> Result<Node, E> {
        self.leaf(Value::Null)
    }

    fn visit_bool<E: Error>(self, value: bool) -> Result<Node, E> {
        self.leaf(Value::Bool(value, value.to_string()))
    }

    fn visit_i64<E: Error>(self, value: i64) -> Result<Node, E> {
        self.leaf(Value::Integer(value, value.to_string()))
    }

    fn visit_u64<E: Error>(self, value: u64) -> Result<Node, E> {
        let text = value.to_string();
        self.leaf(match i64::try_from(value) {
            Ok(value) => Value::Integer(value, text),
            Err(_) => Value::Float(f64::INFINITY, text),
        })
    }

    fn visit_f64<E: Error>(self, value: f64) -> Result<Node, E> {
        self.leaf(Value::Float(value, value.to_string()))
    }

    fn visit_str<E: Error>(self, value: &str) -> Result<Node, E> {
        self.leaf(Value::Text(value.to_owned()))
    }

    fn visit_seq<A: SeqAccess<'de>>(mut self, mut items: A) -> Result<Node, A::Error> {
        let depth = self.depth + 1;
        self.take(depth)?;
        let mut nodes = Vec::new();
        while let Some(item) = items.next_element_seed(Seed {
            state: self.state,
            depth,
        })? {
            nodes.push(item);
        }
        Ok(node(Value::List(nodes)))
    }

    fn visit_map<A: MapAccess<'de>>(mut self, mut map: A) -> Result<Node, A::Error> {
        let depth = self.depth + 1;
        self.take(depth)?;
        let mut entries = MapBuilder::default();
        while let Some(key) = map.next_key::<String>()? {
            let value = map.next_value_seed(Seed {
                state: self.state,
                depth,
            })?;
            let pushed = entries.push(key, Place::default(), value);
            pushed.map_err(|problem| self.refuse::<A::Error>(problem))?;
        }
        Ok(node(entries.finish()))
    }
}
