//! Outputs on their way to where others see them.

use std::path::PathBuf;
use std::sync::Arc;

use keelboat_engine::core::Event;
use keelboat_engine::{Content, Failure, FailureClass, TaskId};
use keelboat_staging::{Delivery, Over, Progress, is_address, redact};

use super::edges::{Edges, Memory};
use super::message::Message;
use super::observe::{Moving, Reporter};

/// An output that is to be copied to its address.
#[derive(Debug)]
pub(crate) struct Outgoing {
    pub(crate) task: TaskId,
    /// Which of its outputs.
    pub(crate) output: u32,
    pub(crate) place: PathBuf,
    pub(crate) content: Content,
    /// As declared: an address, or a path that may be relative to the project.
    pub(crate) address: Arc<str>,
}

/// Begins to copy it; ends as an event.
pub(crate) fn begin(edges: &Arc<Edges>, outgoing: Outgoing) {
    let edges = Arc::clone(edges);
    edges.runtime.clone().spawn(async move {
        let Outgoing { task, output, .. } = outgoing;
        let event = match deliver(&edges, outgoing).await {
            Ok(()) => Event::Delivered { task, output },
            Err(failure) => Event::DeliverFailed { task, output, failure },
        };
        edges.board.end(Moving::Output(task.0, output));
        edges.tell(Message::Events(vec![event]));
    });
}

async fn deliver(edges: &Arc<Edges>, outgoing: Outgoing) -> Result<(), Failure> {
    let Outgoing { task, output, place, content, address } = outgoing;
    let stager = edges.stager();
    let stager =
        stager.map_err(|error| Failure::new(FailureClass::Permanent, error.to_string()))?;
    let address = if is_address(&address) {
        address
    } else {
        edges.project.resolve(&address).display().to_string().into()
    };
    let moving = Moving::Output(task.0, output);
    let reporter: Arc<dyn Progress> = Arc::new(Reporter::new(edges, moving, redact(&address)));
    let (over, progress) = (Over::Same, Some(reporter));
    let delivery = Delivery { source: place, content, address, over, progress };
    let memory = Memory(Arc::clone(&edges.digests));
    let delivered = stager.deliver(delivery, memory).await;
    delivered.map(drop).map_err(|error| error.failure())
}
