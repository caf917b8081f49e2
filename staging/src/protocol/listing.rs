//! What is in a directory that is elsewhere.

use std::sync::Arc;
use std::time::SystemTime;

use keelboat_engine::Kind;

use super::Validators;

/// Which directory, and how much of it.
#[derive(Debug, Clone)]
pub struct ListRequest {
    /// The address, with or without a slash at its end. It may hold secrets.
    pub address: Arc<str>,
    /// How far down.
    pub depth: Depth,
}

/// How far down a directory is listed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Depth {
    /// What is directly in it.
    One,
    /// All that is below it.
    All,
}

/// One thing in a directory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// Its name relative to the directory, decoded, with `/` between its parts.
    pub path: String,
    /// File or directory. What is neither is not listed.
    pub kind: Kind,
    /// Bytes of a file, when the server says.
    pub length: Option<u64>,
    /// What tells this version of the file from others, as [`open`](super::Protocol::open) says it.
    pub validators: Validators,
    /// When it was changed last by the server's clock, where it says so of files and directories.
    pub modified: Option<SystemTime>,
}

impl Entry {
    /// A directory of this name.
    pub fn directory(path: impl Into<String>) -> Self {
        let (length, validators) = (None, Validators::default());
        Self { path: path.into(), kind: Kind::Directory, length, validators, modified: None }
    }

    /// A file of this name.
    pub fn file(path: impl Into<String>, length: Option<u64>, validators: Validators) -> Self {
        Self { path: path.into(), kind: Kind::File, length, validators, modified: None }
    }

    /// With the moment of its last change.
    #[must_use]
    pub fn modified_at(mut self, modified: Option<SystemTime>) -> Self {
        self.modified = modified;
        self
    }
}
