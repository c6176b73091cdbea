//! Reading a log's tail back, entry by entry, from its checkpoint on: where it ends, what is damaged, what is cut.

use std::io;

use super::chunks::CHUNK_BYTES;
use super::descriptor::Mark;
use super::entry::{Fault, Point, term_of};
use super::epochs::EpochTable;
use super::index::Index;
use super::recovery_files::{Files, LiveFile};
use super::resync::resync;
use super::segment::Bad;
use super::walk::Walker;
use crate::ids::{LogId, RaftIndex, Term};
use crate::protocol::batch::BatchHeader;

/// Where reading begins, and what is known of the log there.
pub(super) struct Start {
    /// The number of the file.
    pub(super) file: usize,
    pub(super) at: Point,
    /// The last entry before.
    pub(super) last: Option<LogId>,
    pub(super) epochs: EpochTable,
}

/// What was read of one file.
pub(super) struct Scanned {
    /// From where on; bytes before were not looked at.
    pub(super) from: Point,
    pub(super) end: Point,
    pub(super) index: Index,
    pub(super) bad: Vec<Bad>,
}

/// What was found.
pub(super) struct Outcome {
    /// For each file from the first on.
    pub(super) files: Vec<Scanned>,
    pub(super) epochs: EpochTable,
    pub(super) last: Option<LogId>,
    /// What is wrong at the end of the last of the files, behind which all is to be cut. `None`: that file simply ends there.
    pub(super) cut: Option<Fault>,
    /// Whether durable entries are gone behind the end.
    pub(super) forgotten: bool,
    pub(super) read_bytes: u64,
}

/// Reads on from a known point.
pub(super) struct Scan<'a> {
    pub(super) files: &'a Files,
    /// Entries up to this one were durable: what is bad of them is damage.
    pub(super) durable: Option<RaftIndex>,
    /// Points that the journal knows, where reading can go on behind damage.
    pub(super) marks: Vec<Mark>,
    /// The terms of the entries up to one, if they are known.
    pub(super) terms: Option<(EpochTable, RaftIndex)>,
    pub(super) epochs: EpochTable,
    pub(super) last: Option<LogId>,
}

enum Next {
    /// The file ends.
    End(Point),
    /// Nothing can be read from here on.
    Stop { at: Point, fault: Fault, forgotten: bool },
}

impl Scan<'_> {
    pub(super) fn run(mut self, start: Start) -> io::Result<Outcome> {
        self.last = start.last;
        self.epochs = start.epochs;
        let mut done: Vec<Scanned> = Vec::new();
        let mut at = start.at;
        let (mut cut, mut forgotten, mut read_bytes) = (None, false, 0);
        for (number, file) in self.files.live.iter().enumerate().skip(start.file) {
            let begin = Point::start_of(file.name);
            if let Some(before) = done.last_mut()
                && (at.index, at.offset) != (begin.index, begin.offset)
            {
                // The file before ends elsewhere than where this one says that it begins.
                if !self.was_durable(at.index) || begin.index < at.index {
                    cut = Some(Fault::Missing);
                    break;
                }
                let to = Point { pos: at.pos, ..begin };
                before.bad.push(Bad { from: at, to, fault: Fault::Missing });
                before.index.skip(to);
                before.end = to;
            }
            let from = if number == start.file { start.at } else { begin };
            let mut scanned = Scanned { from, end: from, index: Index::new(from), bad: Vec::new() };
            let next = self.file(number, file, &mut scanned)?;
            let (Next::End(end) | Next::Stop { at: end, .. }) = next;
            read_bytes += end.pos - from.pos;
            scanned.end = end;
            at = end;
            done.push(scanned);
            if let Next::Stop { fault, forgotten: gone, .. } = next {
                (cut, forgotten) = (Some(fault), gone);
                break;
            }
        }
        forgotten |= self.was_durable(at.index);
        Ok(Outcome { files: done, epochs: self.epochs, last: self.last, cut, forgotten, read_bytes })
    }

    /// Reads one file on from a point.
    fn file(&mut self, number: usize, file: &LiveFile, scanned: &mut Scanned) -> io::Result<Next> {
        let mut walker = Walker::entries(file.file.as_ref(), file.len);
        let mut at = scanned.from;
        loop {
            if at.pos == file.len || file.superseded_from.is_some_and(|from| at.index >= from) {
                return Ok(Next::End(at));
            }
            let fault = match self.entry(&mut walker, at)? {
                Ok((header, next)) => {
                    scanned.index.add(at, &header, next);
                    let id = LogId { term: term_of(&header), index: at.index };
                    self.epochs.observe(id, at.offset);
                    self.last = Some(id);
                    at = next;
                    continue;
                }
                Err(fault) => fault,
            };
            if !self.was_durable(at.index) {
                return Ok(Next::Stop { at, fault, forgotten: false });
            }
            let Some(to) = self.resume(number, file, at, fault, &mut walker)? else {
                return Ok(Next::Stop { at, fault, forgotten: true });
            };
            scanned.bad.push(Bad { from: at, to, fault });
            scanned.index.skip(to);
            self.skip_to(to);
            at = to;
        }
    }

    fn entry(&self, walker: &mut Walker<'_>, at: Point) -> io::Result<Result<(BatchHeader, Point), Fault>> {
        let (header, next) = match walker.entry(at)? {
            Ok(found) => found,
            Err(fault) => return Ok(Err(fault)),
        };
        let (term, floor) = (term_of(&header), self.last.map_or(Term(0), |last| last.term));
        let known = self.terms.as_ref().filter(|(_, upto)| at.index <= *upto);
        let known = known.and_then(|(table, _)| table.term_at(at.index));
        let marked = || self.marks.iter().find(|mark| mark.id.index == at.index).map(|mark| mark.id.term);
        let fits = match known.or_else(marked) {
            Some(known) => term == known,
            // The epoch is not under the CRC: one that is too high would make all that follow look too low.
            None if self.marks.iter().any(|mark| at.index <= mark.id.index && term > mark.id.term) => false,
            None if term > floor => match walker.header(next)? {
                Ok((after, _)) => !(floor..term).contains(&term_of(&after)),
                Err(_) => true,
            },
            None => term == floor,
        };
        Ok(if fits { Ok((header, next)) } else { Err(Fault::Epoch(header.leader_epoch)) })
    }

    fn was_durable(&self, index: RaftIndex) -> bool {
        self.durable.is_some_and(|durable| index <= durable)
    }

    /// Where to go on behind damage at `at`: behind the entry, if its header still fits and so does what follows; otherwise at the first
    /// entry that leads to the next point that the journal knows, or to the next file.
    fn resume(
        &self,
        number: usize,
        file: &LiveFile,
        at: Point,
        fault: Fault,
        walker: &mut Walker<'_>,
    ) -> io::Result<Option<Point>> {
        if matches!(fault, Fault::Crc | Fault::Epoch(_))
            && let Ok((_, next)) = walker.header(at)?
            && (next.pos == file.len || walker.header(next)?.is_ok())
        {
            return Ok(Some(next));
        }
        let known = self.marks.iter().filter(|mark| mark.place.segment == file.name);
        let known =
            known.map(|mark| Point { pos: mark.place.position, index: mark.id.index.next(), offset: mark.next_offset });
        let after = known.filter(|point| point.pos > at.pos && point.pos <= file.len && point.index > at.index).min();
        let floor = self.last.map_or(Term(0), |last| last.term);
        if let Some(after) = after {
            return resync(file.file.as_ref(), at, after, floor).map(Some);
        }
        let next = self.files.live.get(number + 1).map(|next| Point { pos: file.len, ..Point::start_of(next.name) });
        match next.filter(|next| next.index > at.index && self.was_durable(RaftIndex(next.index.0 - 1))) {
            Some(next) => resync(file.file.as_ref(), at, next, floor).map(Some),
            None => Ok(None),
        }
    }

    /// Takes over what the journal says of a point that damage was skipped to.
    fn skip_to(&mut self, to: Point) {
        let before = RaftIndex(to.index.0 - 1);
        let marked = self.marks.iter().find(|mark| mark.id.index == before).map(|mark| mark.id);
        let term = self.last.map_or(Term(0), |last| last.term);
        let id = marked.unwrap_or(LogId { term, index: before });
        // The damaged entry's own header may tell of a later term; a term that began in the damage is seen at the next entry.
        if id.term >= term {
            self.epochs.observe(id, to.offset);
            self.last = Some(id);
        }
    }
}

/// Where the entry that another file supersedes begins, in a file that is not scanned because the checkpoint lies behind it.
pub(super) fn superseded_end(file: &LiveFile, next: Point) -> io::Result<(Point, Option<Bad>)> {
    let mut walker = Walker::headers(file.file.as_ref(), file.len);
    let mut at = Point::start_of(file.name);
    while at.index < next.index {
        match walker.header(at)? {
            Ok((_, behind)) => at = behind,
            Err(fault) => {
                let to = Point { pos: file.len, ..next };
                return Ok((to, Some(Bad { from: at, to, fault })));
            }
        }
    }
    Ok((at, None))
}

impl Scanned {
    /// The chunks that reading this has checked in full.
    pub(super) fn chunks(&self) -> std::ops::Range<u64> {
        self.from.pos.div_ceil(CHUNK_BYTES)..self.end.pos.div_ceil(CHUNK_BYTES)
    }
}
