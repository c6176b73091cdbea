//! What of a log is gone: the ranges that cannot be read, each made as small as can be proven, and what stands in for them.

use std::collections::BTreeMap;

use super::descriptor::Mark;
use super::entry::{Fault, Lost, MIN_ENTRY_BYTES, Point};
use super::error::{Damage, LogError};
use super::journal::GroupState;
use super::name::{LOG, SegmentName};
use super::recovery_files::Files;
use super::recovery_scan::Outcome;
use super::repair::terms as terms_known;
use super::segment::{Bad, path};
use crate::ids::{LogId, RaftIndex, Term};

/// A range of a log that cannot be read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Hole {
    /// What is gone, and where it was.
    pub damage: Damage,
    /// It is the last of its file, which may become longer or shorter for it.
    pub(super) ends_file: bool,
    /// The terms of the entries in it: each is that of those before it, unless it is named here.
    terms: BTreeMap<RaftIndex, Term>,
}

/// Where holes are looked for.
pub(super) struct Search<'a> {
    pub(super) dir: &'a str,
    pub(super) files: &'a Files,
    pub(super) outcome: &'a Outcome,
    /// Points that the journal knows.
    pub(super) marks: &'a [Mark],
    pub(super) group: &'a GroupState,
}

impl Search<'_> {
    pub(super) fn holes(&self) -> Vec<Hole> {
        let mut holes = self.beginning();
        for (file, scanned) in self.files.live.iter().zip(&self.outcome.files) {
            for bad in &scanned.bad {
                let bad = *bad;
                let in_place = bad.to.pos < file.len
                    || (bad.to.pos - bad.from.pos >= room(bad.from, bad.to)
                        && self.within(bad.from, bad.to).next().is_none());
                if in_place {
                    holes.push(self.hole(file.name, false, bad));
                } else {
                    holes.extend(self.chain(Some((file.name, file.len)), bad));
                }
            }
        }
        holes.extend(self.end());
        holes
    }

    /// Points that the journal knows between two others.
    fn within(&self, from: Point, to: Point) -> impl Iterator<Item = &Mark> {
        self.marks.iter().filter(move |mark| from.index < mark.id.index.next() && mark.id.index.next() < to.index)
    }

    /// Entries that are missing from a point in a file on, which is where that file ends now: they go to that file, and to files that the
    /// journal knows points of, so that each of those is where the journal says.
    fn chain(&self, file: Option<(SegmentName, u64)>, gone: Bad) -> Vec<Hole> {
        let (mut file, mut at, mut holes) = (file, gone.from, Vec::new());
        let to_end = |file: Option<(SegmentName, u64)>, from: Point, to: Point| {
            let (name, len) = file.unwrap_or_else(|| (self.name(from, to), 0));
            self.hole(name, true, Bad { from, to: Point { pos: len.max(from.pos), ..to }, fault: gone.fault })
        };
        let mut marks: Vec<&Mark> = self.within(gone.from, Point { index: gone.to.index.next(), ..gone.to }).collect();
        marks.sort_by_key(|mark| mark.id.index);
        for mark in marks {
            let segment = mark.place.segment;
            if file.is_none_or(|(name, _)| name != segment) {
                let start = Point::start_of(segment);
                if at.index < start.index {
                    holes.push(to_end(file, at, start));
                }
                (file, at) = (Some((segment, 0)), start);
            }
            let point = Point { pos: mark.place.position, index: mark.id.index.next(), offset: mark.next_offset };
            if point.index > at.index && point.pos >= at.pos + room(at, point) {
                holes.push(self.hole(segment, false, Bad { from: at, to: point, fault: gone.fault }));
                at = point;
            }
        }
        if at.index < gone.to.index {
            holes.push(to_end(file, at, gone.to));
        }
        holes
    }

    /// What a file is called that begins at one point and ends before another.
    fn name(&self, from: Point, to: Point) -> SegmentName {
        let next =
            self.files.live.iter().find(|file| file.name.first_index >= to.index).map(|file| file.name.generation);
        let generation = next.unwrap_or(self.files.generation);
        SegmentName { first_index: from.index, first_offset: from.offset, generation }
    }

    fn hole(&self, segment: SegmentName, ends_file: bool, bad: Bad) -> Hole {
        let damage = Damage {
            segment,
            path: path(self.dir, segment, LOG),
            position: bad.from.pos..bad.to.pos,
            indexes: bad.from.index..bad.to.index,
            offsets: bad.from.offset..bad.to.offset,
            fault: bad.fault,
        };
        let terms = self.terms(bad.from.index, bad.to.index);
        Hole { damage, ends_file, terms }
    }

    /// The terms of lost entries, as far as they are known: of the first one, and where another begins.
    fn terms(&self, from: RaftIndex, to: RaftIndex) -> BTreeMap<RaftIndex, Term> {
        let mut terms = BTreeMap::from([(from, self.term(from))]);
        let table = terms_known(self.group);
        let starts = table.iter().flat_map(|(table, _)| table.starts()).map(|start| (start.index, start.term));
        let marks = self.marks.iter().map(|mark| (mark.id.index, mark.id.term));
        terms.extend(starts.chain(marks).filter(|(index, _)| from < *index && *index < to));
        terms
    }

    /// The term of a lost entry, or the least that it can have had.
    fn term(&self, index: RaftIndex) -> Term {
        let known = terms_known(self.group).filter(|(_, upto)| index <= *upto);
        let known = known.and_then(|(table, _)| table.term_at(index));
        let known = known.or(self.marks.iter().find(|mark| mark.id.index == index).map(|mark| mark.id.term));
        let before = index.0.checked_sub(1).and_then(|before| self.outcome.epochs.term_at(RaftIndex(before)));
        known.or(before).or(self.group.cut().map(|cut| cut.term)).unwrap_or(Term(0))
    }

    /// Where the log should begin, if the journal knows anything of it.
    fn first(&self) -> Option<Point> {
        let known = self.group.mark.is_some() || !self.group.descriptors.is_empty();
        match self.group.cut() {
            Some(cut) => {
                let at = self.group.descriptors.iter().find(|it| it.id == cut);
                let kept = self.files.live.first().map(|file| file.name.first_offset);
                let offset = at.map(|it| it.next_offset).or(kept).unwrap_or_default();
                Some(Point { pos: 0, index: cut.index.next(), offset })
            }
            None => known.then(Point::default),
        }
    }

    /// Files that are missing before the first.
    fn beginning(&self) -> Vec<Hole> {
        let (Some(from), Some(next)) = (self.first(), self.files.live.first()) else { return Vec::new() };
        let to = Point::start_of(next.name);
        if to.index <= from.index {
            return Vec::new();
        }
        let from = Point { offset: from.offset.min(to.offset), ..from };
        self.chain(None, Bad { from, to, fault: Fault::Missing })
    }

    /// What was durable behind the log's end.
    fn end(&self) -> Vec<Hole> {
        let last = self.marks.iter().max_by_key(|mark| mark.id.index).filter(|_| self.outcome.forgotten);
        let Some(mark) = last else { return Vec::new() };
        let to = Point { pos: mark.place.position, index: mark.id.index.next(), offset: mark.next_offset };
        let fault = self.outcome.cut.unwrap_or(Fault::Missing);
        let ends = self.outcome.files.len().checked_sub(1);
        let file = ends.map(|last| (self.files.live[last].name, self.files.live[last].len));
        let from = ends.map(|last| self.outcome.files[last].end).or(self.first());
        from.map_or(Vec::new(), |from| self.chain(file, Bad { from, to, fault }))
    }
}

impl Hole {
    /// What stands in for it: as many entries, for as many offsets, in as many bytes unless the file ends with it.
    pub(super) fn entries(&self) -> Result<Vec<Lost>, LogError> {
        let Damage { position, indexes, offsets, .. } = &self.damage;
        let count = indexes.end.0 - indexes.start.0;
        let mut bytes = match self.ends_file {
            true => 0,
            false => (position.end - position.start).saturating_sub(count * MIN_ENTRY_BYTES),
        };
        let mut offset = offsets.start;
        let mut entries = Vec::new();
        let mut term = Term(0);
        for number in 0..count {
            let index = RaftIndex(indexes.start.0 + number);
            term = self.terms.get(&index).copied().unwrap_or(term).max(term);
            let taken = (offsets.end.0 - offset.0).min(i64::from(i32::MAX));
            let body_bytes = bytes.min(u64::from(u32::MAX / 4));
            bytes -= body_bytes;
            entries.push(Lost::new(LogId { term, index }, offset, taken, body_bytes));
            offset = offset.plus(taken);
        }
        let all = bytes == 0 && offset == offsets.end && (self.ends_file || self.holds(count));
        if all { Ok(entries) } else { Err(LogError::Damaged(Box::new(self.damage.clone()))) }
    }

    fn holds(&self, count: u64) -> bool {
        self.damage.position.end - self.damage.position.start >= count * MIN_ENTRY_BYTES
    }
}

/// What the entries between two points take at least.
fn room(from: Point, to: Point) -> u64 {
    (to.index.0 - from.index.0) * MIN_ENTRY_BYTES
}
