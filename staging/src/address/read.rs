//! An address with what is read out of it, each thing once: many layers ask for the same.

use std::fmt;
use std::ops::Deref;
use std::sync::{Arc, OnceLock};

use reqwest::Url;

use super::{host_of_url, parse, redact, scheme_of};

/// The address of one file or directory. It may hold secrets; what [`Debug`] writes does not.
///
/// Clones share what was read.
#[derive(Clone)]
pub struct Address(Arc<Read>);

struct Read {
    text: Arc<str>,
    url: OnceLock<Option<Url>>,
    scheme: OnceLock<Arc<str>>,
    host: OnceLock<Arc<str>>,
    shown: OnceLock<Arc<str>>,
}

impl Address {
    /// The text as it was given.
    pub fn text(&self) -> &Arc<str> {
        &self.0.text
    }

    /// The address as a URL, unless it is a plain path or makes no sense.
    pub(crate) fn url(&self) -> Option<&Url> {
        self.0.url.get_or_init(|| parse(&self.0.text)).as_ref()
    }

    /// As [`scheme_of`].
    pub(crate) fn scheme(&self) -> &Arc<str> {
        self.0.scheme.get_or_init(|| scheme_of(&self.0.text).into())
    }

    /// As [`host_of`](super::host_of).
    pub(crate) fn host(&self) -> &Arc<str> {
        self.0.host.get_or_init(|| host_of_url(self.url()).into())
    }

    /// As [`redact`].
    pub(crate) fn shown(&self) -> &str {
        match self.url() {
            Some(url) if is_harmless(url) => url.as_str(),
            _ => self.0.shown.get_or_init(|| redact(&self.0.text).into()),
        }
    }
}

/// Whether a URL has no part that may be secret.
fn is_harmless(url: &Url) -> bool {
    let has_user = !url.username().is_empty() || url.password().is_some();
    !has_user && url.query().is_none() && url.fragment().is_none()
}

impl From<Arc<str>> for Address {
    fn from(text: Arc<str>) -> Self {
        let (url, scheme, host, shown) = Default::default();
        Self(Arc::new(Read { text, url, scheme, host, shown }))
    }
}

impl From<&str> for Address {
    fn from(text: &str) -> Self {
        Arc::<str>::from(text).into()
    }
}

impl From<String> for Address {
    fn from(text: String) -> Self {
        Arc::<str>::from(text).into()
    }
}

impl Deref for Address {
    type Target = str;

    fn deref(&self) -> &str {
        &self.0.text
    }
}

impl fmt::Debug for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self.shown(), f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::address::host_of;

    #[test]
    fn what_is_read_once_is_what_is_read_each_time() {
        for text in [
            "https://user:pw@h:8443/a%20b.gz?X-Sig=abc&token#frag",
            "HTTP://Example.ORG/a b",
            "https://user@h/",
            "sftp://h/%FF#x",
            "/data/a b.gz",
            "file:///a/b",
            "data:,secret",
            "zip:https://user:pw@h/a.zip?sig=abc!/dir/b%20c",
            "https://[not a url",
        ] {
            let address = Address::from(text);
            assert_eq!(address.shown(), redact(text));
            assert_eq!(**address.host(), host_of(text));
            assert_eq!(**address.scheme(), scheme_of(text));
            assert!(!format!("{address:?}").contains("pw"));
            assert_eq!(&*address, text);
        }
    }
}
