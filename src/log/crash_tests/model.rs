//! What a log may be found to be after a crash, told from what it was asked and what it has said.

use bytes::Bytes;

use super::super::entry::{Body, NewEntry, StoredEntry};
use super::super::test_kit::stamped;
use super::super::{Descriptor, Log, LogError, Recovered};
use crate::ids::{LogId, Offset, RaftIndex, Term};
use crate::protocol::batch::BatchHeader;

/// One history of the log: all of its entries, also those that are purged.
#[derive(Clone, Debug, Default)]
pub(super) struct Version {
    /// The entry before the first, and where offsets begin: a log that began anew behind another replica's descriptor has one.
    pub(super) origin: Option<LogId>,
    origin_offset: Offset,
    pub(super) entries: Vec<StoredEntry>,
    /// So many of them were said to be durable.
    pub(super) durable: usize,
}

impl Version {
    pub(super) fn behind(id: LogId, offset: Offset) -> Self {
        Self { origin: Some(id), origin_offset: offset, ..Self::default() }
    }

    pub(super) fn first(&self) -> RaftIndex {
        self.origin.map_or(RaftIndex(0), |id| id.index.next())
    }

    pub(super) fn last(&self) -> Option<LogId> {
        self.entries.last().map(|entry| entry.id).or(self.origin)
    }

    pub(super) fn next_offset(&self) -> Offset {
        self.entries.last().map_or(self.origin_offset, behind)
    }

    /// How many entries come before an index.
    pub(super) fn before(&self, index: RaftIndex) -> usize {
        usize::try_from(index.0.saturating_sub(self.first().0)).expect("a small log").min(self.entries.len())
    }

    pub(super) fn get(&self, index: RaftIndex) -> Option<&StoredEntry> {
        self.entries.get(self.before(index)).filter(|entry| entry.id.index == index)
    }

    fn keep(&mut self, count: usize) {
        self.entries.truncate(count);
        self.durable = self.durable.min(count);
    }
}

/// The offset behind an entry.
fn behind(entry: &StoredEntry) -> Offset {
    match &entry.body {
        Body::Records(batch) => Offset(BatchHeader::parse(batch).expect("a batch").next_offset()),
        Body::Raft { .. } => entry.base_offset,
    }
}

/// See the module's documentation.
#[derive(Clone, Debug, Default)]
pub(super) struct Model {
    pub(super) now: Version,
    /// Histories that a truncation has ended, if it has not returned, so that a crash may bring them back.
    pub(super) before: Vec<Version>,
    /// The highest term that a truncated entry had: what comes next is of another leader.
    ended: Term,
    pub(super) committed: Option<LogId>,
    /// As asked, and as said to be durable.
    pub(super) purged: Option<LogId>,
    pub(super) purged_durable: Option<LogId>,
    /// All that were ever handed over, and the newest that was said to be durable.
    pub(super) descriptors: Vec<Descriptor>,
    pub(super) described: Option<LogId>,
}

impl Model {
    /// An entry as it will be stored, added before it is written: even an append that fails may have left it.
    pub(super) fn append(&mut self, entry: &NewEntry) {
        let base_offset = self.now.next_offset();
        let body = match &entry.body {
            Body::Records(batch) => Body::Records(stamped(batch, base_offset.0, entry.id.term.epoch()).into()),
            raft => raft.clone(),
        };
        self.now.entries.push(StoredEntry { id: entry.id, base_offset, body });
    }

    /// The term of the next entry: terms do not fall, and a truncated history's term has ended.
    pub(super) fn term(&self) -> Term {
        self.now.last().map_or(Term(1), |last| last.term).max(self.ended.next())
    }

    fn end_term(&mut self) {
        self.ended = self.ended.max(self.now.last().map_or(Term(0), |last| last.term));
    }

    pub(super) fn truncate(&mut self, from: RaftIndex) {
        self.end_term();
        self.before.push(self.now.clone());
        let kept = self.now.before(from);
        self.now.keep(kept);
    }

    /// The log begins anew behind another replica's descriptor, as soon as that is durable.
    pub(super) fn begin_anew(&mut self, id: LogId, offset: Offset) {
        self.end_term();
        self.before.push(std::mem::replace(&mut self.now, Version::behind(id, offset)));
    }

    /// A flush said that entries up to this one are durable.
    pub(super) fn flushed(&mut self, upto: LogId) {
        self.now.durable = self.now.durable.max(self.now.before(upto.index.next()));
    }

    /// Compares what was found with all that may be found, and goes on from there.
    pub(super) fn check(&mut self, log: &Log, recovered: &Recovered) -> Result<(), String> {
        if recovered.forgotten || !recovered.damage.is_empty() {
            return Err(format!("forgotten or damaged without a cause: {recovered:?}"));
        }
        self.check_purged(log)?;
        let state = log.state();
        let candidates: Vec<Version> = self.before.iter().rev().chain([&self.now]).rev().cloned().collect();
        let mut why = Vec::new();
        let found = candidates.into_iter().find_map(|version| match fits(&version, log) {
            Ok(count) => {
                let mut version = version;
                version.entries.truncate(count);
                version.durable = count;
                Some(version)
            }
            Err(reason) => {
                why.push(reason);
                None
            }
        });
        let Some(found) = found else {
            return Err(format!("found {state:?}, which is none of what it may be: {why:#?}"));
        };
        (self.now, self.before) = (found, Vec::new());
        self.purged = state.purged;
        self.purged_durable = state.purged;
        self.committed = self.committed.min(self.now.last());
        if state.flushed != state.last || state.last != self.now.last() || state.next_offset != self.now.next_offset() {
            return Err(format!("numbers do not fit the entries: {state:?}, {:?}", self.now.last()));
        }
        self.check_descriptor(recovered)?;
        match recovered.committed {
            Some(committed) if Some(committed) > self.committed => Err(format!("not committed: {committed}")),
            _ => Ok(()),
        }
    }

    fn check_purged(&self, log: &Log) -> Result<(), String> {
        let purged = log.state().purged;
        if purged < self.purged_durable || purged > self.purged {
            let (from, to) = (self.purged_durable, self.purged);
            return Err(format!("the raft cut is at {purged:?}, not between {from:?} and {to:?}"));
        }
        Ok(())
    }

    fn check_descriptor(&self, recovered: &Recovered) -> Result<(), String> {
        let found = recovered.descriptor.as_ref();
        if found.is_some_and(|found| !self.descriptors.contains(found)) {
            return Err(format!("a descriptor that was never put: {found:?}"));
        }
        if found.map(|found| found.id) < self.described {
            return Err(format!("the descriptor at {:?} was durable, found is {found:?}", self.described));
        }
        Ok(())
    }
}

/// How many of a version's entries the log has, if it is what may be left of it.
fn fits(version: &Version, log: &Log) -> Result<usize, String> {
    let state = log.state();
    let first = state.purged.map_or(version.first(), |purged| purged.index.next().max(version.first()));
    let next = state.last.map_or(version.first(), |last| last.index.next());
    if state.last < version.origin {
        return Err(format!("it ends before it begins, at {:?}", version.origin));
    }
    let count = version.before(next);
    if version.first().0 + u64::try_from(count).expect("small") != next.0 {
        return Err(format!("it goes on to {next}, behind {:?}", version.last()));
    }
    if count < version.durable {
        return Err(format!("lost: it ends before {next}, {} of {count} were durable", version.durable));
    }
    let found = match log.stored(first..next, u64::MAX) {
        Ok(found) => found,
        Err(LogError::NoSuchEntries { .. }) if first == next => Vec::new(),
        Err(error) => return Err(format!("cannot be read: {error}")),
    };
    let expected = &version.entries[version.before(first)..count];
    if let Some((expected, found)) = expected.iter().zip(&found).find(|(expected, found)| expected != found) {
        return Err(format!("another entry at {}: {} in {}", expected.id, found.id, expected.id.index));
    }
    if expected.len() != found.len() {
        let next = RaftIndex(first.0 + u64::try_from(found.len()).expect("small"));
        let why = log.stored(next..next.next(), 1).map(|_| ()).map_err(|error| error.to_string());
        return Err(format!("{} entries instead of {}: {why:?}", found.len(), expected.len()));
    }
    served(&version.entries[..count], log).map(|()| count)
}

/// Whether what clients read is what the entries say, from the first byte kept on.
fn served(entries: &[StoredEntry], log: &Log) -> Result<(), String> {
    let (from, end) = (log.first_offset_kept(), log.state().next_offset);
    let batches = entries.iter().filter(|entry| entry.base_offset >= from).filter_map(|entry| match &entry.body {
        Body::Records(batch) => Some(batch.clone()),
        Body::Raft { .. } => None,
    });
    let expected: Vec<Bytes> = batches.collect();
    let read = log.read_copy(from, usize::MAX, end).map_err(|error| format!("cannot be served: {error}"))?;
    if read.slices.concat() == expected.concat() { Ok(()) } else { Err(format!("serves something else from {from}")) }
}
