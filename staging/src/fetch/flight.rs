//! One transfer for one address, however many wait for it.

use std::collections::BTreeMap;
use std::panic::AssertUnwindSafe;
use std::sync::{Arc, Mutex, PoisonError, Weak};

use futures_util::FutureExt as _;
use futures_util::future::Shared;
use keelboat_engine::{Digest, Kind};

use super::Effort;
use super::arrived::Arrived;
use super::error::{Lost, SourceError};
use super::job::{self, Job, Space};
use super::progress::Observers;
use crate::gate::Urgency;
use crate::protocol::{BoxFuture, TransferError, Validators};

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

/// One transfer under way, carried on by whoever waits for it: a task of its own for each of very
/// many small files would cost as much as the files. It ends when nobody holds this any more.
#[derive(Debug)]
pub(super) struct Flight {
    course: Shared<BoxFuture<'static, Result<Landed, Arc<Lost>>>>,
    observers: Observers,
    /// The declared digest that it goes by. Those who join it may know another one, or none.
    sha256: Option<Digest>,
    /// What the server was asked about.
    known: Option<Validators>,
    urgency: Urgency,
    effort: Effort,
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
        let (observers, sha256, effort) = (job.observers.clone(), job.sha256, job.effort);
        let (known, urgency) = (job.known_validators(), job.urgency.clone());
        let course: BoxFuture<'static, _> = Box::pin(async move {
            // A fault is told to all who wait, and is no fault of theirs.
            let landed = AssertUnwindSafe(job::run(&job)).catch_unwind().await;
            landed.unwrap_or_else(|_panic| Err(broken_off())).map_err(Arc::new)
        });
        Self { course: course.shared(), observers, sha256, known, urgency, effort }
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
            (Some(_), None) => !self.has_failed(),
            (None, _) => true,
        };
        let is_another = matches!(
            (self.course.peek(), sha256),
            (Some(Ok(Landed::New(arrived))), Some(ours)) if arrived.content.digest != ours
        );
        let is_too_brief =
            effort == Effort::Full && self.effort == Effort::Brief && self.has_failed();
        is_as_declared && !is_another && !is_too_brief
    }

    fn has_failed(&self) -> bool {
        matches!(self.course.peek(), Some(Err(_)))
    }

    /// How it ended; until then it is as urgent as the one who waits here becomes.
    pub(super) async fn landed(&self, urgency: &Urgency) -> Result<Landed, Arc<Lost>> {
        let (mut course, mut rising) = (self.course.clone(), urgency.watch());
        self.urgency.raise(rising.take());
        loop {
            tokio::select! {
                biased;
                landed = &mut course => return landed,
                priority = rising.next() => self.urgency.raise(priority),
            }
        }
    }
}

fn broken_off() -> Lost {
    let error = TransferError::Unreachable {
        found: "a transfer broke off by a fault in the engine".into(),
    };
    Lost { error: SourceError::Transfer { error, tries: 1 }, transferred: 0 }
}
