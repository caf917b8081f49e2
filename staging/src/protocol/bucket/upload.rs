//! Writing: small files in one request, large ones in parts, several of them under way at once.
//!
//! The local file is read once. What is read is digested in the same pass, and an object shows only
//! when that is the digest of what was to be sent.
//!
//! The proof: S3 is sent the SHA-256 of each request's bytes (`x-amz-checksum-sha256`) and refuses
//! others. A server that has looked repeats it in its answer; a file is [`Proof::Checked`] when all
//! answers did. Google and Azure are sent no checksum: what is written there is read back.

use std::fs::File;
use std::io::Read;
use std::path::Path as LocalPath;
use std::sync::Arc;
use std::time::Duration;

use keelboat_engine::{Content, Digester};
use object_store::multipart::PartId;
use object_store::path::Path;
use object_store::{Error, PutOptions, PutPayload, PutResult};
use tokio::task::JoinSet;
use tokio_util::bytes::Bytes;

use super::answer::Seen;
use super::connect::Objects;
use super::store::{Store, quoted};
use crate::local::LocalError;
use crate::protocol::file::open_regular;
use crate::protocol::{Proof, PutRequest, Sent, TransferError, Validators};

/// Bytes of a file that is sent in one request, at most.
const WHOLE_BYTES_MAX: u64 = 16 << 20;

/// Bytes of a part, at least; all but the last one have as many.
const PART_BYTES_MIN: u64 = 8 << 20;

/// Parts of an object, at most: the limit of S3 and of Google.
const PARTS_MAX: u64 = 10_000;

/// Bytes of all parts that are under way. One part is, however large it must be.
const UNDER_WAY_BYTES_MAX: u64 = 32 << 20;

/// Bytes that the network takes at once, so that a slow one is seen to move.
const PIECE_BYTES: usize = 64 << 10;

/// How long giving up an upload may take.
const ABORT_TIMEOUT: Duration = Duration::from_secs(30);

/// Between the first two tries to do so; twice as long after each.
const ABORT_WAIT_MIN: Duration = Duration::from_millis(200);

impl Store {
    /// Sends a local file. An older object is there until the new one is there as a whole.
    pub(super) async fn put(
        self: &Arc<Self>,
        key: &Path,
        request: &PutRequest,
    ) -> Result<Proof, TransferError> {
        let source = Source::open(request).await?;
        if request.content.bytes <= WHOLE_BYTES_MAX {
            self.put_whole(key, source, &request.sent).await
        } else {
            self.put_parts(key, source, &request.sent).await
        }
    }

    async fn put_whole(
        &self,
        key: &Path,
        source: Source,
        sent: &Sent,
    ) -> Result<Proof, TransferError> {
        let (source, bytes) = source.next(WHOLE_BYTES_MAX).await?;
        source.check()?;
        let seen = Seen::counting(sent);
        let put = self.objects.put_opts(key, payload(&bytes), PutOptions::default());
        let put = self.step(&seen, put).await?;
        Ok(proof(seen.is_checked(), &put))
    }

    async fn put_parts(
        self: &Arc<Self>,
        key: &Path,
        source: Source,
        sent: &Sent,
    ) -> Result<Proof, TransferError> {
        let id = self.step(&Seen::default(), self.objects.create_multipart(key)).await?;
        let (objects, key) = (Some(Arc::clone(&self.objects)), key.clone());
        let mut upload = Upload { objects, key, id };
        match self.fill(&upload, source, sent).await {
            Ok(proof) => {
                upload.objects = None;
                Ok(proof)
            }
            Err(error) => {
                upload.abort().await;
                Err(error)
            }
        }
    }

    /// Sends all parts and joins them.
    async fn fill(
        self: &Arc<Self>,
        upload: &Upload,
        mut source: Source,
        sent: &Sent,
    ) -> Result<Proof, TransferError> {
        let part_bytes = part_bytes(source.content.bytes);
        let under_way_max = usize::try_from(UNDER_WAY_BYTES_MAX / part_bytes).unwrap_or(1).max(1);
        let mut under_way = JoinSet::new();
        let mut parts = Parts::default();
        loop {
            let bytes;
            (source, bytes) = source.next(part_bytes).await?;
            if bytes.is_empty() {
                break;
            }
            if under_way.len() >= under_way_max {
                parts.take(under_way.join_next().await)?;
            }
            let index = parts.begin();
            let part = Part { key: upload.key.clone(), id: upload.id.clone(), index, bytes };
            under_way.spawn(part.send(Arc::clone(self), sent.clone()));
        }
        // Before the last part is there: what has changed meanwhile must not become an object.
        source.check()?;
        while let Some(sent) = under_way.join_next().await {
            parts.take(Some(sent))?;
        }
        let is_checked = parts.is_checked();
        let completed = self.objects.complete_multipart(&upload.key, &upload.id, parts.into_ids()?);
        let completed = self.step(&Seen::default(), completed).await?;
        Ok(proof(is_checked, &completed))
    }
}

fn proof(is_checked: bool, put: &PutResult) -> Proof {
    if !is_checked {
        return Proof::Unchecked;
    }
    let etag = put.e_tag.as_deref().map(quoted);
    Proof::Checked(Validators { etag, ..Validators::default() })
}

/// In whole MiB, so large that the parts suffice.
fn part_bytes(bytes: u64) -> u64 {
    bytes.div_ceil(PARTS_MAX).next_multiple_of(1 << 20).max(PART_BYTES_MIN)
}

fn payload(bytes: &Bytes) -> PutPayload {
    let pieces = (0..bytes.len()).step_by(PIECE_BYTES);
    pieces.map(|at| bytes.slice(at..bytes.len().min(at + PIECE_BYTES))).collect()
}

/// One part on its way.
struct Part {
    key: Path,
    id: String,
    index: usize,
    bytes: Bytes,
}

/// A part that is there, and whether the server has checked it.
struct PartSent {
    index: usize,
    id: PartId,
    is_checked: bool,
}

impl Part {
    async fn send(self, store: Arc<Store>, sent: Sent) -> Result<PartSent, TransferError> {
        let seen = Seen::counting(&sent);
        let put = store.objects.put_part(&self.key, &self.id, self.index, payload(&self.bytes));
        let id = store.step(&seen, put).await?;
        Ok(PartSent { index: self.index, id, is_checked: seen.is_checked() })
    }
}

/// The parts of an upload, each in its place once it is there.
#[derive(Default)]
struct Parts(Vec<Option<PartSent>>);

impl Parts {
    /// The index of the next one.
    fn begin(&mut self) -> usize {
        self.0.push(None);
        self.0.len() - 1
    }

    fn take(
        &mut self,
        sent: Option<Result<Result<PartSent, TransferError>, tokio::task::JoinError>>,
    ) -> Result<(), TransferError> {
        let Some(sent) = sent else { return Ok(()) };
        let part = sent.map_err(|error| unreachable_part(&error.to_string()))??;
        if let Some(place) = self.0.get_mut(part.index) {
            *place = Some(part);
        }
        Ok(())
    }

    fn is_checked(&self) -> bool {
        self.0.iter().all(|part| part.as_ref().is_some_and(|part| part.is_checked))
    }

    fn into_ids(self) -> Result<Vec<PartId>, TransferError> {
        let id = |part: Option<PartSent>| Some(part?.id);
        let ids: Option<Vec<PartId>> = self.0.into_iter().map(id).collect();
        ids.ok_or_else(|| unreachable_part("it got lost"))
    }
}

fn unreachable_part(cause: &str) -> TransferError {
    TransferError::Unreachable { found: format!("a part was not sent: {cause}") }
}

/// An upload that is given up unless it was completed, so that no parts stay there and cost money.
struct Upload {
    /// `None`: there is nothing to give up.
    objects: Option<Arc<dyn Objects>>,
    key: Path,
    id: String,
}

impl Upload {
    async fn abort(mut self) {
        if let Some(objects) = self.objects.clone() {
            abort(objects, self.key.clone(), self.id.clone()).await;
        }
        // Only now: when this is dropped before, it is begun again.
        self.objects = None;
    }
}

impl Drop for Upload {
    fn drop(&mut self) {
        let Some(objects) = self.objects.take() else { return };
        if let Ok(runtime) = tokio::runtime::Handle::try_current() {
            runtime.spawn(abort(objects, self.key.clone(), self.id.clone()));
        } else {
            tracing::warn!(key = %self.key, "the parts of an upload are left there");
        }
    }
}

/// Tries until the server has no such upload, or for so long.
async fn abort(objects: Arc<dyn Objects>, key: Path, id: String) {
    let tries = async {
        let mut wait = ABORT_WAIT_MIN;
        loop {
            match objects.abort_multipart(&key, &id).await {
                Ok(()) | Err(Error::NotFound { .. }) => break,
                Err(error) => tracing::debug!(%error, "an upload is not given up yet"),
            }
            tokio::time::sleep(wait).await;
            wait *= 2;
        }
    };
    if tokio::time::timeout(ABORT_TIMEOUT, tries).await.is_err() {
        tracing::warn!(%key, "the parts of an upload could not be removed");
    }
}

/// The local file, read from its beginning to its end.
struct Source {
    file: File,
    path: Arc<LocalPath>,
    content: Content,
    digester: Digester,
    read: u64,
}

impl Source {
    async fn open(request: &PutRequest) -> Result<Self, TransferError> {
        let (path, content) = (Arc::from(request.source.as_path()), request.content);
        blocking(move || {
            let (file, _) = open_regular(&path)?;
            Ok(Self { file, path, content, digester: Digester::new(), read: 0 })
        })
        .await
    }

    /// At most so many more bytes; none at the end.
    async fn next(mut self, bytes_max: u64) -> Result<(Self, Bytes), TransferError> {
        blocking(move || {
            // One byte more than there should be shows that the file has grown.
            let left = (self.content.bytes + 1).saturating_sub(self.read);
            let wanted = left.min(bytes_max);
            let mut bytes = Vec::with_capacity(usize::try_from(wanted).unwrap_or_default());
            let read = (&self.file).take(wanted).read_to_end(&mut bytes);
            read.map_err(|error| local(&LocalError::io("read", &self.path, error)))?;
            self.digester.update(&bytes);
            self.read += bytes.len() as u64;
            Ok((self, Bytes::from(bytes)))
        })
        .await
    }

    /// Whether all that was read is what was to be sent.
    fn check(self) -> Result<(), TransferError> {
        let (expected, found) = (self.content.digest, self.digester.finish());
        if found == expected && self.read == self.content.bytes {
            return Ok(());
        }
        Err(local(&LocalError::Mismatch { path: self.path.to_path_buf(), expected, found }))
    }
}

fn local(error: &LocalError) -> TransferError {
    TransferError::Local { class: error.class(), found: error.to_string(), hint: error.hint() }
}

async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, TransferError> + Send + 'static,
) -> Result<T, TransferError> {
    let joined = tokio::task::spawn_blocking(work).await;
    joined.unwrap_or_else(|error| Err(unreachable_part(&error.to_string())))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_largest_file_fits_into_the_parts_that_there_may_be() {
        const TIB: u64 = 1 << 40;
        assert_eq!(part_bytes(WHOLE_BYTES_MAX + 1), PART_BYTES_MIN);
        for bytes in [1, 100 << 20, 80 << 30, TIB, 5 * TIB, 5 * TIB - 1] {
            let part = part_bytes(bytes);
            assert!(bytes.div_ceil(part) <= PARTS_MAX, "{bytes} bytes in parts of {part}");
            assert!(part <= PART_BYTES_MIN.max(525 << 20), "{bytes} bytes in parts of {part}");
        }
    }

    #[test]
    fn pieces_are_the_whole() {
        for length in [0, 1, PIECE_BYTES, PIECE_BYTES + 1] {
            let bytes = Bytes::from(vec![7; length]);
            assert_eq!(Bytes::from(payload(&bytes)), bytes);
        }
    }
}
