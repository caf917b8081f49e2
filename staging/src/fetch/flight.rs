//! One transfer for one file, however many wait for it.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError, Weak};

use keelboat_engine::{Content, Digest, FailureClass};
use tokio::sync::watch;
use tokio_util::task::AbortOnDropHandle;

use super::progress::Observers;
use super::transfer::{self, Job};
use super::{FetchError, FetchRequest, Fetched};
use crate::partial::Partial;
use crate::protocol::Validators;

/// What makes two requests one: addresses, declared digest, known digest.
type Key = (Arc<[Arc<str>]>, Option<Digest>, Option<Digest>);

/// How a transfer ended, for all who wait for it.
#[derive(Debug, Clone)]
pub(super) enum Landed {
    Unchanged,
    New(Arc<Arrived>),
}

/// A file that is here. Each who waits claims it under a name of its own.
#[derive(Debug)]
pub(super) struct Arrived {
    pub(super) partial: Partial,
    pub(super) content: Content,
    pub(super) validators: Validators,
    pub(super) transferred: u64,
    pub(super) source_used: Arc<str>,
    pub(super) is_claimed: AtomicBool,
}

impl Arrived {
    pub(super) fn claim(&self) -> Result<Fetched, FetchError> {
        let path = self.partial.claim().map_err(|error| {
            FetchError::new(error.class(), error.to_string(), error.hint(), self.transferred)
        })?;
        self.is_claimed.store(true, Ordering::Relaxed);
        Ok(Fetched::New {
            path,
            content: self.content,
            etag: self.validators.etag.clone(),
            last_modified: self.validators.last_modified.clone(),
            transferred: self.transferred,
            source_used: Arc::clone(&self.source_used),
        })
    }
}

/// What nobody claimed, since all had gone when it came, is kept for the next run.
impl Drop for Arrived {
    fn drop(&mut self) {
        if self.is_claimed.load(Ordering::Relaxed) {
            self.partial.discard();
        }
    }
}

/// The transfers under way.
#[derive(Debug, Default)]
pub(super) struct Flights {
    by_key: Mutex<BTreeMap<Key, Weak<Flight>>>,
}

/// One transfer under way; it ends when nobody holds this any more.
#[derive(Debug)]
pub(super) struct Flight {
    result: watch::Receiver<Option<Result<Landed, FetchError>>>,
    observers: Observers,
    _task: AbortOnDropHandle<()>,
}

impl Flights {
    /// The transfer of what is requested: one that is under way, or a new one.
    pub(super) fn join(
        &self,
        request: &FetchRequest,
        job: impl FnOnce(Observers) -> Job,
    ) -> Arc<Flight> {
        let known = request.known.as_ref().map(|known| known.content.digest);
        let key = (Arc::clone(&request.urls), request.sha256, known);
        let mut flights = self.by_key.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(flight) = flights.get(&key).and_then(Weak::upgrade) {
            flight.observers.add(request.progress.as_ref());
            return flight;
        }
        flights.retain(|_, flight| flight.strong_count() > 0);
        let observers = Observers::default();
        observers.add(request.progress.as_ref());
        let flight = Arc::new(Flight::start(job(observers.clone()), observers));
        flights.insert(key, Arc::downgrade(&flight));
        flight
    }
}

impl Flight {
    fn start(job: Job, observers: Observers) -> Self {
        let (sender, result) = watch::channel(None);
        let task = tokio::spawn(async move {
            let landed = transfer::run(job).await;
            sender.send_replace(Some(landed));
        });
        Self { result, observers, _task: AbortOnDropHandle::new(task) }
    }

    pub(super) async fn landed(&self) -> Result<Landed, FetchError> {
        let mut result = self.result.clone();
        let landed = result.wait_for(Option::is_some).await.map(|landed| landed.clone());
        landed.ok().flatten().unwrap_or_else(|| {
            let cause = "a transfer broke off by a fault in the engine";
            Err(FetchError::new(FailureClass::Transient, cause, "run the same command again", 0))
        })
    }
}
