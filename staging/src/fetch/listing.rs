//! What is at an address: what is below a directory, what is in an archive, or a file by itself.

use std::sync::Arc;

use keelboat_engine::Kind;

use super::error::{FetchError, Lost, SourceError};
use super::job::{Job, Space};
use super::progress::Observers;
use super::{Effort, Stager, directory, member};
use crate::address::{last_name, member_of, redact};
use crate::gate::Urgency;
use crate::protocol::{Condition, Depth, Entry, OpenRequest, Opened, TransferError};

impl Stager {
    /// Says what is below a directory. A file is listed by itself, with its name.
    ///
    /// # Errors
    /// There is nothing, or it cannot be listed; the error says what to do.
    pub async fn list(&self, address: &str, depth: Depth) -> Result<Vec<Entry>, FetchError> {
        let job = Job {
            stager: Arc::clone(&self.inner),
            address: address.into(),
            kind: Kind::Directory,
            sha256: None,
            known: None,
            urgency: Urgency::new(0),
            observers: Observers::default(),
            effort: Effort::Full,
            space: Space::Own,
        };
        let listed = match member_of(address) {
            Some(member) => member::listing(&job, &member, depth).await,
            None => listing(&job, depth).await,
        };
        listed.map_err(|error| {
            let lost = Arc::new(Lost { error, transferred: 0 });
            FetchError::of("list", vec![(redact(address), lost)])
        })
    }
}

async fn listing(job: &Job, depth: Depth) -> Result<Vec<Entry>, SourceError> {
    let error = match directory::listing(job, depth).await {
        Ok(entries) => return Ok(entries),
        Err(error) => error,
    };
    let is_no_directory = matches!(
        &error,
        SourceError::Transfer {
            error: TransferError::Missing { .. } | TransferError::Refused { .. },
            ..
        }
    );
    let may_be_file = is_no_directory && !job.address.ends_with('/');
    let file = if may_be_file { file(job).await } else { None };
    file.map(|file| vec![file]).ok_or(error)
}

/// The file that is there, if it is one.
async fn file(job: &Job) -> Option<Entry> {
    let request = OpenRequest {
        address: job.address.clone(),
        offset: 0,
        end: None,
        condition: Condition::Always,
        turn: job.turn(),
    };
    let opened = job.protocol().ok()?.open(&request).await.ok()?;
    let Opened::Body { metadata, .. } = opened else { return None };
    // What a web server shows for a directory is a page.
    if metadata.media_type.as_deref() == Some("text/html") {
        return None;
    }
    Some(Entry::file(last_name(&job.address), metadata.length, metadata.validators))
}
