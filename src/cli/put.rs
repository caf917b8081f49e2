//! `keelboat put`: files and directories of this machine to addresses, verified there.

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Instant;

use keelboat_engine::{Content, FailureClass, Kind};
use keelboat_staging::{
    Delivered, Delivery, Forgetful, LocalError, Over, Stager, child_address, digest_path,
    is_address, redact,
};
use tokio::task::JoinSet;

use super::args::PutArgs;
use super::exit::Exit;
use super::fetch::{Doing, Manner, Watch, count};
use super::staging::{MoveError, Session};
use super::stop::Stop;
use super::terminal::{Terminal, bytes, counted, plain, span};

/// Files that are seen to at once; the limits of hosts hold besides.
const AT_ONCE_MAX: usize = 64;

#[derive(Debug, thiserror::Error)]
enum Problem {
    #[error(transparent)]
    Move(#[from] MoveError),
    #[error("cannot read {}: {source}", path.display())]
    Unreadable { path: PathBuf, source: io::Error },
    #[error(transparent)]
    Source(LocalError),
    #[error("{} has no name to be called by at the address", .0.display())]
    NoName(PathBuf),
    #[error("{} and {} would both become {address}", first.display(), second.display())]
    Collision { first: PathBuf, second: PathBuf, address: String },
}

impl Problem {
    fn hint(&self) -> Option<String> {
        match self {
            Self::Move(error) => error.hint(),
            Self::Unreadable { source, .. } if source.kind() == io::ErrorKind::NotFound => {
                Some("check the path: FILE… come first, the URL last".to_owned())
            }
            Self::Unreadable { .. } => Some("make it readable".to_owned()),
            Self::Source(error) => Some(error.hint()),
            Self::NoName(_) => {
                Some("name the file at the address itself: FILE URL/NAME".to_owned())
            }
            Self::Collision { .. } => Some("send one of them by itself: FILE URL/NAME".to_owned()),
        }
    }

    fn exit(&self) -> Exit {
        match self {
            Self::Move(error) => error.exit(),
            Self::Source(error) if error.class() == FailureClass::OutOfResources => Exit::Broken,
            Self::Source(error) if error.class() == FailureClass::Transient => Exit::Failed,
            _ => Exit::BadInput,
        }
    }
}

pub(super) fn put(args: &PutArgs, terminal: &Terminal) -> Exit {
    match wishes(args).and_then(|wishes| Ok(send(wishes, args, terminal)?)) {
        Ok(exit) => exit,
        Err(error) => {
            terminal.error(&error, error.hint().as_deref());
            error.exit()
        }
    }
}

/// A file or directory and where it goes.
struct Wish {
    source: PathBuf,
    kind: Kind,
    address: Arc<str>,
}

fn wishes(args: &PutArgs) -> Result<Vec<Wish>, Problem> {
    let into_directory = args.files.len() > 1 || args.url.ends_with('/');
    let wish = |path: &PathBuf| {
        let unreadable = |source| Problem::Unreadable { path: path.clone(), source };
        let source = std::path::absolute(path).map_err(unreadable)?;
        let metadata = source.metadata().map_err(unreadable)?;
        let kind = if metadata.is_dir() { Kind::Directory } else { Kind::File };
        let address = if into_directory {
            let name = source.file_name().and_then(|name| name.to_str());
            let name = name.ok_or_else(|| Problem::NoName(path.clone()))?;
            child_address(&args.url, name)
        } else {
            args.url.clone()
        };
        let address = if is_address(&address) {
            address
        } else {
            std::path::absolute(Path::new(&address)).map_err(unreadable)?.display().to_string()
        };
        Ok(Wish { source, kind, address: address.into() })
    };
    let wishes: Vec<Wish> = args.files.iter().map(wish).collect::<Result<_, Problem>>()?;
    let mut by_address: BTreeMap<&str, &Wish> = BTreeMap::new();
    for wish in &wishes {
        if let Some(other) = by_address.insert(&wish.address, wish) {
            let (first, second) = (other.source.clone(), wish.source.clone());
            let address = redact(&wish.address);
            return Err(Problem::Collision { first, second, address });
        }
    }
    Ok(wishes)
}

fn send(wishes: Vec<Wish>, args: &PutArgs, terminal: &Terminal) -> Result<Exit, MoveError> {
    let all = wishes.len();
    let started = Instant::now();
    let session = Session::begin(&crate::settings::state_directory(), args.jobs)?;
    let doing = if all == 1 { Doing::Sending } else { Doing::ManyOut };
    let watch = Arc::new(Watch::new(Manner::of(args.quiet, terminal), doing));
    watch.expect(all as u64);
    let (mut tally, mut tried) = (Tally::default(), 0);
    let sending = send_all(wishes, args, (&session.stager, session.stop()), &watch, |sent| {
        tried += 1;
        tally.take(sent, args, terminal);
    });
    let ended = session.work(sending);
    watch.end();
    session.end();
    let is_done = ended?;
    if !args.quiet && (is_done || tally.exit.is_none()) && tally.done() > 0 {
        terminal.note(format_args!("{} in {}", tally.summary(), span(started.elapsed())));
    }
    if !is_done {
        let done = tried - tally.failed;
        terminal.note(format_args!("stopped: {done} of {all} went out; the same command goes on"));
        return Ok(Exit::Interrupted);
    }
    let Some(exit) = tally.exit else { return Ok(Exit::Success) };
    if all > 1 {
        let cause = format!("{} of {all} were not sent", tally.failed);
        let hint = "the same command goes on with what is missing";
        terminal.error(cause, (exit != Exit::BadInput).then_some(hint));
    }
    Ok(exit)
}

/// A wish that was met, or was not.
type Sent = (Wish, Result<Arrival, Problem>);

/// What is at its address.
struct Arrival {
    content: Content,
    files: u64,
    delivered: Delivered,
}

/// Returns whether all was tried; not, when the user wants it to stop.
async fn send_all(
    wishes: Vec<Wish>,
    args: &PutArgs,
    (stager, mut stop): (&Stager, Stop),
    watch: &Arc<Watch>,
    mut take: impl FnMut(Sent),
) -> Result<bool, MoveError> {
    let over = if args.force { Over::All } else { Over::Nothing };
    let mut under_way: JoinSet<Sent> = JoinSet::new();
    let mut rest = wishes.into_iter();
    loop {
        while under_way.len() < AT_ONCE_MAX
            && let Some(wish) = rest.next()
        {
            let (stager, watch) = (stager.clone(), Arc::clone(watch));
            under_way.spawn(async move {
                let arrived = send_one(&stager, &wish, over, &watch).await;
                (wish, arrived)
            });
        }
        tokio::select! {
            biased;
            ended = under_way.join_next() => match ended {
                Some(sent) => {
                    take(sent.map_err(io::Error::other)?);
                    watch.arrived();
                }
                None => return Ok(true),
            },
            () = stop.requested() => return Ok(false),
        }
    }
}

async fn send_one(
    stager: &Stager,
    wish: &Wish,
    over: Over,
    watch: &Arc<Watch>,
) -> Result<Arrival, Problem> {
    let (source, kind) = (wish.source.clone(), wish.kind);
    let looked = tokio::task::spawn_blocking(move || {
        let files = if kind == Kind::Directory { count(&source).0 } else { 1 };
        digest_path(&source, kind, &Forgetful, true).map(|content| (content, files))
    });
    let looked = looked.await.map_err(io::Error::other).map_err(MoveError::from)?;
    let (content, files) = looked.map_err(Problem::Source)?;
    watch.begin(&redact(&wish.address), content.bytes);
    let delivery = Delivery {
        source: wish.source.clone(),
        content,
        address: Arc::clone(&wish.address),
        over,
        progress: Some(watch.clone()),
    };
    let delivered = stager.deliver(delivery, Forgetful).await.map_err(MoveError::from)?;
    Ok(Arrival { content, files, delivered })
}

/// Errors that are shown, so that ten thousand of them do not hide the first.
const ERRORS_SHOWN_MAX: usize = 20;

#[derive(Default)]
struct Tally {
    sent: u64,
    there: u64,
    bytes: u64,
    failed: usize,
    /// The worst of what failed.
    exit: Option<Exit>,
}

impl Tally {
    fn take(&mut self, (wish, arrived): Sent, args: &PutArgs, terminal: &Terminal) {
        let Arrival { content, files, delivered } = match arrived {
            Ok(arrival) => arrival,
            Err(error) => return self.fail(&error, terminal),
        };
        let there = match delivered {
            Delivered::AlreadyThere => {
                self.there += files;
                "  (was there already)"
            }
            Delivered::Copied => {
                self.sent += files;
                self.bytes += content.bytes;
                ""
            }
        };
        if !args.quiet {
            let address = plain(&redact(&wish.address));
            terminal.line(format_args!("{}  {address}{there}", content.digest));
        }
    }

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

    fn done(&self) -> u64 {
        self.sent + self.there
    }

    fn summary(&self) -> String {
        let sent = format!("{}, {} sent", counted(self.sent, "file"), bytes(self.bytes));
        match (self.sent, self.there) {
            (_, 0) => format!("{sent} and verified there"),
            (0, there) => format!("{}, there already: nothing sent", counted(there, "file")),
            (_, there) => format!("{sent} and verified there, {there} there already,"),
        }
    }
}
