//! Directories: listed, brought file by file, and put together. What came before a crash stays.

mod kept;
mod whole;

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use keelboat_engine::{Content, Digest, FailureClass, Kind};
use tokio::task::JoinSet;

use self::kept::{Came, Kept};
use self::whole::Whole;
use super::arrived::{Arrived, Own};
use super::error::{Lost, SourceError};
use super::flight::Landed;
use super::job::{Job, Space};
use super::progress::{Observers, Progress, Share};
use super::{Fetched, blocking};
use crate::address::{address_digest, child_address, redact};
use crate::gate::Urgency;
use crate::local::{Forgetful, LocalError, digest_path, place_tree};
use crate::protocol::{Depth, Entry, ListRequest, Protocol, TransferError, Validators, local_path};

/// Files of one directory that are asked for at once; limits of hosts hold besides.
const FILES_AT_ONCE_MAX: usize = 64;

pub(super) async fn land(
    job: &Job,
    protocol: &dyn Protocol,
    transferred: &AtomicU64,
) -> Result<Landed, SourceError> {
    if &**job.address.scheme() == "file" {
        return copy(job).await;
    }
    let entries = list(job, protocol, Depth::All).await?;
    let validators = validators_of(&entries);
    if !validators.is_empty() && job.known_validators().is_some_and(|known| known == validators) {
        return Ok(Landed::Unchanged);
    }
    let whole = Arc::new(Whole::enter(job, &entries).await?);
    let source = address_digest(&job.address);
    let (dir, own) = (job.stager.config.partial_dir.clone(), source);
    let kept = Arc::new(blocking(move || Kept::open(&dir, own)).await??);
    bring_all(job, &entries, &kept, &whole, transferred).await?;
    let partial_dir = job.stager.config.partial_dir.clone();
    let (own, content) = blocking(move || kept.finish(Own::name(&partial_dir, &source)?)).await??;
    checked(job, &content)?;
    let transferred = transferred.load(Ordering::Relaxed);
    let source_used = Arc::clone(job.address.text());
    let arrived = Arrived::own(own, content, validators, transferred, source_used);
    Ok(Landed::New(Arc::new(arrived.keeping(whole.turn()))))
}

/// Holds what came against the declared digest.
pub(super) fn checked(job: &Job, content: &Content) -> Result<(), SourceError> {
    match job.sha256 {
        Some(expected) if expected != content.digest => Err(SourceError::Mismatch {
            expected,
            found: content.digest,
            bytes: content.bytes,
            is_web_page: false,
        }),
        _ => Ok(()),
    }
}

/// A directory of this machine.
async fn copy(job: &Job) -> Result<Landed, SourceError> {
    let source = local_path(&job.address)?;
    let own = Own::name(&job.stager.config.partial_dir, &address_digest(&job.address))?;
    let (own, content) = blocking(move || {
        let content = digest_path(&source, Kind::Directory, &Forgetful, true).map_err(of_source)?;
        place_tree(&source, own.path())?;
        let copied = digest_path(own.path(), Kind::Directory, &Forgetful, true)?;
        if copied.digest != content.digest {
            return Err(LocalError::Changed { path: source }.into());
        }
        Ok::<_, SourceError>((own, content))
    })
    .await??;
    checked(job, &content)?;
    let (validators, source_used) = (Validators::default(), Arc::clone(job.address.text()));
    Ok(Landed::New(Arc::new(Arrived::own(own, content, validators, 0, source_used))))
}

/// The directory that is not there is the input.
fn of_source(error: LocalError) -> SourceError {
    match error.class() {
        FailureClass::InputMissing => TransferError::Missing { found: error.to_string() }.into(),
        _ => error.into(),
    }
}

/// What is below a directory anywhere.
pub(super) async fn listing(job: &Job, depth: Depth) -> Result<Vec<Entry>, SourceError> {
    if let Some(courier) = job.stager.courier(job.address.scheme())? {
        let request = ListRequest { address: Arc::clone(job.address.text()), depth };
        return job.insist(|| courier.list(&request)).await;
    }
    list(job, &*job.protocol()?, depth).await
}

async fn list(job: &Job, protocol: &dyn Protocol, depth: Depth) -> Result<Vec<Entry>, SourceError> {
    let request = ListRequest { address: Arc::clone(job.address.text()), depth };
    let mut entries = job.insist(|| protocol.list(&request)).await?;
    entries.sort_by(|a, b| a.path.cmp(&b.path));
    Ok(entries)
}

/// One validator for all that the listing says; none when it does not tell versions apart.
fn validators_of(entries: &[Entry]) -> Validators {
    let is_told = |entry: &Entry| {
        entry.kind == Kind::Directory || (entry.length.is_some() && !entry.validators.is_empty())
    };
    if !entries.iter().all(is_told) {
        return Validators::default();
    }
    let lines = entries.iter().map(|Entry { path, kind, length, validators, .. }| {
        let Validators { etag, last_modified, .. } = validators;
        format!("{path:?} {kind:?} {length:?} {etag:?} {last_modified:?}\n")
    });
    let text: String = lines.collect();
    let etag = Some(format!("\"{}\"", Digest::of(text.as_bytes())));
    Validators { etag, ..Validators::default() }
}

async fn bring_all(
    job: &Job,
    entries: &[Entry],
    kept: &Arc<Kept>,
    whole: &Arc<Whole>,
    transferred: &AtomicU64,
) -> Result<(), SourceError> {
    // Where there is no bound, whoever wants one of the files by itself shares its transfer.
    let room = whole.turn().room().filter(|_| job.stager.gate.is_bounded());
    let space = room.map_or(Space::Own, Space::OfDirectory);
    let length = entries.iter().map(|entry| entry.length.unwrap_or(0)).sum();
    let share = Share::new(job.observers.clone(), length);
    let mut under_way = JoinSet::new();
    for entry in entries {
        if under_way.len() >= FILES_AT_ONCE_MAX {
            settle(under_way.join_next().await, transferred)?;
        }
        if entry.kind == Kind::Directory {
            kept.make_directory(&entry.path)?;
            continue;
        }
        let file = Wanted {
            address: child_address(&job.address, &entry.path).into(),
            entry: entry.clone(),
            kept: Arc::clone(kept),
            whole: Arc::clone(whole),
        };
        let observers = Observers::of(Some(Arc::new(share.another()) as Arc<dyn Progress>));
        let child = Job {
            stager: Arc::clone(&job.stager),
            address: Arc::clone(&file.address).into(),
            kind: Kind::File,
            sha256: None,
            known: None,
            urgency: Urgency::new(job.urgency.now()),
            observers,
            effort: job.effort,
            space,
        };
        under_way.spawn(file.bring(child, job.urgency.clone()));
    }
    while let Some(ended) = under_way.join_next().await {
        settle(Some(ended), transferred)?;
    }
    Ok(())
}

type Ended = Result<Result<u64, SourceError>, tokio::task::JoinError>;

fn settle(ended: Option<Ended>, transferred: &AtomicU64) -> Result<(), SourceError> {
    match ended {
        Some(Ok(brought)) => {
            transferred.fetch_add(brought?, Ordering::Relaxed);
            Ok(())
        }
        Some(Err(error)) => Err(super::joined(&error).into()),
        None => Ok(()),
    }
}

/// One file of a directory.
struct Wanted {
    address: Arc<str>,
    entry: Entry,
    kept: Arc<Kept>,
    whole: Arc<Whole>,
}

impl Wanted {
    /// Brings it to its place; returns the bytes that came over the network.
    async fn bring(self, job: Job, urgency: Urgency) -> Result<u64, SourceError> {
        let (kept, entry) = (Arc::clone(&self.kept), self.entry.clone());
        if blocking(move || kept.has(&entry)).await? {
            return Ok(0);
        }
        let stager = Arc::clone(&job.stager);
        let flight = stager.flights.join(job);
        let landed = flight.landed(&urgency).await;
        drop(flight);
        let failed = |lost: Arc<Lost>| SourceError::Inner { path: redact(&self.address), lost };
        let Landed::New(arrived) = landed.map_err(failed)? else {
            return Ok(0);
        };
        let Fetched::New { path, content, etag, last_modified, transferred, .. } =
            super::claim(arrived)?
        else {
            return Ok(0);
        };
        let Self { entry, kept, whole, .. } = self;
        whole.came(&entry, content.bytes);
        // What the listing said is what a later listing is compared with.
        tracing::trace!(?etag, ?last_modified, "a file of a directory came");
        let came = Came { entry, sha256: content.digest };
        blocking(move || kept.add(&path, came)).await??;
        Ok(transferred)
    }
}

/// Where a file of a tree goes. The names were checked when they were listed.
fn below(root: &Path, path: &str) -> PathBuf {
    root.join(path)
}

fn make_directory(path: &Path) -> Result<(), LocalError> {
    fs::create_dir_all(path).map_err(|error| LocalError::io("create", path, error))
}
