//! The digest cache.

use std::fs;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use keelboat_checkpoint::{DigestCache, stamp_of};
use keelboat_engine::{Digest, FileStamp};

use super::common::{folder, read, write};

fn stamp(inode: u64) -> FileStamp {
    let modified_ns = 1_700_000_000_123_456_789;
    FileStamp { device: 3, inode, size: 10, modified_ns, changed_ns: modified_ns + 5 }
}

fn digest(inode: u64) -> Digest {
    Digest::of(&inode.to_le_bytes())
}

#[test]
fn what_is_saved_is_known_again() {
    let folder = folder();
    for round in 0..5_u64 {
        let cache = DigestCache::load(folder.path());
        assert_eq!(cache.len() as u64, round * 1000);
        for inode in round * 1000..(round + 1) * 1000 {
            cache.remember_own(&stamp(inode), digest(inode));
        }
        cache.save().unwrap();
    }
    let cache = DigestCache::load(folder.path());
    assert!((0..5000).all(|inode| cache.lookup(&stamp(inode)) == Some(digest(inode))));
}

#[test]
fn a_changed_file_is_not_known_and_replaces_the_old_one() {
    let folder = folder();
    let cache = DigestCache::load(folder.path());
    cache.remember_own(&stamp(1), digest(1));
    let changed = FileStamp { changed_ns: stamp(1).changed_ns + 1, ..stamp(1) };
    assert_eq!(cache.lookup(&changed), None);
    cache.remember_own(&changed, digest(2));
    assert_eq!((cache.lookup(&stamp(1)), cache.len()), (None, 1));
}

#[test]
fn a_file_that_has_just_changed_is_not_trusted() {
    let folder = folder();
    let cache = DigestCache::load(folder.path());
    let changed_ns = u64::try_from(stamp(1).changed_ns).unwrap();
    let changed = UNIX_EPOCH + Duration::from_nanos(changed_ns);
    for (hashed_at, known) in [
        (changed - Duration::from_secs(1), None),
        (changed, None),
        (changed + Duration::from_millis(19), None),
        (changed + Duration::from_millis(21), Some(digest(1))),
    ] {
        cache.remember(&stamp(1), digest(1), hashed_at);
        assert_eq!(cache.lookup(&stamp(1)), known);
    }
}

#[test]
fn a_real_file_changed_right_after_hashing_is_hashed_again() {
    let folder = folder();
    let file = folder.path().join("file");
    write(&file, b"one");
    let cache = DigestCache::load(folder.path());
    cache.remember(&stamp_of(&fs::metadata(&file).unwrap()), Digest::of(b"one"), SystemTime::now());
    write(&file, b"two");
    assert_eq!(cache.lookup(&stamp_of(&fs::metadata(&file).unwrap())), None);
}

#[test]
fn links_made_by_ourselves_carry_the_digest() {
    let folder = folder();
    let file = folder.path().join("file");
    write(&file, b"one");
    let cache = DigestCache::load(folder.path());
    let before = stamp_of(&fs::metadata(&file).unwrap());
    cache.remember_own(&before, Digest::of(b"one"));
    fs::hard_link(&file, folder.path().join("other")).unwrap();
    let after = stamp_of(&fs::metadata(&file).unwrap());
    assert!(cache.carry(&before, &after));
    assert_eq!(cache.lookup(&after), Some(Digest::of(b"one")));
    let rewritten = FileStamp { modified_ns: after.modified_ns + 1, ..after };
    assert!(!cache.carry(&after, &rewritten));
    assert_eq!(cache.lookup(&rewritten), None);
}

#[test]
fn what_is_forgotten_stays_forgotten() {
    let folder = folder();
    let cache = DigestCache::load(folder.path());
    for inode in 0..3 {
        cache.remember_own(&stamp(inode), digest(inode));
    }
    cache.save().unwrap();
    let newer = FileStamp { changed_ns: stamp(2).changed_ns + 1, ..stamp(2) };
    cache.remember_own(&newer, digest(2));
    cache.save().unwrap();
    cache.forget(&stamp(0));
    cache.forget(&stamp(2));
    cache.forget(&stamp(7));
    cache.save().unwrap();
    for cache in [&cache, &DigestCache::load(folder.path())] {
        let known = [stamp(0), stamp(1), newer].map(|stamp| cache.lookup(&stamp));
        assert_eq!(known, [None, Some(digest(1)), Some(digest(2))]);
    }
    cache.remember_own(&stamp(0), digest(0));
    cache.save().unwrap();
    assert_eq!(DigestCache::load(folder.path()).lookup(&stamp(0)), Some(digest(0)));
}

#[test]
fn damage_costs_entries_and_never_lies() {
    let folder = folder();
    let path = folder.path().join("digests");
    let cache = DigestCache::load(folder.path());
    for inode in 0..3 {
        cache.remember_own(&stamp(inode), digest(inode));
        // Appended each time, so that damage to one frame leaves the others.
        cache.save().unwrap();
    }
    drop(cache);
    let bytes = read(&path);
    for bit in 0..bytes.len() * 8 {
        let mut flipped = bytes.clone();
        flipped[bit / 8] ^= 1 << (bit % 8);
        write(&path, &flipped);
        let cache = DigestCache::load(folder.path());
        let known: Vec<_> = (0..3).filter_map(|n| Some((n, cache.lookup(&stamp(n))?))).collect();
        assert!(known.len() < 3, "bit {bit} is not noticed");
        assert!(known.iter().all(|(inode, found)| *found == digest(*inode)), "bit {bit}");
    }
    write(&path, &bytes[..bytes.len() - 1]);
    let cache = DigestCache::load(folder.path());
    cache.remember_own(&stamp(7), digest(7));
    cache.save().unwrap();
    let again = DigestCache::load(folder.path());
    assert_eq!(again.lookup(&stamp(7)), Some(digest(7)));
    assert_eq!(again.lookup(&stamp(0)), Some(digest(0)));
}
