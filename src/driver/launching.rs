//! What the loop has to do with attempts: they begin, are killed, and what they left is published.

use std::sync::Arc;

use keelboat_engine::core::Action;
use keelboat_engine::{AttemptId, Digest, Failure};

use super::Driver;
use super::attempt::Attempt;
use super::program::Program;
use crate::flow::{Launch, TakenIn, published};

impl Driver<'_> {
    pub(super) fn launch(&mut self, id: AttemptId) {
        let launch = match &mut self.program {
            Program::File(_) => Some(Launch::Command),
            Program::Flow(side) => side.launch(&self.core, id, &self.edges),
        };
        let Some(launch) = launch else { return };
        let attempt = Arc::new(Attempt::new(&self.core, id, launch, &self.edges));
        self.running.insert(attempt.name.clone(), self.clock.now());
        self.attempts.insert(id, Arc::clone(&attempt));
        let edges = Arc::clone(&self.edges);
        self.edges.pool.submit(move || attempt.launch(&edges));
    }

    pub(super) fn kill(&mut self, id: AttemptId, actions: &mut Vec<Action>) {
        let is_told = self.attempts.get(&id).is_some_and(|attempt| attempt.kill(&self.edges));
        if !is_told
            && let Program::Flow(side) = &mut self.program
            && let Some(event) = side.kill(id)
        {
            self.feed(event, actions);
        }
    }

    pub(super) fn publish(&mut self, id: AttemptId, actions: &mut Vec<Action>) {
        let attempt = self.attempts.remove(&id);
        let value = self.keep_value(id, actions);
        let Some(attempt) = attempt else {
            if let Some(kept) = value {
                self.feed(published(id, kept), actions);
            }
            return;
        };
        let edges = Arc::clone(&self.edges);
        if value.is_none() && self.core.spec(id.task).command.leaves_value() {
            // A join: another task leaves its value, and it has read its files.
            return self.edges.pool.submit(move || attempt.clear(&edges));
        }
        self.keep_if_it_saves(id, &attempt);
        self.edges.pool.submit(move || attempt.publish(value.transpose(), &edges));
    }

    /// Remembers the value of a function. `None`: it leaves none, or not yet.
    fn keep_value(
        &mut self,
        id: AttemptId,
        actions: &mut Vec<Action>,
    ) -> Option<Result<Digest, Failure>> {
        let Program::Flow(side) = &mut self.program else { return None };
        let mut taken = TakenIn::default();
        let kept = side.publish(id, &self.edges, &mut taken);
        self.durable.add_places(taken.places);
        actions.extend(taken.actions);
        taken.events.into_iter().for_each(|event| self.feed(event, actions));
        kept
    }
}
