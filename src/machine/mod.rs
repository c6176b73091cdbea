//! The machines: the state that a Raft group's committed entries fold into.
//!
//! Each partition of a topic has a [`partition::PartitionMachine`] (log start, producer state); the cluster's own group has
//! a [`controller::Controller`] (topics, configs, brokers, ids). Work on a machine has two halves:
//! - *decide*, on the leader: a pure look at the state (and at what is proposed but not yet committed) that yields an entry
//!   to propose, or a typed refusal. It changes nothing.
//! - *apply*, on every replica alike, in log order: folds a committed entry in. It asks no clock, draws no random number
//!   and reads nothing but state and entry, so that all replicas stay equal.
//!
//! Invariant: state is a function of the entries' prefix, and `restore(snapshot())` equals it.
//! Bytes of commands and snapshots are stable: numbered tags, a version in front, golden tests.

pub mod controller;
pub mod groups;
pub mod keyed;
pub mod partition;
pub mod producer_state;
pub mod state_bytes;
pub mod topic_config;

use bytes::Bytes;

use crate::ids::{LogId, Offset};
use crate::protocol::batch::BatchHeader;
use state_bytes::StateError;

/// The state of one Raft group.
pub trait Machine: Send + 'static {
    /// Folds a committed entry in. Called once for each entry, in index order, on every replica.
    ///
    /// # Errors
    /// Only when the entry cannot be understood: it is damaged, or of a newer version of Ottla. The state is unchanged, and
    /// this replica must stop: to skip the entry would make it differ from the others.
    fn apply(&mut self, entry: Committed<'_>) -> Result<(), MachineError>;

    /// Whether records are read, not only counted: whole batches are fetched for it.
    fn reads_records(&self) -> bool {
        false
    }

    /// The first offset that clients may read (0 for a machine whose log clients do not read).
    fn log_start(&self) -> Offset {
        Offset(0)
    }

    /// About how many bytes [`Machine::snapshot`] takes, where that is many: it is not taken again for fewer bytes of log.
    fn snapshot_bytes(&self) -> u64 {
        0
    }

    /// The whole state, such that [`Machine::restore`] gives back an equal machine. The same state gives the same bytes.
    fn snapshot(&self) -> Bytes;

    /// The machine that `snapshot` was taken of.
    ///
    /// # Errors
    /// When the bytes are damaged or of a newer version.
    fn restore(snapshot: &[u8]) -> Result<Self, MachineError>
    where
        Self: Sized;
}

/// An entry that a majority has, as a machine sees it.
#[derive(Clone, Copy, Debug)]
pub struct Committed<'a> {
    /// Its place in the log.
    pub id: LogId,
    /// What it holds.
    pub what: What<'a>,
}

/// What a committed entry holds.
#[derive(Clone, Copy, Debug)]
pub enum What<'a> {
    /// A record batch. Its base offset is stamped.
    Records {
        /// The batch's header, which is all that concerns most machines.
        header: &'a BatchHeader,
        /// The whole batch, for a machine that reads it.
        batch: Option<&'a Bytes>,
    },
    /// A command of this machine's own.
    Command(&'a [u8]),
    /// Nothing: a new leader's first entry, or a change of membership.
    Blank,
}

/// Why an entry or a snapshot cannot be taken in.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum MachineError {
    /// A command's bytes.
    #[error("read command: {0}")]
    Command(StateError),
    /// A snapshot's bytes.
    #[error("read snapshot: {0}")]
    Snapshot(StateError),
    /// Records that a coordinator cannot read.
    #[error("read a coordinator's records: {0}")]
    Unreadable(String),
    /// A record batch in a group that stores none.
    #[error("a record batch in a group that stores none")]
    Records,
}
