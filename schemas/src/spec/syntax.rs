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

    /// The syntax of a submission or of standard input: `{` first is JSON, the first byte of a
    /// `MessagePack` map is `MessagePack`, a first line `[table]` or `key = value` is TOML, all
    /// else is YAML.
    pub fn guess(text: &[u8]) -> Self {
        let first = text.iter().find(|byte| !byte.is_ascii_whitespace());
        match (text.first(), first) {
            (Some(0x80..=0x8f | 0xde | 0xdf), _) => Self::MessagePack,
            (_, Some(b'{')) => Self::Json,
            _ if looks_like_toml(text) => Self::Toml,
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

/// A YAML job begins with a key and a colon, so neither sign can be one.
fn looks_like_toml(text: &[u8]) -> bool {
    let lines = text.split(|byte| *byte == b'\n').map(<[u8]>::trim_ascii);
    let mut telling = lines.filter(|line| !line.is_empty() && !line.starts_with(b"#"));
    telling.next().is_some_and(|line| {
        let sign = line.iter().find(|byte| matches!(byte, b'=' | b':'));
        line.starts_with(b"[") || sign == Some(&b'=')
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_syntax_is_known_by_its_first_line() {
        for (text, syntax) in [
            (&b""[..], Syntax::Yaml),
            (b"name: web", Syntax::Yaml),
            (b"# a = b\n---\nname: a=b", Syntax::Yaml),
            (b" \n{\"name\"", Syntax::Json),
            (b"# x\n\nname = \"web\"", Syntax::Toml),
            (b"[tasks.api]", Syntax::Toml),
            (b"\x81\xa4name", Syntax::MessagePack),
            (b"\xde\x00\x01", Syntax::MessagePack),
        ] {
            assert_eq!(Syntax::guess(text), syntax, "{}", text.escape_ascii());
        }
        for (path, syntax) in [
            ("a/web.yaml", Some(Syntax::Yaml)),
            ("web.YML", Some(Syntax::Yaml)),
            ("web.toml", Some(Syntax::Toml)),
            ("web.json", Some(Syntax::Json)),
            ("web", None),
            ("web.txt", None),
        ] {
            assert_eq!(Syntax::of_path(Path::new(path)), syntax);
        }
    }
}
