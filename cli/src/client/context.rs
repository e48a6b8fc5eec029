//! The context that the NATS command line's user has selected.

use std::path::{Path, PathBuf};

use serde::Deserialize;

use crate::exit::Failure;

/// A context of the NATS command line, as far as we use it.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct NatsContext {
    pub(super) url: String,
    pub(super) creds: String,
    pub(super) user: String,
    pub(super) password: String,
    pub(super) ca: String,
    pub(super) cert: String,
    pub(super) key: String,
    pub(super) token: String,
    pub(super) nkey: String,
    pub(super) nsc: String,
    pub(super) user_jwt: String,
    pub(super) socks_proxy: String,
    pub(super) tls_first: bool,
}

/// The context `nats context select` chose, if there is one.
pub(super) fn selected() -> Result<Option<NatsContext>, Failure> {
    let config = std::env::var_os("XDG_CONFIG_HOME")
        .map(PathBuf::from)
        .or_else(|| std::env::var_os("HOME").map(|home| Path::new(&home).join(".config")));
    let Some(directory) = config.map(|config| config.join("nats")) else {
        return Ok(None);
    };
    let Ok(name) = std::fs::read_to_string(directory.join("context.txt")) else {
        return Ok(None);
    };
    let name = name.trim();
    if name.is_empty() {
        return Ok(None);
    }
    let path = directory.join("context").join(format!("{name}.json"));
    let wrong = |reason: &dyn std::fmt::Display| {
        Failure::error(format!(
            "the selected NATS context {}: {reason}",
            path.display()
        ))
    };
    let text = std::fs::read(&path).map_err(|error| wrong(&error))?;
    let context: NatsContext = serde_json::from_slice(&text).map_err(|error| wrong(&error))?;
    match context.unsupported() {
        Some(field) => Err(wrong(&format!("`{field}` is not supported yet"))),
        None => Ok(Some(context)),
    }
}

impl NatsContext {
    /// The first field that is set and would be needed to connect as meant.
    fn unsupported(&self) -> Option<&'static str> {
        let fields = [
            ("token", &self.token),
            ("nkey", &self.nkey),
            ("nsc", &self.nsc),
            ("user_jwt", &self.user_jwt),
            ("socks_proxy", &self.socks_proxy),
        ];
        let text = fields.into_iter().find(|(_, value)| !value.is_empty());
        text.map(|(name, _)| name)
            .or(self.tls_first.then_some("tls_first"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_context_asks_for_in_vain_is_named() {
        let context = |text: &str| serde_json::from_str::<NatsContext>(text).unwrap();
        let plain = r#"{"url":"nats://h","description":"x","nkey":"","tls_first":false}"#;
        assert_eq!(context(plain).unsupported(), None);
        assert_eq!(context(r#"{"nkey":"/a"}"#).unsupported(), Some("nkey"));
        assert_eq!(
            context(r#"{"tls_first":true}"#).unsupported(),
            Some("tls_first")
        );
    }
}
