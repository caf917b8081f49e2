//! Directories: file by file, some at once. Where the server can rename, all of it is written
//! beside its place and shows at once; in buckets and over HTTP each file shows when it is whole.
//!
//! Links are sent as the files that they lead to. Directories without anything in them are made where
//! a server has directories to make; a bucket has none, and over HTTP nobody says whether it has.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use futures_util::stream::{self, StreamExt as _, TryStreamExt as _};
use keelboat_engine::{Content, Kind};
use walkdir::WalkDir;

use super::{Way, at_home, beside, of_file};
use crate::address::child_address;
use crate::local::{Delivered, Forgetful, LocalError, digest_path};
use crate::protocol::{BoxFuture, Depth, ListRequest, TransferError, Writing};

/// Files of one directory that are sent at once; limits of hosts hold besides.
const FILES_AT_ONCE_MAX: usize = 8;

pub(super) async fn send(way: &Way<'_>, writing: Writing) -> Result<Delivered, TransferError> {
    let source = way.delivery.source.clone();
    let tree = crate::fetch::blocking(move || tree_of(&source)).await;
    let Tree { files, empty } = tree.and_then(|tree| tree).map_err(|error| at_home(&error))?;
    if files.is_empty() && writing != Writing::Renamed {
        return Err(TransferError::Refused {
            found: "the directory has no file in it, and only files are sent there".into(),
            hint: "write a file into it, or declare it `optional = true`".into(),
        });
    }
    let address = &way.delivery.address;
    let root: Arc<str> = match writing {
        Writing::Renamed => beside(address, &way.delivery.content.digest).into(),
        Writing::Whole | Writing::Never => Arc::clone(address),
    };
    if writing == Writing::Renamed {
        let is_there =
            all_there(way, &files, address).await? && all_made(way, &empty, address).await;
        if is_there {
            return Ok(Delivered::AlreadyThere);
        }
        for below in &empty {
            make(way, &address_of(&root, below)).await?;
        }
    }
    let mut sends: Vec<BoxFuture<'_, Result<Delivered, TransferError>>> = Vec::new();
    for file in &files {
        sends.push(Box::pin(send_file(way, file, &root)));
    }
    let sent = stream::iter(sends).buffer_unordered(FILES_AT_ONCE_MAX);
    let sent: Vec<Delivered> = sent.try_collect().await?;
    if writing == Writing::Renamed {
        put_in_place(way, &root).await?;
        return Ok(Delivered::Copied);
    }
    let is_news = sent.contains(&Delivered::Copied);
    Ok(if is_news { Delivered::Copied } else { Delivered::AlreadyThere })
}

/// One file of the directory.
struct Member {
    path: PathBuf,
    below: String,
    content: Content,
}

/// What is to be sent.
struct Tree {
    files: Vec<Member>,
    /// Directories with nothing in them.
    empty: Vec<String>,
}

fn tree_of(root: &Path) -> Result<Tree, LocalError> {
    let (mut files, mut empty) = (Vec::new(), Vec::new());
    for entry in WalkDir::new(root).follow_links(true).sort_by_file_name() {
        let entry = entry.map_err(|error| LocalError::io("list", root, error.into()))?;
        let below = entry.path().strip_prefix(root).ok().and_then(Path::to_str);
        let Some(below) = below.map(str::to_owned) else {
            let error = std::io::Error::other("its name is not UTF-8, so it has no address");
            return Err(LocalError::io("send", entry.path(), error));
        };
        if entry.file_type().is_dir() {
            let listed = std::fs::read_dir(entry.path());
            let listed = listed.map_err(|error| LocalError::io("list", entry.path(), error))?;
            if listed.count() == 0 {
                empty.push(below);
            }
            continue;
        }
        let content = digest_path(entry.path(), Kind::File, &Forgetful, true)?;
        files.push(Member { path: entry.path().to_owned(), below, content });
    }
    Ok(Tree { files, empty })
}

/// The address of what is below a directory, or of the directory itself.
fn address_of(root: &str, below: &str) -> String {
    if below.is_empty() { root.to_owned() } else { child_address(root, below) }
}

async fn make(way: &Way<'_>, address: &str) -> Result<(), TransferError> {
    let mut tries = way.tries(address);
    while let Err(error) = way.protocol.make_directory(address).await {
        tries.wait(error).await?;
    }
    Ok(())
}

/// Whether these directories are in their places. Where nobody can tell, they are not.
async fn all_made(way: &Way<'_>, directories: &[String], root: &str) -> bool {
    for below in directories {
        let address = address_of(root, below).into();
        if way.protocol.list(&ListRequest { address, depth: Depth::One }).await.is_err() {
            return false;
        }
    }
    true
}

async fn send_file(
    way: &Way<'_>,
    file: &Member,
    root: &Arc<str>,
) -> Result<Delivered, TransferError> {
    let address = child_address(root, &file.below);
    let delivery = of_file(way.delivery, &file.path, file.content, address);
    let way = Way { delivery: &delivery, ..*way };
    way.send_whole(&delivery.address).await
}

/// Whether every file is in its place already. Others may be there, too.
async fn all_there(way: &Way<'_>, files: &[Member], root: &str) -> Result<bool, TransferError> {
    for file in files {
        let delivery =
            of_file(way.delivery, &file.path, file.content, child_address(root, &file.below));
        let way = Way { delivery: &delivery, ..*way };
        if !way.is_there(&delivery.address).await? {
            return Ok(false);
        }
    }
    Ok(true)
}

/// A directory that is there goes away first: for that moment there is none.
async fn put_in_place(way: &Way<'_>, root: &str) -> Result<(), TransferError> {
    let address = &way.delivery.address;
    let mut tries = way.tries(address);
    while let Err(error) = way.protocol.remove(address).await {
        tries.wait(error).await?;
    }
    way.rename(root, address).await
}
