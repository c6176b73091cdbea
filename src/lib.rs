//! Ottla: a distributed event-streaming broker that speaks the Apache Kafka protocol.
//!
//! # Map, in dependency order (`tests/tidy.rs` guards the arrows)
//!
//! Pure: no tokio, no clock, no randomness, no threads, no openraft.
//! - [`ids`]: newtypes for every id and position.
//! - [`protocol`]: the Kafka wire codec, bytes to structs and back.
//! - [`log`]: one partition's append-only log, and the [`log::disk::Disk`] seam under it.
//! - [`machine`]: the state folded from committed entries (producer state, controller).
//!
//! Shell: async, thin, no decisions.
//! - [`net`]: the network seam.
//! - [`raft`]: the only module that names openraft.
//! - [`cluster`]: how brokers find each other and who belongs to the cluster.
//! - [`replica`]: one partition on this broker: submit, read, watermarks.
//! - [`server`]: the Kafka listener, one handler file an API.
//! - [`broker`]: the whole broker from a config and an environment; production, tests and simulation call it alike.
//! - [`cli`]: the operator's subcommands, written on the Kafka protocol like any client.
//!
//! Leaves, for the shell:
//! - [`clock`]: the time of day, as a seam.
//! - [`config`]: the TOML file, the environment and the flags: what an operator can set.
//! - [`metrics`]: what is counted.
//! - [`flaws`]: bugs that a simulation plants; none ships.
//! - [`admin`]: the port for `/metrics` and the probes.

pub mod admin;
pub mod broker;
pub mod cli;
pub mod clock;
pub mod cluster;
pub mod config;
pub mod flaws;
pub mod ids;
pub mod log;
pub mod machine;
pub mod metrics;
pub mod net;
pub mod protocol;
pub mod raft;
pub mod replica;
pub mod server;
