//! The records of `__consumer_offsets`, in Kafka's own formats: a version in front of each key and each value.

use bytes::Bytes;

use crate::ids::{Offset, PartitionIndex, Timestamp, TopicId};
use crate::protocol::primitive::{At, DecodeError, Reader, Writer};
use crate::protocol::value::Text;
use crate::protocol::wire::{Wire, message};

/// A record of a coordinator's partition.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Record {
    /// The key, with its version.
    pub key: Bytes,
    /// The value, with its version; none forgets the key.
    pub value: Option<Bytes>,
}

impl Record {
    /// Bytes of key and value.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.key.len() + self.value.as_ref().map_or(0, Bytes::len)
    }
}

/// What an offset was committed for, by the version of its key. Kafka wrote 0 once.
const OFFSET_KEYS: [i16; 2] = [0, 1];
const OFFSET_KEY: i16 = 1;
const GROUP_KEY: i16 = 2;

/// The version of a group's value while members have their shares; the one that all readers since Kafka 2.3 know.
const GROUP_VALUE: i16 = 3;
/// The first version with tagged fields.
const GROUP_VALUE_TAGGED: i16 = 4;
const OFFSET_VALUE: i16 = 4;

/// Bytes that the vectors of a stored value may take: what a request of members brought fits.
const HEAP_BYTES_MAX: usize = 256 << 20;

message! {
    /// What an offset is the offset of.
    part OffsetKey {
        /// The group.
        group: Text [0..],
        /// The topic's name.
        topic: Text [0..],
        /// The partition's number.
        partition: i32 [0..],
    }

    /// A committed offset.
    part OffsetValue {
        /// The offset of the next record to read.
        offset: i64 [0..],
        /// The leader epoch of the last record read, or -1.
        leader_epoch: i32 [3..] [or -1] [ignorable],
        /// What the client keeps with it.
        metadata: Text [0..],
        /// When it was committed.
        commit_timestamp: i64 [0..],
        /// When it is forgotten, -1: by the broker's setting.
        expire_timestamp: i64 [1..=1] [or -1] [ignorable],
        /// The topic's id; zero in what Kafka wrote before it knew.
        topic_id: TopicId [4..] [tag 0] [ignorable],
    }

    /// Whose state this is.
    part GroupKey {
        /// The group.
        group: Text [0..],
    }

    /// Part of a group that has a name: a member's id, or a regular expression.
    part NamedKey {
        /// The group.
        group: Text [0..],
        /// The name.
        name: Text [0..],
    }

    /// A group of the classic protocol.
    part GroupValue {
        /// What kind of group it is.
        protocol_type: Text [0..],
        /// Its generation.
        generation: i32 [0..],
        /// The chosen protocol.
        protocol: Option<Text> [0..] [null 0..],
        /// The member that shares out.
        leader: Option<Text> [0..] [null 0..],
        /// Since when it is as it is.
        current_state_timestamp: i64 [2..] [or -1] [ignorable],
        /// The members.
        members: Vec<MemberValue> [0..],
        /// Ottla's own, which Kafka's readers pass over: what the members were about. See [`Phase`].
        phase: i8 [4..] [tag 10000],
    }

    /// A member of a classic group.
    part MemberValue {
        /// Its id.
        member_id: Text [0..],
        /// The id of a static member.
        group_instance_id: Option<Text> [3..] [null 3..] [ignorable],
        /// What its client calls itself.
        client_id: Text [0..],
        /// Where it is.
        client_host: Text [0..],
        /// How many milliseconds a rebalance waits for it; -1 for its session's.
        rebalance_timeout: i32 [1..] [or -1] [ignorable],
        /// For how many milliseconds it may be silent.
        session_timeout: i32 [0..],
        /// What it said for the chosen protocol.
        subscription: Bytes [0..],
        /// Its share.
        assignment: Bytes [0..],
    }
}

/// What the members of a stored group were about. Kafka stores groups only when all have their shares; a coordinator that takes over here
/// knows of a rebalance that was under way, so that nobody takes an old share for a new one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    /// All have their shares.
    Stable,
    /// The generation was joined; the leader has not handed in the shares yet.
    Completing,
    /// Somebody has left: all have to join again.
    Preparing,
}

impl Phase {
    fn number(self) -> i8 {
        match self {
            Self::Stable => 0,
            Self::Completing => 1,
            Self::Preparing => 2,
        }
    }

    /// The phase with that number; a number of a newer version means that the members have to join again.
    #[must_use]
    pub fn from_number(number: i8) -> Self {
        match number {
            0 => Self::Stable,
            1 => Self::Completing,
            _ => Self::Preparing,
        }
    }
}

/// What a record is about.
#[derive(Clone, Debug, PartialEq)]
pub enum Key {
    /// A committed offset.
    Offset(OffsetKey),
    /// A group of the classic protocol.
    Group(GroupKey),
    /// Part of a group of the consumer protocol.
    Consumer {
        /// The group.
        group: Text,
        /// Which part of it.
        part: Part,
    },
    /// Something that this version does not know. Its records are kept.
    Other(i16),
}

/// What of a group of the consumer protocol (KIP-848) a record is about.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Part {
    /// Its epoch.
    Epoch,
    /// The epoch of its target assignment.
    TargetEpoch,
    /// What a member says of itself.
    Member(Text),
    /// What a member shall have.
    Target(Text),
    /// What a member has.
    Current(Text),
    /// The topics that a regular expression stands for.
    Regex(Text),
}

impl Part {
    /// The number in front of the key.
    const fn number(&self) -> i16 {
        match self {
            Self::Epoch => 3,
            Self::Member(_) => 5,
            Self::TargetEpoch => 6,
            Self::Target(_) => 7,
            Self::Current(_) => 8,
            Self::Regex(_) => 16,
        }
    }
}

/// The place of a value's fields.
pub(super) fn at(version: i16, flexible_from: i16) -> At {
    At { version, flexible: version >= flexible_from, nullable: false }
}

/// A value with its version in front.
pub(super) fn encode(version: i16, flexible_from: i16, value: &impl Wire) -> Bytes {
    let mut writer = Writer::with_capacity(64);
    writer.i16(version);
    value.write(&mut writer, at(version, flexible_from)).expect("each field is there in the version that is written");
    writer.into_bytes()
}

/// The version in front, and a reader of the rest.
pub(super) fn versioned(bytes: &[u8]) -> Result<(i16, Reader), DecodeError> {
    use crate::protocol::primitive::Source;
    let mut reader = Reader::new(Bytes::copy_from_slice(bytes), HEAP_BYTES_MAX);
    Ok((reader.i16()?, reader))
}

const NEVER: i16 = i16::MAX;

/// What a key says.
///
/// # Errors
/// When it is damaged.
pub fn decode_key(bytes: &[u8]) -> Result<Key, DecodeError> {
    let (version, mut reader) = versioned(bytes)?;
    let group = |reader: &mut Reader| GroupKey::read(reader, at(0, NEVER)).map(|key| key.group);
    let named = |reader: &mut Reader, part: fn(Text) -> Part| {
        let key = NamedKey::read(reader, at(0, NEVER))?;
        Ok(Key::Consumer { group: key.group, part: part(key.name) })
    };
    Ok(match version {
        version if OFFSET_KEYS.contains(&version) => Key::Offset(OffsetKey::read(&mut reader, at(0, NEVER))?),
        GROUP_KEY => Key::Group(GroupKey::read(&mut reader, at(0, NEVER))?),
        3 => Key::Consumer { group: group(&mut reader)?, part: Part::Epoch },
        6 => Key::Consumer { group: group(&mut reader)?, part: Part::TargetEpoch },
        5 => named(&mut reader, Part::Member)?,
        7 => named(&mut reader, Part::Target)?,
        8 => named(&mut reader, Part::Current)?,
        16 => named(&mut reader, Part::Regex)?,
        other => Key::Other(other),
    })
}

/// The key of one partition's offset.
#[must_use]
pub fn offset_key(group: &Text, topic: &Text, partition: PartitionIndex) -> Bytes {
    let key = OffsetKey { group: group.clone(), topic: topic.clone(), partition: partition.0 };
    encode_key(OFFSET_KEY, &key)
}

/// What the keys of all offsets of a group begin with.
#[must_use]
pub fn offsets_of(group: &Text) -> Bytes {
    encode_key(OFFSET_KEY, &GroupKey { group: group.clone() })
}

/// The key of a classic group.
#[must_use]
pub fn group_key(group: &Text) -> Bytes {
    encode_key(GROUP_KEY, &GroupKey { group: group.clone() })
}

/// The key of a part of a group of the consumer protocol.
#[must_use]
pub fn part_key(group: &Text, part: &Part) -> Bytes {
    let group = group.clone();
    match part {
        Part::Epoch | Part::TargetEpoch => encode_key(part.number(), &GroupKey { group }),
        Part::Member(name) | Part::Target(name) | Part::Current(name) | Part::Regex(name) => {
            encode_key(part.number(), &NamedKey { group, name: name.clone() })
        }
    }
}

/// Keys have a number in front where values have a version; their fields are those of version 0.
fn encode_key(number: i16, key: &impl Wire) -> Bytes {
    let mut writer = Writer::with_capacity(64);
    writer.i16(number);
    key.write(&mut writer, at(0, NEVER)).expect("each field is there in version 0");
    writer.into_bytes()
}

/// A committed offset, as the rest of the broker speaks of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Committed {
    /// The offset of the next record to read.
    pub offset: Offset,
    /// The leader epoch of the last record read, or -1.
    pub leader_epoch: i32,
    /// What the client keeps with it.
    pub metadata: Text,
    /// When it was committed.
    pub at: Timestamp,
    /// When it is forgotten, if the client said so (commits up to version 4).
    pub expires: Option<Timestamp>,
    /// The topic's id, if it was known.
    pub topic: Option<TopicId>,
}

impl Committed {
    /// The record's value.
    #[must_use]
    pub fn encode(&self) -> Bytes {
        let value = OffsetValue {
            offset: self.offset.0,
            leader_epoch: self.leader_epoch,
            metadata: self.metadata.clone(),
            commit_timestamp: self.at.0,
            expire_timestamp: self.expires.map_or(-1, |at| at.0),
            topic_id: self.topic.unwrap_or_default(),
        };
        // Only version 1 can say when it expires.
        encode(if self.expires.is_some() { 1 } else { OFFSET_VALUE }, OFFSET_VALUE, &value)
    }

    /// Reads a record's value.
    ///
    /// # Errors
    /// When it is damaged or of a newer version.
    pub fn decode(bytes: &[u8]) -> Result<Self, DecodeError> {
        let (version, mut reader) = versioned(bytes)?;
        let value = OffsetValue::read(&mut reader, at(version, OFFSET_VALUE))?;
        Ok(Self {
            offset: Offset(value.offset),
            leader_epoch: value.leader_epoch,
            metadata: value.metadata,
            at: Timestamp(value.commit_timestamp),
            expires: Some(Timestamp(value.expire_timestamp)).filter(|at| at.0 >= 0),
            topic: Some(value.topic_id).filter(|id| *id != TopicId::default()),
        })
    }
}

impl GroupValue {
    /// The record's value, in the oldest version that can say it.
    #[must_use]
    pub fn encode(mut self, phase: Phase) -> Bytes {
        self.phase = phase.number();
        let version = if phase == Phase::Stable { GROUP_VALUE } else { GROUP_VALUE_TAGGED };
        encode(version, GROUP_VALUE_TAGGED, &self)
    }

    /// Reads a record's value.
    ///
    /// # Errors
    /// When it is damaged or of a newer version.
    pub fn decode(bytes: &[u8]) -> Result<Self, DecodeError> {
        let (version, mut reader) = versioned(bytes)?;
        Self::read(&mut reader, at(version, GROUP_VALUE_TAGGED))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(text: &str) -> Text {
        Text::from(text)
    }

    #[test]
    fn keys_and_values_have_kafkas_bytes() {
        assert_eq!(&group_key(&text("g"))[..], b"\0\x02\0\x01g");
        let key = offset_key(&text("g"), &text("to"), PartitionIndex(7));
        assert_eq!(&key[..], b"\0\x01\0\x01g\0\x02to\0\0\0\x07");
        assert!(key.starts_with(&offsets_of(&text("g"))));
        assert!(!key.starts_with(&offsets_of(&text("h"))));
        let committed = Committed {
            offset: Offset(5),
            leader_epoch: 2,
            metadata: text("m"),
            at: Timestamp(9),
            expires: None,
            topic: None,
        };
        assert_eq!(&committed.encode()[..], b"\0\x04\0\0\0\0\0\0\0\x05\0\0\0\x02\x02m\0\0\0\0\0\0\0\x09\0");
    }

    #[test]
    fn what_is_written_is_read_again() {
        for (expires, topic, leader_epoch) in
            [(None, None, 3), (Some(Timestamp(12)), None, -1), (None, Some(TopicId([3; 16])), -1)]
        {
            let metadata = text("what the client keeps");
            let committed = Committed { offset: Offset(5), leader_epoch, metadata, at: Timestamp(9), expires, topic };
            assert_eq!(Committed::decode(&committed.encode()).unwrap(), committed);
        }
        let member = MemberValue {
            member_id: text("a-1"),
            group_instance_id: Some(text("a")),
            client_id: text("c"),
            client_host: text("/127.0.0.1"),
            rebalance_timeout: 60_000,
            session_timeout: 10_000,
            subscription: Bytes::from_static(b"topics"),
            assignment: Bytes::from_static(b"partitions"),
        };
        let value = GroupValue {
            protocol_type: text("consumer"),
            generation: 4,
            protocol: Some(text("range")),
            leader: Some(text("a-1")),
            current_state_timestamp: 77,
            members: vec![member],
            phase: 0,
        };
        for phase in [Phase::Stable, Phase::Completing, Phase::Preparing] {
            let read = GroupValue::decode(&value.clone().encode(phase)).unwrap();
            assert_eq!(Phase::from_number(read.phase), phase);
            assert_eq!(GroupValue { phase: 0, ..read }, value);
        }
        assert_eq!(value.clone().encode(Phase::Stable)[..2], [0, 3], "readers of old know it");
    }

    #[test]
    fn each_part_of_a_group_has_a_key_of_its_own() {
        let name = || text("m");
        let parts = [
            (Part::Epoch, &b"\0\x03\0\x01g"[..]),
            (Part::TargetEpoch, b"\0\x06\0\x01g"),
            (Part::Member(name()), b"\0\x05\0\x01g\0\x01m"),
            (Part::Target(name()), b"\0\x07\0\x01g\0\x01m"),
            (Part::Current(name()), b"\0\x08\0\x01g\0\x01m"),
            (Part::Regex(name()), b"\0\x10\0\x01g\0\x01m"),
        ];
        for (part, bytes) in parts {
            assert_eq!(&part_key(&text("g"), &part)[..], bytes);
            assert_eq!(decode_key(bytes), Ok(Key::Consumer { group: text("g"), part }));
        }
    }

    #[test]
    fn keys_are_told_apart_and_damage_is_an_error() {
        let key = offset_key(&text("g"), &text("t"), PartitionIndex(1));
        let old = [&[0, 0], &key[2..]].concat();
        for bytes in [&key[..], &old] {
            assert!(matches!(decode_key(bytes), Ok(Key::Offset(key)) if key.topic == "t" && key.partition == 1));
        }
        assert!(matches!(decode_key(&group_key(&text("g"))), Ok(Key::Group(key)) if key.group == "g"));
        assert!(matches!(decode_key(&[0, 99, 1]), Ok(Key::Other(99))));
        assert!(decode_key(&key[..key.len() - 1]).is_err());
        assert!(decode_key(b"\0").is_err());
        assert!(GroupValue::decode(b"\0\x03\0\x7f").is_err());
    }
}
