//! A fetcher that is killed, and another process that goes on.

use std::process::{Child, Stdio};

use keelboat_engine::Digest;
use keelboat_staging::address_digest;

use super::Place;
use crate::common::{example, noise, room, until};

/// Bytes of which about half have come when it is killed.
const BYTES: u64 = 3_000_000;

pub(super) async fn killed(place: &dyn Place) {
    let Some(environment) = place.environment() else {
        println!("skipped: resume after a kill: variables alone do not give access there");
        return;
    };
    let bytes = noise(10, usize::try_from(BYTES).expect("a size"));
    let address = place.put("killed", &bytes);
    let dir = room();
    let start = |pace: &str| -> Child {
        let mut command = example("fetch");
        command.arg(&address).arg(dir.path()).arg(pace).envs(environment.clone());
        command.stdout(Stdio::piped()).stderr(Stdio::piped());
        command.spawn().expect("the example `fetch`, built with the tests")
    };
    let state = dir.path().join(address_digest(&address).to_hex()).with_extension("state");
    let proven = || -> u64 {
        let text = std::fs::read(&state).unwrap_or_default();
        let state: serde_json::Value = serde_json::from_slice(&text).unwrap_or_default();
        state["proven"]["bytes"].as_u64().unwrap_or_default()
    };
    let mut child = start("1000000");
    until(|| proven() > 0).await;
    child.kill().expect("SIGKILL");
    child.wait().expect("it is dead");
    let proven = proven();
    let output = start("1000000000").wait_with_output().expect("it ends");
    assert!(output.status.success(), "{output:?}");
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    let expected = format!("{} {} ", Digest::of(&bytes), BYTES - proven);
    assert!(said.starts_with(&expected), "expected {expected}, found {said}");
}
