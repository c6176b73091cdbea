//! Newtypes for every id and position, so that a Kafka offset is never taken for a Raft index.
//!
//! Positions compare and print as plain numbers. Arithmetic is checked: an overflow is a bug and panics.

use std::fmt;

/// The digits of the ids that Kafka prints: base 64 for URLs (RFC 4648, section 5).
pub const BASE64_URL: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";

/// Declares a newtype over an integer with `Display`, `From` both ways and checked `plus`.
macro_rules! number {
    ($(#[$doc:meta])* $name:ident($inner:ty)) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(pub $inner);

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.fmt(f)
            }
        }

        impl $name {
            /// This value moved forward by `n`.
            ///
            /// # Panics
            /// On overflow, which only a bug can reach.
            #[must_use]
            pub const fn plus(self, n: $inner) -> Self {
                match self.0.checked_add(n) {
                    Some(value) => Self(value),
                    None => panic!("id or position overflows"),
                }
            }

            /// The next value.
            #[must_use]
            pub const fn next(self) -> Self {
                self.plus(1)
            }
        }
    };
}

number! {
    /// A Kafka offset: the position of a record in its partition, from 0.
    Offset(i64)
}
number! {
    /// The index of an entry in its partition's Raft log, from 0. Never a Kafka offset.
    RaftIndex(u64)
}
number! {
    /// A Raft term. It is also the Kafka leader epoch, so a term above [`Term::MAX`] refuses to lead.
    Term(u64)
}
number! {
    /// A broker's id, as the operator set it; not negative.
    BrokerId(i32)
}
number! {
    /// One incarnation of a replica, handed out by the controller and never used twice.
    Incarnation(u64)
}
number! {
    /// A partition's number within its topic, from 0.
    PartitionIndex(i32)
}
number! {
    /// A producer's id (KIP-98).
    ProducerId(i64)
}
number! {
    /// A producer's epoch (KIP-98): a newer one fences the older.
    ProducerEpoch(i16)
}
number! {
    /// Milliseconds since the Unix epoch.
    Timestamp(i64)
}

impl Term {
    /// The highest term that fits a Kafka leader epoch.
    pub const MAX: Self = Self(0x7fff_ffff);

    /// The Kafka leader epoch that this term is.
    ///
    /// # Panics
    /// Above [`Term::MAX`]: a replica refuses to lead in such a term, so none reaches a log.
    #[must_use]
    pub fn epoch(self) -> i32 {
        i32::try_from(self.0).expect("a term above Term::MAX never leads")
    }
}

/// A topic's id: a random version-4 UUID, new on each creation (KIP-516).
#[derive(Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TopicId(pub [u8; 16]);

impl fmt::Display for TopicId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        uuid::Uuid::from_bytes(self.0).fmt(f)
    }
}

impl fmt::Debug for TopicId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl TopicId {
    /// The id that means "none" on the wire.
    pub const ZERO: Self = Self([0; 16]);
    /// The cluster's own group: the controller's log (Kafka's metadata topic has the same reserved id).
    pub const CONTROLLER: Self = Self([0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1]);

    /// Reads the text form that [`fmt::Display`] writes.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        uuid::Uuid::try_parse(text).ok().map(|id| Self(id.into_bytes()))
    }
}

/// One partition of one topic: the key of a Raft group, its directory and its journal records.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PartitionId {
    /// The topic.
    pub topic: TopicId,
    /// The partition's number within the topic.
    pub partition: PartitionIndex,
}

impl PartitionId {
    /// The controller's group.
    pub const CONTROLLER: Self = Self { topic: TopicId::CONTROLLER, partition: PartitionIndex(0) };
}

impl fmt::Display for PartitionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.topic, self.partition)
    }
}

/// A Raft voter: one incarnation of a replica on one broker.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ReplicaId {
    /// The broker that holds the replica.
    pub broker: BrokerId,
    /// Which life of the replica this is: one that has forgotten comes back under a new incarnation.
    pub incarnation: Incarnation,
}

impl fmt::Display for ReplicaId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.broker, self.incarnation)
    }
}

/// The identity of an entry in a Raft log: with one leader a term, (term, index) names it in the whole cluster.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct LogId {
    /// The term of the leader that proposed the entry.
    pub term: Term,
    /// The entry's index.
    pub index: RaftIndex,
}

impl LogId {
    /// Of two entries of one log, the earlier.
    #[must_use]
    pub fn min_index(self, other: Self) -> Self {
        if other.index < self.index { other } else { self }
    }
}

impl fmt::Display for LogId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}", self.term, self.index)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_topic_id_reads_back_what_it_prints() {
        let id = TopicId([1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16]);
        assert_eq!(TopicId::parse(&id.to_string()), Some(id));
        assert_eq!(TopicId::parse("not an id"), None);
    }

    #[test]
    fn a_term_is_a_kafka_leader_epoch() {
        assert_eq!(Term(7).epoch(), 7);
        assert_eq!(Term::MAX.epoch(), i32::MAX);
    }
}
