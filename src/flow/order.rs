//! Tasks that come after others although nothing passes between them.

use std::sync::Arc;

use super::argument::CodecErrorOf;
use super::cell::Cell;
use super::command::CommandRun;
use super::future::{FileFuture, Future};
use super::handle::Handle;

/// What a task can be run after: any future of the flow, a command that was submitted, or several of
/// these.
///
/// ```
/// # use keelboat::flow::{Config, Flow, Future};
/// # let directory = tempfile::tempdir()?;
/// # let flow = Flow::open(Config::new(directory.path()))?;
/// let parts: Vec<Future<u64>> = (0..3).map(|x| flow.call(|x: u64| x, (x,))).collect();
/// let last = flow.function(|| "last".to_owned()).after(&parts).call(());
/// assert_eq!(last.wait()?, "last");
/// assert!(parts.iter().all(|part| part.try_get().is_some()));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub trait Precedes {
    #[doc(hidden)]
    fn add_to(&self, earlier: &mut Earlier);
}

/// Tasks that have to be done first.
#[doc(hidden)]
#[derive(Debug, Clone, Default)]
pub struct Earlier(Vec<(Arc<Cell>, Handle)>);

impl Earlier {
    pub(crate) fn add(&mut self, cell: &Arc<Cell>, handle: &Handle) {
        self.0.push((Arc::clone(cell), handle.clone()));
    }

    /// Those tasks, all of this flow.
    pub(crate) fn of(&self, flow: &Handle) -> Result<Vec<Arc<Cell>>, CodecErrorOf> {
        let of_flow = |(cell, handle): &(Arc<Cell>, Handle)| {
            handle.has_to_be(flow, &cell.name())?;
            Ok(Arc::clone(cell))
        };
        self.0.iter().map(of_flow).collect()
    }
}

impl<T> Precedes for Future<T> {
    fn add_to(&self, earlier: &mut Earlier) {
        earlier.add(self.cell(), self.handle());
    }
}

impl Precedes for FileFuture {
    fn add_to(&self, earlier: &mut Earlier) {
        earlier.add(self.cell(), self.handle());
    }
}

impl Precedes for CommandRun {
    fn add_to(&self, earlier: &mut Earlier) {
        self.done().add_to(earlier);
    }
}

impl<P: Precedes> Precedes for [P] {
    fn add_to(&self, earlier: &mut Earlier) {
        for one in self {
            one.add_to(earlier);
        }
    }
}

impl<P: Precedes> Precedes for Vec<P> {
    fn add_to(&self, earlier: &mut Earlier) {
        self.as_slice().add_to(earlier);
    }
}
