//! Files and directories out of archives: `zip`, and `tar` with or without compression.
//!
//! Names in archives come from outside. Nothing is written but below the target, whatever they
//! say: an archive with a name that leads out of it is refused as a whole.

mod listing;
mod tar;
mod target;
mod zip;

use std::fs::File;
use std::io;
use std::path::Path;

use keelboat_engine::Kind;

use crate::local::LocalError;
use crate::protocol::TransferError;
pub(crate) use listing::list;
use target::{Target, normal};

/// Names of symbolic and hard links that are followed one after the other.
const HOPS_MAX: usize = 8;

/// Members that are unpacked or listed.
const MEMBERS_MAX: usize = 1_000_000;

/// What is shown of an error of a library, which may quote the file.
const ERROR_CHARACTERS_MAX: usize = 120;

/// What is wanted of an archive.
#[derive(Debug)]
pub(crate) struct Extraction<'a> {
    /// The archive, whole.
    pub(crate) archive: &'a Path,
    /// `zip` or `tar`.
    pub(crate) format: &'a str,
    /// What is wanted of it, with `/` between its parts; empty: all.
    pub(crate) member: &'a str,
    /// As what.
    pub(crate) kind: Kind,
    /// Bytes that it may unpack to: a few bytes of an archive can stand for a full disk.
    pub(crate) bytes_max: u64,
}

/// Writes a member of an archive to a path where nothing is.
pub(crate) fn extract(wanted: &Extraction<'_>, to: &Path) -> Result<(), TransferError> {
    let Some(mut member) = normal(wanted.member.as_bytes()) else {
        return Err(TransferError::Missing { found: "its path in the archive has `..`".into() });
    };
    for _ in 0..HOPS_MAX {
        let mut target = Target::new(&member, wanted.kind, to, wanted.bytes_max);
        match wanted.format {
            "zip" => zip::read(wanted.archive, &mut target)?,
            _ => tar::read(wanted.archive, &mut target)?,
        }
        match target.finish()? {
            None => return Ok(()),
            Some(elsewhere) => member = elsewhere,
        }
    }
    Err(TransferError::Missing { found: "a chain of links in the archive has no end".into() })
}

fn open(archive: &Path) -> Result<File, TransferError> {
    File::open(archive).map_err(|error| local("open", archive, error))
}

fn local(action: &'static str, path: &Path, error: io::Error) -> TransferError {
    let error = LocalError::io(action, path, error);
    TransferError::Local { class: error.class(), found: error.to_string(), hint: error.hint() }
}

fn damaged(error: &dyn std::fmt::Display) -> TransferError {
    // It may quote bytes of the file, which a terminal could obey.
    let error: String = error.to_string().escape_debug().take(ERROR_CHARACTERS_MAX).collect();
    TransferError::Refused {
        found: format!("the archive cannot be read: {error}"),
        hint: "see whether it is a whole archive of this format; declare the format that it has \
               (`zip:` or `tar:`)"
            .into(),
    }
}

#[cfg(test)]
mod tests;
