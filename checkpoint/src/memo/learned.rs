//! What facts teach: results under their keys, the last key of each task, what addresses held.
//!
//! The same type is the overlay in memory and the batch on its way to the index, so that both
//! cannot disagree on what a fact means.

use std::collections::BTreeMap;
use std::sync::Arc;

use keelboat_engine::{Digest, Fact, KeyPart, MemoKey, MemoRecord, Stamped, TaskName};

use super::value::MemoEntry;
use super::{FailureRecord, SourceRecord};

/// What a number of facts taught.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Learned {
    pub(crate) memo: BTreeMap<MemoKey, (TaskName, MemoEntry)>,
    pub(crate) names: BTreeMap<TaskName, MemoKey>,
    pub(crate) sources: BTreeMap<Digest, SourceRecord>,
    pub(crate) values: BTreeMap<Digest, Arc<[u8]>>,
    pub(crate) failures: BTreeMap<MemoKey, (TaskName, FailureRecord)>,
}

impl Learned {
    /// Takes in the next fact. Tells whether the journal has something that the index should get
    /// soon: reused results are in it already.
    pub(crate) fn learn(&mut self, stamped: Stamped) -> bool {
        match stamped.fact {
            Fact::Completed { task, key, parts, record, memoized: true, .. } => {
                self.result(task, key, record, Some(parts));
                true
            }
            Fact::Reused { task, key, record, memoized: true, .. } => {
                self.result(task, key, record, None);
                false
            }
            Fact::Fetched { source, content, etag, last_modified, .. } => {
                let fetched_at = stamped.at;
                let known = SourceRecord { content, etag, last_modified, fetched_at };
                self.sources.insert(source, known);
                true
            }
            Fact::Value { bytes } => {
                self.values.insert(Digest::of(&bytes), bytes);
                true
            }
            Fact::FailureKept { task, key, failure } => {
                let record = FailureRecord { failure, failed_at: stamped.at };
                self.failures.insert(key, (task, record));
                true
            }
            _ => false,
        }
    }

    /// Takes in facts that are in a journal already.
    pub(crate) fn learn_all(&mut self, facts: impl IntoIterator<Item = Stamped>) {
        for stamped in facts {
            self.learn(stamped);
        }
    }

    fn result(
        &mut self,
        task: TaskName,
        key: MemoKey,
        record: MemoRecord,
        parts: Option<Vec<KeyPart>>,
    ) {
        self.names.insert(TaskName::clone(&task), key);
        let slot = self.memo.entry(key);
        slot.and_modify(|(_, known)| {
            known.record.clone_from(&record);
            if parts.is_some() {
                known.parts.clone_from(&parts);
            }
        })
        .or_insert_with(|| (task, MemoEntry { record, parts }));
    }

    pub(crate) fn len(&self) -> usize {
        let results = self.memo.len() + self.names.len() + self.failures.len();
        results + self.sources.len() + self.values.len()
    }
}

/// Whether the memo store learns anything from a fact.
pub(crate) fn teaches(fact: &Fact) -> bool {
    matches!(
        fact,
        Fact::Completed { memoized: true, .. }
            | Fact::Reused { memoized: true, .. }
            | Fact::Fetched { .. }
            | Fact::Value { .. }
            | Fact::FailureKept { .. }
    )
}
