//! Moving bytes for Keelboat: protocols, verified transfers, digests of local files, the scratch
//! directories of attempts and the atomic publication of what tasks wrote.
//!
//! [`Fetcher`] brings remote files here over any [`Protocol`]; [`Scratch`], [`publish`] and
//! [`digest_path`] work on local files, synchronously.
//!
//! Deliberately absent: what to move and when (decided by `keelboat-engine`), and remembering
//! (`keelboat-checkpoint`, joined through the port [`DigestMemory`]).

mod address;
mod fetch;
mod local;
mod partial;
mod protocol;
mod retry;

pub use address::{address_digest, redact};
pub use fetch::{
    ConfigError, FetchConfig, FetchError, FetchRequest, Fetched, Fetcher, Known, Progress,
    TransferEvent,
};
pub use local::{
    Delivered, DigestMemory, Forgetful, LocalError, Placement, PublishError, Recycler, Scratch,
    deliver, digest_path, publish, remove_tree, stamp_of,
};
pub use protocol::{
    BoxFuture, BucketProtocol, ByteStream, Condition, Deadlined, FileProtocol, HttpConfig,
    HttpProtocol, Metadata, OpenRequest, Opened, Protocol, Throttled, TransferError, Validators,
    Verified,
};
pub use retry::RetryBudget;
