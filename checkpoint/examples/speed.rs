//! How fast remembering is: `cargo run --release -p keelboat-checkpoint --example speed`.
#![expect(clippy::print_stdout, clippy::unwrap_used, reason = "a measurement for people")]

use std::path::Path;
use std::sync::{Arc, mpsc};
use std::time::Instant;

use keelboat_checkpoint::{DigestCache, Journal, MemoStore, ObjectCache, Restore, read_journal};
use keelboat_engine::{
    Content, Digest, Fact, FileStamp, KeyPart, Kind, MemoKey, MemoRecord, OutputRecord, Reuse,
    Stamped, Timestamp, Usage,
};

const TASKS: usize = 10_000;

fn main() {
    let folder = std::env::temp_dir().join(format!("keelboat-speed-{}", std::process::id()));
    journal_and_memo(&folder);
    group_commit(&folder);
    digest_cache(&folder);
    object_cache(&folder);
    std::fs::remove_dir_all(&folder).unwrap();
}

fn timed<T>(what: &str, work: impl FnOnce() -> T) -> T {
    let (start, cpu) = (Instant::now(), thread_cpu_ms());
    let result = work();
    let cpu = thread_cpu_ms() - cpu;
    println!("{what:<64} {:>9.2} ms {cpu:>9.2} ms CPU", start.elapsed().as_secs_f64() * 1e3);
    result
}

/// Steadier than wall time on a busy machine.
fn thread_cpu_ms() -> f64 {
    let text = std::fs::read_to_string("/proc/thread-self/schedstat").unwrap();
    text.split(' ').next().unwrap().parse::<f64>().unwrap() / 1e6
}

fn record(number: usize) -> (Arc<str>, MemoKey, MemoRecord) {
    let content = Content { digest: Digest::of(b"out"), bytes: 6, kind: Kind::File };
    let path: Arc<str> = format!("out/{number}.txt").into();
    let record = MemoRecord {
        outputs: vec![OutputRecord { path, content: Some(content), executable: false }],
        value: None,
    };
    let key = MemoKey(Digest::of(&number.to_le_bytes()));
    (format!("echo[i={number}]").into(), key, record)
}

fn reused(number: usize) -> Stamped {
    let (task, key, record) = record(number);
    let fact = Fact::Reused { task, key, record, reuse: Reuse::InPlace, memoized: true };
    Stamped { at: Timestamp(1_700_000_000_000), fact }
}

fn completed(number: usize) -> Stamped {
    let (task, key, record) = record(number);
    let part = |name: &str| KeyPart { name: name.into(), value: format!("echo {number}") };
    let parts = vec![part("shell"), part("command"), part("output o")];
    let (ordinal, usage, memoized) = (1, Usage::default(), true);
    let fact = Fact::Completed { task, ordinal, key, parts, record, usage, memoized };
    Stamped { at: Timestamp(1_700_000_000_000), fact }
}

fn journal_and_memo(folder: &Path) {
    let old = folder.join("runs/1/journal");
    let new = folder.join("runs/2/journal");
    let (mut journal, _) = Journal::create_or_open(&old).unwrap();
    let facts: Vec<_> = (0..TASKS).map(completed).collect();
    timed("journal: append 10,000 Completed", || journal.append(&facts).unwrap());
    let (mut journal, _) = Journal::create_or_open(&new).unwrap();
    let facts: Vec<_> = (0..TASKS).map(reused).collect();
    let position = timed("journal: append 10,000 Reused", || journal.append(&facts).unwrap());
    println!("  {} bytes each", position.0 / TASKS as u64);
    timed("journal: read 10,000 Reused", || read_journal(&new).unwrap());
    let store = timed("memo: open, 10,000 Reused in memory", || MemoStore::open(folder).unwrap());
    timed("memo: 10,000 lookups in memory", || {
        (0..TASKS).for_each(|n| assert!(store.lookup(&record(n).1).unwrap().is_some()));
    });
    let absent = MemoKey(Digest::of(b"absent"));
    timed("memo: first miss: sled opened and fed 20,000 facts", || {
        store.lookup(&absent).unwrap();
    });
    timed("memo: 10,000 misses in sled", || {
        (TASKS..2 * TASKS).for_each(|n| assert!(store.lookup(&record(n).1).unwrap().is_none()));
    });
    timed("memo: 10,000 apply", || facts.iter().for_each(|fact| store.apply(fact)));
    timed("memo: close", || store.close().unwrap());
    let store = MemoStore::open(folder).unwrap();
    timed("memo: first miss: sled opened, up to date", || store.lookup(&absent).unwrap());
}

fn group_commit(folder: &Path) {
    let (mut journal, _) = Journal::create_or_open(&folder.join("commit/journal")).unwrap();
    let (sender, receiver) = mpsc::channel();
    const BATCH: usize = 64;
    timed("journal: 6,400 facts, each asks to be durable, 64 wait at once", || {
        for _ in 0..100 {
            for number in 0..BATCH {
                let position = journal.append(&[completed(number)]).unwrap();
                let sender = sender.clone();
                journal.flush_to(position, Vec::new(), move |done| sender.send(done).unwrap());
            }
            (0..BATCH).for_each(|_| receiver.recv().unwrap().unwrap());
        }
    });
    println!("  {:?}", journal.flush_stats());
}

fn digest_cache(folder: &Path) {
    let stamp = |number: usize| {
        let changed_ns = 1_700_000_000_000_000_000;
        let inode = number as u64;
        FileStamp { device: 1, inode, size: 6, modified_ns: changed_ns, changed_ns }
    };
    let cache = DigestCache::load(folder);
    for number in 0..TASKS {
        cache.remember_own(&stamp(number), Digest::of(b"out"));
    }
    timed("digests: save 10,000", || cache.save().unwrap());
    let cache = timed("digests: load 10,000", || DigestCache::load(folder));
    timed("digests: 10,000 lookups", || {
        (0..TASKS).for_each(|n| assert!(cache.lookup(&stamp(n)).is_some()));
    });
}

fn object_cache(folder: &Path) {
    let digests = Arc::new(DigestCache::load(folder));
    let cache = ObjectCache::open(folder, Arc::clone(&digests)).unwrap();
    let out = folder.join("out");
    std::fs::create_dir(&out).unwrap();
    let files: Vec<_> = (0..TASKS)
        .map(|number| {
            let (path, text) = (out.join(number.to_string()), number.to_string());
            std::fs::write(&path, &text).unwrap();
            let digest = Digest::of(text.as_bytes());
            let metadata = std::fs::metadata(&path).unwrap();
            digests.remember_own(&keelboat_checkpoint::stamp_of(&metadata), digest);
            (path, Content { digest, bytes: text.len() as u64, kind: Kind::File })
        })
        .collect();
    timed("objects: insert 10,000 small files", || {
        for (path, content) in &files {
            cache.insert(path, content).unwrap();
        }
    });
    timed("objects: insert 10,000 that are there", || {
        for (path, content) in &files {
            cache.insert(path, content).unwrap();
        }
    });
    timed("objects: restore 1,000", || {
        for (path, content) in &files[..1000] {
            std::fs::remove_file(path).unwrap();
            let what = Restore { content: *content, executable: false };
            cache.restore(&what, path).unwrap();
        }
    });
    timed("objects: stats of 10,000", || cache.stats().unwrap());
}
