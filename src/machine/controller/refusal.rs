//! Why the controller refuses a request: a kind, which becomes Kafka's error code, and the message that clients print.

/// The kinds of refusal, each with the Kafka error that it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    /// `INVALID_TOPIC_EXCEPTION`.
    InvalidTopic,
    /// `TOPIC_ALREADY_EXISTS`.
    TopicExists,
    /// `UNKNOWN_TOPIC_OR_PARTITION`.
    UnknownTopic,
    /// `UNKNOWN_TOPIC_ID`.
    UnknownTopicId,
    /// `INVALID_PARTITIONS`.
    InvalidPartitions,
    /// `INVALID_REPLICATION_FACTOR`.
    InvalidReplicationFactor,
    /// `INVALID_REPLICA_ASSIGNMENT`.
    InvalidReplicaAssignment,
    /// `NO_REASSIGNMENT_IN_PROGRESS`.
    NoReassignment,
    /// `INVALID_CONFIG`.
    InvalidConfig,
    /// `INVALID_REQUEST`.
    InvalidRequest,
    /// `POLICY_VIOLATION`: one of the limits.
    Limit,
    /// `BROKER_ID_NOT_REGISTERED`.
    UnknownBroker,
    /// `UNKNOWN_SERVER_ERROR`: there are no ids left to hand out.
    Exhausted,
}

/// A request, or a part of one, that cannot be.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct Refusal {
    /// What becomes of it.
    pub kind: Kind,
    /// Why, for people; in Kafka's words where Kafka has some.
    pub message: String,
}

impl Refusal {
    pub(super) fn new(kind: Kind, message: impl Into<String>) -> Self {
        Self { kind, message: message.into() }
    }

    pub(super) fn unknown_topic() -> Self {
        Self::new(Kind::UnknownTopic, "This server does not host this topic-partition.")
    }
}
