//! Keelboat.
