//! Attempts in containers: who runs them, and a word on images that may change.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};

use keelboat_engine::Failure;
use keelboat_executors::{ContainerConfig, Containers, LaunchSpec};

use crate::workflow::image;

/// Images that are warned of.
const WARNED_MAX: usize = 100;

#[derive(Debug)]
pub(crate) struct Contained {
    containers: Containers,
    warned: Mutex<BTreeSet<Arc<str>>>,
}

impl Contained {
    pub(super) fn new(config: ContainerConfig, token: &str) -> Self {
        Self { containers: Containers::new(config, token), warned: Mutex::default() }
    }

    /// The attempt in a container of this image, which sees these files beside its directory.
    pub(super) fn put(
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
}
