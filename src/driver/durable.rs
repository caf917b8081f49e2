//! Group commit: what others can see waits for the flush of the facts behind it.
//!
//! One flush is under way at a time; whatever comes meanwhile waits together for the next one, so
//! that a chain of small tasks is not paced by the disk.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use keelboat_engine::{Content, Stamped, TaskId};

/// The shortest time from the end of a flush to the next one.
const PAUSE: Duration = Duration::from_millis(20);

#[derive(Debug)]
pub(crate) struct Durable {
    waiting: Unseen,
    under_way: Option<Unseen>,
    places: Vec<PathBuf>,
    number: u64,
    ended: Option<Instant>,
}

/// What may be shown and done once the facts are durable.
#[derive(Debug, Default)]
pub(crate) struct Unseen {
    pub(crate) facts: Vec<Stamped>,
    pub(crate) deliveries: Vec<(TaskId, u32, Content)>,
    /// Tasks that need no checkpoints any more.
    pub(crate) forgotten: Vec<TaskId>,
}

impl Unseen {
    fn is_empty(&self) -> bool {
        self.facts.is_empty() && self.deliveries.is_empty() && self.forgotten.is_empty()
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
    pub(crate) fn new() -> Self {
        Self {
            waiting: Unseen::default(),
            under_way: None,
            places: Vec::new(),
            number: 0,
            ended: None,
        }
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
        Some(self.ended.map_or(Duration::ZERO, |ended| PAUSE.saturating_sub(ended.elapsed())))
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
        rest.deliveries.clear();
        (rest, std::mem::take(&mut self.places))
    }
}
