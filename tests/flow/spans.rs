//! What a flow tells `tracing`, as a subscriber gets it.

use std::collections::BTreeMap;
use std::fmt::Debug;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};

use keelboat::flow::{Cache, Config, Flow};
use libtest_mimic::Trial;
use tracing::field::{Field, Visit};
use tracing::span::{Attributes, Id};
use tracing::{Event, Subscriber};
use tracing_subscriber::Layer;
use tracing_subscriber::filter::filter_fn;
use tracing_subscriber::layer::{Context, SubscriberExt as _};
use tracing_subscriber::registry::LookupSpan;
use tracing_subscriber::util::SubscriberInitExt as _;

use super::trial;

pub(super) fn trials() -> Vec<Trial> {
    vec![
        trial("spans::each_attempt_has_one_in_that_of_its_flow", each_attempt_has_one),
        trial("spans::functions_speak_within_that_of_their_attempt", functions_speak_within),
        trial("spans::so_do_those_that_are_launched_ahead", those_launched_ahead),
    ]
}

/// The flow of a test, which is all that is kept.
const FLOW: &str = "with spans";

type Fields = BTreeMap<&'static str, String>;

/// An event, and the spans around it, the innermost first.
#[derive(Debug, Clone)]
struct Told {
    fields: Fields,
    spans: Vec<(&'static str, Fields)>,
}

static TOLD: Mutex<Vec<Told>> = Mutex::new(Vec::new());

/// Listens to all flows of this program.
pub(super) fn listen() {
    let ours = |target: &str| target.starts_with("keelboat") || target.starts_with("flow");
    let layer = Recorder.with_filter(filter_fn(move |metadata| ours(metadata.target())));
    tracing_subscriber::registry().with(layer).init();
}

struct Recorder;

struct Read<'a>(&'a mut Fields);

impl Visit for Read<'_> {
    fn record_debug(&mut self, field: &Field, value: &dyn Debug) {
        self.0.insert(field.name(), format!("{value:?}"));
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        self.0.insert(field.name(), value.to_owned());
    }
}

impl<S: Subscriber + for<'a> LookupSpan<'a>> Layer<S> for Recorder {
    fn on_new_span(&self, attributes: &Attributes<'_>, id: &Id, context: Context<'_, S>) {
        let mut fields = Fields::new();
        attributes.record(&mut Read(&mut fields));
        context.span(id).unwrap().extensions_mut().insert(fields);
    }

    fn on_event(&self, event: &Event<'_>, context: Context<'_, S>) {
        let mut fields = Fields::new();
        event.record(&mut Read(&mut fields));
        let spans = context.event_scope(event).into_iter().flatten().map(|span| {
            (span.name(), span.extensions().get::<Fields>().cloned().unwrap_or_default())
        });
        let spans: Vec<_> = spans.collect();
        let is_meant = |(_, fields): &(_, Fields)| fields.get("name").is_some_and(|n| n == FLOW);
        if spans.iter().any(is_meant) {
            TOLD.lock().unwrap().push(Told { fields, spans });
        }
    }
}

/// What was told of a task, in its order.
fn told_of(task: &str) -> Vec<Told> {
    let told = TOLD.lock().unwrap();
    let is_of = |fields: &Fields| fields.get("task").is_some_and(|of| of.starts_with(task));
    let of_it = |told: &&Told| is_of(&told.fields) || told.spans.iter().any(|(_, f)| is_of(f));
    told.iter().filter(of_it).cloned().collect()
}

fn open(directory: &std::path::Path) -> Flow {
    let outer = tracing::info_span!(target: "flow", "the test");
    let _within = outer.enter();
    Flow::open(Config::new(directory).name(FLOW).cores(2)).unwrap()
}

fn each_attempt_has_one() {
    let directory = tempfile::tempdir().unwrap();
    let flow = open(directory.path());
    let has_failed = Arc::new(AtomicBool::new(false));
    let fails_once =
        move |x: u32| has_failed.swap(true, Ordering::SeqCst).then_some(x).ok_or("not yet");
    let once = flow.function(fails_once).name("twice").cache(Cache::On).cores(2).retries(1);
    let once = once.backoff(std::time::Duration::ZERO, std::time::Duration::ZERO);
    assert_eq!(once.try_call((1,)).wait().unwrap(), 1);
    let never = flow.function(|| Err::<u32, _>("never")).name("never").cache(Cache::Off);
    never.try_call(()).wait().unwrap_err();
    flow.close().unwrap();
    let told = told_of("twice");
    let messages: Vec<&str> = told.iter().map(|told| &*told.fields["message"]).collect();
    assert_eq!(messages, ["ready", "started", "failed", "retry", "started", "done"]);
    for (told, attempt) in told.iter().skip(1).zip(["1", "1", "1", "2", "2"]) {
        let names: Vec<&str> = told.spans.iter().map(|(name, _)| *name).collect();
        assert_eq!(names, ["attempt", "flow", "the test"]);
        let fields = &told.spans[0].1;
        assert_eq!(fields["attempt"], attempt);
        assert_eq!((&*fields["executor"], &*fields["cores"]), ("local", "2"));
    }
    assert_eq!(told[2].fields["cause"], "not yet");
    let told = told_of("never");
    let messages: Vec<&str> = told.iter().map(|told| &*told.fields["message"]).collect();
    assert_eq!(messages, ["ready", "started", "failed", "failed for good"]);
}

fn functions_speak_within() {
    let directory = tempfile::tempdir().unwrap();
    let flow = open(directory.path());
    let plain = flow.function(|| tracing::info!("from a plain one")).name("plain").call(());
    let going = async || {
        tokio::time::sleep(std::time::Duration::from_millis(1)).await;
        tracing::info!("from an async one");
    };
    let going = flow.function(going).name("going").call(());
    plain.wait().unwrap();
    going.wait().unwrap();
    flow.close().unwrap();
    for (task, message) in [("plain", "from a plain one"), ("going", "from an async one")] {
        let told = told_of(task);
        let own = told.iter().find(|told| told.fields["message"] == message).expect("it is told");
        let (name, fields) = &own.spans[0];
        assert_eq!((*name, &*fields["attempt"]), ("attempt", "1"), "{own:?}");
        assert!(fields["task"].starts_with(task));
    }
}

fn those_launched_ahead() {
    let directory = tempfile::tempdir().unwrap();
    let flow = open(directory.path());
    let short = flow.function(|number: u32| tracing::info!(number, "from a short one"));
    let short = short.name("briefly");
    let calls: Vec<_> = (0..400).map(|number| short.call((number,))).collect();
    for call in &calls {
        call.wait().unwrap();
    }
    flow.close().unwrap();
    let told = told_of("briefly");
    let own = told.iter().filter(|told| told.fields["message"] == "from a short one");
    assert_eq!(own.count(), 400, "each has the span of its attempt");
}
