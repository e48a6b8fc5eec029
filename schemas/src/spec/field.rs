//! What the types of a job file are made of: places, short-hands, quantities.

use std::borrow::Cow;
use std::fmt;
use std::marker::PhantomData;
use std::str::FromStr;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::de::{Deserialize, Deserializer, Error, MapAccess, SeqAccess, Visitor};

use super::problem::Problem;
use super::reader::{FIELD, FORM, TEXT};
use super::tree::Place;
use crate::ids::Name;
use crate::units::{Bytes, MilliCores, Millis, UnitError};

/// A field that may be absent, with its place; without a value if that did not read, which is
/// then already noted.
#[derive(Debug)]
pub(crate) struct Field<T> {
    pub(crate) value: Option<T>,
    pub(crate) present: bool,
    pub(crate) place: Place,
    pub(crate) path: String,
}

/// A value in its short form or as a map.
#[derive(Debug)]
pub(crate) enum Form<S, M> {
    Short(S),
    Full(M),
}

/// A map with free keys, in the order of the file.
#[derive(Debug)]
pub(crate) struct Entries<T>(pub(crate) Vec<(Field<String>, Field<T>)>);

/// Text for a process: numbers, `true` and `false` are taken as text where that is unambiguous.
#[derive(Debug)]
pub(crate) struct Text(pub(crate) String);

/// A whole number, not negative.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Whole(pub(crate) u64);

/// A size with its unit.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Size(pub(crate) Bytes);

/// A duration with its units.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Span(pub(crate) Millis);

/// A size in a second.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Rate(pub(crate) Bytes);

/// A whole number.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Signed(pub(crate) i64);

/// A value with the type it is written in.
#[derive(Clone, Debug)]
pub(crate) enum Scalar {
    Text(String),
    Int(i64),
    Bool(bool),
}

/// A number of cores.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Cores(pub(crate) MilliCores);

impl<T> Default for Field<T> {
    fn default() -> Self {
        Self {
            value: None,
            present: false,
            place: Place::default(),
            path: String::new(),
        }
    }
}

impl<T> Field<T> {
    /// A problem at this field.
    pub(crate) fn problem(&self, message: impl Into<String>, help: impl Into<String>) -> Problem {
        Problem::new(message, help)
            .at(self.place.line, self.place.column)
            .on(self.path.clone())
    }

    /// The field without its value, for what is wrong with it as a whole.
    pub(crate) fn as_place(&self) -> Field<()> {
        Field {
            value: Some(()),
            present: self.present,
            place: self.place,
            path: self.path.clone(),
        }
    }

    /// A field of another value in this place.
    pub(crate) fn clone_with<U>(&self, value: U) -> Field<U> {
        Field {
            value: Some(value),
            present: true,
            place: self.place,
            path: self.path.clone(),
        }
    }
}

impl Scalar {
    /// The value as a process is given it.
    pub(crate) fn text(&self) -> String {
        match self {
            Self::Text(text) => text.clone(),
            Self::Int(number) => number.to_string(),
            Self::Bool(value) => value.to_string(),
        }
    }
}

impl<'de, T: Deserialize<'de>> Deserialize<'de> for Field<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Parts<T>(PhantomData<T>);
        impl<'de, T: Deserialize<'de>> Visitor<'de> for Parts<T> {
            type Value = Field<T>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a field with its place")
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut parts: A) -> Result<Field<T>, A::Error> {
                Ok(Field {
                    present: true,
                    place: Place {
                        line: parts.next_element()?.unwrap_or_default(),
                        column: parts.next_element()?.unwrap_or_default(),
                    },
                    path: parts.next_element()?.unwrap_or_default(),
                    value: parts.next_element()?,
                })
            }
        }
        deserializer.deserialize_tuple_struct(FIELD, 4, Parts(PhantomData))
    }
}

impl<'de, S: Deserialize<'de>, M: Deserialize<'de>> Deserialize<'de> for Form<S, M> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Parts<S, M>(PhantomData<(S, M)>);
        impl<'de, S: Deserialize<'de>, M: Deserialize<'de>> Visitor<'de> for Parts<S, M> {
            type Value = Form<S, M>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a value in short or as a map")
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut parts: A) -> Result<Form<S, M>, A::Error> {
                let form = if parts.next_element()?.unwrap_or(false) {
                    parts.next_element()?.map(Form::Full)
                } else {
                    parts.next_element()?.map(Form::Short)
                };
                form.ok_or_else(|| A::Error::custom("a form without a value"))
            }
        }
        deserializer.deserialize_tuple_struct(FORM, 2, Parts(PhantomData))
    }
}

impl<'de, T: Deserialize<'de>> Deserialize<'de> for Entries<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Pairs<T>(PhantomData<T>);
        impl<'de, T: Deserialize<'de>> Visitor<'de> for Pairs<T> {
            type Value = Entries<T>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a map")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Entries<T>, A::Error> {
                let mut entries = Vec::new();
                while let Some(entry) = map.next_entry()? {
                    entries.push(entry);
                }
                Ok(Entries(entries))
            }
        }
        deserializer.deserialize_map(Pairs(PhantomData))
    }
}

/// Reads a quantity from its text; a bare number goes the same way and is refused where a unit
/// is needed.
struct Quantity<T> {
    expecting: &'static str,
    of: PhantomData<T>,
}

impl<T: FromStr<Err = UnitError>> Visitor<'_> for Quantity<T> {
    type Value = T;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.expecting)
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<T, E> {
        text.parse()
            .map_err(|error: UnitError| E::custom(format!("{}\n{}", error.message, error.help)))
    }

    fn visit_i64<E: Error>(self, value: i64) -> Result<T, E> {
        self.visit_str(&value.to_string())
    }

    fn visit_f64<E: Error>(self, value: f64) -> Result<T, E> {
        if !(value.is_finite() && value.abs() < 1e15) {
            return Err(E::invalid_value(serde::de::Unexpected::Float(value), &self));
        }
        self.visit_str(&value.to_string())
    }
}

impl<'de> Deserialize<'de> for Size {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let quantity = Quantity {
            expecting: "a size such as `256MiB`",
            of: PhantomData,
        };
        deserializer.deserialize_any(quantity).map(Self)
    }
}

impl<'de> Deserialize<'de> for Span {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let quantity = Quantity {
            expecting: "a duration such as `10s`",
            of: PhantomData,
        };
        deserializer.deserialize_any(quantity).map(Self)
    }
}

impl<'de> Deserialize<'de> for Cores {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let quantity = Quantity {
            expecting: "a number of cores such as `0.5`",
            of: PhantomData,
        };
        deserializer.deserialize_any(quantity).map(Self)
    }
}

impl<'de> Deserialize<'de> for Rate {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct PerSecond(Bytes);
        impl FromStr for PerSecond {
            type Err = UnitError;

            fn from_str(text: &str) -> Result<Self, UnitError> {
                Bytes::parse_rate(text).map(Self)
            }
        }
        let quantity = Quantity::<PerSecond> {
            expecting: "a rate such as `50MiB/s`",
            of: PhantomData,
        };
        let rate = deserializer.deserialize_any(quantity)?;
        Ok(Self(rate.0))
    }
}

impl<'de> Deserialize<'de> for Signed {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Number;
        impl Visitor<'_> for Number {
            type Value = Signed;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a whole number")
            }

            fn visit_i64<E: Error>(self, value: i64) -> Result<Signed, E> {
                Ok(Signed(value))
            }
        }
        deserializer.deserialize_any(Number)
    }
}

impl<'de> Deserialize<'de> for Scalar {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Value;
        impl Visitor<'_> for Value {
            type Value = Scalar;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("text, a whole number, `true` or `false`")
            }

            fn visit_str<E: Error>(self, text: &str) -> Result<Scalar, E> {
                Ok(Scalar::Text(text.to_owned()))
            }

            fn visit_i64<E: Error>(self, value: i64) -> Result<Scalar, E> {
                Ok(Scalar::Int(value))
            }

            fn visit_bool<E: Error>(self, value: bool) -> Result<Scalar, E> {
                Ok(Scalar::Bool(value))
            }
        }
        deserializer.deserialize_any(Value)
    }
}

impl<'de> Deserialize<'de> for Whole {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Number;
        impl Visitor<'_> for Number {
            type Value = Whole;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a whole number")
            }

            fn visit_i64<E: Error>(self, value: i64) -> Result<Whole, E> {
                let negative = || E::custom(format!("`{value}` is negative\nwrite 0 or more"));
                u64::try_from(value).map(Whole).map_err(|_| negative())
            }
        }
        deserializer.deserialize_any(Number)
    }
}

impl<'de> Deserialize<'de> for Text {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct AsWritten;
        impl Visitor<'_> for AsWritten {
            type Value = Text;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("text")
            }

            fn visit_str<E: Error>(self, text: &str) -> Result<Text, E> {
                Ok(Text(text.to_owned()))
            }
        }
        deserializer.deserialize_newtype_struct(TEXT, AsWritten)
    }
}

/// Takes name and schema of another type, without a definition of its own.
macro_rules! schema_of {
    ($(@ [$($generic:ident),*])? $type:ty => $inner:ty) => {
        impl$(<$($generic: JsonSchema),*>)? JsonSchema for $type {
            fn inline_schema() -> bool {
                <$inner>::inline_schema()
            }

            fn schema_name() -> Cow<'static, str> {
                <$inner>::schema_name()
            }

            fn schema_id() -> Cow<'static, str> {
                <$inner>::schema_id()
            }

            fn json_schema(generator: &mut SchemaGenerator) -> Schema {
                <$inner>::json_schema(generator)
            }
        }
    };
}

/// Gives a type a schema that stands where it is used.
macro_rules! schema {
    ($(@ [$($generic:ident),*])? $type:ty, $name:literal, $generator:ident => $schema:expr) => {
        impl$(<$($generic: JsonSchema),*>)? JsonSchema for $type {
            fn inline_schema() -> bool {
                true
            }

            fn schema_name() -> Cow<'static, str> {
                $name.into()
            }

            fn json_schema($generator: &mut SchemaGenerator) -> Schema {
                $schema
            }
        }
    };
}

schema_of!(@ [T] Field<T> => T);
schema!(@ [S, M] Form<S, M>, "Form", generator => json_schema!({
    "anyOf": [generator.subschema_for::<S>(), generator.subschema_for::<M>()],
}));
schema!(@ [T] Entries<T>, "Entries", generator => json_schema!({
    "type": "object",
    "additionalProperties": generator.subschema_for::<T>(),
}));
schema!(Text, "Text", _generator => json_schema!({ "type": ["string", "number", "boolean"] }));
schema!(Whole, "Whole", _generator => json_schema!({ "type": "integer", "minimum": 0 }));
schema!(Cores, "Cores", _generator => json_schema!({
    "type": "number", "minimum": 0.001, "multipleOf": 0.001,
}));
schema!(Size, "Size", _generator => json_schema!({
    "type": "string",
    "pattern": r"^[0-9]+(\.[0-9]+)?(B|[KMGTP]iB|[kKMGTP]B)$",
}));
schema!(Rate, "Rate", _generator => json_schema!({
    "type": "string",
    "pattern": r"^[0-9]+(\.[0-9]+)?(B|[KMGTP]iB|[kKMGTP]B)/s$",
}));
schema!(Signed, "Signed", _generator => json_schema!({ "type": "integer" }));
schema!(Scalar, "Scalar", _generator => json_schema!({
    "type": ["string", "integer", "boolean"],
}));
schema!(Span, "Span", _generator => json_schema!({
    "type": "string",
    "pattern": r"^[0-9]+(\.[0-9]+)?(d|h|m|s|ms)( ?[0-9]+(\.[0-9]+)?(h|m|s|ms))*$",
}));
schema!(Name, "Name", _generator => json_schema!({
    "type": "string", "pattern": "^[a-z][a-z0-9-]{0,62}$", "not": { "const": "all" },
}));
