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
