//! The values of the records that a group of the consumer protocol is kept in: Kafka's own formats (`ConsumerGroup*Value`).

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;

use super::super::record::{Part, Record, at, encode, part_key, versioned};
use crate::ids::TopicId;
use crate::protocol::primitive::DecodeError;
use crate::protocol::value::Text;
use crate::protocol::wire::{Wire, message};

/// Partitions by topic.
pub type Partitions = BTreeMap<TopicId, BTreeSet<i32>>;
/// Partitions by topic, and the member epoch at which each was given (KIP-1251).
pub type Given = BTreeMap<TopicId, BTreeMap<i32, i32>>;

/// All values have this version, with tagged fields from the first on.
const VERSION: i16 = 0;

message! {
    /// A group.
    part EpochValue {
        /// Its epoch: grows whenever the target assignment has to be computed anew.
        epoch: i32 [0..],
        /// A digest of the topics that its members read.
        metadata_hash: i64 [0..] [tag 0],
        /// Ottla's own, which Kafka's readers pass over: when this epoch began, in milliseconds since 1970.
        since: i64 [0..] [tag 10000],
    }

    /// A member, as it describes itself.
    part MemberValue {
        /// The id of a static member.
        instance_id: Option<Text> [0..] [null 0..],
        /// Where it is.
        rack_id: Option<Text> [0..] [null 0..],
        /// What its client calls itself.
        client_id: Text [0..],
        /// The address it comes from.
        client_host: Text [0..],
        /// The topics that it names.
        topics: Vec<Text> [0..],
        /// The topics that it describes.
        regex: Option<Text> [0..] [null 0..],
        /// How long it may take to give partitions up.
        rebalance_timeout_ms: i32 [0..] [or -1],
        /// The assignor that it would have.
        assignor: Option<Text> [0..] [null 0..],
        /// What a member of the classic protocol has besides.
        classic: Option<ClassicValue> [0..] [null 0..] [tag 0],
    }

    /// What a member of the classic protocol has besides.
    part ClassicValue {
        /// For how long it may be silent.
        session_timeout_ms: i32 [0..],
        /// The protocols that it knows, the one it likes best first.
        protocols: Vec<ClassicProtocol> [0..],
    }

    /// A protocol of a member of the classic protocol.
    part ClassicProtocol {
        /// Its name.
        name: Text [0..],
        /// What the member says for it.
        metadata: Bytes [0..],
    }

    /// The target assignment.
    part TargetEpochValue {
        /// The group's epoch for which it was computed.
        epoch: i32 [0..],
        /// When, in milliseconds since 1970.
        at: i64 [0..] [tag 0],
    }

    /// What a member shall have.
    part TargetValue {
        /// Partitions by topic.
        partitions: Vec<TopicPartitions> [0..],
    }

    /// What a member has.
    part CurrentValue {
        /// Its epoch.
        epoch: i32 [0..],
        /// The one before: the answer with the new one may be lost.
        previous_epoch: i32 [0..],
        /// How far it has come.
        state: i8 [0..],
        /// The partitions that it has.
        assigned: Vec<TopicPartitions> [0..],
        /// Those that it has to give up first.
        revoking: Vec<TopicPartitions> [0..],
    }

    /// Partitions of one topic.
    part TopicPartitions {
        /// The topic.
        topic: TopicId [0..],
        /// The partitions' numbers.
        partitions: Vec<i32> [0..],
        /// The epoch at which the member got each, in the same order.
        epochs: Option<Vec<i32>> [0..] [null 0..] [tag 0],
    }

    /// The topics that a regular expression stands for.
    part RegexValue {
        /// Their names.
        topics: Vec<Text> [0..],
        /// Which state of the cluster's topics it was matched with.
        version: i64 [0..],
        /// When, in milliseconds since 1970.
        at: i64 [0..],
    }
}

/// A record of a part of a group.
pub fn record(group: &Text, part: &Part, value: &impl Wire) -> Record {
    Record { key: part_key(group, part), value: Some(encode(VERSION, VERSION, value)) }
}

/// A record that forgets a part of a group.
pub fn tombstone(group: &Text, part: &Part) -> Record {
    Record { key: part_key(group, part), value: None }
}

/// Reads a value.
///
/// # Errors
/// When it is damaged or of a newer version.
pub fn decode<T: Wire>(bytes: &[u8]) -> Result<T, DecodeError> {
    let (version, mut reader) = versioned(bytes)?;
    T::read(&mut reader, at(version, VERSION))
}

/// As they stand in a record.
pub fn partitions_value(partitions: &Partitions) -> Vec<TopicPartitions> {
    let of = |(topic, partitions): (&TopicId, &BTreeSet<i32>)| TopicPartitions {
        topic: *topic,
        partitions: partitions.iter().copied().collect(),
        epochs: None,
    };
    partitions.iter().map(of).collect()
}

/// As they stand in a record.
pub fn given_value(given: &Given) -> Vec<TopicPartitions> {
    let of = |(topic, partitions): (&TopicId, &BTreeMap<i32, i32>)| TopicPartitions {
        topic: *topic,
        partitions: partitions.keys().copied().collect(),
        epochs: Some(partitions.values().copied().collect()),
    };
    given.iter().map(of).collect()
}

/// From a record.
pub fn partitions_of(value: Vec<TopicPartitions>) -> Partitions {
    value.into_iter().map(|it| (it.topic, it.partitions.into_iter().collect())).collect()
}

/// From a record; where no epoch is told, it is the member's.
pub fn given_of(value: Vec<TopicPartitions>, epoch: i32) -> Given {
    let of = |it: TopicPartitions| {
        let epochs = it.epochs.unwrap_or_default();
        let epochs = epochs.into_iter().chain(std::iter::repeat(epoch));
        (it.topic, it.partitions.into_iter().zip(epochs).collect())
    };
    value.into_iter().map(of).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_have_kafkas_bytes() {
        let value = EpochValue { epoch: 7, metadata_hash: 0, since: 0 };
        assert_eq!(&encode(0, 0, &value)[..], b"\0\0\0\0\0\x07\0");
        let target = BTreeMap::from([(TopicId([1; 16]), BTreeSet::from([2, 3]))]);
        let bytes = encode(0, 0, &TargetValue { partitions: partitions_value(&target) });
        let expected = [&b"\0\0\x02"[..], &[1; 16], b"\x03\0\0\0\x02\0\0\0\x03\0\0"].concat();
        assert_eq!(&bytes[..], &expected[..]);
        assert_eq!(partitions_of(decode::<TargetValue>(&bytes).unwrap().partitions), target);
    }

    #[test]
    fn what_is_written_is_read_again() {
        let given: Given = BTreeMap::from([(TopicId([1; 16]), BTreeMap::from([(2, 5), (3, 6)]))]);
        let value =
            CurrentValue { epoch: 6, previous_epoch: 5, state: 1, assigned: given_value(&given), revoking: Vec::new() };
        let read: CurrentValue = decode(&encode(0, 0, &value)).unwrap();
        assert_eq!(given_of(read.assigned, 6), given);
        let without = partitions_value(&BTreeMap::from([(TopicId([1; 16]), BTreeSet::from([2]))]));
        assert_eq!(given_of(without, 9), BTreeMap::from([(TopicId([1; 16]), BTreeMap::from([(2, 9)]))]));
        let classic = ClassicValue {
            session_timeout_ms: 10,
            protocols: vec![ClassicProtocol { name: "range".into(), metadata: Bytes::from_static(b"x") }],
        };
        let member = MemberValue { classic: Some(classic), topics: vec!["t".into()], ..MemberValue::default() };
        assert_eq!(decode::<MemberValue>(&encode(0, 0, &member)).unwrap(), member);
        assert!(decode::<MemberValue>(b"\0\x05\0\0").is_err(), "of a newer version, or damaged");
    }
}
