//! The journal of version 1, as it was written when that version was made.

use keelboat_checkpoint::read_journal;

use super::common::{all_kinds, folder, read, write_journal};

const GOLDEN: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/golden/journal-v1.bin");

#[test]
fn version_1_is_read() {
    let recovered = read_journal(GOLDEN.as_ref()).unwrap();
    assert_eq!(recovered.facts, all_kinds());
    assert_eq!((recovered.torn, recovered.damaged), (None, vec![]));
}

/// When this fails, the format has changed: that needs a new version and a new golden file.
#[test]
fn version_1_is_written_to_the_byte() {
    let folder = folder();
    let path = folder.path().join("journal");
    write_journal(&path, &all_kinds());
    assert_eq!(read(&path), read(GOLDEN.as_ref()));
}

#[test]
#[ignore = "writes the golden file of a new version"]
fn write_golden() {
    let path = std::path::Path::new(GOLDEN);
    assert!(!path.exists(), "a golden file is never replaced");
    write_journal(path, &all_kinds());
}
