//! Mending a journal: its undamaged records in a new one, in its place.

use std::fs;
use std::path::Path;

use super::{DamageKind, Journal, JournalError, Recovered, read_journal};
use crate::error::IoContext as _;
use crate::files;

/// What became of a journal.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mended {
    /// Nothing is damaged in it.
    Whole,
    /// A new one is in its place.
    Anew {
        /// The records that it has.
        records: usize,
    },
    /// It has records of a kind that is not known, which a newer Keelboat understands: it stays as
    /// it is.
    Newer,
}

/// Puts the undamaged records of a journal that nobody writes to in its place, and keeps what it
/// was at `aside`. After a crash in the middle one or the other is there.
///
/// # Errors
/// When a file cannot be read or written, or the journal is of another version.
pub fn mend_journal(path: &Path, aside: &Path) -> Result<Mended, JournalError> {
    let Recovered { facts, damaged, .. } = read_journal(path)?;
    if damaged.is_empty() {
        return Ok(Mended::Whole);
    }
    if damaged.iter().any(|damage| damage.kind == DamageKind::Unknown) {
        return Ok(Mended::Newer);
    }
    files::create_folder(files::parent_of(aside))?;
    fs::copy(path, aside).doing("keep the damaged journal", path)?;
    let fresh = files::fresh_name(files::parent_of(path));
    let written = write_new(&fresh, &facts).and_then(|()| {
        fs::rename(&fresh, path).doing("put the mended journal in the place of", path)?;
        Ok(files::sync_folder(files::parent_of(path))?)
    });
    if written.is_err() {
        files::discard(&fresh);
    }
    written.map(|()| Mended::Anew { records: facts.len() })
}

fn write_new(path: &Path, facts: &[keelboat_engine::Stamped]) -> Result<(), JournalError> {
    let (mut journal, _) = Journal::create_or_open(path)?;
    journal.append(facts)?;
    journal.sync()
}
