//! TLS of control and data connections.
//!
//! Many servers want each data connection to resume the TLS session of its control connection. So
//! each control connection has a memory for sessions of its own; and TLS 1.2 comes first, since its
//! sessions can be resumed again and again, where each ticket of TLS 1.3 serves once and comes with
//! data that an upload does not have.

use std::path::Path;
use std::sync::{Arc, OnceLock};

use rustls::ClientConfig;
use rustls::client::Resumption;
use rustls::client::danger::ServerCertVerifier;
use rustls::crypto::{CryptoProvider, aws_lc_rs};
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use rustls_platform_verifier::Verifier;
use suppaftp::tokio::AsyncRustlsConnector;
use suppaftp::tokio_rustls::TlsConnector;

use crate::protocol::TransferError;

/// Sessions that one control connection remembers.
const SESSIONS_MAX: usize = 8;

/// Which version is spoken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Version {
    /// Where it can be had.
    Tls12,
    /// For servers that want no other.
    Tls13,
}

/// Whom to trust; the system's certificates are read with the first connection that needs them.
#[derive(Debug, Default)]
pub(super) struct Tls {
    extra: Vec<CertificateDer<'static>>,
    verifier: OnceLock<Arc<Verifier>>,
}

impl Tls {
    /// Trusts the certificates of this PEM file, too.
    pub(super) fn with_extra(path: Option<&Path>) -> Result<Self, String> {
        let Some(path) = path else { return Ok(Self::default()) };
        let certificates = CertificateDer::pem_file_iter(path).and_then(Iterator::collect);
        let extra: Vec<_> = certificates.map_err(|error| {
            format!("cannot read certificates from {}: {error}", path.display())
        })?;
        if extra.is_empty() {
            return Err(format!("there are no certificates in {}", path.display()));
        }
        Ok(Self { extra, ..Self::default() })
    }

    /// For one control connection and its data connections.
    pub(super) fn connector(
        &self,
        version: Version,
    ) -> Result<AsyncRustlsConnector, TransferError> {
        let config = self.config(version).map_err(|error| TransferError::Refused {
            found: format!("there is no usable set of certificates: {error}"),
            hint: "install the system's CA certificates, or set SSL_CERT_FILE".into(),
        })?;
        Ok(TlsConnector::from(Arc::new(config)).into())
    }

    fn config(&self, version: Version) -> Result<ClientConfig, rustls::Error> {
        let provider: Arc<CryptoProvider> = Arc::new(aws_lc_rs::default_provider());
        let verifier = if let Some(verifier) = self.verifier.get() {
            verifier
        } else {
            let extra = self.extra.iter().cloned();
            let made = Verifier::new_with_extra_roots(extra, Arc::clone(&provider))?;
            self.verifier.get_or_init(|| Arc::new(made))
        };
        let version = match version {
            Version::Tls12 => &rustls::version::TLS12,
            Version::Tls13 => &rustls::version::TLS13,
        };
        let builder = ClientConfig::builder_with_provider(provider);
        let builder = builder.with_protocol_versions(&[version])?.dangerous();
        let verifier: Arc<dyn ServerCertVerifier> = Arc::clone(verifier) as _;
        let builder = builder.with_custom_certificate_verifier(verifier);
        let mut config = builder.with_no_client_auth();
        config.resumption = Resumption::in_memory_sessions(SESSIONS_MAX);
        Ok(config)
    }
}
