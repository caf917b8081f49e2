//! Renaming and removing.

use keelboat_engine::Kind;

use super::address::below;
use super::listing::list;
use super::reply::Reply;
use super::session::Session;
use super::upload::make_parents;
use crate::protocol::{Depth, TransferError};

/// Gives what is at `from` the name `to`. Most servers replace what has that name in one step; for
/// the others it is removed first.
pub(super) async fn rename(
    session: &mut Session,
    from: &str,
    to: &str,
) -> Result<(), TransferError> {
    match try_rename(session, from, to).await? {
        Ok(()) => Ok(()),
        Err(reply) if is_in_the_way(&reply) => {
            remove(session, to).await?;
            try_rename(session, from, to).await?.map_err(|reply| reply.refusal())
        }
        Err(reply) => Err(reply.refusal()),
    }
}

/// Makes a directory with those above it. Whether it was refused because it is there is told by a
/// look at it, not by words.
pub(super) async fn make_directory(session: &mut Session, path: &str) -> Result<(), TransferError> {
    let path = path.trim_end_matches('/');
    make_parents(session, path).await?;
    match try_one(session, "MKD", path).await? {
        Ok(()) => Ok(()),
        Err(reply) => {
            list(session, path, Depth::One).await.map(drop).map_err(|_unlisted| reply.refusal())
        }
    }
}

async fn try_rename(
    session: &mut Session,
    from: &str,
    to: &str,
) -> Result<Result<(), Reply>, TransferError> {
    let reply = session.command(&format!("RNFR {from}")).await?;
    if reply.code != 350 {
        return Err(reply.refusal());
    }
    let reply = session.command(&format!("RNTO {to}")).await?;
    Ok(if reply.is_success() { Ok(()) } else { Err(reply) })
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
    let entries = match list(session, path, Depth::All).await {
        Ok(entries) => entries,
        Err(TransferError::Missing { .. }) => {
            // No directory: a file that cannot be removed, or nothing.
            let reply = session.command(&format!("SIZE {path}")).await?;
            return if reply.code == 213 { Err(refused.refusal()) } else { Ok(()) };
        }
        Err(error) => return Err(error),
    };
    // What is in a directory is listed after it.
    for entry in entries.iter().rev() {
        let command = if entry.kind == Kind::Directory { "RMD" } else { "DELE" };
        let removed = try_one(session, command, &below(path, &entry.path)).await?;
        removed.map_err(|reply| reply.refusal())?;
    }
    try_one(session, "RMD", path).await?.map_err(|reply| reply.refusal())
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
    fn only_what_is_in_the_way_is_removed() {
        let reply = |text: &str| Reply { code: 550, text: text.into() };
        for text in ["550 Target file already exists", "550 Rename b: Directory not empty"] {
            assert!(is_in_the_way(&reply(text)), "{text}");
        }
        for text in ["550 Permission denied", "550 No such file", "550 b does not exist"] {
            assert!(!is_in_the_way(&reply(text)), "{text}");
        }
    }
}
