//! Files and directories out of archives: `zip`, and `tar` with or without compression.
//!
//! Names in archives come from outside. Nothing is written but below the target, whatever they
//! say: an archive with a name that leads out of it is refused as a whole.

mod listing;
mod tar;
mod target;
mod targets;
mod zip;

use std::fs::File;
use std::io;
use std::path::Path;

use keelboat_engine::Kind;

use crate::local::LocalError;
use crate::protocol::TransferError;
pub(crate) use listing::list;
use target::{Target, is_below, normal};
use targets::Targets;

/// Names of symbolic and hard links that are followed one after the other.
const HOPS_MAX: usize = 8;

/// Members that are unpacked or listed.
const MEMBERS_MAX: usize = 1_000_000;

/// What is shown of an error of a library, which may quote the file.
const ERROR_CHARACTERS_MAX: usize = 120;

/// A member that is wanted of an archive.
#[derive(Debug)]
pub(crate) struct Wanted<'a> {
    /// With `/` between its parts; empty: all of the archive.
    pub(crate) member: &'a str,
    /// As what.
    pub(crate) kind: Kind,
    /// Where it goes; nothing is there.
    pub(crate) to: &'a Path,
}

/// Writes members of an archive (`zip` or `tar`) to their places, and tells of each how it went.
///
/// The archive is read once for all of them. Further passes are for those that are links in the
/// archive, and for those that are below others. Each may unpack to so many bytes: a few bytes of
/// an archive can stand for a full disk.
pub(crate) fn extract(
    archive: &Path,
    format: &str,
    wanted: &[Wanted<'_>],
    bytes_max: u64,
) -> Vec<Result<(), TransferError>> {
    unpack(wanted, bytes_max, |targets| match format {
        "zip" => zip::read(archive, targets),
        _ => tar::read(archive, targets),
    })
}

/// A member on its way to its place.
struct Hop<'a> {
    wanted: &'a Wanted<'a>,
    result: &'a mut Result<(), TransferError>,
    /// Normal.
    member: Vec<u8>,
    hops_left: usize,
}

fn unpack(
    wanted: &[Wanted<'_>],
    bytes_max: u64,
    mut read: impl FnMut(&mut Targets<'_>) -> Result<(), TransferError>,
) -> Vec<Result<(), TransferError>> {
    let mut results: Vec<_> = wanted.iter().map(|_| Ok(())).collect();
    let mut left = Vec::new();
    for (wanted, result) in wanted.iter().zip(&mut results) {
        match normal(wanted.member.as_bytes()) {
            Some(member) => left.push(Hop { wanted, result, member, hops_left: HOPS_MAX }),
            None => *result = Err(missing("its path in the archive has `..`")),
        }
    }
    while !left.is_empty() {
        let (now, mut later) = apart(left);
        let targets = now.iter().map(|hop| {
            let Wanted { kind, to, .. } = *hop.wanted;
            Target::new(&hop.member, kind, to, bytes_max)
        });
        let mut targets = Targets::new(targets);
        let read = read(&mut targets);
        let ended = targets.finish(&read);
        for (hop, ended) in now.into_iter().zip(ended) {
            let hops_left = hop.hops_left - 1;
            match ended {
                Ok(None) => {}
                Ok(Some(member)) if hops_left > 0 => later.push(Hop { member, hops_left, ..hop }),
                Ok(Some(_)) => {
                    *hop.result = Err(missing("a chain of links in the archive has no end"));
                }
                Err(error) => *hop.result = Err(error),
            }
        }
        left = later;
    }
    results
}

/// Those that lie beside each other, and those that have to wait for a pass of their own.
fn apart(hops: Vec<Hop<'_>>) -> (Vec<Hop<'_>>, Vec<Hop<'_>>) {
    let (mut now, mut later) = (Vec::<Hop<'_>>::new(), Vec::new());
    for hop in hops {
        let meets = |other: &Hop<'_>| {
            let (a, b) = (&*hop.member, &*other.member);
            a == b || is_below(a, b) || is_below(b, a)
        };
        if now.iter().any(meets) {
            later.push(hop);
        } else {
            now.push(hop);
        }
    }
    (now, later)
}

fn missing(found: &str) -> TransferError {
    TransferError::Missing { found: found.to_owned() }
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
