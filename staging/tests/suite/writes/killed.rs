//! One who writes and is killed, at any moment, and another process that does it again.

use std::process::{Child, Stdio};
use std::time::Instant;

use super::{Sender, Target, assert_nothing_beside, is_asked, look};
use crate::common::{example, noise, room};

/// Kills, evenly over the time that the whole takes.
const KILLS: u32 = 5;

pub(super) async fn killed(target: &dyn Target) {
    let (old, new) = (noise(19, 300_000), noise(20, 8_000_000));
    let sender = Sender::new(target, vec![]);
    sender.send(target.address("killed/file"), &old).await.expect("sent");
    let dir = room();
    let source = dir.path().join("source");
    std::fs::write(&source, &new).expect("a file");
    let start = |name: &str| -> Child {
        let mut command = example("put");
        command.arg(&source).arg(target.address(name)).arg(dir.path().join("partial"));
        command.envs(target.environment()).stdout(Stdio::piped()).stderr(Stdio::piped());
        command.spawn().expect("the example `put`, built with the tests")
    };
    let begun = Instant::now();
    let output = start("killed/measured").wait_with_output().expect("it ends");
    assert!(output.status.success(), "{output:?}");
    let whole = begun.elapsed();
    for kill in 1..=KILLS {
        let mut child = start("killed/file");
        tokio::time::sleep(whole * kill / (KILLS + 1)).await;
        child.kill().expect("SIGKILL");
        child.wait().expect("it is dead");
        let found = look(target, "killed/file").await.expect("there is always one");
        assert!(found == old || found == new, "{} bytes after kill {kill}", found.len());
    }
    let output = start("killed/file").wait_with_output().expect("it ends");
    assert!(output.status.success(), "{output:?}");
    assert!(look(target, "killed/file").await == Some(new));
    // A copy to a local path begins anew under another hidden name each time.
    if is_asked(target) {
        assert_nothing_beside(target, "killed/file");
    }
}
