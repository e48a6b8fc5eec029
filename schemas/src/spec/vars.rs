//! The values a job is submitted with: `vars`, set by `--set`, used as `${var.x}`.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::field::{Entries, Field, Form, Scalar, Signed, Text, Whole};
use super::lower::{Lowering, WORD_MAX, entries};
use super::problem::{shown, suggestion};
use crate::ids::Name;

/// The most vars of a job, and params of a task.
pub const VARS_MAX: usize = 256;

/// A value that a job is submitted with.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct VarSpec {
    /// What it can be.
    pub of: VarType,
    /// What it is where nobody sets it; it has to be set if none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub default: Option<String>,
    /// What it was set to at this submission.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub set: Option<String>,
    /// What it is for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub help: Option<String>,
}

/// What a value can be.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum VarType {
    /// Text.
    String {
        /// The most bytes.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        max: Option<u32>,
    },
    /// A whole number.
    Int {
        /// The least.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        min: Option<i64>,
        /// The most.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        max: Option<i64>,
    },
    /// `true` or `false`.
    Bool,
    /// One of these.
    Enum(Vec<String>),
}

impl VarSpec {
    /// What it is; none if it has yet to be set.
    pub fn value(&self) -> Option<&str> {
        self.set.as_deref().or(self.default.as_deref())
    }
}

impl VarType {
    /// The text as a value of this type, in its usual form; else what is wrong, and what to do.
    pub fn read(&self, text: &str) -> Result<String, (String, String)> {
        let wrong = |what: &str, help: String| Err((format!("`{}` {what}", shown(text)), help));
        match self {
            Self::String { max } => {
                let max = max.map_or(WORD_MAX, |max| max as usize);
                if text.contains('\0') {
                    return wrong("has a zero byte", "remove it".to_owned());
                }
                if text.len() > max {
                    return wrong("is too long", format!("at most {max} bytes"));
                }
                Ok(text.to_owned())
            }
            Self::Int { min, max } => {
                let Ok(number) = text.parse::<i64>() else {
                    return wrong("is not a whole number", "write digits alone".to_owned());
                };
                let (min, max) = (min.unwrap_or(i64::MIN), max.unwrap_or(i64::MAX));
                if !(min..=max).contains(&number) {
                    return wrong("is out of range", bounds(min, max));
                }
                Ok(number.to_string())
            }
            Self::Bool => match text {
                "true" | "false" => Ok(text.to_owned()),
                _ => wrong("is neither `true` nor `false`", String::new()),
            },
            Self::Enum(values) if values.iter().any(|value| value == text) => Ok(text.to_owned()),
            Self::Enum(values) => {
                let values: Vec<&str> = values.iter().map(String::as_str).collect();
                wrong("is none of its values", suggestion(text, &values))
            }
        }
    }
}

/// The type of a var that is only given its default.
fn usual_type(value: &Scalar) -> VarType {
    match value {
        Scalar::Text(_) => VarType::String { max: None },
        Scalar::Int(_) => VarType::Int {
            min: None,
            max: None,
        },
        Scalar::Bool(_) => VarType::Bool,
    }
}

fn bounds(min: i64, max: i64) -> String {
    match (min, max) {
        (i64::MIN, max) => format!("at most {max}"),
        (min, i64::MAX) => format!("at least {min}"),
        (min, max) => format!("from {min} to {max}"),
    }
}

/// A value that a job is submitted with; exactly one of `string`, `int`, `bool` and `enum` says what
/// it can be.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
#[schemars(rename = "Var")]
pub(crate) struct VarFile {
    /// Text: `{}` or `{max: bytes}`.
    string: Field<StringFile>,
    /// A whole number: `{}` or `{min, max}`.
    int: Field<IntFile>,
    /// `true` or `false`: `{}`.
    bool: Field<BoolFile>,
    /// One of a list of texts.
    #[serde(rename = "enum")]
    #[schemars(length(min = 1, max = 1000))]
    choice: Field<Vec<Field<Text>>>,
    /// What it is where nobody sets it. Default: it has to be set.
    default: Field<Scalar>,
    /// What it is for.
    help: Field<String>,
}

/// Text.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
#[schemars(rename = "StringType")]
pub(crate) struct StringFile {
    /// The most bytes.
    #[schemars(range(max = 130_816))]
    max: Field<Whole>,
}

/// A whole number.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
#[schemars(rename = "IntType")]
pub(crate) struct IntFile {
    /// The least.
    min: Field<Signed>,
    /// The most.
    max: Field<Signed>,
}

/// `true` or `false`.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
#[schemars(rename = "BoolType")]
pub(crate) struct BoolFile {}

const TYPES: &str = "string, int, bool, enum";

impl Lowering<'_> {
    pub(super) fn vars(
        &mut self,
        field: Field<Entries<Form<Scalar, VarFile>>>,
    ) -> BTreeMap<Name, VarSpec> {
        self.count(&field, VARS_MAX, "vars");
        let mut vars = BTreeMap::new();
        for (key, var) in entries(field) {
            let name = self.name(&key);
            let place = var.as_place();
            let spec = match var.value {
                Some(Form::Short(value)) => Some(VarSpec {
                    of: usual_type(&value),
                    default: Some(value.text()),
                    set: None,
                    help: None,
                }),
                Some(Form::Full(file)) => self.var(file, &place),
                None => None,
            };
            if let (Some(name), Some(spec)) = (name, spec) {
                vars.insert(name, spec);
            }
        }
        vars
    }

    fn var(&mut self, file: VarFile, place: &Field<()>) -> Option<VarSpec> {
        let chosen = [
            ("string", file.string.as_place()),
            ("int", file.int.as_place()),
            ("bool", file.bool.as_place()),
            ("enum", file.choice.as_place()),
        ];
        let chosen: Vec<_> = chosen.iter().filter(|(_, field)| field.present).collect();
        match chosen.as_slice() {
            [] => {
                let help = format!("add one of {TYPES}, such as `string: {{}}`");
                self.push(place.problem("nothing says what the value can be", help));
                return None;
            }
            [_] => {}
            [(first, _), (second, field), ..] => {
                let message = format!("`{second}` stands beside `{first}`");
                self.push(field.problem(message, format!("a var has exactly one of {TYPES}")));
                return None;
            }
        }
        let of = self.var_type(file.string, file.int, file.choice)?;
        let default = file.default.value.as_ref().map(Scalar::text);
        let default = default.and_then(|text| {
            let read = of.read(&text);
            read.map_err(|(message, help)| self.push(file.default.problem(message, help)))
                .ok()
        });
        Some(VarSpec {
            of,
            default,
            set: None,
            help: file.help.value,
        })
    }

    fn var_type(
        &mut self,
        string: Field<StringFile>,
        int: Field<IntFile>,
        choice: Field<Vec<Field<Text>>>,
    ) -> Option<VarType> {
        if string.present {
            let max = string.value?.max;
            let most = self.whole(&max, 1..=WORD_MAX as u64, 0);
            return Some(VarType::String {
                max: max.value.map(|_| most),
            });
        }
        if int.present {
            let IntFile { min, max } = int.value?;
            let least = min.value.map(|Signed(number)| number);
            let most = max.value.map(|Signed(number)| number);
            if let (Some(least), Some(most)) = (least, most)
                && least > most
            {
                let message = format!("no number is at least {least} and at most {most}");
                self.push(max.problem(message, "raise `max` or lower `min`"));
            }
            return Some(VarType::Int {
                min: least,
                max: most,
            });
        }
        if !choice.present {
            return Some(VarType::Bool);
        }
        let place = choice.as_place();
        let values: Vec<String> = choice
            .value?
            .into_iter()
            .filter_map(|value| value.value.map(|Text(text)| text))
            .collect();
        if values.is_empty() {
            self.push(place.problem("no value is named", "write a list, such as `[debug, info]`"));
        }
        Some(VarType::Enum(values))
    }
}
