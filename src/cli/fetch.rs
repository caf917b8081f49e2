//! `keelboat fetch`: files from one or more addresses, verified, resumed after a cut or a crash by
//! the same command.

mod batch;
mod lanes;
mod many;
mod place;
mod record;
mod standing;
mod watch;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Instant;

use keelboat_engine::{Content, Digest, Kind};
use keelboat_staging::{
    FetchRequest, Fetched, Forgetful, Known, LocalError, address_digest, digest_path, is_address,
    redact,
};

pub(super) use self::place::count;
pub(super) use self::watch::{Doing, Manner, Watch};

use self::place::{PlaceError, directory_of, name_of, partial_dir, put};
use self::record::{Record, Records};
use self::standing::Met;
use super::args::FetchArgs;
use super::exit::Exit;
use super::staging::{MoveError, Session};
use super::terminal::{Terminal, bytes, counted, span};

pub(super) fn fetch(args: &FetchArgs, terminal: &mut Terminal) -> Exit {
    let fetched = wishes(args).and_then(|wishes| match wishes.as_slice() {
        [wish] if args.list.is_none() => bring(wish, args, terminal),
        _ => many::bring(wishes, args, terminal),
    });
    match fetched {
        Ok(()) => Exit::Success,
        Err(Problem::Stopped { kept }) => {
            terminal.note(format_args!("stopped: {kept}; the same command goes on"));
            Exit::Interrupted
        }
        Err(error) => {
            terminal.error(&error, error.hint().as_deref());
            error.exit()
        }
    }
}

#[derive(Debug, thiserror::Error)]
enum Problem {
    #[error("the digest in `--sha256` cannot be: {0}")]
    Digest(#[from] keelboat_engine::DigestParseError),
    #[error("{0}")]
    Arguments(&'static str),
    #[error("cannot read the list {}: {cause}", path.display())]
    List { path: PathBuf, cause: String },
    #[error("{first} and {second} would both become {}", output.display())]
    Collision { first: String, second: String, output: PathBuf },
    #[error(transparent)]
    Place(#[from] PlaceError),
    #[error(transparent)]
    Move(#[from] MoveError),
    #[error("{failed} of {all} files did not come")]
    Some { failed: usize, all: usize, exit: Exit },
    /// By the user.
    #[error("stopped: {kept}")]
    Stopped { kept: String },
}

impl Problem {
    fn hint(&self) -> Option<String> {
        match self {
            Self::Place(error) => Some(error.hint()),
            Self::Move(error) => error.hint(),
            Self::Arguments(_) => Some("see `keelboat fetch --help`".to_owned()),
            Self::List { .. } => {
                Some("each line is a URL, or a URL, a tab and a file name".to_owned())
            }
            Self::Collision { .. } => {
                Some("name them in a list: URL, a tab, file name (`--list FILE`)".to_owned())
            }
            Self::Some { exit: Exit::BadInput, .. } => None,
            Self::Some { .. } => Some("the same command goes on with what is missing".to_owned()),
            Self::Digest(_) | Self::Stopped { .. } => None,
        }
    }

    fn exit(&self) -> Exit {
        match self {
            Self::Digest(_) | Self::Arguments(_) | Self::List { .. } | Self::Collision { .. } => {
                Exit::BadInput
            }
            Self::Place(error) => error.exit(),
            Self::Move(error) => error.exit(),
            Self::Some { exit, .. } => *exit,
            Self::Stopped { .. } => Exit::Interrupted,
        }
    }
}

impl From<LocalError> for Problem {
    fn from(error: LocalError) -> Self {
        Self::Move(error.into())
    }
}

/// One file or directory and where it goes.
struct Wish {
    urls: Vec<String>,
    output: PathBuf,
    sha256: Option<Digest>,
    kind: Kind,
}

fn wishes(args: &FetchArgs) -> Result<Vec<Wish>, Problem> {
    let sha256 = args.sha256.as_deref().map(str::parse::<Digest>).transpose()?;
    let mut named: Vec<(String, Option<PathBuf>)> =
        args.urls.iter().map(|url| (url.clone(), None)).collect();
    if let Some(list) = &args.list {
        named.extend(read_list(list)?);
    }
    let is_one = named.len() == 1;
    if named.is_empty() {
        return Err(Problem::Arguments("no URL is given"));
    }
    if !is_one && (sha256.is_some() || args.output.is_some() || !args.mirror.is_empty()) {
        return Err(Problem::Arguments("-o, --sha256 and --mirror are for one file"));
    }
    let into = args.into.as_deref().unwrap_or_else(|| Path::new(""));
    let wish = |(url, name): (String, Option<PathBuf>)| {
        let output = match (&args.output, name) {
            (Some(output), _) => output.clone(),
            (None, Some(name)) => into.join(name),
            (None, None) => into.join(name_of(url.trim_end_matches('/'))?),
        };
        let kind = if args.directory || url.ends_with('/') { Kind::Directory } else { Kind::File };
        let urls = [url].into_iter().chain(args.mirror.iter().cloned()).collect();
        Ok(Wish { urls, output, sha256, kind })
    };
    named.into_iter().map(wish).collect()
}

/// Lines of a URL, or of a URL, a tab and a file name; empty ones and those with `#` are skipped.
fn read_list(path: &Path) -> Result<Vec<(String, Option<PathBuf>)>, Problem> {
    let text = if path == Path::new("-") {
        std::io::read_to_string(std::io::stdin())
    } else {
        std::fs::read_to_string(path)
    };
    let text =
        text.map_err(|error| Problem::List { path: path.to_owned(), cause: error.to_string() })?;
    let lines = text.lines().filter(|line| !line.trim().is_empty() && !line.starts_with('#'));
    let entry = |line: &str| match line.split_once('\t') {
        Some((url, name)) if is_below(Path::new(name.trim())) => {
            Ok((url.trim().to_owned(), Some(PathBuf::from(name.trim()))))
        }
        Some((_, name)) => Err(Problem::List {
            path: path.to_owned(),
            cause: format!("{name:?} is no name below the directory"),
        }),
        None => Ok((line.trim().to_owned(), None)),
    };
    lines.map(entry).collect()
}

/// Whether a name stays in the directory that it is put in.
fn is_below(name: &Path) -> bool {
    let mut parts = name.components().peekable();
    parts.peek().is_some() && parts.all(|part| matches!(part, std::path::Component::Normal(_)))
}

impl Wish {
    /// Where it can be had.
    fn addresses(&self) -> Vec<Arc<str>> {
        self.urls.iter().map(|url| Arc::from(absolute(url))).collect()
    }

    fn request(&self, watch: &Arc<Watch>) -> FetchRequest {
        FetchRequest {
            urls: self.addresses().into(),
            kind: self.kind,
            sha256: self.sha256,
            progress: Some(watch.clone()),
            ..FetchRequest::default()
        }
    }

    /// Whether the output is there and holds what it must.
    fn is_there(&self) -> Result<bool, LocalError> {
        let Some(sha256) = self.sha256.filter(|_| self.output.exists()) else { return Ok(false) };
        let found = digest_path(&self.output, self.kind, &Forgetful, true)?;
        Ok(found.digest == sha256)
    }
}

/// A path means the directory that the command was typed in.
fn absolute(url: &str) -> String {
    if is_address(url) {
        return url.to_owned();
    }
    let path = std::path::absolute(url).ok();
    path.and_then(|path| path.to_str().map(str::to_owned)).unwrap_or_else(|| url.to_owned())
}

fn bring(wish: &Wish, args: &FetchArgs, terminal: &Terminal) -> Result<(), Problem> {
    let output = &wish.output;
    if wish.is_there()? {
        if !args.quiet {
            terminal.line(format_args!("{} is already there, with this digest", output.display()));
        }
        return Ok(());
    }
    let base = args.into.as_deref().unwrap_or_else(|| directory_of(output));
    let standing =
        standing::look(wish, args.force, || earlier(base).remove(name_in(base, output)))?;
    let partial = partial_dir(output);
    let watch = Arc::new(Watch::new(Manner::of(args.quiet, terminal), Doing::Fetching));
    let started = Instant::now();
    let session = Session::begin(&partial, args.jobs)?;
    let met = session.until_stopped(standing::meet(&session.stager, wish, standing, &watch));
    watch.end();
    if matches!(met, Some(Ok(_))) {
        session.stager.discard_archives();
    }
    session.end();
    let Some(met) = met else { return Err(stopped(&partial)) };
    let came = match met {
        Ok(Met::Came(came)) => came,
        Ok(Met::There(content)) => {
            place::remove_if_empty(&partial);
            if !args.quiet {
                let there = "is already there, as it is at its source";
                terminal.line(format_args!("{} {there}", output.display()));
                terminal.line(format_args!("  sha256  {}", content.digest));
            }
            return Ok(());
        }
        Err(error) => {
            place::remove_if_empty(&partial);
            return Err(error);
        }
    };
    // Nothing was said to be known, so something came.
    let Fetched::New { path, content, transferred, source_used: source, .. } = &came else {
        return Ok(());
    };
    remember(base, &[(output, &came)], terminal)?;
    let replaced = put(path, output, args.force)?;
    place::remove_if_empty(&partial);
    if !args.quiet {
        let transferred = *transferred;
        let arrival = Arrival { output, content: *content, transferred, source, started, replaced };
        arrival.tell(terminal);
    }
    Ok(())
}

/// What was fetched before to below a directory. When it is not there, nothing was.
fn earlier(base: &Path) -> standing::Earlier {
    let records = Records::of(shown(base), &crate::settings::state_directory());
    records.map(|records| records.read()).unwrap_or_default()
}

/// Writes down what is about to appear below a directory.
fn remember(
    base: &Path,
    arrived: &[(&PathBuf, &Fetched)],
    terminal: &Terminal,
) -> Result<(), PlaceError> {
    let base_shown = shown(base);
    place::make_directory(base_shown)?;
    let record = |(output, fetched): &(&PathBuf, &Fetched)| {
        let Fetched::New { content, etag, last_modified, source_used, .. } = fetched else {
            return None;
        };
        let known = Known {
            content: *content,
            etag: etag.clone(),
            last_modified: last_modified.clone(),
            source: Some(address_digest(source_used)),
        };
        Record::new(name_in(base, output), known)
    };
    let records: Vec<Record> = arrived.iter().filter_map(record).collect();
    let added = Records::of(base_shown, &crate::settings::state_directory())
        .and_then(|log| log.add(&records));
    if let Err(error) = added {
        // The files are worth more than the memory of them.
        terminal.note(format_args!(
            "what is fetched here cannot be remembered, so the same command will not know it \
             again: {error}"
        ));
    }
    Ok(())
}

/// What an output is called in the records of its directory.
fn name_in<'a>(base: &Path, output: &'a Path) -> &'a Path {
    output.strip_prefix(base).unwrap_or(output)
}

/// The present directory has an empty name.
fn shown(base: &Path) -> &Path {
    if base.as_os_str().is_empty() { Path::new(".") } else { base }
}

/// Ended by the user.
fn stopped(partial: &Path) -> Problem {
    let kept = if place::remove_if_empty(partial) {
        "nothing is on its way".to_owned()
    } else {
        format!("what came so far is kept in {}", partial.display())
    };
    Problem::Stopped { kept }
}

/// What came.
struct Arrival<'a> {
    output: &'a Path,
    content: Content,
    transferred: u64,
    source: &'a str,
    started: Instant,
    /// In words.
    replaced: Option<String>,
}

impl Arrival<'_> {
    fn tell(&self, terminal: &Terminal) {
        let took = self.started.elapsed();
        let size = self.content.bytes;
        let per_second = u128::from(self.transferred) * 1000 / took.as_millis().max(1);
        let rate = bytes(u64::try_from(per_second).unwrap_or(u64::MAX));
        terminal.line(format_args!("{}", self.output.display()));
        if let Some(replaced) = &self.replaced {
            terminal.line(format_args!("  instead of {replaced}"));
        }
        let files = match self.content.kind {
            Kind::File => String::new(),
            Kind::Directory => format!(" in {}", counted(count(self.output).0, "file")),
        };
        terminal.line(format_args!("  size    {} ({size} bytes){files}", bytes(size)));
        terminal.line(format_args!("  time    {}, {rate}/s", span(took)));
        // An archive has another size than its members.
        if self.transferred < size && self.content.kind == Kind::File && !self.source.contains("!/")
        {
            let before = bytes(size - self.transferred);
            terminal.line(format_args!("  resumed {before} were here from an earlier try"));
        }
        terminal.line(format_args!("  sha256  {}", self.content.digest));
        terminal.line(format_args!("  from    {}", redact(self.source)));
    }
}
