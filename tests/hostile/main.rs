//! Peers that mean harm, or are broken: junk, truncated, oversized and slow frames, lying batches, connections by the thousand.
//!
//! The real binary, in a process of its own, each time with an honest client beside them, whose requests must go on being served and
//! whose acknowledged records must be there at the end. What the peer sees is asserted (a closed connection, or Kafka's error code), that
//! memory stays within `[limits]`, and that the log says who, what and why.

#![allow(clippy::unwrap_used, reason = "what fails here fails the test")]

mod batches;
#[path = "../apis/client.rs"]
mod client;
mod connections;
mod frames;
mod kit;
mod memory;
