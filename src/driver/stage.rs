//! Inputs: local files are looked at where they are, remote ones are brought to the object cache.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use keelboat_engine::core::Event;
use keelboat_engine::{Content, Digest, Fact, Failure, FailureClass, FileId, Kind, SiteId, Source};
use keelboat_staging::{
    Fault, FetchRequest, Fetched, Known, Progress, Room, address_digest, redact, stamp_of,
};

use super::edges::Edges;
use super::message::Message;
use super::observe::{Moving, Reporter};

/// A file that the core wants to have at home.
#[derive(Debug)]
pub(crate) struct Wanted {
    pub(crate) file: FileId,
    pub(crate) source: Source,
    pub(crate) kind: Kind,
    pub(crate) sha256: Option<Digest>,
    /// How much work it unblocks; more is sooner.
    pub(crate) priority: u8,
}

/// Begins to stage files; each ends as an event.
pub(crate) fn begin(edges: &Arc<Edges>, wanted: Vec<Wanted>) {
    let (remote, local): (Vec<_>, Vec<_>) =
        wanted.into_iter().partition(|wanted| matches!(wanted.source, Source::Urls(_)));
    for wanted in remote {
        let edges = Arc::clone(edges);
        edges.runtime.clone().spawn(async move { fetch(&edges, wanted).await });
    }
    let size = local.len().div_ceil(2 * edges.threads).max(1);
    let mut local = local.into_iter().peekable();
    while local.peek().is_some() {
        let batch: Vec<_> = local.by_ref().take(size).collect();
        let at_work = Arc::clone(edges);
        edges.pool.submit(move || {
            let events = batch.into_iter().map(|wanted| look_at(&at_work, &wanted));
            at_work.tell(Message::Events(events.collect()));
        });
    }
}

fn look_at(edges: &Edges, wanted: &Wanted) -> Event {
    let Wanted { file, kind, .. } = *wanted;
    let site = SiteId::HOME;
    let Source::Path(path) = &wanted.source else {
        let failure = Failure::new(FailureClass::Permanent, "a remote file is not looked at here");
        return Event::StageFailed { file, site, failure };
    };
    match edges.digest(&edges.project.resolve(path), kind) {
        Ok(content) => Event::Staged { file, site, content },
        Err(error) => Event::StageFailed { file, site, failure: error.failure() },
    }
}

async fn fetch(edges: &Arc<Edges>, wanted: Wanted) {
    let (file, kind) = (wanted.file, wanted.kind);
    let site = SiteId::HOME;
    let message = match bring(edges, &wanted).await {
        Ok((content, fact)) => {
            let event = Event::Staged { file, site, content };
            match fact {
                Some((fact, room)) => {
                    let object = match kind {
                        Kind::File => edges.objects.path_of(&content.digest),
                        // Many files: their whole file system is brought to the disk.
                        Kind::Directory => edges.project.state(),
                    };
                    Message::Fetched(Box::new((fact, event)), object, room)
                }
                None => Message::Events(vec![event]),
            }
        }
        Err(failure) => Message::Events(vec![Event::StageFailed { file, site, failure }]),
    };
    edges.board.end(Moving::Input(file.0));
    edges.tell(message);
}

/// Brings a remote file to the object cache; with a fact when something came over the network.
async fn bring(
    edges: &Arc<Edges>,
    wanted: &Wanted,
) -> Result<(Content, Option<(Fact, Room)>), Failure> {
    let Wanted { file, ref source, kind, sha256, priority } = *wanted;
    let urls: Arc<[Arc<str>]> = match source {
        Source::Urls(urls) => Arc::clone(urls),
        Source::Path(path) => Arc::from([Arc::clone(path)]),
    };
    let display = urls.first().map(|url| redact(url)).unwrap_or_default();
    let known = known(edges, &urls, kind, sha256);
    let reporter: Arc<dyn Progress> =
        Arc::new(Reporter::new(edges, Moving::Input(file.0), display.clone()));
    let request = FetchRequest {
        urls,
        kind,
        sha256,
        known: known.clone(),
        progress: Some(reporter),
        priority,
    };
    let stager = edges.stager();
    let stager =
        stager.map_err(|error| Failure::new(FailureClass::Permanent, error.to_string()))?;
    let fetched = stager.fetch(request).await.map_err(|error| {
        let lacked_room =
            error.fault == Fault::Here && error.failure.class == FailureClass::OutOfResources;
        edges.lacked_room.fetch_or(lacked_room, Ordering::Relaxed);
        error.failure
    })?;
    match fetched {
        Fetched::Unchanged => match known {
            Some(known) => Ok((known.content, None)),
            None => Err(Failure::new(
                FailureClass::Transient,
                format!("{display} was said to be unchanged, but is not in the object cache"),
            )),
        },
        Fetched::New { path, content, etag, last_modified, transferred, source_used, room } => {
            keep(edges, path, content).await?;
            let fact = Fact::Fetched {
                source: address_digest(&source_used),
                display: redact(&source_used),
                content,
                transferred,
                etag,
                last_modified,
            };
            Ok((content, Some((fact, room))))
        }
    }
}

/// Moves what came into the object cache. Its digest is that of the bytes as they came: they are
/// not read again.
async fn keep(edges: &Arc<Edges>, path: PathBuf, content: Content) -> Result<(), Failure> {
    let at_work = Arc::clone(edges);
    let kept = edges.runtime.spawn_blocking(move || {
        if content.kind == Kind::File
            && let Ok(metadata) = path.symlink_metadata()
        {
            at_work.digests.remember_own(&stamp_of(&metadata), content.digest);
        }
        at_work.objects.insert_by_move(&path, &content).map_err(|error| error.to_string())
    });
    let kept = kept.await.map_err(|error| error.to_string()).and_then(|kept| kept);
    kept.map(drop).map_err(|error| Failure::new(FailureClass::OutOfResources, error))
}

/// What the object cache has of one of these addresses, or of the digest that it must have.
fn known(edges: &Edges, urls: &[Arc<str>], kind: Kind, sha256: Option<Digest>) -> Option<Known> {
    let is_here = |digest: &Digest| match kind {
        Kind::File => edges.objects.object_path(digest).is_ok_and(|path| path.is_some()),
        Kind::Directory => edges.objects.has(digest, kind).unwrap_or(false),
    };
    for url in urls {
        let source = address_digest(url);
        let Some(record) = edges.memo.source(&source).ok().flatten() else { continue };
        let content = record.content;
        let is_wanted = sha256.is_none_or(|sha256| sha256 == content.digest);
        if is_wanted && content.kind == kind && is_here(&content.digest) {
            let (etag, last_modified) = (record.etag, record.last_modified);
            return Some(Known { content, etag, last_modified, source: Some(source) });
        }
    }
    let digest = sha256.filter(|_| kind == Kind::File)?;
    let bytes = edges.objects.object_path(&digest).ok().flatten()?.metadata().ok()?.len();
    let content = Content { digest, bytes, kind };
    Some(Known { content, etag: None, last_modified: None, source: None })
}
