//! What a credentials file says of whom it is.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use loom_schemas::ids::Name;
use serde::Deserialize;

/// What the tag of a node's credentials begins with; its name follows.
pub(crate) const NODE_TAG: &str = "node:";

/// The line before the token.
const TOKEN: &str = "-----BEGIN NATS USER JWT-----";

#[derive(Deserialize)]
struct Claims {
    nats: UserClaims,
}

#[derive(Deserialize)]
struct UserClaims {
    #[serde(default)]
    tags: Vec<String>,
}

/// The node whose credentials these are; none if they are somebody else's, or none at all.
///
/// Nothing is proved by that: the server looks at the signature.
pub(super) fn node_of(text: &str) -> Option<Name> {
    let mut lines = text.lines().map(str::trim);
    lines.find(|line| *line == TOKEN)?;
    let claims = URL_SAFE_NO_PAD
        .decode(lines.next()?.split('.').nth(1)?)
        .ok()?;
    let claims: Claims = serde_json::from_slice(&claims).ok()?;
    let tag = claims
        .nats
        .tags
        .iter()
        .find_map(|tag| tag.strip_prefix(NODE_TAG));
    Name::new(tag?).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(claims: &str) -> String {
        format!(
            "{TOKEN}\nhead.{}.sign\n------END\n",
            URL_SAFE_NO_PAD.encode(claims)
        )
    }

    #[test]
    fn a_nodes_credentials_say_of_which_node_they_are() {
        let node = |text: &str| node_of(text).map(|name| name.to_string());
        let of_n1 = r#"{"name":"node","nats":{"tags":["a:b","node:n1"]}}"#;
        assert_eq!(node(&file(of_n1)).as_deref(), Some("n1"));
        for other in [
            file(r#"{"name":"ada","nats":{}}"#),
            file(r#"{"name":"node","nats":{"tags":["node:N 1"]}}"#),
            file("{"),
            format!("{TOKEN}\n"),
            String::new(),
        ] {
            assert_eq!(node(&other), None, "{other}");
        }
    }
}
