//! Frames: records in a file, each of which can be found and proved whole on its own.
//!
//! A frame is a 4-byte magic (the last byte is the format's version), the payload's length (u32,
//! little-endian), a CRC-32 (IEEE, little-endian) and the payload. The CRC covers the frame's own
//! offset in the file, the length and the payload: bytes that look like a frame but were copied
//! from elsewhere are none. After damage, the reader looks for the next place where a whole frame
//! stands, so one damaged frame costs one record.

use crate::journal::{Damage, DamageKind};

/// Bytes before the payload.
pub(crate) const FRAME_HEADER_BYTES: usize = 12;
/// Longest payload: a length beyond it is damage.
pub(crate) const PAYLOAD_BYTES_MAX: usize = 256 << 20;
/// Bytes of a file header.
pub(crate) const FILE_HEADER_BYTES: usize = 16;

/// The first four bytes of each frame of one format.
pub(crate) type Magic = [u8; 4];

/// A file header: 8 bytes that name the format, version (u16), two zero bytes, CRC-32 of these 12.
pub(crate) fn file_header(name: [u8; 8], version: u16) -> [u8; FILE_HEADER_BYTES] {
    let mut header = [0; FILE_HEADER_BYTES];
    header[..8].copy_from_slice(&name);
    header[8..10].copy_from_slice(&version.to_le_bytes());
    let crc = crc32fast::hash(&header[..12]);
    header[12..].copy_from_slice(&crc.to_le_bytes());
    header
}

/// What the first bytes of a file say.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum FileHeader {
    /// Whole, of this version.
    Version(u16),
    /// Not whole, or of another format.
    Damaged,
}

/// Reads a file header. `bytes` may be shorter than one.
pub(crate) fn read_file_header(bytes: &[u8], name: [u8; 8]) -> FileHeader {
    let Some(header) = bytes.first_chunk::<FILE_HEADER_BYTES>() else {
        return FileHeader::Damaged;
    };
    let version = u16::from_le_bytes([header[8], header[9]]);
    if *header == file_header(name, version) {
        FileHeader::Version(version)
    } else {
        FileHeader::Damaged
    }
}

/// Appends to `buffer` a frame that will stand at `offset` of the file; `write` adds the payload.
/// On an error the buffer is as before.
pub(crate) fn push_frame<E>(
    buffer: &mut Vec<u8>,
    magic: Magic,
    offset: u64,
    write: impl FnOnce(&mut Vec<u8>) -> Result<(), E>,
) -> Result<(), E> {
    let start = buffer.len();
    buffer.extend_from_slice(&magic);
    buffer.extend_from_slice(&[0; FRAME_HEADER_BYTES - 4]);
    if let Err(error) = write(buffer) {
        buffer.truncate(start);
        return Err(error);
    }
    let payload = start + FRAME_HEADER_BYTES;
    let length = u32::try_from(buffer.len() - payload).unwrap_or(u32::MAX);
    let crc = frame_crc(offset, length, &buffer[payload..]);
    buffer[start + 4..start + 8].copy_from_slice(&length.to_le_bytes());
    buffer[start + 8..payload].copy_from_slice(&crc.to_le_bytes());
    Ok(())
}

fn frame_crc(offset: u64, length: u32, payload: &[u8]) -> u32 {
    let mut hasher = crc32fast::Hasher::new();
    let mut prefix = [0; 12];
    prefix[..8].copy_from_slice(&offset.to_le_bytes());
    prefix[8..].copy_from_slice(&length.to_le_bytes());
    hasher.update(&prefix);
    hasher.update(payload);
    hasher.finalize()
}

/// What was found in a stretch of a file, in order.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Found<'a> {
    /// A whole frame.
    Frame {
        /// Where it starts in the file.
        offset: u64,
        /// Its payload.
        payload: &'a [u8],
    },
    /// Bytes before a whole frame that are none.
    Damage {
        /// Where they start in the file.
        offset: u64,
        /// How many they are.
        bytes: u64,
    },
}

/// Reports all whole frames of `window`, which stands at `base` of the file, and what is damaged
/// between them. Returns how many bytes are settled; what follows them may be a frame that is
/// still being written, a torn one, or a damaged one.
pub(crate) fn scan<'a>(
    window: &'a [u8],
    magic: Magic,
    base: u64,
    mut found: impl FnMut(Found<'a>),
) -> usize {
    let mut position = 0;
    loop {
        if let Some((payload, end)) = frame_at(window, magic, base, position) {
            found(Found::Frame { offset: base + position as u64, payload });
            position = end;
            continue;
        }
        let Some(next) = next_frame(window, magic, base, position) else { return position };
        let bytes = (next - position) as u64;
        found(Found::Damage { offset: base + position as u64, bytes });
        position = next;
    }
}

/// Reports the payloads of all whole frames of a file that nobody writes to, and returns what is
/// damaged in it. Nothing is read behind a header that is not this one.
pub(crate) fn read_file<'a>(
    bytes: &'a [u8],
    header: [u8; FILE_HEADER_BYTES],
    magic: Magic,
    mut payload_found: impl FnMut(&'a [u8]),
) -> Vec<Damage> {
    let length = bytes.len() as u64;
    let Some(frames) = bytes.strip_prefix(&header) else {
        return vec![Damage { offset: 0, bytes: length, kind: DamageKind::Header }];
    };
    let base = FILE_HEADER_BYTES as u64;
    let mut damaged = Vec::new();
    let kind = DamageKind::Checksum;
    let settled = scan(frames, magic, base, |found| match found {
        Found::Frame { payload, .. } => payload_found(payload),
        Found::Damage { offset, bytes } => damaged.push(Damage { offset, bytes, kind }),
    });
    if settled < frames.len() {
        let offset = base + settled as u64;
        damaged.push(Damage { offset, bytes: length - offset, kind });
    }
    damaged
}

/// The length of the leading frame of `rest` by its own word, when all of it is there. Told of
/// what [`scan`] left over, it separates a damaged frame from a torn one.
pub(crate) fn complete_frame(rest: &[u8], magic: Magic) -> Option<usize> {
    let header = rest.first_chunk::<FRAME_HEADER_BYTES>()?;
    if header[..4] != magic {
        return None;
    }
    let end = FRAME_HEADER_BYTES.checked_add(payload_length(header))?;
    (end <= rest.len()).then_some(end)
}

fn payload_length(header: &[u8; FRAME_HEADER_BYTES]) -> usize {
    u32::from_le_bytes([header[4], header[5], header[6], header[7]]) as usize
}

fn frame_at(window: &[u8], magic: Magic, base: u64, position: usize) -> Option<(&[u8], usize)> {
    let rest = window.get(position..)?;
    let end = complete_frame(rest, magic)?;
    let header = rest.first_chunk::<FRAME_HEADER_BYTES>()?;
    let payload = &rest[FRAME_HEADER_BYTES..end];
    if payload.len() > PAYLOAD_BYTES_MAX {
        return None;
    }
    let crc = u32::from_le_bytes([header[8], header[9], header[10], header[11]]);
    let length = u32::try_from(payload.len()).ok()?;
    (frame_crc(base + position as u64, length, payload) == crc).then_some((payload, position + end))
}

fn next_frame(window: &[u8], magic: Magic, base: u64, damaged: usize) -> Option<usize> {
    let mut from = damaged + 1;
    loop {
        let place = window.get(from..)?.windows(magic.len()).position(|bytes| bytes == magic)?;
        let candidate = from + place;
        if frame_at(window, magic, base, candidate).is_some() {
            return Some(candidate);
        }
        from = candidate + 1;
    }
}
