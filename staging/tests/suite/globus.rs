//! Globus, by a fake that really copies files between two directories.

mod doubt;

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use keelboat_engine::{FailureClass, Kind};
use keelboat_staging::{
    Courier, Credential, Credentials, Depth, Errand, Globus, GlobusConfig, Limit, ListRequest,
    LocalCollection, QueueLimits, Secret, TransferError, globus_login,
};
use serde_json::json;
use tokio::task::JoinSet;

use crate::common::globus::{FakeGlobus, Watcher, ask, data_access};
use crate::common::{noise, room};

/// Brings all of them at once.
async fn bring_all(globus: &Globus, errands: Vec<Errand>) -> Vec<Result<(), TransferError>> {
    let mut set = JoinSet::new();
    for (at, errand) in errands.into_iter().enumerate() {
        let globus = globus.clone();
        set.spawn(async move { (at, globus.bring(&errand).await) });
    }
    let results: BTreeMap<usize, _> = set.join_all().await.into_iter().collect();
    results.into_values().collect()
}

fn records(config: &GlobusConfig) -> usize {
    fs::read_dir(&config.state_dir).map_or(0, Iterator::count)
}

#[tokio::test]
async fn fifty_files_make_one_task_and_leave_no_record() {
    let Some(fake) = FakeGlobus::get() else { return };
    let globus = fake.globus();
    let errands: Vec<Errand> = (0..50)
        .map(|n| {
            let name = format!("in/a b %?#{n}é'.bin");
            fake.put(&name, &noise(n, 1000));
            let escaped: Vec<String> = name.split('/').map(crate::common::escaped).collect();
            fake.errand(&fake.address(&escaped.join("/")), &format!("out/{n}.bin"))
        })
        .collect();
    let results = bring_all(&globus, errands).await;
    assert!(results.iter().all(Result::is_ok), "{results:?}");
    for n in 0..50 {
        assert!(fs::read(fake.here(&format!("out/{n}.bin"))).unwrap() == noise(n, 1000), "{n}");
    }
    assert_eq!(fake.tasks_in_all(), 1);
    assert_eq!(records(&fake.config()), 0);
}

#[tokio::test]
async fn a_task_has_a_limit_on_items_and_a_user_one_on_tasks() {
    let Some(fake) = FakeGlobus::get() else { return };
    let one = Limit { connections: Some(1), ..Limit::default() };
    let schemes = [("globus".to_owned(), one)].into();
    let limits = QueueLimits { schemes, ..QueueLimits::default() };
    let config = GlobusConfig { batch_items_max: 4, ..fake.config() }.within(&limits);
    let globus = Globus::new(config).unwrap();
    let watcher = Arc::new(Watcher::default());
    let errands = (0..10).map(|n| {
        let address = fake.put(&format!("x{n}"), b"x");
        watcher.watch(fake.errand(&address, &format!("x{n}")))
    });
    let errands = errands.collect();
    fake.control(&json!({"pause": true}));
    let all = tokio::spawn(async move { bring_all(&globus, errands).await });
    watcher.until("the limit of 1 Globus tasks at once").await;
    assert_eq!(fake.tasks_in_all(), 1);
    fake.control(&json!({"pause": false}));
    let results = all.await.unwrap();
    assert!(results.iter().all(Result::is_ok), "{results:?}");
    assert_eq!(fake.tasks_in_all(), 3);
}

#[tokio::test]
async fn a_collection_has_a_limit_of_its_own() {
    let Some(fake) = FakeGlobus::get() else { return };
    let one = Limit { connections: Some(1), ..Limit::default() };
    let hosts = [(fake.value("GLOBUS_A").to_owned(), one)].into();
    let limits = QueueLimits { hosts, ..QueueLimits::default() };
    let config = GlobusConfig { batch_items_max: 1, ..fake.config() }.within(&limits);
    assert_eq!(config.tasks_max, 3, "of others there may be more");
    let globus = Globus::new(config).unwrap();
    let watcher = Arc::new(Watcher::default());
    let errands = (0..2).map(|n| {
        let address = fake.put(&format!("x{n}"), b"x");
        watcher.watch(fake.errand(&address, &format!("x{n}")))
    });
    let errands = errands.collect();
    fake.control(&json!({"pause": true}));
    let all = tokio::spawn(async move { bring_all(&globus, errands).await });
    watcher.until("the limit of 1 Globus tasks at once with").await;
    assert_eq!(fake.tasks_in_all(), 1);
    fake.control(&json!({"pause": false}));
    let results = all.await.unwrap();
    assert!(results.iter().all(Result::is_ok), "{results:?}");
    assert_eq!(fake.tasks_in_all(), 2);
}

#[tokio::test]
async fn directories_come_and_go_with_all_below_them() {
    let Some(fake) = FakeGlobus::get() else { return };
    let globus = fake.globus();
    for name in ["d/a", "d/deep/er/b", "d/deep/c"] {
        fake.put(name, name.as_bytes());
    }
    let directory = |address: &str, local: &str| Errand {
        kind: Kind::Directory,
        ..fake.errand(address, local)
    };
    globus.bring(&directory(&fake.address("d/"), "got/d")).await.unwrap();
    assert_eq!(fs::read(fake.here("got/d/deep/er/b")).unwrap(), b"d/deep/er/b");
    // Back to where directories above it are missing; twice, since what is there is no error.
    let out = directory(&fake.address("new/above/d"), "got/d");
    globus.send(&out).await.unwrap();
    globus.send(&out).await.unwrap();
    assert_eq!(fs::read(fake.there("new/above/d/deep/c")).unwrap(), b"d/deep/c");
    fs::write(fake.here("got/d/a"), b"another").unwrap();
    globus.send(&out).await.unwrap();
    assert_eq!(fs::read(fake.there("new/above/d/a")).unwrap(), b"another");
    assert_eq!(records(&fake.config()), 0);
}

#[tokio::test]
async fn listings_and_versions_tell_what_is_there() {
    let Some(fake) = FakeGlobus::get() else { return };
    let globus = fake.globus();
    let address = fake.put("l/one/two/f", b"12345");
    fake.put("l/g", b"1");
    let list = async |path: &str, depth| {
        let request = ListRequest { address: fake.address(path).into(), depth };
        globus.list(&request).await
    };
    let names = |entries: Vec<keelboat_staging::Entry>| {
        let mut names: Vec<String> = entries.into_iter().map(|entry| entry.path).collect();
        names.sort();
        names
    };
    assert_eq!(names(list("l", Depth::One).await.unwrap()), ["g", "one"]);
    let all = list("l/", Depth::All).await.unwrap();
    let file = all.iter().find(|entry| entry.path == "one/two/f").unwrap();
    assert_eq!(file.length, Some(5));
    let version = globus.version(&address).await.unwrap();
    assert_eq!(version, file.validators.last_modified);
    assert!(version.unwrap().starts_with("5 "));
    assert_eq!(names(all), ["g", "one", "one/two", "one/two/f"]);
    assert_eq!(globus.version(&fake.address("l")).await.unwrap(), None, "of a directory");
    let missing = list("nowhere", Depth::One).await.unwrap_err();
    assert_eq!(missing.class(), FailureClass::InputMissing, "{missing}");
    let missing = globus.version(&fake.address("nowhere")).await.unwrap_err();
    assert_eq!(missing.class(), FailureClass::InputMissing, "{missing}");
    // As Globus says it, status 502 and all.
    assert!(list("l/g", Depth::One).await.is_err());
    assert_eq!(fake.requests("path=%2Fl%2Fg%2F&limit=10000&offset=0"), 1, "asked once");
}

#[tokio::test]
async fn one_missing_file_keeps_no_other_from_coming() {
    let Some(fake) = FakeGlobus::get() else { return };
    let globus = fake.globus();
    let there = fake.put("there", b"x");
    let refused = fake.put("refused", b"x");
    let fault = json!([{"path": "/refused", "code": "PERMISSION_DENIED", "times": 1000}]);
    fake.control(&json!({"file_fault": fault}));
    let addresses = [there, fake.address("nowhere"), refused];
    let errands = addresses.iter().enumerate().map(|(n, a)| fake.errand(a, &format!("{n}")));
    let results = bring_all(&globus, errands.collect()).await;
    assert!(matches!(results[0], Ok(())), "{results:?}");
    assert!(matches!(results[1], Err(TransferError::Missing { .. })), "{results:?}");
    assert!(matches!(results[2], Err(TransferError::Forbidden { .. })), "{results:?}");
    assert_eq!(fake.tasks_in_all(), 1);
    assert_eq!(records(&fake.config()), 0);
}

/// Where faults are not skipped, a task would stay active for days.
#[tokio::test]
async fn growing_faults_end_in_an_error_and_the_others_travel_again() {
    let Some(fake) = FakeGlobus::get() else { return };
    let globus = fake.globus();
    let watcher = Arc::new(Watcher::default());
    let gone = fake.put("gone", b"x");
    let fault =
        json!([{"path": "/gone", "code": "FILE_NOT_FOUND", "times": 100_000, "stays": true}]);
    fake.control(&json!({"file_fault": fault}));
    let other = fake.put("other", b"other");
    let errands = vec![watcher.watch(fake.errand(&gone, "gone")), fake.errand(&other, "other")];
    let results = bring_all(&globus, errands).await;
    assert!(matches!(results[0], Err(TransferError::Missing { .. })), "{results:?}");
    assert!(results[1].is_ok(), "{results:?}");
    assert_eq!(fake.requests("/cancel"), 1);
    let causes = watcher.causes();
    assert!(causes.iter().any(|cause| cause.contains("FILE_NOT_FOUND")), "{causes:?}");
    // Alone, it is the same.
    let error = globus.bring(&fake.errand(&gone, "gone")).await.unwrap_err();
    assert!(matches!(error, TransferError::Missing { .. }), "{error}");
    assert_eq!(records(&fake.config()), 0);
}

#[tokio::test]
async fn a_missing_consent_is_asked_for_with_the_command_or_given_by_applications() {
    let Some(fake) = FakeGlobus::get() else { return };
    let collection = fake.value("GLOBUS_A").to_owned();
    fake.control(&json!({"collection": {"id": collection, "need_consent": true}}));
    let address = fake.put("x", b"x");
    let person = Globus::new(fake.config_of_a_person()).unwrap();
    let error = person.bring(&fake.errand(&address, "x")).await.unwrap_err();
    let wanted = format!(
        "keelboat login globus --consent 'urn:globus:auth:scope:transfer.api.globus.org:all[*{}]'",
        data_access(&collection)
    );
    assert!(error.hint().ends_with(&wanted), "{}", error.hint());
    assert_eq!(error.class(), FailureClass::Permanent);
    let config = fake.config_of_a_person();
    assert_eq!(records(&config), 0);
    fake.globus().bring(&fake.errand(&address, "x")).await.unwrap();
}

#[tokio::test]
async fn a_login_by_a_browser_gives_consents_and_lasts() {
    let Some(fake) = FakeGlobus::get() else { return };
    let collection = fake.value("GLOBUS_A").to_owned();
    let address = fake.put("x", b"x");
    let config = fake.bare_config();
    let globus = Globus::new(config.clone()).unwrap();
    let error = globus.version(&address).await.unwrap_err();
    assert!(error.hint().contains("keelboat login globus"), "{error}");

    let browse = |url: &str| {
        assert!(url.contains("code_challenge_method=S256") && url.contains("access_type=offline"));
        let page = ask("GET", url, "");
        Ok(format!(" {}\n", page["code"].as_str().expect("a code")))
    };
    globus_login(&config, &[], browse).await.unwrap();
    let mode = config.tokens_file.metadata().unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    globus.bring(&fake.errand(&address, "x")).await.unwrap();

    // A consent that is needed later is added by another login, which a run notices.
    fake.control(&json!({"collection": {"id": collection, "need_consent": true}}));
    assert!(globus.version(&address).await.is_err());
    let consent = format!("*{}", data_access(&collection));
    globus_login(&config, &[consent], browse).await.unwrap();
    fake.control(&json!({"expire_tokens": true}));
    globus.version(&address).await.unwrap();
    // The one after that keeps it.
    globus_login(&config, &[], browse).await.unwrap();
    fake.control(&json!({"expire_tokens": true}));
    globus.version(&address).await.unwrap();

    // A code that was made for another challenge gives nothing.
    let error = globus_login(&config, &[], |_| Ok("stolen".into())).await.unwrap_err();
    assert!(error.to_string().contains("invalid_grant"), "{error}");
    fs::set_permissions(&config.tokens_file, PermissionsExt::from_mode(0o644)).unwrap();
    let error = Globus::new(config).unwrap().version(&address).await.unwrap_err();
    assert!(error.to_string().contains("can be read by others"), "{error}");
}

#[tokio::test]
async fn a_token_that_ends_in_mid_run_is_renewed_and_the_transfer_goes_on() {
    let Some(fake) = FakeGlobus::get() else { return };
    let token_file = fake.room("token");
    let static_token = Credential { token_file: Some(token_file.clone()), ..Credential::default() };
    let renewable = [fake.config(), fake.config_of_a_person()];
    for (n, config) in renewable.into_iter().enumerate() {
        let globus = Globus::new(config).unwrap();
        let bytes = noise(7, 300_000);
        let address = fake.put(&format!("slow{n}"), &bytes);
        fake.control(&json!({"rate": 400_000}));
        let watcher = Arc::new(Watcher::default());
        let errand = watcher.watch(fake.errand(&address, &format!("slow{n}")));
        let transfer = tokio::spawn(async move { globus.bring(&errand).await });
        fake.until("a task", |noted| noted["tasks"][format!("/slow{n}")] == 1).await;
        // A 503 before the 401 makes no difference.
        fake.answer("GET", "/v0.10/task/", &json!({"status": 503}));
        fake.control(&json!({"expire_tokens": true}));
        transfer.await.unwrap().unwrap();
        assert_eq!(watcher.bytes(), 300_000);
        assert_eq!(fs::read(fake.here(&format!("slow{n}"))).unwrap(), bytes);
    }
    assert!(fake.requests("/v2/oauth2/token") >= 4);
    // What nobody renews is an error that says so, with nothing of the token in it.
    fs::write(&token_file, "not-to-be-shown").unwrap();
    fs::set_permissions(&token_file, PermissionsExt::from_mode(0o600)).unwrap();
    let globus = Globus::new(fake.config_with(static_token)).unwrap();
    let error = globus.version(&fake.address("slow0")).await.unwrap_err();
    assert!(error.hint().contains("token"), "{error}");
    assert!(!format!("{error:?} {globus:?}").contains("not-to-be-shown"));
}

#[tokio::test]
async fn a_login_that_was_revoked_says_what_to_do() {
    let Some(fake) = FakeGlobus::get() else { return };
    fake.control(&json!({"revoke_refresh": true}));
    let globus = Globus::new(fake.config_of_a_person()).unwrap();
    let error = globus.version(&fake.address("x")).await.unwrap_err();
    assert!(error.hint().contains("keelboat login globus"), "{error}");
    assert_eq!(error.class(), FailureClass::Permanent);
    let wrong = Credential { client_secret: Some(Secret::new("wrong")), ..Credential::default() };
    let globus = Globus::new(fake.config_with(wrong)).unwrap();
    let error = globus.version(&fake.address("x")).await.unwrap_err();
    assert!(error.hint().contains("client_secret"), "{error}");
}

#[tokio::test]
async fn a_busy_service_is_asked_again_when_it_says() {
    let Some(fake) = FakeGlobus::get() else { return };
    let globus = fake.globus();
    let address = fake.put("x", b"x");
    let submit = "/v0.10/transfer";
    fake.answer("GET", "/v0.10/submission_id", &json!({"status": 429, "retry_after": 1}));
    fake.answer("POST", submit, &json!({"status": 503}));
    fake.answer("POST", submit, &json!({"status": 0}));
    // The work is done, the answer lost: the same submission is the same task.
    fake.answer("POST", submit, &json!({"status": 0, "after": true}));
    let start = Instant::now();
    globus.bring(&fake.errand(&address, "x")).await.unwrap();
    assert!(start.elapsed() >= Duration::from_secs(1));
    assert_eq!(fake.tasks_in_all(), 1);
    assert_eq!(fake.counts()["submitted"]["/x"], 4);
}

#[tokio::test]
async fn what_gives_up_is_taken_up_by_the_next_try() {
    let Some(fake) = FakeGlobus::get() else { return };
    let globus = fake.globus();
    let address = fake.put("x", b"x");
    fake.answer("POST", "/v0.10/transfer", &json!({"status": 503, "times": 6, "after": true}));
    let error = globus.bring(&fake.errand(&address, "x")).await.unwrap_err();
    assert!(error.is_retryable(), "{error}");
    globus.bring(&fake.errand(&address, "x")).await.unwrap();
    assert_eq!(fake.tasks_in_all(), 1);
    assert_eq!(records(&fake.config()), 0);
}

#[tokio::test]
async fn pauses_and_faults_are_shown_with_their_reason() {
    let Some(fake) = FakeGlobus::get() else { return };
    let globus = fake.globus();
    let address = fake.put("x", b"x");
    fake.control(&json!({"pause_message": "the file system is\nbeing mended", "file_fault":
        [{"path": "/x", "code": "CONNECTION_RESET", "times": 3}]}));
    let watcher = Arc::new(Watcher::default());
    let errand = watcher.watch(fake.errand(&address, "x"));
    let transfer = tokio::spawn(async move { globus.bring(&errand).await });
    watcher.until("paused: the file system is being mended").await;
    fake.control(&json!({"pause_message": null, "retry_interval": 0.5}));
    watcher.until("CONNECTION_RESET").await;
    transfer.await.unwrap().unwrap();
}

#[tokio::test]
async fn a_task_is_cancelled_when_its_last_errand_is_given_up() {
    let Some(fake) = FakeGlobus::get() else { return };
    let globus = fake.globus();
    fake.control(&json!({"pause": true}));
    let addresses = ["x", "y"].map(|name| fake.put(name, b"x"));
    let transfers = addresses.clone().map(|address| {
        let (globus, name) = (globus.clone(), address.chars().last().unwrap().to_string());
        let errand = fake.errand(&address, &name);
        tokio::spawn(async move { globus.bring(&errand).await })
    });
    fake.until("a task", |noted| !noted["tasks"].as_object().unwrap().is_empty()).await;
    let [first, second] = transfers;
    first.abort();
    assert!(first.await.unwrap_err().is_cancelled());
    assert_eq!(fake.requests("/cancel"), 0, "the other one still waits");
    second.abort();
    assert!(second.await.unwrap_err().is_cancelled());
    fake.until_asked("/cancel").await;
    // Once it is gone, the same files can be had.
    fake.control(&json!({"pause": false}));
    globus.bring(&fake.errand(&addresses[0], "x")).await.unwrap();
    assert_eq!(fake.tasks_in_all(), 2);
}

#[tokio::test]
async fn bytes_that_changed_on_the_way_are_found_by_their_checksum() {
    let Some(fake) = FakeGlobus::get() else { return };
    let globus = fake.globus();
    let bytes = noise(3, 100_000);
    let address = fake.put("x", &bytes);
    fake.control(&json!({"file_fault": [{"path": "/x", "code": "CORRUPT", "times": 2}]}));
    globus.bring(&fake.errand(&address, "x")).await.unwrap();
    assert_eq!(fs::read(fake.here("x")).unwrap(), bytes);
}

#[tokio::test]
async fn two_errands_for_one_file_are_one_transfer() {
    let Some(fake) = FakeGlobus::get() else { return };
    let globus = fake.globus();
    let address = fake.put("x", b"x");
    // One pair where a collection shows it, one where none does.
    let outside = room();
    let mut errands = vec![fake.errand(&address, "x"), fake.errand(&address, "x")];
    let local = outside.path().join("below/x");
    errands.extend(errands.clone().into_iter().map(|e| Errand { local: local.clone(), ..e }));
    let results = bring_all(&globus, errands).await;
    assert!(results.iter().all(Result::is_ok), "{results:?}");
    assert_eq!(fs::read(&local).unwrap(), b"x");
    assert_eq!(fs::read(fake.here("x")).unwrap(), b"x");
    assert_eq!(fake.tasks_in_all(), 1);
    assert_eq!(fs::read_dir(fake.here(".keelboat-globus")).unwrap().count(), 0, "moved away");
    // Out again, by way of the same place.
    let address = fake.address("out/x");
    let errand = Errand { address: address.into(), local, kind: Kind::File, progress: None };
    globus.send(&errand).await.unwrap();
    assert_eq!(fs::read(fake.there("out/x")).unwrap(), b"x");
    assert_eq!(fs::read_dir(fake.here(".keelboat-globus")).unwrap().count(), 0, "removed");
}

#[tokio::test]
async fn what_another_task_moves_is_left_to_it() {
    let Some(fake) = FakeGlobus::get() else { return };
    fake.control(&json!({"pause": true}));
    let [same, part] = ["same", "part"].map(|name| fake.put(name, b"x"));
    let mine = fake.globus();
    let errands = [fake.errand(&same, "same"), fake.errand(&part, "part")];
    let both = tokio::spawn(async move { bring_all(&mine, errands.into()).await });
    fake.until("a task", |noted| !noted["tasks"].as_object().unwrap().is_empty()).await;
    // The records of another machine are not here: the same submission is found by its label.
    let theirs = GlobusConfig { state_dir: fake.room("elsewhere"), ..fake.config() };
    let theirs = Globus::new(theirs).unwrap();
    let errands = [fake.errand(&same, "same"), fake.errand(&part, "part")];
    let again = tokio::spawn({
        let theirs = theirs.clone();
        async move { bring_all(&theirs, errands.into()).await }
    });
    fake.until_asked("/task_list").await;
    // A part of it is not the same.
    let other = GlobusConfig { state_dir: fake.room("elsewhere 2"), ..fake.config() };
    let other = Globus::new(other).unwrap();
    let error = other.bring(&fake.errand(&part, "part")).await.unwrap_err();
    assert!(error.to_string().contains("another Globus task"), "{error}");
    assert!(error.is_retryable());
    fake.control(&json!({"pause": false}));
    for results in [both.await.unwrap(), again.await.unwrap()] {
        assert!(results.iter().all(Result::is_ok), "{results:?}");
    }
    assert_eq!(fake.tasks_in_all(), 1);
}

#[tokio::test]
async fn what_is_on_a_collection_of_this_machine_is_just_a_file() {
    let Some(fake) = FakeGlobus::get() else { return };
    let globus = fake.globus();
    fs::write(fake.here("mine"), b"mine").unwrap();
    let address = format!("globus://{}/mine", fake.value("GLOBUS_B"));
    assert_eq!(globus.local_path(&address).unwrap(), Some(fake.here("mine")));
    assert_eq!(globus.local_path(&fake.address("mine")).unwrap(), None);
    let local = fake.room("got/mine");
    let errand = Errand { local, ..fake.errand(&address, "") };
    globus.bring(&errand).await.unwrap();
    assert_eq!(fs::read(&errand.local).unwrap(), b"mine");
    fs::write(&errand.local, b"back").unwrap();
    globus.send(&errand).await.unwrap();
    assert_eq!(fs::read(fake.here("mine")).unwrap(), b"back");
    assert_eq!(fake.tasks_in_all(), 0);
}

#[tokio::test]
async fn a_wrong_local_collection_is_found_out() {
    let Some(fake) = FakeGlobus::get() else { return };
    let address = fake.put("x", b"x");
    let none = Globus::new(GlobusConfig { local: Vec::new(), ..fake.config() }).unwrap();
    let errand = Errand { local: fake.room("x"), ..fake.errand(&address, "") };
    let error = none.bring(&errand).await.unwrap_err();
    assert!(error.hint().contains("Globus Connect"), "{error}");
    let local =
        LocalCollection { root: "/does/not/exist".into(), ..fake.config().local[0].clone() };
    let gone = Globus::new(GlobusConfig { local: vec![local], ..fake.config() }).unwrap();
    let error = gone.bring(&errand).await.unwrap_err();
    assert!(error.to_string().contains("/does/not/exist"), "{error}");
    assert_eq!(fake.tasks_in_all(), 0);
}

/// How many lives of [`kills_between_submission_and_record_make_one_task_each`] are killed.
const LIVES: usize = 200;

/// How many of them live at once.
const LIVES_AT_ONCE: usize = 20;

/// What a life needs to know.
const LIFE: &str = "KEELBOAT_TESTS_GLOBUS_LIFE";

#[test]
#[ignore = "the life that another test kills"]
fn a_life_that_is_killed() {
    let text = std::env::var(LIFE).expect("started by the other test");
    let told: BTreeMap<String, String> = serde_json::from_str(&text).expect("what it needs");
    let credential = Credential {
        scope: told["address"].clone(),
        client_id: Some(told["client_id"].clone()),
        client_secret: Some(Secret::new(told["client_secret"].as_str())),
        ..Credential::default()
    };
    let local = LocalCollection {
        collection: told["collection"].clone(),
        root: told["root"].clone().into(),
        path: "/".into(),
    };
    let config = GlobusConfig {
        local: vec![local],
        credentials: Credentials::new([credential]),
        batch_window: Duration::ZERO,
        auth_url: told["url"].clone(),
        transfer_url: told["url"].clone(),
        ..GlobusConfig::new(told["state_dir"].as_str(), "/nonexistent")
    };
    let errand = Errand {
        address: told["address"].as_str().into(),
        local: told["local"].clone().into(),
        kind: Kind::File,
        progress: None,
    };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let globus = Globus::new(config).expect("a courier");
        let result = globus.bring(&errand).await;
        panic!("it should have been killed by now: {result:?}");
    });
}

fn live(fake: &FakeGlobus, state_dir: &Path, errand: &Errand) -> Child {
    let told = json!({
        "address": &*errand.address,
        "local": errand.local,
        "state_dir": state_dir,
        "collection": fake.value("GLOBUS_B"),
        "root": fake.value("GLOBUS_B_ROOT"),
        "url": fake.value("GLOBUS_SDK_SERVICE_URL_TRANSFER"),
        "client_id": fake.value("GLOBUS_CLIENT_ID"),
        "client_secret": fake.value("GLOBUS_CLIENT_SECRET"),
    });
    let mut command = Command::new(std::env::current_exe().expect("this program"));
    command.args(["--exact", "globus::a_life_that_is_killed", "--ignored", "--nocapture"]);
    command.env(LIFE, told.to_string()).stdout(Stdio::null()).stderr(Stdio::null());
    command.spawn().expect("a life")
}

#[tokio::test]
async fn kills_between_submission_and_record_make_one_task_each() {
    let Some(fake) = FakeGlobus::get() else { return };
    let config = GlobusConfig { tasks_max: LIVES, ..fake.config() };
    let errands: Vec<Errand> = (0..LIVES)
        .map(|n| {
            let name = format!("life/{n}");
            let address = fake.put(&name, name.as_bytes());
            fake.errand(&address, &name)
        })
        .collect();
    for (wave, errands) in errands.chunks(LIVES_AT_ONCE).enumerate() {
        // Each life hangs where it is to be killed: in one wave of four before its submission
        // arrived, else after it was accepted and before it heard so.
        let is_before = wave % 4 == 3;
        let hang = json!({"hang": true, "after": !is_before, "times": errands.len()});
        fake.answer("POST", "/v0.10/transfer", &hang);
        let state_dir = &config.state_dir;
        let mut lives: Vec<Child> = errands.iter().map(|e| live(&fake, state_dir, e)).collect();
        let so_many = (wave + 1) * LIVES_AT_ONCE;
        fake.until("submissions", |noted| noted["submitted"].as_object().unwrap().len() == so_many)
            .await;
        for life in &mut lives {
            life.kill().expect("it lived up to here");
            life.wait().expect("it ends");
        }
    }
    assert_eq!(records(&config), 2 * LIVES, "a record and a lock each");
    assert!(fake.tasks().values().all(|count| *count == 1));
    assert_eq!(fake.tasks().len(), LIVES * 4 / 5, "those that were accepted");

    let second_life = Globus::new(config.clone()).unwrap();
    let results = bring_all(&second_life, errands).await;
    assert!(results.iter().all(Result::is_ok), "{results:?}");
    let tasks = fake.tasks();
    assert_eq!(tasks.len(), LIVES);
    assert!(tasks.values().all(|count| *count == 1), "{tasks:?}");
    for n in 0..LIVES {
        let name = format!("life/{n}");
        assert_eq!(fs::read(fake.here(&name)).unwrap(), name.as_bytes());
    }
    assert_eq!(records(&config), 0);
}

#[tokio::test]
async fn results_of_an_earlier_life_are_taken_once() {
    let Some(fake) = FakeGlobus::get() else { return };
    let config = fake.config();
    let addresses = ["x", "y"].map(|name| fake.put(name, name.as_bytes()));
    {
        // A life that ends while its task goes on: its runtime stops, as by a kill.
        let runtime = tokio::runtime::Runtime::new().unwrap();
        fake.control(&json!({"pause": true}));
        let globus = Globus::new(config.clone()).unwrap();
        let errands = vec![fake.errand(&addresses[0], "x"), fake.errand(&addresses[1], "y")];
        runtime.spawn(async move { bring_all(&globus, errands).await });
        fake.until_asked("/v0.10/task/").await;
        tokio::task::spawn_blocking(move || runtime.shutdown_timeout(Duration::from_secs(10)))
            .await
            .unwrap();
    }
    fake.control(&json!({"pause": false}));
    let globus = Globus::new(config.clone()).unwrap();
    globus.bring(&fake.errand(&addresses[0], "x")).await.unwrap();
    assert_eq!(records(&config), 2, "somebody may come for the other one");
    globus.bring(&fake.errand(&addresses[1], "y")).await.unwrap();
    assert_eq!(records(&config), 0);
    assert_eq!(fake.tasks_in_all(), 1);
    // A later errand for the same file is another one: the file may have changed.
    fake.put("x", b"changed");
    globus.bring(&fake.errand(&addresses[0], "x")).await.unwrap();
    assert_eq!(fs::read(fake.here("x")).unwrap(), b"changed");
    assert_eq!(fake.tasks_in_all(), 2);
}
