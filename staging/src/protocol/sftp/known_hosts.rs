//! Which server has which key: files in the format of OpenSSH's `known_hosts` (sshd(8)).
//!
//! Deliberately absent: adding to them, and `@cert-authority`.

use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;
use hmac::{Hmac, KeyInit, Mac};
use russh::keys::{Algorithm, HashAlg, PublicKey};
use sha1::Sha1;

use crate::protocol::TransferError;

/// The largest file that is read.
const BYTES_MAX: u64 = 64 << 20;

/// The lines about one server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct KnownHost {
    /// The name that lines have: `host`, or `[host]:port`.
    name: String,
    port: u16,
    host: String,
    files: Vec<PathBuf>,
    lines: Vec<Line>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Line {
    /// Where it stands.
    place: String,
    is_revoked: bool,
    key_type: String,
    key: Vec<u8>,
}

impl KnownHost {
    /// Reads what these files say of a server. A file that is not there says nothing.
    pub(super) fn read(host: &str, port: u16, files: &[PathBuf]) -> Result<Self, TransferError> {
        let name = if port == 22 { host.to_owned() } else { format!("[{host}]:{port}") };
        let mut lines = Vec::new();
        for file in files {
            let text = read_text(file)?;
            let numbered = text.lines().zip(1..);
            lines.extend(numbered.filter_map(|(line, number): (&str, u32)| {
                Line::parse(line, &name, || format!("{}:{number}", file.display()))
            }));
        }
        Ok(Self { name, port, host: host.to_owned(), files: files.to_vec(), lines })
    }

    /// The kinds of keys that can be checked, those that are known first: a server that has several
    /// shows the one that is asked for.
    pub(super) fn preferred(&self) -> Vec<Algorithm> {
        let mut all = russh::Preferred::DEFAULT.key.to_vec();
        all.retain(|algorithm| !matches!(algorithm, Algorithm::Rsa { .. }));
        let is_known =
            |one: &Algorithm| self.lines.iter().any(|line| line.key_type == one.as_str());
        all.sort_by_key(|algorithm| !is_known(algorithm));
        all
    }

    /// Whether this is the server's key.
    ///
    /// # Errors
    /// It is not known, it is another one, or it is revoked.
    pub(super) fn check(&self, key: &PublicKey) -> Result<(), TransferError> {
        let algorithm = key.algorithm();
        let fingerprint = key.fingerprint(HashAlg::Sha256);
        let shown = format!("{} {fingerprint}", algorithm.as_str());
        let bytes = key.to_bytes().map_err(|error| TransferError::Malformed {
            found: format!("a host key that cannot be read ({error})"),
        })?;
        let is_this = |line: &&Line| line.key == bytes;
        let mut revoked = self.lines.iter().filter(|line| line.is_revoked);
        if let Some(line) = revoked.find(is_this) {
            return Err(refused(
                format!("{} showed the key {shown}, which is revoked by {}", self.name, line.place),
                "do not connect; ask whoever runs the server".into(),
            ));
        }
        let valid = || self.lines.iter().filter(|line| !line.is_revoked);
        if valid().any(|line| is_this(&line)) {
            return Ok(());
        }
        if let Some(line) = valid().find(|line| line.key_type == algorithm.as_str()) {
            return Err(refused(
                format!(
                    "THE HOST KEY OF {} HAS CHANGED: {} says another one than {shown}, which it \
                     showed; somebody may be listening in",
                    self.name, line.place
                ),
                format!(
                    "ask whoever runs the server; if the key was replaced on purpose, remove the \
                     old one with `ssh-keygen -R '{}' -f {}`",
                    self.name,
                    line.place.rsplit_once(':').map_or("", |(file, _)| file)
                ),
            ));
        }
        Err(refused(
            format!("the host key of {} is not known; it showed {shown}", self.name),
            format!(
                "compare that fingerprint with what whoever runs the server says, then add the \
                 key: `ssh-keyscan -p {} {} >> {}`",
                self.port,
                self.host,
                self.files.first().map_or_else(|| "FILE".into(), |file| file.display().to_string())
            ),
        ))
    }
}

impl Line {
    /// The line, if it is about this server.
    fn parse(text: &str, name: &str, place: impl FnOnce() -> String) -> Option<Self> {
        let mut words = text.split_ascii_whitespace();
        let first = words.next().filter(|word| !word.starts_with('#'))?;
        let (is_revoked, hosts) = match first {
            "@revoked" => (true, words.next()?),
            // Certificates of hosts are not asked for.
            marker if marker.starts_with('@') => return None,
            hosts => (false, hosts),
        };
        let (key_type, key) = (words.next()?, words.next()?);
        if !is_about(hosts, name) {
            return None;
        }
        let key = BASE64.decode(key).ok()?;
        Some(Self { place: place(), is_revoked, key_type: key_type.to_owned(), key })
    }
}

/// Whether a list of patterns names a host: one of them does, and no negated one.
fn is_about(patterns: &str, name: &str) -> bool {
    let mut is_named = false;
    for pattern in patterns.split(',') {
        match pattern.strip_prefix('!') {
            Some(pattern) if matches(pattern, name) => return false,
            Some(_) => {}
            None => is_named |= matches(pattern, name),
        }
    }
    is_named
}

fn matches(pattern: &str, name: &str) -> bool {
    match pattern.strip_prefix("|1|") {
        Some(hashed) => is_hash_of(hashed, name).unwrap_or(false),
        None => is_like(pattern.to_ascii_lowercase().as_bytes(), name.as_bytes()),
    }
}

/// `SALT|HASH`, both in base64: the HMAC-SHA1 of the name.
fn is_hash_of(hashed: &str, name: &str) -> Option<bool> {
    let (salt, hash) = hashed.split_once('|')?;
    let (salt, hash) = (BASE64.decode(salt).ok()?, BASE64.decode(hash).ok()?);
    let mac = Hmac::<Sha1>::new_from_slice(&salt).ok()?.chain_update(name);
    Some(mac.verify_slice(&hash).is_ok())
}

/// `*` stands for any text, `?` for any character.
fn is_like(pattern: &[u8], name: &[u8]) -> bool {
    // Where to go on when it does not match: after the last `*`, one byte later.
    let (mut at, mut of, mut star) = (0, 0, None);
    while of < name.len() {
        match pattern.get(at) {
            Some(b'*') => {
                star = Some((at, of));
                at += 1;
            }
            Some(byte) if *byte == b'?' || *byte == name[of] => {
                at += 1;
                of += 1;
            }
            _ => {
                let Some((star_at, star_of)) = star else { return false };
                star = Some((star_at, star_of + 1));
                at = star_at + 1;
                of = star_of + 1;
            }
        }
    }
    pattern[at..].iter().all(|byte| *byte == b'*')
}

const fn refused(found: String, hint: String) -> TransferError {
    TransferError::Refused { found, hint }
}

fn read_text(file: &Path) -> Result<String, TransferError> {
    let read = std::fs::metadata(file).and_then(|metadata| {
        if metadata.len() > BYTES_MAX {
            return Err(std::io::Error::from(ErrorKind::FileTooLarge));
        }
        std::fs::read(file)
    });
    match read {
        Ok(bytes) => Ok(String::from_utf8_lossy(&bytes).into_owned()),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(String::new()),
        Err(error) => Err(TransferError::Refused {
            found: format!("cannot read the known hosts in {}: {error}", file.display()),
            hint: "let it be read by you, or remove it".into(),
        }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const KEY: &str = "AAAAC3NzaC1lZDI1NTE5AAAAIJdD7y3aLq454yWBdwLWbieU1ebz9/cu7/QEXn9OIeZJ";
    const OTHER: &str = "AAAAC3NzaC1lZDI1NTE5AAAAILM+rvN+ot98qgEN796jTiQfZfG1KaT0PtFDJ/XFSqti";

    fn check(text: &str, port: u16) -> Result<(), TransferError> {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("known");
        std::fs::write(&file, text).unwrap();
        let files = [dir.path().join("not-there"), file];
        let key = russh::keys::parse_public_key_base64(KEY).unwrap();
        KnownHost::read("host.example", port, &files).unwrap().check(&key)
    }

    fn found(text: &str) -> String {
        check(text, 22).unwrap_err().to_string()
    }

    #[test]
    fn a_key_is_known_by_name_pattern_or_hash() {
        for hosts in ["host.example", "a,HOST.example,b", "*.example", "host.?xample", "*"] {
            assert_eq!(check(&format!("# x\n\n{hosts}\tssh-ed25519  {KEY} c\n"), 22), Ok(()));
        }
        assert_eq!(check(&format!("[host.example]:2222 ssh-ed25519 {KEY}"), 2222), Ok(()));
        let salt = BASE64.encode([1; 20]);
        let mac = Hmac::<Sha1>::new_from_slice(&[1; 20]).unwrap().chain_update("host.example");
        let hash = BASE64.encode(mac.finalize().into_bytes());
        assert_eq!(check(&format!("|1|{salt}|{hash} ssh-ed25519 {KEY}"), 22), Ok(()));
        assert_ne!(check(&format!("|1|{salt}|{hash} ssh-ed25519 {KEY}"), 23), Ok(()));
    }

    #[test]
    fn a_key_that_is_not_known_is_refused_with_its_fingerprint() {
        for text in [
            "",
            &format!("other ssh-ed25519 {KEY}"),
            &format!("[host.example]:2222 ssh-ed25519 {KEY}"),
            &format!("*.example,!host.example ssh-ed25519 {KEY}"),
            &format!("@cert-authority host.example ssh-ed25519 {KEY}"),
            &format!("host.example ssh-rsa {OTHER}"),
            "host.example ssh-ed25519 %%%",
        ] {
            assert!(found(text).contains("is not known; it showed ssh-ed25519 SHA256:"), "{text}");
        }
        assert!(check("", 22).unwrap_err().hint().contains("ssh-keyscan -p 22 host.example"));
    }

    #[test]
    fn a_key_that_changed_or_is_revoked_is_refused_aloud() {
        assert!(found(&format!("x y z\nhost.example ssh-ed25519 {OTHER}")).contains("HAS CHANGED"));
        assert!(found(&format!("x\nhost.example ssh-ed25519 {OTHER}")).contains("known:2 says"));
        let both = format!("host.example ssh-ed25519 {OTHER}\nhost.example ssh-ed25519 {KEY}");
        assert_eq!(check(&both, 22), Ok(()));
        let revoked = format!("host.example ssh-ed25519 {KEY}\n@revoked * ssh-ed25519 {KEY}");
        assert!(found(&revoked).contains("is revoked by"));
    }

    #[test]
    fn kinds_of_keys_that_are_known_are_asked_for_first() {
        let mut known = KnownHost::read("h", 22, &[]).unwrap();
        assert_eq!(known.preferred()[0], Algorithm::Ed25519);
        let line = Line::parse(&format!("h ecdsa-sha2-nistp384 {KEY}"), "h", String::new);
        known.lines.extend(line);
        assert_eq!(known.preferred()[0].as_str(), "ecdsa-sha2-nistp384");
    }
}
