//! Many files: as many at once as hosts allow, made durable together, each shown with its digest.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::path::Path;
use std::sync::Arc;
use std::time::Instant;

use keelboat_engine::{Content, Kind};
use keelboat_staging::{Fetched, redact};
use tokio::task::JoinHandle;

use super::batch::{Batch, Moved};
use super::lanes::{Answer, Lanes, WORTH_A_LOOK, Wanted};
use super::place;
use super::standing::{self, Met};
use super::{Doing, Manner, Problem, Watch, Wish, shown};
use crate::cli::args::FetchArgs;
use crate::cli::exit::Exit;
use crate::cli::staging::{MoveError, Session};
use crate::cli::terminal::{Terminal, bytes, counted, plain, span};

/// Errors that are shown, so that ten thousand of them do not hide the first.
const ERRORS_SHOWN_MAX: usize = 20;

pub(super) fn bring(
    wishes: Vec<Wish>,
    args: &FetchArgs,
    terminal: &Terminal,
) -> Result<(), Problem> {
    check_names(&wishes)?;
    let all = wishes.len();
    let into = args.into.as_deref().unwrap_or_else(|| Path::new(""));
    let tally = Tally::default();
    let mut many = Many { args, into, terminal, tally, arrived: Vec::new(), moving: None };
    let wanted = many.look(wishes);
    let partial = shown(into).join(".keelboat-partial");
    let watch = Arc::new(Watch::new(Manner::of(args.quiet, terminal), Doing::Many));
    watch.expect(wanted.len() as u64);
    let started = Instant::now();
    let session = Session::begin(&partial, args.jobs)?;
    let stager = session.stager.clone();
    let brought = session.work(many.bring_all(wanted, &session, &watch));
    watch.end();
    let Many { tally, .. } = many;
    if tally.failed == 0 && matches!(brought, Ok(Ended::Done)) {
        stager.discard_archives();
    }
    drop(stager);
    session.end();
    let is_stopped = matches!(brought?, Ended::Stopped);
    if !args.quiet {
        terminal.note(format_args!("{} in {}", tally.summary(), span(started.elapsed())));
    }
    if is_stopped {
        return Err(super::stopped(&partial));
    }
    place::remove_if_empty(&partial);
    match tally {
        Tally { exit: Some(exit), failed, .. } => Err(Problem::Some { failed, all, exit }),
        _ => Ok(()),
    }
}

/// How it ended.
enum Ended {
    Done,
    /// By the user; what had come is in its place.
    Stopped,
}

/// Many files on their way.
struct Many<'a> {
    args: &'a FetchArgs,
    into: &'a Path,
    terminal: &'a Terminal,
    tally: Tally,
    /// Files that are here and not yet in their places.
    arrived: Vec<(Arc<Wish>, Fetched)>,
    /// Those that are being moved there.
    moving: Option<JoinHandle<Result<Vec<Moved>, Problem>>>,
}

impl Many<'_> {
    /// Finds out what stands in the places of the files; those whose places are taken are refused.
    fn look(&mut self, wishes: Vec<Wish>) -> Vec<Wanted> {
        let mut earlier = None;
        let mut wanted = Vec::with_capacity(wishes.len());
        for wish in wishes {
            let record = || {
                let earlier = earlier.get_or_insert_with(|| super::earlier(self.into));
                earlier.remove(super::name_in(self.into, &wish.output))
            };
            match standing::look(&wish, self.args.force, record) {
                Ok(standing) => wanted.push((Arc::new(wish), standing)),
                Err(error) => self.tally.fail(&error.into(), self.terminal),
            }
        }
        wanted
    }

    async fn bring_all(
        &mut self,
        wanted: Vec<Wanted>,
        session: &Session,
        watch: &Arc<Watch>,
    ) -> Result<Ended, Problem> {
        let mut stop = session.stop();
        let lanes = Lanes::new(wanted);
        let mut under_way = lanes.begin(&session.stager, session.connections_max, watch);
        let ended = loop {
            let is_over = tokio::select! {
                biased;
                () = stop.requested() => {
                    under_way.shutdown().await;
                    break Ended::Stopped;
                }
                ended = under_way.join_next() => match ended {
                    Some(Ok(())) => false,
                    Some(Err(error)) => {
                        return Err(MoveError::from(std::io::Error::other(error)).into());
                    }
                    None => true,
                },
                () = lanes.worth_a_look() => false,
            };
            if is_over {
                break Ended::Done;
            }
            self.take_all(lanes.take(), watch);
            if self.arrived.len() >= WORTH_A_LOOK {
                self.place(watch).await?;
            }
        };
        self.take_all(lanes.take(), watch);
        self.place(watch).await?;
        self.settle(watch).await?;
        Ok(ended)
    }

    fn take_all(&mut self, answers: Vec<Answer>, watch: &Watch) {
        for answer in answers {
            self.take(answer, watch);
        }
    }

    fn take(&mut self, (wish, met): Answer, watch: &Watch) {
        match met {
            Ok(Met::Came(mut fetched)) => {
                // It is moved with many others; those must not wait for that.
                fetched.give_room_back();
                self.arrived.push((wish, fetched));
            }
            Ok(Met::There(content)) => {
                self.tally.there += 1;
                self.show(&wish, content);
                watch.arrived();
            }
            Err(error) => self.tally.fail(&error, self.terminal),
        }
    }

    fn show(&self, wish: &Wish, content: Content) {
        if !self.args.quiet {
            let name = plain(&wish.output.display().to_string());
            self.terminal.line(format_args!("{}  {name}", content.digest));
        }
    }

    /// Files are only counted.
    fn tell_replaced(&self, wish: &Wish, replaced: Option<String>) {
        if let Some(replaced) =
            replaced.filter(|_| wish.kind == Kind::Directory && !self.args.quiet)
        {
            let name = plain(&wish.output.display().to_string());
            self.terminal.note(format_args!("{name} came instead of {replaced}"));
        }
    }

    /// Has what came moved to its places, after those that came before.
    async fn place(&mut self, watch: &Watch) -> Result<(), Problem> {
        self.settle(watch).await?;
        let arrived = std::mem::take(&mut self.arrived);
        let batch = Batch { into: self.into.to_owned(), force: self.args.force, arrived };
        let terminal = self.terminal.clone();
        self.moving = Some(tokio::task::spawn_blocking(move || batch.place(&terminal)));
        Ok(())
    }

    /// Waits for those that are being moved to their places.
    async fn settle(&mut self, watch: &Watch) -> Result<(), Problem> {
        let Some(moving) = self.moving.take() else { return Ok(()) };
        for one in moving.await.map_err(std::io::Error::other).map_err(MoveError::from)?? {
            let Moved { wish, content, transferred, replaced } = one;
            match replaced {
                Ok(replaced) => {
                    self.tally.came(&wish, transferred, replaced.is_some());
                    self.tell_replaced(&wish, replaced);
                    watch.arrived();
                    self.show(&wish, content);
                }
                Err(error) => self.tally.fail(&error.into(), self.terminal),
            }
        }
        Ok(())
    }
}

fn check_names(wishes: &[Wish]) -> Result<(), Problem> {
    let mut outputs: BTreeMap<&OsStr, &Wish> = BTreeMap::new();
    for wish in wishes {
        if let Some(other) = outputs.insert(wish.output.as_os_str(), wish) {
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
    there: u64,
    replaced: u64,
    transferred: u64,
    failed: usize,
    /// The worst of what failed.
    exit: Option<Exit>,
}

impl Tally {
    fn fail(&mut self, error: &Problem, terminal: &Terminal) {
        self.failed += 1;
        let exit = error.exit();
        self.exit = Some(self.exit.map_or(exit, |worst| worst.or(exit)));
        match self.failed {
            ..=ERRORS_SHOWN_MAX => terminal.error(error, error.hint().as_deref()),
            at if at == ERRORS_SHOWN_MAX + 1 => {
                terminal.note(format_args!("further errors are counted and not shown"));
            }
            _ => {}
        }
    }

    fn came(&mut self, wish: &Wish, transferred: u64, is_replaced: bool) {
        self.transferred += transferred;
        self.files += match wish.kind {
            Kind::File => 1,
            Kind::Directory => place::count(&wish.output).0,
        };
        self.replaced += u64::from(is_replaced);
    }

    fn summary(&self) -> String {
        let mut parts = vec![counted(self.files, "file"), bytes(self.transferred)];
        if self.there > 0 {
            parts.push(format!("{} there already", self.there));
        }
        if self.replaced > 0 {
            parts.push(format!("{} replaced", self.replaced));
        }
        parts.join(", ")
    }
}
