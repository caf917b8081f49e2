//! What buckets do beyond what every protocol does.

use std::sync::Arc;

use keelboat_engine::FailureClass;
use keelboat_staging::{FetchError, FetchRequest, Protocol, Stager};

use crate::common::buckets::Buckets;
use crate::common::{config, room};

async fn failure(protocol: Arc<dyn Protocol>, address: &str) -> FetchError {
    let dir = room();
    let fetcher = Stager::with_protocols(config(dir.path()), vec![protocol], vec![]);
    fetcher.fetch(FetchRequest::new(address)).await.expect_err("it fails")
}

#[tokio::test]
async fn refusals_name_the_variables_and_no_secrets() {
    let Some(buckets) = Buckets::get() else { return };
    let address = buckets.put("private", b"x");
    let anonymous = buckets.protocol_with(&[("AWS_SKIP_SIGNATURE", "true")]);
    let error = failure(anonymous, &address).await;
    assert_eq!(error.failure.class, FailureClass::Permanent, "{error}");
    let hint = error.failure.hint.clone().unwrap_or_default();
    assert!(hint.contains("AWS_ACCESS_KEY_ID"), "{error:?}");

    let error = failure(buckets.protocol(), "s3://elsewhere/x").await;
    assert_eq!(error.failure.class, FailureClass::InputMissing, "{error}");
    assert!(error.to_string().contains("NoSuchBucket"), "{error}");
    assert!(!format!("{error:?}{:?}", buckets.protocol()).contains("not-to-be-shown"), "{error:?}");
}
