//! What Keelboat remembers: journal, memo store, object cache, digest cache.
