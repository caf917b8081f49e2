//! Processes of a test: found by a mark in their environment, which their children inherit.

use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

/// The variable that marks all processes below an engine that a test has started.
pub(crate) const MARK_VARIABLE: &str = "KEELBOAT_TEST_OF";

/// Between two looks at something that is waited for.
const PAUSE: Duration = Duration::from_millis(2);

/// Looks again and again until something is there.
pub(crate) fn wait_until<T>(
    what: &str,
    at_most: Duration,
    mut look: impl FnMut() -> Option<T>,
) -> T {
    let deadline = Instant::now() + at_most;
    loop {
        if let Some(found) = look() {
            return found;
        }
        assert!(Instant::now() < deadline, "{what}: not within {at_most:?}");
        std::thread::sleep(PAUSE);
    }
}

/// The living processes that carry this mark, with their command lines.
pub(crate) fn marked(mark: &str) -> Vec<(i32, String)> {
    let sought = format!("{MARK_VARIABLE}={mark}");
    let mut found = Vec::new();
    for entry in std::fs::read_dir("/proc").expect("/proc").flatten() {
        let name = entry.file_name();
        let Some(pid) = name.to_str().and_then(|name| name.parse().ok()) else { continue };
        // A zombie has no environment any more.
        let environment = std::fs::read(entry.path().join("environ")).unwrap_or_default();
        if environment.split(|byte| *byte == 0).any(|line| line == sought.as_bytes()) {
            let command = std::fs::read(entry.path().join("cmdline")).unwrap_or_default();
            found.push((pid, String::from_utf8_lossy(&command).replace('\0', " ")));
        }
    }
    found
}

/// Waits until no process carries the mark.
pub(crate) fn wait_until_none(mark: &str) {
    wait_until("no process is left over", Duration::from_secs(20), || {
        let left = marked(mark);
        left.is_empty().then_some(())
    });
}

/// The wardens of engines with this mark.
pub(crate) fn wardens(mark: &str) -> Vec<i32> {
    let marked = marked(mark).into_iter();
    marked.filter(|(_, command)| command.contains("kb-warden")).map(|(pid, _)| pid).collect()
}

/// Sends a signal; a process that has gone is none of a test's business.
pub(crate) fn send(pid: i32, signal: Signal) {
    kill(Pid::from_raw(pid), signal).ok();
}

/// Whether this test may mount file systems.
pub(crate) fn is_root() -> bool {
    use std::os::unix::fs::MetadataExt as _;
    std::fs::metadata("/proc/self").is_ok_and(|process| process.uid() == 0)
}
