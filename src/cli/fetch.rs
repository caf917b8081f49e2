//! `keelboat fetch`: one file from one or more addresses, verified, resumed after a cut or a crash
//! by the same command.

mod place;
mod watch;

use std::path::Path;
use std::sync::Arc;
use std::time::Instant;

use keelboat_engine::{Content, Digest, FailureClass, Kind};
use keelboat_staging::{
    ConfigError, FetchError, FetchRequest, Fetched, Forgetful, LocalError, Stager, StagingConfig,
    digest_path, redact,
};

use self::place::{PlaceError, name_of, partial_dir, put};
use self::watch::{Manner, Watch};
use super::args::FetchArgs;
use super::exit::Exit;
use super::terminal::{Terminal, bytes, span};

pub(super) fn fetch(args: &FetchArgs, terminal: &mut Terminal) -> Exit {
    match bring(args, terminal) {
        Ok(()) => Exit::Success,
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
    #[error(transparent)]
    Place(#[from] PlaceError),
    #[error("cannot look at the file that is there: {0}")]
    Look(#[from] LocalError),
    #[error(transparent)]
    Config(#[from] ConfigError),
    #[error("cannot start the network: {0}")]
    Runtime(#[from] std::io::Error),
    #[error(transparent)]
    Fetch(#[from] FetchError),
}

impl Problem {
    fn hint(&self) -> Option<String> {
        match self {
            Self::Place(error) => Some(error.hint()),
            Self::Fetch(error) => error.failure.hint.clone(),
            _ => None,
        }
    }

    fn exit(&self) -> Exit {
        match self {
            Self::Digest(_) => Exit::BadInput,
            Self::Place(error) => error.exit(),
            Self::Look(_) | Self::Config(_) | Self::Runtime(_) => Exit::Broken,
            Self::Fetch(error) => match error.failure.class {
                FailureClass::OutOfResources => Exit::Broken,
                _ => Exit::Failed,
            },
        }
    }
}

fn bring(args: &FetchArgs, terminal: &Terminal) -> Result<(), Problem> {
    let sha256 = args.sha256.as_deref().map(str::parse::<Digest>).transpose()?;
    let output = match &args.output {
        Some(output) => output.clone(),
        None => name_of(args.urls.first().map_or("", String::as_str))?.into(),
    };
    if is_there(&output, sha256)? {
        if !args.quiet {
            terminal.line(format_args!("{} is already there, with this digest", output.display()));
        }
        return Ok(());
    }
    place::check(&output, args.force)?;
    let partial = partial_dir(&output);
    let manner = match (args.quiet, terminal.is_interactive()) {
        (true, _) => Manner::Quiet,
        (false, true) => Manner::Bar,
        (false, false) => Manner::Lines,
    };
    let watch = Arc::new(Watch::new(manner));
    let request = FetchRequest {
        urls: args.urls.iter().map(|url| Arc::from(url.as_str())).collect(),
        sha256,
        progress: Some(watch.clone()),
        ..FetchRequest::default()
    };
    let started = Instant::now();
    let runtime =
        tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    let config =
        StagingConfig { seed: u64::from(std::process::id()), ..StagingConfig::new(&partial) };
    let fetched = runtime.block_on(async { Ok(Stager::new(config)?.fetch(request).await?) });
    watch.end();
    let (path, content, transferred, source) = match fetched {
        Ok(Fetched::New { path, content, transferred, source_used, .. }) => {
            (path, content, transferred, source_used)
        }
        // Nothing was said to be known.
        Ok(Fetched::Unchanged) => return Ok(()),
        Err(error) => {
            place::remove_if_empty(&partial);
            return Err(error);
        }
    };
    put(&path, &output, args.force)?;
    place::remove_if_empty(&partial);
    if !args.quiet {
        let arrival = Arrival { output: &output, content, transferred, source: &source, started };
        arrival.tell(terminal);
    }
    Ok(())
}

/// Whether the output is there and holds what it must.
fn is_there(output: &Path, sha256: Option<Digest>) -> Result<bool, LocalError> {
    let Some(sha256) = sha256.filter(|_| output.is_file()) else { return Ok(false) };
    let found = digest_path(output, Kind::File, &Forgetful, true)?;
    Ok(found.digest == sha256)
}

/// What came.
struct Arrival<'a> {
    output: &'a Path,
    content: Content,
    transferred: u64,
    source: &'a str,
    started: Instant,
}

impl Arrival<'_> {
    fn tell(&self, terminal: &Terminal) {
        let took = self.started.elapsed();
        let size = self.content.bytes;
        let per_second = u128::from(self.transferred) * 1000 / took.as_millis().max(1);
        let rate = bytes(u64::try_from(per_second).unwrap_or(u64::MAX));
        terminal.line(format_args!("{}", self.output.display()));
        terminal.line(format_args!("  size    {} ({size} bytes)", bytes(size)));
        terminal.line(format_args!("  time    {}, {rate}/s", span(took)));
        if self.transferred < size {
            let before = bytes(size - self.transferred);
            terminal.line(format_args!("  resumed {before} were here from an earlier try"));
        }
        terminal.line(format_args!("  sha256  {}", self.content.digest));
        terminal.line(format_args!("  from    {}", redact(self.source)));
    }
}
