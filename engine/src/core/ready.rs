//! Tasks that have to run and have no place: by what kind of place they can have, and for each
//! kind the most urgent first.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};
use std::ops::Bound;
use std::sync::Arc;

use super::event::{Admission, Pool};
use crate::{TaskId, TaskSpec, Work};

/// A place in the list of kinds.
pub(super) type KindId = u32;

/// Those whose result was lost first (`false`), then those of the highest priority, then by number.
pub(super) type Rank = (bool, Reverse<i32>, TaskId);

/// Pools that a task can run in.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Kind {
    pub(super) work: Work,
    /// Any of these; the first ones are preferred.
    pub(super) labels: Arc<[Arc<str>]>,
}

impl Kind {
    pub(super) fn admits(&self, pool: &Pool) -> bool {
        let is_named = self.labels.contains(&pool.label);
        let is_open = self.labels.is_empty() && pool.admission == Admission::Anyone;
        pool.only.is_none_or(|only| only == self.work) && (is_named || is_open)
    }

    /// How much a pool is preferred: the greater, the more.
    pub(super) fn preference(&self, pool: &Pool) -> Reverse<usize> {
        let at = self.labels.iter().position(|label| *label == pool.label);
        Reverse(at.unwrap_or_default())
    }
}

#[derive(Debug, Default)]
pub(super) struct Ready {
    kinds: Vec<(Kind, BTreeSet<Rank>)>,
    by_kind: BTreeMap<Kind, KindId>,
}

/// How far a walk over the tasks of each kind has come.
#[derive(Debug)]
pub(super) struct Walk {
    steps: Vec<Step>,
}

#[derive(Debug, Clone, Copy)]
struct Step {
    from: Bound<Rank>,
    passed: u32,
}

impl Ready {
    /// The kind of a task, which is one of few.
    pub(super) fn kind_of(&mut self, spec: &TaskSpec) -> KindId {
        let kind = Kind { work: spec.command.work(), labels: spec.options.executors.clone() };
        if let Some(known) = self.by_kind.get(&kind) {
            return *known;
        }
        let id = super::number(self.kinds.len());
        self.kinds.push((kind.clone(), BTreeSet::new()));
        self.by_kind.insert(kind, id);
        id
    }

    pub(super) fn kind(&self, id: KindId) -> &Kind {
        &self.kinds[id as usize].0
    }

    pub(super) fn insert(&mut self, kind: KindId, rank: Rank) {
        self.kinds[kind as usize].1.insert(rank);
    }

    pub(super) fn remove(&mut self, kind: KindId, rank: Rank) {
        self.kinds[kind as usize].1.remove(&rank);
    }

    pub(super) fn len(&self) -> usize {
        self.kinds.iter().map(|(_, tasks)| tasks.len()).sum()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.kinds.iter().all(|(_, tasks)| tasks.is_empty())
    }

    pub(super) fn walk(&self) -> Walk {
        Walk { steps: vec![Step { from: Bound::Unbounded, passed: 0 }; self.kinds.len()] }
    }

    /// The first task that was not walked over, of those kinds that are open for it; of one kind
    /// only so many are passed.
    pub(super) fn next(
        &self,
        walk: &Walk,
        passed_max: u32,
        is_open: impl Fn(&Kind, Rank) -> bool,
    ) -> Option<(KindId, Rank)> {
        let heads = (0..).zip(&self.kinds).zip(&walk.steps).filter_map(|((id, kind), step)| {
            let (kind, tasks) = kind;
            let rank = *tasks.range((step.from, Bound::Unbounded)).next()?;
            (step.passed < passed_max && is_open(kind, rank)).then_some((rank, id))
        });
        heads.min().map(|(rank, id)| (id, rank))
    }

    #[cfg(test)]
    pub(super) fn contains(&self, kind: KindId, rank: Rank) -> bool {
        self.kinds[kind as usize].1.contains(&rank)
    }

    #[cfg(test)]
    pub(super) fn tasks(&self) -> impl Iterator<Item = TaskId> {
        self.kinds.iter().flat_map(|(_, tasks)| tasks.iter().map(|(_, _, task)| *task))
    }
}

impl Walk {
    /// Goes on behind a task for which there is no place now.
    pub(super) fn pass(&mut self, kind: KindId, rank: Rank) {
        let step = &mut self.steps[kind as usize];
        step.from = Bound::Excluded(rank);
        step.passed += 1;
    }
}
