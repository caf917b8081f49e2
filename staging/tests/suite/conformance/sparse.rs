//! Five gibibytes that are nearly all hole, where a server can hold such a file.
//!
//! They take 5 GiB of disk and some time for each protocol, so these tests are run by name:
//! `cargo test -p keelboat-staging --test suite -- --ignored sparse`.

use std::os::unix::fs::FileExt as _;

use keelboat_engine::Kind;
use keelboat_staging::{FetchRequest, Fetched, Forgetful, Stager, StagingConfig, digest_path};

use super::{Files, Http, Place};
use crate::common::{Servers, room};

const BYTES: u64 = 5 << 30;

/// One such file comes as it is.
pub(crate) async fn sparse(place: &dyn Place) {
    let address = place.put("sparse", b"the first bytes");
    let path = place.path("sparse").expect("a place on this machine");
    let modified = path.metadata().and_then(|found| found.modified()).expect("a moment");
    let file = std::fs::File::options().write(true).open(&path).expect("the file");
    let last = b"the last bytes";
    file.write_all_at(last, BYTES - last.len() as u64).expect("written");
    file.set_modified(modified).expect("a moment");
    let expected = digest_path(&path, Kind::File, &Forgetful, true).expect("its digest");
    assert_eq!(expected.bytes, BYTES);
    let dir = room();
    let config = StagingConfig::new(dir.path());
    let stager = Stager::with_protocols(config, vec![place.protocol()], vec![]);
    let fetched = stager.fetch(FetchRequest::new(address)).await.expect("it comes");
    let Fetched::New { content, transferred, path, .. } = fetched else {
        panic!("a file was expected to come");
    };
    assert_eq!(content, expected);
    assert_eq!(path.metadata().expect("the file").len(), BYTES);
    assert_eq!(transferred, BYTES);
    place.remove("sparse");
}

#[tokio::test]
#[ignore = "5 GiB"]
async fn sparse_files_come_from_this_machine() {
    sparse(&Files(room())).await;
}

#[tokio::test]
#[ignore = "5 GiB"]
async fn sparse_files_come_from_nginx() {
    let Some(servers) = Servers::get() else { return };
    sparse(&Http { servers, prefix: "/json/" }).await;
}
