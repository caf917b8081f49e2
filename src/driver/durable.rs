//! Group commit: what others can see waits for the flush of the facts behind it.
//!
//! When one is due, a [`Durability`] says. What may not wait is what others wait for: copies to addresses
//! and checkpoints that were asked for. One flush is under way at a time; whatever comes meanwhile waits together for the next one, so
//! that a chain of small tasks is not paced by the disk.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use keelboat_engine::{Content, Fact, Stamped, TaskId};

use crate::flow::{Cell, Durability};

/// The shortest time from the end of a flush to the next one.
const PAUSE: Duration = Duration::from_millis(20);

/// Facts that wait for a flush at most, whenever it is due: fewer than those who watch a flow keep.
const FACTS_MAX: usize = 8_192;

#[derive(Debug)]
pub(crate) struct Durable {
    durability: Durability,
    waiting: Unseen,
    under_way: Option<Unseen>,
    places: Vec<PathBuf>,
    number: u64,
    begun: Instant,
    /// When the last flush ended.
    ended: Option<Instant>,
}

/// What may be shown and done once the facts are durable.
#[derive(Debug, Default)]
pub(crate) struct Unseen {
    pub(crate) facts: Vec<Stamped>,
    pub(crate) deliveries: Vec<(TaskId, u32, Content)>,
    /// Tasks that need no checkpoints any more.
    pub(crate) forgotten: Vec<TaskId>,
    /// Those of a program who wait for a flush.
    pub(crate) checkpoints: Vec<Arc<Cell>>,
}

impl Unseen {
    fn is_empty(&self) -> bool {
        self.facts.is_empty()
            && self.deliveries.is_empty()
            && self.forgotten.is_empty()
            && self.checkpoints.is_empty()
    }

    /// Whether others wait for it, or it is too much to be kept any longer.
    fn is_urgent(&self) -> bool {
        let is_awaited = !self.deliveries.is_empty() || !self.checkpoints.is_empty();
        is_awaited || self.facts.len() >= FACTS_MAX
    }
}

/// A flush to ask for.
#[derive(Debug)]
pub(crate) struct Flush {
    pub(crate) number: u64,
    /// Outputs that must be durable first.
    pub(crate) places: Vec<PathBuf>,
}

impl Durable {
    pub(crate) fn new(durability: Durability) -> Self {
        Self {
            durability,
            waiting: Unseen::default(),
            under_way: None,
            places: Vec::new(),
            number: 0,
            begun: Instant::now(),
            ended: None,
        }
    }

    /// Whether nobody may be told of these facts before they are durable.
    pub(crate) fn goes_first(&self, facts: &[Stamped]) -> bool {
        let is_result = |stamped: &Stamped| {
            matches!(stamped.fact, Fact::Completed { .. } | Fact::Reused { .. })
        };
        self.waits() && facts.iter().any(is_result)
    }

    /// Whether each flush is waited for.
    pub(crate) fn waits(&self) -> bool {
        self.durability == Durability::EachTask
    }

    /// Has somebody told when all facts so far are durable.
    pub(crate) fn add_checkpoints(&mut self, checkpoints: Vec<Arc<Cell>>) {
        self.waiting.checkpoints.extend(checkpoints);
    }

    pub(crate) fn add_facts(&mut self, facts: Vec<Stamped>) {
        self.waiting.facts.extend(facts);
    }

    pub(crate) fn add_delivery(&mut self, task: TaskId, output: u32, content: Content) {
        self.waiting.deliveries.push((task, output, content));
    }

    pub(crate) fn add_forgotten(&mut self, task: TaskId) {
        self.waiting.forgotten.push(task);
    }

    pub(crate) fn add_places(&mut self, places: Vec<PathBuf>) {
        self.places.extend(places);
    }

    /// How long until the next flush may begin; `None` when none is needed.
    pub(crate) fn due_in(&self) -> Option<Duration> {
        if self.under_way.is_some() || self.waiting.is_empty() {
            return None;
        }
        let since_last = self.ended.map_or(PAUSE, |ended| ended.elapsed());
        let soon = PAUSE.saturating_sub(since_last);
        match self.durability {
            _ if self.waiting.is_urgent() => Some(soon),
            Durability::Grouped | Durability::EachTask => Some(soon),
            Durability::Every(period) => {
                let since = self.ended.unwrap_or(self.begun).elapsed();
                Some(period.max(PAUSE).saturating_sub(since))
            }
            Durability::AtClose => None,
        }
    }

    /// Begins a flush of all that waits.
    pub(crate) fn begin(&mut self) -> Flush {
        self.number += 1;
        self.under_way = Some(std::mem::take(&mut self.waiting));
        Flush { number: self.number, places: std::mem::take(&mut self.places) }
    }

    /// A flush ended well: returns what may be seen now.
    pub(crate) fn end(&mut self, number: u64) -> Unseen {
        if number != self.number {
            return Unseen::default();
        }
        self.ended = Some(Instant::now());
        self.under_way.take().unwrap_or_default()
    }

    /// Everything at the end of the run but deliveries, with the outputs that must be durable first.
    pub(crate) fn take_rest(&mut self) -> (Unseen, Vec<PathBuf>) {
        let mut rest = self.under_way.take().unwrap_or_default();
        let waiting = std::mem::take(&mut self.waiting);
        rest.facts.extend(waiting.facts);
        rest.forgotten.extend(waiting.forgotten);
        rest.checkpoints.extend(waiting.checkpoints);
        rest.deliveries.clear();
        (rest, std::mem::take(&mut self.places))
    }
}

#[cfg(test)]
mod tests {
    use keelboat_engine::{Digest, Kind, Timestamp};

    use super::*;

    fn planned() -> Vec<Stamped> {
        vec![Stamped { at: Timestamp(0), fact: Fact::Planned { tasks: 1 } }]
    }

    #[test]
    fn what_is_written_is_flushed_when_the_policy_says() {
        let hour = Durability::Every(Duration::from_hours(1));
        for durability in [Durability::Grouped, Durability::EachTask, hour, Durability::AtClose] {
            let mut durable = Durable::new(durability);
            assert_eq!(durable.due_in(), None, "there is nothing");
            durable.add_facts(planned());
            let due = durable.due_in();
            match durability {
                Durability::Grouped | Durability::EachTask => assert_eq!(due, Some(Duration::ZERO)),
                Durability::Every(_) => assert!(due > Some(Duration::from_mins(59)), "{due:?}"),
                Durability::AtClose => assert_eq!(due, None),
            }
            durable.add_checkpoints(vec![Cell::new()]);
            assert_eq!(durable.due_in(), Some(Duration::ZERO), "somebody waits for it");
            let flush = durable.begin();
            assert_eq!(durable.due_in(), None, "one at a time");
            durable.add_facts(planned());
            let seen = durable.end(flush.number);
            assert_eq!((seen.facts.len(), seen.checkpoints.len()), (1, 1));
        }
    }

    #[test]
    fn nobody_waits_for_an_output_that_is_to_be_sent() {
        let mut durable = Durable::new(Durability::AtClose);
        let content = Content { digest: Digest::of(b"sent"), bytes: 4, kind: Kind::File };
        durable.add_facts(planned());
        durable.add_delivery(TaskId(0), 0, content);
        assert_eq!(durable.due_in(), Some(Duration::ZERO));
    }

    #[test]
    fn what_waits_for_a_flush_is_bounded() {
        let mut durable = Durable::new(Durability::AtClose);
        for _ in 1..FACTS_MAX {
            durable.add_facts(planned());
        }
        assert_eq!(durable.due_in(), None);
        durable.add_facts(planned());
        assert_eq!(durable.due_in(), Some(Duration::ZERO));
    }
}
