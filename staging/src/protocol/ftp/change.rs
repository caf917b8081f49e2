//! Renaming and removing.

use keelboat_engine::Kind;

use super::address::below;
use super::listing::{Named, enter, home, names};
use super::reply::Reply;
use super::session::Session;
use super::upload::make_parents;
use crate::protocol::{Renamed, TransferError};

/// Directories of one tree that is removed.
const DIRECTORIES_MAX: usize = 1_000_000;

/// What has a name in the end. Only a directory can be entered, and only a file has a length.
pub(super) async fn kind(session: &mut Session, path: &str) -> Result<Option<Kind>, TransferError> {
    let home = home(session).await?;
    match enter(session, if path.is_empty() { "." } else { path }).await {
        Ok(()) => {
            enter(session, &home).await?;
            Ok(Some(Kind::Directory))
        }
        Err(TransferError::Missing { .. }) => {
            let reply = session.command(&format!("SIZE {path}")).await?;
            Ok((reply.code == 213).then_some(Kind::File))
        }
        Err(error) => Err(error),
    }
}

/// Gives what is at `from` the name `to`. Nothing is removed for it but a file that the server
/// replaces by a file in one step, as most do.
pub(super) async fn rename(
    session: &mut Session,
    from: &str,
    to: &str,
) -> Result<Renamed, TransferError> {
    let reply = session.command(&format!("RNFR {from}")).await?;
    if reply.code != 350 {
        return Err(reply.refusal());
    }
    let reply = session.command(&format!("RNTO {to}")).await?;
    if reply.is_success() {
        return Ok(Renamed::Done);
    }
    let refused = reply.refusal();
    // Some servers say no more than that it failed. No server puts anything over a directory.
    let is_in_the_way = is_in_the_way(&reply)
        || (!refused.is_retryable() && kind(session, to).await? == Some(Kind::Directory));
    if is_in_the_way { Ok(Renamed::InTheWay(refused)) } else { Err(refused) }
}

/// Makes a directory with those above it. Whether it was refused because it is there is told by a
/// look at it, not by words.
pub(super) async fn make_directory(session: &mut Session, path: &str) -> Result<(), TransferError> {
    let path = path.trim_end_matches('/');
    make_parents(session, path).await?;
    match try_one(session, "MKD", path).await? {
        Ok(()) => Ok(()),
        Err(_) if kind(session, path).await? == Some(Kind::Directory) => Ok(()),
        Err(reply) => Err(reply.refusal()),
    }
}

/// Whether a name was refused because something has it.
fn is_in_the_way(reply: &Reply) -> bool {
    let is_absent = ["no such", "not exist", "n't exist"].iter().any(|words| reply.says(words));
    let words = ["exist", "not empty", "is a directory", "not a directory"];
    !is_absent && words.iter().any(|words| reply.says(words))
}

/// Removes a file, or a directory with all below it. What is not there is no error.
pub(super) async fn remove(session: &mut Session, path: &str) -> Result<(), TransferError> {
    let refused = match try_one(session, "DELE", path).await? {
        Ok(()) => return Ok(()),
        Err(reply) => reply,
    };
    if try_one(session, "RMD", path).await?.is_ok() {
        return Ok(());
    }
    let inside = match names(session, path).await {
        Ok(inside) => inside,
        Err(TransferError::Missing { .. }) => {
            // No directory: a file that cannot be removed, or nothing.
            let reply = session.command(&format!("SIZE {path}")).await?;
            return if reply.code == 213 { Err(refused.refusal()) } else { Ok(()) };
        }
        Err(error) => return Err(error),
    };
    let mut directories = vec![path.to_owned()];
    let mut open = remove_files(session, path, inside).await?;
    while let Some(directory) = open.pop() {
        let inside = names(session, &directory).await?;
        open.extend(remove_files(session, &directory, inside).await?);
        directories.push(directory);
        if directories.len() + open.len() > DIRECTORIES_MAX {
            return Err(TransferError::Refused {
                found: format!("there are more than {DIRECTORIES_MAX} directories below it"),
                hint: "remove it by other means".into(),
            });
        }
    }
    // The last ones are the lowest.
    for directory in directories.iter().rev() {
        try_one(session, "RMD", directory).await?.map_err(|reply| stays(&reply))?;
    }
    Ok(())
}

/// Removes what is in a directory, and says which directories are.
async fn remove_files(
    session: &mut Session,
    directory: &str,
    inside: Vec<Named>,
) -> Result<Vec<String>, TransferError> {
    let mut directories = Vec::new();
    for Named { name, is_directory } in inside {
        let path = below(directory, &name);
        // Some servers list a link to a directory as one: it goes, and is not gone into.
        match try_one(session, "DELE", &path).await? {
            Ok(()) => {}
            Err(_) if is_directory => directories.push(path),
            Err(refused) => return Err(stays(&refused)),
        }
    }
    Ok(directories)
}

/// What was listed is there: a refusal does not say that it is missing.
fn stays(reply: &Reply) -> TransferError {
    match reply.refusal() {
        TransferError::Missing { found } => TransferError::Refused {
            found,
            hint: "the server may hide what is still in it: remove it by other means".into(),
        },
        error => error,
    }
}

async fn try_one(
    session: &mut Session,
    command: &str,
    path: &str,
) -> Result<Result<(), Reply>, TransferError> {
    let reply = session.command(&format!("{command} {path}")).await?;
    Ok(if reply.is_success() { Ok(()) } else { Err(reply) })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_has_the_name_is_in_the_way() {
        let reply = |text: &str| Reply { code: 550, text: text.into() };
        for text in ["550 Target file already exists", "550 Rename b: Directory not empty"] {
            assert!(is_in_the_way(&reply(text)), "{text}");
        }
        for text in ["550 Permission denied", "550 No such file", "550 b does not exist"] {
            assert!(!is_in_the_way(&reply(text)), "{text}");
        }
    }
}
