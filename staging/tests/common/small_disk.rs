//! A file system with little room.

use std::path::PathBuf;
use std::process::Command;

/// Mounted until it is dropped.
pub(crate) struct SmallDisk(PathBuf);

impl SmallDisk {
    /// So many mebibytes; `None`, said aloud, where this user may not mount one.
    pub(crate) fn mount(at: PathBuf, mebibytes: u64) -> Option<Self> {
        std::fs::create_dir_all(&at).expect("a directory");
        let size = format!("size={mebibytes}m");
        let mut mount = Command::new("mount");
        mount.args(["-t", "tmpfs", "-o", &size, "tmpfs"]).arg(&at);
        if !mount.output().is_ok_and(|output| output.status.success()) {
            println!("skipped: no space: this user may not mount a file system");
            return None;
        }
        Some(Self(at))
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        drop(Command::new("umount").arg("-l").arg(&self.0).status());
    }
}
