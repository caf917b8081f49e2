//! What the engine and the warden say to each other: frames of postcard with types of their own.
//!
//! A frame is the length of the rest (u32, little-endian), the version (one byte), one message.
//! Enums are only appended to.

use keelboat_engine::{AttemptId, TaskId};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

/// The version of all messages below.
pub(crate) const WIRE_VERSION: u8 = 3;

/// The largest frame, in bytes: more than any command line that Linux would run.
pub(crate) const FRAME_BYTES_MAX: usize = 16 << 20;

const HEADER_BYTES: usize = 4;

/// An attempt.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub(crate) struct Key {
    pub(crate) task: u32,
    pub(crate) ordinal: u32,
}

/// From the engine to the warden.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Request {
    /// The first message.
    Hello(Hello),
    Begin(Begin),
    Kill(Key),
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Hello {
    /// The engine's token.
    pub(crate) token: String,
    /// What comes before the attempt in each mark.
    pub(crate) mark_prefix: Vec<u8>,
}

/// An attempt to start. Paths are raw bytes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Begin {
    pub(crate) key: Key,
    pub(crate) argv: Vec<String>,
    pub(crate) directory: Vec<u8>,
    pub(crate) env: Vec<(String, String)>,
    pub(crate) stdout: Vec<u8>,
    pub(crate) stderr: Vec<u8>,
    pub(crate) timeout_ms: Option<u64>,
    pub(crate) grace_ms: u64,
    /// The most memory that its processes may have together.
    pub(crate) memory_max_bytes: Option<u64>,
    /// What is run after it, unless it ended by exit code 0; empty: nothing.
    pub(crate) cleanup: Vec<String>,
}

/// From the warden to the engine.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Report {
    /// The answer to `Hello`.
    Ready,
    Ended(Ended),
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Ended {
    pub(crate) key: Key,
    pub(crate) end: End,
    pub(crate) used: Used,
    /// Whether the kernel killed something for lack of memory while the attempt ran, where it was
    /// asked and tells.
    pub(crate) kernel_killed: Option<bool>,
}

/// How an attempt ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum End {
    Exited {
        code: i32,
    },
    Signaled {
        signal: i32,
    },
    TimedOut,
    Cancelled,
    /// It never ran.
    NotStarted {
        obstacle: Obstacle,
        errno: i32,
    },
    /// Processes of it outlived SIGKILL.
    Unkillable,
    /// Killed, since it had more memory than it may.
    OverMemory {
        used_bytes: u64,
    },
}

/// What stood in the way of a start.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Obstacle {
    Directory,
    Stdout,
    Stderr,
    Program,
}

/// What an attempt used.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub(crate) struct Used {
    pub(crate) wall_us: u64,
    pub(crate) cpu_user_us: u64,
    pub(crate) cpu_system_us: u64,
    pub(crate) memory_max_bytes: u64,
    pub(crate) read_bytes: u64,
    pub(crate) written_bytes: u64,
}

impl From<AttemptId> for Key {
    fn from(attempt: AttemptId) -> Self {
        Self { task: attempt.task.0, ordinal: attempt.ordinal }
    }
}

impl From<Key> for AttemptId {
    fn from(key: Key) -> Self {
        Self { task: TaskId(key.task), ordinal: key.ordinal }
    }
}

impl std::fmt::Display for Key {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        AttemptId::from(*self).fmt(f)
    }
}

/// A message that cannot be sent or understood.
#[derive(Debug, thiserror::Error)]
pub(crate) enum WireError {
    #[error("message of {bytes} bytes is too long: expected at most {FRAME_BYTES_MAX}")]
    TooLong { bytes: usize },
    #[error("message of version {found}: expected {WIRE_VERSION}")]
    Version { found: u8 },
    #[error("message cannot be read: {0}")]
    Malformed(#[from] postcard::Error),
}

/// Appends one frame.
pub(crate) fn append<T: Serialize>(message: &T, buffer: &mut Vec<u8>) -> Result<(), WireError> {
    let start = buffer.len();
    buffer.extend_from_slice(&[0; HEADER_BYTES]);
    buffer.push(WIRE_VERSION);
    let result = postcard::serialize_with_flavor(message, Extend(buffer));
    let bytes = buffer.len() - start - HEADER_BYTES;
    let length = u32::try_from(bytes).ok().filter(|_| bytes <= FRAME_BYTES_MAX);
    match (result, length) {
        (Ok(()), Some(length)) => {
            buffer[start..start + HEADER_BYTES].copy_from_slice(&length.to_le_bytes());
            Ok(())
        }
        (result, _) => {
            buffer.truncate(start);
            result?;
            Err(WireError::TooLong { bytes })
        }
    }
}

/// Serializes to the end of a buffer, without one in between.
struct Extend<'a>(&'a mut Vec<u8>);

impl postcard::ser_flavors::Flavor for Extend<'_> {
    type Output = ();

    fn try_push(&mut self, byte: u8) -> postcard::Result<()> {
        self.0.push(byte);
        Ok(())
    }

    fn try_extend(&mut self, bytes: &[u8]) -> postcard::Result<()> {
        self.0.extend_from_slice(bytes);
        Ok(())
    }

    fn finalize(self) -> postcard::Result<()> {
        Ok(())
    }
}

/// Bytes that came, cut into messages.
#[derive(Debug, Default)]
pub(crate) struct Inbox {
    bytes: Vec<u8>,
    taken: usize,
}

impl Inbox {
    /// The next bytes of the stream.
    pub(crate) fn push(&mut self, bytes: &[u8]) {
        self.bytes.drain(..std::mem::take(&mut self.taken));
        self.bytes.extend_from_slice(bytes);
    }

    /// The next message, when all of it is here.
    pub(crate) fn next<T: DeserializeOwned>(&mut self) -> Result<Option<T>, WireError> {
        let rest = &self.bytes[self.taken..];
        let Some((header, rest)) = rest.split_first_chunk::<HEADER_BYTES>() else {
            return Ok(None);
        };
        let length = u32::from_le_bytes(*header) as usize;
        if length > FRAME_BYTES_MAX {
            return Err(WireError::TooLong { bytes: length });
        }
        let Some(frame) = rest.get(..length) else { return Ok(None) };
        self.taken += HEADER_BYTES + length;
        match frame.split_first() {
            Some((&WIRE_VERSION, message)) => Ok(Some(postcard::from_bytes(message)?)),
            version => {
                Err(WireError::Version { found: version.map_or(0, |(version, _)| *version) })
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn begin() -> Request {
        Request::Begin(Begin {
            key: Key { task: 1, ordinal: 2 },
            argv: vec!["sh".into(), "-c".into(), ":".into()],
            directory: b"/s".to_vec(),
            env: vec![("A".into(), "b".into())],
            stdout: b"o".to_vec(),
            stderr: b"e".to_vec(),
            timeout_ms: Some(300),
            grace_ms: 5,
            memory_max_bytes: Some(2),
            cleanup: vec!["rm".into()],
        })
    }

    fn ended() -> Report {
        let used = Used { wall_us: 1, memory_max_bytes: 300, ..Used::default() };
        let end = End::NotStarted { obstacle: Obstacle::Program, errno: 2 };
        let key = Key { task: 1, ordinal: 2 };
        Report::Ended(Ended { key, end, used, kernel_killed: Some(true) })
    }

    #[test]
    fn version_3_is_these_bytes() {
        let mut bytes = Vec::new();
        append(&begin(), &mut bytes).unwrap();
        let golden = b"\x23\0\0\0\x03\x01\x01\x02\x03\x02sh\x02-c\x01:\x02/s\x01\x01A\x01b\x01o\x01e\x01\xac\x02\x05\x01\x02\x01\x02rm";
        assert_eq!(bytes.escape_ascii().to_string(), golden.escape_ascii().to_string());
        bytes.clear();
        append(&ended(), &mut bytes).unwrap();
        let golden = b"\x10\0\0\0\x03\x01\x01\x02\x04\x03\x04\x01\0\0\xac\x02\0\0\x01\x01";
        assert_eq!(bytes.escape_ascii().to_string(), golden.escape_ascii().to_string());
    }

    #[test]
    fn messages_come_whole_however_the_bytes_are_cut() {
        let mut bytes = Vec::new();
        let requests = [begin(), Request::Kill(Key { task: 9, ordinal: 1 }), begin()];
        for request in &requests {
            append(request, &mut bytes).unwrap();
        }
        for size in 1..bytes.len() {
            let mut inbox = Inbox::default();
            let mut seen = Vec::new();
            for chunk in bytes.chunks(size) {
                inbox.push(chunk);
                while let Some(request) = inbox.next::<Request>().unwrap() {
                    seen.push(request);
                }
            }
            assert_eq!(seen, requests, "in pieces of {size}");
        }
    }

    #[test]
    fn other_versions_and_absurd_lengths_are_refused() {
        let mut inbox = Inbox::default();
        inbox.push(&[2, 0, 0, 0, 9, 0]);
        assert!(matches!(inbox.next::<Report>(), Err(WireError::Version { found: 9 })));
        let mut inbox = Inbox::default();
        inbox.push(&u32::MAX.to_le_bytes());
        assert!(matches!(inbox.next::<Report>(), Err(WireError::TooLong { .. })));
        let long =
            Request::Hello(Hello { token: "x".repeat(FRAME_BYTES_MAX), mark_prefix: Vec::new() });
        let mut bytes = vec![7];
        assert!(matches!(append(&long, &mut bytes), Err(WireError::TooLong { .. })));
        assert_eq!(bytes, [7]);
    }
}
