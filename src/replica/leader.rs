//! The leader's ahead copy: decides about batches that follow others which are not committed yet.
//!
//! It decides against committed state plus an overlay of undecided batches, predicting the index and offset that each proposal
//! will get. Predictions hold because one task proposes, in order. The first proposal that was not appended as predicted
//! poisons the overlay: nothing is decided until everything appended is applied, then it is rebuilt (`overlay-predicts`).
//! Every answer that rests on an undecided batch, a refusal too, waits until that very entry is applied
//! (`reply-names-its-entry`).

use std::collections::BTreeMap;

use crate::ids::{LogId, Offset, ProducerId, RaftIndex, Term};
use crate::machine::partition::PartitionMachine;
use crate::machine::producer_state::{Overlay, Refusal, Verdict};
use crate::protocol::batch::BatchHeader;

/// What to do with a batch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Decision {
    /// Propose it; it will get this place.
    Propose(Place),
    /// Answer now: nothing undecided is involved.
    Now(Answer),
    /// Answer once the entry at this index is applied.
    After(RaftIndex, Answer),
}

/// The predicted place of a proposal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Place {
    /// The entry's index.
    pub index: RaftIndex,
    /// The offset of its first record.
    pub base_offset: Offset,
}

/// An answer that needs no proposal.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Answer {
    /// The batch was appended before, at this offset (an idempotent retry).
    Duplicate(Offset),
    /// The batch is refused.
    Refused(Refusal),
}

/// The ahead copy of one partition's leader. Synchronous: the caller brings committed state and tells what became of proposals.
#[derive(Debug)]
pub struct Leader {
    term: Term,
    next: Place,
    overlay: Overlay,
    /// Bytes of proposals that are not applied yet, by index.
    in_flight: BTreeMap<RaftIndex, u64>,
    in_flight_bytes: u64,
    poisoned: bool,
    /// The first batch of each producer that was sent back to be tried again, by epoch and sequence: those behind it must not be taken before it.
    sent_back: BTreeMap<ProducerId, SentBack>,
}

/// A batch that was sent back.
#[derive(Clone, Copy, Debug)]
struct SentBack {
    epoch: i16,
    sequence: i32,
    /// How many batches behind it may still have to wait for it.
    waits: u8,
}

/// So many batches of a producer wait for one that was sent back. If that does not come by then its producer has given it up.
const WAITS_MAX: u8 = 100;

/// Producers of whom it is remembered that a batch was sent back.
const SENT_BACK_MAX: usize = 10_000;

impl Leader {
    /// A leader in `term` whose next entry gets `next`; everything before it is applied.
    #[must_use]
    pub fn new(term: Term, next: Place) -> Self {
        Self {
            term,
            next,
            overlay: Overlay::default(),
            in_flight: BTreeMap::new(),
            in_flight_bytes: 0,
            poisoned: false,
            sent_back: BTreeMap::new(),
        }
    }

    /// A batch is sent back to its producer, which will try it again. Others that the producer has sent behind it may still come before that: a producer
    /// of whom nothing is known may begin anywhere, and would go on without it.
    pub fn send_back(&mut self, header: &BatchHeader) {
        if !header.has_producer() {
            return;
        }
        let (epoch, sequence) = (header.producer_epoch, header.base_sequence);
        let new = SentBack { epoch, sequence, waits: WAITS_MAX };
        let noted = self.sent_back.entry(ProducerId(header.producer_id)).or_insert(new);
        if epoch > noted.epoch || (epoch == noted.epoch && is_before(sequence, noted.sequence)) {
            *noted = new;
        }
        if self.sent_back.len() > SENT_BACK_MAX {
            self.sent_back.pop_first();
        }
    }

    /// Whether a batch has to wait for an earlier one of its producer, which was sent back and has not come again: to refuse it for the gap would have the
    /// producer begin a new epoch and send again, as new, what is stored and not acknowledged yet. What was sent back must be exactly what is missing, so that
    /// nobody waits for a batch that its producer has given up.
    pub fn comes_too_soon(&mut self, committed: &PartitionMachine, header: &BatchHeader) -> bool {
        let producer = ProducerId(header.producer_id);
        let Some(noted) = self.sent_back.get_mut(&producer) else { return false };
        let (epoch, missing) = (noted.epoch, noted.sequence);
        let expected = committed.producers().expected(&self.overlay, producer);
        let is_over = header.producer_epoch > epoch
            || (header.producer_epoch == epoch && header.base_sequence == missing)
            || expected.is_some_and(|(known, next)| known.0 > epoch || (known.0 == epoch && is_before(missing, next)));
        let is_behind = header.producer_epoch == epoch && is_before(missing, header.base_sequence);
        let waits =
            is_behind && expected.is_none_or(|(known, next)| missing == if known.0 == epoch { next } else { 0 });
        if is_over || (waits && noted.waits == 0) {
            self.sent_back.remove(&producer);
            return false;
        }
        noted.waits -= u8::from(waits);
        waits
    }

    /// Whether nothing is known of a batch's producer, which begins in the middle: it may have sent what comes before to this broker before that could take
    /// it.
    #[must_use]
    pub fn begins_in_the_middle(&self, committed: &PartitionMachine, header: &BatchHeader) -> bool {
        header.has_producer()
            && header.base_sequence != 0
            && committed.producers().expected(&self.overlay, ProducerId(header.producer_id)).is_none()
    }

    /// The term in which this leader proposes.
    #[must_use]
    pub fn term(&self) -> Term {
        self.term
    }

    /// Bytes that were proposed and are not applied yet.
    #[must_use]
    pub fn in_flight_bytes(&self) -> u64 {
        self.in_flight_bytes
    }

    /// Bytes that were proposed and come behind `last`, the log's last entry: they have no place in the log yet.
    #[must_use]
    pub fn unappended_bytes(&self, last: Option<RaftIndex>) -> u64 {
        let from = last.map_or(RaftIndex(0), RaftIndex::next);
        self.in_flight.range(from..).map(|(_, bytes)| bytes).sum()
    }

    /// Whether a proposal failed: nothing may be decided until [`Leader::rebuild`].
    #[must_use]
    pub fn is_poisoned(&self) -> bool {
        self.poisoned
    }

    /// Whether the entry proposed at `index` has not ended yet.
    #[must_use]
    pub fn is_in_flight(&self, index: RaftIndex) -> bool {
        self.in_flight.contains_key(&index)
    }

    /// Whether no proposal is outstanding.
    #[must_use]
    pub fn is_idle(&self) -> bool {
        self.in_flight.is_empty()
    }

    /// Decides about a batch that passed every check which needs no state.
    ///
    /// # Panics
    /// If the overlay is poisoned.
    #[must_use]
    pub fn decide(&self, committed: &PartitionMachine, header: &BatchHeader) -> Decision {
        assert!(!self.poisoned, "overlay-predicts: nothing is decided on a poisoned overlay");
        match committed.producers().decide(&self.overlay, header) {
            Verdict::Append => Decision::Propose(self.next),
            Verdict::Duplicate { base_offset, depends_on } => self.answer(depends_on, Answer::Duplicate(base_offset)),
            Verdict::Refuse { why, depends_on } => self.answer(depends_on, Answer::Refused(why)),
        }
    }

    fn answer(&self, depends_on: Option<LogId>, answer: Answer) -> Decision {
        match depends_on {
            // An overlay entry outlives its batch's application by at most one callback.
            Some(id) if self.in_flight.contains_key(&id.index) => Decision::After(id.index, answer),
            _ => Decision::Now(answer),
        }
    }

    /// Records that a batch was proposed at the place that [`Leader::decide`] named.
    pub fn proposed_batch(&mut self, header: &BatchHeader, bytes: u64) -> Place {
        let place = self.proposed_command(bytes);
        self.overlay.note(LogId { term: self.term, index: place.index }, place.base_offset, header);
        self.next.base_offset = place.base_offset.plus(i64::from(header.last_offset_delta) + 1);
        place
    }

    /// Records that a command without records was proposed.
    pub fn proposed_command(&mut self, bytes: u64) -> Place {
        let place = self.next;
        self.in_flight.insert(place.index, bytes);
        self.in_flight_bytes += bytes;
        self.next.index = place.index.next();
        place
    }

    /// The entry proposed at `index` was applied.
    pub fn applied(&mut self, index: RaftIndex) {
        self.forget(index);
        self.overlay.applied(index);
    }

    /// The entry proposed at `index` was not appended, or nobody knows: no prediction holds any more.
    pub fn failed(&mut self, index: RaftIndex) {
        self.forget(index);
        self.poisoned = true;
    }

    /// The entry proposed at `index` has ended.
    pub(super) fn forget(&mut self, index: RaftIndex) {
        if let Some(bytes) = self.in_flight.remove(&index) {
            self.in_flight_bytes -= bytes;
        }
    }

    /// Starts again on committed state alone, after everything that was appended is applied.
    ///
    /// # Panics
    /// If a proposal is outstanding.
    pub fn rebuild(&mut self, term: Term, next: Place) {
        assert!(self.in_flight.is_empty(), "overlay-predicts: rebuilt with proposals outstanding");
        let sent_back = std::mem::take(&mut self.sent_back);
        *self = Self { sent_back, ..Self::new(term, next) };
    }
}

/// Whether a sequence comes before another one of the same epoch: behind the highest comes 0.
const fn is_before(sequence: i32, other: i32) -> bool {
    let ahead = other.wrapping_sub(sequence) & i32::MAX;
    ahead > 0 && ahead < 1 << 30
}

#[cfg(test)]
#[path = "leader_tests.rs"]
mod tests;
