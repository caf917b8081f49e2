//! Finding earlier results, and proving that they are whole.

use std::io::ErrorKind;
use std::sync::Arc;

use keelboat_checkpoint::{FailureRecord, MemoStore, Restore, is_executable};
use keelboat_engine::core::{Core, Event, Recall};
use keelboat_engine::{
    Failure, KeyPart, Kind, MemoKey, MemoRecord, OutputRecord, Reason, Reuse, TaskId, TaskName,
    key_changes,
};

use keelboat_staging::remove_tree;

use super::aside;
use super::edges::Edges;
use super::message::{Message, Missed};
use super::values;

/// Look-ups in one job, so that a large workflow keeps all threads busy with few messages.
const BATCH_MAX: usize = 256;

/// Asks whether a task has a result.
#[derive(Debug)]
pub(crate) struct Query {
    pub(crate) task: TaskId,
    pub(crate) name: TaskName,
    pub(crate) key: MemoKey,
    pub(crate) known: Option<MemoRecord>,
    /// Whether an earlier failure counts.
    pub(crate) takes_failures: bool,
}

/// Answers the queries in jobs of the pool.
pub(crate) fn submit(edges: &Arc<Edges>, mut queries: Vec<Query>) {
    let size = queries.len().div_ceil(4 * edges.threads).clamp(1, BATCH_MAX);
    while !queries.is_empty() {
        let rest = queries.split_off(size.min(queries.len()));
        let batch = std::mem::replace(&mut queries, rest);
        let at_work = Arc::clone(edges);
        edges.pool.submit(move || answer(&at_work, batch));
    }
}

fn answer(edges: &Edges, queries: Vec<Query>) {
    let mut events = Vec::with_capacity(queries.len());
    let mut missed = Vec::new();
    for query in queries {
        match recall(edges, query) {
            Ok(event) => events.push(event),
            Err(miss) => missed.push(*miss),
        }
    }
    if !events.is_empty() {
        edges.tell(Message::Events(events));
    }
    if !missed.is_empty() {
        edges.tell(Message::Missed(missed));
    }
}

fn recall(edges: &Edges, query: Query) -> Result<Event, Box<Missed>> {
    let Query { task, name, key, known, takes_failures } = query;
    let record = match known {
        Some(record) => Some(record),
        None => edges.memo.lookup(&key).unwrap_or_else(|error| {
            edges.tell(Message::Warning(format!("{error}; {name} is run again")));
            None
        }),
    };
    let damage = match record {
        None => {
            if takes_failures && let Some(failure) = failure(&edges.memo, key) {
                return Ok(Event::Recalled { task, key, verdict: Recall::Failed { failure } });
            }
            None
        }
        Some(record) => match bring_back(edges, &record) {
            Ok(reuse) => {
                let verdict = Recall::Hit { record, reuse };
                return Ok(Event::Recalled { task, key, verdict });
            }
            Err(damage) => Some(damage),
        },
    };
    let before = edges.memo.last_parts(&name).unwrap_or_default();
    Err(Box::new(Missed { task, key, damage, before }))
}

/// How a task failed before that would fail so again, as it is to be told.
pub(crate) fn failure(memo: &MemoStore, key: MemoKey) -> Option<Failure> {
    let FailureRecord { mut failure, failed_at } = memo.failure(&key).unwrap_or_default()?;
    let seconds = i64::try_from(failed_at.0 / 1_000).unwrap_or_default();
    let when = jiff::Timestamp::from_second(seconds).unwrap_or_default();
    let when = when.to_zoned(jiff::tz::TimeZone::system()).strftime("%Y-%m-%d %H:%M");
    failure.cause = format!("{} (remembered of {when}; it was not run again)", failure.cause);
    let again = "it runs again when what it is made of changes, or is forced";
    failure.hint = Some(match failure.hint {
        Some(hint) => format!("{hint}; {again}"),
        None => again.to_owned(),
    });
    Some(failure)
}

/// Why a task has to run: its result is damaged, or there is none, because of what it was made of
/// the last time.
pub(crate) fn reasons(
    core: &Core,
    task: TaskId,
    key: MemoKey,
    damage: Option<Reason>,
    before: Option<(MemoKey, Vec<KeyPart>)>,
) -> Vec<Reason> {
    match (damage, before) {
        (Some(damage), _) => vec![damage],
        (None, None) => vec![Reason::FirstRun],
        (None, Some((last, _))) if last == key => vec![Reason::RecordLost],
        (None, Some((_, before))) => {
            let now = core.parts(task).unwrap_or_default();
            key_changes(&before, &now).into_iter().map(Reason::Changed).collect()
        }
    }
}

/// Sees to it that every output of a record is in its place, whole.
fn bring_back(edges: &Edges, record: &MemoRecord) -> Result<Reuse, Reason> {
    let mut reuse = Reuse::InPlace;
    for OutputRecord { path, content, executable } in &record.outputs {
        let Some(content) = *content else {
            clear_left_out(edges, path);
            continue;
        };
        let recorded = Restore { content, executable: *executable };
        match in_place(edges, path, &recorded) {
            Ok(()) => {}
            Err(reason) => {
                restore(edges, path, &recorded).ok_or(reason)?;
                reuse = Reuse::Restored;
            }
        }
    }
    if record.value.is_some_and(|value| values::load(edges, value).is_none()) {
        return Err(Reason::RecordLost);
    }
    Ok(reuse)
}

/// An output that the result does not have must not be there from another one.
fn clear_left_out(edges: &Edges, path: &Arc<str>) {
    let place = edges.project.resolve(path);
    if place.symlink_metadata().is_err() {
        return;
    }
    let cleared = aside::keep_before_output(edges, path, None)
        .and_then(|()| remove_tree(&place).map_err(|error| error.failure()));
    if let Err(failure) = cleared {
        edges.tell(Message::Warning(failure.cause));
    }
}

fn in_place(edges: &Edges, path: &Arc<str>, recorded: &Restore) -> Result<(), Reason> {
    let expected = &recorded.content;
    let missing = || Reason::OutputMissing { path: path.clone() };
    let changed = || Reason::OutputChanged { path: path.clone() };
    let place = edges.project.resolve(path);
    if expected.kind == Kind::File {
        let metadata = match place.symlink_metadata() {
            Ok(metadata) => metadata,
            Err(error) if error.kind() == ErrorKind::NotFound => return Err(missing()),
            Err(_unreadable) => return Err(changed()),
        };
        if !metadata.is_file() || metadata.len() != expected.bytes {
            return Err(changed());
        }
        if is_executable(&metadata) != recorded.executable {
            return Err(changed());
        }
        let remembered = edges.digests.lookup(&keelboat_staging::stamp_of(&metadata));
        if !edges.strict && remembered == Some(expected.digest) {
            return Ok(());
        }
    } else if !place.exists() {
        return Err(missing());
    }
    match edges.digest(&place, expected.kind) {
        Ok(found) if found.digest == expected.digest => Ok(()),
        Ok(_) | Err(_) => Err(changed()),
    }
}

/// Brings an output from the object cache, which proves it.
fn restore(edges: &Edges, path: &str, recorded: &Restore) -> Option<()> {
    let content = recorded.content;
    let place = edges.project.resolve(path);
    if !edges.objects.has(&content.digest, content.kind).unwrap_or(false) {
        return None;
    }
    if let Err(failure) = aside::keep_before_output(edges, path, Some(content.digest)) {
        edges.tell(Message::Warning(failure.cause));
        return None;
    }
    match edges.objects.restore(recorded, &place) {
        Ok(restored) => restored.map(|_| ()),
        Err(error) => {
            tracing::debug!(%error, path, "no object to restore an output from");
            None
        }
    }
}
