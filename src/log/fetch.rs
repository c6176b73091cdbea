//! Reading by offset: what a fetch is answered with.
//!
//! Nothing here dereferences a view, waits for the device, or hands out bytes that were not checked since they came from it:
//! what would need that is answered [`Reading::NeedsDevice`], and [`Log::warm`] does it where blocking is allowed.

use std::io;
use std::sync::Arc;

use bytes::Bytes;

use super::entry::{Point, RaftEntryKind, kind_of};
use super::error::{Damage, ReadError};
use super::index::Gap;
use super::partition::Log;
use super::segment::{Bad, Seek, Segment};
use super::walk::Walker;
use crate::ids::Offset;

/// Whole batches of a log, as a client fetches them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fetched {
    /// The batches' bytes, in order: views of segment files, to be handed to the kernel and not looked at (see
    /// [`super::disk::DiskFile::view`]).
    pub slices: Vec<Bytes>,
    /// How many bytes that is.
    pub bytes: usize,
    /// The offset behind the last of them.
    pub next_offset: Offset,
}

/// What a read gives at once.
#[derive(Debug)]
pub enum Reading {
    /// Batches from the one that holds the offset on; none if the offset is the visible end.
    Fetched(Fetched),
    /// The batch is not in memory, or not checked yet: [`Log::warm`] this where blocking is allowed, then read again.
    NeedsDevice(ColdRange),
}

/// A part of a log that has to be read and checked before it can be served.
#[derive(Clone, Debug)]
pub struct ColdRange {
    segment: Arc<Segment>,
    /// Bytes of the segment; none: its index is wanted.
    bytes: Option<(u64, u64)>,
}

/// What one segment gives.
enum Part {
    Spans { spans: Vec<Gap>, next_offset: Offset },
    Cold(ColdRange),
    Bad(Bad),
}

impl Log {
    /// Reads whole batches from the one that holds `offset` on: that one at least, then up to `max_bytes`, none at or above
    /// `visible_end`. Raft's own entries are left out. Does not block.
    ///
    /// # Errors
    /// [`ReadError::OutOfRange`] outside of what is kept and visible; [`ReadError::Corrupt`] if the batch is damaged.
    pub fn read(&self, offset: Offset, max_bytes: usize, visible_end: Offset) -> Result<Reading, ReadError> {
        let mut fetched = Fetched { slices: Vec::new(), bytes: 0, next_offset: offset };
        let mut left = u64::try_from(max_bytes).unwrap_or(u64::MAX);
        for segment in self.segments_from(offset, visible_end)? {
            let from = fetched.next_offset;
            if from >= visible_end || (left == 0 && fetched.bytes > 0) {
                break;
            }
            if from >= segment.lock().end.offset {
                // It holds nothing but Raft's own entries, or nothing at all.
                continue;
            }
            let first = fetched.bytes == 0;
            match self.part(&segment, from, left, visible_end, first)? {
                Part::Spans { spans, next_offset } => {
                    for span in &spans {
                        let len = usize::try_from(span.to - span.from).expect("a part of what fits into memory");
                        fetched.slices.push(segment.file.view(span.from, len)?);
                        fetched.bytes += len;
                        left = left.saturating_sub(span.to - span.from);
                    }
                    fetched.next_offset = next_offset;
                    if next_offset < segment.lock().end.offset {
                        break;
                    }
                }
                Part::Cold(cold) if first => return Ok(Reading::NeedsDevice(cold)),
                Part::Bad(bad) if first => return Err(ReadError::Corrupt(Box::new(segment.damage(bad)))),
                Part::Cold(_) | Part::Bad(_) => break,
            }
        }
        Ok(Reading::Fetched(fetched))
    }

    /// Reads a cold range from the device and checks it, so that the read that asked for it goes on. Blocks; to be called inside
    /// [`super::disk::Disk::offload`]. Answers damage that was not known before: reads of it will say so, all else is served.
    ///
    /// # Errors
    /// Of the disk.
    pub fn warm(&self, cold: ColdRange) -> Result<Vec<Damage>, ReadError> {
        let mut found = self.load_index(&cold.segment)?;
        if let Some((from, to)) = cold.bytes {
            let term_at = |index| self.shared().epochs.term_at(index);
            let checked = cold.segment.check(from, to, &term_at)?;
            self.tell(&checked);
            found.extend(checked);
        }
        Ok(found)
    }

    /// As [`Log::read`], but blocks, and copies into memory of its own what it has checked: for whoever must look into the bytes, and for
    /// a reader whose pages are evicted faster than it can read them.
    ///
    /// # Errors
    /// As for [`Log::read`].
    pub fn read_copy(&self, offset: Offset, max_bytes: usize, visible_end: Offset) -> Result<Fetched, ReadError> {
        let mut fetched = Fetched { slices: Vec::new(), bytes: 0, next_offset: offset };
        for segment in self.segments_from(offset, visible_end)? {
            let mut at = self.find_offset(&segment, fetched.next_offset)?;
            let end = segment.lock().end;
            let mut walker = Walker::entries(segment.file.as_ref(), end.pos);
            while at.pos < end.pos {
                let known = segment.lock().bad_at(at.pos);
                let bad = match known {
                    Some(bad) => bad,
                    None => match walker.entry(at)? {
                        Ok((header, next)) => {
                            let size = header.size_bytes();
                            let full = fetched.bytes > 0 && fetched.bytes.saturating_add(size) > max_bytes;
                            if full || next.offset > visible_end {
                                return Ok(fetched);
                            }
                            if kind_of(&header).is_none() {
                                fetched.slices.push(Bytes::copy_from_slice(walker.bytes(at.pos, size)?));
                                fetched.bytes += size;
                            }
                            fetched.next_offset = next.offset;
                            at = next;
                            continue;
                        }
                        Err(fault) => self.note(&segment, at, fault)?,
                    },
                };
                if fetched.bytes > 0 {
                    return Ok(fetched);
                }
                return Err(ReadError::Corrupt(Box::new(segment.damage(bad))));
            }
        }
        Ok(fetched)
    }

    fn segments_from(&self, offset: Offset, visible_end: Offset) -> Result<Vec<Arc<Segment>>, ReadError> {
        let shared = self.shared();
        let visible_end = visible_end.min(shared.next_offset);
        let first = shared.segments.first().map_or(shared.next_offset, |segment| segment.name.first_offset);
        if offset < first || offset > visible_end {
            return Err(ReadError::OutOfRange { offset, first, end: visible_end });
        }
        if offset == visible_end {
            return Ok(Vec::new());
        }
        let at = shared.segment_of_offset(offset).expect("it is at or behind the first");
        let visible = |segment: &&Arc<Segment>| segment.name.first_offset < visible_end;
        Ok(shared.segments[at..].iter().take_while(visible).cloned().collect())
    }

    /// What a segment gives of a read that has come to `from`.
    fn part(
        &self,
        segment: &Arc<Segment>,
        from: Offset,
        max: u64,
        visible_end: Offset,
        whole: bool,
    ) -> io::Result<Part> {
        let recent =
            self.shared().recent.find_offset(from).filter(|it| Arc::ptr_eq(it.0, segment)).map(|it| (it.1, it.2));
        let (seek, end) = {
            let state = segment.lock();
            let seek = match recent {
                Some((at, _)) => Some(Seek { from: at, end: state.end }),
                None => state.seek_offset(from),
            };
            (seek, state.end)
        };
        let cold = |bytes| Part::Cold(ColdRange { segment: Arc::clone(segment), bytes });
        let Some(seek) = seek else { return Ok(cold(None)) };
        let wanted = seek.from.pos.saturating_add(max).saturating_add(1).min(end.pos);
        let trusted = segment.trusted_until(seek.from.pos, wanted)?;
        // Walks from the mark to the batch: header by header, and only through what is trusted.
        let mut walk = Walk { segment, trusted, end, walker: Walker::headers(segment.file.as_ref(), end.pos) };
        let (mut at, mut from, mut passed) = (seek.from, from, false);
        let first = loop {
            match walk.next(at)? {
                Step::To(next) if next.offset > from => break next,
                Step::To(next) => at = next,
                Step::Lost(next) if next.offset > visible_end => {
                    return Ok(Part::Spans { spans: Vec::new(), next_offset: from });
                }
                // The offset asked for is lost: the first batch behind it answers.
                Step::Lost(next) if next.offset > from => (at, from, passed) = (next, next.offset, true),
                Step::Lost(next) => at = next,
                Step::Cold => {
                    let to = wanted.max(walk.trusted + 1).min(end.pos).max(at.pos + 1);
                    return Ok(cold(Some((at.pos, to))));
                }
                Step::Bad(bad) if bad.to.offset > from || bad.to.pos >= end.pos => return Ok(Part::Bad(bad)),
                Step::Bad(bad) => at = bad.to,
                Step::End if passed => return Ok(Part::Spans { spans: Vec::new(), next_offset: from }),
                Step::End => return Ok(Part::Bad(missing(at, end))),
            }
        };
        if first.offset > visible_end || (!whole && first.pos - at.pos > max) {
            return Ok(Part::Spans { spans: Vec::new(), next_offset: from });
        }
        let last = walk.last_within(first, at.pos.saturating_add(max), visible_end)?;
        Ok(Part::Spans { spans: segment.spans(at.pos, last.pos), next_offset: last.offset })
    }

    /// Where the batch with an offset begins, for one who may block; the segment's end if it has none such.
    pub(super) fn find_offset(&self, segment: &Arc<Segment>, offset: Offset) -> Result<Point, ReadError> {
        self.load_index(segment)?;
        let (mut at, end) = {
            let state = segment.lock();
            let seek = state.seek_offset(offset);
            (seek.map_or(Point::start_of(segment.name), |seek| seek.from), state.end)
        };
        let mut walker = Walker::headers(segment.file.as_ref(), end.pos);
        while at.pos < end.pos {
            let known = segment.lock().bad_at(at.pos);
            let next = match known {
                Some(bad) if bad.to.offset > offset => return Ok(at),
                Some(bad) => bad.to,
                None => match walker.header(at)? {
                    Ok((_, next)) if next.offset > offset => return Ok(at),
                    Ok((_, next)) => next,
                    Err(_) => return Ok(at),
                },
            };
            at = next;
        }
        Ok(at)
    }
}

/// Bytes of an entry's header.
const HEADER: u64 = 61;

enum Step {
    To(Point),
    /// Behind an entry that stands in for a lost one.
    Lost(Point),
    Cold,
    Bad(Bad),
    End,
}

/// A header walk that stays within what is trusted.
struct Walk<'a> {
    segment: &'a Segment,
    trusted: u64,
    end: Point,
    walker: Walker<'a>,
}

impl Walk<'_> {
    fn next(&mut self, at: Point) -> io::Result<Step> {
        if at.pos >= self.end.pos {
            return Ok(Step::End);
        }
        let known = self.segment.lock().bad_at(at.pos);
        if let Some(bad) = known {
            return Ok(Step::Bad(bad));
        }
        if !self.within((at.pos + HEADER).min(self.end.pos))? {
            return Ok(Step::Cold);
        }
        match self.walker.header(at)? {
            Ok((header, next)) if self.within(next.pos)? => {
                Ok(if kind_of(&header) == Some(RaftEntryKind::Lost) { Step::Lost(next) } else { Step::To(next) })
            }
            Ok(_) => Ok(Step::Cold),
            Err(fault) => Ok(Step::Bad(Bad { from: at, to: self.end, fault })),
        }
    }

    /// Whether bytes up to `to` are trusted; looks further than was asked for at first when a large batch needs it.
    fn within(&mut self, to: u64) -> io::Result<bool> {
        if to > self.trusted {
            self.trusted = self.segment.trusted_until(self.trusted, to)?;
        }
        Ok(to <= self.trusted)
    }

    /// The last point at or behind `at` that is not past `limit`, not past a visible offset, and with nothing cold or bad before it.
    fn last_within(&mut self, at: Point, limit: u64, visible_end: Offset) -> io::Result<Point> {
        let limit = limit.min(self.trusted);
        let mut at = at;
        {
            let state = self.segment.lock();
            let bad = state.first_bad(at.pos, limit.max(at.pos + 1));
            if bad.is_none() && limit >= self.end.pos && self.end.offset <= visible_end {
                return Ok(self.end);
            }
            let limit = bad.map_or(limit, |bad| limit.min(bad.from.pos));
            let jump = state.index.as_ref().and_then(|index| {
                let (by_pos, by_offset) = (index.seek_pos(limit)?, index.seek_offset(visible_end)?);
                Some(by_pos.min(by_offset))
            });
            if let Some(jump) = jump.filter(|jump| jump.pos > at.pos && jump.offset <= visible_end) {
                at = jump;
            }
        }
        while at.pos < limit {
            match self.next(at)? {
                Step::To(next) | Step::Lost(next) if next.pos <= limit && next.offset <= visible_end => at = next,
                Step::To(_) | Step::Lost(_) | Step::Cold | Step::Bad(_) | Step::End => break,
            }
        }
        Ok(at)
    }
}

impl Segment {
    /// The bytes of `from..to` without Raft's own entries.
    fn spans(&self, from: u64, to: u64) -> Vec<Gap> {
        let gaps = self.lock().index.as_ref().map(|index| index.gaps(from, to)).unwrap_or_default();
        let mut spans = Vec::with_capacity(gaps.len() + 1);
        let mut at = from;
        for gap in gaps {
            if gap.from > at {
                spans.push(Gap { from: at, to: gap.from });
            }
            at = gap.to;
        }
        if to > at {
            spans.push(Gap { from: at, to });
        }
        spans
    }
}

fn missing(from: Point, to: Point) -> Bad {
    Bad { from, to, fault: super::entry::Fault::Missing }
}
