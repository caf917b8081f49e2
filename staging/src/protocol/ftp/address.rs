//! What an FTP address names: a server, a login, and a path there.
//!
//! As with curl, `ftp://host/a` is relative to the directory of the login and `ftp://host/%2Fa` is
//! absolute.

use std::fmt;

use percent_encoding::percent_decode_str;

use crate::address::parse;
use crate::credentials::{Credentials, Secret};
use crate::protocol::TransferError;

/// The port of FTPS with TLS from the first byte on.
const IMPLICIT_PORT: u16 = 990;

/// The setting of a credential that asks for TLS: `implicit`, or anything else for explicit.
const TLS_SETTING: &str = "FTP_TLS";

/// When TLS begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Security {
    /// Not before the server demands it.
    OnDemand,
    /// Before the login, by `AUTH TLS`.
    Explicit,
    /// With the connection.
    Implicit,
}

/// Who connects to what: connections are shared between equal ones.
#[derive(Clone, PartialEq, Eq)]
pub(super) struct Login {
    pub(super) host: String,
    pub(super) port: u16,
    pub(super) security: Security,
    pub(super) user: String,
    pub(super) password: Secret,
}

impl fmt::Debug for Login {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut debug = f.debug_struct("Login");
        debug.field("host", &self.host).field("port", &self.port);
        debug.field("security", &self.security).finish_non_exhaustive()
    }
}

/// One address, taken apart.
#[derive(Debug, Clone)]
pub(super) struct Target {
    pub(super) login: Login,
    /// As commands name it; empty: the directory of the login.
    pub(super) path: String,
}

impl Target {
    /// User information in the address wins over the credentials, which win over `anonymous`.
    pub(super) fn of(address: &str, credentials: &Credentials) -> Result<Self, TransferError> {
        let url = parse(address).ok_or_else(|| refused("it is not a URL"))?;
        let host = url.host_str().filter(|host| !host.is_empty());
        let host = host.ok_or_else(|| refused("it names no host"))?;
        let entry = credentials.lookup(address);
        let entry = entry.as_deref();
        let setting = entry.and_then(|entry| entry.settings.get(TLS_SETTING)).map(Secret::reveal);
        let security = match (setting, url.scheme(), url.port()) {
            (Some("implicit"), ..) | (None, "ftps", Some(IMPLICIT_PORT)) => Security::Implicit,
            (Some(_), ..) | (None, "ftps", _) => Security::Explicit,
            (None, ..) => Security::OnDemand,
        };
        let standard = if security == Security::Implicit { IMPLICIT_PORT } else { 21 };
        let port = url.port().unwrap_or(standard);
        let (user, password) = if url.username().is_empty() {
            let user = entry.and_then(|entry| entry.user.clone());
            let password = entry.and_then(|entry| entry.password.clone());
            (user, password)
        } else {
            let password = url.password().map(decoded).transpose()?;
            let entry = entry.filter(|entry| entry.user.as_deref() == Some(url.username()));
            let known = entry.and_then(|entry| entry.password.clone());
            (Some(decoded(url.username())?), password.map(Secret::new).or(known))
        };
        let (user, password) = match user {
            Some(user) => (user, password.unwrap_or_else(|| Secret::new(""))),
            None => ("anonymous".to_owned(), Secret::new("keelboat@")),
        };
        if !is_one_line(&user) || !is_one_line(password.reveal()) {
            return Err(refused("its user name or password holds a line break"));
        }
        let host = host.trim_matches(['[', ']']).to_owned();
        let login = Login { host, port, security, user, password };
        Ok(Self { login, path: path_of(&url)? })
    }
}

/// The path as commands name it.
fn path_of(url: &reqwest::Url) -> Result<String, TransferError> {
    let path = url.path().strip_prefix('/').unwrap_or_default();
    let path = match path.rsplit_once(";type=") {
        Some((path, "i" | "I")) => path,
        Some((_, kind)) if kind.len() == 1 => {
            return Err(refused("it asks for a conversion; only `;type=i` is served"));
        }
        _ => path,
    };
    // FTP has no queries: as with curl, the question mark belongs to the name. Nor has it fragments.
    let query = url.query().map(|query| format!("?{query}")).unwrap_or_default();
    let fragment = url.fragment().map(|fragment| format!("#{fragment}")).unwrap_or_default();
    let decoded = decoded(&format!("{path}{query}{fragment}"))?;
    if !is_one_line(&decoded) {
        return Err(refused("its name holds a line break, which FTP cannot carry"));
    }
    let path = match decoded.trim_end_matches('/') {
        "" if decoded.starts_with('/') => "/",
        path => path,
    };
    Ok(unambiguous(path))
}

/// Some servers take a first `-` for an option and drop a first space.
pub(super) fn unambiguous(path: &str) -> String {
    if path.starts_with(['-', ' ']) { format!("./{path}") } else { path.to_owned() }
}

/// What is below a directory.
pub(super) fn below(directory: &str, name: &str) -> String {
    match directory {
        "" => unambiguous(name),
        directory if directory.ends_with('/') => format!("{directory}{name}"),
        directory => format!("{directory}/{name}"),
    }
}

/// Whether this can be part of a command without ending it.
pub(super) fn is_one_line(text: &str) -> bool {
    !text.contains(['\r', '\n', '\0'])
}

fn decoded(text: &str) -> Result<String, TransferError> {
    let text = percent_decode_str(text).decode_utf8();
    text.map(String::from).map_err(|_not_utf8| refused("it is not UTF-8 when it is decoded"))
}

fn refused(found: &str) -> TransferError {
    TransferError::Refused {
        found: found.to_owned(),
        hint: "write ftp://host/path, with %2F before an absolute path".into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::credentials::Credential;

    fn target(address: &str) -> Target {
        Target::of(address, &Credentials::default()).unwrap()
    }

    #[test]
    fn paths_are_those_of_curl() {
        for (address, path) in [
            ("ftp://h", ""),
            ("ftp://h/", ""),
            ("ftp://h/a/b%20c", "a/b c"),
            ("ftp://h/a/", "a"),
            ("ftp://h/%2Fetc/x", "/etc/x"),
            ("ftp://h//etc/x", "/etc/x"),
            ("ftp://h/%2F", "/"),
            ("ftp://h/a%3Fb%23c", "a?b#c"),
            ("ftp://h/a?b%25", "a?b%"),
            ("ftp://h/a?b#c d", "a?b#c d"),
            ("ftp://h/a;type=i", "a"),
            ("ftp://h/-rf", "./-rf"),
            ("ftp://h/%20a", "./ a"),
        ] {
            assert_eq!(target(address).path, path, "{address}");
        }
    }

    #[test]
    fn what_would_be_a_second_command_is_refused() {
        for address in [
            "ftp://h/a%0D%0ADELE%20b",
            "ftp://h/a%0Ab",
            "ftp://h/a%00",
            "ftp://u%0D%0A:p@h/a",
            "ftp://u:p%0Aq@h/a",
            "ftp://h/%FF",
            "ftp://h/a;type=a",
        ] {
            let refusal = Target::of(address, &Credentials::default());
            assert!(matches!(refusal, Err(TransferError::Refused { .. })), "{address}");
        }
    }

    #[test]
    fn tls_is_as_the_address_and_the_credentials_say() {
        let asks = |scope: &str, how: &str| Credential {
            scope: scope.into(),
            settings: [(TLS_SETTING.to_owned(), Secret::new(how))].into(),
            ..Credential::default()
        };
        let entries = [asks("ftp://asks", "explicit"), asks("ftps://implicit", "implicit")];
        let credentials = Credentials::new(entries);
        for (address, security, port) in [
            ("ftp://h/a", Security::OnDemand, 21),
            ("ftps://h/a", Security::Explicit, 21),
            ("ftps://h:2121/a", Security::Explicit, 2121),
            ("ftps://h:990/a", Security::Implicit, 990),
            ("ftp://asks/a", Security::Explicit, 21),
            ("ftps://implicit/a", Security::Implicit, 990),
        ] {
            let login = Target::of(address, &credentials).unwrap().login;
            assert_eq!((login.security, login.port), (security, port), "{address}");
        }
    }

    #[test]
    fn the_address_wins_over_the_credentials() {
        let entry = Credential {
            scope: "ftp://h".into(),
            user: Some("known".into()),
            password: Some(Secret::new("pw")),
            ..Credential::default()
        };
        let credentials = Credentials::new([entry]);
        for (address, user, password) in [
            ("ftp://h/a", "known", "pw"),
            ("ftp://known@h/a", "known", "pw"),
            ("ftp://other@h/a", "other", ""),
            ("ftp://a%40b:p%3Aq@h/a", "a@b", "p:q"),
            ("ftp://elsewhere/a", "anonymous", "keelboat@"),
        ] {
            let login = Target::of(address, &credentials).unwrap().login;
            assert_eq!((&*login.user, login.password.reveal()), (user, password), "{address}");
            assert!(!format!("{login:?}").contains("pw"), "{login:?}");
        }
    }
}
