//! What buckets do beyond what every protocol does.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::Write as _;
use std::os::unix::fs::PermissionsExt as _;
use std::sync::Arc;
use std::time::Duration;

use keelboat_engine::{Content, Digest, FailureClass, Kind};
use keelboat_staging::{
    Condition, Credential, Credentials, Depth, Entry, FetchError, FetchRequest, Forgetful,
    ListRequest, Metadata, OpenRequest, Opened, Proof, Protocol, Secret, Stager, TransferError,
    Turn, Writing, digest_path,
};

use super::conformance::conformance;
use crate::common::buckets::{Buckets, Cloud, put, request_for};
use crate::common::{PAGE_KEYS, config, noise, room};

const CLOUDS: [Cloud; 3] = [Cloud::S3, Cloud::Gs, Cloud::Az];

#[tokio::test]
async fn buckets_conform_with_azurite() {
    let Some(buckets) = Buckets::of(Cloud::Az) else { return };
    conformance(buckets).await;
}

#[tokio::test]
async fn buckets_conform_with_the_xml_api_of_google() {
    let Some(buckets) = Buckets::of(Cloud::Gs) else { return };
    conformance(buckets).await;
}

async fn failure(protocol: Arc<dyn Protocol>, address: &str) -> FetchError {
    let dir = room();
    let fetcher = Stager::with_protocols(config(dir.path()), vec![protocol], vec![]);
    fetcher.fetch(FetchRequest::new(address)).await.expect_err("it fails")
}

async fn read(
    protocol: &dyn Protocol,
    address: &str,
    range: (u64, Option<u64>),
    condition: Condition,
) -> Result<(Metadata, u64, Vec<u8>), TransferError> {
    let (offset, end) = range;
    let request =
        OpenRequest { address: address.into(), offset, end, condition, turn: Turn::default() };
    let Opened::Body { metadata, offset, mut stream } = protocol.open(&request).await? else {
        panic!("an object was expected to come")
    };
    let mut bytes = Vec::new();
    while let Some(piece) = stream.next().await? {
        bytes.extend_from_slice(&piece);
    }
    Ok((metadata, offset, bytes))
}

async fn whole(protocol: &dyn Protocol, address: &str) -> Result<Vec<u8>, TransferError> {
    let (_, _, bytes) = read(protocol, address, (0, None), Condition::Always).await?;
    Ok(bytes)
}

async fn list(
    protocol: &dyn Protocol,
    address: &str,
    depth: Depth,
) -> Result<BTreeMap<String, Entry>, TransferError> {
    let entries = protocol.list(&ListRequest { address: address.into(), depth }).await?;
    let count = entries.len();
    let entries: BTreeMap<_, _> =
        entries.into_iter().map(|entry| (entry.path.clone(), entry)).collect();
    assert_eq!(entries.len(), count, "each is listed once");
    Ok(entries)
}

fn names(entries: &BTreeMap<String, Entry>) -> Vec<(&str, Kind)> {
    entries.values().map(|entry| (&*entry.path, entry.kind)).collect()
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

#[tokio::test]
async fn what_is_put_is_there_and_listed_as_it_is_opened() {
    for cloud in CLOUDS {
        let Some(buckets) = Buckets::of(cloud) else { continue };
        let protocol = &*buckets.protocol();
        assert_eq!(protocol.writing(), Writing::Whole);
        let names = ["dir/empty", "dir/a b%?#+&é", "dir/sub/deep/x", "dir.txt", "dir-2/y"];
        for name in names {
            let bytes = if name == "dir/empty" { b"" } else { name.as_bytes() };
            let address = buckets.address(name);
            // None of these servers says that it has looked at a checksum.
            let proof = put(protocol, &address, bytes).await.expect("it is put");
            assert_eq!(proof, Proof::Unchecked, "{cloud:?} {name}");
            assert_eq!(whole(protocol, &address).await.expect("it is there"), bytes);
        }
        for directory in [buckets.address("dir"), format!("{}/", buckets.address("dir"))] {
            let one = list(protocol, &directory, Depth::One).await.expect("listed");
            let (file, folder) = (Kind::File, Kind::Directory);
            let expected = [("a b%?#+&é", file), ("empty", file), ("sub", folder)];
            assert_eq!(super::buckets::names(&one), expected, "{cloud:?}");
            let all = list(protocol, &directory, Depth::All).await.expect("listed");
            let expected = [("a b%?#+&é", file), ("empty", file), ("sub/deep/x", file)];
            assert_eq!(super::buckets::names(&all), expected, "{cloud:?}");
            for (path, entry) in &all {
                let address = buckets.address(&format!("dir/{path}"));
                let opened = read(protocol, &address, (0, None), Condition::Always).await;
                let (metadata, ..) = opened.expect("it opens");
                assert_eq!(entry.validators, metadata.validators, "{cloud:?} {path}");
                assert_eq!(entry.length, metadata.length);
                assert!(entry.validators.strong().is_some(), "{cloud:?}");
            }
        }
        let top = list(protocol, &buckets.address(""), Depth::One).await.expect("listed");
        let expected =
            [("dir", Kind::Directory), ("dir-2", Kind::Directory), ("dir.txt", Kind::File)];
        assert_eq!(super::buckets::names(&top), expected, "{cloud:?}");

        protocol.remove(&buckets.address("dir")).await.expect("removed");
        let gone = list(protocol, &buckets.address("dir"), Depth::All).await;
        assert!(matches!(gone, Err(TransferError::Missing { .. })), "{cloud:?} {gone:?}");
        protocol.remove(&buckets.address("dir")).await.expect("what is gone is no error");
        let left = list(protocol, &buckets.address(""), Depth::All).await.expect("listed");
        assert_eq!(left.len(), 2, "{cloud:?}: its neighbours stay");
        let bucket = protocol.remove(&buckets.address("")).await;
        assert!(matches!(bucket, Err(TransferError::Refused { .. })), "{bucket:?}");
    }
}

#[tokio::test]
async fn ranges_end_where_they_were_asked_to() {
    for cloud in CLOUDS {
        let Some(buckets) = Buckets::of(cloud) else { continue };
        let protocol = &*buckets.protocol();
        let bytes = noise(7, 100_000);
        let address = buckets.put("ranges", &bytes);
        for (start, end) in [(0, 1), (0, 50_000), (49_999, 50_001), (99_999, 200_000)] {
            let range = (start as u64, Some(end as u64));
            let opened = read(protocol, &address, range, Condition::Always).await;
            let (metadata, offset, found) = opened.expect("it comes");
            assert_eq!((metadata.length, offset), (Some(100_000), start as u64), "{cloud:?}");
            assert!(found == bytes[start..end.min(100_000)], "{cloud:?} {start}..{end}");
        }
        let address = buckets.put("empty", b"");
        let opened = read(protocol, &address, (0, Some(10)), Condition::Always).await;
        let (metadata, offset, found) = opened.expect("it comes");
        assert_eq!((metadata.length, offset, found.len()), (Some(0), 0, 0), "{cloud:?}");
    }
}

#[tokio::test]
async fn an_object_that_changes_between_its_ranges_is_never_mixed() {
    for cloud in CLOUDS {
        let Some(buckets) = Buckets::of(cloud) else { continue };
        let protocol = &*buckets.protocol();
        for version in 0..20_u8 {
            let address = buckets.address("changing");
            put(protocol, &address, &[version; 1000]).await.expect("it is put");
            let first = read(protocol, &address, (0, Some(500)), Condition::Always).await;
            let (metadata, ..) = first.expect("it comes");
            let known = metadata.validators;
            let condition = Condition::IfSame { known, length: Some(1000) };
            let same = read(protocol, &address, (500, None), condition.clone()).await;
            let (_, offset, rest) = same.expect("it comes");
            assert_eq!((offset, rest), (500, vec![version; 500]), "{cloud:?}");
            put(protocol, &address, &[version + 1; 1000]).await.expect("it is put");
            let changed = read(protocol, &address, (500, None), condition).await;
            let (_, offset, all) = changed.expect("it comes");
            assert_eq!((offset, all), (0, vec![version + 1; 1000]), "{cloud:?}");
        }
    }
}

/// A file of 100 MB that is mostly a hole.
fn sparse(dir: &tempfile::TempDir) -> (std::path::PathBuf, Content) {
    let path = dir.path().join("sparse");
    let mut file = File::create(&path).expect("a file");
    file.write_all(b"begin").expect("written");
    file.set_len(100_000_000).expect("its length");
    let content = digest_path(&path, Kind::File, &Forgetful, true).expect("its digest");
    (path, content)
}

#[tokio::test]
async fn a_large_file_goes_in_parts_and_comes_back() {
    let dir = room();
    let (path, content) = sparse(&dir);
    for cloud in CLOUDS {
        let Some(buckets) = Buckets::of(cloud) else { continue };
        let protocol = buckets.protocol();
        let request = request_for(&buckets.address("large"), &path, content);
        protocol.put(&request).await.expect("it is put");
        assert_eq!(request.sent.get(), content.bytes, "each byte is counted once");
        let here = room();
        let fetcher = Stager::with_protocols(config(here.path()), vec![protocol], vec![]);
        let request = FetchRequest::new(&*request.address).expecting(content.digest);
        fetcher.fetch(request).await.expect("it comes back");
    }
}

/// Waits until moto has no unfinished upload.
async fn no_upload_is_left(buckets: &Buckets) {
    for _ in 0..300 {
        let uploads = buckets.ask("GET", "/test?uploads", &[], b"");
        if !uploads.contains("<Upload>") {
            return;
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    panic!("an upload is still there: {}", buckets.ask("GET", "/test?uploads", &[], b""));
}

#[tokio::test]
async fn a_put_that_is_given_up_leaves_nothing() {
    let Some(buckets) = Buckets::get() else { return };
    let (dir, protocol) = (room(), buckets.protocol());
    let (path, content) = sparse(&dir);
    let address = buckets.put("old", b"the old one");
    let request = request_for(&address, &path, content);
    let sent = request.sent.clone();
    let task = tokio::spawn({
        let protocol = Arc::clone(&protocol);
        async move { protocol.put(&request).await }
    });
    while sent.get() < 20_000_000 {
        assert!(!task.is_finished(), "it is cut before its end");
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    task.abort();
    assert!(task.await.expect_err("it was cut").is_cancelled());
    no_upload_is_left(&buckets).await;
    assert_eq!(whole(&*protocol, &address).await.expect("it is there"), b"the old one");

    let other = Content { digest: Digest::of(b"what it was"), ..content };
    let error = protocol.put(&request_for(&address, &path, other)).await.expect_err("it changed");
    assert!(matches!(error, TransferError::Local { .. }), "{error}");
    no_upload_is_left(&buckets).await;
    let small = dir.path().join("small");
    std::fs::write(&small, b"longer than it was").expect("a file");
    let said = Content { bytes: 6, digest: Digest::of(b"longer"), kind: Kind::File };
    let error = protocol.put(&request_for(&address, &small, said)).await.expect_err("it grew");
    assert!(matches!(error, TransferError::Local { .. }), "{error}");
    assert_eq!(whole(&*protocol, &address).await.expect("it is there"), b"the old one");
}

#[tokio::test]
async fn readers_see_the_old_object_until_the_new_one_is_whole() {
    let Some(buckets) = Buckets::get() else { return };
    let (dir, protocol) = (room(), buckets.protocol());
    let (path, content) = sparse(&dir);
    let address = buckets.put("replaced", b"the old one");
    let request = request_for(&address, &path, content);
    let task = tokio::spawn({
        let protocol = Arc::clone(&protocol);
        async move { protocol.put(&request).await }
    });
    loop {
        let is_put = task.is_finished();
        let opened = read(&*protocol, &address, (0, Some(11)), Condition::Always).await;
        let (metadata, ..) = opened.expect("one of the two is there");
        let length = metadata.length.expect("a length");
        assert!(length == 11 || length == content.bytes, "{length} bytes");
        if is_put {
            assert_eq!(length, content.bytes);
            break;
        }
    }
    task.await.expect("it ends").expect("it is put");
}

#[tokio::test]
async fn a_long_listing_comes_in_pages() {
    let Some(buckets) = Buckets::get() else { return };
    let protocol = &*buckets.protocol();
    // Two pages and a half.
    let keys = PAGE_KEYS * 5 / 2;
    for number in 0..keys {
        buckets.ask("PUT", &format!("/test/many/{number:04}"), &[], b"");
    }
    for depth in [Depth::One, Depth::All] {
        let entries = list(protocol, "s3://test/many", depth).await.expect("listed");
        let expected: Vec<String> = (0..keys).map(|number| format!("{number:04}")).collect();
        assert!(entries.keys().eq(&expected), "{} entries", entries.len());
        assert!(entries.values().all(|entry| entry.kind == Kind::File));
    }
    protocol.remove("s3://test/many").await.expect("removed");
    let gone = list(protocol, "s3://test/many", Depth::All).await;
    assert!(matches!(gone, Err(TransferError::Missing { .. })), "{gone:?}");
}

#[tokio::test]
async fn markers_are_directories_and_are_removed_with_them() {
    let Some(buckets) = Buckets::get() else { return };
    let protocol = &*buckets.protocol();
    for key in ["empty/", "d/", "d/x%26%27y/", "d/sub/", "d/sub/file", "d/none", "d/none/"] {
        buckets.ask("PUT", &format!("/test/{key}"), &[], b"");
    }
    let empty = list(protocol, "s3://test/empty", Depth::One).await.expect("it is there");
    assert_eq!(names(&empty), []);
    let (file, folder) = (Kind::File, Kind::Directory);
    let one = [("none", file), ("none", folder), ("sub", folder), ("x&'y", folder)];
    let mut all = one.to_vec();
    all.push(("sub/file", file));
    for (depth, expected) in [(Depth::One, one.to_vec()), (Depth::All, all)] {
        let request = ListRequest { address: "s3://test/d/".into(), depth };
        let found = protocol.list(&request).await.expect("listed");
        assert_eq!(found.len(), expected.len(), "{found:?}");
        for (path, kind) in expected {
            let is_it = |entry: &Entry| entry.path == path && entry.kind == kind;
            assert!(found.iter().any(is_it), "{path} {kind:?} is not in {found:?}");
        }
    }
    for directory in ["s3://test/d", "s3://test/empty/"] {
        protocol.remove(directory).await.expect("removed");
    }
    let left = list(protocol, "s3://test/", Depth::All).await.expect("listed");
    assert_eq!(names(&left), []);
}

#[tokio::test]
async fn writing_to_a_bucket_that_is_not_there_names_it() {
    let Some(buckets) = Buckets::get() else { return };
    let dir = room();
    let file = dir.path().join("file");
    std::fs::write(&file, b"x").expect("a file");
    let content = digest_path(&file, Kind::File, &Forgetful, true).expect("a digest");
    let request = request_for(&buckets.address_in("nowhere", "x"), &file, content);
    let error = buckets.protocol().put(&request).await.expect_err("there is no such bucket");
    assert!(error.to_string().contains("there is no bucket nowhere"), "{error}");
    assert!(error.hint().contains("make the bucket first"), "{}", error.hint());
}

#[tokio::test]
async fn a_key_that_is_no_path_is_an_error() {
    let Some(buckets) = Buckets::get() else { return };
    buckets.ask("PUT", "/test/d/a//b", &[], b"");
    let listed = list(&*buckets.protocol(), "s3://test/d", Depth::All).await;
    let Err(TransferError::Refused { found, .. }) = listed else { panic!("{listed:?}") };
    assert!(found.contains("empty segments"), "{found}");
}

#[tokio::test]
async fn public_objects_need_no_credentials() {
    if let Some(buckets) = Buckets::get() {
        buckets.ask("PUT", "/test/public", &["x-amz-acl: public-read\r\n"], b"for all");
        let anonymous = buckets.protocol_with(&[("AWS_SKIP_SIGNATURE", "true")]);
        assert_eq!(whole(&*anonymous, "s3://test/public").await.expect("it comes"), b"for all");
    }
    if let Some(buckets) = Buckets::of(Cloud::Az) {
        let (open, closed) = (buckets.address_in("public", "k"), buckets.address("k"));
        for address in [&open, &closed] {
            put(&*buckets.protocol(), address, b"for all").await.expect("it is put");
        }
        let anonymous = &*buckets.protocol_with(&[("AZURE_SKIP_SIGNATURE", "true")]);
        assert_eq!(whole(anonymous, &open).await.expect("it comes"), b"for all");
        let refused = whole(anonymous, &closed).await;
        assert!(refused.is_err(), "{refused:?}");
    }
}

const WRONG: &str = "d3Jvbmcga2V5LCB0b28gc2hvcnQ=";

fn entry(scope: String, key: &str) -> Credential {
    let settings = [("AZURE_STORAGE_ACCOUNT_KEY".to_owned(), Secret::new(key))];
    Credential { scope, settings: settings.into(), ..Credential::default() }
}

#[tokio::test]
async fn wrong_keys_are_refused_and_the_longest_scope_wins() {
    let Some(buckets) = Buckets::of(Cloud::Az) else { return };
    let right = buckets.value("AZURE_KEY");
    let (ours, theirs) = (buckets.address("ours/k"), buckets.address("theirs/k"));
    for address in [&ours, &theirs] {
        put(&*buckets.protocol(), address, b"x").await.expect("it is put");
    }
    let wrong = [("AZURE_STORAGE_ACCOUNT_KEY", WRONG)];
    let error = whole(&*buckets.protocol_with(&wrong), &ours).await.expect_err("it is refused");
    assert_eq!(error.class(), FailureClass::Permanent, "{error}");
    assert!(error.hint().contains("AZURE_STORAGE_ACCOUNT_KEY"), "{}", error.hint());
    assert!(!format!("{error:?}").contains(WRONG), "{error:?}");
    let error = whole(&*buckets.protocol(), &buckets.address_in("elsewhere", "k")).await;
    assert!(matches!(error, Err(TransferError::Missing { .. })), "{error:?}");

    let entries = [entry(buckets.address(""), WRONG), entry(buckets.address("ours"), right)];
    let protocol = &*buckets.protocol_of(&[], Credentials::new(entries));
    assert_eq!(whole(protocol, &ours).await.expect("it comes"), b"x");
    assert!(whole(protocol, &theirs).await.is_err());
}

#[tokio::test]
async fn credentials_that_are_renewed_on_disk_are_used() {
    let Some(buckets) = Buckets::of(Cloud::Az) else { return };
    let address = buckets.put("k", b"x");
    let dir = room();
    let path = dir.path().join("credentials.toml");
    let write = |key: &str| {
        let scope = buckets.address("");
        let text = format!(
            "[[credential]]\nscope = \"{scope}\"\n\
             settings = {{ AZURE_STORAGE_ACCOUNT_KEY = \"{key}\" }}\n"
        );
        std::fs::write(&path, text).expect("a file");
        let mode = std::fs::Permissions::from_mode(0o600);
        std::fs::set_permissions(&path, mode).expect("its mode");
    };
    write(WRONG);
    let credentials = Credentials::load(&path).expect("credentials");
    let protocol = &*buckets.protocol_of(&[], credentials);
    assert!(whole(protocol, &address).await.is_err());
    write(buckets.value("AZURE_KEY"));
    assert_eq!(whole(protocol, &address).await.expect("it comes"), b"x");
}
