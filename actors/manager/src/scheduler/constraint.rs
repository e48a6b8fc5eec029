//! Constraints: what a node is, and whether that is what a task asks for. Pure.
//!
//! Of a node without the attribute only `!=` and `is_not_set` hold. Versions compare number by
//! number, whatever follows the numbers; a label that is none is neither more nor less than one.

use std::cmp::Ordering;
use std::collections::BTreeSet;
use std::hash::{Hash, Hasher};
use std::sync::{Arc, OnceLock};

use loom_schemas::record::{NodeRecord, Taint};
use loom_schemas::spec::{
    Attribute, AttributeKind, Comparison, Predicate, Toleration, Version, VersionRange,
    may_lie_beneath, regexp, words,
};
use loom_schemas::units::{Bytes, MilliCores};
use loom_schemas::words::{DriverKind, TaintEffect};
use regex::Regex;

/// What a node is, as constraints and tolerations see it.
#[derive(Clone, Debug, Default)]
pub struct Attributes(Option<Arc<NodeRecord>>);

/// The value of an attribute.
enum Value<'a> {
    Text(&'a str),
    Drivers(&'a [DriverKind]),
    Number(u64),
}

/// A predicate to be asked of many nodes, made ready when it is asked first: what was asked before of
/// the same nodes need not be. Two are the same if they say the same. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Rule(Arc<Ready>);

#[derive(Debug)]
struct Ready {
    predicate: Predicate,
    text: OnceLock<Arc<str>>,
    test: OnceLock<Test>,
}

#[derive(Clone, Debug)]
enum Test {
    Text(String),
    Number(u64),
    Version(Version),
    Range(VersionRange),
    Regexp(Regex),
    Words(BTreeSet<String>),
    /// Only whether the attribute is there counts.
    Presence,
    /// The value cannot be read; a spec with such a one is refused.
    Nothing,
}

impl Attributes {
    /// What a node is.
    pub fn of(node: &Arc<NodeRecord>) -> Self {
        Self(Some(Arc::clone(node)))
    }

    fn get<'a>(&'a self, attribute: &'a Attribute) -> Option<Value<'a>> {
        let node = self.0.as_deref()?;
        let (info, capacity) = (&node.info, &node.info.capacity);
        let measured = |name: &str| info.attributes.get(name).map(String::as_str);
        let text = match attribute {
            Attribute::Driver => return Some(Value::Drivers(&info.drivers)),
            Attribute::Cpu => return Some(Value::Number(u64::from(capacity.cpu.0))),
            Attribute::Memory => return Some(Value::Number(capacity.memory.0)),
            Attribute::Disk => return Some(Value::Number(capacity.disk.0)),
            // A label may be there and say nothing.
            Attribute::Label(key) => return node.label(key).map(Value::Text),
            Attribute::Name => Some(node.name.as_str()),
            Attribute::Hostname => Some(info.hostname.as_str()),
            Attribute::Arch => Some(info.arch.as_str()),
            Attribute::Kernel => Some(info.kernel.as_str()),
            Attribute::Ip => Some(info.address.as_str()),
            Attribute::AgentVersion => Some(info.agent.as_str()),
            Attribute::Datacenter => info.datacenter.as_deref(),
            Attribute::Os => measured("os"),
            Attribute::OsVersion => measured("os.version"),
            Attribute::ExternalIp => measured("ip.external"),
            Attribute::DockerVersion => measured("docker.version"),
        };
        text.filter(|text| !text.is_empty()).map(Value::Text)
    }

    /// An attribute in words; none if the node does not have it.
    pub fn text(&self, attribute: &Attribute) -> Option<String> {
        Some(match self.get(attribute)? {
            Value::Text(text) => text.to_owned(),
            Value::Drivers(drivers) => {
                let drivers: Vec<&str> = drivers.iter().map(|driver| driver.as_str()).collect();
                drivers.join(",")
            }
            Value::Number(number) => number.to_string(),
        })
    }

    /// Whether output may go there beside the node's own directories.
    pub fn takes_output(&self, to: &str) -> bool {
        let node = self.0.as_ref();
        node.is_some_and(|node| may_lie_beneath(to, &node.info.log_dirs))
    }

    /// Whether its runs are to leave it.
    pub fn is_draining(&self) -> bool {
        self.0.as_ref().is_some_and(|node| node.drain.is_some())
    }

    fn taints(&self) -> &[Taint] {
        self.0.as_ref().map_or(&[], |node| &node.taints)
    }

    /// The first taint that keeps new runs away which tolerate no others than these.
    pub fn refuses(&self, tolerations: &[Toleration]) -> Option<&Taint> {
        let keeps_away = |taint: &&Taint| taint.effect != TaintEffect::PreferNot;
        let mut taints = self.taints().iter().filter(keeps_away);
        taints.find(|taint| !tolerations.iter().any(|t| admits(t, taint)))
    }

    /// Whether such a run goes here only if nothing else has room.
    pub fn is_shunned(&self, tolerations: &[Toleration]) -> bool {
        let shuns = |taint: &&Taint| taint.effect == TaintEffect::PreferNot;
        let mut taints = self.taints().iter().filter(shuns);
        taints.any(|taint| !tolerations.iter().any(|t| tolerates(t, taint)))
    }
}

/// What changes with every assignment does not count.
impl PartialEq for Attributes {
    fn eq(&self, other: &Self) -> bool {
        let parts = |attributes: &Self| {
            let node = attributes.0.clone()?;
            Some((node.drain.is_some(), node))
        };
        match (parts(self), parts(other)) {
            (Some((draining, a)), Some((drains, b))) => {
                let same = (&a.name, &a.labels, &a.taints) == (&b.name, &b.labels, &b.taints);
                same && draining == drains && a.info == b.info
            }
            (None, None) => true,
            _ => false,
        }
    }
}

impl Eq for Attributes {}

/// Whether a toleration speaks of a taint.
pub fn tolerates(toleration: &Toleration, taint: &Taint) -> bool {
    let key = toleration.key.as_ref().is_none_or(|key| *key == taint.key);
    let value = toleration.value.as_ref();
    let value = value.is_none_or(|value| taint.value.as_ref() == Some(value));
    key && value
        && toleration
            .effect
            .is_none_or(|effect| effect == taint.effect)
}

/// The same for a new run: one that may only stay for a while is not sent there.
fn admits(toleration: &Toleration, taint: &Taint) -> bool {
    toleration.stay.is_none() && tolerates(toleration, taint)
}

impl Rule {
    /// From a predicate.
    pub fn new(predicate: Predicate) -> Self {
        Self(Arc::new(Ready {
            predicate,
            text: OnceLock::new(),
            test: OnceLock::new(),
        }))
    }

    /// What it says.
    fn predicate(&self) -> &Predicate {
        &self.0.predicate
    }

    /// How it is asked; regular expressions are compiled here, once.
    fn test(&self) -> &Test {
        let test = || test_of(self.predicate()).unwrap_or(Test::Nothing);
        self.0.test.get_or_init(test)
    }

    /// What it is about.
    pub fn attribute(&self) -> &Attribute {
        &self.predicate().attribute
    }

    /// The predicate in words.
    pub fn text(&self) -> &Arc<str> {
        let text = || self.predicate().to_string().into();
        self.0.text.get_or_init(text)
    }

    /// Whether a node is what it asks for.
    pub fn holds(&self, node: &Attributes) -> bool {
        let Predicate {
            attribute,
            comparison,
            ..
        } = self.predicate();
        let comparison = *comparison;
        let found = node.get(attribute);
        match (comparison, found) {
            (Comparison::IsSet, found) => found.is_some(),
            (Comparison::IsNotSet | Comparison::NotEqual, None) => true,
            (Comparison::IsNotSet, Some(_)) | (_, None) => false,
            (Comparison::NotEqual, Some(found)) => !self.test().holds(Comparison::Equal, &found),
            (comparison, Some(found)) => self.test().holds(comparison, &found),
        }
    }
}

fn test_of(predicate: &Predicate) -> Option<Test> {
    let value = predicate.value.as_str();
    let owned = |list: BTreeSet<&str>| list.into_iter().map(str::to_owned).collect();
    Some(match (predicate.comparison, predicate.attribute.kind()) {
        (Comparison::IsSet | Comparison::IsNotSet, _) => Test::Presence,
        (Comparison::Regexp, _) => Test::Regexp(regexp(value).ok()?),
        (Comparison::Version, _) => Test::Range(value.parse().ok()?),
        (Comparison::SetContains, _) => Test::Words(owned(words(value))),
        (_, AttributeKind::Cores) => Test::Number(u64::from(value.parse::<MilliCores>().ok()?.0)),
        (_, AttributeKind::Size) => Test::Number(value.parse::<Bytes>().ok()?.0),
        (Comparison::Equal | Comparison::NotEqual, AttributeKind::Version) => {
            let version = value.parse().map(Test::Version);
            version.unwrap_or_else(|_| Test::Text(value.to_owned()))
        }
        (Comparison::Equal | Comparison::NotEqual, _) => Test::Text(value.to_owned()),
        _ => Test::Version(value.parse().ok()?),
    })
}

impl Test {
    fn holds(&self, comparison: Comparison, found: &Value<'_>) -> bool {
        match (self, found) {
            (Self::Text(asked), Value::Text(text)) => asked == *text,
            (Self::Text(asked), Value::Drivers(drivers)) => {
                drivers.iter().any(|d| d.as_str() == asked)
            }
            (Self::Number(asked), Value::Number(number)) => is(comparison, number.cmp(asked)),
            (Self::Version(asked), Value::Text(text)) => {
                let version = Version::read(text);
                version.is_some_and(|version| is(comparison, version.cmp(asked)))
            }
            (Self::Range(asked), Value::Text(text)) => {
                Version::read(text).is_some_and(|version| asked.holds(&version))
            }
            (Self::Regexp(asked), Value::Text(text)) => asked.is_match(text),
            (Self::Regexp(asked), Value::Drivers(drivers)) => {
                drivers.iter().any(|driver| asked.is_match(driver.as_str()))
            }
            (Self::Words(asked), Value::Drivers(drivers)) => {
                let has = |word: &String| drivers.iter().any(|driver| driver.as_str() == word);
                asked.iter().all(has)
            }
            (Self::Words(asked), Value::Text(text)) => {
                let found = words(text);
                asked.iter().all(|word| found.contains(word.as_str()))
            }
            _ => false,
        }
    }
}

fn is(comparison: Comparison, order: Ordering) -> bool {
    match comparison {
        Comparison::Less => order.is_lt(),
        Comparison::AtMost => order.is_le(),
        Comparison::More => order.is_gt(),
        Comparison::AtLeast => order.is_ge(),
        _ => order.is_eq(),
    }
}

impl PartialEq for Rule {
    fn eq(&self, other: &Self) -> bool {
        self.predicate() == other.predicate()
    }
}

impl Eq for Rule {}

impl Hash for Rule {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.predicate().hash(state);
    }
}

impl PartialOrd for Rule {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Rule {
    fn cmp(&self, other: &Self) -> Ordering {
        self.predicate().cmp(other.predicate())
    }
}

#[cfg(test)]
mod tests;
