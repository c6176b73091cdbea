//! What the journal remembers of each group, folded from its records: the same fold live and when it is read back.

use std::collections::BTreeMap;

use bytes::Bytes;

use super::descriptor::{Descriptor, Mark};
use super::journal_frame::{Change, Record};
use crate::ids::{LogId, Offset, PartitionId};

/// What is remembered of one group.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct GroupState {
    /// The last vote saved (the raft layer's bytes).
    pub vote: Option<Bytes>,
    /// An index known to be committed. It may lag; it never names an entry that was not synced.
    pub committed: Option<LogId>,
    /// The raft cut: the last entry purged.
    pub purged: Option<LogId>,
    /// A point that the log's files had been synced up to.
    pub mark: Option<Mark>,
    /// By index: the newest, which is where a restart begins, and before it one for each roll that a lagging replica may be sent.
    pub descriptors: Vec<Descriptor>,
}

impl GroupState {
    /// Where a restart begins.
    #[must_use]
    pub fn checkpoint(&self) -> Option<&Descriptor> {
        self.descriptors.last()
    }

    /// What a replica that lags behind the raft cut is sent: the state at the last roll at or below log start.
    #[must_use]
    pub fn snapshot(&self, log_start: Offset) -> Option<&Descriptor> {
        self.descriptors.iter().rev().find(|it| it.roll && it.next_offset <= log_start)
    }

    /// The entry that another replica's state stands at, if a restart begins with one.
    pub(super) fn received(&self) -> Option<LogId> {
        self.checkpoint().filter(|it| it.place.is_none()).map(|it| it.id)
    }

    /// The raft cut. Another replica's state cuts the log too: what stood before may be another history, and a crash may have come between
    /// the descriptor and the record of the cut.
    pub(super) fn cut(&self) -> Option<LogId> {
        let received = self.received();
        if received.map(|id| id.index) > self.purged.map(|id| id.index) { received } else { self.purged }
    }

    pub(super) fn apply(&mut self, change: Change) {
        match change {
            Change::Vote(vote) => self.vote = Some(vote),
            Change::Committed(id) => self.committed = Some(id),
            Change::Purged(id) => self.purged = Some(id),
            Change::Mark(mark) => self.mark = Some(mark),
            Change::Descriptor(descriptor) => self.add(*descriptor),
            Change::Removed => *self = Self::default(),
        }
    }

    fn add(&mut self, descriptor: Descriptor) {
        let at = self.descriptors.partition_point(|it| it.id.index < descriptor.id.index);
        match self.descriptors.get_mut(at).filter(|it| it.id.index == descriptor.id.index) {
            // One for the same entry that is not for a roll must not replace one that is.
            Some(same) => {
                let roll = same.roll || descriptor.roll;
                *same = Descriptor { roll, ..descriptor };
            }
            None => self.descriptors.insert(at, descriptor),
        }
        self.prune();
    }

    /// Keeps the newest, each roll at or above log start, and the last roll at or below it.
    fn prune(&mut self) {
        let Some(newest) = self.descriptors.last() else { return };
        let (index, log_start, received) = (newest.id.index, newest.log_start, newest.place.is_none());
        let sent = self.snapshot(log_start).map(|it| it.id.index);
        self.descriptors.retain(|it| {
            let needed = it.roll && (it.next_offset >= log_start || Some(it.id.index) == sent);
            it.id.index == index || (needed && !received)
        });
    }

    fn records(&self, group: PartitionId) -> impl Iterator<Item = Record> {
        let vote = self.vote.clone().map(Change::Vote);
        let committed = self.committed.map(Change::Committed);
        let purged = self.purged.map(Change::Purged);
        let mark = self.mark.map(Change::Mark);
        let descriptors = self.descriptors.iter().cloned().map(|it| Change::Descriptor(Box::new(it)));
        let changes = vote.into_iter().chain(committed).chain(purged).chain(mark).chain(descriptors);
        changes.map(move |change| Record::Group(group, change)).collect::<Vec<_>>().into_iter()
    }
}

/// All groups of a data directory.
#[derive(Debug, Default)]
pub(super) struct Groups(pub(super) BTreeMap<PartitionId, GroupState>);

impl Groups {
    pub(super) fn apply(&mut self, record: Record) {
        match record {
            Record::Format(_) => {}
            Record::Group(group, Change::Removed) => {
                self.0.remove(&group);
            }
            Record::Group(group, change) => self.0.entry(group).or_default().apply(change),
        }
    }

    /// Everything, as records that fold back to the same state.
    pub(super) fn records(&self) -> impl Iterator<Item = Record> {
        self.0.iter().flat_map(|(group, state)| state.records(*group))
    }
}

/// Values that wait, the newest of each kind only, for the next frame that is written anyway.
#[derive(Debug, Default)]
pub(super) struct Lazy(BTreeMap<PartitionId, Waiting>);

#[derive(Debug, Default)]
struct Waiting {
    committed: Option<LogId>,
    purged: Option<LogId>,
    mark: Option<Mark>,
}

impl Lazy {
    pub(super) fn put_committed(&mut self, group: PartitionId, id: LogId) {
        self.0.entry(group).or_default().committed = Some(id);
    }

    pub(super) fn put_purged(&mut self, group: PartitionId, id: LogId) {
        self.0.entry(group).or_default().purged = Some(id);
    }

    pub(super) fn put_mark(&mut self, group: PartitionId, mark: Mark) {
        self.0.entry(group).or_default().mark = Some(mark);
    }

    pub(super) fn forget(&mut self, group: PartitionId) {
        self.0.remove(&group);
    }

    pub(super) fn take(&mut self) -> Vec<Record> {
        let mut records = Vec::new();
        for (group, waiting) in std::mem::take(&mut self.0) {
            let changes = [
                waiting.purged.map(Change::Purged),
                waiting.mark.map(Change::Mark),
                waiting.committed.map(Change::Committed),
            ];
            records.extend(changes.into_iter().flatten().map(|change| Record::Group(group, change)));
        }
        records
    }

    /// A group's state with what still waits.
    pub(super) fn over(&self, group: PartitionId, mut state: GroupState) -> GroupState {
        if let Some(waiting) = self.0.get(&group) {
            state.committed = waiting.committed.or(state.committed);
            state.purged = waiting.purged.or(state.purged);
            state.mark = waiting.mark.or(state.mark);
        }
        state
    }
}
