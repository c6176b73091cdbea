//! Followers that are behind, of the groups that this broker leads: for what clients and operators are shown, not for what counts as committed.
//!
//! A follower is behind when it lacks something that its leader had at the last look: under load each lacks what is on its way.

use std::collections::BTreeMap;

use super::transport::groups::{Behind, Member};
use crate::ids::{BrokerId, PartitionId, RaftIndex};

/// What the last look has found.
#[derive(Debug, Default)]
pub(super) struct Lag {
    groups: BTreeMap<PartitionId, Behind>,
}

impl Lag {
    /// Looks at the groups that are led here, and forgets the others.
    pub(super) fn look<'a>(&mut self, led: impl Iterator<Item = (PartitionId, &'a dyn Member)>) {
        let looked = led.map(|(group, member)| {
            let mark: Option<RaftIndex> = self.groups.get(&group).and_then(|before| before.last);
            (group, member.behind(mark))
        });
        self.groups = looked.collect();
    }

    /// The groups in which somebody is behind, and who.
    pub(super) fn behind(&self) -> Vec<(PartitionId, Vec<BrokerId>)> {
        let behind = self.groups.iter().filter(|(_, behind)| !behind.voters.is_empty());
        behind.map(|(group, behind)| (*group, behind.voters.iter().map(|(broker, _)| *broker).collect())).collect()
    }

    /// The brokers that are behind: in how many groups, and how many entries they lack of the one of which they lack most.
    pub(super) fn by_broker(&self) -> BTreeMap<BrokerId, (usize, u64)> {
        let mut brokers: BTreeMap<BrokerId, (usize, u64)> = BTreeMap::new();
        for (broker, missing) in self.groups.values().flat_map(|behind| &behind.voters) {
            let (groups, most) = brokers.entry(*broker).or_default();
            (*groups, *most) = (*groups + 1, (*most).max(*missing));
        }
        brokers
    }
}
