//! What can be asked of a node: the attributes that constraints name.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use super::constraint::ConstraintError;
use super::problem::{shown, suggestion};
use super::reference::is_label;

/// An attribute of a node, as constraints name it; kept as that text.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(into = "String", try_from = "String")]
pub enum Attribute {
    /// The node's name.
    Name,
    /// The host's name.
    Hostname,
    /// Processor architecture: `amd64`, `arm64`.
    Arch,
    /// The operating system: `debian`.
    Os,
    /// Its version: `12`.
    OsVersion,
    /// Kernel release: `6.1.0-18-amd64`.
    Kernel,
    /// The datacenter.
    Datacenter,
    /// The address others reach it at.
    Ip,
    /// An address of it that the internet routes to.
    ExternalIp,
    /// Version of its Docker Engine.
    DockerVersion,
    /// What runs launches on it, one or several.
    Driver,
    /// Its cores for tasks, all in all.
    Cpu,
    /// Its memory for tasks, all in all.
    Memory,
    /// Its disk for tasks, all in all.
    Disk,
    /// Version of its agent.
    AgentVersion,
    /// A label of it.
    Label(String),
}

/// Which comparisons mean something for an attribute.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AttributeKind {
    /// Text without an order.
    Text,
    /// Text of people, which may be a number or a version.
    Label,
    /// Numbers with points between them.
    Version,
    /// Several words.
    Set,
    /// A number of cores.
    Cores,
    /// A size.
    Size,
}

/// What stands before the key of a label.
const LABEL: &str = "node.label.";

/// The attributes by name, those of labels apart.
const NAMES: [(&str, Attribute); 15] = [
    ("arch", Attribute::Arch),
    ("os", Attribute::Os),
    ("os.version", Attribute::OsVersion),
    ("kernel", Attribute::Kernel),
    ("datacenter", Attribute::Datacenter),
    ("hostname", Attribute::Hostname),
    ("ip", Attribute::Ip),
    ("ip.external", Attribute::ExternalIp),
    ("docker.version", Attribute::DockerVersion),
    ("driver", Attribute::Driver),
    ("cpu", Attribute::Cpu),
    ("memory", Attribute::Memory),
    ("disk", Attribute::Disk),
    ("agent.version", Attribute::AgentVersion),
    ("node.name", Attribute::Name),
];

impl Attribute {
    /// Which comparisons mean something for it.
    pub fn kind(&self) -> AttributeKind {
        match self {
            Self::Name
            | Self::Hostname
            | Self::Arch
            | Self::Os
            | Self::Datacenter
            | Self::Ip
            | Self::ExternalIp => AttributeKind::Text,
            Self::OsVersion | Self::Kernel | Self::DockerVersion | Self::AgentVersion => {
                AttributeKind::Version
            }
            Self::Driver => AttributeKind::Set,
            Self::Cpu => AttributeKind::Cores,
            Self::Memory | Self::Disk => AttributeKind::Size,
            Self::Label(_) => AttributeKind::Label,
        }
    }

    /// All but labels, in the order of the documentation.
    pub fn all() -> impl Iterator<Item = Self> {
        NAMES.into_iter().map(|(_, attribute)| attribute)
    }
}

/// As constraints name it.
impl fmt::Display for Attribute {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Self::Label(key) = self {
            return write!(f, "{LABEL}{key}");
        }
        let named = NAMES.iter().find(|(_, attribute)| attribute == self);
        f.write_str(named.map_or("", |(name, _)| name))
    }
}

impl FromStr for Attribute {
    type Err = ConstraintError;

    fn from_str(text: &str) -> Result<Self, ConstraintError> {
        if let Some((_, attribute)) = NAMES.iter().find(|(name, _)| *name == text) {
            return Ok(attribute.clone());
        }
        if let Some(key) = text.strip_prefix(LABEL) {
            if is_label(key) {
                return Ok(Self::Label(key.to_owned()));
            }
            let message = format!("`{}` is not the name of a label", shown(key));
            let help = "expected 1 to 63 letters, digits, `.`, `_`, `/` or `-`";
            return Err(ConstraintError::new(message, help));
        }
        let message = format!("`{}` is not an attribute of nodes", shown(text));
        let help = match text.strip_prefix("label.").or(text.strip_prefix("labels.")) {
            Some(key) if is_label(key) => format!("did you mean `{LABEL}{key}`?"),
            _ => {
                let mut names: Vec<&str> = NAMES.iter().map(|(name, _)| *name).collect();
                names.push("node.label.<key>");
                suggestion(text, &names)
            }
        };
        Err(ConstraintError::new(message, help))
    }
}

impl From<Attribute> for String {
    fn from(attribute: Attribute) -> Self {
        attribute.to_string()
    }
}

impl TryFrom<String> for Attribute {
    type Error = ConstraintError;

    fn try_from(text: String) -> Result<Self, ConstraintError> {
        text.parse()
    }
}
