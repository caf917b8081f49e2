//! A wrapper that makes any protocol fail as planned.

use std::collections::VecDeque;
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use keelboat_staging::{
    BoxFuture, ByteStream, Entry, ListRequest, OpenRequest, Opened, Protocol, TransferError,
};
use tokio_util::bytes::Bytes;

type Hook = Box<dyn FnOnce() + Send>;

/// What happens to one opening.
pub(crate) enum Fault {
    /// The stream is cut after this many bytes, and then something is done.
    Cut(u64, Hook),
    /// Nothing comes after this many bytes.
    Stall(u64),
}

impl Fault {
    /// A cut, and nothing else.
    pub(crate) fn cut(bytes: u64) -> Self {
        Self::Cut(bytes, Box::new(|| {}))
    }
}

/// Applies one fault to each opening, in order; later openings are left alone.
pub(crate) struct Flaky {
    inner: Arc<dyn Protocol>,
    faults: Mutex<VecDeque<Fault>>,
    count: Arc<Mutex<Count>>,
}

/// How often files were opened.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Count {
    pub(crate) in_all: usize,
    /// Openings whose streams are not dropped yet.
    pub(crate) open: usize,
    /// The most that were open at one time.
    pub(crate) at_once: usize,
}

impl Flaky {
    /// Around a plain protocol.
    pub(crate) fn new(inner: Arc<dyn Protocol>, faults: Vec<Fault>) -> Self {
        Self { inner, faults: Mutex::new(faults.into()), count: Arc::default() }
    }

    pub(crate) fn count(&self) -> Count {
        *lock(&self.count)
    }
}

impl fmt::Debug for Flaky {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Flaky")
    }
}

impl Protocol for Flaky {
    fn schemes(&self) -> &[&'static str] {
        self.inner.schemes()
    }

    fn open<'a>(
        &'a self,
        request: &'a OpenRequest,
    ) -> BoxFuture<'a, Result<Opened, TransferError>> {
        Box::pin(async move {
            let fault = lock(&self.faults).pop_front();
            let counted = Counted::begin(&self.count);
            Ok(match self.inner.open(request).await? {
                Opened::Unchanged => Opened::Unchanged,
                Opened::Body { metadata, offset, stream } => {
                    let stream =
                        Box::new(FlakyStream { stream, passed: 0, fault, _counted: counted });
                    Opened::Body { metadata, offset, stream }
                }
            })
        })
    }

    fn list<'a>(
        &'a self,
        request: &'a ListRequest,
    ) -> BoxFuture<'a, Result<Vec<Entry>, TransferError>> {
        self.inner.list(request)
    }
}

fn lock<T>(shared: &Mutex<T>) -> MutexGuard<'_, T> {
    shared.lock().unwrap_or_else(PoisonError::into_inner)
}

/// One opening, until its stream is dropped.
struct Counted(Arc<Mutex<Count>>);

impl Counted {
    fn begin(shared: &Arc<Mutex<Count>>) -> Self {
        let mut count = lock(shared);
        count.in_all += 1;
        count.open += 1;
        count.at_once = count.at_once.max(count.open);
        Self(Arc::clone(shared))
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        lock(&self.0).open -= 1;
    }
}

struct FlakyStream {
    stream: Box<dyn ByteStream>,
    passed: u64,
    fault: Option<Fault>,
    _counted: Counted,
}

impl ByteStream for FlakyStream {
    fn next(&mut self) -> BoxFuture<'_, Result<Option<Bytes>, TransferError>> {
        Box::pin(async move {
            let limit = match &self.fault {
                None => u64::MAX,
                Some(Fault::Cut(bytes, _) | Fault::Stall(bytes)) => *bytes,
            };
            if self.passed >= limit {
                if let Some(Fault::Cut(_, hook)) = self.fault.take() {
                    hook();
                    return Err(TransferError::Cut { received: self.passed, expected: None });
                }
                std::future::pending::<()>().await;
            }
            let Some(mut piece) = self.stream.next().await? else { return Ok(None) };
            let room = usize::try_from(limit - self.passed).unwrap_or(usize::MAX);
            piece.truncate(room);
            self.passed += piece.len() as u64;
            Ok(Some(piece))
        })
    }
}
