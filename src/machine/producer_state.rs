//! What a partition remembers of its idempotent producers (KIP-98), and what follows for the next batch.
//!
//! For each producer: its epoch and its last [`BATCHES_KEPT`] batches, so that a batch that is sent again is answered with
//! the offset it already has. The state is folded from batch headers alone, hence equal on every replica and rebuilt by
//! reading the log.
//!
//! [`ProducerState::decide`] judges a batch against this state and an [`Overlay`] of batches that are proposed but not yet
//! committed. It changes neither: the caller notes an accepted batch in the overlay once it knows the batch's place.
//!
//! A producer is forgotten by a replicated command only ([`Expired`]), never by looking at a clock: the leader's
//! [`ExpiryWatch`] says when to propose one.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use super::state_bytes::{Reader, StateError, Writer};
use crate::ids::{LogId, Offset, ProducerEpoch, ProducerId, RaftIndex};
use crate::protocol::batch::{BatchHeader, advance_sequence};

/// Batches remembered of each producer: as many as a client may have in flight.
pub const BATCHES_KEPT: usize = 5;

/// The sequences of one batch, and where it was put.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Batch {
    first_sequence: i32,
    last_sequence: i32,
    base_offset: Offset,
}

impl Batch {
    fn of(header: &BatchHeader, base_offset: Offset) -> Self {
        Self { first_sequence: header.base_sequence, last_sequence: header.last_sequence(), base_offset }
    }

    fn same_sequences(&self, header: &BatchHeader) -> bool {
        self.first_sequence == header.base_sequence && self.last_sequence == header.last_sequence()
    }

    /// Whether `header` is what must follow this batch.
    fn precedes(&self, header: &BatchHeader) -> bool {
        advance_sequence(self.last_sequence, 1) == header.base_sequence
    }
}

/// What is known of one producer: never without a batch, since a batch is how it became known.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Producer {
    epoch: ProducerEpoch,
    /// Oldest first; 1 to [`BATCHES_KEPT`].
    batches: VecDeque<Batch>,
}

impl Producer {
    fn last(&self) -> &Batch {
        self.batches.back().expect("a known producer has a batch")
    }
}

/// What is to be done with a batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Append it.
    Append,
    /// It was appended already: answer with that offset, once `depends_on` is applied.
    Duplicate {
        /// Where the batch is.
        base_offset: Offset,
        /// The undecided entry that holds it; none when it is committed.
        depends_on: Option<LogId>,
    },
    /// Refuse it, once `depends_on` is applied: the refusal claims something about that entry.
    Refuse {
        /// Why.
        why: Refusal,
        /// The undecided entry that the refusal rests on; none when it rests on committed state.
        depends_on: Option<LogId>,
    },
}

/// Why a batch of an idempotent producer is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// A batch is missing before this one (Kafka: `OUT_OF_ORDER_SEQUENCE_NUMBER`).
    #[error(
        "Out of order sequence number for producer {producer}: {got} (incoming seq. number), {last} (current end sequence number)"
    )]
    OutOfOrder {
        /// The producer.
        producer: ProducerId,
        /// The sequence that the batch starts at.
        got: i32,
        /// The last sequence that is known of this epoch.
        last: i32,
    },
    /// A new epoch that does not start at 0 (Kafka: `OUT_OF_ORDER_SEQUENCE_NUMBER`).
    #[error(
        "Invalid sequence number for new epoch of producer {producer}: {epoch} (request epoch), {got} (seq. number)"
    )]
    NewEpochNotAtZero {
        /// The producer.
        producer: ProducerId,
        /// The new epoch.
        epoch: ProducerEpoch,
        /// The sequence that the batch starts at.
        got: i32,
    },
    /// A newer instance of the producer has written (Kafka: `INVALID_PRODUCER_EPOCH`).
    #[error("Epoch of producer {producer} is {got}, which is smaller than the last seen epoch {known}")]
    OldEpoch {
        /// The producer.
        producer: ProducerId,
        /// The batch's epoch.
        got: ProducerEpoch,
        /// The newest epoch that has written.
        known: ProducerEpoch,
    },
}

/// The producers of one partition.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ProducerState {
    producers: BTreeMap<ProducerId, Producer>,
}

/// A producer to forget, if `last` is still its last batch: one that has written since then stays.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Expired {
    /// The producer.
    pub producer: ProducerId,
    /// Base offset of its last batch when it was found idle.
    pub last: Offset,
}

impl ProducerState {
    /// Number of producers that are known.
    #[must_use]
    pub fn len(&self) -> usize {
        self.producers.len()
    }

    /// Whether no producer is known.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.producers.is_empty()
    }

    /// The epoch of a producer's last batch, committed or proposed, and the sequence that follows it; none if nothing is known of it.
    #[must_use]
    pub fn expected(&self, overlay: &Overlay, producer: ProducerId) -> Option<(ProducerEpoch, i32)> {
        let pending = overlay.producers.get(&producer).and_then(VecDeque::back);
        let (epoch, last) = match (pending, self.producers.get(&producer)) {
            (Some(pending), _) => (pending.epoch, pending.batch),
            (None, committed) => committed.map(|producer| (producer.epoch, *producer.last()))?,
        };
        Some((epoch, advance_sequence(last.last_sequence, 1)))
    }

    /// What is to be done with a client's batch, given the batches in `overlay` that are proposed and not yet committed. A
    /// batch without a producer is always appended.
    #[must_use]
    pub fn decide(&self, overlay: &Overlay, header: &BatchHeader) -> Verdict {
        if !header.has_producer() {
            return Verdict::Append;
        }
        let id = ProducerId(header.producer_id);
        let epoch = ProducerEpoch(header.producer_epoch);
        let committed = self.producers.get(&id);
        let pending = overlay.producers.get(&id);

        // The newest entry of the producer is what an answer rests on; pending batches are newer than committed ones.
        let (known_epoch, last, depends_on) = match (pending.and_then(VecDeque::back), committed) {
            (Some(pending), _) => (pending.epoch, pending.batch, Some(pending.id)),
            (None, Some(producer)) => (producer.epoch, *producer.last(), None),
            // Nothing is known: expired, or never seen. Kafka takes any sequence then.
            (None, None) => return Verdict::Append,
        };
        let refuse = |why| Verdict::Refuse { why, depends_on };
        if epoch < known_epoch {
            return refuse(Refusal::OldEpoch { producer: id, got: epoch, known: known_epoch });
        }
        if epoch > known_epoch {
            return match header.base_sequence {
                0 => Verdict::Append,
                got => refuse(Refusal::NewEpochNotAtZero { producer: id, epoch, got }),
            };
        }
        if let Some(duplicate) = find_duplicate(committed, pending, epoch, header) {
            return duplicate;
        }
        if last.precedes(header) {
            Verdict::Append
        } else {
            refuse(Refusal::OutOfOrder { producer: id, got: header.base_sequence, last: last.last_sequence })
        }
    }

    /// Folds in a committed batch whose base offset is stamped.
    pub fn apply(&mut self, header: &BatchHeader) {
        if !header.has_producer() || header.is_control() {
            return;
        }
        let epoch = ProducerEpoch(header.producer_epoch);
        let batch = Batch::of(header, Offset(header.base_offset));
        let producer = self
            .producers
            .entry(ProducerId(header.producer_id))
            .or_insert_with(|| Producer { epoch, batches: VecDeque::new() });
        if producer.epoch != epoch {
            *producer = Producer { epoch, batches: VecDeque::new() };
        }
        if producer.batches.len() == BATCHES_KEPT {
            producer.batches.pop_front();
        }
        producer.batches.push_back(batch);
    }

    /// Forgets producers that have been idle.
    pub fn expire(&mut self, expired: &[Expired]) {
        for Expired { producer, last } in expired {
            if self.producers.get(producer).is_some_and(|known| known.last().base_offset == *last) {
                self.producers.remove(producer);
            }
        }
    }

    /// Each producer with the base offset of its last batch, by id.
    pub fn last_batches(&self) -> impl Iterator<Item = (ProducerId, Offset)> + '_ {
        self.producers.iter().map(|(id, producer)| (*id, producer.last().base_offset))
    }

    /// Writes the state, as part of a snapshot.
    pub fn write(&self, out: &mut Writer) {
        out.count(self.producers.len());
        for (id, producer) in &self.producers {
            out.i64(id.0);
            out.i16(producer.epoch.0);
            out.u8(u8::try_from(producer.batches.len()).expect("at most five"));
            for batch in &producer.batches {
                out.i32(batch.first_sequence);
                out.i32(batch.last_sequence);
                out.i64(batch.base_offset.0);
            }
        }
    }

    /// Reads what [`ProducerState::write`] wrote.
    ///
    /// # Errors
    /// When the bytes are damaged.
    pub fn read(from: &mut Reader<'_>) -> Result<Self, StateError> {
        /// Id, epoch, count and one batch.
        const PRODUCER_BYTES: usize = 8 + 2 + 1 + 16;
        let mut producers = BTreeMap::new();
        for _ in 0..from.count(PRODUCER_BYTES, "producers")? {
            let id = ProducerId(from.i64("producer id")?);
            let epoch = ProducerEpoch(from.i16("producer epoch")?);
            let kept = usize::from(from.u8("number of batches")?);
            if !(1..=BATCHES_KEPT).contains(&kept) {
                return Err(StateError::Invalid("number of batches"));
            }
            let mut batches = VecDeque::with_capacity(kept);
            for _ in 0..kept {
                batches.push_back(Batch {
                    first_sequence: from.i32("first sequence")?,
                    last_sequence: from.i32("last sequence")?,
                    base_offset: Offset(from.i64("base offset")?),
                });
            }
            if producers.insert(id, Producer { epoch, batches }).is_some() {
                return Err(StateError::Invalid("producer: twice"));
            }
        }
        Ok(Self { producers })
    }
}

/// The batch that `header` repeats, among those of its own epoch. The newest one counts: sequences come round again.
fn find_duplicate(
    committed: Option<&Producer>,
    pending: Option<&VecDeque<Pending>>,
    epoch: ProducerEpoch,
    header: &BatchHeader,
) -> Option<Verdict> {
    let in_pending = pending.into_iter().flatten().rev().filter(|pending| pending.epoch == epoch);
    let in_committed =
        committed.filter(|producer| producer.epoch == epoch).map(|producer| producer.batches.iter().rev());
    in_pending
        .map(|pending| (pending.batch, Some(pending.id)))
        .chain(in_committed.into_iter().flatten().map(|batch| (*batch, None)))
        .find(|(batch, _)| batch.same_sequences(header))
        .map(|(batch, depends_on)| Verdict::Duplicate { base_offset: batch.base_offset, depends_on })
}

/// A batch that is proposed, at the place where it must come to lie.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Pending {
    id: LogId,
    epoch: ProducerEpoch,
    batch: Batch,
}

/// The batches that a leader has proposed and not yet seen committed. Valid only while each was appended at the place
/// that was predicted for it; the first that was not makes all that was decided on it void ([`Overlay::clear`]).
///
/// Invariant: places strictly ascend, in the whole and for each producer.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Overlay {
    producers: BTreeMap<ProducerId, VecDeque<Pending>>,
    /// Whose batch lies where, in log order.
    order: VecDeque<(RaftIndex, ProducerId)>,
}

impl Overlay {
    /// Notes a batch for which [`ProducerState::decide`] said [`Verdict::Append`], with its predicted place. A batch without
    /// a producer leaves no trace.
    ///
    /// # Panics
    /// When the place is not behind the last one: proposals are made in log order.
    pub fn note(&mut self, id: LogId, base_offset: Offset, header: &BatchHeader) {
        if !header.has_producer() {
            return;
        }
        let producer = ProducerId(header.producer_id);
        if let Some((last, _)) = self.order.back() {
            assert!(*last < id.index, "proposals are noted in log order: {} after {last}", id.index);
        }
        self.order.push_back((id.index, producer));
        let batch = Batch::of(header, base_offset);
        let pending = Pending { id, epoch: ProducerEpoch(header.producer_epoch), batch };
        self.producers.entry(producer).or_default().push_back(pending);
    }

    /// Drops what the machine has meanwhile: everything up to and with `index` is applied.
    pub fn applied(&mut self, index: RaftIndex) {
        while let Some((_, producer)) = self.order.pop_front_if(|(first, _)| *first <= index) {
            let pending = self.producers.get_mut(&producer).expect("noted under its producer");
            pending.pop_front();
            if pending.is_empty() {
                self.producers.remove(&producer);
            }
        }
    }

    /// Forgets everything: a proposal did not come to lie where it was predicted.
    pub fn clear(&mut self) {
        self.producers.clear();
        self.order.clear();
    }

    /// Number of undecided batches of producers.
    #[must_use]
    pub fn len(&self) -> usize {
        self.order.len()
    }

    /// Whether no batch is undecided.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.order.is_empty()
    }
}

/// The leader's watch over idle producers. Time is the caller's monotonic clock. A new leader starts a new watch, so that
/// every producer gets its full time again: none is forgotten early because clocks differ.
#[derive(Clone, Debug, Default)]
pub struct ExpiryWatch {
    /// Last batch of each producer, and when it was first seen.
    seen: BTreeMap<ProducerId, (Offset, Duration)>,
}

impl ExpiryWatch {
    /// Looks at all producers, each with its last batch, at the time `now`; returns at most `limit` that have written nothing
    /// for `idle`, to be proposed for expiry. Those not yet gone at the next look are returned again.
    pub fn look(
        &mut self,
        last_batches: impl IntoIterator<Item = (ProducerId, Offset)>,
        now: Duration,
        idle: Duration,
        limit: usize,
    ) -> Vec<Expired> {
        let mut seen = BTreeMap::new();
        let mut expired = Vec::new();
        for (producer, last) in last_batches {
            let since = match self.seen.get(&producer) {
                Some((known, since)) if *known == last => *since,
                _ => now,
            };
            seen.insert(producer, (last, since));
            if now.saturating_sub(since) >= idle && expired.len() < limit {
                expired.push(Expired { producer, last });
            }
        }
        self.seen = seen;
        expired
    }
}

#[cfg(test)]
#[path = "producer_state_tests.rs"]
mod tests;
