//! The values a job is submitted with: `vars`, set by `--set`, used as `${var.x}`.

use std::collections::{BTreeMap, BTreeSet};

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::field::{Entries, Field, Form, Scalar, Signed, Text, Whole};
use super::lower::{Lowering, TaskPlace, WORD_MAX, entries};
use super::problem::{shown, suggestion};
use super::program::Texts;
use super::reference::ResultUse;
use super::{DependOn, Operator, TaskSpec};
use crate::ids::Name;

/// The most vars of a job, and params of a task.
pub const VARS_MAX: usize = 256;

/// The most bytes a task may leave in `$LOOM_RESULT`.
pub const RESULT_MAX: usize = 64 * 1024;

/// What vars are set to at a submission, by name.
pub type Sets = BTreeMap<String, String>;

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

    /// What to do, with what the value is for.
    fn explained(&self, what_to_do: String) -> String {
        match self.help.as_deref().map(shown) {
            None => what_to_do,
            Some(help) if what_to_do.is_empty() => format!("it is: {help}"),
            Some(help) => format!("{what_to_do} ({help})"),
        }
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

/// Where a task uses the result of another.
pub(crate) struct ResultPlace {
    by: Name,
    of: ResultUse,
    at: Field<()>,
}

/// The tasks that have completed before a task starts.
fn completed_before(task: &Name, tasks: &BTreeMap<Name, TaskSpec>) -> BTreeSet<Name> {
    let mut found = BTreeSet::new();
    let mut open = vec![task];
    while let Some(task) = open.pop() {
        let after = tasks.get(task).map_or(&[][..], |task| &task.after);
        for after in after.iter().filter(|a| a.on == DependOn::Completed) {
            if found.insert(after.task.clone()) {
                open.push(&after.task);
            }
        }
    }
    found
}

const TYPES: &str = "string, int, bool, enum";

impl Lowering<'_> {
    pub(super) fn vars(
        &mut self,
        field: Field<Entries<Form<Scalar, VarFile>>>,
        top: &TaskPlace,
    ) -> BTreeMap<Name, VarSpec> {
        self.count(&field, VARS_MAX, "vars");
        self.check_sets(&field, top);
        let mut vars = BTreeMap::new();
        for (key, var) in entries(field) {
            let name = self.name(&key);
            let place = var.as_place();
            let mut defaulted = true;
            let spec = match var.value {
                Some(Form::Short(value)) => Some(VarSpec {
                    of: usual_type(&value),
                    default: Some(value.text()),
                    set: None,
                    help: None,
                }),
                Some(Form::Full(file)) => {
                    defaulted = file.default.present;
                    self.var(file, &place)
                }
                None => None,
            };
            if let (Some(name), Some(mut spec)) = (name, spec) {
                self.set(&name, &mut spec, &place, defaulted);
                vars.insert(name, spec);
            }
        }
        vars
    }

    /// Puts in what a var is set to; it has to have a value then.
    fn set(&mut self, name: &Name, spec: &mut VarSpec, place: &Field<()>, defaulted: bool) {
        let sets = self.sets;
        match sets.get(name.as_str()).map(|text| spec.of.read(text)) {
            Some(Ok(value)) => spec.set = Some(value).filter(|v| spec.default.as_ref() != Some(v)),
            Some(Err((message, help))) => {
                let help = spec.explained(help);
                self.push(place.problem(message, help));
            }
            None if !defaulted => {
                let message = format!("`{name}` has no value");
                let help = format!("set it with `--set {name}=...`, or give it a `default`");
                self.push(place.problem(message, spec.explained(help)));
            }
            None => {}
        }
    }

    /// Notes what is set and is no var.
    fn check_sets(&mut self, field: &Field<Entries<Form<Scalar, VarFile>>>, top: &TaskPlace) {
        let vars = field.value.iter().flat_map(|vars| &vars.0);
        let known: Vec<&str> = vars.filter_map(|(key, _)| key.value.as_deref()).collect();
        let sets = self.sets;
        for name in sets.keys().filter(|name| !known.contains(&name.as_str())) {
            let message = format!("`{}` is set and is no var of the job", shown(name));
            let help = match known.as_slice() {
                [] => "it has no `vars`".to_owned(),
                known => suggestion(name, known),
            };
            self.push(if field.present {
                field.problem(message, help)
            } else {
                top.problem(message, help)
            });
        }
    }

    /// The values of the vars that a task refers to (`python` and `go` read any from the
    /// environment), and the results it uses.
    pub(super) fn used(
        &mut self,
        texts: Texts<'_>,
        operator: &Operator,
        place: &TaskPlace,
    ) -> (BTreeMap<Name, String>, BTreeSet<ResultUse>) {
        let used = texts.used.into_inner();
        let any = matches!(operator, Operator::Python(_) | Operator::Go(_));
        let vars = self.vars.iter();
        let vars = vars.filter(|(name, _)| any || used.vars.contains(*name));
        let vars = vars.map(|(name, var)| (name.clone(), var.value().unwrap_or_default().into()));
        let vars = vars.collect();
        let mut results = BTreeSet::new();
        for (of, at) in used.results {
            results.insert(of.clone());
            if let Some(by) = place.name.clone() {
                self.results.push(ResultPlace { by, of, at });
            }
        }
        (vars, results)
    }

    /// The tasks, each that leaves a result for others marked; a result that is not there before
    /// it is used is a problem.
    pub(super) fn with_results(
        &mut self,
        mut tasks: BTreeMap<Name, TaskSpec>,
    ) -> BTreeMap<Name, TaskSpec> {
        let mut before: BTreeMap<Name, BTreeSet<Name>> = BTreeMap::new();
        for ResultPlace { by, of, at } in std::mem::take(&mut self.results) {
            let known = before
                .entry(by.clone())
                .or_insert_with(|| completed_before(&by, &tasks));
            let wrong = match tasks.get(&of.task) {
                None => {
                    let names: Vec<&str> = tasks.keys().map(Name::as_str).take(20).collect();
                    let message = format!("`${{{of}}}` names a task that the job does not have");
                    Some((message, suggestion(of.task.as_str(), &names)))
                }
                Some(_) if of.task == by => Some((
                    format!("`${{{of}}}` is the task's own result"),
                    "refer to that of a task before it".to_owned(),
                )),
                Some(_) if !known.contains(&of.task) => Some((
                    format!("`{}` need not have completed before `{by}`", of.task),
                    format!("add it to what `{by}` waits for: `after: [{}]`", of.task),
                )),
                Some(task) if task.replicas != 1 => Some((
                    format!(
                        "`{}` has {} replicas, and each its own result",
                        of.task, task.replicas
                    ),
                    "a task whose result is used has one".to_owned(),
                )),
                Some(_) => None,
            };
            if let Some((message, help)) = wrong {
                self.push(at.problem(message, help));
            } else if let Some(task) = tasks.get_mut(&of.task) {
                task.result = true;
            }
        }
        tasks
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
