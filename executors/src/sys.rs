//! The system calls that have no safe wrapper: `posix_spawn` with a working directory, and waiting
//! that tells what a process used. The only module with `unsafe`.
//!
//! `posix_spawn` is called here rather than through `std::process::Command` because the latter
//! copies the whole environment for each process, and falls back to a plain fork when `PATH` is set.
#![expect(unsafe_code, reason = "foreign functions without a safe wrapper")]

use std::ffi::{CStr, CString};
use std::mem::MaybeUninit;
use std::os::fd::{AsRawFd as _, BorrowedFd};

use nix::errno::Errno;

use crate::wire::Used;

/// A process to start: the leader of a new process group, with no signal blocked and `SIGPIPE` as usual.
pub(crate) struct Spawn<'a> {
    pub(crate) program: &'a CStr,
    pub(crate) argv: &'a [CString],
    pub(crate) env: &'a [&'a CStr],
    pub(crate) directory: &'a CStr,
    pub(crate) stdin: BorrowedFd<'a>,
    pub(crate) stdout: BorrowedFd<'a>,
    pub(crate) stderr: BorrowedFd<'a>,
}

/// Starts a process; returns its id.
pub(crate) fn spawn(what: &Spawn<'_>) -> Result<i32, Errno> {
    let argv = null_terminated(what.argv.iter().map(CString::as_c_str));
    let env = null_terminated(what.env.iter().copied());
    let actions = FileActions::new(what)?;
    let attributes = Attributes::new()?;
    let mut pid = 0;
    // SAFETY: all pointers are to initialized objects that outlive the call; the arrays end with null.
    let status = unsafe {
        libc::posix_spawn(
            &raw mut pid,
            what.program.as_ptr(),
            &raw const actions.0,
            &raw const attributes.0,
            argv.as_ptr().cast(),
            env.as_ptr().cast(),
        )
    };
    check(status).map(|()| pid)
}

fn null_terminated<'a>(texts: impl Iterator<Item = &'a CStr>) -> Vec<*const libc::c_char> {
    texts.map(CStr::as_ptr).chain([std::ptr::null()]).collect()
}

fn check(status: libc::c_int) -> Result<(), Errno> {
    if status == 0 { Ok(()) } else { Err(Errno::from_raw(status)) }
}

struct FileActions(libc::posix_spawn_file_actions_t);

impl FileActions {
    fn new(what: &Spawn<'_>) -> Result<Self, Errno> {
        let mut raw = MaybeUninit::uninit();
        // SAFETY: init initializes what it is given when it returns 0.
        let mut actions = unsafe {
            check(libc::posix_spawn_file_actions_init(raw.as_mut_ptr()))?;
            Self(raw.assume_init())
        };
        let raw = &raw mut actions.0;
        for (fd, number) in [(what.stdin, 0), (what.stdout, 1), (what.stderr, 2)] {
            // SAFETY: the actions are initialized; descriptors are plain numbers here.
            check(unsafe { libc::posix_spawn_file_actions_adddup2(raw, fd.as_raw_fd(), number) })?;
        }
        // SAFETY: the actions are initialized; the path is copied.
        check(unsafe { libc::posix_spawn_file_actions_addchdir_np(raw, what.directory.as_ptr()) })?;
        Ok(actions)
    }
}

impl Drop for FileActions {
    fn drop(&mut self) {
        // SAFETY: initialized in `new`, destroyed once.
        unsafe { libc::posix_spawn_file_actions_destroy(&raw mut self.0) };
    }
}

struct Attributes(libc::posix_spawnattr_t);

impl Attributes {
    fn new() -> Result<Self, Errno> {
        let mut raw = MaybeUninit::uninit();
        // SAFETY: init initializes what it is given when it returns 0.
        let mut attributes = unsafe {
            check(libc::posix_spawnattr_init(raw.as_mut_ptr()))?;
            Self(raw.assume_init())
        };
        let mut none = MaybeUninit::uninit();
        let mut usual = MaybeUninit::uninit();
        let flags = libc::POSIX_SPAWN_SETPGROUP
            | libc::POSIX_SPAWN_SETSIGDEF
            | libc::POSIX_SPAWN_SETSIGMASK;
        let flags = libc::c_short::try_from(flags).map_err(|_wide| Errno::EINVAL)?;
        let raw = &raw mut attributes.0;
        // SAFETY: the attributes are initialized; sigemptyset initializes the sets before their use.
        unsafe {
            libc::sigemptyset(none.as_mut_ptr());
            libc::sigemptyset(usual.as_mut_ptr());
            libc::sigaddset(usual.as_mut_ptr(), libc::SIGPIPE);
            check(libc::posix_spawnattr_setpgroup(raw, 0))?;
            check(libc::posix_spawnattr_setsigmask(raw, none.as_ptr()))?;
            check(libc::posix_spawnattr_setsigdefault(raw, usual.as_ptr()))?;
            check(libc::posix_spawnattr_setflags(raw, flags))?;
        }
        Ok(attributes)
    }
}

impl Drop for Attributes {
    fn drop(&mut self) {
        // SAFETY: initialized in `new`, destroyed once.
        unsafe { libc::posix_spawnattr_destroy(&raw mut self.0) };
    }
}

/// Whether to wait until a child has ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Wait {
    UntilOneEnds,
    No,
}

/// A child that has ended and is still to be reaped, so that its number is not yet given to
/// another process. `ECHILD`: there are no children at all.
pub(crate) fn ended_child(wait: Wait) -> Result<Option<i32>, Errno> {
    let now = if wait == Wait::No { libc::WNOHANG } else { 0 };
    let options = libc::WEXITED | libc::WNOWAIT | now;
    loop {
        // SAFETY: all zeroes is a valid siginfo, and the one that tells of no child.
        let mut info: libc::siginfo_t = unsafe { MaybeUninit::zeroed().assume_init() };
        // SAFETY: `info` outlives the call; after a success it is that of a SIGCHLD, or zeroes.
        let (status, pid) = unsafe {
            let status = libc::waitid(libc::P_ALL, 0, &raw mut info, options);
            (status, info.si_pid())
        };
        match Errno::result(status) {
            Ok(_) => return Ok((pid != 0).then_some(pid)),
            Err(Errno::EINTR) => {}
            Err(errno) => return Err(errno),
        }
    }
}

/// How a process ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum ExitStatus {
    Code(i32),
    Signal(i32),
}

/// Reaps a child that has ended. `None`: it has not, or is no child.
pub(crate) fn reap(pid: i32) -> Option<(ExitStatus, Used)> {
    let mut status = 0;
    let mut usage = MaybeUninit::<libc::rusage>::zeroed();
    // SAFETY: both pointers are to objects that outlive the call; all zeroes is a valid rusage.
    let (reaped, usage) = unsafe {
        let reaped = libc::wait4(pid, &raw mut status, libc::WNOHANG, usage.as_mut_ptr());
        (reaped, usage.assume_init())
    };
    if reaped != pid {
        return None;
    }
    let status = if libc::WIFSIGNALED(status) {
        ExitStatus::Signal(libc::WTERMSIG(status))
    } else {
        ExitStatus::Code(libc::WEXITSTATUS(status))
    };
    Some((status, used(&usage)))
}

fn used(usage: &libc::rusage) -> Used {
    const BLOCK_BYTES: u64 = 512;
    let count = |value: libc::c_long| u64::try_from(value).unwrap_or(0);
    let micros =
        |time: libc::timeval| u64::try_from(time.tv_sec * 1_000_000 + time.tv_usec).unwrap_or(0);
    Used {
        wall_us: 0,
        cpu_user_us: micros(usage.ru_utime),
        cpu_system_us: micros(usage.ru_stime),
        memory_max_bytes: count(usage.ru_maxrss) * 1024,
        read_bytes: count(usage.ru_inblock) * BLOCK_BYTES,
        written_bytes: count(usage.ru_oublock) * BLOCK_BYTES,
    }
}
