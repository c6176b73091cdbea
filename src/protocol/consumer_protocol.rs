//! What the members of a classic group of consumers say to each other through the coordinator: what each reads, and each one's share.
//!
//! Kafka's "consumer" protocol, versions 0 to 3 (`ConsumerProtocolSubscription`, `ConsumerProtocolAssignment`): a version, then fields. A version that is not
//! known here is read as the last one that is, as every client does: newer versions only append fields.

use bytes::Bytes;

use super::primitive::{At, DecodeError, Reader, Source, Writer};
use super::value::Text;
use super::wire::{Wire, message};

/// The protocol type of groups of consumers.
pub const CONSUMER: &str = "consumer";
/// The newest version known here.
const NEWEST: i16 = 3;
/// Memory for what one member says.
const HEAP_BYTES_MAX: usize = 16 << 20;

message! {
    /// What a member reads.
    part Subscription {
        /// The topics' names.
        topics: Vec<Text> [0..],
        /// What its assignor adds.
        user_data: Option<Bytes> [0..] [null 0..],
        /// The partitions that it has and would keep (cooperative rebalancing, KIP-429).
        owned: Vec<TopicPartitions> [1..] [ignorable],
        /// The generation in which it got them.
        generation: i32 [2..] [or -1] [ignorable],
        /// Where it is (KIP-881).
        rack: Option<Text> [3..] [null 3..] [ignorable],
    }

    /// A member's share.
    part Assignment {
        /// The partitions, by topic.
        topics: Vec<TopicPartitions> [0..],
        /// What the leader's assignor adds.
        user_data: Option<Bytes> [0..] [null 0..],
    }

    /// Partitions of one topic.
    part TopicPartitions {
        /// The topic's name.
        topic: Text [0..],
        /// The partitions' numbers.
        partitions: Vec<i32> [0..],
    }
}

fn at(version: i16) -> At {
    At { version, flexible: false, nullable: false }
}

fn encode(version: i16, value: &impl Wire) -> Bytes {
    let mut writer = Writer::with_capacity(64);
    writer.i16(version);
    value.write(&mut writer, at(version)).expect("fields that a version lacks are left out");
    writer.into_bytes()
}

fn decode<T: Wire>(bytes: Bytes) -> Result<T, DecodeError> {
    let mut reader = Reader::new(bytes, HEAP_BYTES_MAX);
    let version = reader.i16()?.clamp(0, NEWEST);
    T::read(&mut reader, at(version))
}

/// The version in front of what a member says, as far as it is known here.
///
/// # Errors
/// When there is none.
pub fn version_of(bytes: &Bytes) -> Result<i16, DecodeError> {
    Ok(Reader::new(bytes.clone(), 0).i16()?.clamp(0, NEWEST))
}

impl Subscription {
    /// As bytes, of that version.
    #[must_use]
    pub fn encode(&self, version: i16) -> Bytes {
        encode(version.clamp(0, NEWEST), self)
    }

    /// Reads what a member says.
    ///
    /// # Errors
    /// When it is damaged.
    pub fn decode(bytes: Bytes) -> Result<Self, DecodeError> {
        decode(bytes)
    }
}

impl Assignment {
    /// As bytes, of that version.
    #[must_use]
    pub fn encode(&self, version: i16) -> Bytes {
        encode(version.clamp(0, NEWEST), self)
    }

    /// Reads a share. No bytes are an empty one: a member that the leader forgot.
    ///
    /// # Errors
    /// When it is damaged.
    pub fn decode(bytes: Bytes) -> Result<Self, DecodeError> {
        if bytes.is_empty() { Ok(Self::default()) } else { decode(bytes) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn partitions(topic: &str, partitions: &[i32]) -> TopicPartitions {
        TopicPartitions { topic: topic.into(), partitions: partitions.to_vec() }
    }

    #[test]
    fn what_is_written_is_read_again_as_far_as_its_version_has_it() {
        let whole = Subscription {
            topics: vec!["a".into(), "b".into()],
            user_data: Some(Bytes::from_static(b"x")),
            owned: vec![partitions("a", &[0, 2])],
            generation: 7,
            rack: Some("r".into()),
        };
        assert_eq!(Subscription::decode(whole.encode(3)), Ok(whole.clone()));
        assert_eq!(Subscription::decode(whole.encode(2)), Ok(Subscription { rack: None, ..whole.clone() }));
        let plain = Subscription { owned: Vec::new(), generation: -1, rack: None, ..whole.clone() };
        assert_eq!(Subscription::decode(whole.encode(0)), Ok(plain));
        let share = Assignment { topics: vec![partitions("a", &[1])], user_data: None };
        for version in 0..=NEWEST {
            assert_eq!(Assignment::decode(share.encode(version)), Ok(share.clone()));
        }
    }

    #[test]
    fn a_newer_version_is_read_as_the_newest_known_and_damage_is_an_error() {
        let whole = Subscription { topics: vec!["a".into()], ..Subscription::default() };
        let newer = [&[0, 9], &whole.encode(3)[2..], b"more"].concat();
        assert_eq!(Subscription::decode(newer.into()), Ok(whole.clone()));
        assert_eq!(Assignment::decode(Bytes::new()), Ok(Assignment::default()));
        for bytes in [&b"\0"[..], b"\0\0\x7f\xff\xff\xff", b"\0\0\0\0\0\x01\0\x05a"] {
            assert!(Subscription::decode(Bytes::from_static(bytes)).is_err(), "{bytes:?}");
            assert!(Assignment::decode(Bytes::from_static(bytes)).is_err(), "{bytes:?}");
        }
    }
}
