//! From journals to the index: the only way by which anything gets there, live or after a loss.
//!
//! The index remembers for each run up to which place of its journal it knows it. Feeding reads on
//! from there, writes in atomic batches together with the new place, and first makes durable the
//! part of the journal that it read, so the index is never ahead of the truth.

use std::fs;
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};

use super::index::{Index, IndexError, Put, Table};
use super::learned::Learned;
use super::value;
use super::{MemoError, MemoNotice};
use crate::error::IoContext as _;
use crate::journal::{JournalReader, Position, Recovered};

/// Entries in one batch.
const BATCH_ENTRIES_MAX: usize = 8192;

/// What feeding did.
#[derive(Debug, Default)]
pub(crate) struct Fed {
    /// Journals that had something new.
    pub(crate) journals: u64,
    /// Facts read from them.
    pub(crate) facts: u64,
    /// What was wrong with journals.
    pub(crate) notices: Vec<MemoNotice>,
}

/// Names of all runs that have a journal, oldest first, with the journal's path and bytes.
pub(crate) fn journals(runs: &Path) -> Result<Vec<(String, PathBuf, u64)>, MemoError> {
    let mut found = Vec::new();
    let folder = match fs::read_dir(runs) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(found),
        folder => folder.doing("read the folder", runs)?,
    };
    for entry in folder {
        let entry = entry.doing("read the folder", runs)?;
        let path = entry.path().join("journal");
        if let (Ok(metadata), Ok(run)) = (fs::metadata(&path), entry.file_name().into_string()) {
            found.push((run, path, metadata.len()));
        }
    }
    found.sort();
    Ok(found)
}

/// Brings the index up to date with all journals.
pub(crate) fn catch_up(index: &dyn Index, runs: &Path) -> Result<Fed, MemoError> {
    let mut fed = Fed::default();
    let journals = journals(runs)?;
    forget_runs_that_are_gone(index, &journals)?;
    for (run, path, bytes) in journals {
        let mark = mark_of(index, &run)?;
        if mark == bytes {
            continue;
        }
        // A mark beyond the end is about another file of that name: read it all.
        let from = if mark > bytes { 0 } else { mark };
        match feed_journal(index, &run, &path, Position(from), &mut fed) {
            Err(MemoError::Journal(error)) => {
                fed.notices.push(MemoNotice::JournalUnreadable { run, cause: error.to_string() });
            }
            result => result?,
        }
    }
    if fed.journals > 0 {
        index.flush()?;
    }
    Ok(fed)
}

/// Brings to the index what journals tell and it has lost.
pub(crate) fn read_all_again(index: &dyn Index, runs: &Path) -> Result<Fed, MemoError> {
    let mut marked = Vec::new();
    index.iterate(Table::Marks, &mut |run, _| {
        marked.push(run.to_vec());
        ControlFlow::Continue(())
    })?;
    marked.iter().try_for_each(|run| index.remove(Table::Marks, run))?;
    let fed = catch_up(index, runs)?;
    index.flush()?;
    Ok(fed)
}

/// What they taught stays; only their marks go.
fn forget_runs_that_are_gone(
    index: &dyn Index,
    journals: &[(String, PathBuf, u64)],
) -> Result<(), IndexError> {
    let mut gone = Vec::new();
    index.iterate(Table::Marks, &mut |run, _| {
        if journals.binary_search_by(|(name, ..)| name.as_bytes().cmp(run)).is_err() {
            gone.push(run.to_vec());
        }
        ControlFlow::Continue(())
    })?;
    gone.iter().try_for_each(|run| index.remove(Table::Marks, run))
}

fn mark_of(index: &dyn Index, run: &str) -> Result<u64, IndexError> {
    let value = index.get(Table::Marks, run.as_bytes())?;
    Ok(value.and_then(|value| value::decode_mark(run, &value).ok()).unwrap_or(0))
}

fn feed_journal(
    index: &dyn Index,
    run: &str,
    path: &Path,
    from: Position,
    fed: &mut Fed,
) -> Result<(), MemoError> {
    let mut reader = JournalReader::open_at(path, from)?;
    let mut learned = Learned::default();
    let mut more = true;
    while more {
        let mut batch = Recovered::default();
        more = reader.poll_into(&mut batch)?;
        let offset = batch.damaged.first().map(|damage| damage.offset);
        if from > Position(0) && offset == Some(from.0) {
            // Either damage, or the journal was cut and written on: the mark means nothing then.
            return feed_journal(index, run, path, Position(0), fed);
        }
        for damage in batch.damaged {
            fed.notices.push(MemoNotice::JournalDamaged { run: run.to_owned(), damage });
        }
        fed.facts += batch.facts.len() as u64;
        for stamped in batch.facts {
            learned.learn(stamped);
            if learned.len() >= BATCH_ENTRIES_MAX {
                // Without the mark: after a crash here these facts are read again, to no harm.
                let puts = puts_of(index, &std::mem::take(&mut learned))?;
                put_after_journal(index, &reader, path, puts)?;
            }
        }
    }
    if reader.position() == from {
        return Ok(());
    }
    fed.journals += 1;
    let mut puts = puts_of(index, &learned)?;
    if let Some(value) = value::encode_mark(run, reader.position().0) {
        puts.push(Put { table: Table::Marks, key: run.as_bytes().to_vec(), value });
    }
    put_after_journal(index, &reader, path, puts)
}

/// What the index holds must be in the journal, also after a power cut.
fn put_after_journal(
    index: &dyn Index,
    reader: &JournalReader,
    path: &Path,
    puts: Vec<Put>,
) -> Result<(), MemoError> {
    reader.file().sync_data().doing("make durable the journal", path)?;
    Ok(index.put_batch(puts)?)
}

/// What the index does not hold yet. A result that was only reused is in it, unless it was lost.
fn puts_of(index: &dyn Index, learned: &Learned) -> Result<Vec<Put>, IndexError> {
    let mut puts = Vec::with_capacity(learned.len());
    let mut put = |table, key: &[u8], value: Option<Vec<u8>>| {
        puts.extend(value.map(|value| Put { table, key: key.to_vec(), value }));
    };
    for (key, (task, entry)) in &learned.memo {
        let bytes = key.0.as_bytes();
        if entry.parts.is_some() || holds_no_memo(index, *key)? {
            put(Table::Memo, bytes, value::encode_memo(*key, task, entry));
        }
    }
    for (task, key) in &learned.names {
        let value = value::encode_name(task, *key);
        if index.get(Table::Names, task.as_bytes())? != value {
            put(Table::Names, task.as_bytes(), value);
        }
    }
    for (url, source) in &learned.sources {
        put(Table::Sources, url.as_bytes(), value::encode_source(url, source));
    }
    for (key, (task, record)) in &learned.failures {
        put(Table::Failures, key.0.as_bytes(), value::encode_failure(*key, task, record));
    }
    for (digest, bytes) in &learned.values {
        put(Table::Values, digest.as_bytes(), Some(bytes.to_vec()));
    }
    Ok(puts)
}

fn holds_no_memo(index: &dyn Index, key: keelboat_engine::MemoKey) -> Result<bool, IndexError> {
    let value = index.get(Table::Memo, key.0.as_bytes())?;
    Ok(value.is_none_or(|value| value::decode_memo(key, &value).is_err()))
}
