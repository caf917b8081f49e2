//! What happens in a flow, for whoever watches.

use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use keelboat_engine::Stamped;

use crate::driver::{Observer, Start, View};

/// Facts in their order, each after it is durable. Those that nobody takes wait: drop it when it is
/// not needed any more.
///
/// ```
/// # use keelboat::flow::{Config, Flow};
/// # let directory = tempfile::tempdir()?;
/// # let flow = Flow::open(Config::new(directory.path()))?;
/// # use std::time::Duration;
/// let events = flow.events();
/// flow.call(|| 1, ()).wait()?;
/// let first = events.wait_next_for(Duration::from_secs(60)).expect("something happens");
/// println!("{:?} at {:?}", first.fact, first.at);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug)]
pub struct Events(Receiver<Stamped>);

impl Events {
    /// The next one; `None`: the flow has ended.
    pub fn wait_next(&self) -> Option<Stamped> {
        self.0.recv().ok()
    }

    /// The next one, if it comes within this time.
    pub fn wait_next_for(&self, span: Duration) -> Option<Stamped> {
        self.0.recv_timeout(span).ok()
    }

    /// The next one, if it is there.
    pub fn try_next(&self) -> Option<Stamped> {
        self.0.try_recv().ok()
    }
}

/// All who watch one flow.
#[derive(Debug, Default)]
pub(crate) struct Board(Mutex<Vec<Sender<Stamped>>>);

impl Board {
    pub(crate) fn subscribe(&self) -> Events {
        let (sender, receiver) = channel();
        self.0.lock().unwrap_or_else(PoisonError::into_inner).push(sender);
        Events(receiver)
    }
}

/// Hands what the engine tells to those who watch.
#[derive(Debug)]
pub(crate) struct Watcher(pub(crate) std::sync::Arc<Board>);

impl Observer for Watcher {
    fn started(&mut self, start: &Start<'_>) {
        tracing::info!(run = start.run, flow = start.workflow, resumed = start.resumed, "begins");
    }

    fn fact(&mut self, fact: &Stamped) {
        let mut watching = self.0.0.lock().unwrap_or_else(PoisonError::into_inner);
        if !watching.is_empty() {
            watching.retain(|one| one.send(fact.clone()).is_ok());
        }
    }

    fn progress(&mut self, _: &View<'_>) {}

    fn warning(&mut self, text: &str) {
        tracing::warn!("{text}");
    }

    fn waiting(&mut self, text: &str) {
        tracing::info!("{text}");
    }
}
