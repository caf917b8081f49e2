//! Where members of an archive go, and what of them may go there.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsStr;
use std::fs::{self, File, Permissions};
use std::io::{self, Read};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};

use keelboat_engine::Kind;

use super::{MEMBERS_MAX, local};
use crate::local::leads_inside;
use crate::protocol::TransferError;

/// What a member is.
pub(super) enum Node<'a> {
    Directory,
    File { executable: bool, bytes: &'a mut dyn Read },
    Link(&'a [u8]),
    HardLink(&'a [u8]),
    Special,
}

/// Takes what is wanted of an archive, member by member.
pub(super) struct Target<'a> {
    member: &'a [u8],
    kind: Kind,
    root: &'a Path,
    bytes_left: u64,
    members: usize,
    found: bool,
    /// Where the wanted file is, when it is a link.
    elsewhere: Option<Vec<u8>>,
    /// Made at the end, so that no member is written through one.
    links: BTreeMap<Vec<u8>, Vec<u8>>,
    files: BTreeSet<Vec<u8>>,
}

impl<'a> Target<'a> {
    /// `member` is normal; nothing is at `root`.
    pub(super) fn new(member: &'a [u8], kind: Kind, root: &'a Path, bytes_max: u64) -> Self {
        Self {
            member,
            kind,
            root,
            bytes_left: bytes_max,
            members: 0,
            found: false,
            elsewhere: None,
            links: BTreeMap::new(),
            files: BTreeSet::new(),
        }
    }

    /// Whether a member of this name, which is given as it stands and as [`normal`] has it, is
    /// wanted.
    ///
    /// # Errors
    /// It is wanted, and its name leads out of the archive.
    pub(super) fn wants(&self, name: &[u8], normal: Option<&[u8]>) -> Result<bool, TransferError> {
        match normal {
            Some(name) => Ok(name == self.member || is_below(name, self.member)),
            None if self.kind == Kind::Directory => Err(escapes(name)),
            None => Ok(false),
        }
    }

    /// Takes a member that is wanted.
    pub(super) fn take(&mut self, name: &[u8], node: Node<'_>) -> Result<(), TransferError> {
        let name = normal(name).ok_or_else(|| escapes(name))?;
        self.members += 1;
        if self.members > MEMBERS_MAX {
            return Err(refused(format!("the archive holds more than {MEMBERS_MAX} members")));
        }
        match self.kind {
            Kind::File => self.take_file(&name, node),
            Kind::Directory => self.take_below(&name, node),
        }
    }

    fn take_file(&mut self, name: &[u8], node: Node<'_>) -> Result<(), TransferError> {
        if name != self.member {
            // Something below it: it is a directory, whether the archive names it or not.
            return Err(wrong_kind(
                "a directory",
                "`directory = true` (`--directory` on the command line)",
            ));
        }
        self.found = true;
        self.elsewhere = None;
        match node {
            Node::File { executable, bytes } => {
                let root = self.root;
                self.write(root, executable, bytes)
            }
            Node::Directory => Err(wrong_kind(
                "a directory",
                "`directory = true` (`--directory` on the command line)",
            )),
            Node::Link(to) => {
                let parent = parent_of(name);
                let joined = [parent, to].join(&b'/');
                let stays = leads_inside(depth(parent), Path::new(OsStr::from_bytes(to)));
                let to = stays.then(|| collapsed(&joined)).flatten();
                self.elsewhere = Some(to.ok_or_else(|| escapes(name))?);
                Ok(())
            }
            Node::HardLink(to) => {
                self.elsewhere = Some(normal(to).ok_or_else(|| escapes(to))?);
                Ok(())
            }
            Node::Special => Err(wrong_kind("neither file nor directory", "another member")),
        }
    }

    fn take_below(&mut self, name: &[u8], node: Node<'_>) -> Result<(), TransferError> {
        let below = name.get(self.member.len()..).unwrap_or_default();
        let below = below.strip_prefix(b"/").unwrap_or(below).to_vec();
        if below.is_empty() {
            if !matches!(node, Node::Directory) {
                return Err(wrong_kind(
                    "a file",
                    "it without `directory = true` and without a `/` at its end",
                ));
            }
            self.found = true;
            return make_directory(self.root);
        }
        self.found = true;
        let path = self.path_of(&below);
        if matches!(node, Node::Directory) {
            return make_directory(&path);
        }
        make_directory(path.parent().unwrap_or(self.root))?;
        // A later member takes the place of an earlier one.
        self.links.remove(&below);
        if self.files.remove(&below) {
            fs::remove_file(&path).map_err(|error| local("remove", &path, error))?;
        }
        match node {
            Node::File { executable, bytes } => {
                self.write(&path, executable, bytes)?;
                self.files.insert(below);
            }
            Node::HardLink(to) => {
                let to = normal(to).ok_or_else(|| escapes(to))?;
                let source = to.strip_prefix(self.member);
                let source = source.map(|to| to.strip_prefix(b"/").unwrap_or(to));
                let source = source.filter(|source| self.files.contains(*source));
                let source = source.ok_or_else(|| {
                    refused(format!("{} is a link to what is not unpacked", show(name)))
                })?;
                let source = self.path_of(source);
                self.copy(&source, &path)?;
                self.files.insert(below);
            }
            Node::Link(to) => {
                let target = Path::new(OsStr::from_bytes(to));
                if !leads_inside(depth(parent_of(&below)), target) {
                    return Err(refused(format!(
                        "{} is a link that leads out of the directory",
                        show(name)
                    )));
                }
                self.links.insert(below, to.to_vec());
            }
            Node::Special => {
                return Err(refused(format!("{} is neither file nor directory", show(name))));
            }
            Node::Directory => {}
        }
        Ok(())
    }

    fn path_of(&self, below: &[u8]) -> PathBuf {
        self.root.join(OsStr::from_bytes(below))
    }

    fn write(
        &mut self,
        path: &Path,
        executable: bool,
        bytes: &mut dyn Read,
    ) -> Result<(), TransferError> {
        let mut file = File::create(path).map_err(|error| local("create", path, error))?;
        let mut limited = bytes.take(self.bytes_left.saturating_add(1));
        let written = copy(&mut limited, &mut file, path)?;
        self.spend(written)?;
        let mode = if executable { 0o755 } else { 0o644 };
        let set = file.set_permissions(Permissions::from_mode(mode));
        set.map_err(|error| local("write", path, error))
    }

    /// A hard link: a file of its own, so that whoever changes one of them changes only that one.
    fn copy(&mut self, from: &Path, to: &Path) -> Result<(), TransferError> {
        let metadata = from.symlink_metadata().map_err(|error| local("copy", from, error))?;
        self.spend(metadata.len())?;
        fs::copy(from, to).map(drop).map_err(|error| local("copy", from, error))
    }

    fn spend(&mut self, bytes: u64) -> Result<(), TransferError> {
        self.bytes_left = self.bytes_left.checked_sub(bytes).ok_or_else(|| {
            let found = "it unpacks to more bytes than `unpacked_max` of [staging] allows".into();
            let hint = "unpack the archive in a task of its own, or set a larger `unpacked_max` in \
                        keelboat.toml";
            TransferError::Refused { found, hint: hint.into() }
        })?;
        Ok(())
    }

    /// Makes the links; returns where to look instead when the wanted file is one.
    pub(super) fn finish(self) -> Result<Option<Vec<u8>>, TransferError> {
        if !self.found {
            let found = format!("the archive has no {:?}", show(self.member));
            return Err(TransferError::Missing { found });
        }
        for (below, to) in &self.links {
            let through = ancestors(below).find(|above| self.links.contains_key(*above));
            if through.is_some() {
                return Err(refused(format!("{} is below a link", show(below))));
            }
            let path = self.path_of(below);
            let made = symlink(OsStr::from_bytes(to), &path);
            made.map_err(|error| local("create", &path, error))?;
        }
        Ok(self.elsewhere)
    }
}

/// Tells what is wrong with the archive from what is wrong with the disk.
fn copy(from: &mut dyn Read, to: &mut File, path: &Path) -> Result<u64, TransferError> {
    let mut buffer = vec![0; 1 << 16];
    let mut written = 0;
    loop {
        let read = match from.read(&mut buffer) {
            Ok(0) => return Ok(written),
            Ok(read) => read,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(error) => return Err(super::damaged(&error)),
        };
        let bytes = buffer.get(..read).unwrap_or_default();
        io::Write::write_all(to, bytes).map_err(|error| local("write", path, error))?;
        written += read as u64;
    }
}

fn make_directory(path: &Path) -> Result<(), TransferError> {
    fs::create_dir_all(path).map_err(|error| local("create", path, error))
}

/// A name without `.` and empty parts; `None`: it is absolute, has `..`, or is no name.
pub(super) fn normal(name: &[u8]) -> Option<Vec<u8>> {
    if name.starts_with(b"/") || name.contains(&0) {
        return None;
    }
    let mut parts = Vec::new();
    for part in name.split(|byte| *byte == b'/') {
        match part {
            b"" | b"." => {}
            b".." => return None,
            part => parts.push(part),
        }
    }
    Some(parts.join(&b'/'))
}

/// The same, where `..` takes back the part before it.
fn collapsed(name: &[u8]) -> Option<Vec<u8>> {
    let mut parts: Vec<&[u8]> = Vec::new();
    for part in name.split(|byte| *byte == b'/') {
        match part {
            b"" | b"." => {}
            b".." => drop(parts.pop()?),
            part => parts.push(part),
        }
    }
    Some(parts.join(&b'/'))
}

pub(super) fn is_below(name: &[u8], directory: &[u8]) -> bool {
    directory.is_empty()
        || name.strip_prefix(directory).is_some_and(|below| below.starts_with(b"/"))
}

fn parent_of(name: &[u8]) -> &[u8] {
    let end = name.iter().rposition(|byte| *byte == b'/').unwrap_or(0);
    name.get(..end).unwrap_or_default()
}

fn ancestors(name: &[u8]) -> impl Iterator<Item = &[u8]> {
    let parents = std::iter::successors(Some(parent_of(name)), |name| Some(parent_of(name)));
    parents.take_while(|name| !name.is_empty())
}

fn depth(directory: &[u8]) -> usize {
    directory.split(|byte| *byte == b'/').filter(|part| !part.is_empty()).count()
}

pub(super) fn show(name: &[u8]) -> String {
    String::from_utf8_lossy(name).escape_debug().to_string()
}

pub(super) fn escapes(name: &[u8]) -> TransferError {
    refused(format!("the archive names {}, which leads out of it", show(name)))
}

pub(super) fn refused(found: String) -> TransferError {
    TransferError::Refused { found, hint: "unpack the archive in a task of its own".into() }
}

fn wrong_kind(found: &str, write: &str) -> TransferError {
    TransferError::Refused {
        found: format!("in the archive it is {found}"),
        hint: format!("declare {write}"),
    }
}
