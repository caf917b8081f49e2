//! `keelboat ls`: what is in a directory or an archive that is elsewhere.

use std::path::Path;

use keelboat_engine::Kind;
use keelboat_staging::{Depth, Entry, is_address};
use serde::Serialize;

use super::args::LsArgs;
use super::exit::Exit;
use super::past::print_json;
use super::staging::{MoveError, Session};
use super::terminal::{Terminal, plain};

pub(super) fn ls(args: &LsArgs, terminal: &Terminal) -> Exit {
    match list(args) {
        Ok(None) => Exit::Interrupted,
        Ok(Some(entries)) if args.json => {
            print_json(&entries.iter().map(Line::of).collect::<Vec<_>>(), terminal);
            Exit::Success
        }
        Ok(Some(entries)) => {
            for entry in &entries {
                let name = plain(&entry.path);
                match (entry.kind, entry.length) {
                    (Kind::Directory, _) => terminal.line(format_args!("{:>14}  {name}/", "-")),
                    (Kind::File, Some(length)) => {
                        terminal.line(format_args!("{length:>14}  {name}"));
                    }
                    (Kind::File, None) => terminal.line(format_args!("{:>14}  {name}", "?")),
                }
            }
            Exit::Success
        }
        Err(error) => {
            terminal.error(&error, error.hint().as_deref());
            error.exit()
        }
    }
}

/// `None`: the user wants it to stop.
fn list(args: &LsArgs) -> Result<Option<Vec<Entry>>, MoveError> {
    let session = Session::begin(&crate::settings::state_directory(), None)?;
    let depth = if args.recursive { Depth::All } else { Depth::One };
    let address = if is_address(&args.url) {
        args.url.clone()
    } else {
        std::path::absolute(Path::new(&args.url))?.display().to_string()
    };
    let listed = session.until_stopped(session.stager.list(&address, depth));
    session.stager.discard_archives();
    session.end();
    listed.transpose().map_err(MoveError::from)
}

/// One entry for programs.
#[derive(Serialize)]
struct Line<'a> {
    path: &'a str,
    kind: &'static str,
    bytes: Option<u64>,
    etag: Option<&'a str>,
    last_modified: Option<&'a str>,
}

impl<'a> Line<'a> {
    fn of(entry: &'a Entry) -> Self {
        Self {
            path: &entry.path,
            kind: match entry.kind {
                Kind::File => "file",
                Kind::Directory => "directory",
            },
            bytes: entry.length,
            etag: entry.validators.etag.as_deref(),
            last_modified: entry.validators.last_modified.as_deref(),
        }
    }
}
