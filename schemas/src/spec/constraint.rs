//! What a task asks of the nodes it may run on: `attribute op value`, each a line.

use std::collections::BTreeSet;
use std::fmt;
use std::str::FromStr;

use regex::{Regex, RegexBuilder};
use serde::{Deserialize, Serialize};

use super::attribute::{Attribute, AttributeKind};
use super::problem::{shown, suggestion};
use super::version::{Version, VersionRange};
use crate::units::{Bytes, MilliCores, UnitError};

/// One thing a task asks of its node; kept as the text of it, in one spelling.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(into = "String", try_from = "String")]
pub enum Constraint {
    /// Of the node by itself.
    Node(Predicate),
    /// No two replicas of the task on one node.
    DistinctHosts,
    /// At most so many replicas of the task on nodes with the same value of an attribute; on none
    /// without that attribute.
    DistinctProperty {
        /// The attribute.
        attribute: Attribute,
        /// The most replicas for each value, at least 1.
        most: u32,
    },
}

/// What an attribute of a node has to be. The value is checked when it is read.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(into = "String", try_from = "String")]
pub struct Predicate {
    /// The attribute.
    pub attribute: Attribute,
    /// How it compares.
    pub comparison: Comparison,
    /// With what; empty where the comparison takes no value.
    pub value: String,
}

/// How an attribute compares with a value.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Comparison {
    /// `==`.
    Equal,
    /// `!=`; also holds of a node without the attribute.
    NotEqual,
    /// `<`.
    Less,
    /// `<=`.
    AtMost,
    /// `>`.
    More,
    /// `>=`.
    AtLeast,
    /// `regexp`: found anywhere in the attribute.
    Regexp,
    /// `version`: a list of bounds, such as `>= 20.10, < 25`.
    Version,
    /// `set_contains`: each word of a list with commas.
    SetContains,
    /// `is_set`.
    IsSet,
    /// `is_not_set`.
    IsNotSet,
}

/// Why a text is no constraint. Its `Display` is one line with the help at the end.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{message}; {help}")]
pub struct ConstraintError {
    /// What is wrong, with the value.
    pub message: String,
    /// What to do.
    pub help: String,
}

impl ConstraintError {
    pub(super) fn new(message: impl Into<String>, help: impl Into<String>) -> Self {
        Self {
            message: message.into(),
            help: help.into(),
        }
    }
}

/// The longest constraint, in bytes.
const LONGEST: usize = 1024;
/// The most memory of a compiled regular expression, in bytes.
const REGEXP_MAX: usize = 256 * 1024;

const DISTINCT_HOSTS: &str = "distinct_hosts";
const DISTINCT_PROPERTY: &str = "distinct_property";

const COMPARISONS: [(&str, Comparison); 11] = [
    ("==", Comparison::Equal),
    ("!=", Comparison::NotEqual),
    ("<", Comparison::Less),
    ("<=", Comparison::AtMost),
    (">", Comparison::More),
    (">=", Comparison::AtLeast),
    ("regexp", Comparison::Regexp),
    ("version", Comparison::Version),
    ("set_contains", Comparison::SetContains),
    ("is_set", Comparison::IsSet),
    ("is_not_set", Comparison::IsNotSet),
];

impl Comparison {
    /// The word as it stands in files.
    pub fn as_str(self) -> &'static str {
        let named = COMPARISONS
            .iter()
            .find(|(_, comparison)| *comparison == self);
        named.map_or("", |(word, _)| word)
    }

    /// Whether it takes a value.
    fn takes_value(self) -> bool {
        !matches!(self, Self::IsSet | Self::IsNotSet)
    }

    fn is_order(self) -> bool {
        matches!(self, Self::Less | Self::AtMost | Self::More | Self::AtLeast)
    }

    /// The comparisons that mean something for such an attribute.
    fn of(kind: AttributeKind) -> impl Iterator<Item = (&'static str, Self)> {
        let means = move |comparison: Self| match comparison {
            Self::Equal | Self::NotEqual | Self::IsSet | Self::IsNotSet => true,
            Self::Regexp => !matches!(kind, AttributeKind::Cores | AttributeKind::Size),
            Self::Version => matches!(kind, AttributeKind::Version | AttributeKind::Label),
            Self::SetContains => matches!(kind, AttributeKind::Set | AttributeKind::Label),
            _ => !matches!(kind, AttributeKind::Text | AttributeKind::Set),
        };
        COMPARISONS
            .into_iter()
            .filter(move |(_, comparison)| means(*comparison))
    }
}

/// A regular expression of a constraint, within limits of size.
pub fn regexp(pattern: &str) -> Result<Regex, ConstraintError> {
    let built = RegexBuilder::new(pattern)
        .size_limit(REGEXP_MAX)
        .dfa_size_limit(REGEXP_MAX)
        .build();
    built.map_err(|error| match error {
        regex::Error::CompiledTooBig(_) => {
            let message = format!("the regular expression `{}` is too large", shown(pattern));
            ConstraintError::new(message, "write a shorter one, with fewer repetitions")
        }
        error => {
            let text = error.to_string();
            let cause = text.lines().last().unwrap_or_default();
            let cause = cause.strip_prefix("error: ").unwrap_or(cause);
            let message = format!("`{}` is not a regular expression", shown(pattern));
            ConstraintError::new(message, cause)
        }
    })
}

/// The words of a list with commas.
pub fn words(list: &str) -> BTreeSet<&str> {
    list.split(',')
        .map(str::trim)
        .filter(|word| !word.is_empty())
        .collect()
}

impl Predicate {
    /// Whether the value is one that the attribute can be compared with so.
    fn check(&self) -> Result<(), ConstraintError> {
        let value = self.value.as_str();
        let unit = |error: UnitError| ConstraintError::new(error.message, error.help);
        match (self.comparison, self.attribute.kind()) {
            (Comparison::Regexp, _) => regexp(value).map(drop),
            (Comparison::Version, _) => value.parse::<VersionRange>().map(drop),
            (comparison, _) if !comparison.takes_value() => Ok(()),
            (_, AttributeKind::Cores) => value.parse::<MilliCores>().map(drop).map_err(unit),
            (_, AttributeKind::Size) => value.parse::<Bytes>().map(drop).map_err(unit),
            (comparison, _) if comparison.is_order() => value.parse::<Version>().map(drop),
            (Comparison::SetContains, _) if words(value).is_empty() => Err(ConstraintError::new(
                "`set_contains` is followed by no word",
                "write a list such as `a, b`",
            )),
            _ => Ok(()),
        }
    }
}

/// The first word of a text, and what follows it.
fn split(text: &str) -> (&str, &str) {
    let (word, rest) = text.split_once(char::is_whitespace).unwrap_or((text, ""));
    (word, rest.trim())
}

impl FromStr for Constraint {
    type Err = ConstraintError;

    fn from_str(text: &str) -> Result<Self, ConstraintError> {
        let text = text.trim();
        if text.len() > LONGEST {
            let message = format!("a constraint of {} characters", text.len());
            return Err(ConstraintError::new(message, format!("at most {LONGEST}")));
        }
        let (first, rest) = split(text);
        if first == DISTINCT_HOSTS {
            return match rest {
                "" => Ok(Self::DistinctHosts),
                _ => Err(ConstraintError::new(
                    format!("`{}` stands behind `{DISTINCT_HOSTS}`", shown(rest)),
                    "it takes no value: remove it",
                )),
            };
        }
        if rest.is_empty() {
            return Err(incomplete(first));
        }
        let attribute: Attribute = first.parse()?;
        let (operator, value) = split(rest);
        if operator == DISTINCT_PROPERTY {
            let most = if value.is_empty() { "1" } else { value };
            let most = most.parse().ok().filter(|most| *most > 0).ok_or_else(|| {
                let message = format!("`{}` is not a number of replicas", shown(value));
                ConstraintError::new(message, "write how many may share a value: 1 or more")
            })?;
            return Ok(Self::DistinctProperty { attribute, most });
        }
        predicate(attribute, operator, value).map(Self::Node)
    }
}

/// A single word that is no constraint.
fn incomplete(text: &str) -> ConstraintError {
    const FORM: &str = "a constraint is `attribute op value`, such as `arch == amd64`";
    if text.is_empty() {
        return ConstraintError::new("the constraint is empty", FORM);
    }
    if super::problem::nearest(text, std::iter::once(DISTINCT_HOSTS)).is_some() {
        let message = format!("`{}` is not a constraint", shown(text));
        return ConstraintError::new(message, format!("did you mean `{DISTINCT_HOSTS}`?"));
    }
    let sign = |c: char| "=!<>".contains(c);
    if let Some(at) = text.find(sign) {
        let (attribute, rest) = text.split_at(at);
        let end = rest.find(|c| !sign(c)).unwrap_or(rest.len());
        let (operator, value) = rest.split_at(end);
        let message = format!("`{}` has no spaces around its operator", shown(text));
        let help = format!("write `{attribute} {operator} {value}`");
        return ConstraintError::new(message, shown(&help));
    }
    let message = format!("`{}` says nothing of the attribute", shown(text));
    ConstraintError::new(message, FORM)
}

fn predicate(
    attribute: Attribute,
    operator: &str,
    value: &str,
) -> Result<Predicate, ConstraintError> {
    let Some((_, comparison)) = COMPARISONS.iter().find(|(word, _)| *word == operator) else {
        let message = format!("unknown operator `{}`", shown(operator));
        let mut known: Vec<&str> = COMPARISONS.iter().map(|(word, _)| *word).collect();
        known.push(DISTINCT_PROPERTY);
        let help = match operator {
            "=" | "===" | "is" => "did you mean `==`?".to_owned(),
            "=>" => "did you mean `>=`?".to_owned(),
            "=<" => "did you mean `<=`?".to_owned(),
            "=~" | "~" | "matches" => "did you mean `regexp`?".to_owned(),
            "contains" | "in" => "did you mean `set_contains`?".to_owned(),
            // Between signs of one or two characters nearness says nothing.
            _ if operator.len() < 3 => format!("expected one of {}", known.join(", ")),
            _ => suggestion(operator, &known),
        };
        return Err(ConstraintError::new(message, help));
    };
    let comparison = *comparison;
    let kind = attribute.kind();
    if Comparison::of(kind).all(|(_, other)| other != comparison) {
        let message = format!("`{operator}` means nothing of `{attribute}`");
        let known: Vec<&str> = Comparison::of(kind).map(|(word, _)| word).collect();
        let help = format!("expected one of {}", known.join(", "));
        return Err(ConstraintError::new(message, help));
    }
    check_value(comparison, operator, value)?;
    let predicate = Predicate {
        attribute,
        comparison,
        value: value.to_owned(),
    };
    predicate.check()?;
    Ok(predicate)
}

fn check_value(comparison: Comparison, operator: &str, value: &str) -> Result<(), ConstraintError> {
    if value.is_empty() && comparison.takes_value() {
        let message = format!("`{operator}` is followed by no value");
        return Err(ConstraintError::new(message, "add what it compares with"));
    }
    if !value.is_empty() && !comparison.takes_value() {
        let message = format!("`{}` stands behind `{operator}`", shown(value));
        return Err(ConstraintError::new(
            message,
            "it takes no value: remove it",
        ));
    }
    let quoted = |sign: char| value.len() > 1 && value.starts_with(sign) && value.ends_with(sign);
    if quoted('"') || quoted('\'') {
        let message = format!("the value {} is in quotes", shown(value));
        return Err(ConstraintError::new(
            message,
            "it is taken as it stands: remove them",
        ));
    }
    if value.contains("${") {
        let message = format!("`{}` has a reference", shown(value));
        let help = "constraints take no references: write the value";
        return Err(ConstraintError::new(message, help));
    }
    if value.contains(char::is_control) {
        let message = format!("`{}` has a control character", shown(value));
        return Err(ConstraintError::new(message, "write it in one line"));
    }
    Ok(())
}

/// `attribute op value`.
impl fmt::Display for Predicate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.attribute, self.comparison.as_str())?;
        if self.comparison.takes_value() {
            write!(f, " {}", self.value)?;
        }
        Ok(())
    }
}

/// As it stands in files, in one spelling.
impl fmt::Display for Constraint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Node(predicate) => predicate.fmt(f),
            Self::DistinctHosts => f.write_str(DISTINCT_HOSTS),
            Self::DistinctProperty { attribute, most: 1 } => {
                write!(f, "{attribute} {DISTINCT_PROPERTY}")
            }
            Self::DistinctProperty { attribute, most } => {
                write!(f, "{attribute} {DISTINCT_PROPERTY} {most}")
            }
        }
    }
}

/// Of the node by itself, nothing between replicas.
impl FromStr for Predicate {
    type Err = ConstraintError;

    fn from_str(text: &str) -> Result<Self, ConstraintError> {
        match text.parse()? {
            Constraint::Node(predicate) => Ok(predicate),
            other => Err(ConstraintError::new(
                format!("`{other}` is about replicas, not about a node"),
                "write it under `constraints`",
            )),
        }
    }
}

impl From<Constraint> for String {
    fn from(constraint: Constraint) -> Self {
        constraint.to_string()
    }
}

impl TryFrom<String> for Constraint {
    type Error = ConstraintError;

    fn try_from(text: String) -> Result<Self, ConstraintError> {
        text.parse()
    }
}

impl From<Predicate> for String {
    fn from(predicate: Predicate) -> Self {
        predicate.to_string()
    }
}

impl TryFrom<String> for Predicate {
    type Error = ConstraintError;

    fn try_from(text: String) -> Result<Self, ConstraintError> {
        text.parse()
    }
}
