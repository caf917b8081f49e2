//! Prefixes as directories: what is below them, and removing it.
//!
//! Programs that show buckets as directories make empty objects whose keys end in a slash. Such a
//! marker is a directory here, whatever is in it.

use std::borrow::Cow;
use std::collections::BTreeSet;
use std::future::poll_fn;
use std::pin::Pin;
use std::task::{Context, Poll};

use futures_core::Stream;
use object_store::list::PaginatedListOptions;
use object_store::path::Path;
use object_store::{Error, ListResult, ObjectMeta};

use super::answer::Seen;
use super::store::{Store, validators};
use crate::protocol::{Depth, Entry, TransferError};

/// Entries of one listing, as many as the wrapper around every protocol takes, and one.
const ENTRIES_MAX: usize = 1_000_001;

/// Pages without an entry, one after another, that a listing may have.
const EMPTY_PAGES_MAX: usize = 100;

/// One page of a listing.
struct Page {
    result: ListResult,
    /// Keys that end in a slash, without it.
    markers: Vec<String>,
    next: Option<String>,
}

impl Store {
    /// What is below a directory. That of a whole bucket has an empty key.
    pub(super) async fn list(
        &self,
        directory: &Path,
        depth: Depth,
    ) -> Result<Vec<Entry>, TransferError> {
        let prefix = prefix(directory);
        let mut found = Found::default();
        let mut next = None;
        let mut empty_pages = 0;
        loop {
            let mut page = self.page(&prefix, depth, next.take()).await?;
            next = page.next.take();
            let before = found.count();
            found.take(&prefix, page, depth);
            empty_pages = if found.count() > before { 0 } else { empty_pages + 1 };
            if next.is_none() || found.count() >= ENTRIES_MAX {
                break;
            }
            if empty_pages > EMPTY_PAGES_MAX {
                let found = format!("a listing has {empty_pages} empty pages and no end");
                return Err(TransferError::Malformed { found });
            }
        }
        // A bucket is there with nothing in it; a directory is there by what is below it.
        if !found.is_there && found.count() == 0 && !prefix.is_empty() {
            return Err(TransferError::Missing { found: "no key begins with this one".into() });
        }
        Ok(found.into_entries())
    }

    async fn page(
        &self,
        prefix: &str,
        depth: Depth,
        token: Option<String>,
    ) -> Result<Page, TransferError> {
        let options = PaginatedListOptions {
            delimiter: (depth == Depth::One).then_some(Cow::Borrowed("/")),
            page_token: token.clone(),
            ..PaginatedListOptions::default()
        };
        let seen = Seen::listing();
        let prefix = Some(prefix).filter(|prefix| !prefix.is_empty());
        let listed = self.step(&seen, self.objects.list_paginated(prefix, options)).await?;
        let next = listed.page_token.filter(|token| !token.is_empty());
        if next.is_some() && next == token {
            let found = "a page of a listing is followed by itself".into();
            return Err(TransferError::Malformed { found });
        }
        Ok(Page { result: listed.result, markers: seen.take_markers(), next })
    }

    /// Removes an object, and all that is below it as a directory.
    pub(super) async fn remove(&self, key: &Path) -> Result<(), TransferError> {
        self.delete(vec![key.clone()]).await?;
        let prefix = prefix(key);
        let mut removed = BTreeSet::new();
        loop {
            // The first page again and again: what was on it is gone.
            let page = self.page(&prefix, Depth::All, None).await?;
            let markers: BTreeSet<&str> = page.markers.iter().map(String::as_str).collect();
            let keys = page.result.objects.iter().map(|object| &object.location);
            let mut keys: Vec<Path> =
                keys.filter(|key| !markers.contains(key.as_ref())).cloned().collect();
            // The only way to a path with a slash at its end.
            let marker = |marker: &&str| Path::parse(marker).ok().map(|path| path.join(""));
            keys.extend(markers.iter().filter_map(marker));
            let Some(first) = keys.first() else { return Ok(()) };
            if !removed.insert(first.clone()) {
                return Err(TransferError::Busy {
                    found: "what was removed is still there".into(),
                    retry_after: None,
                });
            }
            self.delete(keys).await?;
        }
    }

    /// Removes objects. Those that are not there are gone already.
    async fn delete(&self, keys: Vec<Path>) -> Result<(), TransferError> {
        let seen = Seen::default();
        let step = async {
            let mut deleted = self.objects.delete_stream(Box::pin(Keys(keys.into_iter())));
            while let Some(result) = poll_fn(|context| deleted.as_mut().poll_next(context)).await {
                match result {
                    Ok(_) | Err(Error::NotFound { .. }) => {}
                    Err(error) => return Err(error),
                }
            }
            Ok(())
        };
        self.step(&seen, step).await
    }
}

/// With which keys below a directory begin.
fn prefix(directory: &Path) -> String {
    match directory.as_ref() {
        "" => String::new(),
        key => format!("{key}/"),
    }
}

/// What was found by now.
#[derive(Default)]
struct Found {
    /// Whether the directory itself has a marker.
    is_there: bool,
    directories: BTreeSet<String>,
    files: Vec<Entry>,
}

impl Found {
    fn count(&self) -> usize {
        self.directories.len() + self.files.len()
    }

    fn take(&mut self, prefix: &str, page: Page, depth: Depth) {
        let mut markers: BTreeSet<String> = page.markers.into_iter().collect();
        self.is_there |= markers.remove(prefix.trim_end_matches('/'));
        if depth == Depth::One {
            // Those of directories in it are not shown, but what is common to the keys below them.
            markers.clear();
        }
        for directory in page.result.common_prefixes {
            self.directories.extend(below(prefix, &directory));
        }
        for object in page.result.objects {
            self.file(prefix, &object, &mut markers);
        }
    }

    fn file(&mut self, prefix: &str, object: &ObjectMeta, markers: &mut BTreeSet<String>) {
        let Some(path) = below(prefix, &object.location) else { return };
        // The object and its marker have one path here: one of the two is the marker.
        if object.size == 0 && markers.remove(object.location.as_ref()) {
            self.directories.insert(path);
        } else {
            self.files.push(Entry::file(path, Some(object.size), validators(object)));
        }
    }

    fn into_entries(self) -> Vec<Entry> {
        let directories = self.directories.into_iter().map(Entry::directory);
        directories.chain(self.files).collect()
    }
}

/// The path relative to the directory; `None` of the directory itself.
fn below(prefix: &str, key: &Path) -> Option<String> {
    key.as_ref().strip_prefix(prefix).filter(|path| !path.is_empty()).map(str::to_owned)
}

/// Keys as a stream.
struct Keys(std::vec::IntoIter<Path>);

impl Stream for Keys {
    type Item = object_store::Result<Path>;

    fn poll_next(mut self: Pin<&mut Self>, _context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        Poll::Ready(self.0.next().map(Ok))
    }
}
