//! What services bring by themselves: here it is proven and handed on.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use super::arrived::{Arrived, Own};
use super::directory::checked;
use super::error::SourceError;
use super::flight::Landed;
use super::job::Job;
use super::{TransferEvent, blocking};
use crate::address::{address_digest, redact};
use crate::local::{Forgetful, LocalError, digest_path};
use crate::protocol::{Courier, Errand, Validators};

pub(super) async fn land(
    job: &Job,
    courier: &dyn Courier,
    transferred: &AtomicU64,
) -> Result<Landed, SourceError> {
    let version = courier.version(&job.address).await?;
    let etag = version.map(|version| format!("\"{version}\""));
    let validators = Validators { etag, ..Validators::default() };
    if validators.etag.is_some() && job.known_validators().is_some_and(|known| known == validators)
    {
        return Ok(Landed::Unchanged);
    }
    let own = place(job, &validators)?;
    let errand = Errand {
        address: Arc::clone(&job.address),
        local: own.path().to_owned(),
        kind: job.kind,
        progress: Some(Arc::new(job.observers.clone())),
    };
    let source = address_digest(&job.address);
    let mut retries = job.stager.retries_of(&source, job.effort);
    while let Err(error) = courier.bring(&errand).await {
        let tries = retries.failures() + 1;
        let wait = retries.on_failure(Instant::now(), None).filter(|_| error.is_retryable());
        let Some(wait) = wait else { return Err(SourceError::Transfer { error, tries }) };
        let (shown, cause) = (redact(&job.address), error.to_string());
        let next = Some(retries.next_try());
        job.tell(&TransferEvent::Waiting { source: &shown, cause: &cause, wait, next });
        tokio::time::sleep(wait).await;
    }
    let kind = job.kind;
    let (own, content) = blocking(move || {
        let content = digest_path(own.path(), kind, &Forgetful, true)?;
        Ok::<_, LocalError>((own, content))
    })
    .await??;
    checked(job, &content)?;
    transferred.fetch_add(content.bytes, Ordering::Relaxed);
    let source_used = Arc::clone(&job.address);
    let arrived = Arrived::own(own, content, validators, content.bytes, source_used);
    Ok(Landed::New(Arc::new(arrived)))
}

/// The same place for the same version of the same file, so that the service can be found at work
/// on it after a crash.
fn place(job: &Job, validators: &Validators) -> Result<Own, LocalError> {
    let dir = &job.stager.config.partial_dir;
    crate::partial::place::make(dir)?;
    let version = validators.etag.as_deref().unwrap_or_default();
    let name = address_digest(&format!("{}\n{version}\n{:?}", job.address, job.kind));
    Ok(Own::adopt(dir.join(format!("{name}.errand"))))
}
