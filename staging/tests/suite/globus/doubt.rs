//! Answers that were lost, or that say nothing of what was asked before.

use std::fs;
use std::sync::Arc;

use keelboat_engine::Kind;
use keelboat_staging::{
    Courier, Delivered, Delivery, FetchRequest, Forgetful, Globus, Over, Stager, digest_path,
};
use serde_json::json;

use super::records;
use crate::common::globus::FakeGlobus;
use crate::common::{assert_arrived, config};

/// The submission has arrived and its answer was lost; what comes after that is about who asks.
#[tokio::test]
async fn a_submission_in_doubt_is_never_made_under_another_id() {
    let Some(fake) = FakeGlobus::get() else { return };
    let submit = "/v0.10/transfer";
    let refused = json!({"status": 401, "code": "AuthenticationFailed", "times": 3});
    let consent = json!({"status": 403, "code": "ConsentRequired"});
    for (name, then) in [("token", None), ("refused", Some(refused)), ("consent", Some(consent))] {
        let globus = Globus::new(fake.config_of_a_person()).unwrap();
        let errand = fake.errand(&fake.put(name, b"x"), name);
        globus.version(&errand.address).await.expect("a token is at hand");
        fake.answer("POST", submit, &json!({"status": 0, "after": true}));
        if let Some(then) = then {
            fake.answer("POST", submit, &then);
        } else {
            // The token ends, and Auth is not reached.
            fake.answer("POST", submit, &json!({"status": 401, "code": "AuthenticationFailed"}));
            fake.answer("POST", "/v2/oauth2/token", &json!({"status": 503, "times": 6}));
        }
        globus.bring(&errand).await.unwrap_err();
        assert_ne!(records(&fake.config()), 0, "{name}: what may be under way is not forgotten");
        globus.bring(&errand).await.unwrap();
        assert_eq!(fake.tasks()[&format!("/{name}")], 1, "{name}");
        assert_eq!(records(&fake.config()), 0);
    }
}

/// A collection that is away for a moment, at whichever question of a delivery or a fetch.
#[tokio::test]
async fn what_goes_wrong_for_a_moment_is_asked_again() {
    let Some(fake) = FakeGlobus::get() else { return };
    let dir = fake.room("stager");
    let globus: Arc<dyn Courier> = Arc::new(fake.globus());
    let stager = Stager::with_protocols(config(&dir), vec![], vec![globus]);
    let away = |method: &str, what: &str| {
        let path = format!("/v0.10/operation/endpoint/{}/{what}", fake.value("GLOBUS_A"));
        let code = format!("ExternalError.{what}.GCDisconnected");
        fake.answer(method, &path, &json!({"status": 502, "code": code}));
    };
    let source = fake.here("outgoing");
    fs::write(&source, "bytes").unwrap();
    let content = digest_path(&source, Kind::File, &Forgetful, true).unwrap();
    let address = fake.address("sent/deep/file").into();
    let delivery = Delivery { source, content, address, over: Over::Same, progress: None };
    away("POST", "mkdir");
    assert_eq!(stager.deliver(delivery, Forgetful).await, Ok(Delivered::Copied));
    assert_eq!(fs::read(fake.there("sent/deep/file")).unwrap(), b"bytes");
    away("GET", "stat");
    let fetched = stager.fetch(FetchRequest::new(fake.address("sent/deep/file"))).await;
    assert_arrived(fetched, b"bytes");
}
