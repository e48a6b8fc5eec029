//! The syntaxes a job can be written in.

use std::path::Path;

/// A syntax of the job language.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Syntax {
    /// YAML 1.2, core schema, without anchors and tags.
    Yaml,
    /// TOML 1.0.
    Toml,
    /// JSON, RFC 8259.
    Json,
    /// A `MessagePack` map, for programs that submit on the bus.
    MessagePack,
}

impl Syntax {
    /// The syntax of a file by its extension: `.yaml`, `.yml`, `.toml`, `.json`.
    pub fn of_path(path: &Path) -> Option<Self> {
        match path.extension()?.to_str()?.to_ascii_lowercase().as_str() {
            "yaml" | "yml" => Some(Self::Yaml),
            "toml" => Some(Self::Toml),
            "json" => Some(Self::Json),
            _ => None,
        }
    }

    /// The syntax of a submission or of standard input, by its first byte: `{` is JSON, the first
    /// byte of a `MessagePack` map is `MessagePack`, all else is YAML. TOML is not guessed.
    pub fn guess(text: &[u8]) -> Self {
        let first = text.iter().find(|byte| !byte.is_ascii_whitespace());
        match (text.first(), first) {
            (Some(0x80..=0x8f | 0xde | 0xdf), _) => Self::MessagePack,
            (_, Some(b'{')) => Self::Json,
            _ => Self::Yaml,
        }
    }

    /// The word for messages.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Yaml => "YAML",
            Self::Toml => "TOML",
            Self::Json => "JSON",
            Self::MessagePack => "MessagePack",
        }
    }
}
