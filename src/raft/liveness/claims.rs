//! What a broker claims to lead, and how that has changed.

use std::collections::{BTreeMap, VecDeque};

use crate::ids::{PartitionId, Term};

/// Changes that are remembered; whoever knows less is told all.
const CHANGES_MAX: usize = 4096;

/// What is claimed, by version: each change makes one.
#[derive(Debug, Default)]
pub struct Claims {
    version: u64,
    /// The term, and the version that the claim was made with.
    claimed: BTreeMap<PartitionId, (Term, u64)>,
    /// The groups of the last changes; the newest is that of the present version.
    changes: VecDeque<PartitionId>,
}

impl Claims {
    /// The present version; 0 before anything was claimed.
    #[must_use]
    pub const fn version(&self) -> u64 {
        self.version
    }

    /// The term in which a group is claimed, and the version from which on.
    #[must_use]
    pub fn get(&self, group: PartitionId) -> Option<(Term, u64)> {
        self.claimed.get(&group).copied()
    }

    /// The groups that are claimed, each with its term.
    pub fn iter(&self) -> impl Iterator<Item = (PartitionId, Term)> {
        self.claimed.iter().map(|(group, (term, _))| (*group, *term))
    }

    /// The groups that are claimed.
    pub fn groups(&self) -> impl Iterator<Item = PartitionId> {
        self.claimed.keys().copied()
    }

    /// Claims a group.
    pub fn claim(&mut self, group: PartitionId, term: Term) {
        if self.claimed.get(&group).is_none_or(|(before, _)| *before != term) {
            self.change(group);
            self.claimed.insert(group, (term, self.version));
        }
    }

    /// Does not claim it any more.
    pub fn withdraw(&mut self, group: PartitionId) {
        if self.claimed.remove(&group).is_some() {
            self.change(group);
        }
    }

    fn change(&mut self, group: PartitionId) {
        self.version += 1;
        self.changes.push_back(group);
        if self.changes.len() > CHANGES_MAX {
            self.changes.pop_front();
        }
    }

    /// What has changed since a version: the version that the answer builds on (0: it says all), groups claimed, groups not claimed any more.
    #[must_use]
    pub fn since(&self, version: u64) -> (u64, Vec<(PartitionId, Term)>, Vec<PartitionId>) {
        let behind = self.version.saturating_sub(version);
        let remembered = usize::try_from(behind).ok().filter(|count| *count <= self.changes.len());
        match remembered.filter(|_| version > 0 && version <= self.version) {
            Some(count) => {
                let mut groups: Vec<PartitionId> = self.changes.iter().rev().take(count).copied().collect();
                groups.sort_unstable();
                groups.dedup();
                let (claimed, withdrawn): (Vec<_>, Vec<_>) =
                    groups.into_iter().partition(|group| self.claimed.contains_key(group));
                let claimed = claimed.into_iter().map(|group| (group, self.claimed[&group].0)).collect();
                (version, claimed, withdrawn)
            }
            None => (0, self.claimed.iter().map(|(group, (term, _))| (*group, *term)).collect(), Vec::new()),
        }
    }
}
