//! `keelboat put`: files and directories of this machine to an address, verified there.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Instant;

use keelboat_engine::{Content, Kind};
use keelboat_staging::{
    Delivered, Delivery, Forgetful, child_address, digest_path, is_address, redact,
};

use super::args::PutArgs;
use super::exit::Exit;
use super::fetch::{Doing, Manner, Watch};
use super::staging::{MoveError, Session};
use super::terminal::{Terminal, bytes, counted, span};

#[derive(Debug, thiserror::Error)]
enum Problem {
    #[error(transparent)]
    Move(#[from] MoveError),
    #[error("{} has no name to be called by at the address", .0.display())]
    NoName(PathBuf),
}

pub(super) fn put(args: &PutArgs, terminal: &Terminal) -> Exit {
    match send_all(args, terminal) {
        Ok(()) => Exit::Success,
        Err(Problem::Move(error)) => {
            terminal.error(&error, error.hint().as_deref());
            error.exit()
        }
        Err(error) => {
            terminal.error(&error, Some("name the file at the address itself: FILE URL/NAME"));
            Exit::BadInput
        }
    }
}

/// A file or directory and where it goes.
struct Wish {
    source: PathBuf,
    content: Content,
    address: Arc<str>,
}

fn wishes(args: &PutArgs) -> Result<Vec<Wish>, Problem> {
    let into_directory = args.files.len() > 1 || args.url.ends_with('/');
    let wish = |path: &PathBuf| {
        let source = std::path::absolute(path).map_err(MoveError::from)?;
        let metadata = source.metadata().map_err(|error| {
            MoveError::Look(keelboat_staging::LocalError::Io {
                action: "find",
                path: path.clone(),
                source: error,
            })
        })?;
        let kind = if metadata.is_dir() { Kind::Directory } else { Kind::File };
        let content = digest_path(&source, kind, &Forgetful, true).map_err(MoveError::from)?;
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
            std::path::absolute(Path::new(&address)).map_err(MoveError::from)?.display().to_string()
        };
        Ok(Wish { source, content, address: address.into() })
    };
    args.files.iter().map(wish).collect()
}

fn send_all(args: &PutArgs, terminal: &Terminal) -> Result<(), Problem> {
    let wishes = wishes(args)?;
    let started = Instant::now();
    let session = Session::begin(&crate::settings::state_directory(), None)?;
    let watch = Arc::new(Watch::new(Manner::of(args.quiet, terminal), Doing::Sending));
    let mut sent = 0;
    for Wish { source, content, address } in &wishes {
        let delivery = Delivery {
            source: source.clone(),
            content: *content,
            address: Arc::clone(address),
            progress: Some(watch.clone()),
        };
        watch.begin(&redact(address), content.bytes);
        let delivered = session.work(session.stager.deliver(delivery, Forgetful));
        watch.end();
        let was_there = delivered.map_err(MoveError::from)? == Delivered::AlreadyThere;
        sent += if was_there { 0 } else { content.bytes };
        if !args.quiet {
            let there = if was_there { "  (was there already)" } else { "" };
            terminal.line(format_args!("{}  {}{there}", content.digest, redact(address)));
        }
    }
    if !args.quiet {
        let (count, took) = (counted(wishes.len() as u64, "file"), span(started.elapsed()));
        terminal.note(format_args!("{count}, {} sent in {took}, verified there", bytes(sent)));
    }
    Ok(())
}
