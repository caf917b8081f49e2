//! A wrapper that makes any protocol write as planned.

use std::collections::VecDeque;
use std::fmt;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::Poll;
use std::time::{Duration, Instant};

use keelboat_engine::Kind;
use keelboat_staging::{
    BoxFuture, Entry, ListRequest, OpenRequest, Opened, Proof, Protocol, PutRequest, Renamed,
    TransferError, Writing,
};

/// What happens to one writing.
#[derive(Debug, Clone, Copy)]
pub(crate) enum PutFault {
    /// It is given up after so many bytes, at the latest when its answer comes.
    Cut(u64),
    /// Other bytes arrive than were sent, and nobody notices.
    Damage,
}

/// What happens to one renaming.
#[derive(Debug, Clone, Copy)]
pub(crate) enum RenameFault {
    None,
    /// It is refused for good.
    Forbidden,
    /// It is done, and the answer does not arrive.
    AnswerLost,
}

/// Applies one fault to each writing, in order; later ones are left alone. So with renamings.
#[derive(Debug)]
pub(crate) struct Faulty {
    inner: Arc<dyn Protocol>,
    faults: Mutex<VecDeque<PutFault>>,
    rename_faults: Mutex<VecDeque<RenameFault>>,
    blind_looks: AtomicUsize,
    puts: AtomicUsize,
    slowest: Mutex<Duration>,
    before_rename: Option<Hook>,
}

/// Is called when something is about to be renamed.
struct Hook(Box<dyn Fn() + Send + Sync>);

impl fmt::Debug for Hook {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Hook")
    }
}

impl Faulty {
    /// Around a plain protocol.
    pub(crate) fn new(inner: Arc<dyn Protocol>, faults: Vec<PutFault>) -> Self {
        let (faults, puts) = (Mutex::new(faults.into()), AtomicUsize::new(0));
        let (rename_faults, blind_looks) = (Mutex::default(), AtomicUsize::new(0));
        let (slowest, before_rename) = (Mutex::default(), None);
        Self { inner, faults, rename_faults, blind_looks, puts, slowest, before_rename }
    }

    /// With something that happens once all is written, before it is renamed.
    pub(crate) fn before_rename(mut self, hook: impl Fn() + Send + Sync + 'static) -> Self {
        self.before_rename = Some(Hook(Box::new(hook)));
        self
    }

    /// With these faults of the next renamings.
    pub(crate) fn fail_renames(&self, faults: &[RenameFault]) {
        let mut ours = self.rename_faults.lock().unwrap_or_else(PoisonError::into_inner);
        ours.extend(faults);
    }

    /// The connection breaks at the next so many looks at what has a name.
    pub(crate) fn fail_looks(&self, looks: usize) {
        self.blind_looks.store(looks, Ordering::SeqCst);
    }

    /// How long the slowest writing took.
    pub(crate) fn slowest(&self) -> Duration {
        *self.slowest.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Writings so far.
    pub(crate) fn puts(&self) -> usize {
        self.puts.load(Ordering::SeqCst)
    }

    async fn cut(&self, request: &PutRequest, bytes: u64) -> Result<Proof, TransferError> {
        let mut put = self.inner.put(request);
        std::future::poll_fn(|context| match put.as_mut().poll(context) {
            Poll::Ready(Err(error)) => Poll::Ready(Err(error)),
            Poll::Pending if request.sent.get() < bytes => Poll::Pending,
            _ => Poll::Ready(Err(TransferError::Cut {
                received: request.sent.get(),
                expected: Some(request.content.bytes),
            })),
        })
        .await
    }

    async fn damage(&self, request: &PutRequest) -> Result<Proof, TransferError> {
        let mut bytes = std::fs::read(&request.source).expect("the source");
        let middle = bytes.len() / 2;
        bytes[middle] ^= 1;
        let file = tempfile::NamedTempFile::new().expect("a file");
        std::fs::write(file.path(), &bytes).expect("written");
        let damaged = PutRequest {
            sent: request.sent.clone(),
            ..super::buckets::request(&request.address, file.path())
        };
        self.inner.put(&damaged).await.map(|_| Proof::Unchecked)
    }
}

impl Protocol for Faulty {
    fn schemes(&self) -> &[&'static str] {
        self.inner.schemes()
    }

    fn open<'a>(
        &'a self,
        request: &'a OpenRequest,
    ) -> BoxFuture<'a, Result<Opened, TransferError>> {
        self.inner.open(request)
    }

    fn list<'a>(
        &'a self,
        request: &'a ListRequest,
    ) -> BoxFuture<'a, Result<Vec<Entry>, TransferError>> {
        self.inner.list(request)
    }

    fn kind<'a>(&'a self, address: &'a str) -> BoxFuture<'a, Result<Option<Kind>, TransferError>> {
        let fewer = |left: usize| left.checked_sub(1);
        if self.blind_looks.fetch_update(Ordering::SeqCst, Ordering::SeqCst, fewer).is_ok() {
            return Box::pin(async { Err(broken()) });
        }
        self.inner.kind(address)
    }

    fn writing(&self) -> Writing {
        self.inner.writing()
    }

    fn put<'a>(&'a self, request: &'a PutRequest) -> BoxFuture<'a, Result<Proof, TransferError>> {
        Box::pin(async move {
            self.puts.fetch_add(1, Ordering::SeqCst);
            let fault = self.faults.lock().unwrap_or_else(PoisonError::into_inner).pop_front();
            let begun = Instant::now();
            let put = match fault {
                None => self.inner.put(request).await,
                Some(PutFault::Cut(bytes)) => self.cut(request, bytes).await,
                Some(PutFault::Damage) => self.damage(request).await,
            };
            let mut slowest = self.slowest.lock().unwrap_or_else(PoisonError::into_inner);
            *slowest = begun.elapsed().max(*slowest);
            put
        })
    }

    fn make_directory<'a>(&'a self, address: &'a str) -> BoxFuture<'a, Result<(), TransferError>> {
        self.inner.make_directory(address)
    }

    fn rename<'a>(
        &'a self,
        from: &'a str,
        to: &'a str,
    ) -> BoxFuture<'a, Result<Renamed, TransferError>> {
        if let Some(Hook(hook)) = &self.before_rename {
            hook();
        }
        let mut faults = self.rename_faults.lock().unwrap_or_else(PoisonError::into_inner);
        match faults.pop_front() {
            None | Some(RenameFault::None) => self.inner.rename(from, to),
            Some(RenameFault::Forbidden) => {
                Box::pin(async { Err(TransferError::Forbidden { found: "by the test".into() }) })
            }
            Some(RenameFault::AnswerLost) => Box::pin(async move {
                self.inner.rename(from, to).await?;
                Err(broken())
            }),
        }
    }

    fn remove<'a>(&'a self, address: &'a str) -> BoxFuture<'a, Result<(), TransferError>> {
        self.inner.remove(address)
    }
}

fn broken() -> TransferError {
    TransferError::Unreachable { found: "broken by the test".into() }
}
