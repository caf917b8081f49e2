//! Values of functions: small ones stand in the journal, large ones in the object cache.

use std::path::PathBuf;
use std::sync::Arc;

use keelboat_engine::{Content, Digest, Fact, Failure, FailureClass, Kind};

use super::edges::Edges;

/// Larger ones are kept as files.
const INLINE_BYTES_MAX: usize = 64 << 10;

/// What has to happen before a result is recorded that speaks of a value.
#[derive(Debug, Default)]
pub(crate) struct Kept {
    /// To be recorded before it.
    pub(crate) fact: Option<Fact>,
    /// To be durable before it.
    pub(crate) place: Option<PathBuf>,
}

/// Keeps a value.
pub(crate) fn store(edges: &Edges, digest: Digest, bytes: &Arc<[u8]>) -> Result<Kept, Failure> {
    if !edges.remembers {
        return Ok(Kept::default());
    }
    if bytes.len() <= INLINE_BYTES_MAX {
        let is_known = edges.memo.value(&digest).is_ok_and(|known| known.is_some());
        let fact = (!is_known).then(|| Fact::Value { bytes: Arc::clone(bytes) });
        return Ok(Kept { fact, place: None });
    }
    let content = Content { digest, bytes: bytes.len() as u64, kind: Kind::File };
    keep(edges, &content, bytes).map_err(|error| {
        Failure::new(FailureClass::Transient, format!("its value cannot be kept: {error}"))
    })?;
    Ok(Kept { fact: None, place: Some(edges.objects.path_of(&digest)) })
}

fn keep(edges: &Edges, content: &Content, bytes: &[u8]) -> Result<(), String> {
    if edges.objects.has(&content.digest, Kind::File).unwrap_or(false) {
        return Ok(());
    }
    let place = edges.project.scratch().join(format!("{}.value", content.digest));
    std::fs::write(&place, bytes).map_err(|error| error.to_string())?;
    let inserted = edges.objects.insert_by_move(&place, content);
    inserted.map(drop).map_err(|error| error.to_string())
}

/// A value that was kept, proven.
pub(crate) fn load(edges: &Edges, digest: Digest) -> Option<Arc<[u8]>> {
    match edges.memo.value(&digest) {
        Ok(Some(value)) => return Some(value),
        Ok(None) => {}
        Err(error) => tracing::debug!(%error, "a value is looked for among the objects"),
    }
    let bytes = std::fs::read(edges.objects.path_of(&digest)).ok()?;
    (Digest::of(&bytes) == digest).then(|| bytes.into())
}
