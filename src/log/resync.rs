//! Where reading goes on behind bytes that cannot be read, when their headers do not say.
//!
//! An entry's Raft index is nowhere in its bytes: it is known only by counting from a known point. Behind damage that point is the next one that
//! the journal or a file's name tells; from there the entries are counted back.

use std::io;

use super::disk::DiskFile;
use super::entry::{MIN_ENTRY_BYTES, Point, term_of};
use super::walk::Walker;
use crate::ids::{Offset, RaftIndex, Term};
use crate::protocol::batch::{BatchHeader, HEADER_BYTES};

/// The first point behind `from` from which whole entries lead to exactly `to`, which is known, without more of them than there were; `to`
/// itself if there is none. No entry there has a term below `floor`.
pub(super) fn resync(file: &dyn DiskFile, from: Point, to: Point, floor: Term) -> io::Result<Point> {
    let count = to.index.0 - from.index.0;
    let mut walker = Walker::entries(file, to.pos);
    let mut chain = Walker::entries(file, to.pos);
    // A single entry has nothing behind it to be found.
    let mut pos = if count > 1 { from.pos + MIN_ENTRY_BYTES } else { to.pos };
    while pos + MIN_ENTRY_BYTES <= to.pos {
        let header = BatchHeader::parse(walker.bytes(pos, HEADER_BYTES)?).ok();
        let candidate = header.filter(|header| (from.offset.0..=to.offset.0).contains(&header.base_offset));
        if let Some(header) = candidate {
            let at = Point { pos, index: RaftIndex(0), offset: Offset(header.base_offset) };
            match leads_to(&mut chain, at, to, floor)? {
                Ok(entries) if entries < count && pos - from.pos >= (count - entries) * MIN_ENTRY_BYTES => {
                    return Ok(Point { index: RaftIndex(to.index.0 - entries), ..at });
                }
                Ok(_) => {}
                // No entry before that place leads further than this one does.
                Err(stopped) => pos = pos.max(stopped.saturating_sub(1)),
            }
        }
        pos += 1;
    }
    Ok(to)
}

/// How many whole entries lead from a point to another, or where they stop.
fn leads_to(walker: &mut Walker<'_>, at: Point, to: Point, floor: Term) -> io::Result<Result<u64, u64>> {
    let (mut at, mut term) = (at, floor);
    while at.pos < to.pos {
        match walker.entry(at)? {
            Ok((header, next)) if term_of(&header) >= term => (at, term) = (next, term_of(&header)),
            Ok(_) | Err(_) => return Ok(Err(at.pos)),
        }
    }
    Ok(if at.pos == to.pos && at.offset == to.offset { Ok(at.index.0) } else { Err(at.pos) })
}
