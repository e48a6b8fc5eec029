//! The authority that signs the servers' certificates.

use std::path::Path;

use jiff::Timestamp;
use jiff::tz::TimeZone;
use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa,
    Issuer, KeyPair, KeyUsagePurpose, date_time_ymd,
};

use super::{AUTHORITY, DeployError, load_or_make};

/// How long certificates last, in years; making the files again makes the servers' anew.
const YEARS: i32 = 10;

/// The authority: its certificate, and its key.
pub(super) struct Authority {
    certificate: String,
    issuer: Issuer<'static, KeyPair>,
}

impl Authority {
    /// Reads the authority's key and certificate, or makes them.
    pub(super) fn load_or_make(keys: &Path) -> Result<Self, DeployError> {
        let key_path = keys.join("ca.key");
        let text = load_or_make(&key_path, || {
            let key = KeyPair::generate().map_err(|error| signing(&error))?;
            Ok(key.serialize_pem())
        })?;
        let key = KeyPair::from_pem(&text).map_err(|error| DeployError::Key {
            path: key_path,
            reason: error.to_string(),
        })?;
        // Two authorities of one name would be taken for each other until a signature is wrong.
        let digest = blake3::hash(key.public_key_raw()).to_hex();
        let mut params = params(&[], &format!("Loom bus authority {}", &digest[..8]))?;
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        let certificate = load_or_make(&keys.join(AUTHORITY), || {
            let made = params.self_signed(&key).map_err(|error| signing(&error))?;
            Ok(made.pem())
        })?;
        Ok(Self {
            certificate,
            issuer: Issuer::new(params, key),
        })
    }

    /// The authority's own certificate, in PEM.
    pub(super) fn certificate(&self) -> &str {
        &self.certificate
    }

    /// A server's certificate and its key, in PEM. Servers are each other's clients.
    pub(super) fn sign(&self, host: &str) -> Result<(String, String), DeployError> {
        let mut params = params(&[host.to_owned()], host)?;
        params.use_authority_key_identifier_extension = true;
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = vec![
            ExtendedKeyUsagePurpose::ServerAuth,
            ExtendedKeyUsagePurpose::ClientAuth,
        ];
        let key = KeyPair::generate().map_err(|error| signing(&error))?;
        let certificate = params.signed_by(&key, &self.issuer);
        let certificate = certificate.map_err(|error| signing(&error))?;
        Ok((certificate.pem(), key.serialize_pem()))
    }
}

fn params(hosts: &[String], name: &str) -> Result<CertificateParams, DeployError> {
    let mut params = CertificateParams::new(hosts).map_err(|error| DeployError::Host {
        host: name.to_owned(),
        reason: error.to_string(),
    })?;
    let mut subject = DistinguishedName::new();
    subject.push(DnType::CommonName, name);
    params.distinguished_name = subject;
    // From the first of January: clocks differ, and every day of the year has one ten years on.
    let year = i32::from(Timestamp::now().to_zoned(TimeZone::UTC).year());
    params.not_before = date_time_ymd(year, 1, 1);
    params.not_after = date_time_ymd(year + YEARS, 12, 31);
    Ok(params)
}

fn signing(error: &rcgen::Error) -> DeployError {
    DeployError::Sign(error.to_string())
}
