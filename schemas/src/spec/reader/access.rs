//! The parts of a value, one after the other.

use serde::de::value::StrDeserializer;
use serde::de::{DeserializeSeed, Error, IntoDeserializer, MapAccess, SeqAccess};

use super::{Part, Path, ReadError, Reader};
use crate::spec::tree::{Entry, Node, Value};

pub(super) struct Parts<'a> {
    pub(super) reader: Reader<'a>,
    pub(super) parts: std::slice::Iter<'static, Part>,
}

impl<'de> SeqAccess<'de> for Parts<'_> {
    type Error = ReadError;

    fn next_element_seed<T: DeserializeSeed<'de>>(
        &mut self,
        seed: T,
    ) -> Result<Option<T::Value>, ReadError> {
        let Some(part) = self.parts.next() else {
            return Ok(None);
        };
        let reader = self.reader;
        let place = reader.node.place;
        let value = match part {
            Part::Line => seed.deserialize(place.line.into_deserializer()),
            Part::Column => seed.deserialize(place.column.into_deserializer()),
            Part::Path => seed.deserialize(reader.path.text().into_deserializer()),
            Part::IsMap => {
                let is_map = matches!(reader.node.value, Value::Map(_));
                seed.deserialize(is_map.into_deserializer())
            }
            Part::Value => seed.deserialize(reader),
            Part::Noted => match seed.deserialize(reader) {
                Ok(value) => Ok(value),
                Err(error) => {
                    reader.note(error);
                    return Ok(None);
                }
            },
        };
        value.map(Some)
    }
}

pub(super) struct Items<'a> {
    pub(super) reader: Reader<'a>,
    pub(super) nodes: std::iter::Enumerate<std::slice::Iter<'a, Node>>,
}

impl<'de> SeqAccess<'de> for Items<'_> {
    type Error = ReadError;

    fn next_element_seed<T: DeserializeSeed<'de>>(
        &mut self,
        seed: T,
    ) -> Result<Option<T::Value>, ReadError> {
        let Some((index, node)) = self.nodes.next() else {
            return Ok(None);
        };
        let reader = Reader {
            node,
            path: Path::Index(&self.reader.path, index),
            problems: self.reader.problems,
        };
        seed.deserialize(reader).map(Some)
    }
}

pub(super) struct Entries<'a> {
    pub(super) reader: Reader<'a>,
    pub(super) rest: std::slice::Iter<'a, Entry>,
    /// Name and fields of a struct; other keys were noted and are passed over.
    pub(super) fields: Option<(&'static str, &'static [&'static str])>,
    pub(super) current: Option<&'a Entry>,
}

impl<'de> MapAccess<'de> for Entries<'_> {
    type Error = ReadError;

    fn next_key_seed<K: DeserializeSeed<'de>>(
        &mut self,
        seed: K,
    ) -> Result<Option<K::Value>, ReadError> {
        let fields = self.fields;
        let problems = self.reader.problems;
        let is_field = |key: &str| {
            fields.is_none_or(|(of, fields)| {
                fields.contains(&key) && !problems.borrow().refuses(of, key)
            })
        };
        self.current = self.rest.by_ref().find(|entry| is_field(&entry.key));
        let Some(entry) = self.current else {
            return Ok(None);
        };
        if fields.is_some() {
            // The name of a field is only looked up.
            let key: StrDeserializer<'_, ReadError> = entry.key.as_str().into_deserializer();
            return seed.deserialize(key).map(Some);
        }
        let node = Node {
            place: entry.place,
            value: Value::Text(entry.key.clone()),
        };
        let reader = Reader {
            node: &node,
            path: Path::Key(&self.reader.path, &entry.key),
            problems: self.reader.problems,
        };
        seed.deserialize(reader).map(Some)
    }

    fn next_value_seed<T: DeserializeSeed<'de>>(&mut self, seed: T) -> Result<T::Value, ReadError> {
        let Some(entry) = self.current.take() else {
            return Err(ReadError::custom("a value without its key"));
        };
        seed.deserialize(Reader {
            node: &entry.node,
            path: Path::Key(&self.reader.path, &entry.key),
            problems: self.reader.problems,
        })
    }
}
