//! Copying an output to an address on this machine.

use std::fs;
use std::io::ErrorKind;
use std::path::Path;

use keelboat_engine::{Content, Kind};

use super::digest::digest_path;
use super::leftover::sweep_once;
use super::publish::{copy_durably, sibling};
use super::rename::move_into_place;
use super::{DigestMemory, Forgetful, LocalError, remove_tree, stamp_of};
use crate::protocol::local_path;
use crate::redact;

/// What had to be done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Delivered {
    /// It was copied.
    Copied,
    /// The same content was there already.
    AlreadyThere,
}

/// Copies `source`, which holds `content`, to a `file:` address or path, whole or not at all.
///
/// # Errors
/// The address is not of this machine; the source changed; the copy cannot be written.
pub fn deliver(
    source: &Path,
    content: &Content,
    address: &str,
    memory: &dyn DigestMemory,
) -> Result<Delivered, LocalError> {
    let to = local_path(address).map_err(|error| LocalError::Address {
        address: redact(address),
        cause: error.to_string(),
    })?;
    if let Some(parent) = to.parent() {
        sweep_once(parent);
    }
    if digest_path(&to, content.kind, memory, false).is_ok_and(|there| there == *content) {
        return Ok(Delivered::AlreadyThere);
    }
    if content.kind == Kind::File && to.is_dir() {
        return Err(LocalError::Address {
            address: redact(address),
            cause: "a directory stands there; name the file in it".to_owned(),
        });
    }
    let beside = sibling(&to);
    let copied = deliver_by(source, content, &beside, &to);
    if copied.is_err() {
        remove_tree(&beside)?;
    }
    copied?;
    if let Ok(metadata) = to.symlink_metadata()
        && metadata.is_file()
    {
        memory.remember_own(&stamp_of(&metadata), content.digest);
    }
    Ok(Delivered::Copied)
}

fn deliver_by(
    source: &Path,
    content: &Content,
    beside: &Path,
    to: &Path,
) -> Result<(), LocalError> {
    if let Some(parent) = to.parent() {
        fs::create_dir_all(parent).map_err(|error| LocalError::io("create", parent, error))?;
    }
    copy_durably(source, beside)?;
    let copied = digest_path(beside, content.kind, &Forgetful, true)?;
    if copied.digest != content.digest {
        return Err(LocalError::Mismatch {
            path: source.to_owned(),
            expected: content.digest,
            found: copied.digest,
        });
    }
    let moved = move_into_place(beside, to).map_err(|error| match error.kind() {
        ErrorKind::NotFound => LocalError::io("find", to, error),
        _ => LocalError::io("write", to, error),
    })?;
    moved.old().map_or(Ok(()), remove_tree)
}
