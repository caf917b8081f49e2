//! Moving bytes for Keelboat: protocols, verified transfers, digests.
