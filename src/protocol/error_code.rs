//! THE table of Kafka's error codes, as of Kafka 4.3: code, name, whether a client tries again, and what it means.

use std::fmt;

/// An error code on the wire. Codes that this table does not have are carried as they are.
#[derive(Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ErrorCode(pub i16);

/// Whether a client that gets a code may ask again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Again {
    /// The same request fails the same way.
    No,
    /// The same request may succeed later.
    Yes,
    /// The same request may succeed at another broker, after a refresh of metadata.
    Elsewhere,
}

macro_rules! error_codes {
    ($($code:literal $name:ident $again:ident $meaning:literal)*) => {
        impl ErrorCode {
            $(
                #[doc = $meaning]
                pub const $name: Self = Self($code);
            )*

            /// Every code of the table, ascending.
            pub const ALL: &[Self] = &[$(Self::$name,)*];

            fn row(self) -> Option<(&'static str, Again, &'static str)> {
                match self.0 {
                    $($code => Some((stringify!($name), Again::$again, $meaning)),)*
                    _ => None,
                }
            }
        }
    };
}

error_codes! {
    -1 UNKNOWN_SERVER_ERROR No "The broker failed in a way that has no code of its own."
    0 NONE No "No error."
    1 OFFSET_OUT_OF_RANGE No "The offset is below the start of the partition or above its end."
    2 CORRUPT_MESSAGE Yes "The batch does not match its checksum or its size, or is malformed otherwise."
    3 UNKNOWN_TOPIC_OR_PARTITION Elsewhere "This broker has no such topic or partition."
    4 INVALID_FETCH_SIZE No "The size to fetch is not valid."
    5 LEADER_NOT_AVAILABLE Elsewhere "The partition has no leader at the moment."
    6 NOT_LEADER_OR_FOLLOWER Elsewhere "This broker does not lead the partition, or holds no replica of it."
    7 REQUEST_TIMED_OUT Yes "The request was not completed in time."
    8 BROKER_NOT_AVAILABLE No "The broker is not available."
    9 REPLICA_NOT_AVAILABLE Elsewhere "The replica is not available here."
    10 MESSAGE_TOO_LARGE No "The batch is larger than the topic allows."
    11 STALE_CONTROLLER_EPOCH No "The controller's epoch is old: another one has taken over."
    12 OFFSET_METADATA_TOO_LARGE No "The metadata given with an offset is too long."
    13 NETWORK_EXCEPTION Elsewhere "The connection ended before the response."
    14 COORDINATOR_LOAD_IN_PROGRESS Yes "The coordinator is still loading its state."
    15 COORDINATOR_NOT_AVAILABLE Yes "There is no coordinator at the moment."
    16 NOT_COORDINATOR Yes "This broker is not the coordinator."
    17 INVALID_TOPIC_EXCEPTION No "The topic's name is not valid, or the topic is not open to this operation."
    18 RECORD_LIST_TOO_LARGE No "The batch is larger than a segment."
    19 NOT_ENOUGH_REPLICAS Yes "Too few replicas are in sync; nothing was written."
    20 NOT_ENOUGH_REPLICAS_AFTER_APPEND Yes "The records were written, then too few replicas were in sync."
    21 INVALID_REQUIRED_ACKS No "The required acknowledgements are not -1, 0 or 1."
    22 ILLEGAL_GENERATION No "The group is not in that generation."
    23 INCONSISTENT_GROUP_PROTOCOL No "The member shares no protocol with its group, or names none."
    24 INVALID_GROUP_ID No "The group id is not valid."
    25 UNKNOWN_MEMBER_ID No "The coordinator does not know this member."
    26 INVALID_SESSION_TIMEOUT No "The session timeout is outside the range that the broker allows."
    27 REBALANCE_IN_PROGRESS No "The group is rebalancing: join again."
    28 INVALID_COMMIT_OFFSET_SIZE No "The offsets to commit are too large."
    29 TOPIC_AUTHORIZATION_FAILED No "Not authorised for the topic."
    30 GROUP_AUTHORIZATION_FAILED No "Not authorised for the group."
    31 CLUSTER_AUTHORIZATION_FAILED No "Not authorised for the cluster."
    32 INVALID_TIMESTAMP No "A record's timestamp is outside the range that the topic allows."
    33 UNSUPPORTED_SASL_MECHANISM No "The broker does not offer this SASL mechanism."
    34 ILLEGAL_SASL_STATE No "The request does not fit the state of the SASL exchange."
    35 UNSUPPORTED_VERSION No "The broker does not support this version of the API."
    36 TOPIC_ALREADY_EXISTS No "A topic of this name exists."
    37 INVALID_PARTITIONS No "The number of partitions is not valid."
    38 INVALID_REPLICATION_FACTOR No "The replication factor is below 1 or above the number of brokers."
    39 INVALID_REPLICA_ASSIGNMENT No "The assignment of replicas is not valid."
    40 INVALID_CONFIG No "The configuration is not valid."
    41 NOT_CONTROLLER Yes "This broker is not the controller."
    42 INVALID_REQUEST No "The request contradicts itself or the protocol."
    43 UNSUPPORTED_FOR_MESSAGE_FORMAT No "The stored message format does not allow the request."
    44 POLICY_VIOLATION No "The request is against a policy of the cluster."
    45 OUT_OF_ORDER_SEQUENCE_NUMBER No "The producer's sequence number is not the next one."
    46 DUPLICATE_SEQUENCE_NUMBER No "The producer's sequence number was used before."
    47 INVALID_PRODUCER_EPOCH No "The producer's epoch is old."
    48 INVALID_TXN_STATE No "The transaction is not in a state that allows the operation."
    49 INVALID_PRODUCER_ID_MAPPING No "The producer id is not the one of its transactional id."
    50 INVALID_TRANSACTION_TIMEOUT No "The transaction timeout is longer than the broker allows."
    51 CONCURRENT_TRANSACTIONS Yes "Another operation on the same transaction is under way."
    52 TRANSACTION_COORDINATOR_FENCED No "The coordinator that wrote the marker has been replaced."
    53 TRANSACTIONAL_ID_AUTHORIZATION_FAILED No "Not authorised for the transactional id."
    54 SECURITY_DISABLED No "Security is not turned on."
    55 OPERATION_NOT_ATTEMPTED No "Not tried, because another part of the same request failed."
    56 KAFKA_STORAGE_ERROR Elsewhere "The broker cannot use the disk that holds the partition."
    57 LOG_DIR_NOT_FOUND No "The broker has no such data directory."
    58 SASL_AUTHENTICATION_FAILED No "Authentication failed."
    59 UNKNOWN_PRODUCER_ID No "The partition holds nothing of this producer any more."
    60 REASSIGNMENT_IN_PROGRESS No "The partition is being reassigned."
    61 DELEGATION_TOKEN_AUTH_DISABLED No "Delegation tokens are not turned on."
    62 DELEGATION_TOKEN_NOT_FOUND No "There is no such delegation token."
    63 DELEGATION_TOKEN_OWNER_MISMATCH No "The principal neither owns the delegation token nor may renew it."
    64 DELEGATION_TOKEN_REQUEST_NOT_ALLOWED No "Delegation tokens cannot be asked for over this connection."
    65 DELEGATION_TOKEN_AUTHORIZATION_FAILED No "Not authorised for the delegation token."
    66 DELEGATION_TOKEN_EXPIRED No "The delegation token has expired."
    67 INVALID_PRINCIPAL_TYPE No "Principals of this type are not supported."
    68 NON_EMPTY_GROUP No "The group has members."
    69 GROUP_ID_NOT_FOUND No "There is no such group."
    70 FETCH_SESSION_ID_NOT_FOUND Yes "There is no such fetch session."
    71 INVALID_FETCH_SESSION_EPOCH Yes "The fetch session is not at that epoch."
    72 LISTENER_NOT_FOUND Elsewhere "The leader has no listener like the one that was asked."
    73 TOPIC_DELETION_DISABLED No "Deleting topics is turned off."
    74 FENCED_LEADER_EPOCH Elsewhere "The leader epoch in the request is older than the broker's."
    75 UNKNOWN_LEADER_EPOCH Yes "The leader epoch in the request is newer than the broker's."
    76 UNSUPPORTED_COMPRESSION_TYPE No "This version of the API does not know the compression."
    77 STALE_BROKER_EPOCH No "The broker's epoch is old."
    78 OFFSET_NOT_AVAILABLE Yes "A new leader does not know yet how far the partition is committed."
    79 MEMBER_ID_REQUIRED No "Join again with the member id that came with this error."
    80 PREFERRED_LEADER_NOT_AVAILABLE Elsewhere "The preferred leader is not available."
    81 GROUP_MAX_SIZE_REACHED No "The group is full."
    82 FENCED_INSTANCE_ID No "Another member has taken this group instance id."
    83 ELIGIBLE_LEADERS_NOT_AVAILABLE Elsewhere "No replica that could lead is available."
    84 ELECTION_NOT_NEEDED Elsewhere "The partition needs no election."
    85 NO_REASSIGNMENT_IN_PROGRESS No "The partition is not being reassigned."
    86 GROUP_SUBSCRIBED_TO_TOPIC No "The group is subscribed to the topic, so its offsets cannot be deleted."
    87 INVALID_RECORD No "The broker's validation refused a record or batch."
    88 UNSTABLE_OFFSET_COMMIT Yes "Offsets of an open transaction are pending."
    89 THROTTLING_QUOTA_EXCEEDED Yes "A quota is used up."
    90 PRODUCER_FENCED No "A newer producer uses the same transactional id."
    91 RESOURCE_NOT_FOUND No "The request names a resource that does not exist."
    92 DUPLICATE_RESOURCE No "The request names a resource twice."
    93 UNACCEPTABLE_CREDENTIAL No "The credential is not acceptable."
    94 INCONSISTENT_VOTER_SET No "Sender and receiver disagree about who votes."
    95 INVALID_UPDATE_VERSION No "The version to update to is not valid."
    96 FEATURE_UPDATE_FAILED No "Features could not be updated."
    97 PRINCIPAL_DESERIALIZATION_FAILURE No "The principal of a forwarded request could not be read."
    98 SNAPSHOT_NOT_FOUND No "There is no such snapshot."
    99 POSITION_OUT_OF_RANGE No "The position is outside the snapshot."
    100 UNKNOWN_TOPIC_ID Elsewhere "This broker has no topic of that id."
    101 DUPLICATE_BROKER_REGISTRATION No "The broker id is in use."
    102 BROKER_ID_NOT_REGISTERED No "No broker of that id is registered."
    103 INCONSISTENT_TOPIC_ID Elsewhere "The topic id is not the one of the partition's log."
    104 INCONSISTENT_CLUSTER_ID No "The cluster id is not that of this cluster."
    105 TRANSACTIONAL_ID_NOT_FOUND No "There is no such transactional id."
    106 FETCH_SESSION_TOPIC_ID_ERROR Yes "The fetch session mixes requests with and without topic ids."
    107 INELIGIBLE_REPLICA No "A replica may not be in the new set of in-sync replicas."
    108 NEW_LEADER_ELECTED No "The change was made, and the partition has another leader now."
    109 OFFSET_MOVED_TO_TIERED_STORAGE No "The offset is in tiered storage now."
    110 FENCED_MEMBER_EPOCH No "The member's epoch is fenced: give up all partitions and join again."
    111 UNRELEASED_INSTANCE_ID No "Another member of the group still uses the instance id."
    112 UNSUPPORTED_ASSIGNOR No "The group does not support the assignor."
    113 STALE_MEMBER_EPOCH No "The member's epoch is old: try again with the one of the next heartbeat."
    114 MISMATCHED_ENDPOINT_TYPE No "The request went to an endpoint of the wrong kind."
    115 UNSUPPORTED_ENDPOINT_TYPE No "Endpoints of this kind are not supported."
    116 UNKNOWN_CONTROLLER_ID No "There is no controller of that id."
    117 UNKNOWN_SUBSCRIPTION_ID No "The telemetry subscription is unknown or old."
    118 TELEMETRY_TOO_LARGE No "The telemetry is larger than the broker accepts."
    119 INVALID_REGISTRATION No "The controller refused the broker's registration."
    120 TRANSACTION_ABORTABLE No "The transaction failed; the client may abort it and go on."
    121 INVALID_RECORD_STATE No "The record is not in a state that can be acknowledged."
    122 SHARE_SESSION_NOT_FOUND Yes "There is no such share session."
    123 INVALID_SHARE_SESSION_EPOCH Yes "The share session is not at that epoch."
    124 FENCED_STATE_EPOCH No "The share group's state has another epoch."
    125 INVALID_VOTER_KEY No "The voter's key is not the one of the receiver."
    126 DUPLICATE_VOTER No "The voter is in the set already."
    127 VOTER_NOT_FOUND No "The voter is not in the set."
    128 INVALID_REGULAR_EXPRESSION No "The regular expression is not valid."
    129 REBOOTSTRAP_REQUIRED No "What the client knows of the cluster is too old: bootstrap again."
    130 STREAMS_INVALID_TOPOLOGY No "The topology is not valid."
    131 STREAMS_INVALID_TOPOLOGY_EPOCH No "The topology epoch is not valid."
    132 STREAMS_TOPOLOGY_FENCED No "The topology epoch is old."
    133 SHARE_SESSION_LIMIT_REACHED Yes "There are as many share sessions as the broker allows."
}

impl ErrorCode {
    /// Whether there is an error.
    #[must_use]
    pub fn is_error(self) -> bool {
        self != Self::NONE
    }

    /// The name, as Kafka spells it; `UNKNOWN` for a code that the table lacks.
    #[must_use]
    pub fn name(self) -> &'static str {
        self.row().map_or("UNKNOWN", |(name, _, _)| name)
    }

    /// What it means, in a sentence.
    #[must_use]
    pub fn meaning(self) -> &'static str {
        self.row().map_or("An error that this version does not know.", |(_, _, meaning)| meaning)
    }

    /// Whether the same request may succeed later, here or elsewhere.
    #[must_use]
    pub fn is_retriable(self) -> bool {
        self.row().is_some_and(|(_, again, _)| again != Again::No)
    }

    /// Whether a client refreshes its metadata before it tries again.
    #[must_use]
    pub fn asks_for_metadata(self) -> bool {
        self.row().is_some_and(|(_, again, _)| again == Again::Elsewhere)
    }
}

impl fmt::Display for ErrorCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ({})", self.name(), self.0)
    }
}

impl fmt::Debug for ErrorCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_has_no_gap() {
        let codes: Vec<i16> = ErrorCode::ALL.iter().map(|code| code.0).collect();
        assert_eq!(codes, (-1..=133).collect::<Vec<_>>());
    }

    #[test]
    fn clients_retry_what_kafka_says_they_retry() {
        let retriable = |metadata: bool| -> Vec<i16> {
            let picked =
                ErrorCode::ALL.iter().filter(|code| code.is_retriable() && code.asks_for_metadata() == metadata);
            picked.map(|code| code.0).collect()
        };
        assert_eq!(retriable(false), [2, 7, 14, 15, 16, 19, 20, 41, 51, 70, 71, 75, 78, 88, 89, 106, 122, 123, 133]);
        assert_eq!(retriable(true), [3, 5, 6, 9, 13, 56, 72, 74, 80, 83, 84, 100, 103]);
    }

    #[test]
    fn a_code_of_the_future_is_carried_and_not_retried() {
        let code = ErrorCode(999);
        assert_eq!(code.to_string(), "UNKNOWN (999)");
        assert!(code.is_error() && !code.is_retriable());
        assert_eq!(format!("{:?}", ErrorCode::NOT_CONTROLLER), "NOT_CONTROLLER (41)");
    }
}
