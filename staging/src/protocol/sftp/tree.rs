//! Whole directories: what is in them, and away with them.
//!
//! A link to a file is that file, as for `scp -r`. A link to a directory is listed as a directory,
//! but nothing goes down into it: it may lead in a circle, or out of the tree.

use std::time::SystemTime;

use keelboat_engine::Kind;

use super::address::join;
use super::answer::{expect_ok, refusal};
use super::session::Session;
use super::version::Version;
use super::wire::{Attributes, Extension, Name, OK, Reply, Request};
use crate::protocol::{Depth, Entry, Renamed, TransferError};

/// Entries of one tree.
const ENTRIES_MAX: usize = 1_000_000;

/// Lists what is below a directory.
pub(super) async fn list(
    session: &mut Session,
    root: &[u8],
    depth: Depth,
) -> Result<Vec<Entry>, TransferError> {
    if !session.attributes(Request::stat(root)).await?.is_directory() {
        return Err(TransferError::Refused {
            found: "it is not a directory".into(),
            hint: "name the directory, or fetch the file by itself".into(),
        });
    }
    let mut entries = Vec::new();
    let mut open = vec![(root.to_vec(), String::new())];
    while let Some((directory, prefix)) = open.pop() {
        let names = session.names(&directory, ENTRIES_MAX - entries.len()).await?;
        let targets = follow(session, &directory, &names).await?;
        for (Name { name, attributes }, target) in names.into_iter().zip(targets) {
            // A link to nothing is nothing.
            let Some(target) = target else { continue };
            let text = text_of(&name)?;
            let path = if prefix.is_empty() { text } else { format!("{prefix}/{text}") };
            let modified = target.modified_at();
            if target.is_file() {
                let version = Version::of(&target)?;
                let validators = version.validators(SystemTime::now());
                let entry = Entry::file(path, Some(version.size), validators);
                entries.push(entry.modified_at(modified));
            } else if target.is_directory() {
                if depth == Depth::All && !attributes.is_directory() {
                    return Err(linked_directory(&path));
                }
                if depth == Depth::All {
                    open.push((join(&directory, &name), path.clone()));
                }
                entries.push(Entry::directory(path).modified_at(modified));
            }
        }
    }
    Ok(entries)
}

/// What each name leads to. Only links need to be asked for.
async fn follow(
    session: &mut Session,
    directory: &[u8],
    names: &[Name],
) -> Result<Vec<Option<Attributes>>, TransferError> {
    let is_clear = |one: &&Name| one.attributes.is_file() || one.attributes.is_directory();
    let unclear = names.iter().filter(|one| !is_clear(one));
    let requests = unclear.map(|one| Request::stat(&join(directory, &one.name))).collect();
    let mut replies = session.call_all(requests).await?.into_iter();
    let mut targets = Vec::with_capacity(names.len());
    for one in names {
        targets.push(if is_clear(&one) {
            Some(one.attributes)
        } else {
            match replies.next() {
                Some(Reply::Attributes(attributes)) => Some(attributes),
                _ => None,
            }
        });
    }
    Ok(targets)
}

fn text_of(name: &[u8]) -> Result<String, TransferError> {
    std::str::from_utf8(name).map(str::to_owned).map_err(|_not_utf8| TransferError::Refused {
        found: format!(
            "the directory holds {:?}, which is not UTF-8",
            name.escape_ascii().to_string()
        ),
        hint: "rename it at its source, or name each file".into(),
    })
}

fn linked_directory(path: &str) -> TransferError {
    TransferError::Refused {
        found: format!("{path:?} is a link to a directory"),
        hint: "put the directory itself in its place, or name it as an input of its own".into(),
    }
}

/// Removes a file, a link, or a directory with all below it.
pub(super) async fn remove(session: &mut Session, path: &[u8]) -> Result<(), TransferError> {
    match session.attributes(Request::lstat(path)).await {
        Ok(attributes) if attributes.is_directory() => remove_directory(session, path).await,
        Ok(_) => gone(session.call(Request::remove(path)).await?),
        Err(TransferError::Missing { .. }) => Ok(()),
        Err(error) => Err(error),
    }
}

async fn remove_directory(session: &mut Session, root: &[u8]) -> Result<(), TransferError> {
    let mut directories = Vec::new();
    let mut open = vec![root.to_vec()];
    while let Some(directory) = open.pop() {
        let mut files = Vec::new();
        for Name { name, attributes } in session.names(&directory, ENTRIES_MAX).await? {
            let path = join(&directory, &name);
            // What the server does not say must be asked for: links are never gone into.
            let attributes = match attributes.mode {
                Some(_) => attributes,
                None => session.attributes(Request::lstat(&path)).await?,
            };
            if attributes.is_directory() {
                open.push(path);
            } else {
                files.push(Request::remove(&path));
            }
        }
        for reply in session.call_all(files).await? {
            gone(reply)?;
        }
        directories.push(directory);
        if directories.len() + open.len() > ENTRIES_MAX {
            return Err(TransferError::Refused {
                found: format!("there are more than {ENTRIES_MAX} directories below it"),
                hint: "remove it by other means".into(),
            });
        }
    }
    // The last ones are the lowest.
    for directory in directories.iter().rev() {
        gone(session.call(Request::rmdir(directory)).await?)?;
    }
    Ok(())
}

/// What somebody else has removed meanwhile is removed.
fn gone(reply: Reply) -> Result<(), TransferError> {
    match expect_ok(reply) {
        Err(TransferError::Missing { .. }) => Ok(()),
        result => result,
    }
}

/// What has a name in the end.
pub(super) async fn kind(
    session: &mut Session,
    path: &[u8],
) -> Result<Option<Kind>, TransferError> {
    match session.attributes(Request::stat(path)).await {
        Ok(attributes) if attributes.is_directory() => Ok(Some(Kind::Directory)),
        Ok(_) => Ok(Some(Kind::File)),
        Err(TransferError::Missing { .. }) => Ok(None),
        Err(error) => Err(error),
    }
}

/// Gives what is at one path another one, with the directories above it. Nothing is removed for it
/// but a file that the server replaces by a file in one step.
pub(super) async fn rename(
    session: &mut Session,
    from: &[u8],
    to: &[u8],
) -> Result<Renamed, TransferError> {
    let replaces = session.offers.has(Extension::PosixRename);
    let request = || {
        if replaces { Request::posix_rename(from, to) } else { Request::rename(from, to) }
    };
    let refused = match session.call(request()).await? {
        Reply::Status { code: OK, .. } => return Ok(Renamed::Done),
        // A full disk, something that is busy, something in the way: SFTP has one word for them.
        reply @ Reply::Status { code: 2 | 4 | 11 | 18 | 19 | 24, .. } => refusal(reply),
        other => return Err(refusal(other)),
    };
    let new = session.attributes(Request::lstat(from)).await?;
    match session.attributes(Request::lstat(to)).await {
        Ok(old) if replaces && !old.is_directory() && !new.is_directory() => Err(refused),
        Ok(_) => Ok(Renamed::InTheWay(refused)),
        Err(TransferError::Missing { .. }) => {
            super::write::make_parents(session, to).await?;
            expect_ok(session.call(request()).await?).map(|()| Renamed::Done)
        }
        Err(error) => Err(error),
    }
}
