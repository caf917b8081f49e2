//! Members of archives: the archive comes whole and verified, and they are taken out of it.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use keelboat_engine::Kind;

use super::arrived::{Arrived, Own};
use super::directory::checked;
use super::error::SourceError;
use super::flight::{Flight, Landed};
use super::job::Job;
use super::shelf::{Reading, Shelf, Unpacked};
use super::{Known, blocking};
use crate::address::{Member, address_digest, redact};
use crate::gate::Urgency;
use crate::local::{Forgetful, digest_path};
use crate::protocol::{Depth, Entry, TransferError};

pub(super) async fn land(
    job: &Job,
    member: &Member<'_>,
    transferred: &AtomicU64,
) -> Result<Landed, SourceError> {
    let archives = &job.stager.archives;
    let shelf = archives.shelf(member.format, member.archive);
    let Some(archive) = archive(job, member, &shelf, transferred).await? else {
        return Ok(Landed::Unchanged);
    };
    let source = address_digest(&job.address);
    let own = Own::name(&job.stager.config.partial_dir, &source)?;
    let bytes_max = job.stager.config.unpacked_max;
    let (reading, kind) = (Reading { archives, archive, bytes_max }, job.kind);
    let Unpacked { own, archive } = shelf.unpack(reading, &member.path, kind, own).await?;
    let reader = archives.reader().await;
    let (own, content) = blocking(move || {
        let content = digest_path(own.path(), kind, &Forgetful, true)?;
        Ok::<_, SourceError>((own, content))
    })
    .await??;
    drop(reader);
    checked(job, &content)?;
    let transferred = transferred.load(Ordering::Relaxed);
    let validators = archive.validators.clone();
    let source_used = Arc::clone(job.address.text());
    let arrived = Arrived::own(own, content, validators, transferred, source_used);
    Ok(Landed::New(Arc::new(arrived)))
}

/// What is below a directory of an archive, which comes whole for that.
pub(super) async fn listing(
    job: &Job,
    member: &Member<'_>,
    depth: Depth,
) -> Result<Vec<Entry>, SourceError> {
    let transferred = AtomicU64::new(0);
    let shelf = job.stager.archives.shelf(member.format, member.archive);
    let archive = archive(job, member, &shelf, &transferred).await?;
    let archive = archive.ok_or_else(|| TransferError::Malformed {
        found: "it was said to be unchanged, and nothing of it is known".into(),
    })?;
    let (format, path) = (member.format.to_owned(), member.path.clone());
    let _reader = job.stager.archives.reader().await;
    let listed =
        blocking(move || crate::archive::list(archive.path(), &format, &path, depth)).await?;
    Ok(listed?)
}

/// The archive, here; `None`: it is the one that the member came from. All who wait for it wait for
/// the same transfer, and for the same end of it.
async fn archive(
    job: &Job,
    member: &Member<'_>,
    shelf: &Shelf,
    transferred: &AtomicU64,
) -> Result<Option<Arc<Arrived>>, SourceError> {
    let wanted = whole(job, member);
    let known = wanted.known_validators();
    loop {
        let (flight, is_own) = match transfer(&wanted, shelf) {
            Transfer::Done(archive) => return Ok(Some(archive)),
            Transfer::UnderWay { flight, is_own } => (flight, is_own),
        };
        match flight.landed(&job.urgency).await {
            Ok(Landed::New(archive)) => {
                let mut state = shelf.lock();
                // Its bytes came once, for whoever is the first to say so.
                if state.archive.is_none() {
                    transferred.fetch_add(archive.transferred, Ordering::Relaxed);
                }
                return Ok(Some(Arc::clone(state.archive.get_or_insert(archive))));
            }
            Ok(Landed::Unchanged) if flight.known() == known.as_ref() => return Ok(None),
            Err(lost) if flight.serves(None, job.effort) => {
                if is_own {
                    transferred.fetch_add(lost.transferred, Ordering::Relaxed);
                }
                return Err(SourceError::Inner { path: redact(&wanted.address), lost });
            }
            // Its end says nothing about this wish.
            Ok(Landed::Unchanged) | Err(_) => shelf.forget(&flight),
        }
    }
}

enum Transfer {
    Done(Arc<Arrived>),
    UnderWay { flight: Arc<Flight>, is_own: bool },
}

fn transfer(wanted: &Job, shelf: &Shelf) -> Transfer {
    let mut state = shelf.lock();
    if let Some(archive) = &state.archive {
        return Transfer::Done(Arc::clone(archive));
    }
    if let Some(flight) = state.flight.upgrade() {
        flight.welcome(wanted);
        return Transfer::UnderWay { flight, is_own: false };
    }
    let flight = wanted.stager.flights.join(wanted.clone());
    state.flight = Arc::downgrade(&flight);
    Transfer::UnderWay { flight, is_own: true }
}

/// The transfer of all of an archive. A member changes only with its archive, whose validators were
/// kept for it.
fn whole(job: &Job, member: &Member<'_>) -> Job {
    let address: Arc<str> = Arc::from(member.archive);
    let known = job
        .known_validators()
        .zip(job.known.as_ref())
        .map(|(_, known)| Known { source: Some(address_digest(&address)), ..known.clone() });
    let urgency = Urgency::new(job.urgency.now());
    let address = address.into();
    Job { address, kind: Kind::File, sha256: None, known, urgency, ..job.clone() }
}
