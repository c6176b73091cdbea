//! The APIs and THE one table of their versions: what the broker says, accepts, and how large a request may be.
//!
//! Minima and maxima are those of Kafka 4.3.1, all of them: clients infer a broker's age from its maxima. Everything else about a version (header form, flexibility) follows from this table.

use std::fmt;
use std::ops::RangeInclusive;

/// Largest request of an API whose requests are a few fields.
pub const SMALL_REQUEST_MAX_BYTES: usize = 1 << 20;
/// Largest request of an API whose requests list topics, partitions or configs.
pub const LIST_REQUEST_MAX_BYTES: usize = 8 << 20;
/// Largest request of an API that carries records (Kafka's default of `socket.request.max.bytes`).
pub const RECORDS_REQUEST_MAX_BYTES: usize = 100 << 20;

/// One row of the table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Api {
    /// The API's name in Kafka.
    pub name: &'static str,
    /// The versions that the codec knows and the broker answers.
    pub versions: RangeInclusive<i16>,
    /// What ApiVersions says, or `None` for an API that clients are not told of.
    pub advertised: Option<RangeInclusive<i16>>,
    /// The first flexible version (KIP-482); versions from there have request header 2 and response header 1.
    pub flexible_from: i16,
    /// The largest frame of a request, in bytes.
    pub request_max_bytes: usize,
}

macro_rules! apis {
    ($($(#[$meta:meta])* $name:ident = $key:literal: $first:literal ..= $last:literal,
        advertised $advertised:expr, flexible $flexible:literal, max $max:ident;)*) => {
        /// An API, by its key on the wire.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        #[repr(i16)]
        pub enum ApiKey {
            $($(#[$meta])* $name = $key,)*
        }

        impl ApiKey {
            /// Every API, ascending by key.
            pub const ALL: &[Self] = &[$(Self::$name,)*];

            /// The API with that key, if it is one of ours.
            #[must_use]
            pub const fn from_key(key: i16) -> Option<Self> {
                match key {
                    $($key => Some(Self::$name),)*
                    _ => None,
                }
            }

            /// The key on the wire.
            #[must_use]
            pub const fn key(self) -> i16 {
                match self {
                    $(Self::$name => $key,)*
                }
            }

            /// The API's row of the table.
            #[must_use]
            pub const fn spec(self) -> &'static Api {
                match self {
                    $(Self::$name => const {
                        &Api {
                            name: stringify!($name),
                            versions: $first..=$last,
                            advertised: $advertised,
                            flexible_from: $flexible,
                            request_max_bytes: $max,
                        }
                    },)*
                }
            }
        }
    };
}

apis! {
    /// Appends record batches. Versions 0 to 2 are advertised, because old librdkafka turns compression off without them
    /// (KAFKA-18659), and refused.
    Produce = 0: 3..=13, advertised Some(0..=13), flexible 9, max RECORDS_REQUEST_MAX_BYTES;
    /// Reads record batches, within sessions (KIP-227).
    Fetch = 1: 4..=18, advertised Some(4..=18), flexible 12, max LIST_REQUEST_MAX_BYTES;
    /// Finds offsets by time, and the ends of partitions.
    ListOffsets = 2: 1..=11, advertised Some(1..=11), flexible 6, max LIST_REQUEST_MAX_BYTES;
    /// Brokers, topics, and who leads which partition.
    Metadata = 3: 0..=13, advertised Some(0..=13), flexible 9, max LIST_REQUEST_MAX_BYTES;
    /// Remembers how far a group has come.
    OffsetCommit = 8: 2..=10, advertised Some(2..=10), flexible 8, max LIST_REQUEST_MAX_BYTES;
    /// How far groups have come.
    OffsetFetch = 9: 1..=10, advertised Some(1..=10), flexible 6, max LIST_REQUEST_MAX_BYTES;
    /// Finds the broker that coordinates a group or a transactional id.
    FindCoordinator = 10: 0..=6, advertised Some(0..=6), flexible 3, max SMALL_REQUEST_MAX_BYTES;
    /// Becomes a member of a classic group.
    JoinGroup = 11: 0..=9, advertised Some(0..=9), flexible 6, max LIST_REQUEST_MAX_BYTES;
    /// A member of a classic group is alive.
    Heartbeat = 12: 0..=4, advertised Some(0..=4), flexible 4, max SMALL_REQUEST_MAX_BYTES;
    /// Members leave a classic group.
    LeaveGroup = 13: 0..=5, advertised Some(0..=5), flexible 4, max LIST_REQUEST_MAX_BYTES;
    /// Gets a member of a classic group its share.
    SyncGroup = 14: 0..=5, advertised Some(0..=5), flexible 4, max LIST_REQUEST_MAX_BYTES;
    /// Classic groups and their members.
    DescribeGroups = 15: 0..=6, advertised Some(0..=6), flexible 5, max LIST_REQUEST_MAX_BYTES;
    /// The groups of a broker.
    ListGroups = 16: 0..=5, advertised Some(0..=5), flexible 3, max SMALL_REQUEST_MAX_BYTES;
    /// What the broker speaks. Its response header is version 0 in every version, so that any client can read it.
    ApiVersions = 18: 0..=4, advertised Some(0..=4), flexible 3, max SMALL_REQUEST_MAX_BYTES;
    /// Creates topics.
    CreateTopics = 19: 2..=7, advertised Some(2..=7), flexible 5, max LIST_REQUEST_MAX_BYTES;
    /// Deletes topics.
    DeleteTopics = 20: 1..=6, advertised Some(1..=6), flexible 4, max LIST_REQUEST_MAX_BYTES;
    /// Moves the start of partitions.
    DeleteRecords = 21: 0..=2, advertised Some(0..=2), flexible 2, max LIST_REQUEST_MAX_BYTES;
    /// Gives a producer its id and epoch (KIP-98).
    InitProducerId = 22: 0..=5, advertised Some(0..=5), flexible 2, max SMALL_REQUEST_MAX_BYTES;
    /// Finds where a leader epoch ends (KIP-101, KIP-320).
    OffsetForLeaderEpoch = 23: 2..=4, advertised Some(2..=4), flexible 4, max LIST_REQUEST_MAX_BYTES;
    /// Reads configurations.
    DescribeConfigs = 32: 1..=4, advertised Some(1..=4), flexible 4, max LIST_REQUEST_MAX_BYTES;
    /// Replaces configurations as a whole.
    AlterConfigs = 33: 0..=2, advertised Some(0..=2), flexible 2, max LIST_REQUEST_MAX_BYTES;
    /// What lies in the data directories.
    DescribeLogDirs = 35: 1..=5, advertised Some(1..=5), flexible 2, max LIST_REQUEST_MAX_BYTES;
    /// Adds partitions to topics.
    CreatePartitions = 37: 0..=3, advertised Some(0..=3), flexible 2, max LIST_REQUEST_MAX_BYTES;
    /// Forgets groups without members.
    DeleteGroups = 42: 0..=2, advertised Some(0..=2), flexible 2, max LIST_REQUEST_MAX_BYTES;
    /// Has partitions led by the replicas that are to lead them (KIP-460).
    ElectLeaders = 43: 0..=2, advertised Some(0..=2), flexible 2, max LIST_REQUEST_MAX_BYTES;
    /// Changes single configuration entries (KIP-339).
    IncrementalAlterConfigs = 44: 0..=1, advertised Some(0..=1), flexible 1, max LIST_REQUEST_MAX_BYTES;
    /// Moves replicas of partitions to other brokers (KIP-455).
    AlterPartitionReassignments = 45: 0..=1, advertised Some(0..=1), flexible 0, max LIST_REQUEST_MAX_BYTES;
    /// The moves of replicas that are under way (KIP-455).
    ListPartitionReassignments = 46: 0..=0, advertised Some(0..=0), flexible 0, max LIST_REQUEST_MAX_BYTES;
    /// Forgets how far a group has come in topics that it does not read (KIP-496).
    OffsetDelete = 47: 0..=0, advertised Some(0..=0), flexible 32767, max LIST_REQUEST_MAX_BYTES;
    /// How the replicas of the cluster's metadata stand (KIP-595).
    DescribeQuorum = 55: 0..=2, advertised Some(0..=2), flexible 0, max LIST_REQUEST_MAX_BYTES;
    /// The cluster's id, brokers and controller (KIP-700).
    DescribeCluster = 60: 0..=2, advertised Some(0..=2), flexible 0, max SMALL_REQUEST_MAX_BYTES;
    /// Takes a broker out of the cluster (KIP-500).
    UnregisterBroker = 64: 0..=0, advertised Some(0..=0), flexible 0, max SMALL_REQUEST_MAX_BYTES;
    /// A member of a consumer group is alive, and learns which partitions are its own (KIP-848).
    ConsumerGroupHeartbeat = 68: 0..=1, advertised Some(0..=1), flexible 0, max LIST_REQUEST_MAX_BYTES;
    /// Consumer groups and their members (KIP-848).
    ConsumerGroupDescribe = 69: 0..=1, advertised Some(0..=1), flexible 0, max LIST_REQUEST_MAX_BYTES;
    /// Topics page by page (KIP-966).
    DescribeTopicPartitions = 75: 0..=0, advertised Some(0..=0), flexible 0, max LIST_REQUEST_MAX_BYTES;
}

impl ApiKey {
    /// Whether the broker answers that version.
    #[must_use]
    pub fn accepts(self, version: i16) -> bool {
        self.spec().versions.contains(&version)
    }

    /// Whether that version is flexible.
    #[must_use]
    pub const fn is_flexible(self, version: i16) -> bool {
        version >= self.spec().flexible_from
    }

    /// Whether responses of that version have a flexible header: as the message, except ApiVersions, never.
    #[must_use]
    pub const fn has_flexible_response_header(self, version: i16) -> bool {
        self.is_flexible(version) && !matches!(self, Self::ApiVersions)
    }

    /// The APIs that clients are told of, with the versions they are told, ascending by key.
    pub fn advertised() -> impl Iterator<Item = (Self, &'static RangeInclusive<i16>)> {
        Self::ALL.iter().filter_map(|api| Some((*api, api.spec().advertised.as_ref()?)))
    }
}

impl fmt::Display for ApiKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.spec().name)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_is_in_order_and_consistent() {
        assert!(ApiKey::ALL.windows(2).all(|two| two[0].key() < two[1].key()));
        for api in ApiKey::ALL {
            let spec = api.spec();
            assert_eq!(ApiKey::from_key(api.key()), Some(*api));
            assert!(spec.versions.start() <= spec.versions.end());
            assert!(spec.advertised.as_ref().is_none_or(|range| range.end() == spec.versions.end()));
        }
        assert_eq!(ApiKey::from_key(4), None);
    }

    #[test]
    fn only_produce_advertises_versions_that_it_refuses() {
        let wider: Vec<_> =
            ApiKey::advertised().filter(|(api, range)| !api.accepts(*range.start())).map(|(api, _)| api).collect();
        assert_eq!(wider, [ApiKey::Produce]);
        assert!(!ApiKey::Produce.accepts(2));
        assert!(ApiKey::Produce.accepts(3));
    }

    #[test]
    fn api_versions_is_answered_with_the_plain_header_in_every_version() {
        assert!(ApiKey::ApiVersions.is_flexible(3));
        assert!(!ApiKey::ApiVersions.has_flexible_response_header(3));
        assert!(ApiKey::Fetch.has_flexible_response_header(12));
    }
}
