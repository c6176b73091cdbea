//! The groups' network: gRPC between brokers.
//!
//! Three connections lead to each peer: for *beats*, for *control* (votes; small, strict deadlines) and for *data* (AppendEntries, snapshots). On the data
//! connection one bidirectional stream carries the sessions of all groups, pipelined ([`link`]). What is under way to a peer is bounded in
//! bytes; a session that catches up has a budget of its own, so that it cannot keep live traffic waiting.
//!
//! - [`client`]: openraft's network, over a [`link`] to each peer ([`Peers`]).
//! - [`service`]: the other side, which hands messages to the groups that are open here ([`Groups`]).
//! - `lending`: bytes of a log, for a replica that has them damaged.
//! - [`wire`]: between openraft's messages and those on the wire.
//!
//! Never: a message that makes a group. One for a replica that is not open here is refused.

use std::time::Duration;

pub mod client;
mod ended;
pub mod groups;
pub(crate) mod lending;
pub mod link;
mod pace;
pub mod peers;
pub mod serve;
pub mod service;
mod session;
pub mod wire;

#[allow(missing_docs, clippy::all, clippy::pedantic, clippy::cast_possible_truncation, clippy::unwrap_used)]
pub(crate) mod proto {
    tonic::include_proto!("ottla.broker.v1");
}

pub use groups::{Asked, Groups, Member, Standing, Votes};
pub use peers::Peers;

/// The metadata of every call: the cluster's id.
const CLUSTER: &str = "ottla-cluster";
/// The largest message: a frame holds whole batches, of which the largest that clients may send is a little smaller.
const MESSAGE_BYTES_MAX: usize = 128 << 20;
/// HTTP/2 flow control: what a peer may send before it is read.
const WINDOW_BYTES: u32 = 16 << 20;
/// The largest HTTP/2 frame that a peer may send.
const FRAME_BYTES_MAX: u32 = 1 << 20;
/// How often a connection is tried, and for how long it may be silent then: a peer without power says nothing, and TCP alone would wait for minutes.
const KEEP_ALIVE: Duration = Duration::from_secs(1);
const KEEP_ALIVE_PATIENCE: Duration = Duration::from_secs(2);
/// Parts that a snapshot is sent in.
const CHUNK_BYTES: usize = 1 << 20;
/// The largest snapshot that is taken in.
const SNAPSHOT_BYTES_MAX: u64 = 4 << 30;
