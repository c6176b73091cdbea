//! openraft's state machine over a [`Machine`]: committed entries fold into it, and the result is published before anybody
//! is told (`publish-before-reply`).
//!
//! Also the keeper of checkpoints. A *descriptor* is the machine with its place in the log. One is captured exactly where the
//! log rolled, and others when enough was applied or [`Applier::checkpoint`] asks, unless the machine's state is larger than the log since the
//! last: then it is as well to read that. The newest is where a restart begins. What
//! openraft is shown as the snapshot of an ordinary topic is only the descriptor of the last roll at or below log start: it purges up to
//! its snapshot, and a follower that is sent it never gets the records between log start and a newer one
//! (`raft-cut-below-log-start`).

use std::collections::{BTreeSet, VecDeque};
use std::io;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use futures::{Stream, StreamExt};
use openraft::storage::{ApplyResponder, EntryResponder, RaftStateMachine};
use openraft::type_config::alias::{SnapshotMetaOf, SnapshotOf};
use openraft::{EntryPayload, OptionalSend, RaftSnapshotBuilder};

use super::types::{
    Applied, Command, RaftLogId, RaftStoredMembership, TypeConfig, decode_membership, encode_membership, log_id,
    raft_log_id,
};
use crate::flaws::{Flaw, Flaws};
use crate::ids::{LogId, Offset, RaftIndex, ReplicaId, Term};
use crate::log::entry::{Body, EntrySummary, RaftEntryKind};
use crate::log::journal::Journal;
use crate::log::{Descriptor, Log, LogError, SegmentInfo};
use crate::machine::{Committed, Machine, What};

/// Entries applied between two publications, so that a long re-apply shows progress and parked replies leave.
const ENTRIES_PER_PUBLICATION: usize = 256;
/// Bytes applied since the last descriptor at which a new one is captured: bounds what a restart of this group reads back.
const BYTES_PER_DESCRIPTOR: u64 = 64 << 20;
/// What is read at once of batches that are applied one after another.
const READ_AHEAD_BYTES: u64 = 1 << 20;

/// What has been applied, as one value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AppliedState {
    /// The last applied entry.
    pub last: LogId,
    /// The offset behind the last applied record: the high watermark of a group with one voter.
    pub next_offset: Offset,
    /// The term of the last applied blank: the term whose leader has seen everything before it.
    pub blank_term: Option<Term>,
}

/// Told what was applied, before the replies that depend on it leave.
pub trait Observer<M>: Send + Sync + 'static {
    /// The group's voters are these from now on: two sets while they change.
    fn voters(&self, _voters: &[BTreeSet<ReplicaId>]) {}

    /// `machine` has applied everything up to `state.last`. Called under the machine's lock: short, never blocks.
    fn applied(&self, machine: &M, state: AppliedState);
}

/// When a group's log may be purged, and what openraft is told its snapshot is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Snapshots {
    /// An ordinary topic: the descriptor of the last roll at or below log start.
    AtLogStart,
    /// Controller and coordinators: the newest descriptor; the log before it is not needed.
    Latest,
}

/// What an applier works on, and from where it goes on.
pub struct ApplierConfig<M: Machine> {
    /// The group's log.
    pub log: Arc<Log>,
    /// The data directory's journal.
    pub journal: Arc<Journal>,
    /// The machine, restored from `descriptor`.
    pub machine: Arc<Mutex<M>>,
    /// The recovered restart checkpoint.
    pub descriptor: Option<Descriptor>,
    /// Told what is applied.
    pub observer: Arc<dyn Observer<M>>,
    /// What openraft is shown as the snapshot.
    pub snapshots: Snapshots,
    /// Bytes applied since their groups' last descriptors, over the whole broker.
    pub undescribed_bytes: Arc<AtomicU64>,
    /// The bug that is planted, if one is.
    pub flaws: Flaws,
}

/// The state machine of one group.
pub struct Applier<M: Machine> {
    /// Of the machine; asked once, not for each entry.
    reads_records: bool,
    log: Arc<Log>,
    journal: Arc<Journal>,
    machine: Arc<Mutex<M>>,
    observer: Arc<dyn Observer<M>>,
    snapshots: Snapshots,
    last: Option<LogId>,
    next_offset: Offset,
    blank_term: Option<Term>,
    membership: RaftStoredMembership,
    /// The index of the last descriptor captured, and the bytes applied since.
    described: Option<RaftIndex>,
    undescribed: u64,
    undescribed_total: Arc<AtomicU64>,
    flaws: Flaws,
    /// Captured descriptors of entries that are not synced yet: nothing persistent may name those.
    unflushed: VecDeque<Descriptor>,
    /// Batches behind the one that was read last, for a machine that reads records. They need not be committed.
    ahead: VecDeque<(LogId, Body)>,
}

impl<M: Machine> Applier<M> {
    /// An applier that goes on from a descriptor.
    ///
    /// # Errors
    /// If the descriptor's membership is damaged.
    pub fn new(config: ApplierConfig<M>) -> io::Result<Self> {
        let descriptor = config.descriptor.as_ref();
        let membership = descriptor.map(|d| decode_stored_membership(&d.membership)).transpose()?.unwrap_or_default();
        let reads_records = Self::lock(&config.machine).reads_records();
        Ok(Self {
            reads_records,
            observer: config.observer,
            snapshots: config.snapshots,
            last: descriptor.map(|d| d.id),
            next_offset: descriptor.map_or(Offset(0), |d| d.next_offset),
            blank_term: None,
            membership,
            described: descriptor.map(|d| d.id.index),
            undescribed: 0,
            undescribed_total: config.undescribed_bytes,
            flaws: config.flaws,
            unflushed: VecDeque::new(),
            ahead: VecDeque::new(),
            machine: config.machine,
            log: config.log,
            journal: config.journal,
        })
    }

    fn lock(machine: &Mutex<M>) -> std::sync::MutexGuard<'_, M> {
        machine.lock().expect("a machine's apply does not panic")
    }

    /// Applies one entry. Returns what its proposer is told.
    fn apply_one(&mut self, id: LogId, payload: EntryPayload<Command, ReplicaId, ()>) -> io::Result<Applied> {
        let expected = self.last.map_or(0, |last| last.index.0 + 1);
        assert_eq!(id.index.0, expected, "entries are applied in order, each once");
        if self.starts_segment(&payload) && self.is_worth_at_roll() {
            self.capture();
        }
        let base_offset = self.next_offset;
        let is_blank = matches!(payload, EntryPayload::Blank);
        match payload {
            EntryPayload::Blank => {
                self.fold(id, What::Blank)?;
                self.blank_term = Some(id.term);
            }
            EntryPayload::Membership(membership) => {
                self.observer.voters(membership.get_joint_config());
                self.membership = RaftStoredMembership::new(Some(raft_log_id(id)), membership);
            }
            EntryPayload::Normal(Command::Stored(summary)) => self.apply_summary(id, &summary)?,
            EntryPayload::Normal(other) => {
                return Err(io::Error::other(format!("apply {other}: not read from the log")));
            }
        }
        self.last = Some(id);
        Ok(Applied { base_offset, is_blank })
    }

    /// Whether the entry to be applied now is the first of its segment: the state before it is what a lagging replica can be sent.
    fn starts_segment(&self, payload: &EntryPayload<Command, ReplicaId, ()>) -> bool {
        let Some(last) = self.last else { return false };
        match payload {
            EntryPayload::Normal(Command::Stored(summary)) => summary.starts_segment,
            // Rare entries, whose form here has no room for it.
            _ => self.log.point_at(last.index).is_ok_and(|point| point.ends_segment),
        }
    }

    fn apply_summary(&mut self, id: LogId, summary: &EntrySummary) -> io::Result<()> {
        match &summary.raft_body {
            // What it was, nobody knows; the operator has been told.
            Some((RaftEntryKind::Lost, _)) => self.next_offset = Offset(summary.header.next_offset()),
            Some((_, body)) => self.fold(id, What::Command(body))?,
            None => {
                let batch = self.batch(id)?;
                self.fold(id, What::Records { header: &summary.header, batch: batch.as_ref() })?;
                self.next_offset = Offset(summary.header.next_offset());
            }
        }
        let bytes = u64::from(summary.size_bytes);
        self.undescribed += bytes;
        self.undescribed_total.fetch_add(bytes, Ordering::Relaxed);
        if self.undescribed >= BYTES_PER_DESCRIPTOR && self.is_worth() {
            self.last = Some(id);
            self.capture();
        }
        Ok(())
    }

    /// The batch of an entry, for a machine that reads records. It was written a moment ago, or is being read back.
    fn batch(&mut self, id: LogId) -> io::Result<Option<Bytes>> {
        if !self.reads_records {
            return Ok(None);
        }
        while self.ahead.pop_front_if(|(before, _)| before.index < id.index).is_some() {}
        // Whatever has this id is this entry, committed when it was read or not.
        if self.ahead.front().is_none_or(|(first, _)| *first != id) {
            let end = self.log.state().last.map_or(id.index, |last| last.index).next();
            let stored = self.log.stored(id.index..end, READ_AHEAD_BYTES).map_err(io::Error::other)?;
            self.ahead = stored.into_iter().map(|entry| (entry.id, entry.body)).collect();
        }
        match self.ahead.pop_front() {
            Some((found, Body::Records(batch))) if found == id => Ok(Some(batch)),
            _ => Err(io::Error::other(format!("entry {id} holds no records"))),
        }
    }

    /// Whether the segments since the last roll with a descriptor hold as much as a snapshot takes. They are not given up before there is
    /// another one, so this counts them, whatever other descriptors there were.
    fn is_worth_at_roll(&self) -> bool {
        let snapshot_bytes = Self::lock(&self.machine).snapshot_bytes();
        if snapshot_bytes == 0 {
            return true;
        }
        let described = self.journal.group(self.log.id()).descriptors;
        let rolls = self.unflushed.iter().chain(&described).filter(|it| it.roll);
        let (described, applied) = (rolls.map(|it| it.id.index).max(), self.last.map(|last| last.index));
        let behind =
            |segment: &SegmentInfo| described < Some(segment.first_index) && Some(segment.first_index) <= applied;
        let bytes: u64 = self.log.segments().iter().filter(|it| behind(it)).map(|segment| segment.size_bytes).sum();
        bytes >= snapshot_bytes
    }

    /// An entry that cannot be understood stops this replica: to skip it would make it differ from the others.
    fn fold(&self, id: LogId, what: What<'_>) -> io::Result<()> {
        let folded = Self::lock(&self.machine).apply(Committed { id, what });
        folded.map_err(|error| io::Error::new(io::ErrorKind::InvalidData, format!("apply entry {id}: {error}")))
    }

    fn publish(&self, replies: &mut Vec<(ApplyResponder<TypeConfig>, Applied)>) {
        if let Some(last) = self.last {
            let state = AppliedState { last, next_offset: self.next_offset, blank_term: self.blank_term };
            self.observer.applied(&Self::lock(&self.machine), state);
        }
        for (responder, applied) in replies.drain(..) {
            responder.send(applied);
        }
    }

    /// Captures a descriptor of what is applied, and hands the journal those whose entries are synced.
    fn capture(&mut self) {
        let Some(id) = self.last else { return };
        let point = match self.log.point_at(id.index) {
            Ok(point) => point,
            // Damage at the very entry that was just applied: the next descriptor will do.
            Err(error) => return tracing::error!(partition = %self.log.id(), %id, %error, "no checkpoint here"),
        };
        let (machine, log_start) = {
            let machine = Self::lock(&self.machine);
            (machine.snapshot(), machine.log_start())
        };
        assert_eq!(point.next_offset, self.next_offset, "offsets-follow-prefix: the log and the applier count alike");
        let descriptor = Descriptor {
            id,
            membership: encode_stored_membership(&self.membership),
            next_offset: self.next_offset,
            log_start,
            epochs: point.epochs,
            machine,
            place: Some(point.place),
            roll: point.ends_segment,
        };
        self.described = Some(id.index);
        self.undescribed_total.fetch_sub(self.undescribed, Ordering::Relaxed);
        self.undescribed = 0;
        self.unflushed.push_back(descriptor);
        self.hand_over();
    }

    fn hand_over(&mut self) {
        while let Some(descriptor) = self.unflushed.pop_front() {
            if self.flaws.has(Flaw::CheckpointAhead) {
                self.journal.put_descriptor(self.log.id(), descriptor, Box::new(drop));
                continue;
            }
            match self.log.put_descriptor(descriptor.clone(), Box::new(drop)) {
                Ok(()) => {}
                Err(LogError::NotFlushed { .. }) => return self.unflushed.push_front(descriptor),
                // The log has failed, and the process is about to end: the next start has what the journal had before.
                Err(_) => return,
            }
        }
    }

    /// Captures a restart checkpoint if anything was applied since the last one, and enough to be worth it.
    pub fn checkpoint(&mut self) {
        if self.last.is_some_and(|last| Some(last.index) != self.described) && self.is_worth() {
            self.capture();
        } else {
            self.hand_over();
        }
    }

    /// Whether a restart would read more of the log back than a snapshot takes.
    fn is_worth(&self) -> bool {
        self.undescribed >= Self::lock(&self.machine).snapshot_bytes()
    }

    /// Goes on from a state that another replica has described. It is durable before anything here counts on it, and openraft cuts the log there
    /// afterwards. Entries behind it that this log holds stay: they are what the leader has, or are truncated by it.
    async fn install(&mut self, snapshot: Descriptor) -> io::Result<()> {
        if self.last.is_some_and(|last| last.index >= snapshot.id.index) {
            return Err(io::Error::other(format!("a snapshot at {} is behind what is applied", snapshot.id)));
        }
        let membership = decode_stored_membership(&snapshot.membership)?;
        let machine = M::restore(&snapshot.machine)
            .map_err(|error| io::Error::new(io::ErrorKind::InvalidData, format!("a snapshot: {error}")))?;
        let (done, durable) = tokio::sync::oneshot::channel();
        let done = Box::new(move |outcome| drop(done.send(outcome)));
        self.journal.put_descriptor(self.log.id(), Descriptor { place: None, ..snapshot.clone() }, done);
        durable.await.unwrap_or_else(|_| Err(io::Error::other("the journal is closed")))?;
        *Self::lock(&self.machine) = machine;
        self.observer.voters(membership.membership().get_joint_config());
        self.membership = membership;
        self.last = Some(snapshot.id);
        self.next_offset = snapshot.next_offset;
        // Whoever led in the term of the last entry had its first one applied before.
        self.blank_term = Some(snapshot.id.term);
        self.described = Some(snapshot.id.index);
        self.undescribed_total.fetch_sub(self.undescribed, Ordering::Relaxed);
        self.undescribed = 0;
        self.unflushed.clear();
        self.ahead.clear();
        self.publish(&mut Vec::new());
        Ok(())
    }

    /// The descriptor that openraft sees as this group's snapshot.
    fn snapshot(&self) -> Option<Descriptor> {
        let group = self.journal.group(self.log.id());
        match self.snapshots {
            Snapshots::AtLogStart => {
                let log_start = Self::lock(&self.machine).log_start();
                // One that was received may stand behind the log start that is known here so far: the entry that moved it comes later.
                let received = || group.descriptors.iter().find(|it| Some(it.id) == self.log.state().purged);
                group.snapshot(log_start).or_else(received).cloned()
            }
            Snapshots::Latest => group.checkpoint().cloned(),
        }
    }
}

fn snapshot_of(descriptor: Descriptor) -> io::Result<SnapshotOf<TypeConfig, Descriptor>> {
    let last_membership = decode_stored_membership(&descriptor.membership)?;
    let meta = SnapshotMetaOf::<TypeConfig> { last_log_id: Some(raft_log_id(descriptor.id)), last_membership };
    Ok(SnapshotOf::<TypeConfig, Descriptor> { meta, snapshot: descriptor })
}

/// The stored form of "no entry has set a membership yet".
const NO_INDEX: u64 = u64::MAX;

/// A membership with the entry that set it: a descriptor's opaque part.
fn encode_stored_membership(stored: &RaftStoredMembership) -> Bytes {
    let mut out = Vec::with_capacity(64);
    let (term, index) = stored.log_id().as_ref().map_or((0, NO_INDEX), |id| (log_id(id).term.0, id.index()));
    out.extend_from_slice(&term.to_be_bytes());
    out.extend_from_slice(&index.to_be_bytes());
    out.extend_from_slice(&encode_membership(stored.membership()));
    out.into()
}

pub(super) fn decode_stored_membership(bytes: &[u8]) -> io::Result<RaftStoredMembership> {
    let damaged = || io::Error::new(io::ErrorKind::InvalidData, "stored membership is damaged");
    let (term, rest) = bytes.split_first_chunk::<8>().ok_or_else(damaged)?;
    let (index, rest) = rest.split_first_chunk::<8>().ok_or_else(damaged)?;
    let (term, index) = (u64::from_be_bytes(*term), u64::from_be_bytes(*index));
    let id = (index != NO_INDEX).then(|| raft_log_id(LogId { term: Term(term), index: RaftIndex(index) }));
    Ok(RaftStoredMembership::new(id, decode_membership(rest)?))
}

impl<M: Machine> RaftStateMachine<TypeConfig> for Applier<M> {
    type SnapshotData = Descriptor;
    type SnapshotBuilder = Builder;

    async fn applied_state(&mut self) -> Result<(Option<RaftLogId>, RaftStoredMembership), io::Error> {
        Ok((self.last.map(raft_log_id), self.membership.clone()))
    }

    async fn apply<S>(&mut self, mut entries: S) -> Result<(), io::Error>
    where
        S: Stream<Item = Result<EntryResponder<TypeConfig>, io::Error>> + Unpin + OptionalSend,
    {
        let mut replies = Vec::new();
        let mut unpublished = 0;
        while let Some(item) = entries.next().await {
            let (entry, responder) = item?;
            let applied = self.apply_one(log_id(&entry.log_id), entry.payload)?;
            replies.extend(responder.map(|responder| (responder, applied)));
            unpublished += 1;
            if unpublished == ENTRIES_PER_PUBLICATION {
                self.publish(&mut replies);
                unpublished = 0;
            }
        }
        self.publish(&mut replies);
        Ok(())
    }

    async fn try_create_snapshot_builder(&mut self, _force: bool) -> Option<Builder> {
        let descriptor = self.snapshot()?;
        Some(Builder { journal: Arc::clone(&self.journal), descriptor: Some(descriptor) })
    }

    async fn get_snapshot_builder(&mut self) -> Builder {
        Builder { journal: Arc::clone(&self.journal), descriptor: self.snapshot() }
    }

    async fn install_snapshot(
        &mut self,
        _meta: &SnapshotMetaOf<TypeConfig>,
        snapshot: Descriptor,
    ) -> Result<(), io::Error> {
        self.install(snapshot).await
    }

    async fn get_current_snapshot(&mut self) -> Result<Option<SnapshotOf<TypeConfig, Descriptor>>, io::Error> {
        self.snapshot().map(snapshot_of).transpose()
    }
}

/// Makes a captured descriptor durable and shows it to openraft as the snapshot.
pub struct Builder {
    journal: Arc<Journal>,
    descriptor: Option<Descriptor>,
}

impl RaftSnapshotBuilder<TypeConfig> for Builder {
    type SnapshotData = Descriptor;

    async fn build_snapshot(&mut self) -> Result<SnapshotOf<TypeConfig, Descriptor>, io::Error> {
        let Some(descriptor) = self.descriptor.take() else {
            return Err(io::Error::other("no descriptor at or below log start"));
        };
        // Purging follows: nothing may be purged for a descriptor that a power cut could take away.
        let (done, durable) = tokio::sync::oneshot::channel();
        self.journal.sync(Box::new(move |outcome| drop(done.send(outcome))));
        durable.await.unwrap_or_else(|_| Err(io::Error::other("the journal is closed")))?;
        snapshot_of(descriptor)
    }
}
