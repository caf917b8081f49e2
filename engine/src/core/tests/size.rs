//! Large graphs: what grows with them grows in a line.

use super::*;

/// 20,000 tasks read one file, one task reads what they write; all are remembered.
#[test]
fn wide_fans_are_linear() {
    const WIDTH: u32 = 20_000;
    let mut plan = String::from("first: -> seed;");
    let mut last = String::from("last:");
    for at in 0..WIDTH {
        plan.push_str(&format!("t{at}: seed -> o{at};"));
        last.push_str(&format!(" o{at}"));
    }
    let mut script =
        Script::new(&format!("{plan}{last} -> end"), History::default(), Options::default());
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
