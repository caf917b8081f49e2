//! Whether the kernel has killed a process for lack of memory.

use std::fs::{self, File};
use std::os::unix::fs::FileExt as _;
use std::path::PathBuf;
use std::time::{Duration, Instant};

/// How old a count may be that stands for the time at which an attempt began.
const FRESH: Duration = Duration::from_secs(1);

/// More than any of these files holds before and in the line that counts.
const BYTES_MAX: usize = 32 << 10;

/// The kernel's count of processes that it killed for lack of memory: those of this cgroup where
/// it counts them, or else those of the machine.
#[derive(Debug)]
pub(crate) struct OomKills {
    file: Option<File>,
    known: Option<(Instant, u64)>,
}

impl OomKills {
    pub(crate) fn new() -> Self {
        let groups = fs::read_to_string("/proc/self/cgroup").unwrap_or_default();
        let mut files = places(&groups).into_iter().filter_map(|place| File::open(place).ok());
        Self { file: files.find(|file| count(file).is_some()), known: None }
    }

    /// The count at about this time; `None` when the kernel does not tell.
    pub(crate) fn lately(&mut self, now: Instant) -> Option<u64> {
        match self.known {
            Some((at, known)) if now.saturating_duration_since(at) < FRESH => Some(known),
            _ => self.now(now),
        }
    }

    /// The count now.
    pub(crate) fn now(&mut self, now: Instant) -> Option<u64> {
        let count = count(self.file.as_ref()?);
        self.known = count.map(|count| (now, count));
        count
    }
}

/// Where the count may be, the most exact one first: `memory.events` of cgroup v2,
/// `memory.oom_control` of v1, and that of all.
fn places(groups: &str) -> Vec<PathBuf> {
    let mut places = Vec::new();
    for line in groups.lines() {
        let mut fields = line.splitn(3, ':').skip(1);
        let (Some(controllers), Some(path)) = (fields.next(), fields.next()) else { continue };
        if controllers.is_empty() {
            places.push(format!("/sys/fs/cgroup{path}/memory.events").into());
        } else if controllers.split(',').any(|name| name == "memory") {
            places.push(format!("/sys/fs/cgroup/memory{path}/memory.oom_control").into());
        }
    }
    places.push("/proc/vmstat".into());
    places
}

fn count(file: &File) -> Option<u64> {
    let mut text = vec![0; BYTES_MAX];
    let length = file.read_at(&mut text, 0).ok()?;
    let text = std::str::from_utf8(text.get(..length)?).ok()?;
    text.lines().find_map(|line| line.strip_prefix("oom_kill ")?.trim().parse().ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_count_of_the_own_cgroup_comes_before_that_of_the_machine() {
        let shown = |groups: &str| {
            places(groups).iter().map(|path| path.display().to_string()).collect::<Vec<_>>()
        };
        assert_eq!(
            shown("0::/user.slice/a:b\n"),
            ["/sys/fs/cgroup/user.slice/a:b/memory.events", "/proc/vmstat"]
        );
        assert_eq!(
            shown("9:name=systemd:/\n4:cpu,memory:/x\n"),
            ["/sys/fs/cgroup/memory/x/memory.oom_control", "/proc/vmstat"]
        );
    }

    #[test]
    fn a_count_is_read_again_when_it_is_old() {
        let path = tempfile::NamedTempFile::new().unwrap();
        let write = |count: u64| {
            fs::write(path.path(), format!("low 0\noom 7\noom_kill {count}\n")).unwrap();
        };
        write(2);
        let mut kills = OomKills { file: Some(path.reopen().unwrap()), known: None };
        let start = Instant::now();
        assert_eq!(kills.lately(start), Some(2));
        write(3);
        assert_eq!(kills.lately(start + FRESH / 2), Some(2));
        assert_eq!(kills.now(start + FRESH / 2), Some(3));
        write(5);
        assert_eq!(kills.lately(start + FRESH * 2), Some(5));
        assert_eq!(OomKills { file: None, known: None }.lately(start), None);
    }
}
