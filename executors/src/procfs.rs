//! What `/proc` tells about processes. All of it may be out of date when it is read.

use std::fs::{self, File};
use std::io;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use nix::unistd::{SysconfVar, sysconf};

use crate::mark::MARK_VARIABLE;

/// How many open files of a process are looked at.
const FILES_MAX: usize = 256;

/// One process.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Stat {
    pub(crate) parent: i32,
    pub(crate) group: i32,
    pub(crate) session: i32,
    /// It has ended and waits for its parent to notice.
    pub(crate) zombie: bool,
    /// Its resident set.
    pub(crate) resident_bytes: u64,
}

/// Ids of all processes.
pub(crate) fn processes() -> io::Result<Vec<i32>> {
    let mut pids = Vec::new();
    for entry in fs::read_dir("/proc")? {
        if let Some(pid) = entry?.file_name().to_str().and_then(|name| name.parse().ok()) {
            pids.push(pid);
        }
    }
    Ok(pids)
}

/// A process's state; `None` when it is gone.
pub(crate) fn stat(pid: i32) -> Option<Stat> {
    parse_stat(&fs::read(format!("/proc/{pid}/stat")).ok()?)
}

/// The name in the second field may hold spaces and parentheses: fields are counted from its end.
fn parse_stat(line: &[u8]) -> Option<Stat> {
    let end_of_name = line.iter().rposition(|&byte| byte == b')')?;
    let text = std::str::from_utf8(line.get(end_of_name + 1..)?).ok()?;
    let mut fields = text.split_ascii_whitespace();
    let state = fields.next()?;
    let parent = fields.next()?.parse().ok()?;
    let group = fields.next()?.parse().ok()?;
    let session = fields.next()?.parse().ok()?;
    let pages: u64 = fields.nth(17)?.parse().ok()?;
    let zombie = matches!(state, "Z" | "X");
    Some(Stat { parent, group, session, zombie, resident_bytes: pages * page_bytes() })
}

fn page_bytes() -> u64 {
    static PAGE_BYTES: OnceLock<u64> = OnceLock::new();
    *PAGE_BYTES.get_or_init(|| {
        let known = sysconf(SysconfVar::PAGE_SIZE).ok().flatten();
        known.and_then(|bytes| u64::try_from(bytes).ok()).unwrap_or(4_096)
    })
}

/// The memory of a process that the kernel cannot take back: anonymous and shared, what it shares
/// with others in equal parts. `None` where the kernel does not tell.
pub(crate) fn memory_bytes(pid: i32) -> Option<u64> {
    parse_rollup(&fs::read_to_string(format!("/proc/{pid}/smaps_rollup")).ok()?)
}

fn parse_rollup(text: &str) -> Option<u64> {
    let kib = |name: &str| {
        let line = text.lines().find_map(|line| line.strip_prefix(name))?;
        line.trim().strip_suffix("kB")?.trim().parse::<u64>().ok()
    };
    Some((kib("Pss_Anon:")? + kib("Pss_Shmem:")?) * 1024)
}

/// The mark in a process's environment, when it has one that can be read.
pub(crate) fn mark(pid: i32) -> Option<Vec<u8>> {
    let environment = fs::read(format!("/proc/{pid}/environ")).ok()?;
    environment
        .split(|&byte| byte == 0)
        .find_map(|entry| entry.strip_prefix(MARK_VARIABLE.as_bytes())?.strip_prefix(b"="))
        .map(<[u8]>::to_vec)
}

/// The working directory and the open files of a process, as far as they can be read.
pub(crate) fn places(pid: i32) -> Vec<PathBuf> {
    let mut places: Vec<_> = fs::read_link(format!("/proc/{pid}/cwd")).into_iter().collect();
    if let Ok(files) = fs::read_dir(format!("/proc/{pid}/fd")) {
        let targets = files.flatten().take(FILES_MAX);
        places.extend(targets.filter_map(|entry| fs::read_link(entry.path()).ok()));
    }
    places.retain(|place| place.is_absolute());
    places
}

/// The children of the calling process, which must have one thread. It alone reaps them, so that
/// the kernel's list is complete when it is read.
#[derive(Debug)]
pub(crate) struct Children {
    list: Option<File>,
    text: Vec<u8>,
}

impl Children {
    pub(crate) fn new() -> Self {
        let own = std::process::id();
        let list = File::open(Path::new(&format!("/proc/{own}/task/{own}/children"))).ok();
        Self { list, text: vec![0; 4096] }
    }

    /// Their ids, ended ones that were not reaped included.
    pub(crate) fn read(&mut self) -> Vec<i32> {
        match self.read_list() {
            Some(length) => self.text[..length]
                .split(u8::is_ascii_whitespace)
                .filter_map(|pid| std::str::from_utf8(pid).ok()?.parse().ok())
                .collect(),
            None => children_by_scan(),
        }
    }

    /// Fills `text`. `None`: this kernel has no such list.
    fn read_list(&mut self) -> Option<usize> {
        let list = self.list.as_ref()?;
        let mut length = 0;
        loop {
            if length == self.text.len() {
                self.text.resize(length * 2, 0);
            }
            match list.read_at(&mut self.text[length..], length as u64) {
                Ok(0) => return Some(length),
                Ok(more) => length += more,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(_) => return None,
            }
        }
    }
}

fn children_by_scan() -> Vec<i32> {
    let own = i32::try_from(std::process::id()).unwrap_or(0);
    let is_child = |pid: &i32| stat(*pid).is_some_and(|stat| stat.parent == own);
    processes().unwrap_or_default().into_iter().filter(is_child).collect()
}

/// A path from its raw bytes.
pub(crate) fn path(bytes: &[u8]) -> &Path {
    Path::new(std::ffi::OsStr::from_bytes(bytes))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_with_parentheses_do_not_confuse() {
        let rest = "0 -1 4194560 0 0 0 0 0 0 0 0 20 0 1 0 5 9000 12 18446744073709551615";
        let resident_bytes = 12 * page_bytes();
        let expected = Stat { parent: 7, group: 9, session: 8, zombie: false, resident_bytes };
        assert_eq!(parse_stat(format!("12 (a) b) S 7 9 8 {rest}").as_bytes()), Some(expected));
        let expected = Stat { parent: 1, group: 12, session: 3, zombie: true, resident_bytes };
        assert_eq!(parse_stat(format!("12 (x) Z 1 12 3 {rest}").as_bytes()), Some(expected));
        assert_eq!(parse_stat(b"12 (x"), None);
        assert_eq!(parse_stat(b"12 (x) Z 1 12 3"), None);
    }

    #[test]
    fn pages_of_files_are_not_counted_as_memory() {
        let text =
            "Rss: 9000 kB\nPss: 7000 kB\nPss_Anon:   100 kB\nPss_File: 3 kB\nPss_Shmem: 20 kB\n";
        assert_eq!(parse_rollup(text), Some(120 << 10));
        assert_eq!(parse_rollup("Rss: 9000 kB\nPss: 7000 kB\n"), None);
    }

    #[test]
    fn the_calling_process_is_found() {
        let own = i32::try_from(std::process::id()).unwrap();
        assert!(processes().unwrap().contains(&own));
        assert!(!stat(own).unwrap().zombie);
        let here = std::env::current_dir().unwrap();
        assert!(places(own).contains(&here));
    }
}
