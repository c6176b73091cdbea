//! The one table from our errors to the wire: every variant has its code, and a new variant does not compile without one.
//!
//! `UNKNOWN_SERVER_ERROR` is not retriable and never stands for something transient.

use std::cmp::Ordering;

use crate::ids::{PartitionId, Term};
use crate::log::ReadError;
use crate::machine::controller::Kind;
use crate::machine::producer_state::Refusal;
use crate::protocol::batch::BatchError;
use crate::protocol::error_code::ErrorCode;
use crate::replica::SubmitError;
use crate::replica::set::Held;

use super::Context;

/// A partition that this broker cannot serve: offline, not there yet, or unknown.
#[must_use]
pub fn missing_partition(context: &Context, id: PartitionId) -> ErrorCode {
    match context.replicas.held(id) {
        Some(Held::Offline(_)) => ErrorCode::KAFKA_STORAGE_ERROR,
        Some(Held::Open(_)) => ErrorCode::NOT_LEADER_OR_FOLLOWER,
        // Led elsewhere, or created a moment ago: the client looks for the leader, as it does after one has moved.
        None if context.controller.has_partition(id) => ErrorCode::NOT_LEADER_OR_FOLLOWER,
        None => ErrorCode::UNKNOWN_TOPIC_OR_PARTITION,
    }
}

/// Why a batch was not taken.
#[must_use]
pub fn submit(error: &SubmitError) -> ErrorCode {
    match error {
        SubmitError::NotLeader | SubmitError::Unknown => ErrorCode::NOT_LEADER_OR_FOLLOWER,
        SubmitError::StorageFull(_) => ErrorCode::KAFKA_STORAGE_ERROR,
        SubmitError::Refused(refusal) => refused(*refusal),
    }
}

fn refused(refusal: Refusal) -> ErrorCode {
    match refusal {
        Refusal::OutOfOrder { .. } | Refusal::NewEpochNotAtZero { .. } => ErrorCode::OUT_OF_ORDER_SEQUENCE_NUMBER,
        Refusal::OldEpoch { .. } => ErrorCode::INVALID_PRODUCER_EPOCH,
    }
}

/// Why a batch is not one.
#[must_use]
pub fn batch(error: &BatchError) -> ErrorCode {
    match error {
        BatchError::Length(_) | BatchError::UnknownMagic(_) | BatchError::Crc { .. } => ErrorCode::CORRUPT_MESSAGE,
        BatchError::Missing
        | BatchError::OldMagic(_)
        | BatchError::MoreThanOne
        | BatchError::Trailing(_)
        | BatchError::BaseOffset(_)
        | BatchError::Count(_)
        | BatchError::OffsetRange { .. }
        | BatchError::Sequence { .. }
        | BatchError::Control
        | BatchError::Compression(_)
        | BatchError::Record { .. }
        | BatchError::TrailingInBatch(_) => ErrorCode::INVALID_RECORD,
    }
}

/// Checks the leader epoch that a client knows (-1: none) against the term in which this broker serves the partition (KIP-320).
///
/// # Errors
/// If this broker does not lead, or if one side's epoch is old.
pub fn leader_epoch(term: Option<Term>, known: i32) -> Result<(), ErrorCode> {
    let epoch = term.ok_or(ErrorCode::NOT_LEADER_OR_FOLLOWER)?.epoch();
    match known.cmp(&epoch) {
        _ if known < 0 => Ok(()),
        Ordering::Less => Err(ErrorCode::FENCED_LEADER_EPOCH),
        Ordering::Equal => Ok(()),
        Ordering::Greater => Err(ErrorCode::UNKNOWN_LEADER_EPOCH),
    }
}

/// Why a read gave nothing.
#[must_use]
pub fn read(error: &ReadError) -> ErrorCode {
    match error {
        ReadError::OutOfRange { .. } => ErrorCode::OFFSET_OUT_OF_RANGE,
        // That range only: the client goes around it, others are served.
        ReadError::Corrupt(_) => ErrorCode::CORRUPT_MESSAGE,
        ReadError::Io(_) => ErrorCode::KAFKA_STORAGE_ERROR,
    }
}

/// Why the controller refuses a change.
#[must_use]
pub fn controller(kind: Kind) -> ErrorCode {
    match kind {
        Kind::InvalidTopic => ErrorCode::INVALID_TOPIC_EXCEPTION,
        Kind::TopicExists => ErrorCode::TOPIC_ALREADY_EXISTS,
        Kind::UnknownTopic => ErrorCode::UNKNOWN_TOPIC_OR_PARTITION,
        Kind::UnknownTopicId => ErrorCode::UNKNOWN_TOPIC_ID,
        Kind::InvalidPartitions => ErrorCode::INVALID_PARTITIONS,
        Kind::InvalidReplicationFactor => ErrorCode::INVALID_REPLICATION_FACTOR,
        Kind::InvalidReplicaAssignment => ErrorCode::INVALID_REPLICA_ASSIGNMENT,
        Kind::NoReassignment => ErrorCode::NO_REASSIGNMENT_IN_PROGRESS,
        Kind::InvalidConfig => ErrorCode::INVALID_CONFIG,
        Kind::InvalidRequest => ErrorCode::INVALID_REQUEST,
        Kind::Limit => ErrorCode::POLICY_VIOLATION,
        Kind::UnknownBroker => ErrorCode::BROKER_ID_NOT_REGISTERED,
        Kind::Exhausted => ErrorCode::UNKNOWN_SERVER_ERROR,
    }
}
