//! The port for services that move whole files by themselves, many at a time and for hours, and
//! go on with it while this process is gone.

use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;

use keelboat_engine::Kind;

use super::{BoxFuture, Entry, ListRequest, TransferError};
use crate::fetch::Progress;

/// A service that moves files by itself.
///
/// What it was asked for and has begun is written down by it before it begins, so that the same
/// errand after a crash is the same transfer, never a second one.
pub trait Courier: fmt::Debug + Send + Sync {
    /// The lower-case schemes that it serves.
    fn schemes(&self) -> &[&'static str];

    /// Brings a file or a directory to a path where nothing is yet. Errands that come together may
    /// travel together.
    ///
    /// Dropping the future gives the errand up; the service ends it when nobody else waits for the
    /// same transfer.
    ///
    /// # Errors
    /// A [`TransferError`] that says whether another try makes sense.
    fn bring<'a>(&'a self, errand: &'a Errand) -> BoxFuture<'a, Result<(), TransferError>>;

    /// Sends a file or a directory out, in the place of what is there.
    ///
    /// # Errors
    /// A [`TransferError`].
    fn send<'a>(&'a self, errand: &'a Errand) -> BoxFuture<'a, Result<(), TransferError>>;

    /// Says what is below a directory.
    ///
    /// # Errors
    /// A [`TransferError`].
    fn list<'a>(
        &'a self,
        request: &'a ListRequest,
    ) -> BoxFuture<'a, Result<Vec<Entry>, TransferError>>;

    /// A text that changes whenever the file does, when the service can say so cheaply.
    ///
    /// # Errors
    /// A [`TransferError`].
    fn version<'a>(
        &'a self,
        address: &'a str,
    ) -> BoxFuture<'a, Result<Option<String>, TransferError>>;
}

/// One file or directory to be moved.
#[derive(Clone)]
pub struct Errand {
    /// The remote side. It may hold secrets.
    pub address: Arc<str>,
    /// The side of this machine.
    pub local: PathBuf,
    /// File or directory.
    pub kind: Kind,
    /// Who wants to see it advance.
    pub progress: Option<Arc<dyn Progress>>,
}

impl fmt::Debug for Errand {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let address = crate::redact(&self.address);
        let mut debug = f.debug_struct("Errand");
        debug.field("address", &address).field("local", &self.local).field("kind", &self.kind);
        debug.finish_non_exhaustive()
    }
}
