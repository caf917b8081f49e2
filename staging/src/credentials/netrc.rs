//! Reading netrc files: `machine`, `default`, `login`, `password`, `account` and `macdef`.

use std::path::Path;

use reqwest::Url;

use super::{Credential, CredentialsError, Secret};

/// Bytes of the file.
const BYTES_MAX: u64 = 1 << 20;

/// What the file says of one host.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) struct Machine {
    /// `None`: of all hosts that are not named.
    host: Option<String>,
    login: Option<String>,
    password: Option<Secret>,
}

/// All entries of the file, which only its owner may read.
pub(super) fn read(path: &Path) -> Result<Vec<Machine>, CredentialsError> {
    let text = super::file::read_private(path, BYTES_MAX)?;
    parse(&text).map_err(|line| CredentialsError {
        path: path.to_owned(),
        cause: format!("line {line}: it makes no sense to netrc"),
        sketch: String::new(),
        hint: "write `machine HOST login USER password PASSWORD`; quote what holds spaces".into(),
    })
}

/// The entry for an address, and for this user when one is named. `default` is for FTP only, where
/// it comes from: elsewhere it would give one password to every host.
pub(super) fn find(machines: &[Machine], url: &Url, user: Option<&str>) -> Option<Credential> {
    let host = url.host_str()?.trim_start_matches('[').trim_end_matches(']');
    let takes_default = matches!(url.scheme(), "ftp" | "ftps");
    let fits = |machine: &&Machine| {
        let is_host = match &machine.host {
            Some(name) => name.eq_ignore_ascii_case(host),
            None => takes_default,
        };
        is_host && user.is_none_or(|user| machine.login.as_deref() == Some(user))
    };
    let machine = machines.iter().find(fits)?;
    let scope = format!("{}://{}", url.scheme(), url.host_str()?);
    let (user, password) = (machine.login.clone(), machine.password.clone());
    Some(Credential { scope, user, password, ..Credential::default() })
}

/// `Err`: the line that makes no sense.
fn parse(text: &str) -> Result<Vec<Machine>, usize> {
    let mut words = Words { rest: text, line: 1 };
    let mut machines: Vec<Machine> = Vec::new();
    while let Some(word) = words.next()? {
        let line = words.line;
        if word.starts_with('#') {
            words.skip_line();
            continue;
        }
        match &*word {
            "machine" => {
                let host = Some(words.value()?);
                machines.push(Machine { host, ..Machine::default() });
            }
            "default" => machines.push(Machine::default()),
            "macdef" => words.skip_macro(),
            "login" | "user" | "password" | "passwd" | "account" => {
                let value = words.value()?;
                let machine = machines.last_mut().ok_or(line)?;
                match &*word {
                    "login" | "user" => machine.login = Some(value),
                    "account" => {}
                    _ => machine.password = Some(Secret::new(value)),
                }
            }
            _ => return Err(line),
        }
    }
    Ok(machines)
}

struct Words<'a> {
    rest: &'a str,
    line: usize,
}

impl Words<'_> {
    /// The next word; in double quotes, `\` keeps the next character as it is.
    fn next(&mut self) -> Result<Option<String>, usize> {
        let trimmed = self.rest.trim_start();
        self.pass(self.rest.len() - trimmed.len());
        if self.rest.is_empty() {
            return Ok(None);
        }
        let is_quoted = self.rest.starts_with('"');
        let mut word = String::new();
        let mut chars = self.rest.char_indices().skip(usize::from(is_quoted));
        while let Some((at, char)) = chars.next() {
            match char {
                '\\' => match chars.next() {
                    Some((_, kept)) => word.push(kept),
                    None => return Err(self.line),
                },
                '"' if is_quoted => {
                    self.pass(at + 1);
                    return Ok(Some(word));
                }
                char if char.is_whitespace() && !is_quoted => {
                    self.pass(at);
                    return Ok(Some(word));
                }
                char => word.push(char),
            }
        }
        if is_quoted {
            return Err(self.line);
        }
        self.pass(self.rest.len());
        Ok(Some(word))
    }

    fn value(&mut self) -> Result<String, usize> {
        let line = self.line;
        self.next()?.ok_or(line)
    }

    fn skip_line(&mut self) {
        self.pass(self.rest.find('\n').unwrap_or(self.rest.len()));
    }

    /// A macro ends at an empty line.
    fn skip_macro(&mut self) {
        self.pass(self.rest.find("\n\n").unwrap_or(self.rest.len()));
    }

    fn pass(&mut self, bytes: usize) {
        let (passed, rest) = self.rest.split_at(bytes);
        self.line += passed.matches('\n').count();
        self.rest = rest;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(text: &str, address: &str) -> Option<String> {
        let machines = parse(text).expect("netrc");
        let url = Url::parse(address).expect("a URL");
        let user = Some(url.username()).filter(|user| !user.is_empty());
        let found = find(&machines, &url, user)?;
        Some(format!("{}:{}", found.user?, found.password?.reveal()))
    }

    #[test]
    fn hosts_and_users_are_told_apart() {
        let text = "# mine\nmachine a.org login ann password \"two words\\\"\" account x\n\
            machine a.org\n\tlogin bob\n\tpassword b#2\nmacdef init\nbin\nmachine evil login x\n\n\
            default login anonymous password me@here";
        assert_eq!(found(text, "https://A.org/x"), Some("ann:two words\"".to_owned()));
        assert_eq!(found(text, "https://bob@a.org/x"), Some("bob:b#2".to_owned()));
        assert_eq!(found(text, "https://eve@a.org/x"), None);
        assert_eq!(found(text, "sftp://evil/x"), None);
        assert_eq!(found(text, "ftp://other/x"), Some("anonymous:me@here".to_owned()));
        assert_eq!(found(text, "https://other/x"), None, "`default` is not for the web");
    }

    #[test]
    fn what_makes_no_sense_is_named_by_its_line() {
        for (text, line) in [
            ("machine a\nlogin", 2),
            ("login x", 1),
            ("machine a\nlogin b\npasword c", 3),
            ("machine a password \"x\n", 1),
        ] {
            assert_eq!(parse(text), Err(line), "{text}");
        }
    }
}
