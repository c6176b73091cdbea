//! The groups of a run, and which protocols their members speak.

use super::member::Kind;

/// Which protocols the members of a group speak.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Speaks {
    /// JoinGroup and SyncGroup.
    Classic,
    /// ConsumerGroupHeartbeat (KIP-848).
    Consumer,
    /// Some this, some that: the group migrates, back and forth.
    Both,
}

/// A group with members.
#[derive(Clone, Copy, Debug)]
pub struct Group {
    pub name: &'static str,
    /// How many of its members are static.
    pub static_members: usize,
    pub speaks: Speaks,
}

/// The groups of a run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cast {
    /// Of the classic protocol: one of dynamic members, and one of both sorts.
    Classic,
    /// Of the consumer protocol, likewise, and one that migrates.
    Consumer,
}

const CLASSIC: [Group; 2] = [
    Group { name: "dynamic", static_members: 0, speaks: Speaks::Classic },
    Group { name: "mixed", static_members: 2, speaks: Speaks::Classic },
];

const CONSUMER: [Group; 3] = [
    Group { name: "consumers", static_members: 0, speaks: Speaks::Consumer },
    Group { name: "mixed-consumers", static_members: 2, speaks: Speaks::Consumer },
    Group { name: "migrating", static_members: 1, speaks: Speaks::Both },
];

impl Cast {
    /// The groups with members.
    pub const fn groups(self) -> &'static [Group] {
        match self {
            Self::Classic => &CLASSIC,
            Self::Consumer => &CONSUMER,
        }
    }

    /// Which protocols are spoken in the group of that name.
    pub fn speaks(group: &str) -> Option<Speaks> {
        CLASSIC.iter().chain(&CONSUMER).find(|it| it.name == group).map(|it| it.speaks)
    }

    /// Whether a name is that of a group in which only the classic protocol is spoken.
    pub fn is_classic(group: &str) -> bool {
        Self::speaks(group).is_none_or(|speaks| speaks == Speaks::Classic)
    }
}

impl Speaks {
    /// Kinds of which a group has at least one member each, when a run and each of its acts begins.
    pub const fn kinds(self, classic: Kind) -> (Kind, Option<Kind>) {
        match self {
            Self::Classic => (classic, None),
            Self::Consumer => (Kind::Consumer, None),
            Self::Both => (Kind::Consumer, Some(classic)),
        }
    }
}
