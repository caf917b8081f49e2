//! The directory for files on their way: nobody else may put anything there, since what lies in it is
//! gone on with, and proven only by what lies beside it.

use std::fs::{self, DirBuilder};
use std::io::ErrorKind;
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _};
use std::path::Path;
use std::sync::LazyLock;

use crate::local::LocalError;

/// Those who may do anything there.
const MODE: u32 = 0o700;

/// Writing by the group and by all others.
const OTHERS_WRITE: u32 = 0o022;

/// Makes the directory, or finds that it is ours alone.
pub(crate) fn make(dir: &Path) -> Result<(), LocalError> {
    let failed = |error| LocalError::io("create", dir, error);
    let mut made = DirBuilder::new().mode(MODE).create(dir);
    if made.as_ref().is_err_and(|error| error.kind() == ErrorKind::NotFound)
        && let Some(above) = dir.parent()
    {
        fs::create_dir_all(above).map_err(failed)?;
        made = DirBuilder::new().mode(MODE).create(dir);
    }
    match made {
        Err(error) if error.kind() == ErrorKind::AlreadyExists => check(dir),
        made => made.map_err(failed),
    }
}

/// Finds that the directory, if it is there, is ours alone. A link that we made may lead to it.
pub(crate) fn check(dir: &Path) -> Result<(), LocalError> {
    static US: LazyLock<u32> = LazyLock::new(|| nix::unistd::geteuid().as_raw());
    let us = *US;
    let looked = dir.symlink_metadata().and_then(|link| {
        let found = if link.is_symlink() { dir.metadata()? } else { link.clone() };
        Ok((link.uid(), found))
    });
    let (linked_by, found) = match looked {
        Ok(looked) => looked,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(LocalError::io("open", dir, error)),
    };
    let found = if !found.is_dir() {
        "is no directory"
    } else if found.uid() != us || linked_by != us {
        "belongs to another user"
    } else if found.mode() & OTHERS_WRITE != 0 {
        "can be written by others"
    } else {
        return Ok(());
    };
    Err(LocalError::Exposed { path: dir.to_owned(), found })
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{PermissionsExt as _, symlink};

    use super::*;

    fn mode(path: &Path, mode: u32) {
        fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
    }

    #[test]
    fn it_is_made_for_us_alone() {
        let above = tempfile::tempdir().unwrap();
        let dir = above.path().join("a/b/partial");
        check(&dir).unwrap();
        make(&dir).unwrap();
        assert_eq!(dir.metadata().unwrap().mode() & 0o777, MODE);
        make(&dir).unwrap();
        mode(&dir, 0o755);
        make(&dir).unwrap();
        let link = above.path().join("link");
        symlink(&dir, &link).unwrap();
        make(&link).unwrap();
    }

    #[test]
    fn one_that_others_may_fill_is_refused() {
        let above = tempfile::tempdir().unwrap();
        let dir = above.path().join("partial");
        make(&dir).unwrap();
        for open in [0o770, 0o702, 0o1777] {
            mode(&dir, open);
            let error = make(&dir).unwrap_err();
            assert!(error.to_string().ends_with("can be written by others"), "{error}");
            assert!(check(&dir).is_err(), "{open:o}");
        }
        let file = above.path().join("file");
        fs::write(&file, b"x").unwrap();
        assert!(make(&file).unwrap_err().to_string().contains("is no directory"));
    }

    /// Only root can give a directory to somebody else.
    #[test]
    fn one_of_another_user_is_refused() {
        let above = tempfile::tempdir().unwrap();
        let dir = above.path().join("partial");
        make(&dir).unwrap();
        if !nix::unistd::geteuid().is_root() {
            println!("skipped: only root can try this");
            return;
        }
        std::os::unix::fs::chown(&dir, Some(12_345), None).unwrap();
        let error = make(&dir).unwrap_err();
        assert!(error.to_string().ends_with("belongs to another user"), "{error}");
    }
}
