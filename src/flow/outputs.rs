//! What tasks write: outputs and checkpoints as they are declared, and the futures of outputs.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use keelboat_engine::{CheckpointSpec, Failure, FailureClass, Kind, OutputSpec, Stream};

use super::cell::Cell;
use super::error::TaskError;
use super::future::FileFuture;
use super::handle::Handle;
use crate::workflow::free;

/// What a task writes, as it is declared.
#[derive(Debug, Clone, Default)]
pub(crate) struct Writes {
    outputs: Vec<Written>,
    checkpoint: Option<(String, Option<Duration>)>,
    /// An address without an output.
    stray: Option<String>,
}

#[derive(Debug, Clone)]
struct Written {
    label: Arc<str>,
    path: String,
    to: Option<String>,
    kind: Kind,
    captures: Option<Stream>,
}

impl Writes {
    pub(crate) fn add(&mut self, label: &str, path: &str, kind: Kind) {
        let (label, path) = (label.into(), path.to_owned());
        self.outputs.push(Written { label, path, to: None, kind, captures: None });
    }

    /// What a command prints becomes a file.
    pub(crate) fn capture(&mut self, stream: Stream, path: &str) {
        let (label, path) = (stream.name().into(), path.to_owned());
        let (kind, captures) = (Kind::File, Some(stream));
        self.outputs.push(Written { label, path, to: None, kind, captures });
    }

    /// Where the last output is sent.
    pub(crate) fn send(&mut self, address: &str) {
        match self.outputs.last_mut() {
            Some(last) => last.to = Some(address.to_owned()),
            None => self.stray = Some(address.to_owned()),
        }
    }

    pub(crate) fn keep(&mut self, directory: &str, every: Option<Duration>) {
        let before = self.checkpoint.take().and_then(|(_, every)| every);
        self.checkpoint = Some((directory.to_owned(), every.or(before)));
    }

    pub(crate) fn is_nothing(&self) -> bool {
        self.outputs.is_empty() && self.checkpoint.is_none() && self.stray.is_none()
    }

    pub(crate) const fn keeps_checkpoint(&self) -> bool {
        self.checkpoint.is_some()
    }

    /// The outputs, as the engine knows them.
    pub(crate) fn outputs(&self, project: &free::Project) -> Result<Vec<OutputSpec>, String> {
        if let Some(address) = &self.stray {
            let address = keelboat_staging::redact(address);
            return Err(format!(
                "there is no output to send to {address}: `.to` follows its output"
            ));
        }
        let spec = |written: &Written| {
            let (path, scratch_path) = free::output(&written.path, project)?;
            let to = written.to.as_ref();
            let deliver_to = to.map(|to| free::destination(to, project)).transpose()?;
            let (label, kind) = (Arc::clone(&written.label), written.kind);
            let (captures, optional) = (written.captures, false);
            Ok(OutputSpec { label, path, scratch_path, kind, optional, captures, deliver_to })
        };
        self.outputs.iter().map(spec).collect()
    }

    /// The checkpoint, apart from the files with these names.
    pub(crate) fn checkpoint(
        &self,
        names: &[Arc<str>],
    ) -> Result<Option<Arc<CheckpointSpec>>, String> {
        let Some((directory, every)) = &self.checkpoint else { return Ok(None) };
        let directory = free::checkpoint(directory, names)?;
        Ok(Some(Arc::new(CheckpointSpec { directory, every: *every })))
    }
}

/// The methods by which the builders of tasks are told what they write.
macro_rules! output_methods {
    () => {
        /// A file that it writes: it appears at this path when the task is done.
        ///
        /// ```
        /// # use keelboat::flow::{Config, Context, Flow};
        /// # let directory = tempfile::tempdir()?;
        /// # let flow = Flow::open(Config::new(directory.path()))?;
        /// fn write(context: Context) -> std::io::Result<()> {
        ///     std::fs::write(context.output("list")?, "1 2 3")
        /// }
        /// let list = flow.function(write).output("list", "out/list.txt").try_call(()).output("list");
        /// assert!(list.wait()?.ends_with("out/list.txt"));
        /// # Ok::<(), Box<dyn std::error::Error>>(())
        /// ```
        pub fn output(mut self, label: &str, path: &str) -> Self {
            self.writes.add(label, path, keelboat_engine::Kind::File);
            self
        }

        /// A directory that it writes.
        ///
        /// ```no_run
        /// # use keelboat::flow::{Config, Flow};
        /// # let directory = tempfile::tempdir()?;
        /// # let flow = Flow::open(Config::new(directory.path()))?;
        /// let pages = flow.command("split -l 100 book.txt {{ outputs.pages }}/").output_directory("pages", "pages");
        /// pages.submit().done().wait()?;
        /// # Ok::<(), Box<dyn std::error::Error>>(())
        /// ```
        pub fn output_directory(mut self, label: &str, path: &str) -> Self {
            self.writes.add(label, path, keelboat_engine::Kind::Directory);
            self
        }

        /// An address that the last output is sent to when the task is done.
        ///
        /// ```no_run
        /// # use keelboat::flow::{Config, Flow};
        /// # let directory = tempfile::tempdir()?;
        /// # let flow = Flow::open(Config::new(directory.path()))?;
        /// let list = flow.command("seq 9 > {{ outputs.list }}").output("list", "list.txt").to("s3://bucket/list.txt");
        /// list.submit().output("list").wait()?; // when it is there, and in the bucket
        /// # Ok::<(), Box<dyn std::error::Error>>(())
        /// ```
        pub fn to(mut self, address: &str) -> Self {
            self.writes.send(address);
            self
        }

        /// A directory in the one that it runs in, whose content is kept when a try of it dies, and
        /// put back before the next one, also by a program that is started again. A command finds
        /// it in `KEELBOAT_CHECKPOINT_DIR` too, a function by
        /// [`Context::checkpoint`](crate::flow::Context::checkpoint). Deleted when the task is done.
        pub fn checkpoint(mut self, directory: &str) -> Self {
            self.writes.keep(directory, None);
            self
        }

        /// A [checkpoint](Self::checkpoint) that is also saved while the task runs, so often.
        ///
        /// ```no_run
        /// # use keelboat::flow::{Config, Flow};
        /// # let directory = tempfile::tempdir()?;
        /// # let flow = Flow::open(Config::new(directory.path()))?;
        /// use std::time::Duration;
        /// let trained = flow.command("train --state state/ > {{ outputs.model }}").output("model", "model.bin");
        /// trained.checkpoint_every("state/", Duration::from_mins(10)).submit().done().wait()?;
        /// # Ok::<(), Box<dyn std::error::Error>>(())
        /// ```
        pub fn checkpoint_every(mut self, directory: &str, span: std::time::Duration) -> Self {
            self.writes.keep(directory, Some(span));
            self
        }
    };
}
pub(crate) use output_methods;

/// The outputs of a task that was submitted.
#[derive(Debug)]
pub(crate) struct Made {
    pub(crate) outputs: Vec<OutputSpec>,
    pub(crate) root: Arc<Path>,
}

/// The output of a task with this label; the first one, if several have it. One that was not
/// declared is a future that fails.
pub(crate) fn output_of(cell: &Arc<Cell>, label: &str, handle: &Handle) -> FileFuture {
    let made = cell.made();
    let outputs = made.map_or(&[][..], |made| &made.outputs);
    if let Some(made) = made
        && let Some(output) = outputs.iter().find(|output| &*output.label == label)
    {
        let place = made.root.join(&*output.path).into();
        let path = (Arc::clone(&output.path), place);
        return FileFuture::new(Arc::clone(cell), path, output.kind, handle.clone());
    }
    let failing = if let Some(Err(_)) = cell.ended() {
        Arc::clone(cell)
    } else {
        let labels: Vec<&str> = outputs.iter().map(|output| &*output.label).collect();
        let only = if labels.is_empty() { "none at all" } else { "only " };
        let cause = format!("it has no output {label:?}, {only}{}", labels.join(", "));
        Cell::refusing(&cell.name(), Failure::new(FailureClass::Permanent, cause))
    };
    let path = (Arc::from(label), Path::new(label).into());
    FileFuture::new(failing, path, Kind::File, handle.clone())
}

impl Cell {
    /// Of a task that cannot be.
    pub(crate) fn refusing(name: &Arc<str>, failure: Failure) -> Arc<Self> {
        let cell = Self::new();
        cell.set_name(Arc::clone(name));
        cell.end(Err(TaskError::failed(name, failure)));
        cell
    }
}
