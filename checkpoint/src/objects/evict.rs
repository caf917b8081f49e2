//! Giving up objects while a run goes on, to make room for others.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io;
use std::path::Path;

use keelboat_engine::{Content, Digest, Kind};

use super::{ObjectCache, ObjectError, tree};
use crate::digests::stamp_of;
use crate::error::IoContext as _;

impl ObjectCache {
    /// Removes these objects, but for what is needed, and for files of directories that are. What
    /// stays as a published output (a hard link) keeps its bytes. Absent ones are no error.
    ///
    /// # Errors
    /// When one cannot be removed; those before it are gone.
    pub fn evict(
        &self,
        gone: &[Content],
        needed: impl Iterator<Item = Content>,
    ) -> Result<(), ObjectError> {
        let mut files = BTreeSet::new();
        let mut trees = BTreeSet::new();
        for content in gone {
            match content.kind {
                Kind::File => drop(files.insert(content.digest)),
                Kind::Directory => {
                    files.extend(self.files_in(&content.digest)?);
                    trees.insert(content.digest);
                }
            }
        }
        for content in needed {
            match content.kind {
                Kind::File => drop(files.remove(&content.digest)),
                Kind::Directory => {
                    trees.remove(&content.digest);
                    for file in self.files_in(&content.digest)? {
                        files.remove(&file);
                    }
                }
            }
        }
        // A directory without its files would be found incomplete: it goes first.
        for path in trees.iter().map(|digest| self.manifest_path(digest)) {
            self.remove(&path)?;
        }
        for path in files.iter().map(|digest| self.path_of(digest)) {
            self.remove(&path)?;
        }
        Ok(())
    }

    fn files_in(&self, directory: &Digest) -> Result<Vec<Digest>, ObjectError> {
        match self.manifest(directory) {
            Err(ObjectError::Damaged { .. }) => Ok(Vec::new()),
            entries => Ok(tree::files_of(&entries?.unwrap_or_default()).collect()),
        }
    }

    /// Removes one object. When it stays as a published output, its digest stays known: removing a
    /// link changes the file's stamp, but not its bytes.
    pub(super) fn remove(&self, path: &Path) -> Result<(), ObjectError> {
        let other_name = File::open(path).ok();
        let stamp = || other_name.as_ref().and_then(|file| file.metadata().ok());
        let before = stamp();
        match fs::remove_file(path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
            removed => removed.doing("remove the object", path)?,
        }
        if let Some((before, after)) = before.zip(stamp()) {
            self.digests.carry(&stamp_of(&before), &stamp_of(&after));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;
    use std::sync::Arc;

    use super::*;
    use crate::DigestCache;

    struct Project {
        dir: tempfile::TempDir,
        objects: ObjectCache,
    }

    impl Project {
        fn new() -> Self {
            let dir = tempfile::tempdir().unwrap();
            let digests = Arc::new(DigestCache::load(dir.path()));
            let objects = ObjectCache::open(dir.path(), digests).unwrap();
            Self { dir, objects }
        }

        fn write(&self, name: &str, text: &str) -> (PathBuf, Content) {
            let path = self.dir.path().join(name);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(&path, text).unwrap();
            let (digest, bytes) = (Digest::of(text.as_bytes()), text.len() as u64);
            (path, Content { digest, bytes, kind: Kind::File })
        }

        fn keep(&self, name: &str, text: &str) -> Content {
            let (path, content) = self.write(name, text);
            self.objects.insert_by_move(&path, &content).unwrap();
            content
        }

        fn has(&self, content: &Content) -> bool {
            self.objects.has(&content.digest, content.kind).unwrap()
        }
    }

    #[test]
    fn what_is_needed_stays() {
        let project = Project::new();
        let [a, b, c] = ["a", "b", "c"].map(|text| project.keep(text, text));
        project.objects.evict(&[a, b], [b].into_iter()).unwrap();
        assert_eq!([a, b, c].map(|content| project.has(&content)), [false, true, true]);
        project.objects.evict(&[a, b], std::iter::empty()).unwrap();
        assert_eq!([a, b, c].map(|content| project.has(&content)), [false, false, true]);
    }

    #[test]
    fn a_published_output_keeps_its_bytes() {
        let project = Project::new();
        let (path, content) = project.write("output", "bytes");
        project.objects.insert(&path, &content).unwrap();
        project.objects.evict(&[content], std::iter::empty()).unwrap();
        assert!(!project.has(&content));
        assert_eq!(fs::read_to_string(path).unwrap(), "bytes");
    }
}
