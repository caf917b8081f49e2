//! When objects were last used. Their own times cannot say: a hard link shares them with a
//! published output, and changing them would change its stamp.

use std::collections::BTreeMap;
use std::fs::{self, OpenOptions};
use std::io::{self, Write as _};
use std::path::PathBuf;
use std::time::{SystemTime, UNIX_EPOCH};

use keelboat_engine::{Digest, Timestamp};

use crate::error::{IoContext as _, IoError};
use crate::files;
use crate::frame::{self, FILE_HEADER_BYTES};
use crate::journal::Damage;

const HEADER_NAME: [u8; 8] = *b"KEELUSED";
const VERSION: u16 = 1;
const FRAME_MAGIC: frame::Magic = [0xB7, b'K', b'U', 1];
/// Digest, milliseconds since 1970 (u64, little-endian).
const ENTRY_BYTES: usize = 40;
/// A longer file is written anew with one entry an object.
const FILE_BYTES_MAX: u64 = 16 << 20;

/// What was used by this process, and where the uses of all are noted.
#[derive(Debug)]
pub(super) struct Recency {
    path: PathBuf,
    used: BTreeMap<Digest, Timestamp>,
}

impl Recency {
    pub(super) fn at(path: PathBuf) -> Self {
        Self { path, used: BTreeMap::new() }
    }

    pub(super) fn touch(&mut self, digest: Digest) {
        self.used.insert(digest, now());
    }

    /// Last uses by all processes. What is damaged in the file is left out: an object is then as
    /// old as its last change.
    pub(super) fn all(&self) -> BTreeMap<Digest, Timestamp> {
        let mut all = BTreeMap::new();
        self.read(|payload| all.extend(payload.as_chunks::<ENTRY_BYTES>().0.iter().map(decode)));
        all.extend(self.used.iter().map(|(digest, at)| (*digest, *at)));
        all
    }

    /// What is damaged in the file.
    pub(super) fn damaged(&self) -> Vec<Damage> {
        self.read(|_| {})
    }

    fn read(&self, payload_found: impl FnMut(&[u8])) -> Vec<Damage> {
        match fs::read(&self.path) {
            Ok(bytes) => {
                let header = frame::file_header(HEADER_NAME, VERSION);
                frame::read_file(&bytes, header, FRAME_MAGIC, payload_found)
            }
            Err(_none) => Vec::new(),
        }
    }

    /// Appends what this process used.
    pub(super) fn save(&mut self) -> Result<(), IoError> {
        if self.used.is_empty() {
            return Ok(());
        }
        let length = fs::metadata(&self.path).map_or(0, |metadata| metadata.len());
        if length < FILE_HEADER_BYTES as u64 || length > FILE_BYTES_MAX {
            return self.write(&self.all());
        }
        let frame = encode(&self.used, length);
        let appended = OpenOptions::new()
            .append(true)
            .open(&self.path)
            .and_then(|mut file| file.write_all(&frame));
        appended.doing("append to", &self.path)?;
        self.used.clear();
        Ok(())
    }

    /// Replaces the file.
    pub(super) fn write(&mut self, all: &BTreeMap<Digest, Timestamp>) -> Result<(), IoError> {
        let mut bytes = frame::file_header(HEADER_NAME, VERSION).to_vec();
        bytes.extend(encode(all, bytes.len() as u64));
        files::replace(&self.path, &bytes)?;
        self.used.clear();
        Ok(())
    }
}

fn encode(entries: &BTreeMap<Digest, Timestamp>, offset: u64) -> Vec<u8> {
    let mut buffer = Vec::with_capacity(entries.len() * ENTRY_BYTES + 16);
    let pushed = frame::push_frame(&mut buffer, FRAME_MAGIC, offset, |buffer| {
        for (digest, at) in entries {
            buffer.extend_from_slice(digest.as_bytes());
            buffer.extend_from_slice(&at.0.to_le_bytes());
        }
        Ok::<_, std::convert::Infallible>(())
    });
    match pushed {
        Ok(()) => buffer,
        Err(never) => match never {},
    }
}

fn decode(entry: &[u8; ENTRY_BYTES]) -> (Digest, Timestamp) {
    let (mut digest, mut at) = ([0; 32], [0; 8]);
    digest.copy_from_slice(&entry[..32]);
    at.copy_from_slice(&entry[32..]);
    (Digest::from_bytes(digest), Timestamp(u64::from_le_bytes(at)))
}

pub(super) fn now() -> Timestamp {
    timestamp(Ok(SystemTime::now()))
}

/// A moment of the file system's; the beginning of time when it does not tell.
pub(super) fn timestamp(moment: io::Result<SystemTime>) -> Timestamp {
    let since = moment.ok().and_then(|moment| moment.duration_since(UNIX_EPOCH).ok());
    Timestamp(u64::try_from(since.unwrap_or_default().as_millis()).unwrap_or(u64::MAX))
}
