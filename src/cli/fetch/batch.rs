//! Files that came, made durable together and moved to their places, by a thread of their own:
//! others go on to come meanwhile.

use std::fs::File;
use std::os::fd::AsFd as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use keelboat_engine::Content;
use keelboat_staging::{Fetched, remove_tree};

use super::place::{self, PlaceError};
use super::{Problem, Wish, shown};
use crate::cli::staging::MoveError;
use crate::cli::terminal::Terminal;

/// Files that are here and not yet in their places.
pub(super) struct Batch {
    /// The directory that the names of outputs are remembered in.
    pub(super) into: PathBuf,
    /// Whether they may take the places of others.
    pub(super) force: bool,
    pub(super) arrived: Vec<(Arc<Wish>, Fetched)>,
}

/// One that was moved to its place, or could not be.
pub(super) struct Moved {
    pub(super) wish: Arc<Wish>,
    pub(super) content: Content,
    pub(super) transferred: u64,
    /// What was there before.
    pub(super) replaced: Result<Option<String>, PlaceError>,
}

impl Batch {
    /// Makes all of them durable by one call, remembers them, and moves each to its place.
    pub(super) fn place(self, terminal: &Terminal) -> Result<Vec<Moved>, Problem> {
        let Some((_, Fetched::New { path, .. })) = self.arrived.first() else {
            return Ok(Vec::new());
        };
        sync(path)?;
        let known = self.arrived.iter().map(|(wish, fetched)| (&wish.output, fetched));
        super::remember(&self.into, &known.collect::<Vec<_>>(), terminal)?;
        let mut all = Vec::with_capacity(self.arrived.len());
        for (wish, fetched) in self.arrived {
            let Fetched::New { path, content, transferred, .. } = fetched else { continue };
            let replaced = match place::move_to(&path, &wish.output, self.force) {
                Err(error @ PlaceError::Io { .. }) => return Err(error.into()),
                Err(error) => {
                    remove_tree(&path).map_err(MoveError::from)?;
                    Err(error)
                }
                replaced => replaced,
            };
            all.push(Moved { wish, content, transferred, replaced });
        }
        sync(shown(&self.into))?;
        Ok(all)
    }
}

/// Brings all of a file system to the disk.
fn sync(path: &Path) -> Result<(), PlaceError> {
    let synced = File::open(path).and_then(|file| Ok(nix::unistd::syncfs(file.as_fd())?));
    synced.map_err(|source| PlaceError::Io { doing: "write", path: path.to_owned(), source })
}
