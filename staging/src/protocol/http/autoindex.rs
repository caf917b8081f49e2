//! Directories as nginx lists them with `autoindex_format json`. Lists made for people are not
//! read: what of them is a name of a file is anybody's guess.

use std::collections::VecDeque;

use keelboat_engine::Kind;
use reqwest::Url;
use reqwest::header::{ACCEPT, ACCEPT_ENCODING};
use serde::Deserialize;

use super::exchange::{Answered, Redirects};
use super::{HttpProtocol, answer, headers};
use crate::protocol::{Depth, Entry, ListRequest, TransferError, Validators};

/// Bytes of one list.
const LIST_BYTES_MAX: usize = 64 << 20;

/// Directories within one another.
const DEPTH_MAX: usize = 64;

/// Entries that are kept at once.
const ENTRIES_MAX: usize = 1_000_000;

#[derive(Deserialize)]
struct Listed {
    name: String,
    #[serde(rename = "type")]
    kind: String,
    size: Option<u64>,
    mtime: Option<String>,
}

impl HttpProtocol {
    /// What is in a directory.
    pub(super) async fn list_index(
        &self,
        request: &ListRequest,
    ) -> Result<Vec<Entry>, TransferError> {
        let mut entries = Vec::new();
        let mut directories = VecDeque::from([String::new()]);
        while let Some(directory) = directories.pop_front() {
            let address = if directory.is_empty() {
                request.address.to_string()
            } else {
                crate::address::child_address(&request.address, &directory)
            };
            let known = entries.len();
            for listed in self.list_one(&address).await? {
                if listed.name.is_empty() || listed.name.contains('/') || listed.name == ".." {
                    return Err(no_list("names a file as no file can be named"));
                }
                let path = if directory.is_empty() {
                    listed.name.clone()
                } else {
                    format!("{directory}/{}", listed.name)
                };
                match &*listed.kind {
                    "directory" => entries.push(Entry::directory(path)),
                    "file" => entries.push(listed.into_file(path)),
                    _ => {}
                }
            }
            if request.depth == Depth::All {
                let found = entries.iter().skip(known).filter(|one| one.kind == Kind::Directory);
                directories.extend(found.map(|directory| directory.path.clone()));
            }
            let is_deep =
                directories.back().is_some_and(|path| path.matches('/').count() > DEPTH_MAX);
            if is_deep || entries.len() > ENTRIES_MAX {
                return Err(no_list("is too large"));
            }
        }
        Ok(entries)
    }

    async fn list_one(&self, address: &str) -> Result<Vec<Listed>, TransferError> {
        let mut url = Url::parse(address).map_err(|_error| no_list("is at what is no URL"))?;
        if !url.path().ends_with('/') {
            let path = format!("{}/", url.path());
            url.set_path(&path);
        }
        let build = |url: Url| {
            let request = self.clients.of(&url)?.get(url).header(ACCEPT, "application/json");
            Ok(request.header(ACCEPT_ENCODING, "identity"))
        };
        let answered = self.exchange(&url.as_str().into(), Redirects::Anywhere, &build).await?;
        if answered.response.status() != reqwest::StatusCode::OK {
            return Err(answer::refusal(&answered));
        }
        read(answered).await
    }
}

impl Listed {
    fn into_file(self, path: String) -> Entry {
        let validators = Validators { last_modified: self.mtime, ..Validators::default() };
        Entry::file(path, self.size, validators)
    }
}

async fn read(answered: Answered) -> Result<Vec<Listed>, TransferError> {
    let mut response = answered.response;
    let media_type = headers::metadata(response.headers(), None).media_type;
    if media_type.as_deref() != Some("application/json") {
        return Err(no_list("is not of a kind that is understood"));
    }
    let mut text = Vec::new();
    while let Some(piece) = response.chunk().await.map_err(|error| answer::send_error(&error))? {
        text.extend_from_slice(&piece);
        if text.len() > LIST_BYTES_MAX {
            return Err(no_list("is too large"));
        }
    }
    serde_json::from_slice(&text).map_err(|_error| no_list("is not of a kind that is understood"))
}

fn no_list(what: &str) -> TransferError {
    TransferError::Refused {
        found: format!("the server's list of the directory {what}"),
        hint: "name each file, use an archive (`tar:URL!/directory`), or have nginx list it with \
               `autoindex_format json`"
            .into(),
    }
}
