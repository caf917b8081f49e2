//! One transfer for one address, however many wait for it.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError, Weak};

use keelboat_engine::{Digest, Kind};
use tokio::sync::watch;
use tokio_util::task::AbortOnDropHandle;

use super::Effort;
use super::arrived::Arrived;
use super::error::{Lost, SourceError};
use super::job::{self, Job, Space};
use super::progress::Observers;
use crate::gate::Urgency;
use crate::protocol::{TransferError, Validators};

/// What makes two wishes one: address, kind, the digest of what is known, and whose room it takes:
/// a part of a directory never waits behind a file that waits for the room of that directory.
type Key = (Arc<str>, Kind, Option<Digest>, Space);

/// How a transfer ended, for all who wait for it.
#[derive(Debug, Clone)]
pub(super) enum Landed {
    Unchanged,
    New(Arc<Arrived>),
}

/// The transfers under way.
#[derive(Debug, Default)]
pub(super) struct Flights {
    by_key: Mutex<Table>,
}

#[derive(Debug, Default)]
struct Table {
    flights: BTreeMap<Key, Weak<Flight>>,
    /// How many there were when those that have ended were last removed.
    swept: usize,
}

/// Flights that may have ended and still be in the table, besides as many as are under way.
const ENDED_MAX: usize = 64;

/// One transfer under way; it ends when nobody holds this any more.
#[derive(Debug)]
pub(super) struct Flight {
    result: watch::Receiver<Option<Result<Landed, Arc<Lost>>>>,
    observers: Observers,
    /// The declared digest that it goes by. Those who join it may know another one, or none.
    sha256: Option<Digest>,
    /// What the server was asked about.
    known: Option<Validators>,
    urgency: Urgency,
    effort: Effort,
    _task: AbortOnDropHandle<()>,
}

impl Flights {
    /// The transfer of what a job wants: one that is under way, or this one.
    pub(super) fn join(&self, job: Job) -> Arc<Flight> {
        let known = job.known.as_ref().map(|known| known.content.digest);
        let key = (Arc::clone(job.address.text()), job.kind, known, job.space);
        let mut table = self.by_key.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(flight) = table.flights.get(&key).and_then(Weak::upgrade)
            && flight.serves(job.sha256, job.effort)
        {
            flight.welcome(&job);
            return flight;
        }
        if table.flights.len() > 2 * table.swept + ENDED_MAX {
            table.flights.retain(|_, flight| flight.strong_count() > 0);
            table.swept = table.flights.len();
        }
        let flight = Arc::new(Flight::start(job));
        table.flights.insert(key, Arc::downgrade(&flight));
        flight
    }
}

impl Flight {
    fn start(job: Job) -> Self {
        let (sender, result) = watch::channel(None);
        let (observers, sha256, effort) = (job.observers.clone(), job.sha256, job.effort);
        let (known, urgency) = (job.known_validators(), job.urgency.clone());
        let task = tokio::spawn(async move {
            let landed = job::run(job).await;
            sender.send_replace(Some(landed.map_err(Arc::new)));
        });
        let task = AbortOnDropHandle::new(task);
        Self { result, observers, sha256, known, urgency, effort, _task: task }
    }

    /// One more waits for it, who may be in more of a hurry.
    pub(super) fn welcome(&self, job: &Job) {
        self.urgency.raise(job.urgency.now());
        self.observers.add_all(&job.observers);
    }

    /// What tells the version that it is about when it finds that nothing has changed.
    pub(super) fn known(&self) -> Option<&Validators> {
        self.known.as_ref()
    }

    /// Whether somebody who declares this digest can make use of it, as far as that is known by
    /// now. One that goes by another digest ends badly for a file that is right.
    pub(super) fn serves(&self, sha256: Option<Digest>, effort: Effort) -> bool {
        let is_as_declared = match (self.sha256, sha256) {
            (Some(theirs), Some(ours)) => theirs == ours,
            // It may end because of a digest that this one does not care for.
            (Some(_), None) => !matches!(&*self.result.borrow(), Some(Err(_))),
            (None, _) => true,
        };
        let is_another = matches!(
            (&*self.result.borrow(), sha256),
            (Some(Ok(Landed::New(arrived))), Some(ours)) if arrived.content.digest != ours
        );
        let is_too_brief = effort == Effort::Full
            && self.effort == Effort::Brief
            && matches!(&*self.result.borrow(), Some(Err(_)));
        is_as_declared && !is_another && !is_too_brief
    }

    /// How it ended; until then it is as urgent as the one who waits here becomes.
    pub(super) async fn landed(&self, urgency: &Urgency) -> Result<Landed, Arc<Lost>> {
        let (mut result, mut rising) = (self.result.clone(), urgency.watch());
        self.urgency.raise(rising.take());
        let landed = loop {
            tokio::select! {
                biased;
                landed = result.wait_for(Option::is_some) => {
                    break landed.map(|landed| landed.clone());
                }
                priority = rising.next() => self.urgency.raise(priority),
            }
        };
        landed.ok().flatten().unwrap_or_else(|| {
            let found = "a transfer broke off by a fault in the engine".into();
            let error = TransferError::Unreachable { found };
            Err(Arc::new(Lost { error: SourceError::Transfer { error, tries: 1 }, transferred: 0 }))
        })
    }
}
