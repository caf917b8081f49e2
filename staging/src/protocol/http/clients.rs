//! The clients, made when they are needed: reading the machine's certificates takes longer than a
//! small file.

use std::sync::OnceLock;
use std::time::Duration;

use reqwest::redirect::Policy;
use reqwest::{Certificate, Client, ClientBuilder, Url};

use super::{HttpConfig, answer};
use crate::protocol::TransferError;

/// Variables of the environment that name a proxy, in lower case.
const PROXIES: &[&str] = &["http_proxy", "all_proxy"];

/// Pools of connections.
#[derive(Debug)]
pub(super) struct Clients {
    config: HttpConfig,
    /// Without certificates, for `http:`.
    plain: Made,
    /// For all else.
    secure: Made,
    /// For parts of files: HTTP/1.1 only, since there each has a connection of its own.
    parts: Made,
    /// Whether `http:` too may go by TLS, to a proxy.
    has_proxy: bool,
}

type Made = OnceLock<Result<Client, TransferError>>;

impl Clients {
    /// # Errors
    /// The extra certificates cannot be read.
    pub(super) fn new(config: &HttpConfig) -> Result<Self, String> {
        extra_certificates(config)?;
        let is_proxy = |name: &str| PROXIES.contains(&&*name.to_ascii_lowercase());
        let has_proxy = std::env::vars_os().any(|(name, _)| name.to_str().is_some_and(is_proxy));
        let (plain, secure, parts) = (OnceLock::new(), OnceLock::new(), OnceLock::new());
        Ok(Self { config: config.clone(), plain, secure, parts, has_proxy })
    }

    /// The one for this address.
    pub(super) fn of(&self, url: &Url) -> Result<&Client, TransferError> {
        if url.scheme() == "http" && !self.has_proxy {
            return made(&self.plain, || {
                let builder = base_builder(&self.config).tls_certs_only([]);
                build(builder)
            });
        }
        made(&self.secure, || build(client_builder(&self.config)?))
    }

    /// The one for parts of files.
    pub(super) fn for_parts(&self) -> Result<&Client, TransferError> {
        made(&self.parts, || build(client_builder(&self.config)?.http1_only()))
    }
}

fn made(
    client: &Made,
    make: impl FnOnce() -> Result<Client, String>,
) -> Result<&Client, TransferError> {
    let made = client.get_or_init(|| {
        make().map_err(|found| TransferError::Refused {
            found,
            hint: "see the certificates of this machine, or name some with `certificates` under \
                   [staging] in keelboat.toml"
                .into(),
        })
    });
    made.as_ref().map_err(Clone::clone)
}

fn build(builder: ClientBuilder) -> Result<Client, String> {
    builder.redirect(Policy::none()).build().map_err(|error| answer::describe(&error))
}

/// What all clients have in common.
pub(crate) fn client_builder(config: &HttpConfig) -> Result<ClientBuilder, String> {
    let builder = base_builder(config);
    let certificates = extra_certificates(config)?;
    Ok(if certificates.is_empty() { builder } else { builder.tls_certs_merge(certificates) })
}

fn base_builder(config: &HttpConfig) -> ClientBuilder {
    let builder = Client::builder()
        .user_agent(&config.user_agent)
        .connect_timeout(config.connect_timeout)
        .pool_idle_timeout(Duration::from_secs(30))
        .tcp_keepalive(Duration::from_secs(30))
        .http2_adaptive_window(true)
        .referer(false);
    match config.address_policy.resolver() {
        Some(resolver) => builder.dns_resolver(resolver),
        None => builder,
    }
}

fn extra_certificates(config: &HttpConfig) -> Result<Vec<Certificate>, String> {
    let Some(path) = &config.extra_ca else { return Ok(Vec::new()) };
    let unreadable = |error: &dyn std::fmt::Display| {
        format!("cannot read certificates from {}: {error}", path.display())
    };
    let pem = std::fs::read(path).map_err(|error| unreadable(&error))?;
    Certificate::from_pem_bundle(&pem).map_err(|error| unreadable(&error))
}
