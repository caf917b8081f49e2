//! Values of the memo store as they stand in the index, version 1.
//!
//! Each value, but for those of functions, is a version byte, a CRC-32 (little-endian) over table, key, version and payload,
//! and the payload in postcard. A value that fails this is damaged: named, and treated as absent.

use keelboat_engine::{Digest, Failure, KeyPart, MemoKey, MemoRecord, Timestamp};
use serde::{Deserialize, Serialize};

use super::index::Table;
use super::{FailureRecord, SourceRecord};
use crate::journal::{ContentV1, ExitV1, FailureV1, PartV1, RecordV1};

const VERSION: u8 = 1;
const PREFIX_BYTES: usize = 5;

/// What is remembered under a memo key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct MemoEntry {
    pub(crate) record: MemoRecord,
    /// What the key is made of; `None` when it was only ever seen as reused.
    pub(crate) parts: Option<Vec<KeyPart>>,
}

#[derive(Debug, Serialize, Deserialize)]
struct MemoEntryV1<'a> {
    task: &'a str,
    #[serde(borrow)]
    record: RecordV1<'a>,
    #[serde(borrow)]
    parts: Option<Vec<PartV1<'a>>>,
}

#[derive(Debug, Serialize, Deserialize)]
struct SourceV1<'a> {
    content: ContentV1,
    etag: Option<&'a str>,
    last_modified: Option<&'a str>,
    fetched_at: u64,
}

#[derive(Debug, Serialize, Deserialize)]
struct FailureEntryV1<'a> {
    task: &'a str,
    #[serde(borrow)]
    failure: FailureV1<'a>,
    exit: Option<ExitV1>,
    failed_at: u64,
}

/// A value that is not what was stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct DamagedValue;

pub(crate) fn encode_memo(key: MemoKey, task: &str, entry: &MemoEntry) -> Option<Vec<u8>> {
    let parts = entry.parts.as_ref().map(|parts| parts.iter().map(Into::into).collect());
    let disk = MemoEntryV1 { task, record: (&entry.record).into(), parts };
    seal(Table::Memo, key.0.as_bytes(), &disk)
}

pub(crate) fn decode_memo(key: MemoKey, value: &[u8]) -> Result<MemoEntry, DamagedValue> {
    let disk: MemoEntryV1<'_> = open(Table::Memo, key.0.as_bytes(), value)?;
    let parts = disk.parts.map(|parts| parts.into_iter().map(Into::into).collect());
    Ok(MemoEntry { record: disk.record.into(), parts })
}

pub(crate) fn encode_name(task: &str, key: MemoKey) -> Option<Vec<u8>> {
    seal(Table::Names, task.as_bytes(), key.0.as_bytes())
}

pub(crate) fn decode_name(task: &str, value: &[u8]) -> Result<MemoKey, DamagedValue> {
    let key: [u8; 32] = open(Table::Names, task.as_bytes(), value)?;
    Ok(MemoKey(Digest::from_bytes(key)))
}

pub(crate) fn encode_source(url: &Digest, source: &SourceRecord) -> Option<Vec<u8>> {
    let disk = SourceV1 {
        content: source.content.into(),
        etag: source.etag.as_deref(),
        last_modified: source.last_modified.as_deref(),
        fetched_at: source.fetched_at.0,
    };
    seal(Table::Sources, url.as_bytes(), &disk)
}

pub(crate) fn decode_source(url: &Digest, value: &[u8]) -> Result<SourceRecord, DamagedValue> {
    let disk: SourceV1<'_> = open(Table::Sources, url.as_bytes(), value)?;
    Ok(SourceRecord {
        content: disk.content.into(),
        etag: disk.etag.map(str::to_owned),
        last_modified: disk.last_modified.map(str::to_owned),
        fetched_at: Timestamp(disk.fetched_at),
    })
}

pub(crate) fn encode_failure(key: MemoKey, task: &str, record: &FailureRecord) -> Option<Vec<u8>> {
    let FailureRecord { failure, failed_at } = record;
    let exit = failure.exit.map(Into::into);
    let disk = FailureEntryV1 { task, failure: failure.into(), exit, failed_at: failed_at.0 };
    seal(Table::Failures, key.0.as_bytes(), &disk)
}

pub(crate) fn decode_failure(key: MemoKey, value: &[u8]) -> Result<FailureRecord, DamagedValue> {
    let disk: FailureEntryV1<'_> = open(Table::Failures, key.0.as_bytes(), value)?;
    let failure = Failure { exit: disk.exit.map(Into::into), ..disk.failure.into() };
    Ok(FailureRecord { failure, failed_at: Timestamp(disk.failed_at) })
}

/// The bytes of a value as they are: their key proves them.
pub(crate) fn decode_value<'a>(digest: &Digest, value: &'a [u8]) -> Result<&'a [u8], DamagedValue> {
    (Digest::of(value) == *digest).then_some(value).ok_or(DamagedValue)
}

pub(crate) fn encode_mark(run: &str, position: u64) -> Option<Vec<u8>> {
    seal(Table::Marks, run.as_bytes(), &position)
}

pub(crate) fn decode_mark(run: &str, value: &[u8]) -> Result<u64, DamagedValue> {
    open(Table::Marks, run.as_bytes(), value)
}

/// Where the number of the last batch stands, in the table of the format.
pub(crate) const BATCHES_KEY: &[u8] = b"batches";

pub(crate) fn encode_batches(number: u64) -> Option<Vec<u8>> {
    seal(Table::Meta, BATCHES_KEY, &number)
}

pub(crate) fn decode_batches(value: &[u8]) -> Result<u64, DamagedValue> {
    open(Table::Meta, BATCHES_KEY, value)
}

/// `None` only when the encoder refuses, which it does for no type of this file.
fn seal<T: Serialize>(table: Table, key: &[u8], payload: &T) -> Option<Vec<u8>> {
    let mut value = postcard::to_io(payload, vec![0; PREFIX_BYTES]).ok()?;
    value[0] = VERSION;
    let crc = value_crc(table, key, &value);
    value[1..PREFIX_BYTES].copy_from_slice(&crc.to_le_bytes());
    Some(value)
}

fn open<'a, T: Deserialize<'a>>(
    table: Table,
    key: &[u8],
    value: &'a [u8],
) -> Result<T, DamagedValue> {
    let (prefix, payload) = value.split_first_chunk::<PREFIX_BYTES>().ok_or(DamagedValue)?;
    let crc = u32::from_le_bytes([prefix[1], prefix[2], prefix[3], prefix[4]]);
    if prefix[0] != VERSION || crc != value_crc(table, key, value) {
        return Err(DamagedValue);
    }
    match postcard::take_from_bytes(payload) {
        Ok((decoded, [])) => Ok(decoded),
        _ => Err(DamagedValue),
    }
}

fn value_crc(table: Table, key: &[u8], value: &[u8]) -> u32 {
    let mut hasher = crc32fast::Hasher::new();
    hasher.update(&[table as u8]);
    hasher.update(&(key.len() as u64).to_le_bytes());
    hasher.update(key);
    hasher.update(&value[..1]);
    hasher.update(&value[PREFIX_BYTES..]);
    hasher.finalize()
}
