//! One request and its answer, by way of redirects and with credentials.
//!
//! Credentials go to the origin of the address that they are for. Once a redirect has left it, none
//! are sent any more, wherever it leads.

use std::borrow::Cow;

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use reqwest::header::{AUTHORIZATION, HeaderMap, HeaderName, HeaderValue, LOCATION};
use reqwest::{RequestBuilder, Response, StatusCode, Url};

use super::{HttpProtocol, answer};
use crate::address::Address;
use crate::credentials::{Credential, CredentialsError, Look};
use crate::protocol::TransferError;

/// Redirects followed for one request.
const REDIRECTS_MAX: usize = 10;

/// How far redirects are followed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Redirects {
    /// To any host: what comes is verified.
    Anywhere,
    /// Of requests that change something: within the origin, and only where the method stays.
    WithinOrigin,
}

/// What came of a request.
pub(super) struct Answered {
    pub(super) response: Response,
    /// The address that answered, without user information.
    pub(super) url: Url,
    /// Whose credentials were sent, in words that can be shown.
    pub(super) asked: Cow<'static, str>,
}

/// An address on its way through redirects.
struct Hop {
    url: Url,
    /// Who is named in the address as it was given, for as long as its origin was not left.
    home: Option<User>,
}

/// User information of an address, escaped as it is there.
#[derive(Default)]
struct User {
    name: String,
    password: Option<String>,
}

impl HttpProtocol {
    /// Sends what `build` makes for an address, and again for each redirect; after a 401 once more
    /// if there are other credentials by now.
    pub(super) async fn exchange(
        &self,
        address: &Address,
        redirects: Redirects,
        build: &(dyn Fn(Url) -> Result<RequestBuilder, TransferError> + Send + Sync),
    ) -> Result<Answered, TransferError> {
        let mut hop = Hop::start(address)?;
        let mut redirected = 0;
        let mut is_refreshed = false;
        loop {
            self.policy.check(&hop.url)?;
            let (mut fields, mut asked) = self.authorization(&hop, Look::OfLate)?;
            let response = loop {
                let request = build(hop.url.clone())?.headers(fields.clone());
                let response = request.send().await.map_err(|error| answer::send_error(&error))?;
                if response.status() != StatusCode::UNAUTHORIZED || is_refreshed {
                    break response;
                }
                is_refreshed = true;
                let (now, asked_now) = self.authorization(&hop, Look::Now)?;
                if now == fields {
                    break response;
                }
                (fields, asked) = (now, asked_now);
            };
            let Some(location) = location(&response, redirects) else {
                return Ok(Answered { response, url: hop.url, asked });
            };
            // Circles end here too; some servers send round once or twice before they answer.
            redirected += 1;
            if redirected > REDIRECTS_MAX {
                return Err(TransferError::Refused {
                    found: format!("it redirects more than {REDIRECTS_MAX} times"),
                    hint: "use the address at which the file is served".into(),
                });
            }
            hop = hop.follow(&location, redirects)?;
        }
    }

    /// The fields that say who asks, and the same in words.
    fn authorization(
        &self,
        hop: &Hop,
        look: Look,
    ) -> Result<(HeaderMap, Cow<'static, str>), TransferError> {
        let nobody = || (HeaderMap::new(), "asked without credentials".into());
        let Some(url) = hop.url_with_user() else {
            return Ok((HeaderMap::new(), "asked without credentials after a redirect".into()));
        };
        let Some(credential) = self.credentials.lookup_url(&url, look) else {
            return Ok(nobody());
        };
        let fields = fields_of(&credential)?;
        if fields.is_empty() {
            return Ok(nobody());
        }
        let asked = match &*credential.scope {
            "" => "asked with the user in the address".into(),
            scope => format!("asked with the credentials for {scope}").into(),
        };
        Ok((fields, asked))
    }
}

impl Hop {
    fn start(address: &Address) -> Result<Self, TransferError> {
        let refused = |cause: String| TransferError::Refused {
            found: format!("it is not a URL: {cause}"),
            hint: "write http://host/path".into(),
        };
        let Some(url) = address.url() else {
            let cause = Url::parse(address).err().map(|error| error.to_string());
            return Err(refused(cause.unwrap_or_else(|| "it names no web server".into())));
        };
        let name = url.username().to_owned();
        let home = Some(User { name, password: url.password().map(str::to_owned) });
        let url = without_user(url.clone())
            .filter(|url| matches!(url.scheme(), "http" | "https") && url.has_host())
            .ok_or_else(|| refused("it names no web server".into()))?;
        Ok(Self { url, home })
    }

    /// For looking credentials up; `None`: there are none for it.
    fn url_with_user(&self) -> Option<Cow<'_, Url>> {
        let User { name, password } = self.home.as_ref()?;
        if name.is_empty() && password.is_none() {
            return Some(Cow::Borrowed(&self.url));
        }
        let mut url = self.url.clone();
        url.set_username(name).ok()?;
        url.set_password(password.as_deref()).ok()?;
        Some(Cow::Owned(url))
    }

    fn follow(mut self, location: &str, redirects: Redirects) -> Result<Self, TransferError> {
        let refused = |found: String| TransferError::Refused {
            found,
            hint: "use the address at which the file is served".into(),
        };
        let next = self.url.join(location).ok().and_then(without_user);
        let next = next.ok_or_else(|| refused("it redirects to what is no URL".into()))?;
        let (from, to) = (self.url.scheme(), next.scheme());
        if !matches!(to, "http" | "https") || !next.has_host() {
            return Err(refused(format!("it redirects to a {to}: address")));
        }
        if from == "https" && to == "http" {
            return Err(refused("it redirects from https to http".into()));
        }
        if next.origin() != self.url.origin() {
            if redirects == Redirects::WithinOrigin {
                let host = next.host_str().unwrap_or_default();
                return Err(refused(format!("it redirects what is written to {host}")));
            }
            self.home = None;
        }
        Ok(Self { url: next, home: self.home })
    }
}

/// Where the answer sends on to, if it is one that is followed.
fn location(response: &Response, redirects: Redirects) -> Option<String> {
    let is_followed = match response.status().as_u16() {
        307 | 308 => true,
        301..=303 => redirects == Redirects::Anywhere,
        _ => false,
    };
    let location = response.headers().get(LOCATION).filter(|_| is_followed)?;
    Some(String::from_utf8_lossy(location.as_bytes()).into_owned())
}

fn without_user(mut url: Url) -> Option<Url> {
    url.set_fragment(None);
    let is_bare = url.username().is_empty() && url.password().is_none();
    if !is_bare {
        url.set_username("").ok()?;
        url.set_password(None).ok()?;
    }
    Some(url)
}

fn fields_of(credential: &Credential) -> Result<HeaderMap, TransferError> {
    let mut fields = HeaderMap::new();
    let unusable = |what: &str| TransferError::Refused {
        found: format!("the {what} for {} cannot be sent", credential.scope),
        hint: "it has to be one line of printable text".into(),
    };
    let secret = |text: &str, what: &str| -> Result<HeaderValue, TransferError> {
        let mut value = HeaderValue::try_from(text).ok().ok_or_else(|| unusable(what))?;
        value.set_sensitive(true);
        Ok(value)
    };
    for (name, value) in &credential.headers {
        let name = HeaderName::try_from(name).ok().ok_or_else(|| unusable("header fields"))?;
        fields.insert(name, secret(value.reveal(), "header fields")?);
    }
    let token = credential.bearer().map_err(|error| refusal(&error))?;
    if let Some(token) = token {
        let value = secret(&format!("Bearer {}", token.reveal()), "token")?;
        fields.insert(AUTHORIZATION, value);
    } else if let Some(user) = &credential.user {
        let password = credential.password.as_ref().map_or("", |password| password.reveal());
        let pair = BASE64_STANDARD.encode(format!("{user}:{password}"));
        fields.insert(AUTHORIZATION, secret(&format!("Basic {pair}"), "password")?);
    }
    Ok(fields)
}

fn refusal(error: &CredentialsError) -> TransferError {
    TransferError::Refused { found: error.to_string(), hint: error.hint.clone() }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn follow(from: &str, location: &str, redirects: Redirects) -> Result<Hop, TransferError> {
        Hop::start(&from.into()).expect("an address").follow(location, redirects)
    }

    #[test]
    fn redirects_stay_with_the_web_and_with_tls() {
        for (from, location) in [
            ("http://h/a", "file:///etc/passwd"),
            ("http://h/a", "ftp://h/a"),
            ("https://h/a", "http://h/a"),
            ("http://h/a", "data:,x"),
            ("http://h/a", "http://"),
        ] {
            let error = follow(from, location, Redirects::Anywhere).err().expect(location);
            assert!(matches!(error, TransferError::Refused { .. }), "{error}");
        }
    }

    #[test]
    fn user_information_stays_at_its_origin() {
        let with_user = |location| {
            let hop = follow("https://u:p@h/a/b", location, Redirects::Anywhere).ok()?;
            assert!(hop.url.username().is_empty() && hop.url.password().is_none());
            Some(hop.url_with_user()?.to_string())
        };
        assert_eq!(with_user("c?x#y").as_deref(), Some("https://u:p@h/a/c?x"));
        assert_eq!(with_user("https://x:y@h:443/c").as_deref(), Some("https://u:p@h/c"));
        for other in ["https://h2/c", "https://h:8443/c", "https://x:y@h2/c"] {
            assert_eq!(with_user(other), None, "{other}");
        }
        let back = follow("https://u:p@h/a", "https://h2/c", Redirects::Anywhere)
            .and_then(|hop| hop.follow("https://h/a", Redirects::Anywhere));
        assert!(back.is_ok_and(|hop| hop.url_with_user().is_none()), "not on the way back");
    }

    #[test]
    fn what_is_written_stays_at_its_origin() {
        assert!(follow("http://h/a", "/b", Redirects::WithinOrigin).is_ok());
        assert!(follow("http://h/a", "http://h2/b", Redirects::WithinOrigin).is_err());
    }
}
