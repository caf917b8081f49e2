//! Files that are there before a flow begins, here or elsewhere.

use std::sync::Arc;

use keelboat_engine::{Digest, Kind, Source};

use super::argument::{CodecErrorOf, Input};
use super::future::FileFuture;
use super::handle::Handle;
use crate::workflow::free;

/// A file or directory that tasks read: of the project, or at one or more addresses. Nothing is
/// looked at before a task needs it; then it is fetched once, and proven.
///
/// ```no_run
/// # use keelboat::flow::{Config, Flow};
/// # let directory = tempfile::tempdir()?;
/// # let flow = Flow::open(Config::new(directory.path()))?;
/// let reference = flow
///     .file("https://host/ref.fa.gz")
///     .or_from("ftp://mirror/ref.fa.gz")
///     .sha256("9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08");
/// let samples = flow.file("samples").directory();
/// let index = flow
///     .command("index {{ inputs.reference }} {{ inputs.samples }} > {{ outputs.index }}")
///     .input("reference", reference)
///     .input("samples", samples)
///     .output("index", "out/index")
///     .submit();
/// # let _ = index;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug, Clone)]
pub struct File {
    /// The first is the one that was asked for, the others are mirrors.
    addresses: Vec<Arc<str>>,
    sha256: Option<String>,
    kind: Kind,
    project: Arc<free::Project>,
}

impl File {
    pub(crate) fn new(address: &str, project: &Arc<free::Project>) -> Self {
        let (addresses, project) = (vec![address.into()], Arc::clone(project));
        Self { addresses, sha256: None, kind: Kind::File, project }
    }

    /// The digest that it must have: 64 hexadecimal digits, as `sha256sum` prints.
    ///
    /// ```
    /// # use keelboat::flow::{Config, Flow};
    /// # let directory = tempfile::tempdir()?;
    /// # let flow = Flow::open(Config::new(directory.path()))?;
    /// let digest = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";
    /// std::fs::write(directory.path().join("abc"), "abc")?;
    /// let read = |path: std::path::PathBuf| std::fs::read_to_string(path);
    /// let abc = flow.file("abc").sha256(digest);
    /// assert_eq!(flow.try_call(read, (abc,)).wait()?, "abc");
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    #[must_use]
    pub fn sha256(mut self, digest: &str) -> Self {
        self.sha256 = Some(digest.to_owned());
        self
    }

    /// A further address of the same file, tried when those before it fail.
    ///
    /// ```
    /// # use keelboat::flow::{Config, Flow};
    /// # let directory = tempfile::tempdir()?;
    /// # let flow = Flow::open(Config::new(directory.path()))?;
    /// let reads = flow.file("https://host/reads.fq").or_from("s3://bucket/reads.fq");
    /// assert!(format!("{reads:?}").contains("reads.fq"));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    #[must_use]
    pub fn or_from(mut self, mirror: &str) -> Self {
        self.addresses.push(mirror.into());
        self
    }

    /// It is a directory, with all below it.
    ///
    /// ```
    /// # use keelboat::flow::{Config, Flow};
    /// # let directory = tempfile::tempdir()?;
    /// # let flow = Flow::open(Config::new(directory.path()))?;
    /// std::fs::create_dir(directory.path().join("pages"))?;
    /// let count = |path: std::path::PathBuf| Ok::<_, std::io::Error>(std::fs::read_dir(path)?.count());
    /// let pages = flow.file("pages").directory();
    /// assert_eq!(flow.try_call(count, (pages,)).wait()?, 0);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    #[must_use]
    pub fn directory(mut self) -> Self {
        self.kind = Kind::Directory;
        self
    }

    pub(crate) fn kind(&self) -> Kind {
        self.kind
    }

    pub(crate) fn digest(&self) -> Result<Option<Digest>, CodecErrorOf> {
        let parsed = self.sha256.as_ref().map(|text| text.parse::<Digest>()).transpose();
        parsed.map_err(|error| format!("{}: {error}", self.shown()).into())
    }

    pub(crate) fn source(&self) -> Result<Source, CodecErrorOf> {
        free::source(&self.addresses, &self.project).map_err(Into::into)
    }

    pub(crate) fn as_input(&self) -> Result<Input, CodecErrorOf> {
        let (source, sha256) = (self.source()?, self.digest()?);
        Ok(Input { source, sha256, kind: self.kind, maker: None })
    }

    fn shown(&self) -> String {
        self.addresses.first().map(|first| keelboat_staging::redact(first)).unwrap_or_default()
    }
}

impl FileFuture {
    /// As an input of a task of this flow.
    pub(crate) fn as_input(&self, flow: &Handle) -> Result<Input, CodecErrorOf> {
        self.handle().has_to_be(flow, &self.cell().name())?;
        let source = Source::Path(Arc::clone(self.engine_path()));
        let maker = Some(Arc::clone(self.cell()));
        Ok(Input { source, sha256: None, kind: self.kind(), maker })
    }
}
