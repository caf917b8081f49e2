//! What services bring by themselves: here it is proven and handed on.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use super::arrived::{Arrived, Own};
use super::blocking;
use super::directory::checked;
use super::error::SourceError;
use super::flight::Landed;
use super::job::Job;
use crate::address::address_digest;
use crate::local::{Forgetful, LocalError, digest_path};
use crate::protocol::{Courier, Errand, Validators};

pub(super) async fn land(
    job: &Job,
    courier: &dyn Courier,
    transferred: &AtomicU64,
) -> Result<Landed, SourceError> {
    let version = job.insist(|| courier.version(&job.address)).await?;
    let etag = version.map(|version| format!("\"{version}\""));
    let validators = Validators { etag, ..Validators::default() };
    if validators.etag.is_some() && job.known_validators().is_some_and(|known| known == validators)
    {
        return Ok(Landed::Unchanged);
    }
    let own = place(job, &validators)?;
    let errand = Errand {
        address: Arc::clone(job.address.text()),
        local: own.path().to_owned(),
        kind: job.kind,
        progress: Some(Arc::new(job.observers.clone())),
    };
    job.insist(|| courier.bring(&errand)).await?;
    let kind = job.kind;
    let (own, content) = blocking(move || {
        let content = digest_path(own.path(), kind, &Forgetful, true)?;
        Ok::<_, LocalError>((own, content))
    })
    .await??;
    checked(job, &content)?;
    transferred.fetch_add(content.bytes, Ordering::Relaxed);
    let source_used = Arc::clone(job.address.text());
    let arrived = Arrived::own(own, content, validators, content.bytes, source_used);
    Ok(Landed::New(Arc::new(arrived)))
}

/// The same place for the same version of the same file, so that the service can be found at work
/// on it after a crash.
fn place(job: &Job, validators: &Validators) -> Result<Own, LocalError> {
    let dir = &job.stager.config.partial_dir;
    crate::partial::place::make(dir)?;
    let version = validators.etag.as_deref().unwrap_or_default();
    let name = address_digest(&format!("{}\n{version}\n{:?}", job.address.text(), job.kind));
    Ok(Own::adopt(dir.join(format!("{name}.errand"))))
}
