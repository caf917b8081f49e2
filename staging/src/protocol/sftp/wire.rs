//! Packets of SFTP version 3 (draft-ietf-secsh-filexfer-02) with OpenSSH's extensions.
//!
//! Names and handles are bytes here, as they are on the wire: a client that takes them for text
//! cannot open what is called otherwise, and loses handles of servers that count in binary.

use std::time::{Duration, SystemTime};

use tokio_util::bytes::{Buf, BufMut, Bytes, BytesMut};

use crate::protocol::TransferError;

const INIT: u8 = 1;
const VERSION: u8 = 2;
const OPEN: u8 = 3;
const CLOSE: u8 = 4;
const READ: u8 = 5;
const WRITE: u8 = 6;
const LSTAT: u8 = 7;
const FSTAT: u8 = 8;
const FSETSTAT: u8 = 10;
const OPENDIR: u8 = 11;
const READDIR: u8 = 12;
const REMOVE: u8 = 13;
const MKDIR: u8 = 14;
const RMDIR: u8 = 15;
const STAT: u8 = 17;
const RENAME: u8 = 18;
const STATUS: u8 = 101;
const HANDLE: u8 = 102;
const DATA: u8 = 103;
const NAME: u8 = 104;
const ATTRS: u8 = 105;
const EXTENDED: u8 = 200;
const EXTENDED_REPLY: u8 = 201;

const HAS_SIZE: u32 = 1;
const HAS_OWNER: u32 = 2;
const HAS_MODE: u32 = 4;
const HAS_TIMES: u32 = 8;
const HAS_EXTENDED: u32 = 0x8000_0000;

/// Of the mode: what kind of file it is.
const KIND_MASK: u32 = 0o170_000;
const KIND_FILE: u32 = 0o100_000;
const KIND_DIRECTORY: u32 = 0o040_000;

/// The longest packet that is taken. Servers send at most 256 KiB.
const PACKET_BYTES_MAX: usize = 1 << 20;

/// Length, type and number of a packet.
const HEAD_BYTES: usize = 9;

pub(super) const OK: u32 = 0;
pub(super) const EOF: u32 = 1;

/// How a file is opened.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Mode {
    Read,
    /// For writing; it is made if it is not there, and keeps what it has.
    Continue,
    /// For writing; it is made if it is not there, and empty then.
    Truncate,
}

impl Mode {
    const fn flags(self) -> u32 {
        const READ: u32 = 1;
        const WRITE: u32 = 2;
        const CREATE: u32 = 8;
        const TRUNCATE: u32 = 16;
        match self {
            Self::Read => READ,
            Self::Continue => WRITE | CREATE,
            Self::Truncate => WRITE | CREATE | TRUNCATE,
        }
    }
}

/// A packet on its way out, without its number.
#[derive(Debug)]
pub(super) struct Request(BytesMut);

impl Request {
    fn new(kind: u8, bytes: usize) -> Self {
        let mut packet = BytesMut::with_capacity(HEAD_BYTES + bytes);
        packet.put_u32(0);
        packet.put_u8(kind);
        packet.put_u32(0);
        Self(packet)
    }

    fn of(kind: u8, text: &[u8]) -> Self {
        Self::new(kind, 4 + text.len()).text(text)
    }

    fn text(mut self, text: &[u8]) -> Self {
        self.0.put_u32(length_of(text));
        self.0.put_slice(text);
        self
    }

    fn int(mut self, value: u32) -> Self {
        self.0.put_u32(value);
        self
    }

    fn long(mut self, value: u64) -> Self {
        self.0.put_u64(value);
        self
    }

    /// The packet with this number.
    pub(super) fn numbered(mut self, id: u32) -> Bytes {
        let length = length_of(&self.0) - 4;
        let (head, _) = self.0.split_at_mut(HEAD_BYTES);
        head[..4].copy_from_slice(&length.to_be_bytes());
        head[5..].copy_from_slice(&id.to_be_bytes());
        self.0.freeze()
    }

    pub(super) fn open(path: &[u8], mode: Mode, permissions: Option<u32>) -> Self {
        let request = Self::new(OPEN, path.len() + 16).text(path).int(mode.flags());
        match permissions {
            Some(permissions) => request.int(HAS_MODE).int(permissions),
            None => request.int(0),
        }
    }

    pub(super) fn close(handle: &[u8]) -> Self {
        Self::of(CLOSE, handle)
    }

    pub(super) fn read(handle: &[u8], offset: u64, bytes: u32) -> Self {
        Self::new(READ, handle.len() + 16).text(handle).long(offset).int(bytes)
    }

    pub(super) fn write(handle: &[u8], offset: u64, data: &[u8]) -> Self {
        Self::new(WRITE, handle.len() + 16 + data.len()).text(handle).long(offset).text(data)
    }

    /// What the name itself is: a link is a link.
    pub(super) fn lstat(path: &[u8]) -> Self {
        Self::of(LSTAT, path)
    }

    /// What the name leads to.
    pub(super) fn stat(path: &[u8]) -> Self {
        Self::of(STAT, path)
    }

    pub(super) fn fstat(handle: &[u8]) -> Self {
        Self::of(FSTAT, handle)
    }

    pub(super) fn set_permissions(handle: &[u8], permissions: u32) -> Self {
        Self::of(FSETSTAT, handle).int(HAS_MODE).int(permissions)
    }

    pub(super) fn opendir(path: &[u8]) -> Self {
        Self::of(OPENDIR, path)
    }

    pub(super) fn readdir(handle: &[u8]) -> Self {
        Self::of(READDIR, handle)
    }

    pub(super) fn remove(path: &[u8]) -> Self {
        Self::of(REMOVE, path)
    }

    pub(super) fn mkdir(path: &[u8]) -> Self {
        Self::of(MKDIR, path).int(0)
    }

    pub(super) fn rmdir(path: &[u8]) -> Self {
        Self::of(RMDIR, path)
    }

    pub(super) fn rename(from: &[u8], to: &[u8]) -> Self {
        Self::of(RENAME, from).text(to)
    }

    /// Renames in the place of what has the name.
    pub(super) fn posix_rename(from: &[u8], to: &[u8]) -> Self {
        Self::of(EXTENDED, b"posix-rename@openssh.com").text(from).text(to)
    }

    pub(super) fn fsync(handle: &[u8]) -> Self {
        Self::of(EXTENDED, b"fsync@openssh.com").text(handle)
    }

    pub(super) fn limits() -> Self {
        Self::of(EXTENDED, b"limits@openssh.com")
    }

    /// How full the file system is that a path is on.
    pub(super) fn statvfs(path: &[u8]) -> Self {
        Self::of(EXTENDED, b"statvfs@openssh.com").text(path)
    }
}

/// No text here is longer than memory for it was found, and none is near 4 GiB.
fn length_of(bytes: &[u8]) -> u32 {
    u32::try_from(bytes.len()).unwrap_or(u32::MAX)
}

/// The first packet of a session: our version.
pub(super) fn hello() -> Bytes {
    Bytes::from_static(&[0, 0, 0, 5, INIT, 0, 0, 0, 3])
}

/// What a server may do beyond version 3.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Extension {
    PosixRename,
    Fsync,
    Limits,
    Statvfs,
}

/// What a server says that it can, in its first packet.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Offers(Vec<Extension>);

impl Offers {
    pub(super) fn has(&self, extension: Extension) -> bool {
        self.0.contains(&extension)
    }
}

/// Reads the first packet of a server.
pub(super) fn welcome(mut packet: Bytes) -> Result<Offers, TransferError> {
    if get_u8(&mut packet)? != VERSION {
        return Err(malformed("the server does not begin with its version"));
    }
    let version = get_u32(&mut packet)?;
    if version < 3 {
        return Err(TransferError::Refused {
            found: format!("the server speaks version {version} of SFTP"),
            hint: "version 3 is needed: use another server, or another scheme".into(),
        });
    }
    let mut offers = Offers::default();
    while packet.has_remaining() {
        let name = get_bytes(&mut packet)?;
        get_bytes(&mut packet)?;
        match &*name {
            b"posix-rename@openssh.com" => offers.0.push(Extension::PosixRename),
            b"fsync@openssh.com" => offers.0.push(Extension::Fsync),
            b"limits@openssh.com" => offers.0.push(Extension::Limits),
            b"statvfs@openssh.com" => offers.0.push(Extension::Statvfs),
            _ => {}
        }
    }
    Ok(offers)
}

/// An answer.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Reply {
    Status { code: u32, message: String },
    Handle(Bytes),
    Data(Bytes),
    Names(Vec<Name>),
    Attributes(Attributes),
    Extended(Bytes),
}

/// One name of a directory.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Name {
    pub(super) name: Bytes,
    pub(super) attributes: Attributes,
}

/// What a server says of a file.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Attributes {
    pub(super) size: Option<u64>,
    pub(super) mode: Option<u32>,
    /// Seconds since 1970.
    pub(super) modified: Option<u32>,
}

impl Attributes {
    fn is(&self, kind: u32) -> bool {
        self.mode.is_some_and(|mode| mode & KIND_MASK == kind)
    }

    pub(super) fn is_file(&self) -> bool {
        self.is(KIND_FILE)
    }

    pub(super) fn modified_at(&self) -> Option<SystemTime> {
        let seconds = u64::from(self.modified?);
        SystemTime::UNIX_EPOCH.checked_add(Duration::from_secs(seconds))
    }

    pub(super) fn is_directory(&self) -> bool {
        self.is(KIND_DIRECTORY)
    }
}

/// Takes one whole packet off the front of what came, without its length; `None`: more must come.
pub(super) fn split(buffer: &mut BytesMut) -> Result<Option<Bytes>, TransferError> {
    let Some(head) = buffer.first_chunk::<4>() else { return Ok(None) };
    let length = usize::try_from(u32::from_be_bytes(*head)).unwrap_or(usize::MAX);
    if length > PACKET_BYTES_MAX {
        // A shell's greeting in the place of a packet is a usual mistake of set-up.
        return Err(malformed(&format!(
            "a packet of {length} bytes (does the account's shell print something at login?)"
        )));
    }
    if buffer.len() < 4 + length {
        buffer.reserve(4 + length - buffer.len());
        return Ok(None);
    }
    buffer.advance(4);
    Ok(Some(buffer.split_to(length).freeze()))
}

/// Reads an answer and its number.
pub(super) fn parse(mut packet: Bytes) -> Result<(u32, Reply), TransferError> {
    let kind = get_u8(&mut packet)?;
    let id = get_u32(&mut packet)?;
    let reply = match kind {
        STATUS => {
            let code = get_u32(&mut packet)?;
            // Old servers send no message.
            let message = get_bytes(&mut packet).unwrap_or_default();
            Reply::Status { code, message: String::from_utf8_lossy(&message).into_owned() }
        }
        HANDLE => Reply::Handle(get_bytes(&mut packet)?),
        DATA => Reply::Data(get_bytes(&mut packet)?),
        NAME => Reply::Names(get_names(&mut packet)?),
        ATTRS => Reply::Attributes(get_attributes(&mut packet)?),
        EXTENDED_REPLY => Reply::Extended(packet),
        other => return Err(malformed(&format!("an answer of type {other}"))),
    };
    Ok((id, reply))
}

/// The data in the first part of a packet that answers a request, if it holds any.
pub(super) fn begun_data(mut packet: Bytes, id: u32) -> Option<Bytes> {
    let _length = get_u32(&mut packet).ok()?;
    let kind = get_u8(&mut packet).ok()?;
    let answered = get_u32(&mut packet).ok()?;
    let _bytes = get_u32(&mut packet).ok()?;
    (kind == DATA && answered == id && packet.has_remaining()).then_some(packet)
}

/// The longest read and the longest write that a server allows; 0: it does not say.
pub(super) fn read_limits(mut reply: Bytes) -> Result<(u64, u64), TransferError> {
    let _packet_max = get_u64(&mut reply)?;
    Ok((get_u64(&mut reply)?, get_u64(&mut reply)?))
}

/// Bytes that an ordinary user can still write, from the answer to [`Request::statvfs`].
pub(super) fn free_bytes(mut reply: Bytes) -> Result<u64, TransferError> {
    let _block_size = get_u64(&mut reply)?;
    let fragment_size = get_u64(&mut reply)?;
    let _blocks = get_u64(&mut reply)?;
    let _blocks_free = get_u64(&mut reply)?;
    Ok(fragment_size.saturating_mul(get_u64(&mut reply)?))
}

fn get_names(packet: &mut Bytes) -> Result<Vec<Name>, TransferError> {
    let count = get_u32(packet)?;
    // The count is only believed as far as there are bytes for it.
    let mut names = Vec::new();
    for _ in 0..count {
        let name = get_bytes(packet)?;
        let _for_people = get_bytes(packet)?;
        names.push(Name { name, attributes: get_attributes(packet)? });
    }
    Ok(names)
}

fn get_attributes(packet: &mut Bytes) -> Result<Attributes, TransferError> {
    let flags = get_u32(packet)?;
    let mut attributes = Attributes::default();
    if flags & HAS_SIZE != 0 {
        attributes.size = Some(get_u64(packet)?);
    }
    if flags & HAS_OWNER != 0 {
        get_u64(packet)?;
    }
    if flags & HAS_MODE != 0 {
        attributes.mode = Some(get_u32(packet)?);
    }
    if flags & HAS_TIMES != 0 {
        let _accessed = get_u32(packet)?;
        attributes.modified = Some(get_u32(packet)?);
    }
    if flags & HAS_EXTENDED != 0 {
        for _ in 0..get_u32(packet)? {
            get_bytes(packet)?;
            get_bytes(packet)?;
        }
    }
    Ok(attributes)
}

fn get_bytes(packet: &mut Bytes) -> Result<Bytes, TransferError> {
    let length = usize::try_from(get_u32(packet)?).unwrap_or(usize::MAX);
    if packet.remaining() < length {
        return Err(malformed("a packet that ends too early"));
    }
    Ok(packet.split_to(length))
}

fn get_u8(packet: &mut Bytes) -> Result<u8, TransferError> {
    packet.try_get_u8().map_err(|_short| malformed("a packet that ends too early"))
}

fn get_u32(packet: &mut Bytes) -> Result<u32, TransferError> {
    packet.try_get_u32().map_err(|_short| malformed("a packet that ends too early"))
}

fn get_u64(packet: &mut Bytes) -> Result<u64, TransferError> {
    packet.try_get_u64().map_err(|_short| malformed("a packet that ends too early"))
}

pub(super) fn malformed(found: &str) -> TransferError {
    TransferError::Malformed { found: format!("expected an SFTP packet, found {found}") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_have_their_length_and_number() {
        let packet = Request::read(b"h", 5, 7).numbered(9);
        let expected =
            [0, 0, 0, 22, READ, 0, 0, 0, 9, 0, 0, 0, 1, b'h', 0, 0, 0, 0, 0, 0, 0, 5, 0, 0, 0, 7];
        assert_eq!(&*packet, expected);
    }

    #[test]
    fn packets_are_taken_when_they_are_whole() {
        let whole = Request::fstat(b"abc").numbered(1);
        let mut buffer = BytesMut::new();
        for byte in whole.iter().take(whole.len() - 1) {
            buffer.put_u8(*byte);
            assert_eq!(split(&mut buffer), Ok(None));
        }
        buffer.put_slice(&whole[whole.len() - 1..]);
        assert_eq!(split(&mut buffer).unwrap().unwrap(), whole[4..]);
        assert!(buffer.is_empty());
        let mut greeting = BytesMut::from(&b"Welcome!"[..]);
        assert!(split(&mut greeting).unwrap_err().to_string().contains("at login"));
    }

    #[test]
    fn data_that_was_cut_is_data() {
        let packet = Bytes::from_static(b"\0\0\0\x0ag\0\0\0\x05\0\0\0\x05abc");
        assert_eq!(begun_data(packet.clone(), 5).as_deref(), Some(&b"abc"[..]));
        assert_eq!(begun_data(packet.clone(), 6), None);
        assert_eq!(begun_data(packet.slice(..13), 5), None);
        assert_eq!(begun_data(packet.slice(..7), 5), None);
    }

    #[test]
    fn attributes_are_read_past_what_is_unknown() {
        let mut packet = BytesMut::new();
        packet.put_u8(ATTRS);
        packet.put_u32(3);
        packet.put_u32(HAS_SIZE | HAS_OWNER | HAS_MODE | HAS_TIMES | HAS_EXTENDED);
        packet.put_u64(1 << 33);
        packet.put_u64(0);
        packet.put_u32(0o100_644);
        packet.put_u32(1);
        packet.put_u32(2);
        packet.put_u32(1);
        packet.put_slice(b"\0\0\0\x01a\0\0\0\x01b");
        let (id, reply) = parse(packet.freeze()).unwrap();
        let expected = Attributes { size: Some(1 << 33), mode: Some(0o100_644), modified: Some(2) };
        assert_eq!((id, reply), (3, Reply::Attributes(expected)));
        assert!(expected.is_file() && !expected.is_directory());
    }

    #[test]
    fn no_packet_makes_it_panic_or_take_much_memory() {
        let mut seed = 7_u64;
        for _ in 0..20_000 {
            let mut bytes = Vec::new();
            for _ in 0..40 {
                seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
                bytes.push(u8::try_from(seed >> 56).unwrap());
            }
            bytes[0] = 101 + bytes[0] % 5;
            // Small numbers get further than those that are refused at once.
            for at in [5, 6, 7, 9, 10, 11] {
                bytes[at] &= 1;
            }
            let packet = Bytes::from(bytes);
            drop(parse(packet.clone()));
            drop(welcome(packet));
        }
        let many = Bytes::from_static(&[NAME, 0, 0, 0, 1, 255, 255, 255, 255]);
        assert!(parse(many).is_err());
    }
}
