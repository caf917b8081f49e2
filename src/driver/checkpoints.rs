//! What attempts save for the next ones: put in their scratch directories when they begin, taken
//! from there while they run and when they fail.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::SystemTime;

use keelboat_checkpoint::{
    CHECKPOINTS_KEPT, DigestCache, Lease, Origin, SnapshotError, SnapshotStore, Snapshots, Verdict,
};
use keelboat_engine::core::{Core, Event};
use keelboat_engine::{
    AttemptId, CheckpointOrigin, Digest, Failure, FailureClass, MemoKey, TaskName, Timestamp,
};
use keelboat_staging::remove_tree;

use super::edges::Edges;
use super::message::Message;
use super::pool::Pool;
use crate::project::{Project, file_name_of};

/// What follows the name of a scratch directory in the name of the file that tells what is to be
/// saved of it.
const LEASE_SUFFIX: &str = ".checkpoint";

/// The checkpoints of a project, as one run uses them.
#[derive(Debug)]
pub(crate) struct Checkpoints {
    store: SnapshotStore,
    workflow: String,
    /// Copies while tasks run go one after the other, and keep nobody from being launched.
    pub(super) pool: Pool,
}

impl Checkpoints {
    pub(super) fn open(
        project: &Project,
        workflow: &str,
        digests: Arc<DigestCache>,
    ) -> std::io::Result<Self> {
        let store = SnapshotStore::at(&project.state()).remembering(digests);
        Ok(Self { store, workflow: workflow.to_owned(), pool: Pool::start(1)? })
    }

    /// Where the snapshots of a task lie. Several workflows of one project may have a task of
    /// one name.
    fn folder_of(&self, task: &str) -> String {
        format!("{}.{}", file_name_of(task), Digest::of(self.workflow.as_bytes()).short())
    }

    /// A task is done, durably: nobody goes on from what it saved. Returns what is left to do.
    pub(super) fn forget(&self, task: &TaskName) -> impl FnOnce() + Send + 'static {
        let forgotten = self.store.forget(&self.folder_of(task));
        move || {
            if let Err(error) = forgotten.and_then(keelboat_checkpoint::Forgotten::remove) {
                tracing::warn!(%error, "checkpoints of a task that is done take room until the next run");
            }
        }
    }

    /// Removes what threads that nobody waits for have not come to.
    pub(super) fn close(&self) {
        if let Err(error) = self.store.sweep() {
            tracing::debug!(%error, "checkpoints that are not needed stay until the next run");
        }
    }
}

/// The checkpoints of one attempt.
#[derive(Debug)]
pub(super) struct Checkpoint {
    id: AttemptId,
    task: TaskName,
    key: MemoKey,
    /// The directory, relative to the scratch directory, and its place.
    directory: Arc<str>,
    place: PathBuf,
    /// What earlier runs saved does not count.
    anew: bool,
    /// The task may have been at work in the directory.
    begun: AtomicBool,
    /// The attempt has ended: copying it is in vain.
    over: AtomicBool,
    /// What it left was saved, or could not be.
    left: AtomicBool,
    /// One is saved at a time. Holds how many were.
    saving: Mutex<u32>,
}

impl Checkpoint {
    pub(super) fn new(core: &Core, id: AttemptId, scratch: &Path) -> Option<Self> {
        let spec = core.spec(id.task);
        let checkpoint = spec.options.checkpoint.as_ref()?;
        Some(Self {
            id,
            task: spec.name.clone(),
            key: core.key(id.task)?,
            directory: checkpoint.directory.clone(),
            place: scratch.join(checkpoint.directory.as_ref()),
            anew: core.begins_anew(id),
            begun: AtomicBool::new(false),
            over: AtomicBool::new(false),
            left: AtomicBool::new(false),
            saving: Mutex::default(),
        })
    }

    /// Its name in the scratch directory.
    pub(super) fn name(&self) -> &str {
        &self.directory
    }

    /// Its directory, for the task.
    pub(super) fn place(&self) -> &Path {
        &self.place
    }

    fn snapshots(&self, edges: &Edges) -> Snapshots {
        edges.checkpoints.store.of(&edges.checkpoints.folder_of(&self.task), self.key)
    }

    fn origin(&self, edges: &Edges) -> Origin {
        let (run, task) = (edges.run.id().to_owned(), self.task.to_string());
        Origin { run, task, ordinal: self.id.ordinal, saved: now() }
    }

    /// Makes the directory, with what was saved last, and notes what is to be saved of it.
    pub(super) fn begin(&self, scratch: &Path, edges: &Edges) -> Result<(), Failure> {
        let snapshots = self.snapshots(edges);
        if self.anew {
            snapshots.forget().map_err(|error| failure_of(&error.into()))?;
        }
        let restoration = snapshots.restore(&self.place).map_err(|error| failure_of(&error))?;
        for damaged in &restoration.damaged {
            edges.tell(Message::Warning(format!(
                "a checkpoint of {} is damaged ({}) and is set aside as {}",
                self.task,
                damaged.what,
                damaged.quarantined.display()
            )));
        }
        let folder = edges.checkpoints.folder_of(&self.task);
        let directory = self.directory.to_string();
        let lease = Lease::new(folder, self.key, directory, self.origin(edges));
        let written = lease.write(&lease_of(scratch));
        written.map_err(|error| failure_of(&error.into()))?;
        self.begun.store(true, Ordering::SeqCst);
        if let Some((origin, bytes)) = restoration.from {
            let run = (origin.run != edges.run.id()).then(|| origin.run.into());
            let (ordinal, saved) = (origin.ordinal, origin.saved);
            let from = CheckpointOrigin { run, ordinal, saved, bytes };
            let event = Event::CheckpointRestored { attempt: self.id, from };
            edges.tell(Message::Events(vec![event]));
        }
        Ok(())
    }

    /// The task does not run any more.
    pub(super) fn end(&self) {
        self.over.store(true, Ordering::SeqCst);
    }

    /// Saves the directory while the task runs.
    pub(super) fn save_running(&self, edges: &Edges) {
        let event = self.saved(edges, |snapshots, origin| {
            let is_over = || self.over.load(Ordering::SeqCst);
            snapshots.save_running(&self.place, origin, &is_over)
        });
        let event = event.unwrap_or(Event::CheckpointNotSaved { attempt: self.id });
        edges.tell(Message::Events(vec![event]));
    }

    /// Whether the attempt left something that is still to be saved; asked once.
    pub(super) fn take_left(&self) -> bool {
        self.begun.load(Ordering::SeqCst) && !self.left.swap(true, Ordering::SeqCst)
    }

    /// Saves the directory now, since its task asks for that.
    pub(super) fn save_now(&self, edges: &Edges) -> Result<(), SnapshotError> {
        let is_over = || self.over.load(Ordering::SeqCst);
        let saved = self.save(edges, |snapshots, origin| {
            if is_over() {
                return Err(SnapshotError::Ended);
            }
            snapshots.save_running(&self.place, origin, &is_over)
        })?;
        if let Some(event) = saved {
            edges.tell(Message::Events(vec![event]));
        }
        Ok(())
    }

    /// Saves what an attempt left that failed. From where somebody may still be at work it is copied.
    pub(super) fn save_left(&self, edges: &Edges, is_occupied: bool) -> Option<Event> {
        self.end();
        self.saved(edges, |snapshots, origin| {
            if is_occupied {
                snapshots.save_running(&self.place, origin, &|| false)
            } else {
                snapshots.save_left(&self.place, origin)
            }
        })
    }

    fn saved(
        &self,
        edges: &Edges,
        save: impl FnOnce(&Snapshots, Origin) -> Result<Verdict, SnapshotError>,
    ) -> Option<Event> {
        match self.save(edges, save) {
            Ok(event) => event,
            Err(SnapshotError::Ended) => None,
            Err(error) => {
                let hint = error.hint().map(|hint| format!("; {hint}")).unwrap_or_default();
                edges.tell(Message::Warning(format!(
                    "the checkpoint of attempt {} of {} is not saved: {error}{hint}",
                    self.id.ordinal, self.task
                )));
                None
            }
        }
    }

    fn save(
        &self,
        edges: &Edges,
        save: impl FnOnce(&Snapshots, Origin) -> Result<Verdict, SnapshotError>,
    ) -> Result<Option<Event>, SnapshotError> {
        let mut number = self.saving.lock().unwrap_or_else(PoisonError::into_inner);
        match save(&self.snapshots(edges), self.origin(edges))? {
            Verdict::Saved(saved) => {
                *number += 1;
                let (attempt, bytes) = (self.id, saved.bytes);
                Ok(Some(Event::CheckpointSaved { attempt, number: *number, bytes }))
            }
            Verdict::Nothing => Ok(None),
        }
    }
}

/// A scratch directory is about to go: there is nothing to save of it.
pub(super) fn clear(scratch: &Path) {
    if let Err(error) = remove_tree(&lease_of(scratch)) {
        tracing::debug!(%error, "a note on a checkpoint is left over");
    }
}

/// A checkpoint that cannot be put in place is no fault of the task.
fn failure_of(error: &SnapshotError) -> Failure {
    let is_full = matches!(error, SnapshotError::Io(error) if matches!(
        error.kind(),
        std::io::ErrorKind::StorageFull | std::io::ErrorKind::QuotaExceeded
    ));
    let class =
        if is_full { FailureClass::OutOfResources } else { FailureClass::InfrastructureLost };
    let failure = Failure::new(class, format!("its checkpoint cannot be put in place: {error}"));
    match error.hint() {
        Some(hint) => failure.with_hint(hint),
        None => failure,
    }
}

/// Where it is noted what is to be saved of a scratch directory.
fn lease_of(scratch: &Path) -> PathBuf {
    let mut path = scratch.to_owned().into_os_string();
    path.push(LEASE_SUFFIX);
    path.into()
}

fn now() -> Timestamp {
    Timestamp::default().after(std::time::UNIX_EPOCH.elapsed().unwrap_or_default())
}

/// Saves what attempts have left whose engine died, before their scratch directories go. Their
/// processes are dead. Returns what people should know.
pub(super) fn save_left_behind(project: &Project) -> Vec<String> {
    let store = SnapshotStore::at(&project.state());
    let mut warnings = Vec::new();
    let entries = std::fs::read_dir(project.scratch());
    for entry in entries.into_iter().flatten().flatten() {
        let path = entry.path();
        let name = path.file_name().and_then(|name| name.to_str());
        let Some(scratch) = name.and_then(|name| name.strip_suffix(LEASE_SUFFIX)) else { continue };
        match Lease::read(&path) {
            Ok(Some(lease)) => {
                let place = project.scratch().join(scratch).join(&lease.directory);
                warnings.extend(save_of_dead(&lease, &place, &store));
            }
            Ok(None) => warnings.push(format!(
                "what attempt {scratch} saved is lost: the note on it, {}, is damaged",
                path.display()
            )),
            Err(error) => warnings.push(format!("what attempt {scratch} saved is lost: {error}")),
        }
    }
    warnings
}

fn save_of_dead(lease: &Lease, place: &Path, store: &SnapshotStore) -> Option<String> {
    let Origin { task, ordinal, .. } = &lease.origin;
    if !lease.is_of_this_boot() {
        return Some(format!(
            "the machine was started anew while attempt {ordinal} of {task} ran: what it had in {} \
             may be torn and is not used, only what was saved while it ran (checkpoint_every)",
            lease.directory
        ));
    }
    let origin = Origin { saved: now(), ..lease.origin.clone() };
    let saved = lease.snapshots(store).save_left(place, origin);
    let error = saved.err()?;
    Some(format!("the checkpoint of attempt {ordinal} of {task} is lost: {error}"))
}

/// Removes what nobody needs: of engines that died, and of keys that nobody used for long.
pub(super) fn sweep(project: &Project) -> Result<(), String> {
    let store = SnapshotStore::at(&project.state());
    store.sweep().map_err(|error| error.to_string())?;
    let idle = store.idle(SystemTime::now(), CHECKPOINTS_KEPT);
    for path in idle.map_err(|error| error.to_string())? {
        remove_tree(&path).map_err(|error| error.to_string())?;
        // The folder of the task, when that was its last key.
        if let Some(task) = path.parent()
            && let Err(error) = std::fs::remove_dir(task)
        {
            tracing::trace!(%error, "it has other checkpoints");
        }
    }
    Ok(())
}
