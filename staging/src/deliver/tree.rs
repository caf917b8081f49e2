//! Directories: file by file, some at once. Where the server can rename, all of it is written
//! beside its place and shows at once; in buckets and over HTTP each file shows when it is whole.
//!
//! Links are sent as the files that they lead to. Directories without anything in them are made where
//! a server has directories to make; a bucket has none, and over HTTP nobody says whether it has.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use futures_util::stream::{self, StreamExt as _, TryStreamExt as _};
use keelboat_engine::{Content, Kind};
use walkdir::WalkDir;

use super::place::Sign;
use super::standing::{TreeStanding, is_whole_place};
use super::{Delivery, Over, Way, at_home, beside, of_file};
use crate::address::child_address;
use crate::local::{Delivered, Forgetful, LocalError, digest_path};
use crate::protocol::{BoxFuture, TransferError, Writing};

/// Files of one directory that are sent at once; limits of hosts hold besides.
const FILES_AT_ONCE_MAX: usize = 8;

pub(super) async fn send(way: &Way<'_>, writing: Writing) -> Result<Delivered, TransferError> {
    let source = way.delivery.source.clone();
    let tree = crate::fetch::blocking(move || tree_of(&source)).await;
    let tree = tree.and_then(|tree| tree).map_err(|error| at_home(&error))?;
    if tree.files.is_empty() && writing != Writing::Renamed {
        return Err(TransferError::Refused {
            found: "the directory has no file in it, and only files are sent there".into(),
            hint: "write a file into it, or declare it `optional = true`".into(),
        });
    }
    if writing == Writing::Renamed {
        way.occupant().await?;
    }
    let standing = match way.delivery.over {
        Over::Same => None,
        Over::Nothing | Over::All => Some(give_way(way, &tree.files, writing).await?),
    };
    match (writing, standing) {
        (Writing::Renamed, standing) => send_at_once(way, &tree, standing).await,
        (_, standing) => send_one_by_one(way, &tree.files, standing.unwrap_or_default()).await,
    }
}

/// Sees what is there, and whether it makes way.
async fn give_way(
    way: &Way<'_>,
    files: &[Member],
    writing: Writing,
) -> Result<TreeStanding, TransferError> {
    let standing = way.tree_standing(files, writing).await?;
    let Some(other) = standing.other() else { return Ok(standing) };
    way.delivery.over(&other)?;
    if is_whole_place(&way.delivery.address) {
        return Err(TransferError::Occupied {
            found: other,
            hint: "a whole bucket, server or home is not replaced: name a directory in it".into(),
        });
    }
    Ok(standing)
}

/// Written beside its place, so that all of it shows at once.
async fn send_at_once(
    way: &Way<'_>,
    tree: &Tree,
    standing: Option<TreeStanding>,
) -> Result<Delivered, TransferError> {
    let address = &way.delivery.address;
    let have_come = match &standing {
        Some(standing) => standing.others.is_empty() && standing.same.len() == tree.files.len(),
        None => tree.have_come(way, address).await?,
    };
    if have_come && tree.are_made(way, address).await? {
        return Ok(Delivered::AlreadyThere);
    }
    let root: Arc<str> = beside(address, &way.delivery.content.digest).into();
    for below in &tree.empty {
        make(way, &address_of(&root, below)).await?;
    }
    send_files(way, tree.files.iter(), &root).await?;
    way.put_in_place(&root, Sign::Tree(tree)).await?;
    Ok(Delivered::Copied)
}

/// Each file shows when it is whole; what else is there goes when all have come.
async fn send_one_by_one(
    way: &Way<'_>,
    files: &[Member],
    standing: TreeStanding,
) -> Result<Delivered, TransferError> {
    let address = &way.delivery.address;
    let TreeStanding { same, others, .. } = standing;
    if others.contains("") {
        way.remove(address).await?;
    }
    let missing = files.iter().filter(|file| !same.contains(&file.below));
    let sent = send_files(way, missing, address).await?;
    let mut is_news = sent.contains(&Delivered::Copied);
    let names: BTreeSet<&str> = files.iter().map(|file| &*file.below).chain([""]).collect();
    for other in others.iter().filter(|other| !names.contains(other.as_str())) {
        way.remove(&child_address(address, other)).await?;
        is_news = true;
    }
    Ok(if is_news { Delivered::Copied } else { Delivered::AlreadyThere })
}

async fn send_files(
    way: &Way<'_>,
    files: impl Iterator<Item = &Member>,
    root: &Arc<str>,
) -> Result<Vec<Delivered>, TransferError> {
    let mut sends: Vec<BoxFuture<'_, Result<Delivered, TransferError>>> = Vec::new();
    for file in files {
        sends.push(Box::pin(send_file(way, file, root)));
    }
    stream::iter(sends).buffer_unordered(FILES_AT_ONCE_MAX).try_collect().await
}

/// One file of the directory.
pub(super) struct Member {
    pub(super) path: PathBuf,
    /// Its path below the directory.
    pub(super) below: String,
    pub(super) content: Content,
}

/// What is to be sent.
pub(super) struct Tree {
    files: Vec<Member>,
    /// Directories with nothing in them.
    empty: Vec<String>,
}

impl Tree {
    /// Whether all of it is in its place. Others may be there, too.
    pub(super) async fn is_whole(&self, way: &Way<'_>, root: &str) -> Result<bool, TransferError> {
        Ok(self.have_come(way, root).await? && self.are_made(way, root).await?)
    }

    async fn have_come(&self, way: &Way<'_>, root: &str) -> Result<bool, TransferError> {
        for file in &self.files {
            let address = child_address(root, &file.below);
            let delivery = of_file(way.delivery, &file.path, file.content, address);
            let way = Way { delivery: &delivery, ..*way };
            if !way.is_there(&delivery.address).await? {
                return Ok(false);
            }
        }
        Ok(true)
    }

    async fn are_made(&self, way: &Way<'_>, root: &str) -> Result<bool, TransferError> {
        for below in &self.empty {
            if way.kind(&address_of(root, below)).await? != Some(Kind::Directory) {
                return Ok(false);
            }
        }
        Ok(true)
    }
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

async fn send_file(
    way: &Way<'_>,
    file: &Member,
    root: &Arc<str>,
) -> Result<Delivered, TransferError> {
    let address = child_address(root, &file.below);
    let delivery = of_file(way.delivery, &file.path, file.content, address);
    // What makes way was decided for the whole directory.
    let delivery = Delivery { over: Over::Same, ..delivery };
    let way = Way { delivery: &delivery, ..*way };
    way.send_whole(&delivery.address).await
}
