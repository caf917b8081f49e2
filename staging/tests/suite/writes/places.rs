//! The places that are written to.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use keelboat_staging::{FileProtocol, HttpConfig, HttpProtocol, Protocol};

use super::{Target, writes};
use crate::common::buckets::{Buckets, Cloud};
use crate::common::ftp::Ftp;
use crate::common::ssh::Ssh;
use crate::common::{Servers, escaped, room};

/// Where nobody may write, not even root.
const REFUSED: &str = "/proc/keelboat/file";

struct Here(tempfile::TempDir);

impl Target for Here {
    fn protocol(&self) -> Arc<dyn Protocol> {
        Arc::new(FileProtocol)
    }

    fn address(&self, name: &str) -> String {
        self.0.path().join(name).to_str().expect("text").to_owned()
    }

    fn path(&self, name: &str) -> Option<PathBuf> {
        Some(self.0.path().join(name))
    }

    fn refused(&self) -> String {
        REFUSED.to_owned()
    }
}

/// nginx, with the user's password in the address.
struct Dav(Arc<Servers>);

impl Target for Dav {
    fn protocol(&self) -> Arc<dyn Protocol> {
        Arc::new(HttpProtocol::new(&HttpConfig::default()).expect("a client"))
    }

    fn address(&self, name: &str) -> String {
        let (user, password) = (self.0.value("HTTP_USER"), self.0.value("HTTP_PASSWORD"));
        let name: Vec<String> = name.split('/').map(escaped).collect();
        let plain = self.0.plain(&format!("/dav/writes/{}", name.join("/")));
        plain.replace("://", &format!("://{user}:{password}@"))
    }

    fn path(&self, name: &str) -> Option<PathBuf> {
        Some(Path::new(self.0.value("HTTP_ROOT")).join("dav/writes").join(name))
    }

    fn refused(&self) -> String {
        self.0.plain("/files/refused")
    }
}

impl Target for Arc<Ftp> {
    fn protocol(&self) -> Arc<dyn Protocol> {
        Arc::new(Ftp::protocol(self))
    }

    fn address(&self, name: &str) -> String {
        Ftp::address(self, "FTP_URL", &format!("writes/{name}"))
    }

    fn path(&self, name: &str) -> Option<PathBuf> {
        Some(Ftp::path(self, &format!("writes/{name}")))
    }

    fn refused(&self) -> String {
        format!("{}/refused", self.value("FTP_URL"))
    }
}

impl Target for Arc<Ssh> {
    fn protocol(&self) -> Arc<dyn Protocol> {
        Ssh::protocol(self)
    }

    fn address(&self, name: &str) -> String {
        Ssh::address(self, &format!("writes/{name}"))
    }

    fn path(&self, name: &str) -> Option<PathBuf> {
        Some(Ssh::path(self, &format!("writes/{name}")))
    }

    fn refused(&self) -> String {
        format!("sftp://127.0.0.1:{}{REFUSED}", self.value("SSH_PORT"))
    }

    fn environment(&self) -> Vec<(String, String)> {
        Ssh::environment(self)
    }
}

impl Target for Buckets {
    fn protocol(&self) -> Arc<dyn Protocol> {
        Buckets::protocol(self)
    }

    fn address(&self, name: &str) -> String {
        Buckets::address(self, &format!("writes/{name}"))
    }

    fn refused(&self) -> String {
        self.address_in("nowhere", "refused")
    }

    fn environment(&self) -> Vec<(String, String)> {
        self.variables()
    }
}

#[tokio::test]
async fn files_are_written_here() {
    writes(Here(room())).await;
}

#[tokio::test]
async fn files_are_written_by_nginx() {
    let Some(servers) = Servers::get() else { return };
    writes(Dav(servers)).await;
}

#[tokio::test]
async fn files_are_written_by_proftpd() {
    let Some(ftp) = Ftp::get() else { return };
    writes(ftp).await;
}

#[tokio::test]
async fn files_are_written_by_openssh() {
    let Some(ssh) = Ssh::get() else { return };
    writes(ssh).await;
}

#[tokio::test]
async fn files_are_written_by_moto() {
    let Some(buckets) = Buckets::get() else { return };
    writes(buckets).await;
}

#[tokio::test]
async fn files_are_written_by_azurite() {
    let Some(buckets) = Buckets::of(Cloud::Az) else { return };
    writes(buckets).await;
}
