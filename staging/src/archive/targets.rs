//! Several members that are taken out of an archive while it is read once.

use super::target::{Node, Target, normal};
use crate::protocol::TransferError;

/// None of them is another one, or below another one: whatever is in the archive, one of them wants
/// it at most.
pub(super) struct Targets<'a>(Vec<Aim<'a>>);

/// One target, as long as nothing is wrong with it.
pub(super) struct Aim<'a> {
    target: Target<'a>,
    error: Option<TransferError>,
}

impl<'a> Targets<'a> {
    pub(super) fn new(targets: impl Iterator<Item = Target<'a>>) -> Self {
        Self(targets.map(|target| Aim { target, error: None }).collect())
    }

    /// The one that wants a member of this name.
    pub(super) fn wanting(&mut self, name: &[u8]) -> Option<&mut Aim<'a>> {
        let normal = normal(name);
        let mut found = None;
        for aim in self.0.iter_mut().filter(|aim| aim.error.is_none()) {
            match aim.target.wants(name, normal.as_deref()) {
                Ok(true) => found = Some(aim),
                Ok(false) => {}
                Err(error) => aim.error = Some(error),
            }
        }
        found
    }

    /// Whether there is nothing left to read for.
    pub(super) fn have_failed(&self) -> bool {
        self.0.iter().all(|aim| aim.error.is_some())
    }

    /// What each of them came to, in their order, when the archive has been read; see
    /// [`Target::finish`].
    pub(super) fn finish(
        self,
        read: &Result<(), TransferError>,
    ) -> Vec<Result<Option<Vec<u8>>, TransferError>> {
        let ended = self.0.into_iter().map(|Aim { target, error }| match (error, read) {
            (Some(error), _) => Err(error),
            (None, Err(error)) => Err(error.clone()),
            (None, Ok(())) => target.finish(),
        });
        ended.collect()
    }
}

impl Aim<'_> {
    /// Takes a member that it wants.
    pub(super) fn take(&mut self, name: &[u8], node: Node<'_>) {
        if let Err(error) = self.target.take(name, node) {
            self.error = Some(error);
        }
    }
}
