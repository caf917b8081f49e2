//! Many files: as many at once as hosts allow, made durable together, each shown with its digest.

use std::collections::BTreeMap;
use std::fs::File;
use std::os::fd::AsFd as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Instant;

use keelboat_staging::{Fetched, redact};
use tokio::task::JoinSet;

use super::place::{self, PlaceError};
use super::{Doing, Manner, Problem, Watch, Wish};
use crate::cli::args::FetchArgs;
use crate::cli::staging::{MoveError, Session};
use crate::cli::terminal::{Terminal, bytes, counted, plain, span};

/// Files that are asked for at once; the limits of hosts hold besides.
const AT_ONCE_MAX: usize = 256;

/// Files that are made durable together at most.
const BATCH_MAX: usize = 1024;

pub(super) fn bring(wishes: &[Wish], args: &FetchArgs, terminal: &Terminal) -> Result<(), Problem> {
    check_names(wishes)?;
    // Files appear whole or not at all: one that is there came by an earlier command.
    let is_missing = |wish: &&Wish| args.force || wish.output.symlink_metadata().is_err();
    let missing: Vec<&Wish> = wishes.iter().filter(is_missing).collect();
    let were_there = wishes.len() - missing.len();
    if were_there > 0 && !args.quiet {
        let count = counted(were_there as u64, "file");
        terminal.note(format_args!("{count} were there already (`--force` fetches them again)"));
    }
    let into = args.into.as_deref().unwrap_or_else(|| Path::new("."));
    let partial = into.join(".keelboat-partial");
    let watch = Arc::new(Watch::new(Manner::of(args.quiet, terminal), Doing::Many));
    watch.expect(missing.len() as u64);
    let started = Instant::now();
    let session = Session::begin(&partial, args.jobs)?;
    let mut tally = Tally::default();
    let brought = session.runtime.block_on(async {
        let mut under_way = JoinSet::new();
        let mut arrived = Vec::new();
        let mut rest = missing.iter();
        loop {
            while under_way.len() < AT_ONCE_MAX
                && let Some(wish) = rest.next()
            {
                let (stager, request) = (session.stager.clone(), wish.request(&watch));
                let output = wish.output.clone();
                under_way.spawn(async move { (output, stager.fetch(request).await) });
            }
            let Some(ended) = under_way.join_next().await else { break };
            let (output, fetched) =
                ended.map_err(std::io::Error::other).map_err(MoveError::from)?;
            match fetched {
                Ok(mut fetched) => {
                    // It is moved with many others; those must not wait for that.
                    fetched.give_room_back();
                    arrived.push((output, fetched));
                }
                Err(error) => tally.fail(&MoveError::from(error), terminal),
            }
            if arrived.len() >= BATCH_MAX {
                sync(&arrived).await?;
                place_all(&mut arrived, args, &mut tally, (&watch, terminal))?;
            }
        }
        sync(&arrived).await?;
        place_all(&mut arrived, args, &mut tally, (&watch, terminal))
    });
    watch.end();
    if tally.failed == 0 {
        session.stager.discard_archives();
    }
    drop(session);
    place::remove_if_empty(&partial);
    brought?;
    if !args.quiet {
        let (count, all) = (counted(tally.files, "file"), bytes(tally.transferred));
        terminal.note(format_args!("{count}, {all} in {}", span(started.elapsed())));
    }
    match tally.failed {
        0 => Ok(()),
        failed => Err(Problem::Some { failed, all: wishes.len() }),
    }
}

fn check_names(wishes: &[Wish]) -> Result<(), Problem> {
    let mut outputs: BTreeMap<&Path, &Wish> = BTreeMap::new();
    for wish in wishes {
        if let Some(other) = outputs.insert(&wish.output, wish) {
            let shown = |wish: &Wish| wish.urls.first().map(|url| redact(url)).unwrap_or_default();
            let (first, second) = (shown(other), shown(wish));
            return Err(Problem::Collision { first, second, output: wish.output.clone() });
        }
    }
    Ok(())
}

#[derive(Default)]
struct Tally {
    files: u64,
    transferred: u64,
    failed: usize,
}

impl Tally {
    fn fail(&mut self, error: &MoveError, terminal: &Terminal) {
        self.failed += 1;
        terminal.error(error, error.hint().as_deref());
    }
}

/// Makes what came durable by one call for all, while others go on to come.
async fn sync(arrived: &[(PathBuf, Fetched)]) -> Result<(), Problem> {
    let Some((_, Fetched::New { path, .. })) = arrived.first() else { return Ok(()) };
    let path = path.clone();
    let synced = tokio::task::spawn_blocking(move || {
        let synced = File::open(&path).and_then(|file| Ok(nix::unistd::syncfs(file.as_fd())?));
        synced.map_err(failed(&path))
    });
    Ok(synced.await.map_err(std::io::Error::other).map_err(MoveError::from)??)
}

fn failed(path: &Path) -> impl FnOnce(std::io::Error) -> PlaceError {
    let path = path.to_owned();
    move |source| PlaceError::Io { doing: "write", path, source }
}

/// Moves each file that came to its place.
fn place_all(
    arrived: &mut Vec<(PathBuf, Fetched)>,
    args: &FetchArgs,
    tally: &mut Tally,
    (watch, terminal): (&Watch, &Terminal),
) -> Result<(), Problem> {
    if arrived.is_empty() {
        return Ok(());
    }
    for (output, fetched) in arrived.drain(..) {
        let Fetched::New { path, content, transferred, .. } = fetched else { continue };
        place::move_to(&path, &output, args.force)?;
        tally.files += 1;
        tally.transferred += transferred;
        watch.arrived();
        if !args.quiet {
            let name = plain(&output.display().to_string());
            terminal.line(format_args!("{}  {name}", content.digest));
        }
    }
    let into = args.into.as_deref().unwrap_or_else(|| Path::new("."));
    let synced = File::open(into).and_then(|folder| Ok(nix::unistd::syncfs(folder.as_fd())?));
    synced.map_err(failed(into))?;
    Ok(())
}
