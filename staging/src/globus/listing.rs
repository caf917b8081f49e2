//! Looking at a collection, and making directories on it.

use std::collections::VecDeque;

use keelboat_engine::Kind;
use serde::Deserialize;
use serde_json::{Value, json};

use super::account::Account;
use super::address::Place;
use super::answer::CallError;
use super::api::{Api, List};
use crate::protocol::{Depth, Entry, TransferError, Validators};

/// Entries asked for at once.
const PAGE_ENTRIES: usize = 10_000;

/// Entries of a whole listing.
const ENTRIES_MAX: usize = 5_000_000;

/// Directories below one another.
const DEPTH_MAX: usize = 200;

/// What Globus says of a file.
#[derive(Debug, Deserialize)]
struct FileDocument {
    name: String,
    #[serde(rename = "type")]
    kind: String,
    size: Option<u64>,
    last_modified: Option<String>,
}

impl FileDocument {
    fn version(&self) -> Option<String> {
        let (size, modified) = (self.size?, self.last_modified.as_deref()?);
        (self.kind == "file").then(|| format!("{size} {modified}"))
    }

    /// As an entry of a listing; `None`: a link or a device, which is not moved either.
    fn entry_below(&self, directory: &str) -> Result<Option<Entry>, TransferError> {
        let name = self.name.as_str();
        if matches!(name, "" | "." | "..") || name.contains(['/', '\0']) {
            let found = format!("a listing with the name {name:?}");
            return Err(TransferError::Malformed { found });
        }
        let path = match directory {
            "" => name.to_owned(),
            directory => format!("{directory}/{name}"),
        };
        Ok(match self.kind.as_str() {
            "dir" => Some(Entry::directory(path)),
            "file" => {
                let last_modified = self.version();
                let validators = Validators { last_modified, ..Validators::default() };
                Some(Entry::file(path, self.size, validators))
            }
            _ => None,
        })
    }
}

/// Looks at one collection after the other.
pub(super) struct Lister<'a> {
    pub(super) api: &'a Api,
    pub(super) account: &'a Account,
}

impl Lister<'_> {
    pub(super) async fn list(
        &self,
        place: &Place,
        depth: Depth,
    ) -> Result<Vec<Entry>, TransferError> {
        let mut entries = Vec::new();
        let mut ahead = VecDeque::from([String::new()]);
        while let Some(below) = ahead.pop_front() {
            if below.split('/').count() > DEPTH_MAX {
                return Err(too_large("deep"));
            }
            for file in self.directory(place, &below).await? {
                let Some(entry) = file.entry_below(&below)? else { continue };
                if entry.kind == Kind::Directory && depth == Depth::All {
                    ahead.push_back(entry.path.clone());
                }
                entries.push(entry);
            }
            if entries.len() > ENTRIES_MAX {
                return Err(too_large("large"));
            }
        }
        Ok(entries)
    }

    async fn directory(
        &self,
        place: &Place,
        below: &str,
    ) -> Result<Vec<FileDocument>, TransferError> {
        let path = format!("{}/{below}", place.path.trim_end_matches('/'));
        let mut all: Vec<FileDocument> = Vec::new();
        let limit = PAGE_ENTRIES.to_string();
        loop {
            let offset = all.len().to_string();
            let query = [("path", path.as_str()), ("limit", &limit), ("offset", &offset)];
            let segments = ["operation", "endpoint", &place.collection, "ls"];
            let call = self.api.get(&segments, &query);
            let page: List<FileDocument> =
                self.api.call(self.account, call).await.map_err(CallError::explain)?;
            let is_last = page.data.len() < PAGE_ENTRIES;
            all.extend(page.data);
            if is_last {
                return Ok(all);
            }
            if all.len() > ENTRIES_MAX {
                return Err(too_large("large"));
            }
        }
    }

    /// `None`: a directory, or a storage system that does not say.
    pub(super) async fn version(&self, place: &Place) -> Result<Option<String>, TransferError> {
        let segments = ["operation", "endpoint", &place.collection, "stat"];
        let call = self.api.get(&segments, &[("path", &place.path)]);
        let file: Result<FileDocument, CallError> = self.api.call(self.account, call).await;
        Ok(file.map_err(CallError::explain)?.version())
    }

    /// Makes a directory with all above it. Those that are there are no error.
    pub(super) async fn make_directory(&self, place: Place) -> Result<(), TransferError> {
        let mut missing = vec![place];
        while let Some(next) = missing.last() {
            if missing.len() > DEPTH_MAX {
                return Err(too_large("deep"));
            }
            match self.mkdir(next).await {
                Ok(()) => {
                    missing.pop();
                }
                Err(CallError::Refused(refusal))
                    if refusal.says("NotFound") && !refusal.says("EndpointNotFound") =>
                {
                    let above = next.parent().filter(|above| above.path != "/");
                    missing.push(above.ok_or_else(|| refusal.explain())?);
                }
                Err(error) => return Err(error.explain()),
            }
        }
        Ok(())
    }

    async fn mkdir(&self, place: &Place) -> Result<(), CallError> {
        let segments = ["operation", "endpoint", &place.collection, "mkdir"];
        let body = json!({ "DATA_TYPE": "mkdir", "path": place.path });
        let made: Result<Value, CallError> =
            self.api.call(self.account, self.api.post(&segments, body)).await;
        match made {
            Err(CallError::Refused(refusal)) if refusal.says("Exists") => Ok(()),
            other => other.map(|_document| ()),
        }
    }
}

fn too_large(how: &str) -> TransferError {
    TransferError::Refused {
        found: format!("the directory is too {how} to be listed"),
        hint: "name the directories below it one by one".into(),
    }
}
