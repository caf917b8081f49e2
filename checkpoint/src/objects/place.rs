//! One file into the cache, one file out of it.

use std::fs::{self, File, Metadata, OpenOptions, Permissions};
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _};
use std::path::Path;
use std::sync::atomic::Ordering;
use std::time::SystemTime;

use keelboat_engine::{Content, Digest, Digester, FileStamp};
use nix::errno::Errno;
use nix::fcntl::{AT_FDCWD, RenameFlags, renameat2};

use super::{COPY_BYTES_MAX, Inserted, ObjectCache, ObjectError, Restore, Restored, is_executable};
use crate::digests::{DigestCache, stamp_of};
use crate::error::IoContext as _;
use crate::files;

/// Bytes read at once.
const BUFFER_BYTES: usize = 256 << 10;

/// An object that has been checked.
pub(super) struct Checked<'a> {
    pub(super) digest: Digest,
    pub(super) path: &'a Path,
    pub(super) metadata: Metadata,
}

/// Whether what is placed may be the object itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Sharing {
    /// By a hard link, where that is cheaper: whoever gets it only reads.
    Links,
    /// Never: whoever gets it may write to it.
    Never,
}

impl ObjectCache {
    pub(super) fn insert_file(
        &self,
        path: &Path,
        content: &Content,
    ) -> Result<Inserted, ObjectError> {
        let metadata = self.expect_content(path, content)?;
        let object = self.path_of(&content.digest);
        if self.holds_whole(&content.digest, &object)? {
            return Ok(Inserted::AlreadyThere);
        }
        let folder = files::parent_of(&object);
        let inserted = match self.place_object(path, &metadata, content, &object) {
            Err(ObjectError::Io(error)) if error.kind() == io::ErrorKind::NotFound => {
                files::create_folder(folder)?;
                self.place_object(path, &metadata, content, &object)?
            }
            result => result?,
        };
        match inserted {
            // Another thread kept it meanwhile, and remembers it.
            Inserted::AlreadyThere => {}
            Inserted::Linked => self.remember_linked(path, &metadata, &object, content.digest)?,
            _ => self.remember(&object, content.digest)?,
        }
        Ok(inserted)
    }

    pub(super) fn move_file(
        &self,
        path: &Path,
        content: &Content,
    ) -> Result<Inserted, ObjectError> {
        let metadata = self.expect_content(path, content)?;
        let object = self.path_of(&content.digest);
        if self.holds_whole(&content.digest, &object)? {
            fs::remove_file(path).doing("remove", path)?;
            return Ok(Inserted::AlreadyThere);
        }
        files::create_folder(files::parent_of(&object))?;
        make_read_only(path, &metadata)?;
        let inserted = match fs::rename(path, &object) {
            Err(error) if error.kind() == io::ErrorKind::CrossesDevices => {
                self.copy_object(path, &metadata, content, &object)?;
                fs::remove_file(path).doing("remove", path)?;
                Inserted::Copied
            }
            moved => moved.doing("move to the object cache", path).map(|()| Inserted::Moved)?,
        };
        self.remember(&object, content.digest)?;
        Ok(inserted)
    }

    pub(super) fn restore_file(
        &self,
        what: &Restore,
        dest: &Path,
    ) -> Result<Option<Restored>, ObjectError> {
        let Content { digest, bytes, .. } = what.content;
        let path = &self.path_of(&digest);
        let Some(metadata) = self.checked(&digest, path)? else { return Ok(None) };
        if metadata.len() != bytes {
            let found = format!("it has {} bytes, not {bytes}", metadata.len());
            return Err(self.quarantine(&digest, path, &found));
        }
        let object = Checked { digest, path, metadata };
        let temporary = files::fresh_name(files::parent_of(dest));
        let placed = self
            .place_copy(&object, &temporary, what.executable, Sharing::Links)
            .and_then(|restored| {
                swap_in(&temporary, dest)?;
                // When `dest` was a link to this object already, the rename did nothing; and removing
                // a link changes the stamp.
                files::discard(&temporary);
                self.remember(dest, digest)?;
                Ok(restored)
            });
        if placed.is_err() {
            files::discard(&temporary);
        }
        placed.map(Some)
    }

    /// Makes a file of an object's bytes at a new name. It is the object itself, by a link, only when
    /// that is executable as it has to be, and may be shared.
    pub(super) fn place_copy(
        &self,
        object: &Checked<'_>,
        dest: &Path,
        executable: bool,
        sharing: Sharing,
    ) -> Result<Restored, ObjectError> {
        let mode = writable_mode(&object.metadata, executable);
        if self.reflink(object.path, dest) {
            let mode = mode & 0o755;
            fs::set_permissions(dest, Permissions::from_mode(mode)).doing("make", dest)?;
            return Ok(Restored::Reflinked);
        }
        let same_mode = is_executable(&object.metadata) == executable;
        let large = object.metadata.len() > COPY_BYTES_MAX;
        let may_link = sharing == Sharing::Links && large && same_mode;
        if may_link && fs::hard_link(object.path, dest).is_ok() {
            let linked = fs::symlink_metadata(object.path).doing("look at", object.path)?;
            self.digests.carry(&stamp_of(&object.metadata), &stamp_of(&linked));
            return Ok(Restored::Linked);
        }
        let found = copy_hashing(object.path, dest, mode)?;
        if found != object.digest {
            files::discard(dest);
            let what = format!("it holds {found}");
            return Err(self.quarantine(&object.digest, object.path, &what));
        }
        Ok(Restored::Copied)
    }

    /// A damaged object that is about to be replaced is set aside and does not count.
    fn holds_whole(&self, digest: &Digest, object: &Path) -> Result<bool, ObjectError> {
        match self.checked(digest, object) {
            Err(ObjectError::Damaged { .. }) => Ok(false),
            checked => Ok(checked?.is_some()),
        }
    }

    /// The metadata of a regular file that holds `content`.
    fn expect_content(&self, path: &Path, content: &Content) -> Result<Metadata, ObjectError> {
        let metadata = fs::symlink_metadata(path).doing("look at", path)?;
        if !metadata.is_file() {
            let found = if metadata.is_dir() { "a directory" } else { "a special file" };
            let path = path.to_owned();
            return Err(ObjectError::WrongKind { path, expected: "a regular file", found });
        }
        let known = self.digests.lookup(&stamp_of(&metadata));
        let found = known.map_or_else(|| hash_file(path, &self.digests), Ok)?;
        if found != content.digest {
            let (path, expected) = (path.to_owned(), content.digest);
            return Err(ObjectError::Mismatch { path, expected, found });
        }
        Ok(metadata)
    }

    fn place_object(
        &self,
        path: &Path,
        metadata: &Metadata,
        content: &Content,
        object: &Path,
    ) -> Result<Inserted, ObjectError> {
        let temporary = files::fresh_name(files::parent_of(object));
        if self.reflink(path, &temporary) {
            let whole = fs::symlink_metadata(path).doing("look at", path)?;
            if stamp_of(&whole) != stamp_of(metadata) {
                files::discard(&temporary);
                return Err(ObjectError::Changing { path: path.to_owned() });
            }
            make_read_only(&temporary, metadata)?;
            fs::rename(&temporary, object).doing("make the object", object)?;
            return Ok(Inserted::Reflinked);
        }
        match fs::hard_link(path, object) {
            Ok(()) => {
                make_read_only(object, metadata)?;
                Ok(Inserted::Linked)
            }
            // Two threads keep the same bytes.
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
                Ok(Inserted::AlreadyThere)
            }
            Err(error) if cannot_link(&error) => {
                self.copy_object(path, metadata, content, object)?;
                Ok(Inserted::Copied)
            }
            Err(error) => Err(crate::IoError::new("make the object", object, error).into()),
        }
    }

    fn copy_object(
        &self,
        path: &Path,
        metadata: &Metadata,
        content: &Content,
        object: &Path,
    ) -> Result<(), ObjectError> {
        let temporary = files::fresh_name(files::parent_of(object));
        let copied = copy_hashing(path, &temporary, files::FILE_MODE).and_then(|found| {
            if found != content.digest {
                self.digests.forget(&stamp_of(metadata));
                let (path, expected) = (path.to_owned(), content.digest);
                return Err(ObjectError::Mismatch { path, expected, found });
            }
            make_read_only(&temporary, metadata)?;
            fs::rename(&temporary, object).doing("make the object", object)?;
            Ok(())
        });
        if copied.is_err() {
            files::discard(&temporary);
        }
        copied
    }

    fn reflink(&self, from: &Path, to: &Path) -> bool {
        if !self.try_reflink.load(Ordering::Relaxed) {
            return false;
        }
        let error = match reflink_copy::reflink(from, to) {
            Ok(()) => return true,
            Err(error) => error,
        };
        let refused = [Errno::EOPNOTSUPP, Errno::ENOTTY, Errno::ENOSYS, Errno::EINVAL];
        let errno = error.raw_os_error().map(Errno::from_raw);
        if errno.is_some_and(|errno| refused.contains(&errno)) {
            self.try_reflink.store(false, Ordering::Relaxed);
        }
        files::discard(to);
        false
    }

    /// An object that is one file with what was kept. A writer may have had that open all the time:
    /// then it is no object.
    fn remember_linked(
        &self,
        path: &Path,
        before: &Metadata,
        object: &Path,
        digest: Digest,
    ) -> Result<(), ObjectError> {
        let linked = stamp_of(&fs::symlink_metadata(object).doing("look at", object)?);
        let before = stamp_of(before);
        if (FileStamp { changed_ns: before.changed_ns, ..linked }) != before {
            files::discard(object);
            return Err(ObjectError::Changing { path: path.to_owned() });
        }
        self.digests.remember_own(&linked, digest);
        Ok(())
    }

    /// What this process has just put there needs no reading.
    pub(super) fn remember(&self, path: &Path, digest: Digest) -> Result<(), ObjectError> {
        let metadata = fs::symlink_metadata(path).doing("look at", path)?;
        self.digests.remember_own(&stamp_of(&metadata), digest);
        Ok(())
    }
}

/// The digest of a file that stays the same while it is read; remembered.
pub(super) fn hash_file(path: &Path, digests: &DigestCache) -> Result<Digest, ObjectError> {
    let hashed_at = SystemTime::now();
    let mut file = File::open(path).doing("open", path)?;
    let before = stamp_of(&file.metadata().doing("look at", path)?);
    let mut digester = Digester::new();
    let mut buffer = vec![0; BUFFER_BYTES];
    loop {
        match file.read(&mut buffer).doing("read", path)? {
            0 => break,
            read => digester.update(&buffer[..read]),
        }
    }
    if stamp_of(&file.metadata().doing("look at", path)?) != before {
        return Err(ObjectError::Changing { path: path.to_owned() });
    }
    let digest = digester.finish();
    digests.remember(&before, digest, hashed_at);
    Ok(digest)
}

/// Copies to a new file; the digest is that of the bytes that were written.
fn copy_hashing(from: &Path, to: &Path, mode: u32) -> Result<Digest, ObjectError> {
    let mut source = File::open(from).doing("open", from)?;
    let created = OpenOptions::new().write(true).create_new(true).mode(mode).open(to);
    let mut target = created.doing("create", to)?;
    let mut digester = Digester::new();
    let mut buffer = vec![0; BUFFER_BYTES];
    loop {
        let read = source.read(&mut buffer).doing("read", from)?;
        if read == 0 {
            return Ok(digester.finish());
        }
        digester.update(&buffer[..read]);
        target.write_all(&buffer[..read]).doing("write", to)?;
    }
}

/// Takes away the permissions to write; the others stay as they were, since a hard link shares them
/// and since a private file stays private.
fn make_read_only(path: &Path, source: &Metadata) -> Result<(), ObjectError> {
    let mode = source.permissions().mode() & 0o555 | 0o400;
    fs::set_permissions(path, Permissions::from_mode(mode)).doing("make read-only", path)?;
    Ok(())
}

/// The mode of a file that is restored, before the umask: for nobody who could not read the object.
fn writable_mode(object: &Metadata, executable: bool) -> u32 {
    let read = object.permissions().mode() & 0o444 | 0o400;
    let execute = if executable { read >> 2 } else { 0 };
    read | read >> 1 | execute
}

/// Puts a finished file or folder in its place, over whatever stands there.
pub(super) fn swap_in(temporary: &Path, dest: &Path) -> Result<(), ObjectError> {
    let Err(error) = fs::rename(temporary, dest) else { return Ok(()) };
    let in_the_way = [Errno::EISDIR, Errno::ENOTDIR, Errno::ENOTEMPTY, Errno::EEXIST];
    let errno = error.raw_os_error().map(Errno::from_raw);
    if !errno.is_some_and(|errno| in_the_way.contains(&errno)) {
        return Err(crate::IoError::new("put in its place", dest, error).into());
    }
    let exchange = RenameFlags::RENAME_EXCHANGE;
    if renameat2(AT_FDCWD, temporary, AT_FDCWD, dest, exchange).is_err() {
        // No exchange on this file system: for a moment nothing stands there.
        let old = files::fresh_name(files::parent_of(dest));
        fs::rename(dest, &old).doing("move out of the way", dest)?;
        fs::rename(temporary, dest).doing("put in its place", dest)?;
        files::discard(&old);
    }
    Ok(())
}

/// Another file system, one without hard links, too many links, or a file of somebody else.
fn cannot_link(error: &io::Error) -> bool {
    let refused = [Errno::EXDEV, Errno::EPERM, Errno::EMLINK, Errno::EOPNOTSUPP];
    error.raw_os_error().map(Errno::from_raw).is_some_and(|errno| refused.contains(&errno))
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;

    #[test]
    fn a_file_that_was_written_to_while_it_was_linked_is_no_object() {
        let folder = tempfile::tempdir().unwrap();
        let digests = Arc::new(DigestCache::load(folder.path()));
        let cache = ObjectCache::open(folder.path(), Arc::clone(&digests)).unwrap();
        let (path, object) = (folder.path().join("out"), folder.path().join("object"));
        let digest = Digest::of(b"result");
        for (written, is_object) in [(&b"result"[..], true), (b"result and more", false)] {
            fs::write(&path, b"result").unwrap();
            let before = fs::symlink_metadata(&path).unwrap();
            if !is_object {
                fs::write(&path, written).unwrap();
            }
            fs::hard_link(&path, &object).unwrap();
            let remembered = cache.remember_linked(&path, &before, &object, digest);
            let changing = matches!(&remembered, Err(error) if error.blames_source());
            assert_eq!((remembered.is_ok(), changing), (is_object, !is_object));
            assert_eq!(object.exists(), is_object);
            let known = digests.lookup(&stamp_of(&fs::symlink_metadata(&path).unwrap()));
            assert_eq!(known, is_object.then_some(digest));
            files::discard(&object);
        }
    }
}
