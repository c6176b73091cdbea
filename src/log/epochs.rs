//! The epoch table of one log: which term each entry is of.
//!
//! A term enters with its first entry (the blank that a new leader appends) and leaves when truncation removes that
//! entry. Terms and indexes strictly rise; first offsets do not fall. `OffsetForLeaderEpoch` is answered from here (KIP-101).

use std::ops::RangeInclusive;

use crate::ids::{LogId, Offset, RaftIndex, Term};

/// Where a term begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EpochStart {
    /// The term, which is also the Kafka leader epoch.
    pub term: Term,
    /// The index of its first entry.
    pub index: RaftIndex,
    /// That entry's base offset.
    pub offset: Offset,
}

/// See the module's documentation.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct EpochTable(Vec<EpochStart>);

impl EpochTable {
    /// A table from its parts, as a descriptor holds them; `None` if they do not rise.
    #[must_use]
    pub fn new(starts: Vec<EpochStart>) -> Option<Self> {
        let rises = |pair: &[EpochStart]| {
            pair[0].term < pair[1].term && pair[0].index < pair[1].index && pair[0].offset <= pair[1].offset
        };
        starts.windows(2).all(rises).then_some(Self(starts))
    }

    /// The table's parts, oldest first.
    #[must_use]
    pub fn starts(&self) -> &[EpochStart] {
        &self.0
    }

    /// Takes note of an entry at the log's end.
    ///
    /// # Panics
    /// If its term is lower than the last one: the caller has checked.
    pub fn observe(&mut self, id: LogId, base_offset: Offset) {
        match self.0.last() {
            Some(last) if last.term == id.term => {}
            Some(last) => {
                assert!(last.term < id.term && last.index < id.index, "terms and indexes of a log rise");
                self.0.push(EpochStart { term: id.term, index: id.index, offset: base_offset });
            }
            None => self.0.push(EpochStart { term: id.term, index: id.index, offset: base_offset }),
        }
    }

    /// Takes over what a damaged entry turns out to be, now that it can be read again. Entries come in their order.
    pub(super) fn correct(&mut self, id: LogId, base_offset: Offset) {
        if let Some(known) = self.0.iter_mut().find(|start| start.term == id.term) {
            if known.index < id.index {
                return;
            }
            if known.index == id.index {
                known.offset = base_offset;
                return;
            }
        }
        let mut starts = self.0.clone();
        // What was guessed of other damaged entries gives way.
        starts.retain(|start| {
            let is_other = start.term != id.term && start.index != id.index;
            is_other && (start.term < id.term) == (start.index < id.index)
        });
        let at = starts.partition_point(|start| start.index < id.index);
        starts.insert(at, EpochStart { term: id.term, index: id.index, offset: base_offset });
        if let Some(corrected) = Self::new(starts) {
            *self = corrected;
        }
    }

    /// Forgets the terms that begin at or above `index`.
    pub fn cut(&mut self, index: RaftIndex) {
        self.0.retain(|start| start.index < index);
    }

    /// Forgets the terms that end before the entry at `index`: of those that begin at or before it the last one stays. By index, since terms
    /// without records share their offset.
    pub fn forget_before(&mut self, index: RaftIndex) {
        let keep = self.0.partition_point(|start| start.index <= index).saturating_sub(1);
        self.0.drain(..keep);
    }

    /// The table as it stood when `index` was the last entry.
    #[must_use]
    pub fn upto(&self, index: RaftIndex) -> Vec<EpochStart> {
        self.0.iter().copied().take_while(|start| start.index <= index).collect()
    }

    /// The term of the entry at `index`, if the table reaches back to it.
    #[must_use]
    pub fn term_at(&self, index: RaftIndex) -> Option<Term> {
        let after = self.0.partition_point(|start| start.index <= index);
        after.checked_sub(1).map(|at| self.0[at].term)
    }

    /// The last entry of each term among the entries of a range, oldest first; `None` if the table does not reach back to its first.
    #[must_use]
    pub fn last_ids(&self, range: RangeInclusive<RaftIndex>) -> Option<Vec<LogId>> {
        let (first, last) = range.into_inner();
        self.term_at(first)?;
        let ends = self.0.iter().skip(1).map(|next| RaftIndex(next.index.0 - 1)).chain([last]);
        let ids = self.0.iter().zip(ends).map(|(start, end)| LogId { term: start.term, index: end.min(last) });
        let begun = self.0.partition_point(|start| start.index <= last);
        Some(ids.take(begun).filter(|id| id.index >= first).collect())
    }

    /// The term of the batch that holds `offset`, if the table reaches back to it.
    #[must_use]
    pub fn term_at_offset(&self, offset: Offset) -> Option<Term> {
        let after = self.0.partition_point(|start| start.offset <= offset);
        after.checked_sub(1).map(|at| self.0[at].term)
    }

    /// For a consumer that last saw `term`: the largest known term at or below it, and where that one's offsets end.
    /// `None` if all known terms are higher and nothing is known of what was before, or if `term` is higher than all.
    #[must_use]
    pub fn end_of(&self, term: Term, next_offset: Offset) -> Option<(Term, Offset)> {
        let last = self.0.last()?;
        if term > last.term {
            return None;
        }
        if term == last.term {
            return Some((term, next_offset));
        }
        let after = self.0.partition_point(|start| start.term <= term);
        match after.checked_sub(1) {
            Some(at) => Some((self.0[at].term, self.0[after].offset)),
            None => Some((term, self.0[0].offset)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn start(term: u64, index: u64, offset: i64) -> EpochStart {
        EpochStart { term: Term(term), index: RaftIndex(index), offset: Offset(offset) }
    }

    fn table() -> EpochTable {
        EpochTable::new(vec![start(1, 0, 0), start(3, 5, 10), start(4, 9, 10), start(7, 12, 30)]).expect("rises")
    }

    #[test]
    fn an_epoch_ends_where_the_next_one_begins() {
        let end = |term| table().end_of(Term(term), Offset(44)).map(|(term, offset)| (term.0, offset.0));
        assert_eq!(end(1), Some((1, 10)));
        assert_eq!(end(2), Some((1, 10)), "a term that never led here: the one before it counts");
        assert_eq!(end(3), Some((3, 10)), "a term without records is empty");
        assert_eq!(end(6), Some((4, 30)));
        assert_eq!(end(7), Some((7, 44)));
        assert_eq!(end(8), None);
        assert_eq!(end(0), Some((0, 0)), "older than all that is known: everything after may have changed");
        assert_eq!(EpochTable::default().end_of(Term(1), Offset(0)), None);
    }

    #[test]
    fn entries_know_their_term_and_truncation_takes_it_back() {
        let mut table = table();
        assert_eq!(table.term_at(RaftIndex(8)), Some(Term(3)));
        assert_eq!(table.term_at_offset(Offset(29)), Some(Term(4)));
        table.cut(RaftIndex(9));
        assert_eq!(table.term_at(RaftIndex(11)), Some(Term(3)));
        table.observe(LogId { term: Term(9), index: RaftIndex(9) }, Offset(20));
        table.observe(LogId { term: Term(9), index: RaftIndex(10) }, Offset(20));
        assert_eq!(table.starts().last(), Some(&start(9, 9, 20)));
        table.forget_before(RaftIndex(8));
        assert_eq!(table.starts(), [start(3, 5, 10), start(9, 9, 20)]);
        assert_eq!(table.upto(RaftIndex(8)), [start(3, 5, 10)]);
    }

    #[test]
    fn what_an_entry_turns_out_to_be_takes_the_place_of_what_was_guessed() {
        // Where another term was taken to begin, that one begins an entry later.
        let mut table = EpochTable::new(vec![start(1, 0, 0), start(3, 10, 50)]).unwrap();
        table.correct(LogId { term: Term(2), index: RaftIndex(10) }, Offset(50));
        table.correct(LogId { term: Term(3), index: RaftIndex(11) }, Offset(51));
        assert_eq!(table.starts(), [start(1, 0, 0), start(2, 10, 50), start(3, 11, 51)]);
        // A term begins before the first entry of it that could be read.
        table.correct(LogId { term: Term(2), index: RaftIndex(8) }, Offset(40));
        assert_eq!(table.starts(), [start(1, 0, 0), start(2, 8, 40), start(3, 11, 51)]);
        table.correct(LogId { term: Term(2), index: RaftIndex(9) }, Offset(45));
        assert_eq!(table.starts(), [start(1, 0, 0), start(2, 8, 40), start(3, 11, 51)]);
    }

    #[test]
    fn a_table_that_does_not_rise_is_refused() {
        assert_eq!(EpochTable::new(vec![start(2, 0, 0), start(2, 4, 9)]), None);
        assert_eq!(EpochTable::new(vec![start(2, 5, 9), start(3, 6, 8)]), None);
    }

    #[test]
    fn the_last_entry_of_each_term_is_known_without_reading() {
        let table = EpochTable::new(vec![start(1, 0, 0), start(4, 5, 10), start(9, 6, 20)]).unwrap();
        let id = |term, index| LogId { term: Term(term), index: RaftIndex(index) };
        let ids = |first, last| table.last_ids(RaftIndex(first)..=RaftIndex(last)).unwrap();
        assert_eq!(ids(0, 8), [id(1, 4), id(4, 5), id(9, 8)]);
        assert_eq!(ids(3, 3), [id(1, 3)]);
        assert_eq!(ids(5, 6), [id(4, 5), id(9, 6)]);
        assert_eq!(ids(7, 8), [id(9, 8)]);
        let late = EpochTable::new(vec![start(4, 5, 10)]).unwrap();
        assert_eq!(late.last_ids(RaftIndex(3)..=RaftIndex(6)), None);
    }
}
