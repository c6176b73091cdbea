//! Damage made whole again with what another replica holds, while the log is in use.
//!
//! An entry's identity (term and index) says all of it: Raft never gives one to two entries, and two logs that agree on one agree on all before it.
//! So another replica's entries are those that stood here if it has the [`Gap::witness`], an entry at or behind the damage of which this log knows the
//! identity. They are written to where they stood, byte for byte. A crash at any point leaves each sector as it was or as it should be: less damage
//! than before, which is found and mended like that before.
//!
//! # Invariants
//! - `lost-stays-lost`: an entry that can be read is never changed, and no offset gets another record than it had. What was fetched must go on exactly
//!   where the damage begins and end exactly where it ends (CRC, length, offset, index, term).
//! - What was written is durable, and was read back, before any of it is served.

use std::io::{self, IoSlice};
use std::ops::Range;
use std::sync::Arc;

use bytes::Bytes;

use super::entry::{Fault, MIN_ENTRY_BYTES, Point, RaftEntryKind, is_intact, kind_of, term_of};
use super::error::{Damage, LogError};
use super::partition::Log;
use super::repair::terms;
use super::segment::{Bad, Segment};
use super::walk::Walker;
use crate::ids::{LogId, RaftIndex, Term};
use crate::protocol::batch::{BatchHeader, HEADER_BYTES};

/// What of an entry its CRC does not cover: base offset, length, epoch, magic, and the CRC itself.
const OUTSIDE_CRC: usize = 21;

/// Sees to a log's damage. Called without any of the log's locks held; must not block.
pub trait Tender: Send + Sync {
    /// Damage was found that was not known before.
    fn found(&self, damage: &Damage);
    /// Damage that was told of is still there.
    fn still_there(&self);
    /// Whether damage is mended, so that it is worth waiting for.
    fn mends(&self) -> bool;
}

/// Why what another replica has is not taken.
#[derive(Debug, thiserror::Error)]
pub enum MendError {
    /// It is not what stood here. Nothing of it was written.
    #[error("what was fetched does not fit at entry {at}: {why}")]
    Unfit {
        /// The entry.
        at: RaftIndex,
        /// What is wrong.
        why: String,
    },
    /// An entry that can be read is another one there: the replicas differ, and that is no damage of a disk.
    #[error("replica-divergence: entry {0} can be read here, and is another one there")]
    Differs(RaftIndex),
    /// The log has moved on: what was damaged is truncated, deleted or mended.
    #[error("the damage is not there any more")]
    Gone,
    /// Of the log.
    #[error(transparent)]
    Log(#[from] LogError),
}

impl From<io::Error> for MendError {
    fn from(error: io::Error) -> Self {
        Self::Log(error.into())
    }
}

/// A damaged range, to be filled with what another replica has.
#[derive(Debug)]
pub struct Gap {
    segment: Arc<Segment>,
    bad: Bad,
    /// Up to where it is filled.
    at: Point,
    floor: Term,
    /// An entry at or behind its end that whoever has the same history has.
    pub witness: LogId,
}

impl Gap {
    /// The entries that are missing still.
    #[must_use]
    pub fn wanted(&self) -> Range<RaftIndex> {
        self.at.index..self.bad.to.index
    }

    /// What it is, for people.
    #[must_use]
    pub fn damage(&self) -> Damage {
        self.segment.damage(self.bad)
    }

    /// Whether a file that nothing is appended to ends with it: nobody knows how long that was.
    fn ends_file(&self) -> bool {
        let state = self.segment.lock();
        state.sealed && state.end == self.bad.to
    }
}

/// What is damaged in a log, after a closer look.
#[derive(Debug, Default)]
pub struct Gaps {
    /// What can be filled, the last first: what lies behind damage proves what lies before.
    pub gaps: Vec<Gap>,
    /// What cannot be, since nothing says which entries stood there. Some of it may be when a gap behind it has been filled.
    pub unproven: Vec<Damage>,
}

/// A fetched entry, checked.
struct Fetched {
    at: Point,
    next: Point,
    id: LogId,
    bytes: Bytes,
}

impl Log {
    /// Has damage seen to, from now on.
    pub fn set_tender(&self, tender: Box<dyn Tender>) {
        // There is one broker, and it says so once.
        drop(self.tender.set(tender));
    }

    /// Whether somebody mends damage that is found: it is worth waiting for.
    #[must_use]
    pub fn is_tended(&self) -> bool {
        self.tender.get().is_some_and(|tender| tender.mends())
    }

    /// Tells of damage that is new.
    pub(super) fn tell(&self, found: &[Damage]) {
        if let Some(tender) = self.tender.get() {
            found.iter().for_each(|damage| tender.found(damage));
        }
    }

    /// Takes note of damage that a reader met, no more of it than must be. Blocks.
    pub(super) fn note(&self, segment: &Arc<Segment>, at: Point, fault: Fault) -> io::Result<Bad> {
        // What the marks are read from may be damaged too, and is noted with that.
        self.load_index(segment)?;
        let bad = {
            // What is truncated meanwhile is not damaged.
            let _writer = self.writer();
            let (known, end) = {
                let state = segment.lock();
                (state.bad_at(at.pos), state.end)
            };
            let bad = Bad { from: at, to: end, fault };
            if known.is_some() || at.pos >= end.pos || !self.is_live(segment) || self.reads(segment, at, end)?.is_some()
            {
                return Ok(known.unwrap_or(bad));
            }
            let mark = segment.lock().index.as_ref().and_then(|index| index.after(at.pos));
            let to = segment.extent(at, fault, mark.unwrap_or(end), self.floor(at.index))?;
            let bad = Bad { to, ..bad };
            segment.lock().add_bad(bad);
            bad
        };
        self.tell(&[segment.damage(bad)]);
        Ok(bad)
    }

    /// Takes note that a segment ends before it should.
    pub(super) fn note_missing(&self, segment: &Arc<Segment>, at: Point, end: Point) {
        let bad = Bad { from: at, to: end, fault: Fault::Missing };
        let is_new = {
            let _writer = self.writer();
            let is_there = self.is_live(segment) && segment.lock().end == end;
            is_there && segment.lock().add_bad(bad)
        };
        if is_new {
            self.tell(&[segment.damage(bad)]);
        }
    }

    /// The entry at a point, if it is whole and of its term, and the point behind it.
    pub(super) fn reads(&self, segment: &Segment, at: Point, end: Point) -> io::Result<Option<(Bytes, Point)>> {
        let mut walker = Walker::entries(segment.file.as_ref(), end.pos);
        let Ok((header, next)) = walker.entry(at)? else { return Ok(None) };
        let term = self.shared().epochs.term_at(at.index);
        if term.is_some_and(|term| term != term_of(&header)) {
            return Ok(None);
        }
        Ok(Some((Bytes::copy_from_slice(walker.bytes(at.pos, header.size_bytes())?), next)))
    }

    pub(super) fn is_live(&self, segment: &Arc<Segment>) -> bool {
        self.shared().segments.iter().any(|it| Arc::ptr_eq(it, segment))
    }

    /// The least term that an entry can have.
    fn floor(&self, index: RaftIndex) -> Term {
        let before = self.shared().id_before(index).filter(|id| id.index.next() == index);
        before.map_or(Term(0), |before| before.term)
    }

    /// Looks at all known damage once more: what can be read is served again, what cannot is named as narrowly as can be. Blocks.
    ///
    /// # Errors
    /// Of the disk.
    pub fn gaps(&self) -> Result<Gaps, LogError> {
        let mut found = Gaps::default();
        let segments = self.shared().segments.clone();
        for segment in segments.iter().rev() {
            let known = segment.lock().all_bad().to_vec();
            for bad in known.into_iter().rev() {
                if self.state().purged.is_some_and(|purged| bad.to.index <= purged.index.next()) {
                    // Nobody can ask for it any more.
                    continue;
                }
                let narrow = self.narrow(segment, bad)?;
                if narrow != [bad] {
                    segment.lock().replace_bad(bad, &narrow);
                }
                for bad in narrow.into_iter().rev() {
                    match self.witness(segment, bad) {
                        Some((witness, floor)) => {
                            let (segment, at) = (Arc::clone(segment), bad.from);
                            found.gaps.push(Gap { segment, bad, at, floor, witness });
                        }
                        None => found.unproven.push(segment.damage(bad)),
                    }
                }
            }
        }
        Ok(found)
    }

    /// The parts of a damaged range that cannot be read.
    fn narrow(&self, segment: &Segment, bad: Bad) -> Result<Vec<Bad>, LogError> {
        if bad.from.pos == bad.to.pos {
            return Ok(vec![bad]);
        }
        let (mut at, mut parts) = (bad.from, Vec::new());
        let mut walker = Walker::entries(segment.file.as_ref(), bad.to.pos);
        while at.pos < bad.to.pos && at.index < bad.to.index {
            let term = self.shared().epochs.term_at(at.index);
            let fault = match walker.entry(at)? {
                // One whose term is not known is as good as damaged: nothing but the term says what it was.
                Ok((header, next)) if term == Some(term_of(&header)) => {
                    at = next;
                    continue;
                }
                Ok((header, _)) => Fault::Epoch(header.leader_epoch),
                Err(fault) => fault,
            };
            let to = segment.extent(at, fault, bad.to, self.floor(at.index))?;
            parts.push(Bad { from: at, to, fault });
            at = to;
        }
        // A walk that ends elsewhere than the damage does has followed what was not an entry.
        Ok(if at == bad.to { parts } else { vec![bad] })
    }

    /// An entry that proves what the entries of a damaged range were, and the term of the entry before it.
    fn witness(&self, segment: &Arc<Segment>, bad: Bad) -> Option<(LogId, Term)> {
        let floor = self.floor(bad.from.index);
        let group = self.journal.group(self.id);
        let last = RaftIndex(bad.to.index.0.checked_sub(1)?);
        // The journal's own knowledge first: it does not come from what was read here.
        let known = terms(&group).filter(|(_, upto)| last <= *upto);
        if let Some(term) = known.and_then(|(table, _)| table.term_at(last)) {
            return Some((LogId { term, index: last }, floor));
        }
        let marked = group.descriptors.iter().map(|it| it.id).chain(group.mark.map(|mark| mark.id));
        if let Some(id) = marked.into_iter().find(|id| id.index == last) {
            return Some((id, floor));
        }
        let shared = self.shared();
        if shared.last.is_none_or(|last| last.index < bad.to.index) {
            return None;
        }
        let next = shared.segment_of_index(bad.to.index)?;
        let pos = if Arc::ptr_eq(next, segment) { bad.to.pos } else { 0 };
        let is_damaged = next.lock().bad_at(pos).is_some();
        let term = shared.epochs.term_at(bad.to.index).filter(|_| !is_damaged)?;
        Some((LogId { term, index: bad.to.index }, floor))
    }

    /// The bytes of whole entries, from the range's first on, as they are stored: one at least, then while they fit into `max_bytes`. For a replica that has
    /// them damaged, if this log has its `witness`. Blocks.
    ///
    /// # Errors
    /// [`LogError::NoSuchEntries`] if this log has another history or not all of it; [`LogError::Damaged`] if the first cannot be read here either.
    pub fn lend(&self, range: Range<RaftIndex>, witness: LogId, max_bytes: u64) -> Result<Bytes, LogError> {
        let asked = range.clone();
        let has_witness = || match self.id_at(witness.index) == Some(witness) && witness.index.next() >= asked.end {
            true => Ok(()),
            false => {
                let last = self.state().last.map_or(RaftIndex(0), |last| last.index.next());
                Err(LogError::NoSuchEntries { asked: asked.clone(), has: self.shared().first_index()..last })
            }
        };
        has_witness()?;
        let (mut lent, mut lost) = (Vec::new(), None);
        let max = usize::try_from(max_bytes).unwrap_or(usize::MAX);
        self.walk(range, true, |segment, met| {
            if kind_of(&met.header) == Some(RaftEntryKind::Lost) {
                lost = Some(segment.missing(met.at, met.next));
                return Ok(false);
            }
            if !lent.is_empty() && lent.len() + met.bytes.len() > max {
                return Ok(false);
            }
            lent.extend_from_slice(met.bytes);
            Ok(true)
        })?;
        // What was truncated meanwhile may have been read as what a new leader has put in its place.
        has_witness()?;
        match lost {
            Some(lost) if lent.is_empty() => Err(LogError::Damaged(Box::new(lost))),
            _ => Ok(lent.into()),
        }
    }

    /// Fills a gap with the bytes of entries from [`Gap::wanted`] on, which another replica that has its witness has lent. Answers whether it is full: then it
    /// is served. What was filled is durable on return. Blocks.
    ///
    /// # Errors
    /// See [`MendError`].
    pub fn mend(&self, gap: &mut Gap, lent: &Bytes) -> Result<bool, MendError> {
        let entries = self.check_lent(gap, lent)?;
        let last = entries.last().expect("one entry at least was checked");
        let (next, floor) = (last.next, last.id.term);
        {
            // Nothing is appended, truncated or deleted meanwhile.
            let _writer = self.writer();
            self.check_not_failed()?;
            self.check_still_there(gap)?;
            let file = gap.segment.file.as_ref();
            for entry in &entries {
                if !is_same(gap, entry)? {
                    let written = file.write_at(entry.at.pos, &[IoSlice::new(&entry.bytes)]);
                    written.map_err(|error| self.unless_full(error.into()))?;
                }
            }
        }
        // Appends go on: this may take long.
        self.sync_if_live(&gap.segment)?;
        let _writer = self.writer();
        self.check_still_there(gap)?;
        (gap.at, gap.floor) = (next, floor);
        {
            let mut shared = self.shared_mut();
            entries.iter().for_each(|entry| shared.epochs.correct(entry.id, entry.at.offset));
        }
        if next.index < gap.bad.to.index {
            return Ok(false);
        }
        self.close(gap, last.id, next)?;
        Ok(true)
    }

    fn check_still_there(&self, gap: &Gap) -> Result<(), MendError> {
        let is_there = self.is_live(&gap.segment) && gap.segment.lock().all_bad().contains(&gap.bad);
        if is_there { Ok(()) } else { Err(MendError::Gone) }
    }

    /// Makes durable what was written in place to a segment, without keeping others from the log. One that was deleted meanwhile needs no sync.
    pub(super) fn sync_if_live(&self, segment: &Arc<Segment>) -> Result<(), LogError> {
        match segment.file.sync() {
            Err(error) if self.is_live(segment) => Err(self.unless_full(LogError::Io(error))),
            _ => Ok(()),
        }
    }

    pub(super) fn unless_full(&self, error: LogError) -> LogError {
        if !matches!(error, LogError::Full) {
            self.failed.store(true, std::sync::atomic::Ordering::Release);
        }
        error
    }

    /// Checks that what was lent are the entries that are wanted: all of it, before any is written.
    fn check_lent(&self, gap: &Gap, lent: &Bytes) -> Result<Vec<Fetched>, MendError> {
        let known = terms(&self.journal.group(self.id));
        let (mut at, mut term, mut from, mut entries) = (gap.at, gap.floor, 0, Vec::new());
        let limit = if gap.ends_file() { u64::MAX } else { gap.bad.to.pos };
        while from < lent.len() {
            let unfit = |why: &dyn std::fmt::Display| MendError::Unfit { at: at.index, why: why.to_string() };
            let header = BatchHeader::parse(&lent[from..]).map_err(|_| unfit(&Fault::Header))?;
            let next = at.step(&header, limit).map_err(|fault| unfit(&fault))?;
            let whole = from.checked_add(header.size_bytes()).filter(|end| *end <= lent.len());
            let bytes = lent.slice(from..whole.ok_or_else(|| unfit(&Fault::Length))?);
            if !is_intact(&bytes) {
                return Err(unfit(&Fault::Crc));
            }
            let found = term_of(&header);
            let exact =
                known.as_ref().filter(|(_, upto)| at.index <= *upto).and_then(|(table, _)| table.term_at(at.index));
            if found < term || found > gap.witness.term || exact.is_some_and(|exact| exact != found) {
                return Err(unfit(&Fault::Epoch(header.leader_epoch)));
            }
            if kind_of(&header) == Some(RaftEntryKind::Lost) {
                return Err(unfit(&"it is lost there too"));
            }
            let to = gap.bad.to;
            let ends =
                (next.index == to.index).then_some(next.offset == to.offset && (gap.ends_file() || next.pos == to.pos));
            let room = limit.saturating_sub(next.pos)
                >= to.index.0.saturating_sub(next.index.0).saturating_mul(MIN_ENTRY_BYTES);
            if next.index > to.index || ends == Some(false) || next.offset > to.offset || !room {
                return Err(unfit(&"it does not end where the damage ends"));
            }
            from += bytes.len();
            entries.push(Fetched { at, next, id: LogId { term: found, index: at.index }, bytes });
            (at, term) = (next, found);
        }
        if entries.is_empty() {
            return Err(MendError::Unfit { at: at.index, why: "nothing was lent".to_owned() });
        }
        Ok(entries)
    }

    /// All of a gap is filled: reads it back, and serves it.
    fn close(&self, gap: &Gap, last: LogId, end: Point) -> Result<(), MendError> {
        let file = gap.segment.file.as_ref();
        let mut walker = Walker::entries(file, end.pos);
        let mut at = gap.bad.from;
        while at.index < end.index {
            match walker.entry(at)? {
                Ok((_, next)) => at = next,
                Err(fault) => {
                    return Err(MendError::Unfit { at: at.index, why: format!("read back: {fault}") });
                }
            }
        }
        let ends_file = gap.ends_file();
        if ends_file && end.pos < gap.bad.to.pos {
            // Junk that stood in the place of a shorter entry.
            let cut = file.set_len(end.pos).and_then(|()| file.sync());
            cut.map_err(|error| self.unless_full(LogError::Io(error)))?;
        }
        let mut guard = self.shared_mut();
        let shared = &mut *guard;
        let mut state = gap.segment.lock();
        let end_pos = if ends_file { end.pos } else { state.end.pos };
        state.end.pos = end_pos;
        state.replace_bad(gap.bad, &[]);
        drop(state);
        for known in [&mut shared.last, &mut shared.flushed] {
            // A damaged last entry's term was a guess.
            if known.is_some_and(|known| known.index == last.index) {
                *known = Some(last);
            }
        }
        Ok(())
    }
}

/// Whether an entry stands in its place already.
fn is_same(gap: &Gap, entry: &Fetched) -> Result<bool, MendError> {
    let mut walker = Walker::entries(gap.segment.file.as_ref(), entry.next.pos);
    let stands = walker.bytes(entry.at.pos, entry.bytes.len())?;
    if *stands == *entry.bytes {
        return Ok(true);
    }
    // Damage outside of what the CRC covers leaves the rest whole, and the rest is the same.
    let is_readable = stands.len() == entry.bytes.len() && stands.len() >= HEADER_BYTES && is_intact(stands);
    let differs = is_readable && stands[OUTSIDE_CRC..] != entry.bytes[OUTSIDE_CRC..];
    if differs { Err(MendError::Differs(entry.at.index)) } else { Ok(false) }
}
