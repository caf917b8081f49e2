//! Tests of what is on disk, from outside: damage of every kind, crashes, and what comes back.

mod common;
mod crash;
mod damage;
mod digests;
mod golden;
mod lock;
mod memo;
mod objects;
mod snapshots;
