//! Large graphs: what grows with them grows in a line.

use super::*;

/// 20,000 tasks read one file, one task reads what they write; all are remembered.
#[test]
fn wide_fans_are_linear() {
    const WIDTH: u32 = 20_000;
    let tasks: Vec<_> = (0..WIDTH).map(|at| format!("t{at}: seed -> o{at}")).collect();
    let outputs: Vec<_> = (0..WIDTH).map(|at| format!("o{at}")).collect();
    let (tasks, outputs) = (tasks.join(";"), outputs.join(" "));
    let plan = format!("first: -> seed; {tasks}; last: {outputs} -> end");
    let mut script = Script::new(&plan, History::default(), Options::default());
    let mut actions = Vec::new();
    script.core.resume(Timestamp(0), &mut actions);
    let (mut events, mut finished) = (0, false);
    while let Some(action) = actions.pop() {
        match action {
            Action::Recall { task, key, .. } => {
                let verdict =
                    Recall::Hit { record: script.record(task, ""), reuse: Reuse::InPlace };
                let event = Event::Recalled { task, key, verdict };
                script.core.step(Timestamp(0), event, &mut actions);
                events += 1;
            }
            Action::Finish { .. } => finished = true,
            _ => {}
        }
    }
    assert!(finished, "it came to its end");
    assert_eq!(events, WIDTH + 2, "one recall for each task");
    script.core.check_invariants();
}

/// `cargo test --release -p keelboat-engine --lib cost_of_an_event -- --ignored --nocapture`
#[test]
#[ignore = "a measurement, of use in release builds only"]
#[expect(clippy::disallowed_types, reason = "it measures time")]
fn cost_of_an_event() {
    const WIDTH: u32 = 100_000;
    let plan: Vec<_> = (0..WIDTH).map(|at| format!("t{at}: s{at} -> o{at}")).collect();
    let specs = tasks(&plan.join(";"));
    let started = std::time::Instant::now();
    let mut core = Core::new(specs, History::default(), Options::default()).expect("a good plan");
    let mut actions = Vec::new();
    core.resume(Timestamp(0), &mut actions);
    let planned = started.elapsed();
    let mut events = 0;
    let mut stepping = std::time::Duration::ZERO;
    while let Some(action) = actions.pop() {
        let event = match action {
            Action::Stage { file, site, .. } => {
                Event::Staged { file, site, content: content("s", Kind::File) }
            }
            Action::Recall { task, key, .. } => {
                let path = core.spec(task).outputs[0].path.clone();
                let content = Some(content("o", Kind::File));
                let record = MemoRecord {
                    outputs: vec![OutputRecord { path, content, executable: false }],
                    value: None,
                };
                let verdict = Recall::Hit { record, reuse: Reuse::InPlace };
                Event::Recalled { task, key, verdict }
            }
            _ => continue,
        };
        let started = std::time::Instant::now();
        core.step(Timestamp(0), event, &mut actions);
        stepping += started.elapsed();
        events += 1;
    }
    assert_eq!(core.counts().reused, WIDTH);
    eprintln!("planned in {planned:?}; {events} events, {:?} each", stepping / events);
}
