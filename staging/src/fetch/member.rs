//! Members of archives: the archive comes once, whole and verified, and is kept while its members
//! are wanted.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use keelboat_engine::Kind;
use tokio::sync::Mutex;

use super::arrived::{Arrived, Own};
use super::directory::checked;
use super::error::SourceError;
use super::flight::Landed;
use super::job::Job;
use super::{Known, blocking};
use crate::address::{Member, address_digest, redact};
use crate::archive::{Extraction, extract};
use crate::local::{Forgetful, digest_path};
use crate::protocol::{Depth, Entry, TransferError};

/// Archives that are kept open for further members.
const KEPT_MAX: usize = 8;

/// Archives by address, the one used last at the end. One that is being fetched is locked.
#[derive(Debug, Default)]
pub(super) struct Archives(std::sync::Mutex<VecDeque<(Arc<str>, Slot)>>);

type Slot = Arc<Mutex<Option<Arc<Arrived>>>>;

impl Archives {
    /// Lets go of all of them, for good.
    pub(super) fn discard(&self) {
        let mut all = self.0.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        for (_, slot) in all.drain(..) {
            if let Ok(mut slot) = slot.try_lock()
                && let Some(archive) = slot.take()
            {
                archive.is_claimed.store(true, Ordering::Relaxed);
            }
        }
    }

    fn slot(&self, address: &str) -> Slot {
        let mut all = self.0.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        let at = all.iter().position(|(kept, _)| &**kept == address);
        let entry = at.and_then(|at| all.remove(at));
        let entry = entry.unwrap_or_else(|| (Arc::from(address), Slot::default()));
        let slot = Arc::clone(&entry.1);
        all.push_back(entry);
        if all.len() > KEPT_MAX {
            all.pop_front();
        }
        slot
    }
}

pub(super) async fn land(
    job: &Job,
    member: &Member<'_>,
    transferred: &AtomicU64,
) -> Result<Landed, SourceError> {
    let Some(archive) = archive(job, member, transferred).await? else {
        return Ok(Landed::Unchanged);
    };
    let source = address_digest(&job.address);
    let own = Own::name(&job.stager.config.partial_dir, &source)?;
    let (format, path, kind) = (member.format.to_owned(), member.path.clone(), job.kind);
    let bytes_max = job.stager.config.unpacked_max;
    let from = Arc::clone(&archive);
    let (own, content) = blocking(move || {
        let wanted =
            Extraction { archive: from.path(), format: &format, member: &path, kind, bytes_max };
        extract(&wanted, own.path())?;
        let content = digest_path(own.path(), kind, &Forgetful, true)?;
        Ok::<_, SourceError>((own, content))
    })
    .await??;
    checked(job, &content)?;
    let transferred = transferred.load(Ordering::Relaxed);
    let validators = archive.validators.clone();
    let source_used = Arc::clone(&job.address);
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
    let archive = archive(job, member, &transferred).await?;
    let archive = archive.ok_or_else(|| TransferError::Malformed {
        found: "it was said to be unchanged, and nothing of it is known".into(),
    })?;
    let (format, path) = (member.format.to_owned(), member.path.clone());
    let listed =
        blocking(move || crate::archive::list(archive.path(), &format, &path, depth)).await?;
    Ok(listed?)
}

/// The archive, here; `None`: it is the one that the member came from.
async fn archive(
    job: &Job,
    member: &Member<'_>,
    transferred: &AtomicU64,
) -> Result<Option<Arc<Arrived>>, SourceError> {
    let slot = job.stager.archives.slot(member.archive);
    let mut slot = slot.lock().await;
    if let Some(archive) = &*slot {
        return Ok(Some(Arc::clone(archive)));
    }
    let address: Arc<str> = Arc::from(member.archive);
    // A member changes only with its archive, whose validators were kept for it.
    let known = job
        .known_validators()
        .zip(job.known.as_ref())
        .map(|(_, known)| Known { source: Some(address_digest(&address)), ..known.clone() });
    let inner = Job {
        stager: Arc::clone(&job.stager),
        address: Arc::clone(&address),
        kind: Kind::File,
        sha256: None,
        known,
        priority: job.priority,
        observers: job.observers.clone(),
        effort: job.effort,
    };
    let landed = job.stager.flights.join(inner).landed().await;
    match landed {
        Ok(Landed::Unchanged) => Ok(None),
        Ok(Landed::New(archive)) => {
            transferred.fetch_add(archive.transferred, Ordering::Relaxed);
            *slot = Some(Arc::clone(&archive));
            Ok(Some(archive))
        }
        Err(lost) => {
            transferred.fetch_add(lost.transferred, Ordering::Relaxed);
            Err(SourceError::Inner { path: redact(&address), lost })
        }
    }
}
