//! One Raft group per partition. The only module that names openraft.
//!
//! Owns the translation between openraft's types and the log's: a group's Raft log *is* the partition's Kafka log
//! ([`log_store`]), "flushed" means synced ([`flusher`]), and committed entries fold into a machine ([`applier`]).
//!
//! Invariants: an entry counts for this voter only after the sync that covers it (`acked-is-flushed`); what is applied is
//! published before anybody is told of it (`publish-before-reply`). Never: a decision about a client's request; a lock
//! held across an await.

pub mod applier;
pub mod flusher;
pub mod group;
mod lag;
pub mod liveness;
pub mod log_store;
mod member;
pub mod node;
pub mod refound;
mod runtime;
pub mod transport;
pub mod types;

pub use applier::{AppliedState, Observer};
pub use flusher::{Fatal, FatalHook, Flusher};
pub use group::{Group, GroupConfig, ProposeError, StartError};
pub use node::Node;
pub use transport::Peers;
pub use types::{Applied, Command};

#[cfg(test)]
mod cluster_kit;
#[cfg(test)]
mod cluster_tests;

#[cfg(test)]
mod tests;
