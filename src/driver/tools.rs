//! Programs that attempts run by: what runs containers, and what starts MPI programs; and a word on
//! images that may change.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};

use keelboat_engine::{Failure, Ranks};
use keelboat_executors::{Containers, LaunchSpec, MpiConfig};

use crate::settings::Settings;
use crate::workflow::image;

/// Images that are warned of.
const WARNED_MAX: usize = 100;

#[derive(Debug)]
pub(crate) struct Tools {
    containers: Containers,
    mpi: MpiConfig,
    warned: Mutex<BTreeSet<Arc<str>>>,
}

impl Tools {
    /// Those of an executor with this token.
    pub(super) fn new(settings: &Settings, token: &str) -> Self {
        let containers = Containers::new(settings.containers(), token);
        Self { containers, mpi: settings.mpi(), warned: Mutex::default() }
    }

    /// The attempt in a container of this image, which sees these files beside its directory.
    pub(super) fn contain(
        &self,
        image: &str,
        spec: LaunchSpec,
        read_only: &[PathBuf],
    ) -> Result<LaunchSpec, Failure> {
        self.containers.contain(image, spec, read_only).map_err(|error| error.failure())
    }

    /// What is to be said of an image, the first time that it is used.
    pub(super) fn warning(&self, image: &Arc<str>) -> Option<String> {
        let mut warned = self.warned.lock().unwrap_or_else(PoisonError::into_inner);
        let is_known = image::is_exact(image) || warned.len() >= WARNED_MAX;
        if is_known || !warned.insert(Arc::clone(image)) {
            return None;
        }
        Some(format!(
            "the image {image} is named without its digest: when another one gets that name, \
             results of this one still count (name@sha256:… is exact)"
        ))
    }

    /// What starts a program as so many processes, which have so many cores together. In a container
    /// it is one of the image.
    pub(super) fn mpi_prefix(
        &self,
        ranks: Ranks,
        cores: u32,
        image: Option<&Arc<str>>,
    ) -> Result<Vec<String>, Failure> {
        let path = image.is_none().then(|| std::env::var_os("PATH").unwrap_or_default());
        self.mpi.prefix(ranks, cores / ranks.total().max(1), path.as_deref())
    }
}
