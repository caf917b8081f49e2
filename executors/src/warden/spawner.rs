//! Starting one process: log files, environment, and where its program is.

use std::collections::BTreeMap;
use std::ffi::{CStr, CString};
use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::fd::AsFd as _;
use std::os::unix::ffi::{OsStrExt as _, OsStringExt as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;

use nix::errno::Errno;
use nix::unistd::{AccessFlags, access};

use crate::mark::MARK_VARIABLE;
use crate::procfs;
use crate::sys::{self, Spawn};
use crate::wire::{Begin, Obstacle};

/// Where programs are looked for when nobody says.
const PATH_DEFAULT: &[u8] = b"/usr/local/bin:/usr/bin:/bin";

pub(super) struct Spawner {
    /// What was inherited: name to `NAME=value`, without the mark.
    inherited: BTreeMap<Vec<u8>, CString>,
    mark_prefix: Vec<u8>,
    nothing: File,
}

impl Spawner {
    pub(super) fn new(mark_prefix: Vec<u8>) -> Result<Self, Errno> {
        let nothing = File::open("/dev/null").map_err(|error| errno_of(&error))?;
        let inherited = std::env::vars_os()
            .filter(|(name, _)| name != MARK_VARIABLE)
            .filter_map(|(name, value)| {
                let name = name.into_vec();
                let entry = entry(&name, value.as_bytes()).ok()?;
                Some((name, entry))
            })
            .collect();
        Ok(Self { inherited, mark_prefix, nothing })
    }

    /// Starts the leader of an attempt; returns its process id, or what was in the way.
    pub(super) fn spawn(&self, begin: &Begin) -> Result<i32, (Obstacle, Errno)> {
        let of_program = |errno| (Obstacle::Program, errno);
        let directory = text(&begin.directory).map_err(|errno| (Obstacle::Directory, errno))?;
        let argv = begin.argv.iter().map(|argument| text(argument.as_bytes()));
        let argv = argv.collect::<Result<Vec<_>, _>>().map_err(of_program)?;
        let own = self.own_environment(begin).map_err(of_program)?;
        let stdout = log(&begin.stdout).map_err(|errno| (Obstacle::Stdout, errno))?;
        let stderr = if begin.stderr == begin.stdout {
            None
        } else {
            Some(log(&begin.stderr).map_err(|errno| (Obstacle::Stderr, errno))?)
        };
        let program = self.find(begin).map_err(|errno| obstacle(begin, errno))?;
        let replaced = |name: &[u8]| begin.env.iter().any(|(own, _)| own.as_bytes() == name);
        let inherited = self.inherited.iter().filter(|(name, _)| !replaced(name));
        let env: Vec<&CStr> =
            inherited.map(|(_, entry)| entry).chain(&own).map(CString::as_c_str).collect();
        sys::spawn(&Spawn {
            program: &program,
            argv: &argv,
            env: &env,
            directory: &directory,
            stdin: self.nothing.as_fd(),
            stdout: stdout.as_fd(),
            stderr: stderr.as_ref().unwrap_or(&stdout).as_fd(),
        })
        .map_err(|errno| obstacle(begin, errno))
    }

    fn own_environment(&self, begin: &Begin) -> Result<Vec<CString>, Errno> {
        let mut mark = self.mark_prefix.clone();
        mark.extend_from_slice(begin.key.to_string().as_bytes());
        begin
            .env
            .iter()
            .filter(|(name, _)| name != MARK_VARIABLE)
            .map(|(name, value)| entry(name.as_bytes(), value.as_bytes()))
            .chain([entry(MARK_VARIABLE.as_bytes(), &mark)])
            .collect()
    }

    /// A program without a slash is looked for in the PATH of the attempt.
    fn find(&self, begin: &Begin) -> Result<CString, Errno> {
        let name = begin.argv.first().filter(|name| !name.is_empty()).ok_or(Errno::ENOENT)?;
        if name.contains('/') {
            return text(name.as_bytes());
        }
        let own = begin.env.iter().find(|(name, _)| name == "PATH");
        let path = own.map_or_else(|| self.inherited_path(), |(_, value)| value.as_bytes());
        let mut failure = Errno::ENOENT;
        for directory in path.split(|&byte| byte == b':') {
            let candidate = procfs::path(&begin.directory).join(procfs::path(directory)).join(name);
            match access(&candidate, AccessFlags::X_OK) {
                Ok(()) if candidate.is_file() => return text(candidate.as_os_str().as_bytes()),
                Err(Errno::EACCES) => failure = Errno::EACCES,
                _ => {}
            }
        }
        Err(failure)
    }

    fn inherited_path(&self) -> &[u8] {
        let entry = self.inherited.get(b"PATH".as_slice()).map(CString::as_bytes);
        entry.and_then(|entry| entry.strip_prefix(b"PATH=")).unwrap_or(PATH_DEFAULT)
    }
}

/// The system says only that something is missing, not whether program or directory.
fn obstacle(begin: &Begin, errno: Errno) -> (Obstacle, Errno) {
    match fs::metadata(procfs::path(&begin.directory)) {
        Ok(found) if found.is_dir() => (Obstacle::Program, errno),
        Ok(_) => (Obstacle::Directory, Errno::ENOTDIR),
        Err(error) => (Obstacle::Directory, errno_of(&error)),
    }
}

fn log(path: &[u8]) -> Result<File, Errno> {
    let path: &Path = procfs::path(path);
    let mut options = OpenOptions::new();
    // Appending, so that writers who share the file do not overwrite one another.
    options.append(true).create(true).mode(0o600);
    options.open(path).and_then(truncated).map_err(|error| errno_of(&error))
}

/// `OpenOptions` refuses to append and truncate at once.
fn truncated(file: File) -> io::Result<File> {
    if file.metadata()?.len() > 0 {
        file.set_len(0)?;
    }
    Ok(file)
}

fn entry(name: &[u8], value: &[u8]) -> Result<CString, Errno> {
    text(&[name, b"=", value].concat())
}

fn text(bytes: &[u8]) -> Result<CString, Errno> {
    CString::new(bytes).map_err(|_nul| Errno::EINVAL)
}

fn errno_of(error: &io::Error) -> Errno {
    error.raw_os_error().map_or(Errno::EIO, Errno::from_raw)
}
