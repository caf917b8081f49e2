//! The journal of a run: an append-only file of facts.
//!
//! Appending is one `write` for a batch and waits for nothing. That facts are durable is asked for
//! separately ([`Journal::flush_to`]) and answered by a callback from a thread that lets many
//! requests share one `fdatasync`.
//!
//! Deliberately absent: a lock (see [`crate::lock`]) and what facts mean.

mod disk;
pub(crate) mod durable;
mod flush;
mod mend;
mod read;
#[cfg(test)]
mod tests;

use std::fs::File;
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};

use keelboat_engine::Stamped;

pub(crate) use disk::{ContentV1, ExitV1, FailureV1, PartV1, RecordV1};
pub use flush::FlushStats;
pub use mend::{Mended, mend_journal};
pub use read::{Damage, DamageKind, JournalReader, Recovered, TornTail, read_journal};

use self::disk::StampedV1;
use self::durable::{Disk, Kernel};
use self::flush::{Flusher, Request};
use crate::error::{IoContext as _, IoError};
use crate::{files, frame};

const HEADER_NAME: [u8; 8] = *b"KEELJRNL";
const VERSION: u16 = 1;
const FRAME_MAGIC: frame::Magic = [0xB7, b'K', b'J', 1];

/// A place between two records: the bytes before it. Grows with each append.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Position(pub u64);

/// Why a journal cannot be read or written. Cheap to clone.
#[derive(Debug, Clone, thiserror::Error)]
#[non_exhaustive]
pub enum JournalError {
    /// The file system said no.
    #[error(transparent)]
    Io(#[from] IoError),
    /// Written by another version of Keelboat.
    #[error(
        "the journal {} has format version {found}: expected version {VERSION}; use the Keelboat \
         that wrote it, or a newer one", path.display()
    )]
    Version {
        /// The journal.
        path: PathBuf,
        /// Its version.
        found: u16,
    },
    /// A fact is longer than a record may be.
    #[error(
        "a fact for the journal {} is too long: {bytes} bytes, expected at most {}",
        path.display(), frame::PAYLOAD_BYTES_MAX
    )]
    TooLong {
        /// The journal.
        path: PathBuf,
        /// Bytes of the fact.
        bytes: usize,
    },
    /// A fact cannot be encoded.
    #[error("cannot encode a fact for the journal {}: {source}", path.display())]
    Encode {
        /// The journal.
        path: PathBuf,
        /// What the encoder says.
        source: postcard::Error,
    },
    /// Making it durable failed before, so that nobody knows what the disk holds.
    #[error(
        "the journal {} is not trusted any more in this process, since an earlier write failed: \
         {cause}; mend the cause and start again", path.display()
    )]
    Poisoned {
        /// The journal.
        path: PathBuf,
        /// What failed.
        cause: IoError,
    },
}

impl JournalError {
    /// What to do about it, where that is known.
    pub fn hint(&self) -> Option<&'static str> {
        match self {
            Self::Io(error) | Self::Poisoned { cause: error, .. } => error.hint(),
            Self::Version { .. } | Self::TooLong { .. } | Self::Encode { .. } => None,
        }
    }
}

/// A journal that is open for writing. Dropping it makes durable what was asked for, and answers.
#[derive(Debug)]
pub struct Journal {
    path: PathBuf,
    file: File,
    position: u64,
    buffer: Vec<u8>,
    flusher: Flusher,
}

impl Journal {
    /// Opens a journal, or starts one (its folders too), and reads what it holds. An unfinished
    /// record at its end is cut off and named in the answer; damaged records are named and left.
    ///
    /// # Errors
    /// When it cannot be read or written, or is of another version.
    pub fn create_or_open(path: &Path) -> Result<(Self, Recovered), JournalError> {
        Self::open_with(path, Box::new(Kernel))
    }

    fn open_with(path: &Path, disk: Box<dyn Disk>) -> Result<(Self, Recovered), JournalError> {
        files::create_folder(files::parent_of(path))?;
        let mut file = open_to_append(path)?;
        let mut recovered = read_journal(path)?;
        let mut position = file.metadata().doing("look at", path)?.len();
        if let Some(torn) = recovered.torn {
            file.set_len(torn.offset).doing("cut off the unfinished end of", path)?;
            position = torn.offset;
        }
        if position < frame::FILE_HEADER_BYTES as u64 {
            recovered.torn = recovered.torn.filter(|torn| torn.bytes > 0);
            let header = frame::file_header(HEADER_NAME, VERSION);
            file.set_len(0).and_then(|()| file.write_all(&header)).doing("start", path)?;
            file.sync_data().doing("make durable the journal", path)?;
            files::sync_folder(files::parent_of(path))?;
            position = header.len() as u64;
        }
        let handle = file.try_clone().doing("open the journal", path)?;
        let flusher = Flusher::start(path, handle, disk)?;
        let path = path.to_owned();
        Ok((Self { path, file, position, buffer: Vec::new(), flusher }, recovered))
    }

    /// The end of what was appended.
    pub fn position(&self) -> Position {
        Position(self.position)
    }

    /// The file.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Appends facts with one write; returns the place after the last one. They are not durable
    /// before [`flush_to`](Self::flush_to) says so, but other processes can read them.
    ///
    /// # Errors
    /// When the journal is poisoned, or the write fails: then none of the facts is in it, or it is
    /// poisoned from now on.
    pub fn append(&mut self, facts: &[Stamped]) -> Result<Position, JournalError> {
        self.flusher.check()?;
        self.buffer.clear();
        for stamped in facts {
            self.encode(stamped)?;
        }
        if let Err(error) = self.file.write_all(&self.buffer) {
            return Err(self.take_back(error));
        }
        self.position += self.buffer.len() as u64;
        Ok(self.position())
    }

    /// Asks that everything up to `position` be durable, and before it the files `durable_first`
    /// (published outputs, objects: what the facts speak of), with the names of these files in
    /// their folders. Returns at once; `done` is called on the flush thread, which it must not hold
    /// up. A file that is gone is passed over; a folder makes its whole file system durable.
    ///
    /// After one failure every later request fails too: what the disk then holds is unknown.
    pub fn flush_to(
        &self,
        position: Position,
        durable_first: Vec<PathBuf>,
        done: impl FnOnce(Result<(), JournalError>) + Send + 'static,
    ) {
        self.flusher.request(Request { position, durable_first, done: Box::new(done) });
    }

    /// Makes everything durable that was appended, and waits for it.
    ///
    /// # Errors
    /// When the disk says no, or did so before.
    pub fn sync(&self) -> Result<(), JournalError> {
        let (sender, receiver) = std::sync::mpsc::sync_channel(1);
        self.flush_to(self.position(), Vec::new(), move |result| {
            // The receiver waits below: it cannot be gone.
            drop(sender.send(result));
        });
        receiver.recv().unwrap_or_else(|_gone| self.flusher.check())
    }

    /// How much the flush thread has done so far.
    pub fn flush_stats(&self) -> FlushStats {
        self.flusher.stats()
    }

    fn encode(&mut self, stamped: &Stamped) -> Result<(), JournalError> {
        let offset = self.position + self.buffer.len() as u64;
        let start = self.buffer.len();
        let disk = StampedV1::from(stamped);
        frame::push_frame(&mut self.buffer, FRAME_MAGIC, offset, |buffer| {
            postcard::to_io(&disk, buffer).map(|_| ())
        })
        .map_err(|source| JournalError::Encode { path: self.path.clone(), source })?;
        let bytes = self.buffer.len() - start - frame::FRAME_HEADER_BYTES;
        if bytes > frame::PAYLOAD_BYTES_MAX {
            return Err(JournalError::TooLong { path: self.path.clone(), bytes });
        }
        Ok(())
    }

    /// A write that failed half way must leave nothing behind, or the next one would follow rubble.
    fn take_back(&self, error: io::Error) -> JournalError {
        let error = IoError::new("append to the journal", &self.path, error);
        match self.file.set_len(self.position) {
            Ok(()) => error.into(),
            Err(cut) => {
                tracing::error!(journal = %self.path.display(), error = %cut, "cannot take back");
                self.flusher.poison(error)
            }
        }
    }
}

fn open_to_append(path: &Path) -> Result<File, IoError> {
    let mut options = files::private();
    options.append(true);
    options.open(path).doing("open the journal", path)
}
