//! What would run, and why: the core with edges that look and touch nothing.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use keelboat_checkpoint::{DigestCache, MemoStore, ObjectCache, is_executable};
use keelboat_engine::core::{Action, Core, Event, History, Options, Phase, Pool, Recall};
use keelboat_engine::{
    Fact, Failure, FailureClass, FileId, Kind, MemoKey, Memoize, Reason, Resources, Reuse, SiteId,
    Source, TaskId, TaskName, Timestamp,
};
use keelboat_staging::{address_digest, redact};

use super::edges::Memory;
use super::{RunError, RunOptions, open, pools, recall, targets};
use crate::project::Project;
use crate::settings::Settings;
use crate::workflow::Workflow;

/// More slots than any plan has tasks.
const SLOTS: Resources =
    Resources { cores: 1 << 30, memory: 1 << 60, gpus: 1 << 30, disk: 1 << 60 };

/// What would happen to a task.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    /// It has a result, and the outputs are in their places.
    UpToDate,
    /// It has a result, which the object cache would bring back.
    Restore,
    /// It would run.
    Run(Vec<Reason>),
    /// It waits for something that is not known before other tasks ran or files came.
    Depends(String),
    /// It would fail.
    Fail(Failure),
    /// It would not run, since it waits for a task that would fail.
    Skip(TaskName),
}

/// What would happen.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Plan {
    /// The workflow's name.
    pub workflow: String,
    /// Each task that is known before anything runs, in the order of the file.
    pub tasks: Vec<(TaskName, Verdict)>,
    /// Addresses that would be fetched (without secrets), as far as that is known.
    pub fetches: Vec<String>,
    /// Tasks whose outputs more tasks would come from.
    pub generators: Vec<TaskName>,
}

/// Plans a run without running anything, and without the lock: also beside a live engine.
pub fn plan(options: &RunOptions) -> Result<Plan, RunError> {
    let project = Project::of_workflow(&options.workflow)
        .map_err(RunError::setup("find the directory of the workflow file"))?;
    let settings = Settings::load(Some(project.root()))?;
    let (workflow, tasks) = open::load(options, &project, &settings)?;
    let labels = pools::labels(&settings);
    let pools = labels.into_iter().map(|label| Pool::new(label, SLOTS)).collect();
    let core_options = Options { keep_going: true, ..Options::default() };
    let core = open::core(&workflow, tasks, History::default(), core_options)?;
    let mut planner = Planner::new(core, (workflow, options.clone()), project)?;
    planner.run(pools);
    let count = planner.core.counts().total;
    let tasks = (0..count).map(TaskId).map(|task| planner.verdict(task)).collect();
    let workflow = planner.workflow.name().to_owned();
    let Planner { fetches, generators, .. } = planner;
    Ok(Plan { workflow, tasks, fetches, generators })
}

struct Planner {
    core: Core,
    workflow: Workflow,
    options: RunOptions,
    /// Tasks whose output is not known yet, and that more tasks come from.
    generators: Vec<TaskName>,
    look: Look,
    failures: BTreeMap<TaskName, Failure>,
    skipped: BTreeMap<TaskName, TaskName>,
    restored: Vec<TaskName>,
    would_run: BTreeMap<TaskName, Vec<Reason>>,
    fetches: Vec<String>,
}

/// What may be looked at.
struct Look {
    project: Project,
    memo: MemoStore,
    /// Absent before the first run.
    objects: Option<ObjectCache>,
    digests: Arc<DigestCache>,
    strict: bool,
}

impl Planner {
    fn new(
        core: Core,
        (workflow, options): (Workflow, RunOptions),
        project: Project,
    ) -> Result<Self, RunError> {
        let strict = options.strict;
        let memo = MemoStore::open_read_only(&project.state())?;
        let digests = Arc::new(DigestCache::load(&project.state()));
        let objects = if project.state().join("objects").is_dir() {
            let opened = ObjectCache::open(&project.state(), Arc::clone(&digests));
            Some(opened?)
        } else {
            None
        };
        Ok(Self {
            core,
            workflow,
            options,
            generators: Vec::new(),
            look: Look { project, memo, objects, digests, strict },
            failures: BTreeMap::new(),
            skipped: BTreeMap::new(),
            restored: Vec::new(),
            would_run: BTreeMap::new(),
            fetches: Vec::new(),
        })
    }

    fn run(&mut self, pools: Vec<Pool>) {
        let now = Timestamp::default();
        let mut actions = Vec::new();
        self.core.resume(now, &mut actions);
        let home = Event::SiteJoined { site: SiteId::HOME, pools };
        self.core.step(now, home, &mut actions);
        let mut open = VecDeque::from(actions);
        while let Some(action) = open.pop_front() {
            if let Some(event) = self.look_into(action) {
                let mut actions = Vec::new();
                self.core.step(now, event, &mut actions);
                open.extend(actions);
            }
        }
    }

    fn look_into(&mut self, action: Action) -> Option<Event> {
        match action {
            Action::Stage { file, .. } => self.stage(file),
            Action::Recall { task, key, .. } => Some(self.recall(task, key)),
            Action::Expand { task } => Some(self.expand(task)),
            Action::Record(fact) => {
                match fact {
                    Fact::AttemptStarted { task, reasons, .. } => {
                        self.would_run.insert(task, reasons);
                    }
                    Fact::Failed { task, failure } => {
                        self.failures.insert(task, failure);
                    }
                    Fact::Skipped { task, because } => {
                        self.skipped.insert(task, because);
                    }
                    Fact::Reused { task, reuse: Reuse::Restored, .. } => self.restored.push(task),
                    _ => {}
                }
                None
            }
            _ => None,
        }
    }

    /// A generator whose result is there: what it wrote tells the tasks that follow.
    fn expand(&mut self, by: TaskId) -> Event {
        let name = self.core.spec(by).name.clone();
        let project = self.look.project.clone();
        let mut read = |path: &str| std::fs::read(project.resolve(path));
        match self.workflow.grow(&name, &mut read) {
            Ok(tasks) => {
                let mut tasks = targets::select(tasks, &self.options.targets, true);
                targets::force(&mut tasks, &self.options.force);
                Event::Grown { by, tasks }
            }
            // What would be restored from the object cache is not there to be read.
            Err(errors) => {
                self.generators.push(name);
                let failure = Failure::new(FailureClass::Transient, errors.to_string());
                Event::GrowFailed { by, failure }
            }
        }
    }

    fn stage(&mut self, file: FileId) -> Option<Event> {
        let site = SiteId::HOME;
        let node = self.core.graph().file(file);
        match &node.source {
            Source::Path(path) => {
                let place = self.look.project.resolve(path);
                Some(match self.look.digest(&place, node.kind) {
                    Ok(content) => Event::Staged { file, site, content },
                    Err(error) => Event::StageFailed { file, site, failure: error.failure() },
                })
            }
            Source::Urls(urls) => {
                let records = urls
                    .iter()
                    .filter_map(|url| self.look.memo.source(&address_digest(url)).ok().flatten());
                let mut contents = records.map(|record| record.content);
                let here = contents.find(|content| self.look.has_object(content));
                if here.is_none() {
                    self.fetches.push(urls.first().map(|url| redact(url)).unwrap_or_default());
                }
                Some(Event::Staged { file, site, content: here? })
            }
        }
    }

    fn recall(&mut self, task: TaskId, key: MemoKey) -> Event {
        let name = &self.core.spec(task).name;
        let record = self.look.memo.lookup(&key).unwrap_or_default();
        let takes_failures = self.core.spec(task).options.memoize == Memoize::Failures;
        let damage = match record {
            None => {
                if takes_failures && let Some(failure) = recall::failure(&self.look.memo, key) {
                    return Event::Recalled { task, key, verdict: Recall::Failed { failure } };
                }
                None
            }
            Some(record) => match self.look.bring_back(&record) {
                Ok(reuse) => {
                    let verdict = Recall::Hit { record, reuse };
                    return Event::Recalled { task, key, verdict };
                }
                Err(damage) => Some(damage),
            },
        };
        let before = self.look.memo.last_parts(name).unwrap_or_default();
        let reasons = recall::reasons(&self.core, task, key, damage, before);
        Event::Recalled { task, key, verdict: Recall::Miss { reasons } }
    }

    fn verdict(&mut self, task: TaskId) -> (TaskName, Verdict) {
        let name = self.core.spec(task).name.clone();
        let verdict = match self.core.phase(task) {
            Phase::Done if self.restored.contains(&name) => Verdict::Restore,
            Phase::Done => Verdict::UpToDate,
            Phase::Failed => match self.failures.remove(&name) {
                Some(failure) => Verdict::Fail(failure),
                None => Verdict::Depends("a failure without a cause".to_owned()),
            },
            Phase::Skipped => match self.skipped.remove(&name) {
                Some(because) => Verdict::Skip(because),
                None => Verdict::Depends("a task that would fail".to_owned()),
            },
            Phase::Waiting => Verdict::Depends(self.core.waits_for(task).unwrap_or_default()),
            _ if self.core.spec(task).options.generates && !self.generators.contains(&name) => {
                self.generators.push(name.clone());
                Verdict::Run(self.would_run.remove(&name).unwrap_or_default())
            }
            _ => match self.would_run.remove(&name) {
                Some(reasons) => Verdict::Run(reasons),
                // Its inputs have to be brought first; whether it runs is known.
                None => Verdict::Run(self.core.reasons(task).to_vec()),
            },
        };
        (name, verdict)
    }
}

impl Look {
    fn digest(
        &self,
        place: &std::path::Path,
        kind: Kind,
    ) -> Result<keelboat_engine::Content, keelboat_staging::LocalError> {
        keelboat_staging::digest_path(place, kind, &Memory(Arc::clone(&self.digests)), self.strict)
    }

    fn has_object(&self, content: &keelboat_engine::Content) -> bool {
        let objects = self.objects.as_ref();
        objects.is_some_and(|objects| objects.has(&content.digest, content.kind).unwrap_or(false))
    }

    /// As a run would bring a result back, without touching anything.
    fn bring_back(&self, record: &keelboat_engine::MemoRecord) -> Result<Reuse, Reason> {
        let mut reuse = Reuse::InPlace;
        for output in &record.outputs {
            let Some(content) = output.content else { continue };
            let place = self.project.resolve(&output.path);
            let found = self.digest(&place, content.kind);
            let same_mode = || {
                let metadata = place.symlink_metadata();
                content.kind == Kind::Directory
                    || metadata.is_ok_and(|metadata| is_executable(&metadata) == output.executable)
            };
            if found.is_ok_and(|found| found.digest == content.digest) && same_mode() {
                continue;
            }
            if !self.has_object(&content) {
                let path = output.path.clone();
                let missing = place.symlink_metadata().is_err();
                return Err(if missing {
                    Reason::OutputMissing { path }
                } else {
                    Reason::OutputChanged { path }
                });
            }
            reuse = Reuse::Restored;
        }
        Ok(reuse)
    }
}
