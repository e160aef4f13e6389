//! TLS as libpq knows it: `sslmode`, `sslrootcert`, `sslcert`, `sslkey` and `sslcrl`, in a connection string or in libpq's
//! variables, with the same defaults.
//!
//! | `sslmode` | the connection | the server's certificate |
//! |---|---|---|
//! | `disable` | plain | |
//! | `prefer` (default) | TLS where the server offers it | is checked only if a root certificate is there, as by `verify-ca` |
//! | `require` | TLS | likewise |
//! | `verify-ca` | TLS | must be signed by a root certificate |
//! | `verify-full` | TLS | and be made out to the host's name |
//!
//! `allow` counts as `prefer`. Source: the PostgreSQL documentation, "SSL Support" of libpq.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, ring, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, CertificateRevocationListDer, PrivateKeyDer, ServerName, UnixTime};
use rustls::{CertificateError, ClientConfig, DigitallySignedStruct, Error, RootCertStore, SignatureScheme};
use tokio_postgres::config::SslMode;
use tokio_postgres_rustls::MakeRustlsConnect;

/// libpq's settings about TLS that `tokio_postgres` does not know, and the variables for them.
const SETTINGS: [(&str, &str); 5] = [
    ("sslmode", "PGSSLMODE"),
    ("sslrootcert", "PGSSLROOTCERT"),
    ("sslcert", "PGSSLCERT"),
    ("sslkey", "PGSSLKEY"),
    ("sslcrl", "PGSSLCRL"),
];

/// How the server's certificate is checked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Check {
    /// Not, unless a root certificate is there.
    IfRooted,
    Chain,
    ChainAndName,
}

/// What is asked for, by libpq's names.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Settings {
    mode: Option<String>,
    root: Option<String>,
    certificate: Option<PathBuf>,
    key: Option<PathBuf>,
    revoked: Option<PathBuf>,
}

impl Settings {
    /// Takes note of a setting. False: it is not one about TLS.
    pub fn set(&mut self, name: &str, value: &str) -> bool {
        let path = || Some(PathBuf::from(value)).filter(|path| !path.as_os_str().is_empty());
        match name {
            "sslmode" => self.mode = Some(value.to_owned()),
            "sslrootcert" => self.root = Some(value.to_owned()).filter(|value| !value.is_empty()),
            "sslcert" => self.certificate = path(),
            "sslkey" => self.key = path(),
            "sslcrl" => self.revoked = path(),
            _ => return false,
        }
        true
    }

    /// Takes note of libpq's variables.
    pub fn set_from(&mut self, variable: &impl Fn(&str) -> Option<String>) {
        for (name, of) in SETTINGS {
            if let Some(value) = variable(of) {
                self.set(name, &value);
            }
        }
    }

    /// What is not asked for stands in the directory `.postgresql` of the user's home, where it is there.
    fn or_of_home(mut self, home: Option<PathBuf>) -> Self {
        let file = |name: &str| home.as_ref().map(|home| home.join(".postgresql").join(name));
        let existing = |name: &str| file(name).filter(|path| path.exists());
        self.root = self.root.or_else(|| existing("root.crt").map(|path| path.display().to_string()));
        self.certificate = self.certificate.or_else(|| existing("postgresql.crt"));
        self.key = self.key.or_else(|| existing("postgresql.key"));
        self.revoked = self.revoked.or_else(|| existing("root.crl"));
        self
    }

    /// What is negotiated, and what makes it.
    ///
    /// # Errors
    /// An unknown mode, or a file that cannot be read or does not hold what it should; in words.
    pub fn connector(self, home: Option<PathBuf>) -> Result<(SslMode, MakeRustlsConnect), String> {
        let settings = self.or_of_home(home);
        let (mode, check) = settings.mode()?;
        let client = if mode == SslMode::Disable {
            builder().with_root_certificates(RootCertStore::empty()).with_no_client_auth()
        } else {
            settings.client(check)?
        };
        Ok((mode, MakeRustlsConnect::new(client)))
    }

    fn mode(&self) -> Result<(SslMode, Check), String> {
        let system = self.root.as_deref() == Some(SYSTEM);
        let mode = self.mode.as_deref().unwrap_or(if system { "verify-full" } else { "prefer" });
        if system && mode != "verify-full" {
            return Err(format!("sslmode={mode} is too weak for sslrootcert=system: use verify-full"));
        }
        match mode {
            "disable" => Ok((SslMode::Disable, Check::IfRooted)),
            "allow" | "prefer" => Ok((SslMode::Prefer, Check::IfRooted)),
            "require" => Ok((SslMode::Require, Check::IfRooted)),
            "verify-ca" => Ok((SslMode::Require, Check::Chain)),
            "verify-full" => Ok((SslMode::Require, Check::ChainAndName)),
            other => Err(format!(
                "sslmode={other:?} is unknown; it is disable, allow, prefer, require, verify-ca or verify-full"
            )),
        }
    }

    fn client(&self, check: Check) -> Result<ClientConfig, String> {
        let provider = Arc::new(ring::default_provider());
        let chain = match &self.root {
            Some(root) => Some(self.verifier(roots(root)?, provider.clone())?),
            None if check == Check::IfRooted => None,
            None => {
                return Err(
                    "to check the server's certificate a root certificate is needed: sslrootcert, or \
                            ~/.postgresql/root.crt"
                        .into(),
                );
            }
        };
        let verifier = Verifier { chain, names: check == Check::ChainAndName, provider };
        let client = builder().dangerous().with_custom_certificate_verifier(Arc::new(verifier));
        let (Some(certificate), Some(key)) = (&self.certificate, &self.key) else {
            return Ok(client.with_no_client_auth());
        };
        let key_der = PrivateKeyDer::from_pem_file(key).map_err(|error| unreadable(key, &error))?;
        check_mode(key)?;
        client
            .with_client_auth_cert(certificates(certificate)?, key_der)
            .map_err(|error| unreadable(certificate, &error))
    }

    fn verifier(
        &self,
        roots: RootCertStore,
        provider: Arc<CryptoProvider>,
    ) -> Result<Arc<WebPkiServerVerifier>, String> {
        let mut verifier = WebPkiServerVerifier::builder_with_provider(Arc::new(roots), provider);
        if let Some(path) = &self.revoked {
            let lists = CertificateRevocationListDer::pem_file_iter(path);
            let lists: Result<Vec<_>, _> = lists.and_then(Iterator::collect);
            verifier = verifier
                .with_crls(lists.map_err(|error| unreadable(path, &error))?)
                .allow_unknown_revocation_status();
        }
        verifier.build().map_err(|error| format!("the root certificates cannot be used: {error}"))
    }
}

/// The root certificates that the operating system trusts.
const SYSTEM: &str = "system";

fn builder() -> rustls::ConfigBuilder<ClientConfig, rustls::WantsVerifier> {
    ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .expect("the provider has cipher suites for TLS 1.2 and 1.3")
}

fn unreadable(path: &Path, error: &dyn std::fmt::Display) -> String {
    format!("{}: {error}", path.display())
}

fn roots(root: &str) -> Result<RootCertStore, String> {
    let mut store = RootCertStore::empty();
    if root == SYSTEM {
        let found = rustls_native_certs::load_native_certs();
        store.add_parsable_certificates(found.certs);
        return match (store.is_empty(), found.errors.first()) {
            (false, _) => Ok(store),
            (true, Some(error)) => Err(format!("the system's root certificates cannot be read: {error}")),
            (true, None) => Err("the system has no root certificates".into()),
        };
    }
    let path = Path::new(root);
    for certificate in certificates(path)? {
        store.add(certificate).map_err(|error| unreadable(path, &error))?;
    }
    Ok(store)
}

fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, String> {
    let certificates: Result<Vec<_>, _> = CertificateDer::pem_file_iter(path).and_then(Iterator::collect);
    let certificates = certificates.map_err(|error| unreadable(path, &error))?;
    if certificates.is_empty() {
        return Err(unreadable(path, &"holds no certificate"));
    }
    Ok(certificates)
}

/// A private key is the user's alone, or root's and readable by a group.
#[cfg(unix)]
fn check_mode(key: &Path) -> Result<(), String> {
    use std::os::unix::fs::MetadataExt;
    let found = std::fs::metadata(key).map_err(|error| unreadable(key, &error))?;
    let allowed = if found.uid() == 0 { 0o740 } else { 0o700 };
    if found.mode() & 0o777 & !allowed == 0 {
        return Ok(());
    }
    Err(unreadable(key, &"a private key must not be accessible to others: chmod 600"))
}

#[cfg(not(unix))]
fn check_mode(_: &Path) -> Result<(), String> {
    Ok(())
}

/// Checks a server's certificate as far as is asked.
#[derive(Debug)]
struct Verifier {
    /// `None`: any will do.
    chain: Option<Arc<WebPkiServerVerifier>>,
    /// Whether the name must fit too.
    names: bool,
    provider: Arc<CryptoProvider>,
}

impl ServerCertVerifier for Verifier {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        let Some(chain) = &self.chain else { return Ok(ServerCertVerified::assertion()) };
        match chain.verify_server_cert(end_entity, intermediates, server_name, ocsp_response, now) {
            // The name is looked at last: everything else is as it should be.
            Err(Error::InvalidCertificate(
                CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. },
            )) if !self.names => Ok(ServerCertVerified::assertion()),
            verified => verified,
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        verify_tls12_signature(message, certificate, signed, algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        verify_tls13_signature(message, certificate, signed, algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}
