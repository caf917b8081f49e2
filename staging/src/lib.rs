//! Moving bytes for Keelboat: protocols, verified transfers, digests of local files, the scratch
//! directories of attempts and the atomic publication of what tasks wrote.
//!
//! [`Stager`] brings remote files here over any [`Protocol`]; [`Scratch`], [`publish`] and
//! [`digest_path`] work on local files, synchronously.
//!
//! Deliberately absent: what to move and when (decided by `keelboat-engine`), and remembering
//! (`keelboat-checkpoint`, joined through the port [`DigestMemory`]).

mod address;
mod archive;
mod credentials;
mod deliver;
mod fetch;
mod gate;
mod globus;
mod local;
mod partial;
mod private;
mod protocol;
mod retry;

pub use address::{Address, address_digest, child_address, is_address, redact};
pub use credentials::{Credential, Credentials, CredentialsError, Secret};
pub use deliver::{DeliverError, Delivery, Over};
pub use fetch::{
    ConfigError, FetchError, FetchRequest, Fetched, Known, NextTry, Progress, Room, Stager,
    StagingConfig, TransferEvent,
};
pub use gate::{Gate, Permit, Turn};
pub use globus::{
    Globus, GlobusConfig, LocalCollection, is_id as is_collection_id, login as globus_login,
};
pub use keelboat_engine::queue::{BreakerPolicy, Elsewhere, Limit, QueueLimits};
pub use local::{
    Delivered, DigestMemory, Forgetful, LocalError, Placement, PublishError, Recycler, Scratch,
    capture, deliver, digest_path, publish, remove_tree, stamp_of,
};
pub use partial::{PARTIAL_KEPT, abandoned};
pub use protocol::{
    AddressPolicy, BoxFuture, BucketProtocol, ByteStream, Condition, Courier, DataProtocol,
    Deadlined, Depth, Entry, Errand, Fault, FileProtocol, FtpConfig, FtpProtocol, HttpConfig,
    HttpProtocol, ListRequest, Metadata, OpenRequest, Opened, Parallel, Proof, Protocol,
    PutRequest, Renamed, Sent, SftpConfig, SftpProtocol, Spreading, Throttled, TransferError,
    Validators, Verified, Writing,
};
pub use retry::RetryBudget;
