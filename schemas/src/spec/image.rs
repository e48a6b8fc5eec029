//! Names of images, as `docker pull` takes them, and when they are pulled.

use std::fmt;

use serde::{Deserialize, Serialize};

/// The registry of names that name none.
pub const DOCKER_HUB: &str = "docker.io";

/// The tag of names that have neither tag nor digest.
pub const LATEST: &str = "latest";

/// The longest repository, with its registry.
const NAME_MAX: usize = 255;

/// The image of a container.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ImageSpec {
    /// As written: `nginx:1.27`, `registry.example:5000/team/web@sha256:...`.
    pub name: String,
    /// When it is pulled.
    #[serde(default)]
    pub pull: Pull,
}

/// When an image is pulled.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize, schemars::JsonSchema,
)]
#[serde(rename_all = "lowercase")]
pub enum Pull {
    /// Before every run.
    Always,
    /// Where the node does not have it, whatever its tag; what `docker run` does.
    #[default]
    Missing,
    /// Never: the node has it, or the run is rejected.
    Never,
}

/// The network of a container.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize, schemars::JsonSchema,
)]
#[serde(rename_all = "lowercase")]
pub enum Network {
    /// One of its own behind the node's address.
    #[default]
    Bridge,
    /// The node's.
    Host,
    /// A loopback of its own and nothing else.
    None,
}

impl Network {
    /// Whether it is the one that is taken where nobody says.
    pub fn is_default(&self) -> bool {
        *self == Self::default()
    }
}

/// The parts of an image's name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ImageName<'a> {
    /// `host` or `host:port`; none for Docker Hub.
    pub registry: Option<&'a str>,
    /// `nginx`, `team/web`.
    pub repository: &'a str,
    /// None if it is not said.
    pub tag: Option<&'a str>,
    /// `sha256:...`.
    pub digest: Option<&'a str>,
}

impl<'a> ImageName<'a> {
    /// Reads a name; the error says what is wrong with it, and the second text what to do.
    pub fn parse(text: &'a str) -> Result<Self, (String, &'static str)> {
        const EXPECTED: &str = "expected a name such as `nginx:1.27` or `registry:5000/team/web:2`";
        let wrong = |what: &str| (what.to_owned(), EXPECTED);
        if text.is_empty() {
            return Err(wrong("the name of the image is empty"));
        }
        if text.contains("://") {
            return Err((
                "the name of an image is no URL".to_owned(),
                "leave out `https://`",
            ));
        }
        let (rest, digest) = match text.split_once('@') {
            Some((rest, digest)) => (rest, Some(digest)),
            None => (text, None),
        };
        let last = rest.rfind('/').map_or(0, |at| at + 1);
        let (name, tag) = match rest[last..].rfind(':') {
            Some(at) => (&rest[..last + at], Some(&rest[last + at + 1..])),
            None => (rest, None),
        };
        let (registry, repository) = match name.split_once('/') {
            Some((first, rest)) if is_host(first) => (Some(first), rest),
            _ => (None, name),
        };
        let is_name = |repository: &str| repository.split('/').all(is_component);
        if name.len() > NAME_MAX || !is_name(&repository.to_ascii_lowercase()) {
            return Err(wrong("it is not the name of an image"));
        }
        if !is_name(repository) {
            return Err((
                format!("`{repository}` has capital letters"),
                "repositories are written in lower case",
            ));
        }
        if tag.is_some_and(|tag| !is_tag(tag)) {
            return Err(wrong("its tag is not one"));
        }
        if digest.is_some_and(|digest| !is_digest(digest)) {
            return Err((
                "its digest is not one".to_owned(),
                "expected `@sha256:` and 64 hexadecimal digits",
            ));
        }
        let registry = registry.filter(|host| !is_hub(host));
        Ok(Self {
            registry,
            repository,
            tag,
            digest,
        })
    }

    /// The registry to show to people.
    pub fn registry(&self) -> &'a str {
        self.registry.unwrap_or(DOCKER_HUB)
    }

    /// Tag or digest: what is pulled of the repository.
    pub fn reference(&self) -> &'a str {
        self.digest.or(self.tag).unwrap_or(LATEST)
    }
}

/// The repository with its registry, if it names one.
impl fmt::Display for ImageName<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(registry) = self.registry {
            write!(f, "{registry}/")?;
        }
        f.write_str(self.repository)
    }
}

/// Whether the first part of a name is a registry, by the rule of Docker.
fn is_host(part: &str) -> bool {
    part.contains(['.', ':']) || part == "localhost"
}

fn is_hub(host: &str) -> bool {
    matches!(
        host,
        "docker.io" | "index.docker.io" | "registry-1.docker.io"
    )
}

fn is_component(part: &str) -> bool {
    let plain = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit();
    part.starts_with(plain)
        && part.ends_with(plain)
        && part.chars().all(|c| plain(c) || "._-".contains(c))
}

fn is_tag(tag: &str) -> bool {
    let letter = |c: char| c.is_ascii_alphanumeric() || c == '_';
    (1..=128).contains(&tag.len())
        && tag.starts_with(letter)
        && tag.chars().all(|c| letter(c) || ".-".contains(c))
}

fn is_digest(digest: &str) -> bool {
    digest.strip_prefix("sha256:").is_some_and(|hex| {
        hex.len() == 64
            && hex
                .chars()
                .all(|c| c.is_ascii_digit() || ('a'..='f').contains(&c))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_has_a_registry_if_its_first_part_is_a_host() {
        let digest = format!("sha256:{}", "0a".repeat(32));
        let pinned = format!("r.example:5000/team/web:2@{digest}");
        for (text, registry, repository, reference) in [
            ("nginx", None, "nginx", "latest"),
            ("nginx:1.27", None, "nginx", "1.27"),
            ("team/web", None, "team/web", "latest"),
            ("docker.io/library/nginx", None, "library/nginx", "latest"),
            ("localhost/a/b:c", Some("localhost"), "a/b", "c"),
            ("127.0.0.1:5000/a", Some("127.0.0.1:5000"), "a", "latest"),
            (&pinned, Some("r.example:5000"), "team/web", &digest),
        ] {
            let name = ImageName::parse(text).unwrap();
            assert_eq!(
                (name.registry, name.repository),
                (registry, repository),
                "{text}"
            );
            assert_eq!(name.reference(), reference, "{text}");
        }
        assert_eq!(ImageName::parse("a:1").unwrap().registry(), "docker.io");
        let name = ImageName::parse("localhost/a/b:c").unwrap();
        assert_eq!(name.to_string(), "localhost/a/b");
    }

    #[test]
    fn capital_letters_are_named_only_where_nothing_else_is_wrong() {
        let what = |text| ImageName::parse(text).unwrap_err().0;
        assert_eq!(what("team/Web:1"), "`team/Web` has capital letters");
        assert_eq!(what("date +%F\n"), "it is not the name of an image");
    }

    #[test]
    fn what_is_no_name_is_refused() {
        for text in [
            "",
            "https://nginx",
            "Nginx",
            "a b",
            "a//b",
            "/a",
            "a:",
            "a:b:c/d:!",
            "a@sha256:12",
            "-a",
            "a\n",
            "nginx:la test",
        ] {
            assert!(ImageName::parse(text).is_err(), "{text}");
        }
    }
}
