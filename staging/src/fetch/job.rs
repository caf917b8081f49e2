//! One address and how to get what is there: byte by byte, out of an archive, file by file of a
//! directory, or by a service that moves it.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use keelboat_engine::queue::RoomId;
use keelboat_engine::{Digest, Kind};

use super::error::{Lost, SourceError};
use super::flight::Landed;
use super::progress::Observers;
use super::transfer::Source;
use super::{Effort, Inner, Known, TransferEvent, directory, errand, member};
use crate::address::{Address, address_digest, member_of};
use crate::gate::{Turn, Urgency};
use crate::partial::place;
use crate::protocol::{BoxFuture, Protocol, TransferError, Validators};
use crate::retry::insist;

/// What one transfer needs.
#[derive(Debug, Clone)]
pub(super) struct Job {
    pub(super) stager: Arc<Inner>,
    pub(super) address: Address,
    pub(super) kind: Kind,
    pub(super) sha256: Option<Digest>,
    pub(super) known: Option<Known>,
    pub(super) urgency: Urgency,
    pub(super) observers: Observers,
    pub(super) effort: Effort,
    pub(super) space: Space,
}

/// Where there is room for the bytes of a transfer, if that is bounded.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Space {
    /// It takes room of its own.
    Own,
    /// In this room, of the directory that it is for. It never waits for room, which the directory
    /// would hold meanwhile.
    OfDirectory(RoomId),
}

/// Does it.
pub(super) async fn run(job: &Job) -> Result<Landed, Lost> {
    let transferred = AtomicU64::new(0);
    let landed = job.land(&transferred).await;
    landed.map_err(|error| Lost { error, transferred: transferred.load(Ordering::Relaxed) })
}

impl Job {
    async fn land(&self, transferred: &AtomicU64) -> Result<Landed, SourceError> {
        place::check(&self.stager.config.partial_dir)?;
        // What is rare has a place of its own, so that all others take up little.
        if let Some(member) = member_of(&self.address) {
            return Box::pin(member::land(self, &member, transferred)).await;
        }
        if let Some(courier) = self.stager.courier(self.address.scheme())? {
            return Box::pin(errand::land(self, &*courier, transferred)).await;
        }
        let protocol = self.protocol()?;
        if self.kind == Kind::Directory {
            return Box::pin(directory::land(self, &*protocol, transferred)).await;
        }
        Source::new(self, self.address.shown(), transferred).fetch(&*protocol).await
    }

    /// Does something about this address, as often as its budget allows.
    pub(super) async fn insist<'a, T>(
        &self,
        attempt: impl Fn() -> BoxFuture<'a, Result<T, TransferError>> + Send,
    ) -> Result<T, SourceError> {
        let mut retries = self.stager.retries_of(&address_digest(&self.address), self.effort);
        let (shown, tell) = (self.address.shown(), |event: &TransferEvent<'_>| self.tell(event));
        let done = insist(&mut retries, shown, &tell, attempt).await;
        done.map_err(|error| SourceError::Transfer { error, tries: retries.failures() })
    }

    pub(super) fn protocol(&self) -> Result<Arc<dyn Protocol>, SourceError> {
        self.stager.protocol(self.address.scheme()).ok_or_else(|| {
            let error = unknown_scheme(self.address.scheme());
            SourceError::Transfer { error, tries: 1 }
        })
    }

    /// The validators of what is known, if they are this address's.
    pub(super) fn known_validators(&self) -> Option<Validators> {
        let known = self.known.as_ref().filter(|_| self.sha256.is_none())?;
        let validators = known.validators();
        let is_of_this = known.source.is_none_or(|source| source == address_digest(&self.address));
        (is_of_this && !validators.is_empty()).then_some(validators)
    }

    /// How it waits for connections.
    pub(super) fn turn(&self) -> Turn {
        let (observers, address) = (self.observers.clone(), self.address.clone());
        let listener = Box::new(move |cause: &str| {
            observers.tell(&TransferEvent::Queued { source: address.shown(), cause });
        });
        match self.space {
            Space::Own => Turn::with_room(self.urgency.clone(), listener),
            Space::OfDirectory(room) => Turn::within(room, self.urgency.clone(), listener),
        }
    }

    pub(super) fn tell(&self, event: &TransferEvent<'_>) {
        self.observers.tell(event);
    }
}

/// Nothing here knows what to do with an address of this scheme.
pub(crate) fn unknown_scheme(scheme: &str) -> TransferError {
    TransferError::Refused {
        found: format!("nothing here can read {scheme}: addresses"),
        hint: "known schemes: http, https, ftp, ftps, sftp, s3, gs, az, globus, file, data, and \
               zip: or tar: before one of them"
            .into(),
    }
}
