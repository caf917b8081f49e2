//! Inputs: local files are looked at where they are, remote ones are brought to the object cache.

use std::sync::Arc;

use keelboat_engine::core::Event;
use keelboat_engine::{Content, Digest, Fact, Failure, FailureClass, FileId, Kind, SiteId, Source};
use keelboat_staging::{FetchRequest, Fetched, Known, Progress, address_digest, redact};

use super::edges::Edges;
use super::message::Message;
use super::observe::Reporter;

/// A file that the core wants to have at home.
#[derive(Debug)]
pub(crate) struct Wanted {
    pub(crate) file: FileId,
    pub(crate) source: Source,
    pub(crate) kind: Kind,
    pub(crate) sha256: Option<Digest>,
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

async fn fetch(edges: &Edges, wanted: Wanted) {
    let Wanted { file, sha256, .. } = wanted;
    let site = SiteId::HOME;
    let message = match bring(edges, &wanted.source, file, sha256).await {
        Ok((content, fact)) => {
            let event = Event::Staged { file, site, content };
            match fact {
                Some(fact) => {
                    let object = edges.objects.path_of(&content.digest);
                    Message::Fetched(Box::new((fact, event)), object)
                }
                None => Message::Events(vec![event]),
            }
        }
        Err(failure) => Message::Events(vec![Event::StageFailed { file, site, failure }]),
    };
    edges.board.end(file.0);
    edges.tell(message);
}

/// Brings a remote file to the object cache; with a fact when something came over the network.
async fn bring(
    edges: &Edges,
    source: &Source,
    file: FileId,
    sha256: Option<Digest>,
) -> Result<(Content, Option<Fact>), Failure> {
    let urls: Arc<[Arc<str>]> = match source {
        Source::Urls(urls) => Arc::clone(urls),
        Source::Path(path) => Arc::from([Arc::clone(path)]),
    };
    let display = urls.first().map(|url| redact(url)).unwrap_or_default();
    let known = known(edges, &urls, sha256);
    let reporter: Arc<dyn Progress> = Arc::new(Reporter::new(edges, file.0, display.clone()));
    let request = FetchRequest { urls, sha256, known: known.clone(), progress: Some(reporter) };
    let fetcher = edges.fetcher();
    let fetcher =
        fetcher.map_err(|error| Failure::new(FailureClass::Permanent, error.to_string()))?;
    let fetched = fetcher.fetch(request).await.map_err(|error| error.failure)?;
    match fetched {
        Fetched::Unchanged => match known {
            Some(known) => Ok((known.content, None)),
            None => Err(Failure::new(
                FailureClass::Transient,
                format!("{display} was said to be unchanged, but is not in the object cache"),
            )),
        },
        Fetched::New { path, content, etag, last_modified, transferred, source_used } => {
            let kept = edges.objects.insert_by_move(&path, &content);
            kept.map_err(|error| Failure::new(FailureClass::OutOfResources, error.to_string()))?;
            let fact = Fact::Fetched {
                source: address_digest(&source_used),
                display: redact(&source_used),
                content,
                transferred,
                etag,
                last_modified,
            };
            Ok((content, Some(fact)))
        }
    }
}

/// What the object cache has of one of these addresses, or of the digest that it must have.
fn known(edges: &Edges, urls: &[Arc<str>], sha256: Option<Digest>) -> Option<Known> {
    let here = |digest: &Digest| edges.objects.object_path(digest).ok().flatten();
    for url in urls {
        let source = address_digest(url);
        let Some(record) = edges.memo.source(&source).ok().flatten() else { continue };
        let content = record.content;
        if sha256.is_none_or(|sha256| sha256 == content.digest) && here(&content.digest).is_some() {
            let (etag, last_modified) = (record.etag, record.last_modified);
            return Some(Known { content, etag, last_modified, source: Some(source) });
        }
    }
    let digest = sha256?;
    let bytes = here(&digest)?.metadata().ok()?.len();
    let content = Content { digest, bytes, kind: Kind::File };
    Some(Known { content, etag: None, last_modified: None, source: None })
}
