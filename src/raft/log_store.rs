//! openraft's log storage over the partition's log: the Raft log is the Kafka log.
//!
//! `append` writes to the page cache and returns; the callback is called by the flusher when the sync that covers the entry
//! has returned. Contiguity of indexes is checked by the log itself (openraft does not in release builds). Votes are durable
//! before `save_vote` returns; the committed index is only remembered, and reaches the journal lazily.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Debug;
use std::io;
use std::ops::{Bound, RangeBounds, RangeInclusive};
use std::sync::Arc;
use std::time::Duration;

use futures::Stream;
use futures::stream;
use openraft::entry::RaftPayload;
use openraft::storage::{IOFlushed, LogState, RaftLogStorage};
use openraft::{EntryPayload, OptionalSend, RaftLogReader};
use tokio::time::Instant;

use super::applier::decode_stored_membership;
use super::flusher::LogFlusher;
use super::refound::{alone, vote_alone};
use super::types::{
    Command, Placed, RaftEntry, RaftLogId, RaftMembership, RaftVote, TypeConfig, decode_membership, decode_vote,
    encode_membership, encode_vote, log_id, raft_log_id,
};
use crate::flaws::Flaw;
use crate::ids::{LogId, Offset, PartitionId, RaftIndex, ReplicaId, Term};
use crate::log::entry::{Body, EntrySummary, NewEntry, RaftEntryKind, StoredEntry};
use crate::log::journal::Journal;
use crate::log::{Descriptor, Log, LogError};
use crate::protocol::batch::{BatchHeader, HEADER_BYTES};

/// Entries handed to the machine in one read: bounds what an apply holds in memory.
const SUMMARIES_PER_READ: usize = 1024;
/// Bytes of whole entries in one read for replication: openraft has no limit of its own.
const STORED_BYTES_PER_READ: u64 = 2 << 20;
/// How long a reader waits for damage to be mended.
const MEND_PATIENCE: Duration = Duration::from_secs(10);
/// How often it looks.
const MEND_LOOK: Duration = Duration::from_millis(10);

/// One group's log storage.
#[derive(Clone)]
pub struct LogStore {
    id: PartitionId,
    log: Arc<Log>,
    journal: Arc<Journal>,
    flusher: Arc<LogFlusher>,
}

impl LogStore {
    /// Storage of the group `log.id()`.
    #[must_use]
    pub fn new(log: Arc<Log>, journal: Arc<Journal>, flusher: Arc<LogFlusher>) -> Self {
        Self { id: log.id(), log, journal, flusher }
    }

    /// Makes `voters` the group's voters: writes the first membership of a log that has none, and one more to a log whose only voter was an
    /// earlier incarnation of the only voter there is to be. `descriptor` is what the log was recovered from. All founders write the same
    /// entry at the same place, as if one had led the others. Without voters it waits for a leader to tell it.
    ///
    /// It stands there before Raft starts: a log that lost it to a power cut, while the journal kept the vote, gets it again.
    /// Nothing is lost with such a log: what is acknowledged is durable, and what is durable comes with all entries before it,
    /// this one included. That is also why no sync is awaited here.
    ///
    /// An earlier incarnation has no say any more, since the controller has replaced it, and there was no other voter: nobody else can
    /// hold another entry at the new one's place. A log whose voters are on other brokers is left as it is.
    ///
    /// # Errors
    /// Of the log; or if it names voters that `me` does not follow on.
    pub fn found(
        &self,
        me: ReplicaId,
        founders: &BTreeSet<ReplicaId>,
        descriptor: Option<&Descriptor>,
    ) -> io::Result<()> {
        if !founders.contains(&me) {
            return Ok(());
        }
        let Some(last) = self.log.state().last else {
            return self.write_membership(founders, LogId { term: Term(0), index: RaftIndex(0) });
        };
        let Some(membership) = self.newest_membership(last, descriptor)? else { return Ok(()) };
        let voters: BTreeSet<ReplicaId> = membership.voter_ids().collect();
        let is_replaced = |old: &ReplicaId| old.broker == me.broker && old.incarnation < me.incarnation;
        // Others have taken over, who tell it what has become of the group since.
        let is_others = voters.iter().all(|voter| voter.broker != me.broker);
        if voters.contains(&me) || founders.len() > 1 || is_others {
            Ok(())
        } else if voters.len() == 1 && voters.iter().all(is_replaced) {
            self.write_membership(founders, LogId { term: last.term, index: last.index.next() })
        } else {
            Err(io::Error::other(format!(
                "{me:?} is none of the voters that the log names, and follows on none: {voters:?}"
            )))
        }
    }

    /// Makes `me` the group's only voter, if the controller says that it founds the group alone and the log still names the majority that an earlier
    /// incarnation was one of: an operator has given that majority up. To be called before [`LogStore::found`].
    ///
    /// # Errors
    /// Of the log or the journal.
    pub async fn refound(
        &self,
        me: ReplicaId,
        founders: &BTreeSet<ReplicaId>,
        descriptor: Option<&Descriptor>,
    ) -> io::Result<()> {
        let Some(last) = self.log.state().last.filter(|_| *founders == BTreeSet::from([me])) else { return Ok(()) };
        let Some(membership) = self.newest_membership(last, descriptor)? else { return Ok(()) };
        let is_replaced = |old: &ReplicaId| old.broker == me.broker && old.incarnation < me.incarnation;
        let voters: BTreeSet<ReplicaId> = membership.voter_ids().collect();
        let others = voters.iter().any(|voter| voter.broker != me.broker);
        // One that did not vote yet may have been the one with most.
        let was_there = membership.nodes().any(|(replica, ())| is_replaced(replica));
        if voters.contains(&me) || !others || !was_there {
            return Ok(());
        }
        let (vote, term) = vote_alone(&self.journal, &self.log, me)?;
        tracing::error!(partition = %self.id, %me, %last, voters = ?voters, "a group goes on from this log, alone: its majority was given up");
        let (done, durable) = tokio::sync::oneshot::channel();
        // First: a log must not hold a term that its vote does not know.
        self.journal.put_vote(self.id, vote, Box::new(move |outcome| drop(done.send(outcome))));
        durable.await.unwrap_or_else(|_| Err(io::Error::other("the journal is closed")))?;
        // As in `found`, no sync is awaited: a log that loses this entry gets it again.
        let id = LogId { term, index: last.index.next() };
        self.log.append(&[NewEntry { id, body: alone(me)? }]).map(drop).map_err(to_io)
    }

    fn write_membership(&self, voters: &BTreeSet<ReplicaId>, id: LogId) -> io::Result<()> {
        let nodes: BTreeMap<ReplicaId, ()> = voters.iter().map(|voter| (*voter, ())).collect();
        let membership = RaftMembership::new(vec![voters.clone()], nodes).map_err(io::Error::other)?;
        let founding = new_entry(entry(id, EntryPayload::Membership(membership)), Offset(0))?;
        self.log.append(&[founding]).map(drop).map_err(to_io)
    }

    /// The voters that the log names last; two sets while they change. None in a log without any entry.
    ///
    /// # Errors
    /// Of the log.
    pub fn voters(&self, descriptor: Option<&Descriptor>) -> io::Result<Vec<BTreeSet<ReplicaId>>> {
        let Some(last) = self.log.state().last else { return Ok(Vec::new()) };
        let membership = self.newest_membership(last, descriptor)?;
        Ok(membership.map(|membership| membership.get_joint_config().clone()).unwrap_or_default())
    }

    /// The membership in force at the log's end: of the entries behind the descriptor, or the descriptor's own.
    fn newest_membership(&self, last: LogId, descriptor: Option<&Descriptor>) -> io::Result<Option<RaftMembership>> {
        let state = self.log.state();
        let purged = state.purged.map_or(RaftIndex(0), |id| id.index.next());
        let start = descriptor.map_or(purged, |descriptor| descriptor.id.index.next()).max(purged);
        let (mut end, step) = (last.index.next().0, u64::try_from(SUMMARIES_PER_READ).expect("a constant fits"));
        while end > start.0 {
            let begin = start.0.max(end.saturating_sub(step));
            for entry in self.summaries(begin..end)?.into_iter().rev() {
                if let EntryPayload::Membership(membership) = entry.payload {
                    return Ok(Some(membership));
                }
            }
            end = begin;
        }
        let described = descriptor.map(|descriptor| decode_stored_membership(&descriptor.membership)).transpose()?;
        Ok(described.map(|stored| stored.membership().clone()))
    }

    /// Reads; if it is damaged, waits until that is mended, if somebody does: an error ends the group's core.
    async fn mended<T>(&self, read: impl Fn() -> Result<T, LogError>) -> io::Result<T> {
        let until = Instant::now() + MEND_PATIENCE;
        loop {
            match read() {
                Err(LogError::Damaged(_)) if self.log.is_tended() && Instant::now() < until => {
                    tokio::time::sleep(MEND_LOOK).await;
                }
                read => return read.map_err(to_io),
            }
        }
    }

    fn summaries(&self, range: std::ops::Range<u64>) -> io::Result<Vec<RaftEntry>> {
        let mut out = Vec::new();
        let mut next = range.start;
        while next < range.end {
            let wanted = RaftIndex(next)..RaftIndex(range.end);
            let part = self.log.summaries(wanted, SUMMARIES_PER_READ).map_err(to_io)?;
            assert!(!part.is_empty(), "a read of a non-empty range returns entries or an error");
            next += u64::try_from(part.len()).expect("a count fits");
            for summary in part {
                out.push(summary_entry(summary)?);
            }
        }
        Ok(out)
    }

    /// The same, after damage has been mended.
    async fn summaries_mended(&self, range: std::ops::Range<u64>) -> io::Result<Vec<RaftEntry>> {
        match self.summaries(range.clone()) {
            Err(_) if self.log.is_tended() => {
                let wanted = RaftIndex(range.start)..RaftIndex(range.end);
                self.mended(|| self.log.summaries(wanted.clone(), 1)).await?;
                self.summaries(range)
            }
            read => read,
        }
    }

    fn resolve(&self, range: &impl RangeBounds<u64>) -> std::ops::Range<u64> {
        let state = self.log.state();
        let first = state.purged.map_or(0, |id| id.index.0 + 1);
        let end = state.last.map_or(first, |id| id.index.0 + 1);
        let start = match range.start_bound() {
            Bound::Included(at) => *at,
            Bound::Excluded(at) => at + 1,
            Bound::Unbounded => first,
        };
        let stop = match range.end_bound() {
            Bound::Included(at) => at + 1,
            Bound::Excluded(at) => *at,
            Bound::Unbounded => end,
        };
        start.max(first)..stop.min(end)
    }
}

impl RaftLogReader<TypeConfig> for LogStore {
    /// Headers only: openraft calls this for start-up (memberships, re-applying), never to replicate.
    async fn try_get_log_entries<RB: RangeBounds<u64> + Clone + Debug + OptionalSend>(
        &mut self,
        range: RB,
    ) -> Result<Vec<RaftEntry>, io::Error> {
        let range = self.resolve(&range);
        if range.is_empty() {
            return Ok(Vec::new());
        }
        // "What there is of the range": a log may begin behind its first index without anything purged.
        match self.log.summaries(RaftIndex(range.start)..RaftIndex(range.end), 1) {
            Err(LogError::NoSuchEntries { has, .. }) => {
                let there = range.start.max(has.start.0)..range.end.min(has.end.0);
                if there.is_empty() { Ok(Vec::new()) } else { self.summaries(there) }
            }
            _ => self.summaries(range),
        }
    }

    async fn read_vote(&mut self) -> Result<Option<RaftVote>, io::Error> {
        self.journal.group(self.id).vote.map(|vote| decode_vote(&vote)).transpose()
    }

    /// From the epoch table: openraft's own search reads an entry for each term.
    async fn get_key_log_ids(&mut self, range: RangeInclusive<RaftLogId>) -> Result<Vec<RaftLogId>, io::Error> {
        let (first, last) = (range.start().index(), range.end().index());
        if let Some(ids) = self.log.last_ids(RaftIndex(first)..=RaftIndex(last)) {
            return Ok(ids.into_iter().map(raft_log_id).collect());
        }
        let mut ids: Vec<RaftLogId> = Vec::new();
        for entry in self.summaries(first..last + 1)? {
            if ids.last().is_some_and(|id| id.committed_leader_id() == entry.log_id.committed_leader_id()) {
                ids.pop();
            }
            ids.push(entry.log_id);
        }
        Ok(ids)
    }

    async fn limited_get_log_entries(&mut self, start: u64, end: u64) -> Result<Vec<RaftEntry>, io::Error> {
        let range = RaftIndex(start)..RaftIndex(end);
        let stored = self.mended(|| self.log.stored(range.clone(), STORED_BYTES_PER_READ)).await?;
        stored.into_iter().map(stored_entry).collect()
    }

    /// What is applied: headers, read in steps so that a long catch-up holds little memory.
    async fn entries_stream<RB>(&mut self, range: RB) -> impl Stream<Item = Result<RaftEntry, io::Error>> + OptionalSend
    where
        RB: RangeBounds<u64> + Clone + Debug + OptionalSend,
    {
        let store = self.clone();
        let range = self.resolve(&range);
        let step = u64::try_from(SUMMARIES_PER_READ).expect("a constant fits");
        let state = (store, range, Vec::new().into_iter());
        let steps = stream::unfold(state, move |(store, mut range, mut buffer)| async move {
            let item = match buffer.next() {
                Some(entry) => Some(Ok(entry)),
                None if range.is_empty() => None,
                None => {
                    let end = range.end.min(range.start + step);
                    match store.summaries_mended(range.start..end).await {
                        Ok(entries) => {
                            range.start = end;
                            buffer = entries.into_iter();
                            buffer.next().map(Ok)
                        }
                        Err(error) => {
                            range.start = range.end;
                            Some(Err(error))
                        }
                    }
                }
            };
            item.map(|item| (item, (store, range, buffer)))
        });
        Box::pin(steps)
    }
}

impl RaftLogStorage<TypeConfig> for LogStore {
    type LogReader = Self;

    async fn get_log_state(&mut self) -> Result<LogState<TypeConfig>, io::Error> {
        let state = self.log.state();
        let purged = state.purged.map(raft_log_id);
        Ok(LogState { last_purged_log_id: purged, last_log_id: state.last.map(raft_log_id).or(purged) })
    }

    async fn get_log_reader(&mut self) -> Self {
        self.clone()
    }

    async fn save_vote(&mut self, vote: &RaftVote) -> Result<(), io::Error> {
        if self.flusher.flaws.has(Flaw::VoteNotStored) && self.id != PartitionId::CONTROLLER {
            return Ok(());
        }
        let (done, durable) = tokio::sync::oneshot::channel();
        let done = Box::new(move |outcome| drop(done.send(outcome)));
        self.journal.put_vote(self.id, encode_vote(vote), done);
        durable.await.unwrap_or_else(|_| Err(io::Error::other("the journal is closed")))
    }

    async fn save_committed(&mut self, committed: Option<RaftLogId>) -> Result<(), io::Error> {
        // Called for every commit, inside the Raft core: memory only. The log writes min(committed, flushed) with its marks.
        if let Some(committed) = committed {
            self.log.save_committed(log_id(&committed));
        }
        Ok(())
    }

    async fn read_committed(&mut self) -> Result<Option<RaftLogId>, io::Error> {
        // Never beyond the recovered log: openraft does not start a group whose committed entry is not there.
        let committed = self.journal.group(self.id).committed;
        Ok(committed.zip(self.log.state().last).map(|(committed, last)| committed.min_index(last)).map(raft_log_id))
    }

    async fn append<I>(&mut self, entries: I, callback: IOFlushed<TypeConfig>) -> Result<(), io::Error>
    where
        I: IntoIterator<Item = RaftEntry> + OptionalSend,
        I::IntoIter: OptionalSend,
    {
        let mut must_sync = false;
        let mut bytes = 0u64;
        let mut next_offset = self.log.state().next_offset;
        let entries: Vec<NewEntry> = entries
            .into_iter()
            .map(|entry| {
                check_offset(&entry, next_offset)?;
                let entry = new_entry(entry, next_offset)?;
                if let Body::Records(batch) = &entry.body {
                    next_offset = next_offset.plus(i64::from(header(batch)?.last_offset_delta) + 1);
                }
                must_sync |= matches!(entry.body, Body::Raft { .. });
                bytes += body_bytes(&entry.body);
                Ok(entry)
            })
            .collect::<io::Result<_>>()?;
        let Some(last) = entries.last().map(|entry| entry.id.index) else {
            callback.io_completed(Ok(()));
            return Ok(());
        };
        self.log.append(&entries).map_err(to_io)?;
        self.flusher.appended(last, bytes, must_sync, Box::new(move |outcome| callback.io_completed(outcome)));
        Ok(())
    }

    async fn truncate_after(&mut self, last: Option<RaftLogId>) -> Result<(), io::Error> {
        let from = last.map_or(0, |last| last.index() + 1);
        self.log.truncate_from(RaftIndex(from)).map_err(to_io)
    }

    async fn purge(&mut self, upto: RaftLogId) -> Result<(), io::Error> {
        self.log.purge(log_id(&upto)).map_err(to_io)?;
        // The cut lies at or below log start, so nobody can ask for what is before it.
        self.log.delete_before(Offset(i64::MAX));
        Ok(())
    }
}

fn header(batch: &[u8]) -> io::Result<BatchHeader> {
    BatchHeader::parse(batch).map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))
}

/// Equal index means equal offset on every replica: what a leader has stamped is compared with what this replica is about to.
fn check_offset(entry: &RaftEntry, next_offset: Offset) -> io::Result<()> {
    let EntryPayload::Normal(Command::Replicated(batch)) = &entry.payload else { return Ok(()) };
    let header = header(batch)?;
    let term = **entry.log_id.committed_leader_id();
    if header.base_offset != next_offset.0 || u64::try_from(header.leader_epoch) != Ok(term) {
        let text = format!(
            "entry {} comes from its leader with offset {} and epoch {}, and would have offset {next_offset} here",
            log_id(&entry.log_id),
            header.base_offset,
            header.leader_epoch,
        );
        return Err(io::Error::new(io::ErrorKind::InvalidData, text));
    }
    Ok(())
}

fn to_io(error: LogError) -> io::Error {
    match error {
        LogError::Io(error) => error,
        other => io::Error::other(other),
    }
}

/// The entry as it is stored behind `next_offset`.
fn new_entry(entry: RaftEntry, next_offset: Offset) -> io::Result<NewEntry> {
    let id = log_id(&entry.log_id);
    let body = match entry.payload {
        EntryPayload::Blank => raft_body(RaftEntryKind::Blank, bytes::Bytes::new()),
        EntryPayload::Membership(membership) => raft_body(RaftEntryKind::Membership, encode_membership(&membership)),
        EntryPayload::Normal(Command::Records(batch) | Command::Replicated(batch)) => Body::Records(batch),
        EntryPayload::Normal(Command::Machine(command)) => raft_body(RaftEntryKind::Command, command),
        EntryPayload::Normal(Command::At(index, base_offset, placed)) => match placed {
            _ if (index, base_offset) != (id.index, next_offset) => {
                raft_body(RaftEntryKind::Blank, bytes::Bytes::new())
            }
            Placed::Records(batch) => Body::Records(batch),
            Placed::Machine(command) => raft_body(RaftEntryKind::Command, command),
        },
        EntryPayload::Normal(Command::Stored(_)) => {
            return Err(io::Error::other("an entry read for applying is never appended"));
        }
    };
    Ok(NewEntry { id, body })
}

fn body_bytes(body: &Body) -> u64 {
    let bytes = match body {
        Body::Records(batch) => batch.len(),
        Body::Raft { body, .. } => HEADER_BYTES + body.len(),
    };
    u64::try_from(bytes).expect("a length fits")
}

fn raft_body(kind: RaftEntryKind, body: bytes::Bytes) -> Body {
    Body::Raft { kind, body }
}

fn entry(id: crate::ids::LogId, payload: EntryPayload<Command, crate::ids::ReplicaId, ()>) -> RaftEntry {
    RaftEntry { log_id: raft_log_id(id), payload }
}

/// An entry as applying sees it: its header, and the body of Raft's own entries.
pub(super) fn summary_entry(summary: EntrySummary) -> io::Result<RaftEntry> {
    let id = summary.id;
    let payload = match &summary.raft_body {
        Some((RaftEntryKind::Blank, _)) => EntryPayload::blank(),
        Some((RaftEntryKind::Membership, body)) => EntryPayload::Membership(decode_membership(body)?),
        Some((RaftEntryKind::Command | RaftEntryKind::Lost, _)) | None => {
            EntryPayload::Normal(Command::Stored(Box::new(summary)))
        }
    };
    Ok(entry(id, payload))
}

fn stored_entry(stored: StoredEntry) -> io::Result<RaftEntry> {
    let payload = match stored.body {
        Body::Records(batch) => EntryPayload::Normal(Command::Records(batch)),
        Body::Raft { kind: RaftEntryKind::Blank, .. } => EntryPayload::blank(),
        Body::Raft { kind: RaftEntryKind::Membership, body } => EntryPayload::Membership(decode_membership(&body)?),
        Body::Raft { kind: RaftEntryKind::Command, body } => EntryPayload::Normal(Command::Machine(body)),
        Body::Raft { kind: RaftEntryKind::Lost, .. } => {
            return Err(io::Error::other(format!("entry {} was lost: nobody knows what to send", stored.id)));
        }
    };
    Ok(entry(stored.id, payload))
}
