//! How many tasks there may be at once: of a user, and with single collections.

use std::collections::BTreeMap;
use std::sync::Arc;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::document::Route;

/// The limits, and who is within them.
#[derive(Debug)]
pub(super) struct Slots {
    tasks_max: usize,
    all: Arc<Semaphore>,
    collections: BTreeMap<String, (usize, Arc<Semaphore>)>,
}

/// Counts against all limits that hold for one task, as long as it lives.
#[derive(Debug)]
pub(super) struct Slot {
    _permits: Vec<OwnedSemaphorePermit>,
}

impl Slots {
    pub(super) fn new(tasks_max: usize, collections: &BTreeMap<String, usize>) -> Self {
        let limit = |max: usize| (max.max(1), Arc::new(Semaphore::new(max.max(1))));
        let of = |(id, max): (&String, &usize)| (id.to_ascii_lowercase(), limit(*max));
        let (tasks_max, all) = limit(tasks_max);
        Self { tasks_max, all, collections: collections.iter().map(of).collect() }
    }

    /// Why another task between these collections has to wait, if it has.
    pub(super) fn full(&self, route: &Route) -> Option<String> {
        let is_full = |slots: &Semaphore| slots.available_permits() == 0;
        let full = self.limited(route).find(|(_, (_, slots))| is_full(slots));
        if let Some((id, (max, _))) = full {
            return Some(format!("the limit of {max} Globus tasks at once with {id}"));
        }
        is_full(&self.all).then(|| format!("the limit of {} Globus tasks at once", self.tasks_max))
    }

    /// Waits for a place. What is scarce for few is taken first, and always in the same order: so
    /// who waits for a collection keeps nobody else from the rest, and no two wait for each other.
    pub(super) async fn take(&self, route: &Route) -> Slot {
        let mut permits = Vec::new();
        for slots in self.limited(route).map(|(_, (_, slots))| slots).chain([&self.all]) {
            // They are never closed.
            permits.extend(Arc::clone(slots).acquire_owned().await.ok());
        }
        Slot { _permits: permits }
    }

    /// A place if there is one.
    pub(super) fn try_take(&self, route: &Route) -> Option<Slot> {
        let slots = self.limited(route).map(|(_, (_, slots))| slots).chain([&self.all]);
        let permits: Result<Vec<_>, _> =
            slots.map(|slots| Arc::clone(slots).try_acquire_owned()).collect();
        Some(Slot { _permits: permits.ok()? })
    }

    /// The limited ones among the collections of a route, each once, in the order of their ids.
    fn limited(&self, route: &Route) -> impl Iterator<Item = (&String, &(usize, Arc<Semaphore>))> {
        let ends = [&route.source, &route.destination].map(|id| id.to_ascii_lowercase());
        self.collections.iter().filter(move |(id, _)| ends.contains(id))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn route(source: &str, destination: &str) -> Route {
        Route { source: source.into(), destination: destination.into() }
    }

    #[tokio::test]
    async fn a_full_collection_keeps_nobody_else_waiting() {
        let slots = Slots::new(2, &BTreeMap::from([("A".to_owned(), 1)]));
        let first = slots.take(&route("a", "here")).await;
        let cause = slots.full(&route("here", "a"));
        assert_eq!(cause.as_deref(), Some("the limit of 1 Globus tasks at once with a"));
        assert!(slots.try_take(&route("here", "a")).is_none());
        let other = slots.try_take(&route("b", "here")).unwrap();
        let cause = slots.full(&route("b", "here"));
        assert_eq!(cause.as_deref(), Some("the limit of 2 Globus tasks at once"));
        drop(first);
        assert!(slots.full(&route("a", "here")).is_none());
        drop(other);
        let own = slots.take(&route("a", "a")).await;
        assert!(slots.try_take(&route("a", "b")).is_none(), "once, and not twice, for both ends");
        drop(own);
    }
}
