//! How what was sent takes its place where servers rename: what is there is never lost for it.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{MetadataExt, symlink};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use keelboat_engine::{FailureClass, Kind};
use keelboat_staging::{
    DeliverError, Delivered, Delivery, Forgetful, Over, Protocol, Renamed, Stager, digest_path,
};
use tempfile::TempDir;

use crate::common::faulty::{Faulty, RenameFault};
use crate::common::ftp::Ftp;
use crate::common::ssh::Ssh;
use crate::common::{config, room};

/// Servers that rename: `ProFTPD`, OpenSSH's, and one that renames over nothing.
enum Server {
    Ftp(Arc<Ftp>),
    Ssh(Arc<Ssh>),
    SshPlain(Arc<Ssh>),
}

impl Server {
    fn all() -> Vec<Self> {
        let ftp = Ftp::get().map(Self::Ftp);
        let ssh = Ssh::get();
        let plain = ssh.clone().map(Self::SshPlain);
        ftp.into_iter().chain(ssh.map(Self::Ssh)).chain(plain).collect()
    }

    fn protocol(&self) -> Arc<dyn Protocol> {
        match self {
            Self::Ftp(ftp) => Arc::new(ftp.protocol()),
            Self::Ssh(ssh) | Self::SshPlain(ssh) => ssh.protocol(),
        }
    }

    fn address(&self, name: &str) -> String {
        match self {
            Self::Ftp(ftp) => ftp.address("FTP_URL", name),
            Self::Ssh(ssh) => ssh.address(name),
            Self::SshPlain(ssh) => {
                let port = ssh.value("SSH_PLAIN_RENAME_PORT").parse().expect("a port");
                ssh.address_at(port, name)
            }
        }
    }

    fn path(&self, name: &str) -> PathBuf {
        match self {
            Self::Ftp(ftp) => ftp.path(name),
            Self::Ssh(ssh) | Self::SshPlain(ssh) => ssh.path(name),
        }
    }

    /// An own directory, empty, and its name.
    fn fresh(&self, test: &str) -> String {
        let name = match self {
            Self::Ftp(_) | Self::Ssh(_) => format!("in place {test}"),
            Self::SshPlain(_) => format!("in place plainly {test}"),
        };
        std::fs::create_dir_all(self.path(&name)).expect("a directory");
        name
    }
}

/// One who delivers to a server.
struct Sender {
    dir: TempDir,
    faulty: Arc<Faulty>,
    stager: Stager,
}

impl Sender {
    fn new(server: &Server) -> Self {
        let dir = room();
        let faulty = Arc::new(Faulty::new(server.protocol(), vec![]));
        let stager = Stager::with_protocols(config(dir.path()), vec![faulty.clone()], vec![]);
        Self { dir, faulty, stager }
    }

    async fn file(&self, address: String, bytes: &[u8]) -> Result<Delivered, DeliverError> {
        let source = self.dir.path().join("source");
        std::fs::write(&source, bytes).expect("a file");
        self.send(source, Kind::File, address).await
    }

    /// A directory with one file `x`.
    async fn tree(&self, address: String, bytes: &[u8]) -> Result<Delivered, DeliverError> {
        let source = self.dir.path().join("tree");
        std::fs::create_dir_all(&source).expect("a directory");
        std::fs::write(source.join("x"), bytes).expect("a file");
        self.send(source, Kind::Directory, address).await
    }

    async fn send(
        &self,
        source: PathBuf,
        kind: Kind,
        address: String,
    ) -> Result<Delivered, DeliverError> {
        let content = digest_path(&source, kind, &Forgetful, true).expect("a digest");
        let (address, over) = (address.into(), Over::Same);
        let delivery = Delivery { source, content, address, over, progress: None };
        self.stager.deliver(delivery, Forgetful).await
    }
}

fn names(directory: &Path) -> Vec<Vec<u8>> {
    let entries = std::fs::read_dir(directory).expect("a directory");
    let name = |entry: std::fs::DirEntry| entry.file_name().as_bytes().to_owned();
    let mut names: Vec<_> = entries.map(|entry| name(entry.expect("an entry"))).collect();
    names.sort();
    names
}

/// Also where nobody can list it.
#[tokio::test]
async fn a_file_never_takes_the_place_of_a_directory() {
    for server in Server::all() {
        let home = server.fresh("never");
        for name in [&b"precious"[..], b"a\\b", b"\xff\xfe"] {
            let place = format!("{home}/directory");
            let path = server.path(&place);
            std::fs::create_dir(&path).expect("a directory");
            std::fs::write(path.join(OsStr::from_bytes(name)), "precious").expect("a file");
            let sender = Sender::new(&server);
            sender.faulty.fail_looks(1);
            let error = sender.file(server.address(&place), b"new").await.expect_err("refused");
            assert!(error.to_string().contains("a directory stands there"), "{error}");
            assert_eq!(error.failure().class, FailureClass::Permanent, "{error}");
            assert_eq!(sender.faulty.puts(), 0, "nothing is sent for it");

            std::fs::write(server.path(&format!("{home}/new")), "new").expect("a file");
            let new = server.address(&format!("{home}/new"));
            let renamed = server.protocol().rename(&new, &server.address(&place)).await;
            assert!(matches!(renamed, Ok(Renamed::InTheWay(_))), "{renamed:?}");
            assert_eq!(names(&path), [name]);
            std::fs::remove_dir_all(path).expect("removed");
        }
    }
}

/// SFTP says of a full disk what it says of a directory in the way.
#[tokio::test]
async fn a_file_that_cannot_be_renamed_over_another_leaves_it_alone() {
    let Some(ssh) = Ssh::get() else { return };
    let server = Server::Ssh(Arc::clone(&ssh));
    let Ok(elsewhere) = tempfile::tempdir_in("/dev/shm") else {
        println!("skipped: a second file system: there is no /dev/shm");
        return;
    };
    let new = server.path(&format!("{}/new", server.fresh("elsewhere")));
    std::fs::write(&new, "new").expect("a file");
    let old = elsewhere.path().join("old");
    std::fs::write(&old, "old").expect("a file");
    let device = |path: &Path| path.metadata().expect("it is there").dev();
    assert_ne!(device(&old), device(&new), "they are on two file systems");
    let port = ssh.value("SSH_PORT");
    let at = |path: &Path| {
        format!("sftp://127.0.0.1:{port}{}", path.to_str().expect("text").replace(' ', "%20"))
    };
    let renamed = server.protocol().rename(&at(&new), &at(&old)).await;
    let error = renamed.expect_err("it cannot be");
    assert!(error.to_string().contains("status 4"), "{error}");
    assert_eq!(std::fs::read(&old).expect("the old one"), b"old");
    assert_eq!(std::fs::read(&new).expect("the new one"), b"new");
}

#[tokio::test]
async fn directories_take_the_place_of_what_is_there() {
    for server in Server::all() {
        let home = server.fresh("replaced");
        let kept = server.path(&format!("{home} kept"));
        std::fs::create_dir_all(&kept).expect("a directory");
        std::fs::write(kept.join("inside"), "kept").expect("a file");
        let (sender, place) = (Sender::new(&server), format!("{home}/tree"));
        let path = server.path(&place);
        std::fs::create_dir_all(path.join("deep/er")).expect("a directory");
        std::fs::write(path.join("deep/er/y"), "old").expect("a file");
        symlink(format!("../../{home} kept"), path.join("link")).expect("a link");
        let address = || server.address(&place);
        assert_eq!(sender.tree(address(), b"new").await, Ok(Delivered::Copied));
        assert_eq!(
            (names(&path), std::fs::read(path.join("x")).expect("it")),
            (vec![b"x".to_vec()], b"new".to_vec())
        );
        assert!(kept.join("inside").exists(), "links are not followed");
        // Another directory, a file, and a link to a directory.
        assert_eq!(sender.tree(address(), b"newer").await, Ok(Delivered::Copied));
        std::fs::remove_dir_all(&path).expect("removed");
        std::fs::write(&path, "a file").expect("a file");
        assert_eq!(sender.tree(address(), b"newer").await, Ok(Delivered::Copied));
        std::fs::remove_dir_all(&path).expect("removed");
        symlink(format!("../{home} kept"), &path).expect("a link");
        assert_eq!(sender.tree(address(), b"newest").await, Ok(Delivered::Copied));
        assert_eq!(std::fs::read(path.join("x")).expect("a file"), b"newest");
        assert!(kept.join("inside").exists() && !path.is_symlink());
        assert_eq!(names(&server.path(&home)), [b"tree"], "nothing is left aside");
    }
}

/// A server that hides what is in a directory keeps it aside, and what comes later comes all the same.
#[tokio::test]
async fn what_cannot_be_removed_stays_aside() {
    let Some(ftp) = Ftp::get() else { return };
    let server = Server::Ftp(ftp);
    let home = server.fresh("hidden");
    let (sender, place) = (Sender::new(&server), format!("{home}/tree"));
    let path = server.path(&place);
    for bytes in [b"first", b"other"] {
        sender.tree(server.address(&place), bytes).await.expect("sent");
        // ProFTPD does not list links to nothing.
        symlink("nowhere", path.join("hidden")).expect("a link");
    }
    assert_eq!(sender.tree(server.address(&place), b"third").await, Ok(Delivered::Copied));
    assert_eq!(std::fs::read(path.join("x")).expect("a file"), b"third");
    let left = [&b".tree.keelboat-old"[..], b".tree.keelboat-old-2", b"tree"];
    assert_eq!(names(&server.path(&home)), left);
}

/// What cannot take the place in the end has cost nothing.
#[tokio::test]
async fn the_old_one_is_back_when_the_new_one_cannot_stand() {
    use RenameFault::{AnswerLost, Forbidden, None};
    for server in Server::all() {
        let home = server.fresh("back");
        let (sender, place) = (Sender::new(&server), format!("{home}/tree"));
        let path = server.path(&place);
        std::fs::create_dir_all(&path).expect("a directory");
        std::fs::write(path.join("old"), "old").expect("a file");
        sender.faulty.fail_renames(&[None, None, Forbidden, AnswerLost]);
        let error = sender.tree(server.address(&place), b"new").await.expect_err("forbidden");
        assert!(error.to_string().contains("by the test"), "{error}");
        assert_eq!(names(&path), [b"old"]);
        if matches!(server, Server::SshPlain(_)) {
            let file = format!("{home}/file");
            std::fs::write(server.path(&file), "old").expect("a file");
            sender.faulty.fail_renames(&[None, None, Forbidden]);
            sender.file(server.address(&file), b"new").await.expect_err("forbidden");
            assert_eq!(std::fs::read(server.path(&file)).expect("a file"), b"old");
            sender.faulty.fail_renames(&[None, AnswerLost, AnswerLost]);
            let sent = sender.file(server.address(&file), b"new").await;
            assert_eq!(sent, Ok(Delivered::Copied), "answers that are lost do no harm");
            assert_eq!(std::fs::read(server.path(&file)).expect("a file"), b"new");
            std::fs::remove_file(server.path(&file)).expect("removed");
        }
        sender.faulty.fail_renames(&[None, AnswerLost, AnswerLost]);
        let sent = sender.tree(server.address(&place), b"new").await;
        assert_eq!(sent, Ok(Delivered::Copied), "answers that are lost do no harm");
        assert_eq!(names(&server.path(&home)), [b"tree"], "nothing is left aside");
    }
}

/// A crash between two renamings: the old one is aside, and nothing in the place.
#[tokio::test]
async fn what_a_crash_left_aside_is_put_back_and_replaced() {
    for server in Server::all() {
        let home = server.fresh("crash");
        let (sender, place) = (Sender::new(&server), format!("{home}/tree"));
        let aside = server.path(&format!("{home}/.tree.keelboat-old"));
        std::fs::create_dir_all(&aside).expect("a directory");
        std::fs::write(aside.join("old"), "old").expect("a file");
        sender.faulty.fail_renames(&[RenameFault::None, RenameFault::Forbidden]);
        sender.tree(server.address(&place), b"new").await.expect_err("forbidden");
        assert_eq!(names(&server.path(&place)), [b"old"]);
        assert_eq!(sender.tree(server.address(&place), b"new").await, Ok(Delivered::Copied));
        assert_eq!(names(&server.path(&place)), [b"x"]);
        assert_eq!(names(&server.path(&home)), [b"tree"], "nothing is left aside");
    }
}
