//! Who is who on a bus of several servers: an operator, its accounts, their users, all signed.
//!
//! The form is that of NATS: claims in JSON, signed with an nkey, as a JSON Web Token (version 2
//! of the claims). What each account may say to the other is the same as on the embedded server.

use std::collections::BTreeMap;
use std::fmt::{self, Write as _};
use std::path::Path;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jiff::Timestamp;
use nkeys::{KeyPair, KeyPairType};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use super::{DeployError, NODE, load_or_make};
use crate::connection::NODE_TAG;
use crate::server::config::{
    ANSWERED_WITHIN, INBOX, NODE_HEARS, NODE_SAYS, SERVICES, SERVICES_OF_MANY, STREAMS, WHO_AM_I,
};

/// The role of users in their account.
const USER_ROLE: &str = "user";
/// The role of nodes in the account they share with managers.
const NODE_ROLE: &str = "node";

/// The name of the key that signs nodes.
const NODES_SIGNER: &str = "nodes-signer";

/// Users and nodes who are taken no more, by public key: whatever was signed for them up to this time, in
/// seconds since 1970.
pub(super) type Revoked = BTreeMap<String, i64>;

/// Every key of a bus.
pub(super) struct Keys {
    operator: KeyPair,
    system: KeyPair,
    orch: KeyPair,
    users: KeyPair,
    /// Signs users; what they may do stands in their account, under this key.
    signer: KeyPair,
    /// The same of nodes.
    nodes_signer: KeyPair,
}

impl fmt::Debug for Keys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Keys")
    }
}

/// The tokens that a server's configuration holds.
pub(super) struct Tokens {
    /// The operator's.
    pub(super) operator: String,
    /// The system account's public key.
    pub(super) system_account: String,
    /// Public key and token of every account.
    pub(super) accounts: Vec<(String, String)>,
}

impl Keys {
    pub(super) fn load_or_make(dir: &Path) -> Result<Self, DeployError> {
        Self::read(dir, |path, kind| {
            load_or_make(path, || {
                let seed = KeyPair::new(kind).seed();
                seed.map_err(|error| DeployError::Sign(error.to_string()))
            })
        })
    }

    pub(super) fn load(dir: &Path) -> Result<Self, DeployError> {
        Self::read(dir, |path, kind| {
            if path.file_stem().is_some_and(|stem| stem == NODES_SIGNER) && !path.exists() {
                // Files that were made before nodes had a login of their own.
                let seed = KeyPair::new(kind).seed();
                return seed.map_err(|error| DeployError::Sign(error.to_string()));
            }
            std::fs::read_to_string(path).map_err(|source| DeployError::File {
                path: path.to_owned(),
                source,
            })
        })
    }

    fn read(
        dir: &Path,
        seed: impl Fn(&Path, KeyPairType) -> Result<String, DeployError>,
    ) -> Result<Self, DeployError> {
        let key = |name: &str, kind: KeyPairType| {
            let path = dir.join(format!("{name}.nk"));
            let key = KeyPair::from_seed(seed(&path, kind)?.trim());
            key.map_err(|error| DeployError::Key {
                path,
                reason: error.to_string(),
            })
        };
        Ok(Self {
            operator: key("operator", KeyPairType::Operator)?,
            system: key("system", KeyPairType::Account)?,
            orch: key("orch", KeyPairType::Account)?,
            users: key("users", KeyPairType::Account)?,
            signer: key("users-signer", KeyPairType::Account)?,
            nodes_signer: key(NODES_SIGNER, KeyPairType::Account)?,
        })
    }

    /// What the servers are told, of accounts and of users they take no more.
    pub(super) fn tokens(&self, revoked: &Revoked) -> Result<Tokens, DeployError> {
        let system_account = self.system.public_key();
        let operator = json!({
            "type": "operator", "version": 2, "system_account": system_account,
        });
        let account = |key: &KeyPair, name: &str, claims: Value| {
            let token = sign(&self.operator, &key.public_key(), name, &claims)?;
            Ok::<_, DeployError>((key.public_key(), token))
        };
        Ok(Tokens {
            operator: sign(
                &self.operator,
                &self.operator.public_key(),
                "loom",
                &operator,
            )?,
            accounts: vec![
                account(&self.system, "SYS", account_claims(&json!({})))?,
                account(&self.orch, "ORCH", self.orch_claims(revoked))?,
                account(&self.users, "USERS", self.users_claims(revoked))?,
            ],
            system_account,
        })
    }

    fn orch_claims(&self, revoked: &Revoked) -> Value {
        let threshold = u64::try_from(ANSWERED_WITHIN.as_nanos()).unwrap_or(u64::MAX);
        let mut exports: Vec<Value> = Vec::new();
        for subject in SERVICES {
            exports.push(json!({"name": subject, "subject": subject, "type": "service"}));
        }
        for subject in SERVICES_OF_MANY {
            exports.push(json!({
                "name": subject, "subject": subject, "type": "service",
                "response_type": "Stream", "response_threshold": threshold,
            }));
        }
        for subject in STREAMS {
            exports.push(json!({"name": subject, "subject": subject, "type": "stream"}));
        }
        let mut claims = account_claims(&json!({
            "mem_storage": -1, "disk_storage": -1, "streams": -1, "consumer": -1,
        }));
        claims["exports"] = exports.into();
        let mut template = template(NODE_SAYS, NODE_HEARS);
        // One answer to each request, for as long as somebody may wait for it.
        template["resp"] = json!({"max": 1, "ttl": threshold});
        claims["signing_keys"] = json!([role(NODE_ROLE, &self.nodes_signer, &template)]);
        taken_back(&mut claims, revoked);
        claims
    }

    fn users_claims(&self, revoked: &Revoked) -> Value {
        let orch = self.orch.public_key();
        let services = || SERVICES.iter().chain(SERVICES_OF_MANY).copied();
        let mut imports: Vec<Value> = Vec::new();
        for subject in services() {
            imports.push(json!({
                "name": subject, "subject": subject, "account": orch, "type": "service",
                "share": true,
            }));
        }
        for subject in STREAMS {
            imports.push(json!({
                "name": subject, "subject": subject, "account": orch, "type": "stream",
            }));
        }
        let publish: Vec<&str> = services().chain([WHO_AM_I]).collect();
        let subscribe: Vec<&str> = STREAMS.iter().copied().chain([INBOX]).collect();
        let mut claims = account_claims(&json!({}));
        claims["imports"] = imports.into();
        let template = template(&publish, &subscribe);
        claims["signing_keys"] = json!([role(USER_ROLE, &self.signer, &template)]);
        taken_back(&mut claims, revoked);
        claims
    }

    /// The credentials file of a manager.
    pub(super) fn orch_credentials(&self, name: &str) -> Result<String, DeployError> {
        Ok(credentials(&self.orch, name, &unlimited())?.text)
    }

    /// The credentials of a node: all are called the same, and a tag says which it is.
    pub(super) fn node_credentials(&self, node: &str) -> Result<Credentials, DeployError> {
        let mut claims = signed_for(&self.orch);
        claims["tags"] = json!([format!("{NODE_TAG}{node}")]);
        credentials(&self.nodes_signer, NODE, &claims)
    }

    /// The credentials file of somebody who asks the servers about themselves.
    pub(super) fn system_credentials(&self, name: &str) -> Result<String, DeployError> {
        Ok(credentials(&self.system, name, &unlimited())?.text)
    }

    /// The credentials of a user.
    pub(super) fn user_credentials(&self, name: &str) -> Result<Credentials, DeployError> {
        credentials(&self.signer, name, &signed_for(&self.users))
    }
}

/// Somebody's credentials.
pub(super) struct Credentials {
    /// The content of the file.
    pub(super) text: String,
    /// As whom the servers know them.
    pub(super) public_key: String,
}

/// Whom an account takes no more. Those of others do no harm there.
fn taken_back(claims: &mut Value, revoked: &Revoked) {
    if !revoked.is_empty() {
        claims["revocations"] = json!(revoked);
    }
}

/// Claims of somebody who may do what stands in an account, under the key that signs them.
fn signed_for(account: &KeyPair) -> Value {
    json!({"type": "user", "version": 2, "issuer_account": account.public_key()})
}

/// What everybody may do whom a key signs.
fn role(role: &str, signer: &KeyPair, template: &Value) -> Value {
    json!({
        "kind": "user_scope", "key": signer.public_key(), "role": role, "template": template,
    })
}

fn template(publish: &[&str], subscribe: &[&str]) -> Value {
    json!({
        "pub": {"allow": publish}, "sub": {"allow": subscribe},
        "subs": -1, "data": -1, "payload": -1,
    })
}

fn unlimited() -> Value {
    json!({
        "type": "user", "version": 2, "pub": {}, "sub": {},
        "subs": -1, "data": -1, "payload": -1,
    })
}

/// An account without limits but those given for `JetStream`.
fn account_claims(jetstream: &Value) -> Value {
    let mut limits = json!({
        "subs": -1, "data": -1, "payload": -1, "imports": -1, "exports": -1, "conn": -1,
        "leaf": -1, "wildcards": true,
    });
    if let (Some(limits), Some(more)) = (limits.as_object_mut(), jetstream.as_object()) {
        limits.extend(more.clone());
    }
    json!({"type": "account", "version": 2, "limits": limits})
}

fn credentials(issuer: &KeyPair, name: &str, claims: &Value) -> Result<Credentials, DeployError> {
    let user = KeyPair::new_user();
    let token = sign(issuer, &user.public_key(), name, claims)?;
    let seed = user.seed();
    let seed = seed.map_err(|error| DeployError::Sign(error.to_string()))?;
    let text = format!(
        "-----BEGIN NATS USER JWT-----\n{token}\n------END NATS USER JWT------\n\n\
         Whoever has this file is {name} on the bus: keep it secret.\n\n\
         -----BEGIN USER NKEY SEED-----\n{seed}\n------END USER NKEY SEED------\n"
    );
    let public_key = user.public_key();
    Ok(Credentials { text, public_key })
}

/// A token: who says what about whom, signed.
fn sign(
    issuer: &KeyPair,
    subject: &str,
    name: &str,
    claims: &Value,
) -> Result<String, DeployError> {
    let failed = |error: &dyn fmt::Display| DeployError::Sign(error.to_string());
    let mut body = json!({
        "iat": Timestamp::now().as_second(), "iss": issuer.public_key(),
        "name": name, "sub": subject, "nats": claims,
    });
    // A name for the token; nobody computes it again.
    let digest = Sha256::digest(body.to_string());
    let id = digest.iter().fold(String::new(), |mut text, byte| {
        // Writing to a string cannot fail.
        let _ = write!(text, "{byte:02X}");
        text
    });
    body["jti"] = id.into();
    let head = URL_SAFE_NO_PAD.encode(r#"{"typ":"JWT","alg":"ed25519-nkey"}"#);
    let signed = format!("{head}.{}", URL_SAFE_NO_PAD.encode(body.to_string()));
    let signature = issuer
        .sign(signed.as_bytes())
        .map_err(|error| failed(&error))?;
    Ok(format!("{signed}.{}", URL_SAFE_NO_PAD.encode(signature)))
}
