//! Flushes of the journal: when they begin, and what is done when they have ended.

use std::sync::mpsc::{RecvTimeoutError, channel};
use std::time::Duration;

use keelboat_engine::Failure;

use super::durable::{Durable, Unseen};
use super::message::Message;
use super::{Driver, RunError, edges, strays};
use crate::flow::{TaskError, UNIT};

impl Driver<'_> {
    pub(super) fn flush_if_due(&mut self) -> Result<(), RunError> {
        if self.durable.due_in() != Some(Duration::ZERO) {
            return Ok(());
        }
        if self.durable.waits() {
            return self.flush_now();
        }
        let flush = self.durable.begin();
        let Some(journal) = &self.journal else {
            let seen = self.durable.end(flush.number);
            self.show(seen);
            return Ok(());
        };
        let messages = self.edges.messages.clone();
        let number = flush.number;
        journal.flush_to(journal.position(), flush.places, move |result| {
            edges::tell(&messages, Message::Flushed(number, result));
        });
        Ok(())
    }

    /// Waits for the disk. No other flush is under way: each of them is waited for.
    pub(super) fn flush_now(&mut self) -> Result<(), RunError> {
        let flush = self.durable.begin();
        if let Some(journal) = &self.journal {
            let (sender, flushed) = channel();
            journal.flush_to(journal.position(), flush.places, move |result| {
                if sender.send(result).is_err() {
                    tracing::debug!("nobody waits for a flush");
                }
            });
            let Ok(result) = flushed.recv() else { return Err(RunError::EdgesGone) };
            result?;
        }
        let seen = self.durable.end(flush.number);
        self.show(seen);
        Ok(())
    }

    /// What is durable may be seen, and may be copied to where others see it.
    pub(super) fn show(&mut self, seen: Unseen) {
        for fact in &seen.facts {
            self.observer.fact(fact);
        }
        for (task, output, content) in seen.deliveries {
            self.deliver(task, output, content);
        }
        self.forget(seen.forgotten);
        for checkpoint in seen.checkpoints {
            checkpoint.end(Ok(UNIT.into()));
        }
    }

    /// The last flush; after it, all that happened may be seen.
    pub(super) fn finish(&mut self) -> Result<(), RunError> {
        let (rest, places) = self.durable.take_rest();
        let (sender, flushed) = channel();
        let last = move |result| {
            if sender.send(result).is_err() {
                tracing::debug!("nobody waits for the last flush");
            }
        };
        match &self.journal {
            Some(journal) => journal.flush_to(journal.position(), places, last),
            None => last(Ok(())),
        }
        // Sinks may be full while the flush thread reports an earlier flush.
        loop {
            match flushed.recv_timeout(Duration::from_millis(1)) {
                Ok(result) => break result?,
                Err(RecvTimeoutError::Timeout) => self.empty_inbox(),
                Err(RecvTimeoutError::Disconnected) => return Err(RunError::EdgesGone),
            }
        }
        self.empty_inbox();
        self.show(rest);
        self.edges.checkpoints.close();
        self.clear_scratch();
        strays::remove(&self.core, &self.edges.project, &self.dead);
        Ok(())
    }
}

impl Durable {
    /// Nothing more is flushed: those who wait for it are told.
    pub(super) fn give_up(&mut self, failure: &Failure) {
        let (rest, _) = self.take_rest();
        for checkpoint in rest.checkpoints {
            let error = TaskError::failed(&checkpoint.name(), failure.clone());
            checkpoint.end(Err(error));
        }
    }
}
