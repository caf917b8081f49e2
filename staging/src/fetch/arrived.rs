//! What came, until all who wait for it have taken it.

use std::fs::{self, File};
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, LazyLock};

use keelboat_engine::{Content, Digest, Kind};
use walkdir::WalkDir;

use super::Fetched;
use crate::gate::Turn;
use crate::local::{LocalError, remove_tree};
use crate::partial::{Partial, Piece, place};
use crate::protocol::Validators;

/// A file or directory that is here. Each who waits claims it under a name of its own.
#[derive(Debug)]
pub(super) struct Arrived {
    pub(super) held: Held,
    pub(super) content: Content,
    pub(super) validators: Validators,
    pub(super) transferred: u64,
    pub(super) source_used: Arc<str>,
    pub(super) is_claimed: AtomicBool,
    /// Keeps its room until it is claimed, and goes with it then.
    pub(super) turn: Turn,
}

/// Keeps what came counted against [`QueueLimits::space_max`] until this is dropped: until it is
/// told by [`Stager::set_elsewhere`], removed, or moved to where it counts no more.
///
/// [`QueueLimits::space_max`]: keelboat_engine::queue::QueueLimits::space_max
/// [`Stager::set_elsewhere`]: super::Stager::set_elsewhere
#[derive(Debug, Clone, Default)]
pub struct Room {
    _turn: Turn,
}

/// Not a part of what came.
impl PartialEq for Room {
    fn eq(&self, _: &Self) -> bool {
        true
    }
}

impl Eq for Room {}

/// Where it is.
#[derive(Debug)]
pub(super) enum Held {
    /// A file that came byte by byte.
    Partial(Box<Partial>),
    /// Made here: unpacked, assembled, or brought by a service.
    Own(Own),
}

/// A file or directory of this process in the directory for files on their way; removed in the end.
#[derive(Debug)]
pub(super) struct Own {
    path: PathBuf,
}

impl Own {
    /// A name that nobody uses, for what comes from this source.
    pub(super) fn name(dir: &Path, source: &Digest) -> Result<Self, LocalError> {
        place::make(dir)?;
        Ok(Self { path: Self::free_path(dir, source) })
    }

    fn free_path(dir: &Path, source: &Digest) -> PathBuf {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        static PROCESS: LazyLock<u32> = LazyLock::new(std::process::id);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        dir.join(format!("{source}.{}-{number}.own", *PROCESS))
    }

    /// A file of these bytes.
    pub(super) fn write(
        dir: &Path,
        source: &Digest,
        pieces: Vec<Piece>,
    ) -> Result<Self, LocalError> {
        let own = Self { path: Self::free_path(dir, source) };
        let failed = |error| LocalError::io("write", &own.path, error);
        let mut file = match File::create_new(&own.path) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                place::make(dir)?;
                File::create_new(&own.path).map_err(failed)?
            }
            created => created.map_err(failed)?,
        };
        // Each goes as soon as it is written: its memory is of use to others.
        let written = pieces.into_iter().try_for_each(|piece| file.write_all(&piece.bytes));
        written.map_err(failed)?;
        Ok(own)
    }

    /// What is there already, and belongs to this process.
    pub(super) fn adopt(path: PathBuf) -> Self {
        Self { path }
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// A further name for all of it: files are the same, directories are new.
    fn claim(&self, source: &Digest, kind: Kind) -> Result<PathBuf, LocalError> {
        let dir = self.path.parent().unwrap_or_else(|| Path::new("."));
        let mut claimed = Self::name(dir, source)?;
        match kind {
            Kind::File => link(&self.path, &claimed.path)?,
            Kind::Directory => link_tree(&self.path, &claimed.path)?,
        }
        // It belongs to the caller now.
        Ok(std::mem::take(&mut claimed.path))
    }
}

impl Drop for Own {
    fn drop(&mut self) {
        if !self.path.as_os_str().is_empty()
            && let Err(error) = remove_tree(&self.path)
        {
            tracing::debug!(%error, "what was unpacked stays for a later run to sweep");
        }
    }
}

fn link(from: &Path, to: &Path) -> Result<(), LocalError> {
    let linked = fs::hard_link(from, to).or_else(|_| fs::copy(from, to).map(drop));
    linked.map_err(|error| LocalError::io("create", to, error))
}

fn link_tree(from: &Path, to: &Path) -> Result<(), LocalError> {
    for entry in WalkDir::new(from) {
        let entry = entry.map_err(|error| {
            let source = error.into_io_error().unwrap_or_else(|| std::io::Error::other("a loop"));
            LocalError::io("list", from, source)
        })?;
        let below = entry.path().strip_prefix(from).unwrap_or_else(|_| entry.path());
        let target = if below.as_os_str().is_empty() { to.to_owned() } else { to.join(below) };
        let kind = entry.file_type();
        if kind.is_dir() {
            fs::create_dir(&target).map_err(|error| LocalError::io("create", &target, error))?;
        } else {
            // A link to a link is the link.
            link(entry.path(), &target)?;
        }
    }
    Ok(())
}

impl Arrived {
    /// Something that was made here.
    pub(super) fn own(
        own: Own,
        content: Content,
        validators: Validators,
        transferred: u64,
        source_used: Arc<str>,
    ) -> Self {
        let is_claimed = AtomicBool::new(false);
        let held = Held::Own(own);
        Self {
            held,
            content,
            validators,
            transferred,
            source_used,
            is_claimed,
            turn: Turn::default(),
        }
    }

    /// With the turn whose room it keeps.
    pub(super) fn keeping(mut self, turn: Turn) -> Self {
        self.turn = turn;
        self
    }

    /// All of it for the only one who waits.
    pub(super) fn take(mut self) -> Result<Fetched, LocalError> {
        let path = match &mut self.held {
            Held::Partial(partial) => partial.take()?,
            Held::Own(own) => std::mem::take(&mut own.path),
        };
        Ok(self.fetched(path))
    }

    /// A name of its own for one who waits.
    pub(super) fn claim(&self) -> Result<Fetched, LocalError> {
        let path = match &self.held {
            Held::Partial(partial) => partial.claim()?,
            Held::Own(own) => own.claim(&self.content.digest, self.content.kind)?,
        };
        self.is_claimed.store(true, Ordering::Relaxed);
        Ok(self.fetched(path))
    }

    fn fetched(&self, path: PathBuf) -> Fetched {
        Fetched::New {
            path,
            content: self.content,
            etag: self.validators.etag.clone(),
            // One that is too young may be that of a later version, too.
            last_modified: self
                .validators
                .last_modified
                .clone()
                .filter(|_| self.validators.last_modified_is_strong),
            transferred: self.transferred,
            source_used: Arc::clone(&self.source_used),
            room: Room { _turn: self.turn.clone() },
        }
    }

    /// Where it is, for those who read it while they hold this.
    pub(super) fn path(&self) -> &Path {
        match &self.held {
            Held::Partial(partial) => partial.path(),
            Held::Own(own) => own.path(),
        }
    }
}

/// What nobody claimed, since all had gone when it came, is kept for the next run.
impl Drop for Arrived {
    fn drop(&mut self) {
        if let Held::Partial(partial) = &self.held
            && self.is_claimed.load(Ordering::Relaxed)
        {
            partial.discard();
        }
    }
}
