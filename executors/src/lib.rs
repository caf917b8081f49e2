//! Running attempts for Keelboat: processes that die with the engine.
