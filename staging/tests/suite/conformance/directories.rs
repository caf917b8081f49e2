//! Whole directories: listed, brought, brought again when something in them has changed.

use std::path::Path;

use keelboat_engine::{Content, FailureClass, Kind};
use keelboat_staging::{
    Depth, Entry, FetchError, FetchRequest, Fetched, Forgetful, Known, Stager, address_digest,
    digest_path,
};

use super::Place;
use crate::common::flaky::{Fault, Flaky};
use crate::common::{config, room};
use std::sync::Arc;

const FILES: [(&str, &[u8]); 6] = [
    ("plain", b"plain"),
    ("empty", b""),
    ("a b/100%", b"a percent sign"),
    ("a b/q?x=y#z+&;", b"signs of URLs"),
    ("deep/er/na\u{ef}ve-\u{65e5}\u{672c}", b"far down"),
    ("deep/it's \"q\"", b"quotes"),
];

pub(super) async fn directories(place: &dyn Place) {
    if !place.can_list() {
        println!("skipped: directories: they are not listed there");
        return;
    }
    let files: Vec<_> = FILES.into_iter().filter(|(name, _)| place.can_name(name)).collect();
    for (name, bytes) in &files {
        place.put(&format!("tree/{name}"), bytes);
    }
    let plain = place.put("tree/plain", b"plain");
    let address = plain.strip_suffix("/plain").expect("its directory");
    listed(place, address, &files).await;
    let first = fetch(place, address, None, vec![Fault::cut(3)]).await;
    let first = assert_tree(first, &files);
    let is_known = place.protocol().schemes() != ["file"];
    if is_known {
        let again = fetch(place, address, Some(first.clone()), vec![]).await.0;
        assert_eq!(again, Ok(Fetched::Unchanged));
    }
    place.put("tree/plain", b"not so plain");
    let changed: Vec<_> = files
        .iter()
        .map(|(name, bytes)| (*name, if *name == "plain" { b"not so plain" } else { *bytes }))
        .collect();
    let second = assert_tree(fetch(place, address, Some(first), vec![]).await, &changed);
    place.remove("tree/plain");
    let fewer: Vec<_> = changed.into_iter().filter(|(name, _)| *name != "plain").collect();
    assert_tree(fetch(place, address, Some(second), vec![]).await, &fewer);
    let error = fetch(place, &format!("{address}-none"), None, vec![]).await.0;
    let error = error.expect_err("there is none");
    assert_eq!(error.failure.class, FailureClass::InputMissing, "{error}");
}

async fn listed(place: &dyn Place, address: &str, files: &[(&str, &[u8])]) {
    let dir = room();
    let stager = Stager::with_protocols(config(dir.path()), vec![place.protocol()], vec![]);
    let all = stager.list(address, Depth::All).await.expect("a list");
    let mut found: Vec<_> = all.iter().filter(|entry| entry.kind == Kind::File).map(said).collect();
    let mut expected: Vec<_> =
        files.iter().map(|(name, bytes)| (*name, Some(bytes.len() as u64))).collect();
    found.sort_unstable();
    expected.sort_unstable();
    assert_eq!(found, expected);
    let one = stager.list(&format!("{address}/"), Depth::One).await.expect("a list");
    let mut names: Vec<_> = one.iter().map(|entry| (&*entry.path, entry.kind)).collect();
    names.sort_unstable_by_key(|(name, _)| *name);
    let directory = |name| (name, Kind::Directory);
    let file = |name| (name, Kind::File);
    assert_eq!(names, [directory("a b"), directory("deep"), file("empty"), file("plain")]);
    let itself = stager.list(&format!("{address}/plain"), Depth::One).await.expect("a file");
    assert_eq!(itself.iter().map(said).collect::<Vec<_>>(), [("plain", Some(5))]);
    stager.list(&format!("{address}/none"), Depth::One).await.expect_err("there is none");
}

fn said(entry: &Entry) -> (&str, Option<u64>) {
    (&entry.path, entry.length)
}

type Brought = (Result<Fetched, FetchError>, tempfile::TempDir);

async fn fetch(
    place: &dyn Place,
    address: &str,
    known: Option<Known>,
    faults: Vec<Fault>,
) -> Brought {
    let dir = room();
    let flaky = Arc::new(Flaky::new(place.protocol(), faults));
    let stager = Stager::with_protocols(config(dir.path()), vec![flaky], vec![]);
    let request = FetchRequest { known, ..FetchRequest::new(address).of_kind(Kind::Directory) };
    (stager.fetch(request).await, dir)
}

/// These files came and no others; what is known of them now.
fn assert_tree((fetched, _dir): Brought, files: &[(&str, &[u8])]) -> Known {
    let fetched = fetched.expect("it comes");
    let Fetched::New { path, content, etag, last_modified, source_used, .. } = fetched else {
        panic!("a directory was expected to come");
    };
    assert_eq!(content, expected(files));
    assert_eq!(digest(&path), content);
    let source = Some(address_digest(&source_used));
    Known { content, etag, last_modified, source }
}

fn expected(files: &[(&str, &[u8])]) -> Content {
    let dir = room();
    for (name, bytes) in files {
        let path = dir.path().join(name);
        std::fs::create_dir_all(path.parent().expect("a parent")).expect("a directory");
        std::fs::write(path, bytes).expect("a file");
    }
    digest(dir.path())
}

fn digest(path: &Path) -> Content {
    digest_path(path, Kind::Directory, &Forgetful, true).expect("a directory")
}
