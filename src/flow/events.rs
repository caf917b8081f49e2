//! What happens in a flow, for whoever watches.

use std::fmt;
use std::future::poll_fn;
use std::sync::Arc;
use std::time::Duration;

use keelboat_engine::Stamped;

use super::board::{self, Listener, Next};
use crate::driver::{Observer, Start, View};

/// Facts that wait for one who watches; the oldest ones go when there are more.
const EVENTS_MAX: usize = 16_384;

/// Facts in their order, each after it is durable.
///
/// They wait to be taken, up to 16,384 of them. Whoever is slower than that loses the oldest ones, and is told
/// how many by [`Lagged`] in their place: the flow waits for nobody who watches it.
///
/// ```
/// # use keelboat::flow::{Config, Flow};
/// # let directory = tempfile::tempdir()?;
/// # let flow = Flow::open(Config::new(directory.path()))?;
/// # use std::time::Duration;
/// let events = flow.events();
/// flow.call(|| 1, ()).wait()?;
/// let first = events.wait_next_for(Duration::from_secs(60)).expect("something happens")?;
/// println!("{:?} at {:?}", first.fact, first.at);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug)]
pub struct Events(Listener<Stamped>);

/// Events were not taken in time, and are gone; the next ones follow.
///
/// ```
/// # use keelboat::flow::{Config, Flow};
/// # let directory = tempfile::tempdir()?;
/// # let flow = Flow::open(Config::new(directory.path()))?;
/// # let events = flow.events();
/// # flow.close()?;
/// while let Some(event) = events.wait_next() {
///     match event {
///         Ok(stamped) => println!("{:?}", stamped.fact),
///         Err(lagged) => println!("{} events were missed", lagged.missed),
///     }
/// }
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Lagged {
    /// How many.
    pub missed: u64,
}

impl fmt::Display for Lagged {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} events came faster than they were taken, and are gone", self.missed)
    }
}

impl std::error::Error for Lagged {}

impl Events {
    /// The next one, to be awaited in any runtime; `None`: the flow has ended.
    ///
    /// ```
    /// # use keelboat::flow::{Config, Flow};
    /// # let directory = tempfile::tempdir()?;
    /// # let flow = Flow::open(Config::new(directory.path()))?;
    /// # tokio::runtime::Runtime::new()?.block_on(async {
    /// let events = flow.events();
    /// flow.call(|| 1, ()).await?;
    /// let first = events.next().await.expect("something happens")?;
    /// println!("{:?}", first.fact);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// # })?;
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub async fn next(&self) -> Option<Result<Stamped, Lagged>> {
        item(poll_fn(|context| self.0.poll_next(context.waker())).await)
    }

    /// The next one; `None`: the flow has ended.
    ///
    /// ```
    /// # use keelboat::flow::{Config, Flow};
    /// # let directory = tempfile::tempdir()?;
    /// # let flow = Flow::open(Config::new(directory.path()))?;
    /// let events = flow.events();
    /// flow.call(|| 1, ()).wait()?;
    /// assert!(events.wait_next().is_some());
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn wait_next(&self) -> Option<Result<Stamped, Lagged>> {
        item(self.0.wait_next())
    }

    /// The next one, if it comes within this time.
    ///
    /// ```
    /// # use keelboat::flow::{Config, Flow};
    /// # let directory = tempfile::tempdir()?;
    /// # let flow = Flow::open(Config::new(directory.path()))?;
    /// let events = flow.events();
    /// flow.call(|| 1, ());
    /// assert!(events.wait_next_for(std::time::Duration::from_mins(1)).is_some());
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn wait_next_for(&self, span: Duration) -> Option<Result<Stamped, Lagged>> {
        item(self.0.wait_next_for(span)?)
    }

    /// The next one, if it is there.
    ///
    /// ```
    /// # use keelboat::flow::{Config, Flow};
    /// # let directory = tempfile::tempdir()?;
    /// # let flow = Flow::open(Config::new(directory.path()))?;
    /// let events = flow.events();
    /// while let Some(event) = events.try_next() {
    ///     println!("{event:?}");
    /// }
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn try_next(&self) -> Option<Result<Stamped, Lagged>> {
        item(self.0.try_next()?)
    }
}

fn item(next: Next<Stamped>) -> Option<Result<Stamped, Lagged>> {
    match next {
        Next::Item(stamped) => Some(Ok(stamped)),
        Next::Missed(missed) => Some(Err(Lagged { missed })),
        Next::Over => None,
    }
}

/// All who watch one flow.
#[derive(Debug)]
pub(crate) struct Board(board::Board<Stamped>);

impl Board {
    pub(crate) fn new() -> Self {
        Self(board::Board::new())
    }

    pub(crate) fn subscribe(&self) -> Events {
        Events(self.0.listen(EVENTS_MAX))
    }
}

/// Hands what the engine tells to those who watch.
#[derive(Debug)]
pub(crate) struct Watcher(pub(crate) Arc<Board>);

impl Observer for Watcher {
    fn started(&mut self, start: &Start<'_>) {
        tracing::info!(run = start.run, flow = start.workflow, resumed = start.resumed, "begins");
    }

    fn fact(&mut self, fact: &Stamped) {
        self.0.0.tell(fact);
    }

    fn progress(&mut self, _: &View<'_>) {}

    fn warning(&mut self, text: &str) {
        tracing::warn!("{text}");
    }

    fn waiting(&mut self, text: &str) {
        tracing::info!("{text}");
    }
}

impl Drop for Watcher {
    fn drop(&mut self) {
        self.0.0.end();
    }
}
