//! Looking after the cache: how much it holds, whether it is whole, what can go.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, Metadata};
use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use keelboat_engine::{Digest, Timestamp};

use super::recency::{now, timestamp};
use super::{ObjectCache, ObjectError, place, tree};
use crate::error::IoContext as _;
use crate::files;
use crate::journal::Damage;

/// How much the cache holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct CacheStats {
    /// Files.
    pub objects: u64,
    /// Directories.
    pub trees: u64,
    /// Bytes of all of them.
    pub bytes: u64,
    /// Bytes of those that are published outputs, too (hard links): they cost nothing extra.
    pub bytes_shared: u64,
    /// Damaged objects that were set aside.
    pub damaged: u64,
}

/// An object that is not what its name says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BadObject {
    /// What it should have been.
    pub digest: Digest,
    /// Where it is now.
    pub quarantined: PathBuf,
    /// What is wrong with it.
    pub what: String,
}

/// What [`ObjectCache::verify`] found.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct VerifyReport {
    /// Objects that were read.
    pub objects: u64,
    /// Bytes that were read.
    pub bytes: u64,
    /// Those that were damaged.
    pub bad: Vec<BadObject>,
    /// Directories of which a file is not there any more.
    pub incomplete: Vec<Digest>,
}

/// What may go.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct GcPolicy {
    /// The most bytes that the cache may occupy by itself; the least recently used go first.
    pub bytes_max: Option<u64>,
    /// What was not used for this long goes in any case.
    pub keep: Option<Duration>,
    /// Only say what would go.
    pub dry_run: bool,
}

/// What [`ObjectCache::gc`] did, or would do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct GcReport {
    /// Objects and directories before.
    pub objects: u64,
    /// Bytes of them before.
    pub bytes: u64,
    /// Those that went.
    pub removed: u64,
    /// Their bytes.
    pub bytes_removed: u64,
    /// Bytes that the disk got back.
    pub bytes_freed: u64,
    /// Bytes that went from the cache but stay on the disk, as published outputs (hard links).
    pub bytes_shared: u64,
    /// Objects that would have gone but are in use by an unfinished run.
    pub kept_in_use: u64,
}

/// One object as the folder shows it.
#[derive(Debug)]
struct Item {
    path: PathBuf,
    digest: Digest,
    is_tree: bool,
    bytes: u64,
    shared: bool,
    last_used: Timestamp,
}

impl ObjectCache {
    /// How much the cache holds.
    ///
    /// # Errors
    /// When its folders cannot be read.
    pub fn stats(&self) -> Result<CacheStats, ObjectError> {
        let mut stats = CacheStats::default();
        for item in self.items()? {
            let count = if item.is_tree { &mut stats.trees } else { &mut stats.objects };
            *count += 1;
            stats.bytes += item.bytes;
            stats.bytes_shared += if item.shared { item.bytes } else { 0 };
        }
        let damaged = fs::read_dir(&self.damaged).map_or(0, Iterator::count);
        stats.damaged = damaged as u64;
        Ok(stats)
    }

    /// Reads every object again. Damaged ones are set aside and named.
    ///
    /// # Errors
    /// When the cache cannot be read.
    pub fn verify(&self) -> Result<VerifyReport, ObjectError> {
        let mut report = VerifyReport::default();
        let mut trees = Vec::new();
        for item in self.items()? {
            report.objects += 1;
            report.bytes += item.bytes;
            let checked = if item.is_tree {
                trees.push(item.digest);
                self.manifest(&item.digest).map(drop)
            } else {
                self.read_again(&item)
            };
            match checked {
                Err(ObjectError::Damaged { digest, quarantined, what }) => {
                    report.bad.push(BadObject { digest, quarantined, what });
                }
                checked => checked?,
            }
        }
        for digest in trees {
            let entries = self.manifest(&digest).ok().flatten().unwrap_or_default();
            if tree::files_of(&entries).any(|file| !self.path_of(&file).exists()) {
                report.incomplete.push(digest);
            }
        }
        Ok(report)
    }

    /// What is damaged in the notes on when objects were used.
    pub fn damaged_notes(&self) -> Vec<Damage> {
        self.recency().damaged()
    }

    /// Writes the notes on when objects were used anew, without what is damaged in them.
    ///
    /// # Errors
    /// When they cannot be written.
    pub fn mend_notes(&self) -> Result<(), ObjectError> {
        let mut recency = self.recency();
        let all = recency.all();
        Ok(recency.write(&all)?)
    }

    /// Sets a directory aside of which files are missing, so that it is made or kept anew. Returns
    /// where its list of files is now.
    pub fn set_aside(&self, directory: &Digest) -> PathBuf {
        self.move_aside(directory, &self.manifest_path(directory), "files of it are missing")
    }

    /// Removes what the policy does not keep, the least recently used first; never what is in
    /// `in_use` (outputs and inputs of unfinished runs), nor the files of directories in it.
    /// A removed object that is a published output, too, frees nothing and counts as shared.
    ///
    /// # Errors
    /// When the cache cannot be read or written.
    pub fn gc(
        &self,
        policy: &GcPolicy,
        in_use: &BTreeSet<Digest>,
    ) -> Result<GcReport, ObjectError> {
        let in_use = self.with_files_of_trees(in_use)?;
        let mut items = self.items()?;
        items.sort_by_key(|item| (item.last_used, item.digest));
        let mut report = GcReport { objects: items.len() as u64, ..GcReport::default() };
        report.bytes = items.iter().map(|item| item.bytes).sum();
        let own = items.iter().filter(|item| !item.shared);
        let mut occupied: u64 = own.map(|item| item.bytes).sum();
        let now = now();
        let mut gone = BTreeSet::new();
        for item in &items {
            let old = policy.keep.is_some_and(|keep| now.since(item.last_used) > keep);
            let too_much = policy.bytes_max.is_some_and(|max| occupied > max) && !item.shared;
            if !old && !too_much {
                continue;
            }
            if in_use.contains(&item.digest) {
                report.kept_in_use += 1;
                continue;
            }
            if !policy.dry_run {
                self.remove(&item.path)?;
                gone.insert(item.digest);
            }
            report.removed += 1;
            report.bytes_removed += item.bytes;
            if item.shared {
                report.bytes_shared += item.bytes;
            } else {
                report.bytes_freed += item.bytes;
                occupied -= item.bytes;
            }
        }
        if !gone.is_empty() {
            self.forget(&gone)?;
        }
        Ok(report)
    }

    fn read_again(&self, item: &Item) -> Result<(), ObjectError> {
        let found = place::hash_file(&item.path, &self.digests)?;
        if found == item.digest {
            return Ok(());
        }
        Err(self.quarantine(&item.digest, &item.path, &format!("it holds {found}")))
    }

    fn with_files_of_trees(
        &self,
        digests: &BTreeSet<Digest>,
    ) -> Result<BTreeSet<Digest>, ObjectError> {
        let mut all = digests.clone();
        for digest in digests {
            match self.manifest(digest) {
                Err(ObjectError::Damaged { .. }) => {}
                entries => all.extend(tree::files_of(&entries?.unwrap_or_default())),
            }
        }
        Ok(all)
    }

    fn forget(&self, gone: &BTreeSet<Digest>) -> Result<(), ObjectError> {
        let mut recency = self.recency();
        let mut all = recency.all();
        all.retain(|digest, _| !gone.contains(digest));
        Ok(recency.write(&all)?)
    }

    /// All objects, in the order of their names. Left-over temporary files are removed.
    fn items(&self) -> Result<Vec<Item>, ObjectError> {
        let used = self.recency().all();
        let mut items = Vec::new();
        for shard in folder_entries(&self.root)?.into_iter().filter(|path| path.is_dir()) {
            for path in folder_entries(&shard)? {
                let metadata = match fs::symlink_metadata(&path) {
                    Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
                    metadata => metadata.doing("look at", &path)?,
                };
                match named_digest(&shard, &path) {
                    Some((digest, is_tree)) => {
                        items.push(item(path, &metadata, digest, is_tree, &used));
                    }
                    None => remove_left_over(&path, &metadata),
                }
            }
        }
        Ok(items)
    }
}

fn item(
    path: PathBuf,
    metadata: &Metadata,
    digest: Digest,
    is_tree: bool,
    used: &BTreeMap<Digest, Timestamp>,
) -> Item {
    let never_used = || timestamp(metadata.modified());
    Item {
        path,
        digest,
        is_tree,
        bytes: metadata.len(),
        shared: metadata.nlink() > 1,
        last_used: used.get(&digest).copied().unwrap_or_else(never_used),
    }
}

fn folder_entries(folder: &Path) -> Result<Vec<PathBuf>, ObjectError> {
    let mut entries = Vec::new();
    for entry in fs::read_dir(folder).doing("read the folder", folder)? {
        entries.push(entry.doing("read the folder", folder)?.path());
    }
    entries.sort();
    Ok(entries)
}

/// The digest that a path in the cache stands for, and whether it is a directory's.
fn named_digest(shard: &Path, path: &Path) -> Option<(Digest, bool)> {
    let (shard, name) = (shard.file_name()?.to_str()?, path.file_name()?.to_str()?);
    let (rest, is_tree) = match name.strip_suffix(".tree") {
        Some(rest) => (rest, true),
        None => (name, false),
    };
    let hex = format!("{shard}{rest}");
    Some((hex.parse().ok()?, is_tree))
}

/// Temporary files of a process that died; a day old, so that no live one loses its own.
fn remove_left_over(path: &Path, metadata: &Metadata) {
    const DAY_MS: Duration = Duration::from_hours(24);
    let name = path.file_name().map(|name| name.to_string_lossy().into_owned());
    let temporary = name.is_some_and(|name| name.starts_with(".keelboat-"));
    if temporary && now().since(timestamp(metadata.modified())) > DAY_MS {
        files::discard(path);
    }
}
