//! Attempts that are calls of functions: they have a scratch directory as commands have, and run in
//! this process, where nobody can end them from outside.

use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use keelboat_engine::core::Event;
use keelboat_engine::{Failure, FailureClass};

use super::attempt::Attempt;
use super::checkpoints;
use super::edges::Edges;
use super::message::Message;
use crate::flow::{Calling, Launch, Occupied, Place, Stage};

/// Whether a function may be at work in a scratch directory. One that was given up, since it took too
/// long, works on there: until it returns the directory is neither moved nor used for another.
#[derive(Debug)]
pub(super) struct Occupancy(Mutex<Use>);

#[derive(Debug)]
struct Use {
    by: By,
    /// It was to be cleared.
    to_clear: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum By {
    /// Whoever prepares it for a function.
    Us,
    /// Whoever prepares it for a function that is not to begin any more.
    UsInVain,
    Function,
    /// No function.
    Nobody,
}

impl Occupancy {
    pub(super) fn of(launch: &Launch) -> Self {
        let by = if let Launch::Call(_) = launch { By::Us } else { By::Nobody };
        Self(Mutex::new(Use { by, to_clear: false }))
    }

    /// A function is not to begin. False: it has begun.
    pub(super) fn forbid(&self) -> bool {
        let mut held = self.lock();
        if held.by == By::Us {
            held.by = By::UsInVain;
        }
        held.by == By::UsInVain
    }

    /// The function begins, unless that is forbidden.
    fn begin(&self) -> Result<(), Failure> {
        let mut held = self.lock();
        if held.by == By::UsInVain {
            return Err(Failure::new(FailureClass::Transient, "it was cancelled"));
        }
        held.by = By::Function;
        Ok(())
    }

    /// Nobody is at work there from now on. Whether it was to be cleared.
    fn end(&self) -> bool {
        let mut held = self.lock();
        held.by = By::Nobody;
        std::mem::take(&mut held.to_clear)
    }

    /// Whether somebody is at work there, who clears it then.
    pub(super) fn put_off_clearing(&self) -> bool {
        let mut held = self.lock();
        held.to_clear = held.by != By::Nobody;
        held.to_clear
    }

    pub(super) fn is_occupied(&self) -> bool {
        self.lock().by == By::Function
    }

    fn lock(&self) -> MutexGuard<'_, Use> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Attempt {
    /// Makes the scratch directory and has the function called.
    pub(super) fn call(self: &Arc<Self>, calling: &Calling, edges: &Arc<Edges>) {
        let prepared = self.prepare(edges).and_then(|()| self.begin_checkpoint(edges, ()));
        if let Err(failure) = prepared.and_then(|()| self.occupancy.begin()) {
            self.occupancy.end();
            return self.fail_to_launch(failure, edges);
        }
        // A function that never returns must not keep alive what the run needs.
        let (left, weak) = (Arc::clone(self), Arc::downgrade(edges));
        let occupied = Occupied::new(move || left.returned(&weak));
        let context = calling.context(self.place(edges));
        let (paths, reads) = (self.paths.clone(), self.reads.clone());
        let (context, occupied) = (Some(context), Some(occupied));
        calling.clone().begin(Stage { paths, reads, context, occupied });
    }

    /// What its function is told.
    fn place(self: &Arc<Self>, edges: &Arc<Edges>) -> Place {
        let outputs = self.outputs.iter();
        let path = |name: &str| self.scratch.join(name);
        let checkpoint = self.checkpoint.as_ref().map(|checkpoint| {
            let (own, weak) = (Arc::clone(self), Arc::downgrade(edges));
            let save = move || own.save_now(&weak);
            (checkpoint.place().to_owned(), Box::new(save) as _)
        });
        Place {
            task: Arc::clone(&self.name),
            attempt: self.id.ordinal,
            gpus: self.gpus.clone(),
            scratch: self.scratch.clone(),
            outputs: outputs
                .map(|output| (Arc::clone(&output.label), path(&output.scratch_path)))
                .collect(),
            checkpoint,
        }
    }

    fn returned(&self, edges: &Weak<Edges>) {
        if self.occupancy.end()
            && let Some(edges) = edges.upgrade()
        {
            self.remove(&edges);
        }
    }

    fn save_now(&self, edges: &Weak<Edges>) -> io::Result<()> {
        let over = || io::Error::other("the flow is closed");
        let edges = edges.upgrade().ok_or_else(over)?;
        let saved = self.checkpoint.as_ref().map_or(Ok(()), |own| own.save_now(&edges));
        saved.map_err(|error| match error.hint() {
            Some(hint) => io::Error::other(format!("{error}; {hint}")),
            None => io::Error::other(error),
        })
    }

    /// Saves what it left that failed, and then tells of its end.
    pub(super) fn save_left(&self, mut ended: Event, edges: &Edges) {
        let is_occupied = self.occupancy.is_occupied();
        let saved = self.checkpoint.as_ref().and_then(|own| own.save_left(edges, is_occupied));
        if is_occupied {
            // What a function does there that was given up is nobody's any more.
            checkpoints::clear(&self.scratch);
        }
        if let Event::PublishFailed { failure, .. } = &mut ended {
            self.keep_failed(failure, edges);
        }
        edges.tell(Message::Events(saved.into_iter().chain([ended]).collect()));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn prepared() -> Occupancy {
        Occupancy(Mutex::new(Use { by: By::Us, to_clear: false }))
    }

    #[test]
    fn what_is_forbidden_in_time_does_not_begin() {
        let held = prepared();
        assert!(held.forbid(), "who prepares it tells of the end");
        assert!(held.forbid(), "also when it is forbidden twice");
        held.begin().unwrap_err();
        assert!(!held.end());
    }

    #[test]
    fn what_has_begun_is_ended_by_others() {
        let held = prepared();
        held.begin().unwrap();
        assert!(held.is_occupied() && !held.forbid());
        assert!(held.put_off_clearing(), "it is at work there");
        assert!(held.end(), "now it is cleared");
        assert!(!held.is_occupied() && !held.put_off_clearing() && !held.end());
    }

    #[test]
    fn who_prepares_it_is_not_disturbed() {
        let held = prepared();
        assert!(held.put_off_clearing());
        assert!(held.end());
    }
}
