//! Where a fetched file goes: its name, what stands there, and how it gets there whole.

use std::fs::{self, File};
use std::io;
use std::os::fd::AsFd as _;
use std::path::{Path, PathBuf};

use keelboat_staging::redact;
use nix::errno::Errno;
use nix::fcntl::{AT_FDCWD, RenameFlags, renameat2};
use walkdir::WalkDir;

use crate::cli::exit::Exit;
use crate::cli::terminal::{bytes, counted};

#[derive(Debug, thiserror::Error)]
pub(super) enum PlaceError {
    #[error("{shown} does not end in a file name")]
    NoName { shown: String },
    #[error("{} is there already, and nothing tells that it came from this address", .0.display())]
    Exists(PathBuf),
    #[error("{} is there already, and is not as it came: it was changed since", .0.display())]
    Edited(PathBuf),
    #[error("{} is there already, and its source has changed since it came", .0.display())]
    Outdated(PathBuf),
    #[error("{} is there already, and is a directory", .0.display())]
    Directory(PathBuf),
    #[error("cannot {doing} {}: {source}", path.display())]
    Io { doing: &'static str, path: PathBuf, source: io::Error },
}

impl PlaceError {
    pub(super) fn hint(&self) -> String {
        match self {
            Self::NoName { .. } => "give the file a name: `-o FILE`".to_owned(),
            Self::Exists(_) => {
                "`--force` replaces it; another name keeps both (`-o FILE`; in a list after a tab); \
                 with `--sha256` it is enough that it holds that"
                    .to_owned()
            }
            Self::Edited(_) | Self::Outdated(_) => {
                "`--force` replaces it; another name keeps both (`-o FILE`; in a list after a tab)"
                    .to_owned()
            }
            Self::Directory(path) => format!(
                "a file takes no directory's place: `-d {}` puts it into that one, `-o FILE` gives \
                 it another name; if the address is a directory, end it with `/`",
                path.display()
            ),
            Self::Io { .. } => "what came so far is kept: the same command goes on".to_owned(),
        }
    }

    pub(super) fn exit(&self) -> Exit {
        match self {
            Self::Io { .. } => Exit::Broken,
            _ => Exit::BadInput,
        }
    }
}

fn failed(doing: &'static str, path: &Path) -> impl FnOnce(io::Error) -> PlaceError {
    let path = path.to_owned();
    move |source| PlaceError::Io { doing, path, source }
}

/// The last part of an address as a file name. It comes from outside: nothing that means a
/// directory, and nothing that a terminal obeys.
pub(super) fn name_of(address: &str) -> Result<String, PlaceError> {
    let path = match address.split_once("://") {
        _ if address.starts_with("data:") => "",
        _ if address.contains("!/") => address.rsplit_once("!/").map_or("", |(_, member)| member),
        Some((_, rest)) => {
            let rest = rest.split(['?', '#']).next().unwrap_or_default();
            rest.split_once('/').map_or("", |(_, path)| path)
        }
        None => address,
    };
    let last = path.rsplit('/').next().unwrap_or_default();
    let name = if address.contains("://") { decoded(last) } else { Some(last.to_owned()) };
    let harmless = |name: &String| {
        !matches!(name.as_str(), "" | "." | "..")
            && !name.contains(|c: char| c == '/' || c.is_control())
    };
    name.filter(harmless).ok_or_else(|| PlaceError::NoName { shown: redact(address) })
}

/// Replaces `%20` and the like; `None`: the bytes are no text.
fn decoded(text: &str) -> Option<String> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.bytes();
    while let Some(byte) = rest.next() {
        let mut ahead = rest.clone();
        let hex = |byte: u8| char::from(byte).to_digit(16);
        let pair = ahead.next().and_then(hex).zip(ahead.next().and_then(hex));
        match pair.filter(|_| byte == b'%') {
            Some((high, low)) => {
                bytes.push(u8::try_from(high * 16 + low).ok()?);
                rest = ahead;
            }
            None => bytes.push(byte),
        }
    }
    String::from_utf8(bytes).ok()
}

/// Where the bytes so far are kept: beside the output, so that the last step is a rename.
pub(super) fn partial_dir(output: &Path) -> PathBuf {
    directory_of(output).join(".keelboat-partial")
}

pub(super) fn directory_of(output: &Path) -> &Path {
    output
        .parent()
        .filter(|parent| !parent.as_os_str().is_empty())
        .unwrap_or_else(|| Path::new("."))
}

/// Moves a whole file or directory to its place at once, durably. Without `force`, what came to
/// stand there meanwhile stays.
pub(super) fn put(from: &Path, output: &Path, force: bool) -> Result<Option<String>, PlaceError> {
    let file = File::open(from).map_err(failed("open", from))?;
    let is_directory = file.metadata().is_ok_and(|metadata| metadata.is_dir());
    let synced = if is_directory {
        nix::unistd::syncfs(file.as_fd()).map_err(io::Error::from)
    } else {
        file.sync_all()
    };
    synced.map_err(failed("write", from))?;
    let replaced = move_to(from, output, force)?;
    let directory = directory_of(output);
    let synced = File::open(directory).and_then(|directory| directory.sync_all());
    synced.map_err(failed("write", directory))?;
    Ok(replaced)
}

/// Moves a whole file or directory to its place at once. Returns what it has replaced, in words.
pub(super) fn move_to(
    from: &Path,
    output: &Path,
    force: bool,
) -> Result<Option<String>, PlaceError> {
    make_parents(output)?;
    let old = if force { output.symlink_metadata().ok() } else { None };
    let Some(old) = old else { return place_new(from, output).map(|()| None) };
    let replaced = describe(output, &old);
    if from.is_dir() {
        place_directory(from, output)?;
    } else if old.is_dir() {
        return Err(PlaceError::Directory(output.to_owned()));
    } else {
        fs::rename(from, output).map_err(failed("write", output))?;
    }
    Ok(Some(replaced))
}

/// What stands there, for people.
fn describe(path: &Path, found: &fs::Metadata) -> String {
    if found.is_dir() {
        let (files, all) = count(path);
        return format!("a directory with {} ({})", counted(files, "file"), bytes(all));
    }
    if found.is_symlink() {
        return "a symbolic link".to_owned();
    }
    format!("a file of {}", bytes(found.len()))
}

/// Files below a directory, and their bytes. What cannot be seen is not counted.
pub(in crate::cli) fn count(directory: &Path) -> (u64, u64) {
    let entries = WalkDir::new(directory).into_iter().filter_map(Result::ok);
    let files = entries.filter(|entry| !entry.file_type().is_dir());
    files.fold((0, 0), |(files, all), entry| {
        (files + 1, all + entry.metadata().map_or(0, |found| found.len()))
    })
}

/// Mostly they are there.
fn make_parents(output: &Path) -> Result<(), PlaceError> {
    let parent = directory_of(output);
    if parent == Path::new(".") {
        return Ok(());
    }
    make_directory(parent)
}

pub(super) fn make_directory(path: &Path) -> Result<(), PlaceError> {
    fs::create_dir_all(path).map_err(failed("create", path))
}

/// What is there goes away after the new one has come.
fn place_directory(from: &Path, output: &Path) -> Result<(), PlaceError> {
    let old = from.with_extension("replaced");
    fs::rename(output, &old).map_err(failed("replace", output))?;
    fs::rename(from, output).map_err(failed("write", output))?;
    keelboat_staging::remove_tree(&old).map_err(|error| PlaceError::Io {
        doing: "remove",
        path: old,
        source: io::Error::other(error.to_string()),
    })
}

/// Without replacing anything; where the file system cannot promise that, a look has to do.
fn place_new(from: &Path, output: &Path) -> Result<(), PlaceError> {
    match renameat2(AT_FDCWD, from, AT_FDCWD, output, RenameFlags::RENAME_NOREPLACE) {
        Ok(()) => Ok(()),
        Err(Errno::EEXIST) => Err(PlaceError::Exists(output.to_owned())),
        Err(Errno::EINVAL | Errno::ENOSYS) if output.symlink_metadata().is_ok() => {
            Err(PlaceError::Exists(output.to_owned()))
        }
        Err(Errno::EINVAL | Errno::ENOSYS) => {
            fs::rename(from, output).map_err(failed("write", output))
        }
        Err(error) => Err(failed("write", output)(error.into())),
    }
}

/// The directory for partial files goes with the last one of them. Returns whether it is gone.
pub(super) fn remove_if_empty(directory: &Path) -> bool {
    let removed = fs::remove_dir(directory);
    if let Err(error) = &removed {
        tracing::debug!(%error, "the directory for partial files stays");
    }
    removed.is_ok() || directory.symlink_metadata().is_err()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_come_from_the_end_of_the_address_and_stay_harmless() {
        let named = |address: &str| name_of(address).ok();
        assert_eq!(named("https://h/a/b%20c.gz?token=x/y#z"), Some("b c.gz".into()));
        assert_eq!(named("/data/x.fa"), Some("x.fa".into()));
        assert_eq!(named("file:///data/100%.txt"), Some("100%.txt".into()));
        for bad in [
            "https://host",
            "https://h/",
            "https://h/..",
            "https://h/a%2Fb",
            "https://h/%2e%2e",
            "https://h/a%0Ab",
        ] {
            assert_eq!(named(bad), None, "{bad}");
        }
    }

    #[test]
    fn secrets_of_an_address_are_not_told() {
        let error = name_of("https://user:pw@h/?sig=abc").unwrap_err().to_string();
        assert!(!error.contains("pw") && !error.contains("abc"), "{error}");
    }
}
