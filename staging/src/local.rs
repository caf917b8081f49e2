//! Work on local files, synchronous: digests, scratch directories, publication, delivery.

mod deliver;
mod digest;
mod error;
mod leftover;
mod memory;
mod output;
mod place;
mod publish;
mod recycle;
mod remove;
mod rename;
mod scratch;

pub use deliver::{Delivered, deliver};
pub use digest::digest_path;
pub use error::{LocalError, PublishError};
pub(crate) use leftover::{AGE_MIN, idle_for, is_dead, sweep_once};
pub use memory::{DigestMemory, Forgetful, stamp_of};
pub use output::capture;
pub use place::Placement;
pub(crate) use place::{leads_inside, place_tree};
pub use publish::publish;
pub(crate) use publish::sibling;
pub use recycle::Recycler;
pub use remove::remove_tree;
pub use scratch::Scratch;
