//! Reading a journal: what is whole, what is damaged, and what a crash or a live writer left
//! unfinished at the end.

use std::fs::File;
use std::io::{self, Read as _};
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};

use keelboat_engine::Stamped;

use super::disk::StampedV1;
use super::{FRAME_MAGIC, HEADER_NAME, JournalError, Position, VERSION};
use crate::error::IoContext as _;
use crate::frame::{self, FILE_HEADER_BYTES, FileHeader, Found};

/// Bytes read in one step at first; more when a frame is longer.
const WINDOW_BYTES: usize = 4 << 20;

/// All that a journal holds.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Recovered {
    /// The undamaged facts, in order.
    pub facts: Vec<Stamped>,
    /// What was left unfinished at the end. In a journal that is open for writing it has been cut
    /// off; in one that is only read it may be a write that is under way.
    pub torn: Option<TornTail>,
    /// Each stretch of bytes that is no whole record, in order.
    pub damaged: Vec<Damage>,
}

/// An unfinished record at the end of a journal.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TornTail {
    /// Where it starts, in bytes from the start of the file.
    pub offset: u64,
    /// How many bytes it has.
    pub bytes: u64,
}

/// A stretch of bytes that should have been records.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Damage {
    /// Where it starts, in bytes from the start of the file.
    pub offset: u64,
    /// How many bytes it has.
    pub bytes: u64,
    /// What is wrong there.
    pub kind: DamageKind,
}

/// What is wrong with a stretch of a journal.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DamageKind {
    /// The first bytes of the file, which name its format.
    Header,
    /// Bytes were changed: checksum, length or frame marks are wrong.
    Checksum,
    /// The checksum is right, but the record is of a kind that is not known: probably written by a
    /// newer Keelboat.
    Unknown,
}

impl std::fmt::Display for TornTail {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "an unfinished record of {} bytes at offset {}", self.bytes, self.offset)
    }
}

impl std::fmt::Display for Damage {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let what = match self.kind {
            DamageKind::Header => "damaged header",
            DamageKind::Checksum => "damaged record",
            DamageKind::Unknown => "record of an unknown kind",
        };
        write!(f, "{what}: {} bytes at offset {}", self.bytes, self.offset)
    }
}

/// Reads a whole journal, without a lock: it may be live.
///
/// # Errors
/// When it cannot be read, or is of a newer version. Damage is no error: it is in the answer.
pub fn read_journal(path: &Path) -> Result<Recovered, JournalError> {
    let mut reader = JournalReader::open(path)?;
    let mut recovered = Recovered::default();
    while reader.poll_into(&mut recovered)? {}
    reader.judge_rest(&mut recovered)?;
    Ok(recovered)
}

/// Follows a journal that may be growing.
#[derive(Debug)]
pub struct JournalReader {
    path: PathBuf,
    file: File,
    /// Everything before it is settled.
    position: u64,
    window: Vec<u8>,
}

impl JournalReader {
    /// Starts at the first record.
    ///
    /// # Errors
    /// When the file cannot be opened.
    pub fn open(path: &Path) -> Result<Self, JournalError> {
        let file = File::open(path).doing("open the journal", path)?;
        Ok(Self { path: path.to_owned(), file, position: 0, window: Vec::new() })
    }

    /// Starts at a position that a reader or the journal told before.
    ///
    /// # Errors
    /// When the file cannot be opened.
    pub fn open_at(path: &Path, position: Position) -> Result<Self, JournalError> {
        let mut reader = Self::open(path)?;
        reader.position = position.0;
        Ok(reader)
    }

    /// Up to where records were read.
    pub fn position(&self) -> Position {
        Position(self.position)
    }

    /// Adds what came since the last call, some mebibytes at most. `false`: there is no more for
    /// now. A record that is being written is left for a later call.
    ///
    /// # Errors
    /// When the file cannot be read, or is of a newer version.
    pub fn poll_into(&mut self, recovered: &mut Recovered) -> Result<bool, JournalError> {
        if self.position == 0 && !self.read_header(recovered)? {
            return Ok(false);
        }
        let mut wanted = WINDOW_BYTES;
        loop {
            let at_end = self.fill(wanted)?;
            let settled = decode(&self.window, self.position, recovered);
            self.position += settled as u64;
            if settled > 0 || at_end {
                return Ok(settled > 0);
            }
            wanted = wanted.saturating_mul(4);
        }
    }

    /// What came since the last call; empty when nothing did.
    ///
    /// # Errors
    /// As [`poll_into`](Self::poll_into).
    pub fn poll(&mut self) -> Result<Recovered, JournalError> {
        let mut recovered = Recovered::default();
        self.poll_into(&mut recovered)?;
        Ok(recovered)
    }

    /// The file that is read; for whoever has to know that it is durable.
    pub(crate) fn file(&self) -> &File {
        &self.file
    }

    /// Names what is left at the end: damaged frames, then a torn one.
    fn judge_rest(&mut self, recovered: &mut Recovered) -> Result<(), JournalError> {
        let mut wanted = WINDOW_BYTES;
        while !self.fill(wanted)? {
            wanted = wanted.saturating_mul(4);
        }
        let mut rest = self.window.as_slice();
        let mut offset = self.position;
        while let Some(end) = frame::complete_frame(rest, FRAME_MAGIC) {
            let bytes = end as u64;
            recovered.damaged.push(Damage { offset, bytes, kind: DamageKind::Checksum });
            offset += bytes;
            rest = &rest[end..];
        }
        if !rest.is_empty() {
            recovered.torn = Some(TornTail { offset, bytes: rest.len() as u64 });
        }
        Ok(())
    }

    /// Whether the header is behind us; a file shorter than a header has none yet.
    fn read_header(&mut self, recovered: &mut Recovered) -> Result<bool, JournalError> {
        self.fill(FILE_HEADER_BYTES)?;
        if self.window.len() < FILE_HEADER_BYTES {
            return Ok(false);
        }
        match frame::read_file_header(&self.window, HEADER_NAME) {
            FileHeader::Version(VERSION) => {}
            FileHeader::Version(found) => {
                return Err(JournalError::Version { path: self.path.clone(), found });
            }
            FileHeader::Damaged => {
                let bytes = FILE_HEADER_BYTES as u64;
                recovered.damaged.push(Damage { offset: 0, bytes, kind: DamageKind::Header });
            }
        }
        self.position = FILE_HEADER_BYTES as u64;
        Ok(true)
    }

    /// Fills the window with up to `wanted` bytes from the position on; tells whether the file
    /// ended within it.
    fn fill(&mut self, wanted: usize) -> Result<bool, JournalError> {
        self.window.clear();
        let mut from = FileFrom { file: &self.file, offset: self.position };
        let read = from.by_ref().take(wanted as u64).read_to_end(&mut self.window);
        let read = read.doing("read the journal", &self.path)?;
        Ok(read < wanted)
    }
}

/// Reads at an offset of its own.
struct FileFrom<'a> {
    file: &'a File,
    offset: u64,
}

impl io::Read for FileFrom<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self.file.read_at(buffer, self.offset)?;
        self.offset += read as u64;
        Ok(read)
    }
}

/// Decodes the frames of a window that stands at `base`; returns how many bytes are settled.
fn decode(window: &[u8], base: u64, recovered: &mut Recovered) -> usize {
    frame::scan(window, FRAME_MAGIC, base, |found| match found {
        Found::Frame { offset, payload } => match postcard::take_from_bytes::<StampedV1>(payload) {
            Ok((stamped, [])) => recovered.facts.push(stamped.into()),
            _ => recovered.damaged.push(Damage {
                offset,
                bytes: (frame::FRAME_HEADER_BYTES + payload.len()) as u64,
                kind: DamageKind::Unknown,
            }),
        },
        Found::Damage { offset, bytes } => {
            recovered.damaged.push(Damage { offset, bytes, kind: DamageKind::Checksum });
        }
    })
}
