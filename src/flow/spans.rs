//! What a flow tells `tracing`: a span for itself, one for each attempt of a task in it, and events.
//!
//! Nothing of it is made when nobody listens at the time that the flow is opened.

use std::collections::BTreeMap;

use keelboat_engine::core::Core;
use keelboat_engine::{AttemptId, Fact, Reason, Stamped};
use tracing::{Span, debug, info_span, warn};

use crate::driver::Edges;

#[derive(Debug)]
pub(crate) struct Spans {
    flow: Span,
    attempts: BTreeMap<AttemptId, Span>,
    /// What fails is left to the next start.
    is_stopping: bool,
}

impl Spans {
    /// Within the span of whoever opens the flow.
    pub(crate) fn new(name: &str, run: &str) -> Self {
        let flow = info_span!(target: "keelboat", "flow", name, run);
        Self { flow, attempts: BTreeMap::new(), is_stopping: false }
    }

    /// Nothing more is begun.
    pub(crate) fn stop(&mut self) {
        self.is_stopping = true;
    }

    /// In which an attempt's function is called. One that is launched ahead has not begun yet.
    pub(crate) fn attempt(&mut self, core: &Core, id: AttemptId, edges: &Edges) -> Span {
        if self.flow.is_disabled() {
            return Span::none();
        }
        let flow = &self.flow;
        self.attempts.entry(id).or_insert_with(|| span_of(flow, core, id, edges)).clone()
    }

    pub(crate) fn on_ready(&self, task: &str) {
        if !self.flow.is_disabled() {
            debug!(target: "keelboat", parent: &self.flow, task, "ready");
        }
    }

    pub(crate) fn on_facts(&mut self, core: &Core, facts: &[Stamped], edges: &Edges) {
        if self.flow.is_disabled() {
            return;
        }
        for Stamped { fact, .. } in facts {
            match fact {
                Fact::AttemptStarted { task, ordinal, reasons } => {
                    // Of others it was asked before whether they have a result.
                    let unasked =
                        |reason: &Reason| matches!(reason, Reason::CacheOff | Reason::Forced);
                    if reasons.iter().any(unasked) {
                        self.on_ready(task);
                    }
                    self.begin(core, task, *ordinal, edges);
                }
                Fact::AttemptFailed { task, ordinal, failure, .. } => {
                    let (class, cause) = (failure.class.as_str(), &*failure.cause);
                    let span = self.end(core, task, *ordinal);
                    warn!(target: "keelboat", parent: &span, class, cause, "failed");
                    let phase = core.graph().find(task).map(|task| core.phase(task));
                    if !self.is_stopping && phase.is_some_and(|phase| !phase.is_final()) {
                        debug!(target: "keelboat", parent: &span, next = ordinal + 1, "retry");
                    }
                }
                Fact::Completed { task, ordinal, usage, .. } => {
                    let span = self.end(core, task, *ordinal);
                    debug!(target: "keelboat", parent: &span, wall = ?usage.wall, "done");
                }
                Fact::Reused { task, .. } => {
                    debug!(target: "keelboat", parent: &self.flow, task = &**task, "reused");
                }
                Fact::Failed { task, failure } => {
                    let (task, cause) = (&**task, &*failure.cause);
                    warn!(target: "keelboat", parent: &self.flow, task, cause, "failed for good");
                }
                Fact::Skipped { task, because } => {
                    let (task, because) = (&**task, &**because);
                    debug!(target: "keelboat", parent: &self.flow, task, because, "skipped");
                }
                _ => {}
            }
        }
    }

    fn begin(&mut self, core: &Core, task: &str, ordinal: u32, edges: &Edges) {
        let Some(task) = core.graph().find(task) else { return };
        let span = self.attempt(core, AttemptId { task, ordinal }, edges);
        debug!(target: "keelboat", parent: &span, "started");
    }

    /// The span of an attempt that is over; that of the flow if it has none.
    fn end(&mut self, core: &Core, task: &str, ordinal: u32) -> Span {
        let id = core.graph().find(task).map(|task| AttemptId { task, ordinal });
        let span = id.and_then(|id| self.attempts.remove(&id));
        span.unwrap_or_else(|| self.flow.clone())
    }
}

fn span_of(flow: &Span, core: &Core, id: AttemptId, edges: &Edges) -> Span {
    let local = edges.pools.get(usize::from(core.pool(id.task)));
    info_span!(
        target: "keelboat",
        parent: flow,
        "attempt",
        task = &*core.spec(id.task).name,
        attempt = id.ordinal,
        executor = local.map_or("", |local| &local.pool.label),
        // One in line gets the one that it asks for.
        cores = core.held(id.task).cores.max(1)
    )
}
