//! The port for protocols: open a file that is elsewhere, at an offset, under a condition; list a
//! directory; write a file.
//!
//! An implementation moves bytes and says truthfully what it was told; it does not retry, limit,
//! time or verify. Those are wrappers: [`Deadlined`], [`Verified`], [`Throttled`]. Services that
//! move whole files by themselves have a port of their own, [`Courier`].

mod bucket;
mod connect;
mod courier;
mod data;
mod deadlined;
mod error;
mod file;
mod ftp;
mod http;
mod listing;
mod parallel;
mod put;
mod sftp;
mod throttled;
mod verified;
mod written;

use std::fmt;
use std::pin::Pin;
use std::sync::Arc;

use keelboat_engine::Kind;
use tokio_util::bytes::Bytes;

pub use bucket::BucketProtocol;
pub use courier::{Courier, Errand};
pub use data::DataProtocol;
pub use deadlined::Deadlined;
pub use error::{Fault, TransferError};
pub use file::FileProtocol;
pub(crate) use file::local_path;
pub use ftp::{FtpConfig, FtpProtocol};
pub(crate) use http::answer::{describe, send_error};
pub(crate) use http::client_builder;
pub(crate) use http::headers::retry_after;
pub use http::{AddressPolicy, HttpConfig, HttpProtocol};
pub use listing::{Depth, Entry, ListRequest};
pub use parallel::{Parallel, Spreading};
pub use put::{Proof, PutRequest, Renamed, Sent, Writing};
pub use sftp::{SftpConfig, SftpProtocol};
pub use throttled::Throttled;
pub use verified::Verified;

use crate::address::Address;
use crate::gate::Turn;

/// A future on the heap, so that traits with async methods can be objects.
pub type BoxFuture<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// A way to read, list and write files that are elsewhere.
///
/// Every implementation passes the conformance suite in `tests/`: a new protocol is done then.
/// What an implementation cannot do it leaves to the answers given here, which say so.
pub trait Protocol: fmt::Debug + Send + Sync {
    /// The lower-case schemes that it serves.
    fn schemes(&self) -> &[&'static str];

    /// Opens one file.
    ///
    /// Dropping the future or the stream ends the transfer and frees what it held.
    ///
    /// # Errors
    /// A [`TransferError`] that says whether another try makes sense.
    fn open<'a>(&'a self, request: &'a OpenRequest)
    -> BoxFuture<'a, Result<Opened, TransferError>>;

    /// Says what is below a directory, in no particular order.
    ///
    /// # Errors
    /// A [`TransferError`]; [`TransferError::Missing`] when there is no such directory.
    fn list<'a>(
        &'a self,
        request: &'a ListRequest,
    ) -> BoxFuture<'a, Result<Vec<Entry>, TransferError>> {
        let scheme = crate::address::scheme_of(&request.address);
        Box::pin(async move { Err(TransferError::cannot_list(&scheme)) })
    }

    /// What has a name: a file, a directory, or nothing. A link is what it leads to. Asked only of
    /// protocols with [`Writing::Renamed`].
    ///
    /// # Errors
    /// A [`TransferError`]: nobody can tell.
    fn kind<'a>(&'a self, address: &'a str) -> BoxFuture<'a, Result<Option<Kind>, TransferError>> {
        let scheme = crate::address::scheme_of(address);
        Box::pin(async move { Err(TransferError::cannot_write(&scheme)) })
    }

    /// How files come to be there.
    fn writing(&self) -> Writing {
        Writing::Never
    }

    /// Writes a local file to its address, with the directories above it.
    ///
    /// # Errors
    /// A [`TransferError`]; what was written by then is left where only this protocol sees it, or
    /// under the name given, when that is [`Writing::Renamed`].
    fn put<'a>(&'a self, request: &'a PutRequest) -> BoxFuture<'a, Result<Proof, TransferError>> {
        let scheme = crate::address::scheme_of(&request.address);
        Box::pin(async move { Err(TransferError::cannot_write(&scheme)) })
    }

    /// Makes a directory, with those above it; one that is there is no error. Asked only of protocols
    /// with [`Writing::Renamed`].
    ///
    /// # Errors
    /// A [`TransferError`].
    fn make_directory<'a>(&'a self, address: &'a str) -> BoxFuture<'a, Result<(), TransferError>> {
        let scheme = crate::address::scheme_of(address);
        Box::pin(async move { Err(TransferError::cannot_write(&scheme)) })
    }

    /// Gives a file or a directory another name on the same server: one that is free, or that of a
    /// file which the server replaces by a file in one step. Nothing else is ever removed for it.
    /// Asked only of protocols with [`Writing::Renamed`].
    ///
    /// # Errors
    /// A [`TransferError`]; both names are as they were, unless only the answer was lost.
    fn rename<'a>(
        &'a self,
        from: &'a str,
        _to: &'a str,
    ) -> BoxFuture<'a, Result<Renamed, TransferError>> {
        let scheme = crate::address::scheme_of(from);
        Box::pin(async move { Err(TransferError::cannot_write(&scheme)) })
    }

    /// Removes a file, or a directory with all below it. What is not there is no error.
    ///
    /// # Errors
    /// A [`TransferError`].
    fn remove<'a>(&'a self, address: &'a str) -> BoxFuture<'a, Result<(), TransferError>> {
        let scheme = crate::address::scheme_of(address);
        Box::pin(async move { Err(TransferError::cannot_write(&scheme)) })
    }
}

impl<P: Protocol + ?Sized> Protocol for Arc<P> {
    fn schemes(&self) -> &[&'static str] {
        (**self).schemes()
    }

    fn open<'a>(
        &'a self,
        request: &'a OpenRequest,
    ) -> BoxFuture<'a, Result<Opened, TransferError>> {
        (**self).open(request)
    }

    fn list<'a>(
        &'a self,
        request: &'a ListRequest,
    ) -> BoxFuture<'a, Result<Vec<Entry>, TransferError>> {
        (**self).list(request)
    }

    fn kind<'a>(&'a self, address: &'a str) -> BoxFuture<'a, Result<Option<Kind>, TransferError>> {
        (**self).kind(address)
    }

    fn writing(&self) -> Writing {
        (**self).writing()
    }

    fn put<'a>(&'a self, request: &'a PutRequest) -> BoxFuture<'a, Result<Proof, TransferError>> {
        (**self).put(request)
    }

    fn make_directory<'a>(&'a self, address: &'a str) -> BoxFuture<'a, Result<(), TransferError>> {
        (**self).make_directory(address)
    }

    fn rename<'a>(
        &'a self,
        from: &'a str,
        to: &'a str,
    ) -> BoxFuture<'a, Result<Renamed, TransferError>> {
        (**self).rename(from, to)
    }

    fn remove<'a>(&'a self, address: &'a str) -> BoxFuture<'a, Result<(), TransferError>> {
        (**self).remove(address)
    }
}

/// The bytes of one file, in order.
pub trait ByteStream: Send {
    /// The next piece, never empty; `None` at the end of what the server sent.
    ///
    /// # Errors
    /// The transfer ended before its end.
    fn next(&mut self) -> BoxFuture<'_, Result<Option<Bytes>, TransferError>>;
}

/// Which file is wanted, from where on, and when.
#[derive(Debug, Clone)]
pub struct OpenRequest {
    /// From where. It may hold secrets: show it only through [`redact`](crate::redact).
    pub address: Address,
    /// The first byte wanted. A protocol may answer from 0 instead, and says so.
    pub offset: u64,
    /// The byte after the last one wanted; `None`: up to the end of the file. A protocol may send
    /// more, and whoever reads stops there.
    pub end: Option<u64>,
    /// Under which condition.
    pub condition: Condition,
    /// How it waits for its turn: the same one for all tries of a transfer.
    pub turn: Turn,
}

/// When the bytes are wanted.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum Condition {
    /// In any case.
    #[default]
    Always,
    /// From the offset if the file is still the same one, from 0 otherwise.
    IfSame {
        /// What the server said of the file when its first bytes came.
        known: Validators,
        /// Its length in bytes, when it was known.
        length: Option<u64>,
    },
    /// Only if the file has changed; [`Opened::Unchanged`] otherwise.
    IfChanged(Validators),
}

/// What a server says to tell versions of one file apart.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Validators {
    /// The entity tag, with quotes and the prefix `W/` of a weak one.
    pub etag: Option<String>,
    /// The moment of the last change as the server writes it, byte by byte.
    pub last_modified: Option<String>,
    /// Whether `last_modified` tells versions apart to the byte (RFC 9110, section 8.8.2.2).
    pub last_modified_is_strong: bool,
}

impl Validators {
    /// The validator that proves two answers to be of the same bytes, if there is one.
    pub fn strong(&self) -> Option<&str> {
        let etag = self.etag.as_deref().filter(|tag| !tag.starts_with("W/"));
        etag.or_else(|| self.last_modified.as_deref().filter(|_| self.last_modified_is_strong))
    }

    /// Whether there is anything to compare.
    pub fn is_empty(&self) -> bool {
        self.etag.is_none() && self.last_modified.is_none()
    }

    /// Whether one of these contradicts the other; what only one of them has says nothing.
    pub fn differ(&self, other: &Self) -> bool {
        let differ = |a: &Option<String>, b: &Option<String>| a.is_some() && b.is_some() && a != b;
        differ(&self.etag, &other.etag) || differ(&self.last_modified, &other.last_modified)
    }
}

/// What the server says of the file.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Metadata {
    /// Bytes of the whole file, when known.
    pub length: Option<u64>,
    /// What tells this version from others.
    pub validators: Validators,
    /// Whether the file can be opened at an offset, as far as the server says.
    pub accepts_ranges: bool,
    /// The media type, lower case, without parameters.
    pub media_type: Option<String>,
}

/// The answer to [`Protocol::open`].
pub enum Opened {
    /// The file is the one that the condition names.
    Unchanged,
    /// Here it comes.
    Body {
        /// What the server says of it.
        metadata: Metadata,
        /// The offset of the stream's first byte: the one asked for, or 0.
        offset: u64,
        /// The bytes.
        stream: Box<dyn ByteStream>,
    },
}

impl fmt::Debug for Opened {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unchanged => f.write_str("Unchanged"),
            Self::Body { metadata, offset, .. } => f
                .debug_struct("Body")
                .field("metadata", metadata)
                .field("offset", offset)
                .finish_non_exhaustive(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn validators(etag: &str, modified: &str, strong: bool) -> Validators {
        let text = |text: &str| (!text.is_empty()).then(|| text.to_owned());
        Validators {
            etag: text(etag),
            last_modified: text(modified),
            last_modified_is_strong: strong,
        }
    }

    #[test]
    fn only_strong_validators_prove() {
        assert_eq!(validators("\"a\"", "Mon", false).strong(), Some("\"a\""));
        assert_eq!(validators("W/\"a\"", "Mon", false).strong(), None);
        assert_eq!(validators("W/\"a\"", "Mon", true).strong(), Some("Mon"));
        assert_eq!(validators("", "", true).strong(), None);
    }

    #[test]
    fn silence_is_no_contradiction() {
        let known = validators("\"a\"", "Mon", false);
        assert!(!known.differ(&validators("", "", false)));
        assert!(!known.differ(&validators("\"a\"", "", false)));
        assert!(known.differ(&validators("\"b\"", "Mon", false)));
        assert!(known.differ(&validators("\"a\"", "Tue", false)));
    }
}
