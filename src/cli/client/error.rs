//! What can go wrong between this program and a broker, said so that a person knows which broker and what was asked.

use std::io;
use std::time::Duration;

use crate::protocol::api::ApiKey;
use crate::protocol::error_code::ErrorCode;
use crate::protocol::frame::{FrameError, Malformed};
use crate::protocol::primitive::EncodeError;

/// Why a request has no answer that can be used.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// No connection came about.
    #[error("cannot connect to broker {broker}: {source}")]
    Connect {
        /// The broker's address.
        broker: String,
        /// What the operating system said.
        source: io::Error,
    },
    /// None of the given addresses led to a broker.
    #[error("no broker answers: {}", .0.iter().map(ToString::to_string).collect::<Vec<_>>().join("; "))]
    NoBroker(Vec<ClientError>),
    /// The broker took too long.
    #[error("broker {broker} did not answer {api} within {} s", .after.as_secs_f64())]
    Timeout {
        /// The broker's address.
        broker: String,
        /// What was asked.
        api: ApiKey,
        /// How long the answer was waited for.
        after: Duration,
    },
    /// The connection ended before the answer.
    #[error("broker {broker} closed the connection before it answered {api}")]
    Closed {
        /// The broker's address.
        broker: String,
        /// What was asked.
        api: ApiKey,
    },
    /// The connection failed.
    #[error("connection to broker {broker} failed: {source}")]
    Io {
        /// The broker's address.
        broker: String,
        /// What the operating system said.
        source: io::Error,
    },
    /// What came back is no frame of the Kafka protocol.
    #[error("{broker} does not seem to speak the Kafka protocol: {source}")]
    Frame {
        /// The broker's address.
        broker: String,
        /// What is wrong with the frame.
        source: FrameError,
    },
    /// The answer cannot be decoded.
    #[error("the answer of broker {broker} cannot be read: {source}")]
    Malformed {
        /// The broker's address.
        broker: String,
        /// What is wrong with it.
        source: Malformed,
    },
    /// The answer belongs to another request.
    #[error("broker {broker} answered request {got} when {expected} was due")]
    OutOfOrder {
        /// The broker's address.
        broker: String,
        /// The correlation id that was due.
        expected: i32,
        /// The one that came.
        got: i32,
    },
    /// The request cannot be said in the version that both sides speak.
    #[error("broker {broker}: {source}")]
    Encode {
        /// The broker's address.
        broker: String,
        /// What cannot be said.
        source: EncodeError,
    },
    /// Both sides know the API, but no version in common, or the broker does not have it.
    #[error("broker {broker} {} of {api}, this client speaks {}-{}", spoken(.theirs), .api.spec().versions.start(), .api.spec().versions.end())]
    Version {
        /// The broker's address.
        broker: String,
        /// The API.
        api: ApiKey,
        /// First and last version of the broker, if it has the API.
        theirs: Option<(i16, i16)>,
    },
    /// The broker answered with an error.
    #[error("{what}: {code}{}", with_reason(.code, .message.as_deref()))]
    Refused {
        /// What was asked, and of which broker.
        what: String,
        /// The broker's error.
        code: ErrorCode,
        /// The broker's own words, if it gave any.
        message: Option<String>,
    },
    /// The broker's answer lacks what was asked for.
    #[error("broker {broker} left {what} out of its answer to {api}")]
    Missing {
        /// The broker's address.
        broker: String,
        /// The API.
        api: ApiKey,
        /// What is missing.
        what: String,
    },
    /// The topic has fewer partitions.
    #[error("topic {topic} has no partition {partition}: it has {count}")]
    NoPartition {
        /// The topic.
        topic: String,
        /// The partition asked for.
        partition: i32,
        /// How many there are.
        count: usize,
    },
    /// Nobody leads the partition at the moment.
    #[error("partition {partition} of topic {topic} has no leader")]
    NoLeader {
        /// The topic.
        topic: String,
        /// The partition.
        partition: i32,
    },
}

fn spoken(range: &Option<(i16, i16)>) -> String {
    match range {
        Some((first, last)) => format!("speaks versions {first}-{last}"),
        None => "speaks no version".to_owned(),
    }
}

fn with_reason(code: &ErrorCode, message: Option<&str>) -> String {
    match message {
        Some(message) if !message.is_empty() => format!(": {message}"),
        _ => format!(": {}", code.meaning()),
    }
}

impl ClientError {
    /// The broker's error code, if it is the broker that refused.
    #[must_use]
    pub fn code(&self) -> Option<ErrorCode> {
        match self {
            Self::Refused { code, .. } => Some(*code),
            _ => None,
        }
    }

    /// Whether the same request may succeed later, perhaps at another broker.
    #[must_use]
    pub fn may_pass(&self) -> bool {
        match self {
            Self::Refused { code, .. } => code.is_retriable(),
            Self::NoBroker(_)
            | Self::Connect { .. }
            | Self::Timeout { .. }
            | Self::Closed { .. }
            | Self::Io { .. }
            | Self::NoLeader { .. } => true,
            Self::Frame { .. }
            | Self::Malformed { .. }
            | Self::OutOfOrder { .. }
            | Self::Encode { .. }
            | Self::Version { .. }
            | Self::Missing { .. }
            | Self::NoPartition { .. } => false,
        }
    }

    /// Whether the broker could not be reached or did not answer: nothing is known of the request's fate.
    #[must_use]
    pub fn is_unreachable(&self) -> bool {
        !matches!(self, Self::Refused { .. }) && self.may_pass()
    }
}
