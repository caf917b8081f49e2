//! Limits on transfers at once: for each host, and in all.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio_util::bytes::Bytes;

use super::{
    BoxFuture, ByteStream, Entry, ListRequest, OpenRequest, Opened, Proof, Protocol, PutRequest,
    TransferError, Writing,
};
use crate::address::host_of;

/// The limits that several protocols share.
#[derive(Debug, Clone)]
pub(crate) struct Limits(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    total: Arc<Semaphore>,
    per_host_max: usize,
    hosts: Mutex<BTreeMap<String, Arc<Semaphore>>>,
}

/// Held as long as a transfer is under way.
struct Permits {
    _host: OwnedSemaphorePermit,
    _total: OwnedSemaphorePermit,
}

impl Limits {
    pub(crate) fn new(per_host_max: usize, total_max: usize) -> Self {
        Self(Arc::new(Inner {
            total: Arc::new(Semaphore::new(total_max.max(1))),
            per_host_max: per_host_max.max(1),
            hosts: Mutex::new(BTreeMap::new()),
        }))
    }

    /// Waits for a turn. The host's comes first, so that a slow host does not use up the total.
    async fn acquire(&self, address: &str) -> Result<Permits, TransferError> {
        let closed =
            |_| TransferError::Unreachable { found: "transfers have been shut down".into() };
        let host = self.host(host_of(address)).acquire_owned().await.map_err(closed)?;
        let total = Arc::clone(&self.0.total).acquire_owned().await.map_err(closed)?;
        Ok(Permits { _host: host, _total: total })
    }

    fn host(&self, host: String) -> Arc<Semaphore> {
        let mut hosts = self.0.hosts.lock().unwrap_or_else(PoisonError::into_inner);
        let slot =
            hosts.entry(host).or_insert_with(|| Arc::new(Semaphore::new(self.0.per_host_max)));
        Arc::clone(slot)
    }
}

/// Waits for a turn before it opens, and keeps it until the stream is dropped.
///
/// The wait has no deadline of its own: those who hold the turns have.
#[derive(Debug)]
pub struct Throttled<P> {
    inner: P,
    limits: Limits,
}

impl<P> Throttled<P> {
    /// At most `per_host_max` transfers with one host and `total_max` in all (at least 1 each).
    pub fn new(inner: P, per_host_max: usize, total_max: usize) -> Self {
        Self::sharing(inner, Limits::new(per_host_max, total_max))
    }

    /// With limits that other protocols count against, too.
    pub(crate) const fn sharing(inner: P, limits: Limits) -> Self {
        Self { inner, limits }
    }
}

impl<P: Protocol> Protocol for Throttled<P> {
    fn schemes(&self) -> &[&'static str] {
        self.inner.schemes()
    }

    fn open<'a>(
        &'a self,
        request: &'a OpenRequest,
    ) -> BoxFuture<'a, Result<Opened, TransferError>> {
        Box::pin(async move {
            let permits = self.limits.acquire(&request.address).await?;
            Ok(match self.inner.open(request).await? {
                Opened::Unchanged => Opened::Unchanged,
                Opened::Body { metadata, offset, stream } => {
                    let stream = Box::new(ThrottledStream { stream, _permits: permits });
                    Opened::Body { metadata, offset, stream }
                }
            })
        })
    }

    fn list<'a>(
        &'a self,
        request: &'a ListRequest,
    ) -> BoxFuture<'a, Result<Vec<Entry>, TransferError>> {
        Box::pin(async move {
            let _permits = self.limits.acquire(&request.address).await?;
            self.inner.list(request).await
        })
    }

    fn writing(&self) -> Writing {
        self.inner.writing()
    }

    fn put<'a>(&'a self, request: &'a PutRequest) -> BoxFuture<'a, Result<Proof, TransferError>> {
        Box::pin(async move {
            let _permits = self.limits.acquire(&request.address).await?;
            self.inner.put(request).await
        })
    }

    fn rename<'a>(
        &'a self,
        from: &'a str,
        to: &'a str,
    ) -> BoxFuture<'a, Result<(), TransferError>> {
        Box::pin(async move {
            let _permits = self.limits.acquire(from).await?;
            self.inner.rename(from, to).await
        })
    }

    fn remove<'a>(&'a self, address: &'a str) -> BoxFuture<'a, Result<(), TransferError>> {
        Box::pin(async move {
            let _permits = self.limits.acquire(address).await?;
            self.inner.remove(address).await
        })
    }
}

struct ThrottledStream {
    stream: Box<dyn ByteStream>,
    _permits: Permits,
}

impl ByteStream for ThrottledStream {
    fn next(&mut self) -> BoxFuture<'_, Result<Option<Bytes>, TransferError>> {
        self.stream.next()
    }
}
