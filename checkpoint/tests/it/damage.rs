//! Journals with flipped bits, cut ends and foreign bytes.

use std::fs::{self, OpenOptions};
use std::path::Path;

use keelboat_checkpoint::{
    DamageKind, Journal, JournalError, JournalReader, Mended, Recovered, mend_journal, read_journal,
};
use keelboat_engine::Stamped;
use proptest::prelude::*;

use super::common::{
    all_kinds, completed, fetched, folder, next_random, open, read, reused, write, write_journal,
};

const HEADER_BYTES: u64 = 16;

fn small() -> Vec<Stamped> {
    vec![completed(1), reused(2), fetched(3), reused(4)]
}

fn journal_bytes(facts: &[Stamped]) -> (Vec<u8>, Vec<u64>) {
    let folder = folder();
    let path = folder.path().join("journal");
    let ends = write_journal(&path, facts);
    (read(&path), ends)
}

fn read_bytes(path: &Path, bytes: &[u8]) -> Recovered {
    write(path, bytes);
    read_journal(path).expect("damage is no error")
}

/// Whether something in the answer names a stretch with this byte in it.
fn names(recovered: &Recovered, byte: u64) -> bool {
    let damaged = recovered.damaged.iter().map(|damage| (damage.offset, damage.bytes));
    let torn = recovered.torn.iter().map(|torn| (torn.offset, torn.bytes));
    damaged.chain(torn).any(|(offset, bytes)| (offset..offset + bytes).contains(&byte))
}

#[test]
fn facts_of_all_kinds_come_back() {
    let folder = folder();
    let path = folder.path().join("runs/1/journal");
    write_journal(&path, &all_kinds());
    let (_, recovered) = open(&path);
    assert_eq!(recovered.facts, all_kinds());
    assert_eq!((recovered.torn, recovered.damaged), (None, vec![]));
}

#[test]
fn every_flipped_bit_is_named_and_costs_one_record_at_most() {
    let facts = small();
    let (bytes, ends) = journal_bytes(&facts);
    let folder = folder();
    let path = folder.path().join("journal");
    for bit in 0..bytes.len() * 8 {
        let byte = bit / 8;
        let mut flipped = bytes.clone();
        flipped[byte] ^= 1 << (bit % 8);
        let recovered = read_bytes(&path, &flipped);
        let hit = ends.iter().position(|end| (byte as u64) < *end);
        let mut expected = facts.clone();
        if byte as u64 >= HEADER_BYTES {
            expected.remove(hit.expect("a bit of a record"));
        } else {
            assert_eq!(recovered.damaged[0].kind, DamageKind::Header);
        }
        assert_eq!(recovered.facts, expected, "bit {bit}");
        assert!(names(&recovered, byte as u64), "bit {bit}: {recovered:?}");
    }
}

#[test]
fn a_journal_cut_anywhere_keeps_what_is_whole_and_goes_on() {
    let facts = small();
    let (bytes, ends) = journal_bytes(&facts);
    let folder = folder();
    let path = folder.path().join("journal");
    for length in 0..bytes.len() {
        write(&path, &bytes[..length]);
        let length = length as u64;
        let whole = ends.iter().filter(|end| **end <= length).count();
        let start = ends[..whole].last().copied().unwrap_or(HEADER_BYTES);
        let (mut journal, recovered) = open(&path);
        assert_eq!(recovered.facts, facts[..whole], "cut at {length}");
        match recovered.torn {
            None => assert!(length == start || length == 0, "cut at {length}"),
            Some(torn) => assert_eq!(torn.offset + torn.bytes, length),
        }
        journal.append(&[completed(9)]).unwrap();
        let again = read_journal(&path).unwrap();
        assert_eq!(again.facts.last(), Some(&completed(9)));
        assert_eq!((again.facts.len(), again.torn), (whole + 1, None));
        assert_eq!(again.damaged, vec![]);
    }
}

#[test]
fn a_damaged_journal_is_mended_and_kept_as_it_was() {
    let (mut bytes, ends) = journal_bytes(&small());
    let folder = folder();
    let (path, aside) = (folder.path().join("journal"), folder.path().join("damaged/journal"));
    write(&path, &bytes);
    assert_eq!(mend_journal(&path, &aside).unwrap(), Mended::Whole);
    assert!(!aside.exists());
    bytes[usize::try_from(ends[1]).unwrap() + 20] ^= 1;
    write(&path, &bytes);
    assert_eq!(mend_journal(&path, &aside).unwrap(), Mended::Anew { records: 3 });
    assert_eq!(read(&aside), bytes);
    let recovered = read_journal(&path).unwrap();
    let kept = [completed(1), reused(2), reused(4)];
    assert_eq!((&recovered.facts[..], recovered.damaged), (&kept[..], vec![]));
}

#[test]
fn a_frame_that_was_copied_elsewhere_is_none() {
    let (bytes, ends) = journal_bytes(&small());
    let folder = folder();
    let path = folder.path().join("journal");
    let frame = &bytes[usize::try_from(ends[0]).unwrap()..usize::try_from(ends[1]).unwrap()];
    let recovered = read_bytes(&path, &[&bytes, frame].concat());
    assert_eq!(recovered.facts, small());
    assert_eq!(recovered.damaged[0].offset, bytes.len() as u64);
}

#[test]
fn another_version_is_an_error_that_says_so() {
    let folder = folder();
    let path = folder.path().join("journal");
    let mut header = *b"KEELJRNL\x02\0\0\0\0\0\0\0";
    let crc = crc32(&header[..12]);
    header[12..].copy_from_slice(&crc.to_le_bytes());
    write(&path, &header);
    let error = read_journal(&path).unwrap_err();
    assert!(matches!(error, JournalError::Version { found: 2, .. }), "{error}");
    assert!(Journal::create_or_open(&path).is_err());
    assert_eq!(read(&path), header, "nothing was written");
}

/// CRC-32 (IEEE) bit by bit, independent of the one in use.
fn crc32(bytes: &[u8]) -> u32 {
    !bytes.iter().fold(u32::MAX, |crc, byte| {
        (0..8).fold(crc ^ u32::from(*byte), |crc, _| {
            if crc & 1 == 1 { crc >> 1 ^ 0xEDB8_8320 } else { crc >> 1 }
        })
    })
}

#[test]
fn a_live_reader_follows_and_leaves_unfinished_records_alone() {
    let (bytes, ends) = journal_bytes(&small());
    let folder = folder();
    let path = folder.path().join("journal");
    write(&path, &[]);
    let mut reader = JournalReader::open(&path).unwrap();
    let mut seen = Vec::new();
    for length in 0..=bytes.len() {
        let mut file = OpenOptions::new().write(true).open(&path).unwrap();
        std::io::Write::write_all(&mut file, &bytes[..length]).unwrap();
        let new = reader.poll().unwrap();
        assert_eq!(new.damaged, vec![]);
        seen.extend(new.facts);
        assert_eq!(seen.len(), ends.iter().filter(|end| **end <= length as u64).count());
    }
    assert_eq!(seen, small());
}

#[test]
fn journals_larger_than_a_window_are_read_whole() {
    let folder = folder();
    let path = folder.path().join("journal");
    let facts: Vec<_> = (0..12).map(|_| super::common::long_fact()).collect();
    write_journal(&path, &facts);
    let mut bytes = read(&path);
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    write(&path, &bytes);
    let recovered = read_journal(&path).unwrap();
    assert_eq!((recovered.facts.len(), recovered.damaged.len()), (11, 1));
    assert!(names(&recovered, middle as u64));
}

#[test]
fn journals_are_private() {
    use std::os::unix::fs::PermissionsExt as _;
    let folder = folder();
    let path = folder.path().join("state/runs/1/journal");
    write_journal(&path, &small());
    let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
    assert_eq!(mode(&path), 0o600);
    assert_eq!(mode(&folder.path().join("state")), 0o700);
    assert_eq!(mode(path.parent().unwrap()), 0o700);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// Whatever is done to the bytes: no fact is invented, their order stays, and the journal can
    /// be written on.
    #[test]
    fn foreign_bytes_never_make_facts(seed: u64, edits in 1..6_usize, foreign in prop::collection::vec(any::<u8>(), 0..80)) {
        let facts: Vec<_> = (0..12).map(|n| if n % 2 == 0 { completed(n) } else { reused(n) }).collect();
        let (mut bytes, _) = journal_bytes(&facts);
        let mut seed = seed;
        for _ in 0..edits {
            let at = next_random(&mut seed) % (bytes.len() + 1);
            let until = (at + next_random(&mut seed) % 60).min(bytes.len());
            match next_random(&mut seed) % 3 {
                0 => drop(bytes.splice(at..until, foreign.clone())),
                1 => bytes[at..until].fill(0),
                _ => bytes.truncate(at),
            }
        }
        let folder = folder();
        let path = folder.path().join("journal");
        write(&path, &bytes);
        let (mut journal, recovered) = open(&path);
        let mut originals = facts.iter();
        for fact in &recovered.facts {
            prop_assert!(originals.any(|original| original == fact), "invented or out of order");
        }
        let kept = recovered.facts.len();
        journal.append(&[fetched(7)]).unwrap();
        let again = read_journal(&path).unwrap();
        prop_assert_eq!(again.facts.len(), kept + 1);
        prop_assert_eq!(again.facts.last(), Some(&fetched(7)));
    }
}
