//! The life of one task: its id written down, submitted, followed to its end.
//!
//! It runs by itself; those who wait for its parcels may come and go. When all have gone, the task
//! is cancelled.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

use serde::Deserialize;
use serde_json::{Value, json};

use super::Inner;
use super::account::Account;
use super::answer::{CallError, Refusal};
use super::api::List;
use super::board::{Landed, Outcome, Parcel};
use super::document::{Document, Item, Route};
use super::record::{Kept, Record};
use super::slots::Slot;
use super::status::{self, Event, Look, PauseInfo, Skipped, TaskDocument, Watch};
use crate::fetch::TransferEvent;
use crate::protocol::TransferError;
use crate::retry::{Retries, RetryBudget};

/// How long after its deadline a task may stay active before it is given up.
const AFTER_DEADLINE: Duration = Duration::from_mins(10);

/// Looks at a task that was cancelled, until it has ended.
const LOOKS_AFTER_CANCEL_MAX: u32 = 20;

/// Events that are searched for the files that are to blame.
const EVENTS_MAX: &str = "100";

/// Pages of files that were skipped, of 100 each or more.
const SKIPPED_PAGES_MAX: u32 = 10_000;

/// One task and those who wait for it.
pub(super) struct Task {
    pub(super) inner: Arc<Inner>,
    pub(super) account: Arc<Account>,
    pub(super) parcels: Vec<Arc<Parcel>>,
    /// Counts against the limit on tasks at once. A task of an earlier life may be without one.
    pub(super) slot: Option<Slot>,
}

/// How a task ended.
enum End {
    /// All has come, but for these items.
    Landed(BTreeMap<usize, TransferError>),
    /// Nothing will come.
    Failed(TransferError),
    /// These items are to blame; the others travel again.
    Displaced { culprits: BTreeMap<usize, TransferError>, alone: bool },
    /// It goes on without us: its record stays.
    Lost(TransferError),
    /// Nobody waits any more.
    Cancelled,
}

#[derive(Deserialize)]
struct SubmissionId {
    value: String,
}

#[derive(Deserialize)]
struct Submitted {
    task_id: String,
}

#[derive(Deserialize)]
struct Listed {
    task_id: String,
    label: Option<String>,
}

impl Task {
    /// A new task for these parcels.
    pub(super) async fn begin(self, route: Route) {
        match self.prepare(route).await {
            Ok(mut kept) => {
                let end = self.submit_and_follow(&mut kept, false).await;
                self.finish(end, kept, true);
            }
            Err(error) => {
                let all = self.parcels.iter().cloned();
                let failed = all.map(|parcel| (parcel, Outcome::Failed(error.clone())));
                self.inner.board.end(failed, None);
            }
        }
    }

    /// The task of an earlier life.
    pub(super) async fn resume(self, mut kept: Box<Kept>) {
        let end = self.submit_and_follow(&mut kept, true).await;
        self.finish(end, *kept, false);
    }

    /// Writes down what will be submitted, under the id that makes it one task however often it is.
    async fn prepare(&self, route: Route) -> Result<Kept, TransferError> {
        let inner = &self.inner;
        let asked = inner.api.call(&self.account, inner.api.get(&["submission_id"], &[])).await;
        let SubmissionId { value } = asked.map_err(CallError::explain)?;
        if !super::address::is_id(&value) {
            let found = "the submission id of Globus is no id".into();
            return Err(TransferError::Malformed { found });
        }
        let items: Vec<Item> = self.parcels.iter().map(|parcel| parcel.key.1.clone()).collect();
        let stamps = self.parcels.iter().map(|parcel| parcel.stamp.clone()).collect();
        let ends = jiff::Timestamp::now() + inner.config.deadline;
        let record = Record::new(Document::new(value, &route, ends, items), stamps);
        let dir = inner.config.state_dir.clone();
        super::blocking(move || Kept::create(&dir, record)).await
    }

    async fn submit_and_follow(&self, kept: &mut Kept, is_inherited: bool) -> End {
        let mut is_ours = true;
        let mut is_first_look = is_inherited;
        let id = match kept.record.task_id.clone() {
            Some(id) => id,
            None => match self.submit(kept, is_inherited).await {
                Ok((id, ours)) => {
                    (is_ours, is_first_look) = (ours, false);
                    if let Err(error) = kept.set_task(&id) {
                        // The same submission finds the task again.
                        tracing::warn!(%error, "the id of a Globus task is not recorded");
                    }
                    id
                }
                Err(end) => return end,
            },
        };
        tracing::debug!(task = id, items = self.parcels.len(), "a Globus task is followed");
        for parcel in &self.parcels {
            parcel.tell(|source, watcher| {
                watcher.on_event(&TransferEvent::Opened { source, offset: 0, length: None });
            });
        }
        Follow { task: self, id, is_ours, is_first_look }.until_its_end(&kept.record.document).await
    }

    /// The task's id, and whether the task is ours to cancel.
    ///
    /// A submission of an earlier life may have arrived, as one whose answer was lost: only a
    /// refusal of that very one ends it.
    async fn submit(&self, kept: &Kept, is_inherited: bool) -> Result<(String, bool), End> {
        let api = &self.inner.api;
        let document = &kept.record.document;
        let body = serde_json::to_value(document).unwrap_or_default();
        match api.call(&self.account, api.post(&["transfer"], body)).await {
            Ok(Submitted { task_id }) => Ok((task_id, true)),
            Err(CallError::Refused(refusal)) if refusal.is_conflict() => {
                self.same_task(document, refusal).await
            }
            Err(CallError::Refused(refusal))
                if refusal.status.as_u16() == 400 && self.parcels.len() > 1 =>
            {
                // One of the paths may be to blame.
                Err(End::Displaced { culprits: BTreeMap::new(), alone: true })
            }
            Err(CallError::GaveUp(error) | CallError::InDoubt(error)) => Err(End::Lost(error)),
            Err(error) if is_inherited && !error.is_final() => Err(End::Lost(error.explain())),
            Err(error) => Err(End::Failed(error.explain())),
        }
    }

    /// Paths of this submission are in another task: one that moves the very same, or a record of
    /// a process that has ended by now, or one that is not ours.
    async fn same_task(
        &self,
        document: &Document,
        refusal: Refusal,
    ) -> Result<(String, bool), End> {
        let inner = &self.inner;
        let filter = "status:ACTIVE,INACTIVE/type:TRANSFER";
        let call = inner.api.get(&["task_list"], &[("filter", filter), ("limit", "1000")]);
        let listed: List<Listed> = match inner.api.call(&self.account, call).await {
            Ok(listed) => listed,
            Err(error) => return Err(End::Failed(error.explain())),
        };
        let mut same = listed.data.into_iter();
        if let Some(same) = same.find(|task| task.label.as_deref() == Some(&document.label)) {
            return Ok((same.task_id, false));
        }
        inner.scan(Some(&document.submission_id));
        if self.parcels.iter().any(|parcel| inner.board.has_dormant(&parcel.key)) {
            return Err(End::Displaced { culprits: BTreeMap::new(), alone: false });
        }
        if self.parcels.len() > 1 {
            return Err(End::Displaced { culprits: BTreeMap::new(), alone: true });
        }
        let found = format!("another Globus task moves the same file now: {}", refusal.message);
        Err(End::Failed(TransferError::Busy { found, retry_after: None }))
    }

    /// Says to all how it ended, and sees to the record.
    fn finish(self, end: End, kept: Kept, is_fresh: bool) {
        let all = || self.parcels.iter().cloned();
        let board = &self.inner.board;
        match end {
            End::Landed(mut errors) => {
                let landed = Landed::new(kept);
                let ended = all().enumerate().map(|(at, parcel)| match errors.remove(&at) {
                    Some(error) => (parcel, Outcome::Failed(error)),
                    None => (parcel, Outcome::Arrived { is_fresh }),
                });
                board.end(ended, Some(&landed));
            }
            End::Failed(error) => {
                kept.remove();
                board.end(all().map(|parcel| (parcel, Outcome::Failed(error.clone()))), None);
            }
            End::Displaced { mut culprits, alone } => {
                kept.remove();
                let ended = all().enumerate().map(|(at, parcel)| match culprits.remove(&at) {
                    Some(error) => (parcel, Outcome::Failed(error)),
                    None => (parcel, Outcome::Displaced { alone }),
                });
                board.end(ended, None);
            }
            End::Lost(error) => {
                let path = kept.path().to_owned();
                drop(kept);
                board.add_dormant(all().map(|parcel| (parcel.key.clone(), path.clone())));
                board.end(all().map(|parcel| (parcel, Outcome::Failed(error.clone()))), None);
            }
            End::Cancelled => {
                kept.remove();
                // Somebody may have come just now.
                board.end(all().map(|parcel| (parcel, Outcome::Displaced { alone: false })), None);
            }
        }
        drop(self.slot);
    }

    /// Which items the faults of this code are about.
    fn blamed(&self, paths: &BTreeSet<String>) -> BTreeSet<usize> {
        let items = self.parcels.iter().enumerate();
        let touched =
            items.filter(|(_, parcel)| paths.iter().any(|path| parcel.key.1.touches(path)));
        touched.map(|(at, _)| at).collect()
    }
}

/// A task of Globus that is looked at until it ends.
struct Follow<'a> {
    task: &'a Task,
    id: String,
    is_ours: bool,
    /// Whether it may have ended before this life.
    is_first_look: bool,
}

impl Follow<'_> {
    async fn until_its_end(mut self, document: &Document) -> End {
        let inner = &self.task.inner;
        let mut waits = polls(inner.config.poll_min, inner.config.poll_max, inner.config.seed);
        let mut watch = Watch::new(inner.config.fault_looks_max);
        loop {
            let left = inner.board.left();
            tokio::pin!(left);
            left.as_mut().enable();
            if inner.board.is_given_up(&self.task.parcels) {
                return self.cancel_for(End::Cancelled).await;
            }
            let state = match self.look().await {
                Ok(state) => state,
                Err(end) => return end,
            };
            match watch.look(&state) {
                Look::Succeeded => return self.landed(&state).await,
                Look::Failed if self.is_first_look => {
                    return End::Displaced { culprits: BTreeMap::new(), alone: false };
                }
                Look::Failed => {
                    let fatal = state.fatal_error.unwrap_or_default();
                    return self.failed(&fatal.code, &fatal.description).await;
                }
                Look::Hopeless { code } => {
                    let end = self.failed(&code, "").await;
                    return self.cancel_for(end).await;
                }
                Look::Active { advanced, has_faults } => {
                    if advanced {
                        waits.on_progress(Instant::now());
                    }
                    let wait = waits.on_failure(Instant::now(), None);
                    let wait = wait.unwrap_or(inner.config.poll_max);
                    self.show(&state, has_faults, wait).await;
                    self.is_first_look = false;
                    if is_over(document) {
                        let phase = "until the deadline of the Globus task".to_owned();
                        let waited = inner.config.deadline + AFTER_DEADLINE;
                        let stalled = TransferError::Stalled { waited, phase };
                        return self.cancel_for(End::Failed(stalled)).await;
                    }
                    tokio::select! {
                        () = tokio::time::sleep(wait) => {}
                        () = left => {}
                    }
                }
            }
        }
    }

    async fn get<T: serde::de::DeserializeOwned>(
        &self,
        below: &[&str],
        query: &[(&str, &str)],
    ) -> Result<T, CallError> {
        let path: Vec<&str> = ["task", &self.id].into_iter().chain(below.iter().copied()).collect();
        let api = &self.task.inner.api;
        api.call(&self.task.account, api.get(&path, query)).await
    }

    async fn look(&self) -> Result<TaskDocument, End> {
        self.get(&[], &[]).await.map_err(|error: CallError| match error.refusal() {
            Some(refusal) if refusal.status.as_u16() == 404 && self.is_first_look => {
                // Globus has forgotten it since.
                End::Displaced { culprits: BTreeMap::new(), alone: false }
            }
            _ => End::Lost(error.explain()),
        })
    }

    /// Tells those who watch how far it is, or why it does not move.
    async fn show(&self, state: &TaskDocument, has_faults: bool, wait: Duration) {
        if let [only] = self.task.parcels.as_slice()
            && state.bytes_transferred > 0
        {
            let position = state.bytes_transferred;
            let event = TransferEvent::Received { position, length: None };
            only.tell(|_, watcher| watcher.on_event(&event));
        }
        if state.is_paused {
            let info: PauseInfo = self.get(&["pause_info"], &[]).await.unwrap_or_default();
            tell_waiting(&self.task.parcels, &format!("paused: {}", info.reason()), wait);
        } else if has_faults {
            let query = [("filter", "is_error:1"), ("limit", "1")];
            let events: Result<List<Event>, _> = self.get(&["event_list"], &query).await;
            let last = events.ok().and_then(|events| events.data.first().map(Event::shown));
            let cause = [state.trouble(), last].into_iter().flatten().collect::<Vec<_>>();
            tell_waiting(&self.task.parcels, &cause.join(": "), wait);
        } else if let Some(cause) = state.trouble() {
            tell_waiting(&self.task.parcels, &cause, wait);
        }
    }

    /// All has come but what was skipped.
    async fn landed(&self, state: &TaskDocument) -> End {
        let mut errors = BTreeMap::new();
        if state.subtasks_skipped_errors == 0 {
            return End::Landed(errors);
        }
        let mut marker = None;
        for _page in 0..SKIPPED_PAGES_MAX {
            let query: Vec<(&str, &str)> =
                marker.iter().map(|marker: &String| ("marker", marker.as_str())).collect();
            let page: List<Skipped> = match self.get(&["skipped_errors"], &query).await {
                Ok(page) => page,
                Err(error) => return End::Lost(error.explain()),
            };
            for Skipped { source_path, error_code, error_details } in page.data {
                let items = self.task.parcels.iter().enumerate();
                for (at, _) in items.filter(|(_, parcel)| parcel.key.1.has_source(&source_path)) {
                    let explain = || status::explain(&error_code, &error_details);
                    errors.entry(at).or_insert_with(explain);
                }
            }
            match page.next_marker {
                None | Some(Value::Null) => return End::Landed(errors),
                Some(Value::String(text)) => marker = Some(text),
                Some(other) => marker = Some(other.to_string()),
            }
        }
        let found = "the list of files that Globus skipped has no end".into();
        End::Lost(TransferError::Malformed { found })
    }

    /// Nothing more will come, for this reason: who is to blame, and who travels again?
    async fn failed(&self, code: &str, description: &str) -> End {
        let parcels = self.task.parcels.len();
        if parcels == 1 || matches!(code, "CANCELED" | "EXPIRED") {
            let details = match description {
                "" => self.last_fault(code).await,
                description => description.to_owned(),
            };
            return End::Failed(status::explain(code, &details));
        }
        let query = [("filter", "is_error:1"), ("limit", EVENTS_MAX)];
        let events: Result<List<Event>, _> = self.get(&["event_list"], &query).await;
        let events = events.map(|events| events.data).unwrap_or_default();
        let mut paths = status::paths_in(description);
        for event in events.iter().filter(|event| event.is(code)) {
            paths.extend(event.paths());
        }
        let culprits: BTreeMap<usize, TransferError> = self
            .task
            .blamed(&paths)
            .into_iter()
            .map(|at| {
                let path = &self.task.parcels[at].key.1.source_path;
                (at, status::explain(code, path))
            })
            .collect();
        let alone = culprits.is_empty();
        End::Displaced { culprits, alone }
    }

    async fn last_fault(&self, code: &str) -> String {
        let query = [("filter", "is_error:1"), ("limit", "1")];
        let events: Result<List<Event>, _> = self.get(&["event_list"], &query).await;
        let events = events.map(|events| events.data).unwrap_or_default();
        let last = events.first().filter(|event| event.is(code));
        last.map(Event::shown).unwrap_or_default()
    }

    /// Ends the task, and waits until it has: before that, nobody can submit the same paths.
    async fn cancel_for(&self, end: End) -> End {
        if !self.is_ours {
            return end;
        }
        let api = &self.task.inner.api;
        let call = api.post(&["task", &self.id, "cancel"], json!({}));
        let cancelled: Result<Value, CallError> = api.call(&self.task.account, call).await;
        if let Err(error) = cancelled {
            return End::Lost(error.explain());
        }
        for _look in 0..LOOKS_AFTER_CANCEL_MAX {
            match self.get::<TaskDocument>(&[], &[]).await {
                Ok(state) if matches!(state.status.as_str(), "SUCCEEDED" | "FAILED") => return end,
                Ok(_) => tokio::time::sleep(self.task.inner.config.poll_min).await,
                Err(error) => return End::Lost(error.explain()),
            }
        }
        end
    }
}

/// They wait for so long, and this is why.
pub(super) fn tell_waiting(parcels: &[Arc<Parcel>], cause: &str, wait: Duration) {
    for parcel in parcels {
        parcel.tell(|source, watcher| {
            watcher.on_event(&TransferEvent::Waiting { source, cause, wait, next: None });
        });
    }
}

/// When to look again: sooner while it moves, and for as long as it takes.
fn polls(wait_min: Duration, wait_max: Duration, seed: u64) -> Retries {
    let tries_max = u32::MAX;
    let elapsed_max = Duration::MAX;
    let budget = RetryBudget { tries_max, elapsed_max, wait_min, wait_max };
    Retries::new(&budget, seed, Instant::now())
}

fn is_over(document: &Document) -> bool {
    document.ends().is_some_and(|ends| jiff::Timestamp::now() > ends + AFTER_DEADLINE)
}
