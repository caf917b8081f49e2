//! Every store behind the port behaves alike; damaged values and other versions are noticed.

use std::ops::ControlFlow;
use std::path::Path;
use std::sync::Arc;

use keelboat_engine::{
    Digest, Fact, KeyPart, MemoKey, MemoRecord, OutputRecord, Stamped, Timestamp, Usage,
};

use super::index::{Index, MemoryIndex, Put, Table};
use super::sled_index::SledIndex;
use super::value::{self, MemoEntry};
use super::{MemoNotice, MemoStore};
use crate::journal::Journal;

fn put(table: Table, key: &[u8], value: &[u8]) -> Put {
    Put { table, key: key.to_vec(), value: value.to_vec() }
}

fn entries(index: &dyn Index, table: Table) -> Vec<(Vec<u8>, Vec<u8>)> {
    let mut found = Vec::new();
    index
        .iterate(table, &mut |key, value| {
            found.push((key.to_vec(), value.to_vec()));
            ControlFlow::Continue(())
        })
        .unwrap();
    found
}

/// What the memo store expects of any store.
fn conforms(index: &dyn Index) {
    let long = vec![7; 3 << 20];
    assert_eq!(index.get(Table::Memo, b"a").unwrap(), None);
    let puts = vec![
        put(Table::Memo, b"b", b"2"),
        put(Table::Memo, b"a", b"1"),
        put(Table::Names, b"a", b"name"),
        put(Table::Names, b"", b"empty key"),
        put(Table::Sources, b"long", &long),
    ];
    index.put_batch(puts).unwrap();
    assert_eq!(index.get(Table::Memo, b"a").unwrap().as_deref(), Some(&b"1"[..]));
    assert_eq!(index.get(Table::Names, b"a").unwrap().as_deref(), Some(&b"name"[..]));
    assert_eq!(index.get(Table::Sources, b"long").unwrap(), Some(long));
    assert_eq!(index.get(Table::Marks, b"a").unwrap(), None, "tables are apart");
    let memo = entries(index, Table::Memo);
    let expected = [(b"a".to_vec(), b"1".to_vec()), (b"b".to_vec(), b"2".to_vec())];
    assert_eq!(memo, expected, "in the order of keys");
    index.put_batch(vec![put(Table::Memo, b"a", b"3")]).unwrap();
    index.remove(Table::Memo, b"b").unwrap();
    index.remove(Table::Memo, b"never there").unwrap();
    index.flush().unwrap();
    assert_eq!(entries(index, Table::Memo), [(b"a".to_vec(), b"3".to_vec())]);
    let mut visited = 0;
    index
        .iterate(Table::Names, &mut |_, _| {
            visited += 1;
            ControlFlow::Break(())
        })
        .unwrap();
    assert_eq!(visited, 1, "a visit can be ended");
}

#[test]
fn memory_conforms() {
    conforms(&MemoryIndex::default());
}

#[test]
fn sled_conforms_and_remembers() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("memo");
    conforms(&SledIndex::open(&path).unwrap());
    let index = SledIndex::open(&path).unwrap();
    assert_eq!(index.get(Table::Memo, b"a").unwrap().as_deref(), Some(&b"3"[..]));
}

fn key() -> MemoKey {
    MemoKey(Digest::of(b"key"))
}

fn record() -> MemoRecord {
    let (path, content) = ("out".into(), None);
    MemoRecord { outputs: vec![OutputRecord { path, content, executable: false }], value: None }
}

fn parts() -> Vec<KeyPart> {
    vec![KeyPart { name: "command".into(), value: "true".into() }]
}

/// A run with one result, and an index that was fed with it.
fn project(state: &Path) {
    let (mut journal, _) = Journal::create_or_open(&state.join("runs/1/journal")).unwrap();
    let fact = Fact::Completed {
        task: Arc::from("task"),
        ordinal: 1,
        key: key(),
        parts: parts(),
        record: record(),
        usage: Usage::default(),
        memoized: true,
    };
    journal.append(&[Stamped { at: Timestamp(1), fact }]).unwrap();
    MemoStore::open(state).unwrap().rebuild().unwrap();
}

#[test]
fn a_damaged_value_is_named_and_counts_as_absent() {
    let folder = tempfile::tempdir().unwrap();
    let state = folder.path();
    project(state);
    let index = SledIndex::open(&state.join("memo")).unwrap();
    let bytes = key().0;
    let mut value = index.get(Table::Memo, bytes.as_bytes()).unwrap().unwrap();
    *value.last_mut().unwrap() ^= 1;
    index.put_batch(vec![put(Table::Memo, bytes.as_bytes(), &value)]).unwrap();
    drop(index);
    std::fs::remove_dir_all(state.join("runs")).unwrap();
    let store = MemoStore::open(state).unwrap();
    assert_eq!(store.lookup(&key()).unwrap(), None);
    assert!(
        matches!(&store.notices()[..], [MemoNotice::DamagedValue { table: "memo", key: named }]
        if *named == key().0.to_hex())
    );
    assert_eq!(store.check().unwrap().damaged, [format!("memo {}", key())]);
}

#[test]
fn an_index_of_another_version_is_rebuilt() {
    let folder = tempfile::tempdir().unwrap();
    let state = folder.path();
    project(state);
    let index = SledIndex::open(&state.join("memo")).unwrap();
    index.put_batch(vec![put(Table::Meta, b"format", &[2])]).unwrap();
    drop(index);
    let store = MemoStore::open(state).unwrap();
    assert_eq!(store.lookup(&MemoKey(Digest::of(b"other"))).unwrap(), None);
    assert_eq!(store.lookup(&key()).unwrap(), Some(record()));
    assert_eq!(store.last_parts("task").unwrap(), Some((key(), parts())));
    assert!(matches!(&store.notices()[..], [MemoNotice::Rebuilt { journals: 1, .. }]));
}

#[test]
fn every_flipped_bit_of_a_value_is_noticed_and_so_is_another_place() {
    let entry = MemoEntry { record: record(), parts: Some(parts()) };
    let value = value::encode_memo(key(), "task", &entry).unwrap();
    assert_eq!(value::decode_memo(key(), &value), Ok(entry));
    for bit in 0..value.len() * 8 {
        let mut flipped = value.clone();
        flipped[bit / 8] ^= 1 << (bit % 8);
        assert!(value::decode_memo(key(), &flipped).is_err(), "bit {bit}");
    }
    let elsewhere = MemoKey(Digest::of(b"another key"));
    assert!(value::decode_memo(elsewhere, &value).is_err());
    assert!(value::decode_source(&key().0, &value).is_err());
}
