//! Where a task may run and where it would rather: `constraints`, `affinities`, `spread` and
//! `tolerations`.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::attribute::Attribute;
use super::constraint::{Constraint, ConstraintError, Predicate};
use super::field::{Entries, Field, Form, Signed, Span, Text, Whole};
use super::lower::{Lowering, PORTS_MAX, entries};
use super::problem::{ProblemKind, nearest, shown};
use super::reference::is_label;
use crate::units::Millis;
use crate::words::{Kind, TaintEffect};

/// A preference for nodes that are something, or against them.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Affinity {
    /// What the node is.
    #[serde(rename = "match")]
    pub predicate: Predicate,
    /// How much that counts, from -100 to 100 and never 0; below 0 such nodes are avoided.
    pub weight: i8,
}

/// A preference for replicas on nodes with different values of an attribute.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct SpreadOver {
    /// The attribute.
    pub over: Attribute,
    /// How much that counts, from -100 to 100 and never 0; below 0 the same value is preferred.
    pub weight: i8,
    /// The share of the replicas of some values, in percent, 100 in all at most; the values that are
    /// not among them have equal parts of what is left. All have equal parts if there are none.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub targets: BTreeMap<String, u8>,
}

/// Taints of nodes that a task puts up with.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Toleration {
    /// The key of the taint; any if none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub key: Option<String>,
    /// Its value; any if none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub value: Option<String>,
    /// Its effect; any if none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub effect: Option<TaintEffect>,
    /// How long a run stays on its node after an `evict`; without end if none.
    #[serde(default, rename = "for", skip_serializing_if = "Option::is_none")]
    pub stay: Option<Millis>,
}

/// The weight of an affinity or a spread that does not say.
pub const WEIGHT: i8 = 50;

/// What stands for the key of every taint.
const ANY: &str = "*";

/// A preference for nodes that are something, or against them.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
#[schemars(rename = "Affinity")]
pub(crate) struct AffinityFile {
    /// What the node is, as a constraint says it. Required.
    r#match: Field<String>,
    /// How much that counts, from -100 to 100; below 0 such nodes are avoided. Default: 50.
    #[schemars(range(min = -100, max = 100))]
    weight: Field<Signed>,
}

/// A preference for replicas on nodes with different values of an attribute.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
#[schemars(rename = "Spread")]
pub(crate) struct SpreadFile {
    /// The attribute. Required.
    over: Field<String>,
    /// How much that counts, from -100 to 100; below 0 the same value is preferred. Default: 50.
    #[schemars(range(min = -100, max = 100))]
    weight: Field<Signed>,
    /// The share of the replicas of some values, in percent; the other values have equal parts of
    /// what is left. Default: equal parts for all.
    targets: Field<Entries<Whole>>,
}

/// Taints of nodes that a task puts up with.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
#[schemars(rename = "Toleration")]
pub(crate) struct TolerationFile {
    /// The key of the taint, or `*` for any. Required.
    key: Field<Text>,
    /// Its value. Default: any.
    value: Field<Text>,
    /// Its effect: `no-schedule`, `prefer-not` or `evict`. Default: any.
    effect: Field<Text>,
    /// How long a run stays on its node after an `evict`; no new run goes there. Default: without
    /// end, and new runs go there too.
    r#for: Field<Span>,
}

impl Lowering<'_> {
    pub(super) fn constraints(
        &mut self,
        field: Field<Vec<Field<Text>>>,
        kind: Kind,
    ) -> Vec<Constraint> {
        self.at_most(&field, "constraints");
        let mut all: Vec<Constraint> = Vec::new();
        for field in field.value.unwrap_or_default() {
            let Some(Text(text)) = &field.value else {
                continue;
            };
            let Some(constraint) = self.parsed::<Constraint, _>(text, &field) else {
                continue;
            };
            if kind == Kind::System && !matches!(constraint, Constraint::Node(_)) {
                let message = format!("`{constraint}` is about replicas");
                let help = "a system job has one on every node: remove it";
                self.push(field.problem(message, help));
            } else if all.contains(&constraint) {
                let message = format!("`{}` is there twice", shown(&constraint.to_string()));
                self.push(field.problem(message, "remove one of the two"));
            } else {
                all.push(constraint);
            }
        }
        all
    }

    pub(super) fn affinities(
        &mut self,
        field: Field<Vec<Field<Form<String, AffinityFile>>>>,
        kind: Kind,
    ) -> Vec<Affinity> {
        self.at_most(&field, "affinities");
        self.not_of_system("affinities", &field, kind);
        let mut all: Vec<Affinity> = Vec::new();
        for field in field.value.unwrap_or_default() {
            let place = field.as_place();
            let file = match field.value {
                Some(Form::Short(text)) => AffinityFile {
                    r#match: place.clone_with(text),
                    ..AffinityFile::default()
                },
                Some(Form::Full(file)) => file,
                None => continue,
            };
            if !file.r#match.present {
                let help = "say which nodes: `match: arch == arm64`";
                self.push(place.problem("`match` is missing", help));
            }
            let weight = self.weight(&file.weight);
            let Some(text) = &file.r#match.value else {
                continue;
            };
            let Some(predicate) = self.parsed::<Predicate, _>(text, &file.r#match) else {
                continue;
            };
            if all.iter().any(|other| other.predicate == predicate) {
                let message = format!("`{}` is there twice", shown(&predicate.to_string()));
                self.push(place.problem(message, "remove one of the two"));
            }
            all.push(Affinity { predicate, weight });
        }
        all
    }

    pub(super) fn spread(
        &mut self,
        field: Field<Vec<Field<Form<String, SpreadFile>>>>,
        kind: Kind,
    ) -> Vec<SpreadOver> {
        self.at_most(&field, "attributes to spread over");
        self.not_of_system("spread", &field, kind);
        let mut all: Vec<SpreadOver> = Vec::new();
        for field in field.value.unwrap_or_default() {
            let place = field.as_place();
            let file = match field.value {
                Some(Form::Short(text)) => SpreadFile {
                    over: place.clone_with(text),
                    ..SpreadFile::default()
                },
                Some(Form::Full(file)) => file,
                None => continue,
            };
            if !file.over.present {
                let help = "name the attribute: `over: datacenter`";
                self.push(place.problem("`over` is missing", help));
            }
            let weight = self.weight(&file.weight);
            let targets = self.targets(file.targets, weight);
            let Some(text) = &file.over.value else {
                continue;
            };
            let Some(over) = self.parsed::<Attribute, _>(text, &file.over) else {
                continue;
            };
            if all.iter().any(|other| other.over == over) {
                let message = format!("`{over}` is there twice");
                self.push(place.problem(message, "remove one of the two"));
            }
            all.push(SpreadOver {
                over,
                weight,
                targets,
            });
        }
        all
    }

    /// The share of each value, in percent.
    fn targets(&mut self, field: Field<Entries<Whole>>, weight: i8) -> BTreeMap<String, u8> {
        self.count(&field, PORTS_MAX, "targets");
        let place = field.as_place();
        let mut targets = BTreeMap::new();
        let mut sum = 0;
        for (key, share) in entries(field) {
            let Some(value) = &key.value else { continue };
            if let Err(error) = check_taint_value(value) {
                self.push(key.problem(error.message, error.help));
            }
            let Some(Whole(number)) = share.value else {
                continue;
            };
            let percent = u8::try_from(number).ok();
            let Some(percent) = percent.filter(|percent| (1..=100).contains(percent)) else {
                let message = format!("`{number}` is out of range");
                self.push(share.problem(message, "write percent, from 1 to 100"));
                continue;
            };
            sum += u32::from(percent);
            targets.insert(value.clone(), percent);
        }
        if place.present && weight < 0 {
            let message = "`targets` mean nothing where replicas are kept together";
            let help = "remove them, or write a weight above 0";
            self.push(place.problem(message, help));
        } else if sum > 100 {
            let message = format!("the targets are {sum} percent together");
            self.push(place.problem(message, "write 100 at most"));
        }
        targets
    }

    /// A system job has a run on every node: there is nothing to prefer.
    fn not_of_system<T>(&mut self, name: &str, field: &Field<Vec<T>>, kind: Kind) {
        if kind == Kind::System && field.present {
            let message = format!("`{name}` means nothing for a system job");
            let help = "it has one on every node: remove it";
            self.push(field.problem(message, help));
        }
    }

    pub(super) fn tolerations(
        &mut self,
        field: Field<Vec<Field<Form<Text, TolerationFile>>>>,
    ) -> Vec<Toleration> {
        self.at_most(&field, "tolerations");
        let mut all: Vec<Toleration> = Vec::new();
        for field in field.value.unwrap_or_default() {
            let place = field.as_place();
            let toleration = match field.value {
                Some(Form::Short(Text(text))) => {
                    let (key, value, effect) = taint_parts(&text);
                    let file = TolerationFile {
                        key: place.clone_with(Text(key.to_owned())),
                        value: value
                            .map_or_else(Field::default, |v| place.clone_with(Text(v.to_owned()))),
                        effect: effect.map_or_else(Field::default, |effect| {
                            place.clone_with(Text(effect.to_owned()))
                        }),
                        r#for: Field::default(),
                    };
                    self.toleration(&file, &place)
                }
                Some(Form::Full(file)) => self.toleration(&file, &place),
                None => continue,
            };
            if all.contains(&toleration) {
                self.push(place.problem("the toleration is there twice", "remove one of the two"));
            }
            all.push(toleration);
        }
        all
    }

    fn toleration(&mut self, file: &TolerationFile, place: &Field<()>) -> Toleration {
        if !file.key.present {
            let help = "name the key of the taint, or `*` for any: `key: gpu`";
            self.push(place.problem("`key` is missing", help));
        }
        let key = file.key.value.as_ref().map(|Text(key)| key.as_str());
        if let Some(key) = key.filter(|key| *key != ANY)
            && let Err(error) = check_taint_key(key)
        {
            self.push(file.key.problem(error.message, error.help));
        }
        let value = file.value.value.as_ref().map(|Text(value)| value.clone());
        if let Some(value) = &value
            && let Err(error) = check_taint_value(value)
        {
            self.push(file.value.problem(error.message, error.help));
        }
        let effect = file.effect.value.as_ref().and_then(|Text(text)| {
            let effect = text.parse::<TaintEffect>();
            effect
                .map_err(|help| {
                    let message = format!("unknown effect `{}`", shown(text));
                    self.push(file.effect.problem(message, help));
                })
                .ok()
        });
        let stay = file.r#for.value.as_ref().map(|Span(span)| *span);
        if file.r#for.present && effect.is_some_and(|effect| effect != TaintEffect::Evict) {
            let help = "remove it, or write `effect: evict`";
            let message = "`for` means nothing but for `evict`";
            self.push(file.r#for.problem(message, help));
        }
        Toleration {
            key: key.filter(|key| *key != ANY).map(str::to_owned),
            value,
            effect: effect.or(stay.map(|_| TaintEffect::Evict)),
            stay,
        }
    }

    fn weight(&mut self, field: &Field<Signed>) -> i8 {
        let Some(Signed(number)) = field.value else {
            return WEIGHT;
        };
        let weight = i8::try_from(number).ok();
        weight
            .filter(|weight| (-100..=100).contains(weight) && *weight != 0)
            .unwrap_or_else(|| {
                let help = "from -100 to 100, and not 0";
                self.push(field.problem(format!("`{number}` is out of range"), help));
                WEIGHT
            })
    }

    /// What a text says, or a problem at its field.
    fn parsed<T, F>(&mut self, text: &str, field: &Field<F>) -> Option<T>
    where
        T: std::str::FromStr<Err = ConstraintError>,
    {
        let wrong = |error: ConstraintError| self.push(field.problem(error.message, error.help));
        text.parse().map_err(wrong).ok()
    }

    fn at_most<T>(&mut self, field: &Field<Vec<T>>, what: &str) {
        let count = field.value.as_ref().map_or(0, Vec::len);
        if count > PORTS_MAX {
            let problem = field.problem(format!("{count} {what}"), format!("at most {PORTS_MAX}"));
            self.push(problem.of(ProblemKind::TooLarge));
        }
    }
}

/// Key, value and effect of `key=value:effect`, of which only the key has to be there.
pub fn taint_parts(text: &str) -> (&str, Option<&str>, Option<&str>) {
    let (rest, effect) = match text.rsplit_once(':') {
        Some((rest, effect)) => (rest, Some(effect)),
        None => (text, None),
    };
    match rest.split_once('=') {
        Some((key, value)) => (key, Some(value), effect),
        None => (rest, None, effect),
    }
}

/// Whether a text can be the key of a taint or of a label.
pub fn check_taint_key(key: &str) -> Result<(), ConstraintError> {
    if is_label(key) {
        return Ok(());
    }
    let message = format!("`{}` is not a key", shown(key));
    let help = "expected 1 to 63 letters, digits, `.`, `_`, `/` or `-`";
    Err(ConstraintError::new(message, help))
}

/// Whether a text can be the value of a taint or of a label.
pub fn check_taint_value(value: &str) -> Result<(), ConstraintError> {
    if value.len() <= 255 && !value.contains(char::is_control) {
        return Ok(());
    }
    let message = format!("`{}` is not a value", shown(value));
    Err(ConstraintError::new(
        message,
        "expected at most 255 characters in one line",
    ))
}

/// What is wrong is told as what to write.
impl std::str::FromStr for TaintEffect {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let named = Self::ALL.into_iter().find(|effect| effect.as_str() == text);
        named.ok_or_else(|| {
            let all = Self::ALL.map(Self::as_str);
            nearest(text, all.into_iter())
                .unwrap_or_else(|| format!("expected one of {}", all.join(", ")))
        })
    }
}
