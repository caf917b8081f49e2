//! Commands in containers: by apptainer, singularity, podman or docker, whichever is there.
//!
//! An attempt that is to run in a container becomes an attempt whose command is the tool's. Its
//! scratch directory is mounted at its own path, and all that it is to read and to write is in
//! there. Deliberately absent: what a tool does by itself, such as bringing images and keeping them.

mod find;
mod wrap;

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt as _;
use std::path::PathBuf;
use std::sync::{Mutex, PoisonError};

use keelboat_engine::{AttemptId, Failure, FailureClass};

use crate::{LaunchSpec, MARK_VARIABLE, mark};

/// A program that runs containers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ContainerTool {
    /// <https://apptainer.org>
    Apptainer,
    /// <https://sylabs.io/singularity>, which came before Apptainer.
    Singularity,
    /// <https://podman.io>
    Podman,
    /// <https://www.docker.com>
    Docker,
}

impl ContainerTool {
    /// All of them, in the order in which they are looked for.
    pub const ALL: [Self; 4] = [Self::Apptainer, Self::Singularity, Self::Podman, Self::Docker];

    /// The name of its program.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Apptainer => "apptainer",
            Self::Singularity => "singularity",
            Self::Podman => "podman",
            Self::Docker => "docker",
        }
    }
}

/// Which tool runs containers, and how.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ContainerConfig {
    /// The tool; the first one that is there when not said.
    pub tool: Option<ContainerTool>,
    /// Put before the image in its command line.
    pub args: Vec<String>,
}

/// Why no container can be started.
#[derive(Debug, thiserror::Error)]
pub enum ContainerError {
    /// None of the tools is there.
    #[error(
        "there is no program to run containers: none of apptainer, singularity, podman and docker is in PATH"
    )]
    NoTool,
    /// The tool that the settings name is not there.
    #[error("there is no {} in PATH, and the settings say to run containers by it", .0.name())]
    Missing(ContainerTool),
    /// Docker's other half does not answer.
    #[error("docker is here, but its daemon does not answer: {0}")]
    NoDaemon(String),
    /// An image that only another tool can run.
    #[error("{} cannot run the image {image:?}", tool.name())]
    Image {
        /// The tool.
        tool: ContainerTool,
        /// The image.
        image: String,
    },
    /// A path that cannot be said in a command line of the tool.
    #[error("{} cannot be mounted in a container: {} takes no path with a comma, a colon or a quote", path.display(), tool.name())]
    Path {
        /// The tool.
        tool: ContainerTool,
        /// The path.
        path: PathBuf,
    },
    /// Something that is no command, or none yet, was to run in a container.
    #[error("this cannot run in a container, since it is no command")]
    NoCommand,
}

impl ContainerError {
    /// This, as a failure of an attempt.
    pub fn failure(&self) -> Failure {
        let hint = match self {
            Self::NoTool => {
                "install one of them, such as podman (`apt-get install podman`), and see that it is in PATH"
            }
            Self::Missing(_) => {
                "install it, or name another one in keelboat.toml: [containers] tool = \"podman\""
            }
            Self::NoDaemon(_) => {
                "start it, or name another tool in keelboat.toml: [containers] tool = \"podman\""
            }
            Self::Image { .. } => {
                "name an image of a registry, or take apptainer: [containers] tool = \"apptainer\""
            }
            Self::Path { .. } => "move the project to a directory without them",
            Self::NoCommand => "make a command of it",
        };
        Failure::new(FailureClass::Permanent, self.to_string()).with_hint(hint)
    }
}

/// Puts attempts into containers.
#[derive(Debug)]
pub struct Containers {
    config: ContainerConfig,
    token: String,
    found: Mutex<Option<Found>>,
}

/// A tool of this machine.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Found {
    tool: ContainerTool,
    program: PathBuf,
    user: User,
}

/// Who the processes in a container are, so that what they write is ours.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum User {
    /// The tool sees to it.
    Own,
    /// The same numbers inside and outside.
    Same { user: u32, group: u32 },
    /// As `Same`, where users are mapped, and are not to be for this one.
    Kept { user: u32, group: u32 },
    /// Root inside is who started the daemon.
    Root,
}

impl Containers {
    /// Containers of the executor with this token.
    pub fn new(config: ContainerConfig, token: &str) -> Self {
        Self { config, token: token.to_owned(), found: Mutex::new(None) }
    }

    /// The attempt in a container of this image. `read_only`: files outside of its directory that
    /// it is to see. The first time, it looks for the tool, which takes 20 seconds at most.
    ///
    /// # Errors
    /// No tool is there, or it cannot run this.
    pub fn contain(
        &self,
        image: &str,
        spec: LaunchSpec,
        read_only: &[PathBuf],
    ) -> Result<LaunchSpec, ContainerError> {
        let found = self.found()?;
        let contained = wrap::Contained {
            image,
            name: self.name(spec.attempt),
            mark: self.mark(spec.attempt),
            read_only,
            args: &self.config.args,
        };
        wrap::wrap(&found, &contained, spec)
    }

    /// What is found is remembered; what is not there may be installed meanwhile.
    fn found(&self) -> Result<Found, ContainerError> {
        let mut found = self.found.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(found) = &*found {
            return Ok(found.clone());
        }
        let path = std::env::var_os("PATH").unwrap_or_default();
        let new = find::find(self.config.tool, &path)?;
        tracing::info!(program = %new.program.display(), user = ?new.user, "containers are run by this");
        Ok(found.insert(new).clone())
    }

    /// The name of the container of an attempt: there is one at most, on the whole machine.
    fn name(&self, attempt: AttemptId) -> String {
        format!("keelboat-{}-{attempt}", self.token)
    }

    fn mark(&self, attempt: AttemptId) -> String {
        let inherited = std::env::var_os(MARK_VARIABLE);
        let mut mark = mark::prefix(inherited.as_deref(), &self.token);
        mark.extend_from_slice(attempt.to_string().as_bytes());
        OsStr::from_bytes(&mark).to_string_lossy().into_owned()
    }
}

/// What is to be said of an attempt in a container that ended with this exit code.
pub fn container_hint(image: &str, code: i32) -> Option<String> {
    Some(match code {
        125 => {
            "125 is what podman and docker end with when they cannot start the container: standard \
             error says why"
                .to_owned()
        }
        255 => {
            "255 is what apptainer ends with when it cannot start the container: standard error \
                says why"
                .to_owned()
        }
        126 | 127 => {
            format!("programs are looked for in the image {image}, and not on this machine")
        }
        _ => return None,
    })
}
