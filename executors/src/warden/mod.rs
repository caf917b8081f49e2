//! The warden: a small process that starts and reaps all processes of attempts.
//!
//! It exists so that starting a process costs the same however large the engine is, and so that
//! somebody is left to clean up when the engine is killed. One thread; it waits in `poll` and
//! wakes for messages, ended children and deadlines only, and now and then while an attempt runs
//! that may have only so much memory. Its standard input is the socket to the
//! engine.

mod attempts;
mod channel;
mod cleanup;
mod memory;
mod spawner;
mod strays;

use std::io::{self, Write as _};
use std::os::fd::AsFd as _;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::prctl;
use nix::sys::signal::{SigSet, Signal, kill, killpg};
use nix::sys::signalfd::{SfdFlags, SignalFd};
use nix::unistd::{Pid, setsid};

use crate::oom::OomKills;
use crate::procfs::Children;
use crate::sys::{self, ExitStatus, Wait};
use crate::wire::{Begin, End, Ended, Hello, Key, Report, Request, Used, WireError};
use attempts::{Attempts, Ending, Running, Stop};
use channel::Channel;
use cleanup::{CLEANUP_MAX, Cleanup};
use memory::{Excess, Watch};
use spawner::Spawner;
use strays::Strays;

/// How long the processes of an attempt may take to go after SIGKILL.
const UNKILLABLE_AFTER: Duration = Duration::from_secs(10);
/// Between two looks at an attempt whose leader has ended while others of it have not.
const ENDING_PAUSE: Duration = Duration::from_millis(50);

/// Why a warden stops before its engine does.
#[derive(Debug, thiserror::Error)]
enum WardenError {
    #[error(
        "cannot use standard input: {0}; expected the engine's socket (only the engine starts this program)"
    )]
    NoEngine(#[source] Errno),
    #[error("cannot set up: {0}")]
    Setup(#[from] Errno),
    #[error("cannot understand the engine: {0}")]
    Wire(#[from] WireError),
    #[error("unexpected message before the greeting")]
    NoGreeting,
}

/// The whole life of a warden. Returns when the engine is gone and no process that it started is left.
///
/// The program that calls this gets its engine by a socket on standard input;
/// [`LocalExecutor`](crate::LocalExecutor) starts it like that.
pub fn warden_main() -> ExitCode {
    if warden() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// As [`warden_main`], for programs that are wardens only sometimes. False: it went wrong, and that
/// was said on standard error.
pub fn warden() -> bool {
    let result = Warden::start().and_then(|mut warden| {
        let result = warden.run();
        warden.kill_everything();
        result
    });
    match result {
        Ok(()) => true,
        Err(error) => {
            // Nobody is left to be told when standard error is closed.
            writeln!(io::stderr(), "kb-warden: {error}").ok();
            false
        }
    }
}

struct Warden {
    channel: Channel,
    child_ended: SignalFd,
    spawner: Spawner,
    attempts: Attempts,
    strays: Strays,
    children: Children,
    memory: Watch,
    oom_kills: OomKills,
}

impl Warden {
    /// Leaves the engine's session (no signals of its terminal; and whatever is in the new session is
    /// known to be the warden's, even when it is dead), and becomes the parent of all orphans below.
    fn start() -> Result<Self, WardenError> {
        let mut channel = Channel::on_standard_input().map_err(WardenError::NoEngine)?;
        prctl::set_name(c"kb-warden")?;
        setsid()?;
        SigSet::all().thread_set_mask()?;
        prctl::set_child_subreaper(true)?;
        let mut ended = SigSet::empty();
        ended.add(Signal::SIGCHLD);
        let flags = SfdFlags::SFD_CLOEXEC | SfdFlags::SFD_NONBLOCK;
        let child_ended = SignalFd::with_flags(&ended, flags)?;
        let Hello { token, mark_prefix } = channel.greeting()?;
        let spawner = Spawner::new(mark_prefix)?;
        channel.send(&Report::Ready)?;
        let strays = Strays::new(token);
        Ok(Self {
            channel,
            child_ended,
            spawner,
            attempts: Attempts::new(),
            strays,
            children: Children::new(),
            memory: Watch::default(),
            oom_kills: OomKills::new(),
        })
    }

    /// Serves the engine until it is gone.
    fn run(&mut self) -> Result<(), WardenError> {
        loop {
            while let Some(request) = self.channel.next_request()? {
                self.on_request(request)?;
            }
            self.channel.flush();
            if self.channel.is_closed() {
                return Ok(());
            }
            let (message, child) = self.wait()?;
            if child {
                self.on_children_ended()?;
            }
            if message {
                self.channel.receive();
            }
            self.on_time(Instant::now())?;
        }
    }

    /// Waits until a message comes (or can go), a child ends, or a deadline passes.
    fn wait(&self) -> Result<(bool, bool), Errno> {
        let flags = if self.channel.has_unsent() {
            PollFlags::POLLIN | PollFlags::POLLOUT
        } else {
            PollFlags::POLLIN
        };
        let mut fds = [
            PollFd::new(self.channel.as_fd(), flags),
            PollFd::new(self.child_ended.as_fd(), PollFlags::POLLIN),
        ];
        match poll(&mut fds, self.timeout()) {
            Ok(_) | Err(Errno::EINTR) => {}
            Err(errno) => return Err(errno),
        }
        let came = |fd: &PollFd<'_>| fd.revents().is_some_and(|events| !events.is_empty());
        Ok((came(&fds[0]), came(&fds[1])))
    }

    fn timeout(&self) -> PollTimeout {
        let pause = (!self.attempts.ending.is_empty()).then_some(ENDING_PAUSE);
        let until = |moment: Instant| moment.saturating_duration_since(Instant::now());
        let look = self.memory.due(&self.attempts);
        let due = self.attempts.next_deadline().into_iter().chain(look).map(until);
        let left = due.chain(pause).min();
        // A millisecond more: `poll` rounds down, and would wake just before the deadline.
        left.map_or(PollTimeout::NONE, |left| {
            PollTimeout::try_from(left + Duration::from_millis(1)).unwrap_or(PollTimeout::MAX)
        })
    }

    fn on_request(&mut self, request: Request) -> Result<(), WardenError> {
        match request {
            Request::Hello(_) => Ok(()),
            Request::Begin(begin) => self.on_begin(&begin),
            Request::Kill(key) => {
                self.stop(key, Stop::Cancelled);
                Ok(())
            }
        }
    }

    fn on_begin(&mut self, begin: &Begin) -> Result<(), WardenError> {
        if self.attempts.knows(begin.key) {
            return Ok(());
        }
        match self.spawner.spawn(begin) {
            Ok(pid) => {
                let now = Instant::now();
                let oom_kills = self.oom_kills.lately(now);
                self.attempts.insert(pid, begin, now, oom_kills);
                if begin.memory_max_bytes.is_some() {
                    self.memory.begin(now);
                }
                Ok(())
            }
            Err((obstacle, errno)) => {
                let end = End::NotStarted { obstacle, errno: errno as i32 };
                let (key, used) = (begin.key, Used::default());
                let ended = Ended { key, end, used, kernel_killed: None };
                Ok(self.channel.send(&Report::Ended(ended))?)
            }
        }
    }

    /// The polite signal, and the moment after which it is no longer polite.
    fn stop(&mut self, key: Key, why: Stop) {
        if let Some(pid) = self.attempts.stop(key, why, Instant::now()) {
            // The only error is that nobody is left to get it.
            killpg(pid, Signal::SIGTERM).ok();
            killpg(pid, Signal::SIGCONT).ok();
        }
    }

    /// Kills attempts that have more memory than they may: there is no time to be polite.
    fn check_memory(&mut self, now: Instant) {
        for Excess { key, used_bytes } in self.memory.look(now, &self.attempts) {
            if let Some(pid) = self.attempts.stop(key, Stop::OverMemory { used_bytes }, now) {
                killpg(pid, Signal::SIGKILL).ok();
            }
        }
    }

    /// Whether the kernel killed something for lack of memory while an attempt ran that ended
    /// as if it were that. `None`: it did not end like that, or the kernel does not tell.
    fn kernel_killed(
        &mut self,
        running: &Running,
        status: ExitStatus,
        now: Instant,
    ) -> Option<bool> {
        let by_kill = match status {
            ExitStatus::Signal(signal) => signal == libc::SIGKILL,
            ExitStatus::Code(code) => code == 128 + libc::SIGKILL,
        };
        let before = running.oom_kills.filter(|_| by_kill && running.stop.is_none())?;
        Some(self.oom_kills.now(now)? > before)
    }

    fn on_time(&mut self, now: Instant) -> Result<(), WardenError> {
        self.check_memory(now);
        while let Some((key, pid, stopping)) = self.attempts.take_due(now) {
            if stopping {
                killpg(pid, Signal::SIGKILL).ok();
            } else {
                self.stop(key, Stop::TimedOut);
            }
        }
        if self.attempts.ending.is_empty() { Ok(()) } else { self.settle(now) }
    }

    /// Reaps whoever ended. What is left of an attempt's group is killed while its leader, not yet
    /// reaped, still holds the group's number.
    fn on_children_ended(&mut self) -> Result<(), WardenError> {
        // At most one is pending, however many ended; an error is that none is.
        self.child_ended.read_signal().ok();
        let now = Instant::now();
        while let Ok(Some(pid)) = sys::ended_child(Wait::No) {
            let leader = self.attempts.remove(pid);
            if leader.is_some() {
                killpg(Pid::from_raw(pid), Signal::SIGKILL).ok();
            }
            let Some((status, used)) = sys::reap(pid) else { continue };
            let Some(running) = leader else {
                self.attempts.reaped(pid, now);
                self.strays.forget(pid);
                continue;
            };
            let kernel_killed = self.kernel_killed(&running, status, now);
            let cleanup = self.clean_up(&running, status);
            let ending = ending(pid, running, status, used, now);
            self.attempts.ending.push(Ending { kernel_killed, cleanup, ..ending });
        }
        if self.attempts.ending.is_empty() { Ok(()) } else { self.settle(now) }
    }

    /// Begins to remove what an attempt started elsewhere. What cannot be started is left.
    fn clean_up(&self, running: &Running, status: ExitStatus) -> Option<Cleanup> {
        let succeeded = running.stop.is_none() && status == ExitStatus::Code(0);
        let argv = Some(&running.cleanup).filter(|argv| !succeeded && !argv.is_empty())?.clone();
        let pid = self.spawner.spawn(&cleanup::begin(running.key, argv.clone())).ok()?;
        Some(Cleanup { pid, argv })
    }

    /// Reports the attempts of which no process is left; kills what is left of the others.
    fn settle(&mut self, now: Instant) -> Result<(), WardenError> {
        let children = self.children.read();
        self.strays.hunt(&children, &mut self.attempts);
        let mut ending = std::mem::take(&mut self.attempts.ending);
        for mut attempt in ending.drain(..) {
            let cleanup = attempt.cleanup.as_ref().map(|cleanup| Pid::from_raw(cleanup.pid));
            let left = cleanup.is_some() || attempt.strays > 0 || attempt.group_is_there();
            let patience = cleanup.map_or(UNKILLABLE_AFTER, |_| CLEANUP_MAX);
            if let Some(pid) = cleanup.filter(|_| now >= attempt.since + patience) {
                // The only error is that it has just ended.
                killpg(pid, Signal::SIGKILL).ok();
            }
            if left && now < attempt.since + patience {
                attempt.strays = 0;
                self.attempts.ending.push(attempt);
                continue;
            }
            let end = if left { End::Unkillable } else { attempt.end };
            self.channel.send(&Report::Ended(Ended {
                key: attempt.key,
                end,
                used: attempt.used,
                kernel_killed: attempt.kernel_killed,
            }))?;
        }
        Ok(())
    }

    /// Ends all, also what was started elsewhere.
    fn kill_everything(&mut self) {
        let cleanups = self.attempts.cleanups();
        self.kill_children();
        if cleanups.is_empty() {
            return;
        }
        for (key, argv) in cleanups {
            // What cannot be started is left.
            self.spawner.spawn(&cleanup::begin(key, argv)).ok();
        }
        let deadline = Instant::now() + CLEANUP_MAX;
        while let Ok(ended) = sys::ended_child(Wait::No)
            && Instant::now() < deadline
        {
            match ended {
                Some(pid) => drop(sys::reap(pid)),
                None => std::thread::sleep(ENDING_PAUSE),
            }
        }
        self.kill_children();
    }

    /// Every process below is the warden's child, or becomes it when its parent dies: when no
    /// child is left, nothing is.
    fn kill_children(&mut self) {
        loop {
            for pid in self.children.read() {
                let pid = Pid::from_raw(pid);
                // Errors: it is gone already.
                if let Ok(group) = nix::unistd::getpgid(Some(pid))
                    && group != nix::unistd::getpgrp()
                {
                    killpg(group, Signal::SIGKILL).ok();
                }
                kill(pid, Signal::SIGKILL).ok();
            }
            if sys::ended_child(Wait::UntilOneEnds).is_err() {
                return;
            }
            while let Ok(Some(pid)) = sys::ended_child(Wait::No) {
                sys::reap(pid);
            }
        }
    }
}

fn ending(pid: i32, running: Running, status: ExitStatus, used: Used, now: Instant) -> Ending {
    let end = match (running.stop, status) {
        (Some(Stop::TimedOut), _) => End::TimedOut,
        (Some(Stop::Cancelled), _) => End::Cancelled,
        (Some(Stop::OverMemory { used_bytes }), _) => End::OverMemory { used_bytes },
        (None, ExitStatus::Code(code)) => End::Exited { code },
        (None, ExitStatus::Signal(signal)) => End::Signaled { signal },
    };
    let wall = now.saturating_duration_since(running.began).as_micros();
    Ending {
        key: running.key,
        group: pid,
        sequence: running.sequence,
        places: running.places,
        end,
        used: Used { wall_us: u64::try_from(wall).unwrap_or(u64::MAX), ..used },
        kernel_killed: None,
        since: now,
        strays: 0,
        cleanup: None,
    }
}
