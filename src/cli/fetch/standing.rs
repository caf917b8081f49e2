//! What stands where a file is to come: nothing, what this command brought before, or something
//! else, which is neither taken for the file nor replaced unasked.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;

use keelboat_engine::{Content, Kind};
use keelboat_staging::{
    FetchRequest, Fetched, Forgetful, Known, Progress, Stager, TransferEvent, address_digest,
    digest_path,
};
use tokio::sync::Notify;

use super::place::PlaceError;
use super::record::Record;
use super::{Problem, Watch, Wish};
use crate::cli::staging::MoveError;

/// What is known of earlier fetches, by output.
pub(super) type Earlier = BTreeMap<PathBuf, Record>;

/// What stands at an output.
#[derive(Debug)]
pub(super) enum Standing {
    Nothing,
    /// Something that `--force` gives up.
    InTheWay,
    /// Something that came from one of the addresses, unless it was changed since.
    Earlier(Known),
}

/// How a wish was met.
#[derive(Debug)]
pub(super) enum Met {
    /// By what was there: it is what the source has.
    There(Content),
    Came(Fetched),
}

/// Refuses what stands in the way, before anything is fetched.
pub(super) fn look(
    wish: &Wish,
    force: bool,
    earlier: impl FnOnce() -> Option<Record>,
) -> Result<Standing, PlaceError> {
    let Ok(found) = wish.output.symlink_metadata() else { return Ok(Standing::Nothing) };
    if found.is_dir() && wish.kind == Kind::File {
        return Err(PlaceError::Directory(wish.output.clone()));
    }
    if force {
        return Ok(Standing::InTheWay);
    }
    let known = earlier().filter(|_| wish.sha256.is_none()).map(|record| record.known());
    let is_of_this = |known: &Known| {
        let urls = wish.addresses();
        known.content.kind == wish.kind
            && urls.iter().any(|url| known.source == Some(address_digest(url)))
    };
    let known = known.filter(is_of_this);
    known.map(Standing::Earlier).ok_or_else(|| PlaceError::Exists(wish.output.clone()))
}

/// Meets a wish.
pub(super) async fn meet(
    stager: &Stager,
    wish: &Wish,
    standing: Standing,
    watch: &Arc<Watch>,
) -> Result<Met, Problem> {
    let request = wish.request(watch);
    match standing {
        Standing::Earlier(known) => compare(stager, wish, known, request).await,
        Standing::Nothing | Standing::InTheWay => {
            Ok(Met::Came(stager.fetch(request).await.map_err(MoveError::from)?))
        }
    }
}

/// Proves that what stands there is as it came, and is what the source has now.
async fn compare(
    stager: &Stager,
    wish: &Wish,
    known: Known,
    request: FetchRequest,
) -> Result<Met, Problem> {
    let (output, kind) = (wish.output.clone(), wish.kind);
    let found =
        tokio::task::spawn_blocking(move || digest_path(&output, kind, &Forgetful, true)).await;
    let found = found.map_err(std::io::Error::other).map_err(MoveError::from)?;
    if found.map_err(MoveError::from)?.digest != known.content.digest {
        return Err(PlaceError::Edited(wish.output.clone()).into());
    }
    let content = known.content;
    let sign = Arc::new(Notify::new());
    let comparing = Comparing::new(&known, request.progress.clone(), &sign);
    // The address that it came from knows best whether it has changed.
    let mut urls = request.urls.to_vec();
    urls.sort_by_key(|url| known.source != Some(address_digest(url)));
    let request = FetchRequest {
        urls: urls.into(),
        known: Some(known),
        progress: Some(Arc::new(comparing)),
        ..request
    };
    let fetched = tokio::select! {
        biased;
        fetched = stager.fetch(request) => fetched.map_err(MoveError::from)?,
        () = sign.notified() => return Err(PlaceError::Outdated(wish.output.clone()).into()),
    };
    match fetched {
        Fetched::Unchanged => Ok(Met::There(content)),
        // Where nobody tells versions apart, all of it has to come to be compared.
        Fetched::New { path, content: now, .. } => {
            keelboat_staging::remove_tree(&path).map_err(MoveError::from)?;
            if now.digest == content.digest {
                return Ok(Met::There(content));
            }
            Err(PlaceError::Outdated(wish.output.clone()).into())
        }
    }
}

/// Sees as early as possible that something else is there now, so that not all of it has to come
/// before it is refused.
struct Comparing {
    bytes: u64,
    /// Whether a listing that has not changed lets no byte come.
    is_told_by_listing: bool,
    inner: Option<Arc<dyn Progress>>,
    sign: Arc<Notify>,
}

impl Comparing {
    fn new(known: &Known, inner: Option<Arc<dyn Progress>>, sign: &Arc<Notify>) -> Self {
        let Known { content: Content { bytes, kind, .. }, etag, .. } = known;
        let is_told_by_listing = *kind == Kind::Directory && etag.is_some();
        Self { bytes: *bytes, is_told_by_listing, inner, sign: Arc::clone(sign) }
    }
}

impl Progress for Comparing {
    fn on_event(&self, event: &TransferEvent<'_>) {
        let is_another = match event {
            TransferEvent::Opened { length, .. } => {
                length.is_some_and(|length| length != self.bytes)
            }
            TransferEvent::Received { .. } => self.is_told_by_listing,
            _ => false,
        };
        if is_another {
            self.sign.notify_one();
        } else if let Some(inner) = &self.inner {
            inner.on_event(event);
        }
    }
}
