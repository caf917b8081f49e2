//! SHA-256 digests: of byte streams and of directory trees.
//!
//! Deliberately absent: reading files. Whoever reads bytes feeds them to a [`Digester`].

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer};
use sha2::{Digest as _, Sha256};

/// The SHA-256 of a sequence of bytes.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Digest([u8; 32]);

/// A text that was to be a digest and is not.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{text:?} is not a SHA-256 digest: expected 64 hexadecimal digits")]
pub struct DigestParseError {
    text: String,
}

impl Digest {
    /// The digest of these bytes.
    pub fn of(bytes: &[u8]) -> Self {
        Self(Sha256::digest(bytes).into())
    }

    /// A digest from its 32 bytes.
    pub const fn from_bytes(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }

    /// The 32 bytes.
    pub const fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }

    /// 64 lower-case hexadecimal digits.
    pub fn to_hex(&self) -> String {
        self.with_hex(str::to_owned)
    }

    /// Lends the digits to somebody, without a place of their own in memory.
    fn with_hex<T>(&self, deed: impl FnOnce(&str) -> T) -> T {
        const DIGITS: &[u8; 16] = b"0123456789abcdef";
        let mut text = [0; 64];
        for (pair, byte) in text.chunks_exact_mut(2).zip(self.0) {
            pair[0] = DIGITS[usize::from(byte >> 4)];
            pair[1] = DIGITS[usize::from(byte & 15)];
        }
        deed(std::str::from_utf8(&text).expect("digits are text"))
    }

    /// The first 12 hexadecimal digits, for people.
    pub fn short(&self) -> String {
        let mut text = self.to_hex();
        text.truncate(12);
        text
    }
}

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.with_hex(|text| f.write_str(text))
    }
}

impl fmt::Debug for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Digest({})", self.short())
    }
}

impl FromStr for Digest {
    type Err = DigestParseError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let error = || DigestParseError { text: text.to_owned() };
        let digits = text.as_bytes();
        if digits.len() != 64 {
            return Err(error());
        }
        let nibble = |digit: u8| char::from(digit).to_digit(16).and_then(|n| u8::try_from(n).ok());
        let mut bytes = [0; 32];
        for (byte, pair) in bytes.iter_mut().zip(digits.chunks_exact(2)) {
            let (high, low) = nibble(pair[0]).zip(nibble(pair[1])).ok_or_else(error)?;
            *byte = high << 4 | low;
        }
        Ok(Self(bytes))
    }
}

/// Text (hexadecimal) in formats for people, 32 bytes in binary ones.
impl Serialize for Digest {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        if serializer.is_human_readable() {
            self.with_hex(|text| serializer.serialize_str(text))
        } else {
            self.0.serialize(serializer)
        }
    }
}

impl<'de> Deserialize<'de> for Digest {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        if deserializer.is_human_readable() {
            let text = String::deserialize(deserializer)?;
            text.parse().map_err(serde::de::Error::custom)
        } else {
            <[u8; 32]>::deserialize(deserializer).map(Self)
        }
    }
}

/// Computes a [`Digest`] over bytes that come piece by piece.
#[derive(Clone, Default)]
pub struct Digester(Sha256);

impl Digester {
    /// Nothing read yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// The next bytes of the stream.
    pub fn update(&mut self, bytes: &[u8]) {
        self.0.update(bytes);
    }

    /// The digest of all bytes so far.
    pub fn finish(self) -> Digest {
        Digest(self.0.finalize().into())
    }
}

impl fmt::Debug for Digester {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Digester")
    }
}

/// One entry of a directory tree.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TreeEntry {
    /// Path below the directory, components joined with `/`, as raw bytes.
    pub path: Vec<u8>,
    /// What is there.
    pub node: TreeNode,
}

/// What stands at one path of a directory tree.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum TreeNode {
    /// A directory (also an empty one counts).
    Directory,
    /// A regular file.
    File {
        /// SHA-256 of its bytes.
        digest: Digest,
        /// Whether its owner may execute it.
        executable: bool,
    },
    /// A symbolic link, not followed.
    Link {
        /// Its target, as raw bytes.
        target: Vec<u8>,
    },
}

/// The digest of a directory: of its entries sorted by path, each encoded without ambiguity.
///
/// Format, version 1: `keelboat-tree\0` `0x01`, then for each entry a tag byte (0 directory,
/// 1 file, 2 executable file, 3 link), the path's length as u64 little-endian, the path, and for
/// files the 32 bytes of the digest, for links the target's length and the target.
pub fn tree_digest(entries: &mut [TreeEntry]) -> Digest {
    entries.sort_by(|a, b| a.path.cmp(&b.path));
    let mut digester = Digester::new();
    digester.update(b"keelboat-tree\0\x01");
    let sized = |digester: &mut Digester, bytes: &[u8]| {
        digester.update(&(bytes.len() as u64).to_le_bytes());
        digester.update(bytes);
    };
    for entry in entries.iter() {
        let tag = match &entry.node {
            TreeNode::Directory => 0,
            TreeNode::File { executable: false, .. } => 1,
            TreeNode::File { executable: true, .. } => 2,
            TreeNode::Link { .. } => 3,
        };
        digester.update(&[tag]);
        sized(&mut digester, &entry.path);
        match &entry.node {
            TreeNode::Directory => {}
            TreeNode::File { digest, .. } => digester.update(digest.as_bytes()),
            TreeNode::Link { target } => sized(&mut digester, target),
        }
    }
    digester.finish()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn digest_of_nothing_is_the_known_one() {
        let known = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";
        assert_eq!(Digest::of(b"").to_hex(), known);
        assert_eq!(known.parse(), Ok(Digest::of(b"")));
        assert_eq!(known.to_uppercase().parse(), Ok(Digest::of(b"")));
    }

    #[test]
    fn what_is_not_a_digest_is_refused() {
        for text in ["", "abc", &"g".repeat(64), &"é".repeat(32)] {
            assert!(text.parse::<Digest>().is_err(), "{text}");
        }
    }

    #[test]
    fn pieces_and_whole_agree() {
        let mut digester = Digester::new();
        digester.update(b"keel");
        digester.update(b"boat");
        assert_eq!(digester.finish(), Digest::of(b"keelboat"));
    }

    #[test]
    fn tree_digest_ignores_order_and_sees_everything_else() {
        let file = |path: &str, bytes: &[u8], executable| TreeEntry {
            path: path.into(),
            node: TreeNode::File { digest: Digest::of(bytes), executable },
        };
        let base = tree_digest(&mut [file("a", b"1", false), file("b", b"2", false)]);
        assert_eq!(base, tree_digest(&mut [file("b", b"2", false), file("a", b"1", false)]));
        for other in [
            vec![file("a", b"1", false)],
            vec![file("a", b"1", true), file("b", b"2", false)],
            vec![file("a", b"2", false), file("b", b"2", false)],
            vec![file("a", b"1", false), file("c", b"2", false)],
        ] {
            assert_ne!(base, tree_digest(&mut other.clone()));
        }
    }
}
