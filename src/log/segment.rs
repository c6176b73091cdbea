//! One segment: a file, what is published of it, its index, and which of its bytes may be trusted.
//!
//! # Invariants
//! - Bytes before `end` never change while the segment is in a log's list.
//! - The state's lock is held for moments only, never while reading or writing the file.

use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::chunks::{CHUNK_BYTES, Chunks, chunks};
use super::disk::{Disk, DiskFile, Open};
use super::entry::{Fault, Point, RAFT_MAGIC, Stamped};
use super::error::Damage;
use super::index::{Index, NO_TIMESTAMP};
use super::name::{INDEX, LOG, SegmentName};
use super::resync::resync;
use super::walk::Walker;
use crate::ids::{Offset, RaftIndex, Term, Timestamp};

/// Entries of Raft's own that are passed over to find a segment's first batch.
const ENTRIES_BEFORE_FIRST_BATCH: usize = 64;

/// See the module's documentation.
pub(super) struct Segment {
    pub(super) name: SegmentName,
    dir: String,
    pub(super) file: Arc<dyn DiskFile>,
    state: Mutex<State>,
}

/// What changes of a segment.
pub(super) struct State {
    /// Where its published data ends.
    pub(super) end: Point,
    /// Whether nothing will be appended any more.
    pub(super) sealed: bool,
    /// `None`: not needed yet. It may cover the later part only.
    pub(super) index: Option<Index>,
    pub(super) checked: Chunks,
    /// By position; they do not overlap.
    bad: Vec<Bad>,
    /// Bytes known to be durable.
    pub(super) synced: u64,
    /// Bytes that space has been allocated for.
    pub(super) allocated: u64,
    /// It is rolled before it grows past this.
    pub(super) limit: u64,
    /// The highest timestamp of the first batch, once it was looked up in the file.
    first_timestamp: Option<Timestamp>,
    /// The highest timestamp of all, of a sealed segment whose index was loaded once.
    max_timestamp: Option<Timestamp>,
    /// Whether the file is, or is about to be, removed: nothing is written beside it.
    removed: bool,
    /// How often damage was looked at more closely, or mended: what was read before is not what is there.
    mended: u64,
}

/// A part that cannot be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Bad {
    pub(super) from: Point,
    pub(super) to: Point,
    pub(super) fault: Fault,
}

/// Where a header walk goes from and to.
#[derive(Clone, Copy, Debug)]
pub(super) struct Seek {
    pub(super) from: Point,
    pub(super) end: Point,
}

impl std::fmt::Debug for Segment {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Segment").field("path", &self.path()).finish_non_exhaustive()
    }
}

impl Segment {
    pub(super) fn new(dir: &str, name: SegmentName, file: Arc<dyn DiskFile>, state: State) -> Arc<Self> {
        Arc::new(Self { name, dir: dir.to_owned(), file, state: Mutex::new(state) })
    }

    /// Creates an empty one, with space for `allocate` bytes.
    pub(super) fn create(
        disk: &dyn Disk,
        dir: &str,
        name: SegmentName,
        allocate: u64,
        limit: u64,
    ) -> io::Result<Arc<Self>> {
        let path = path(dir, name, LOG);
        let file = disk.open(&path, Open::New)?;
        if allocate > 0
            && let Err(error) = file.allocate(0, allocate)
        {
            // Best effort: an empty file of this name would be taken for the log's last segment, which is harmless, but is in the way of
            // the next attempt.
            drop(disk.remove_file(&path));
            return Err(error);
        }
        let mut state = State::at(Point::start_of(name));
        (state.allocated, state.limit) = (allocate, limit);
        state.index = Some(Index::new(state.end));
        Ok(Self::new(dir, name, file, state))
    }

    pub(super) fn path(&self) -> String {
        path(&self.dir, self.name, LOG)
    }

    pub(super) fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn damage(&self, bad: Bad) -> Damage {
        Damage {
            segment: self.name,
            path: self.path(),
            position: bad.from.pos..bad.to.pos,
            indexes: bad.from.index..bad.to.index,
            offsets: bad.from.offset..bad.to.offset,
            fault: bad.fault,
        }
    }

    /// What a search that met no damage but the data's end means: entries between are not there.
    pub(super) fn missing(&self, from: Point, to: Point) -> Damage {
        self.damage(Bad { from, to, fault: Fault::Missing })
    }

    /// Makes the index cover the whole segment: from its file if that is good, from the headers otherwise. Blocks.
    pub(super) fn load_index(&self, disk: &dyn Disk) -> io::Result<Vec<Damage>> {
        let start = Point::start_of(self.name);
        let (upto, partial, mended) = {
            let state = self.lock();
            match &state.index {
                Some(index) if index.from() == start => return Ok(Vec::new()),
                Some(index) => (index.from(), true, state.mended),
                None => (state.end, false, state.mended),
            }
        };
        let from_file = self.read_index_file(disk)?.filter(|(_, end)| end.pos <= upto.pos);
        let (mut index, mut at) = from_file.unwrap_or_else(|| (Index::new(start), start));
        let mut found = Vec::new();
        let mut walker = Walker::headers(self.file.as_ref(), upto.pos);
        while at.pos < upto.pos {
            let known = self.lock().bad_at(at.pos);
            if let Some(bad) = known {
                index.skip(bad.to);
                at = bad.to;
                continue;
            }
            match walker.header(at)? {
                Ok((header, next)) => {
                    index.add(at, &header, next);
                    at = next;
                }
                Err(fault) => {
                    found.push(Bad { from: at, to: upto, fault });
                    index.skip(upto);
                    at = upto;
                }
            }
        }
        if at != upto {
            found.push(Bad { from: at, to: upto, fault: Fault::Missing });
        }
        let mut state = self.lock();
        if state.mended != mended {
            return Ok(Vec::new());
        }
        found.retain(|bad| state.add_bad(*bad));
        // Unless it was truncated or loaded by somebody else meanwhile.
        if partial {
            if let Some(later) = state.index.take_if(|later| later.from() == upto) {
                state.index = Some(later.behind(index));
            }
        } else if state.index.is_none() && state.end == upto {
            state.index = Some(index);
        }
        Ok(found.into_iter().map(|bad| self.damage(bad)).collect())
    }

    /// The highest timestamp of the first batch, -1 if there is none. Blocks for a moment: the first batch is nearly always at the file's
    /// beginning.
    pub(super) fn first_timestamp(&self, load: impl FnOnce() -> io::Result<()>) -> io::Result<Timestamp> {
        let (known, end) = {
            let state = self.lock();
            (state.first_timestamp(), state.end)
        };
        if let Some(known) = known {
            return Ok(known);
        }
        let mut walker = Walker::headers(self.file.as_ref(), end.pos);
        let mut at = Point::start_of(self.name);
        for _ in 0..ENTRIES_BEFORE_FIRST_BATCH {
            if at.pos >= end.pos {
                break;
            }
            match walker.header(at)? {
                Ok((header, next)) if header.magic == RAFT_MAGIC => at = next,
                Ok((header, _)) => {
                    let first = Timestamp(header.max_timestamp);
                    self.lock().first_timestamp = Some(first);
                    return Ok(first);
                }
                // The index knows what to do about damage.
                Err(_) => break,
            }
        }
        load()?;
        Ok(self.lock().first_timestamp().unwrap_or(NO_TIMESTAMP))
    }

    /// The highest timestamp of all batches, -1 if there is none. Blocks if the index has to be loaded.
    pub(super) fn max_timestamp(&self, load: impl FnOnce() -> io::Result<()>) -> io::Result<Timestamp> {
        let known = self.lock().max_timestamp();
        if let Some(known) = known {
            return Ok(known);
        }
        load()?;
        Ok(self.lock().max_timestamp().unwrap_or(NO_TIMESTAMP))
    }

    fn read_index_file(&self, disk: &dyn Disk) -> io::Result<Option<(Index, Point)>> {
        let file = match disk.open(&path(&self.dir, self.name, INDEX), Open::ReadOnly) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            other => other?,
        };
        let len = usize::try_from(file.len()?).unwrap_or(usize::MAX);
        // The most that a segment's index can be; a larger file is not one.
        if len > 1 << 30 {
            return Ok(None);
        }
        let mut bytes = vec![0; len];
        let read = file.read_at(0, &mut bytes)?;
        bytes.truncate(read);
        Ok(Index::decode(self.name, bytes.into()).ok())
    }

    /// Writes the index beside the segment. A cache: nothing is synced, and failing is no more than a log without one.
    pub(super) fn write_index(&self, disk: &dyn Disk) -> io::Result<()> {
        self.load_index(disk)?;
        let bytes = {
            let state = self.lock();
            match &state.index {
                Some(index) if !state.removed && index.from().pos == 0 && state.bad.is_empty() => {
                    index.encode(self.name, state.end)
                }
                _ => return Ok(()),
            }
        };
        let path = path(&self.dir, self.name, INDEX);
        match disk.remove_file(&path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            Ok(()) | Err(_) => {}
        }
        disk.open(&path, Open::New)?.write_at(0, &[io::IoSlice::new(&bytes)])
    }

    /// Removes the files of a segment that is in no list any more.
    pub(super) fn remove(&self, disk: &dyn Disk) -> io::Result<()> {
        self.lock().removed = true;
        for suffix in [LOG, INDEX] {
            match disk.remove_file(&path(&self.dir, self.name, suffix)) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                Ok(()) | Err(_) => {}
            }
        }
        Ok(())
    }

    /// Reads `from..to` from the device and checks each entry in it, so that it can be served. Blocks. Returns the damage that was not
    /// known before. The index must be loaded. `term_at` is what the log's epoch table says.
    pub(super) fn check(
        &self,
        from: u64,
        to: u64,
        term_at: &dyn Fn(RaftIndex) -> Option<Term>,
    ) -> io::Result<Vec<Damage>> {
        let range = chunks(from, to);
        let (first_byte, last_byte) = (range.start * CHUNK_BYTES, range.end * CHUNK_BYTES);
        let (mut at, end, mended) = {
            let state = self.lock();
            let Some(at) = state.index.as_ref().and_then(|index| index.seek_pos(first_byte)) else {
                return Ok(Vec::new());
            };
            (at, state.end, state.mended)
        };
        let mut found = Vec::new();
        let mut walker = Walker::entries(self.file.as_ref(), end.pos);
        while at.pos < end.pos.min(last_byte) {
            let known = self.lock().bad_at(at.pos);
            if let Some(bad) = known {
                at = bad.to;
                continue;
            }
            let entry = match walker.header(at)? {
                Ok((_, next)) if next.pos <= first_byte => Ok(next),
                Ok((header, _)) if term_at(at.index).is_some_and(|term| term.0 != epoch(header.leader_epoch)) => {
                    Err((Fault::Epoch(header.leader_epoch), None))
                }
                Ok((_, next)) => match walker.entry(at)? {
                    Ok(_) => Ok(next),
                    Err(fault) => Err((fault, Some(next))),
                },
                Err(fault) => Err((fault, None)),
            };
            at = match entry {
                Ok(next) => next,
                Err((fault, next)) => {
                    let mut state = self.lock();
                    let to = next.or_else(|| state.index.as_ref()?.after(at.pos)).unwrap_or(state.end);
                    let bad = Bad { from: at, to, fault };
                    if state.mended == mended && state.add_bad(bad) {
                        found.push(self.damage(bad));
                    }
                    to
                }
            };
        }
        let mut state = self.lock();
        if state.mended != mended {
            return Ok(found);
        }
        // All of the last entry was checked, also where it goes on behind the range.
        (range.start..range.end.max(at.pos / CHUNK_BYTES)).for_each(|chunk| state.checked.set(chunk, true));
        Ok(found)
    }

    /// Up to where damage at a point goes: behind the entry, if its header still fits and so does what follows it; otherwise to the first
    /// entry that leads to `known`. No entry there has a term below `floor`. Blocks.
    pub(super) fn extent(&self, at: Point, fault: Fault, known: Point, floor: Term) -> io::Result<Point> {
        if known.pos <= at.pos || known.index <= at.index {
            return Ok(known);
        }
        let mut walker = Walker::headers(self.file.as_ref(), known.pos);
        if matches!(fault, Fault::Crc | Fault::Epoch(_))
            && let Ok((_, next)) = walker.header(at)?
            && (next == known || walker.header(next)?.is_ok())
        {
            return Ok(next);
        }
        resync(self.file.as_ref(), at, known, floor)
    }

    /// How far from `from` on the bytes may be read and served without waiting and without checking: at most to `to`.
    pub(super) fn trusted_until(&self, from: u64, to: u64) -> io::Result<u64> {
        let mut until = from;
        for chunk in chunks(from, to) {
            let (first, last) = (from.max(chunk * CHUNK_BYTES), to.min((chunk + 1) * CHUNK_BYTES));
            if !self.lock().checked.is_set(chunk) {
                return Ok(until);
            }
            if !self.file.resident(first, last - first)? {
                // It will come from the device again.
                self.lock().checked.set(chunk, false);
                return Ok(until);
            }
            until = last;
        }
        Ok(to)
    }
}

impl State {
    /// Of a segment with data up to `end`, all of it durable and none of it checked.
    pub(super) fn at(end: Point) -> Self {
        Self {
            end,
            sealed: false,
            index: None,
            checked: Chunks::default(),
            bad: Vec::new(),
            synced: end.pos,
            allocated: end.pos,
            limit: 0,
            first_timestamp: None,
            max_timestamp: None,
            removed: false,
            mended: 0,
        }
    }

    /// Publishes entries that have been written at the end.
    pub(super) fn publish(&mut self, entries: &[Stamped], mut each: impl FnMut(&Stamped, Point, Point)) {
        let from = self.end;
        let index = self.index.get_or_insert_with(|| Index::new(from));
        for entry in entries {
            let at = self.end;
            let next = at.step(&entry.header, u64::MAX).expect("an entry that was stamped for this place fits it");
            index.add(at, &entry.header, next);
            each(entry, at, next);
            self.end = next;
        }
        self.checked.appended(from.pos, self.end.pos);
    }

    /// The known damage that covers a position.
    pub(super) fn bad_at(&self, pos: u64) -> Option<Bad> {
        self.bad.iter().copied().find(|bad| bad.from.pos <= pos && pos < bad.to.pos)
    }

    /// The first known damage in a range.
    pub(super) fn first_bad(&self, from: u64, to: u64) -> Option<Bad> {
        self.bad.iter().copied().find(|bad| bad.from.pos < to && from < bad.to.pos)
    }

    /// Takes note of damage; `false` if it is known.
    pub(super) fn add_bad(&mut self, bad: Bad) -> bool {
        let known = self.bad.iter().any(|it| it.from.pos <= bad.from.pos && bad.to.pos <= it.to.pos);
        if !known {
            self.bad.push(bad);
            self.bad.sort_by_key(|it| it.from);
        }
        !known
    }

    /// Has other damaged parts in the place of one that was looked at more closely, or mended: none if all of it can be read.
    pub(super) fn replace_bad(&mut self, bad: Bad, by: &[Bad]) {
        self.bad.retain(|it| *it != bad);
        self.bad.extend(by);
        self.bad.sort_by_key(|it| it.from);
        self.mended += 1;
        // The index knows nothing of what lies in the damage: neither marks nor entries of Raft's own, which fetch must leave out.
        (self.index, self.first_timestamp, self.max_timestamp) = (None, None, None);
        chunks(bad.from.pos, bad.to.pos).for_each(|chunk| self.checked.set(chunk, false));
    }

    /// All known damage.
    pub(super) fn all_bad(&self) -> &[Bad] {
        &self.bad
    }

    /// Forgets all behind a point, after which nothing is appended.
    pub(super) fn truncate(&mut self, end: Point) {
        self.end = end;
        self.sealed = true;
        self.synced = self.synced.min(end.pos);
        self.bad.retain(|bad| bad.from.pos < end.pos);
        // The mark before the cut does not say which timestamps lie between the two: have it built again when it is needed.
        (self.index, self.first_timestamp, self.max_timestamp) = (None, None, None);
    }

    /// Frees a sealed segment's index. Its timestamps stay known: they are asked for again and again.
    pub(super) fn drop_index(&mut self) {
        self.max_timestamp = self.max_timestamp();
        self.index = None;
    }

    /// The highest timestamp of the first batch, -1 if there is none; `None` if it is not known without reading.
    fn first_timestamp(&self) -> Option<Timestamp> {
        match self.whole_index() {
            Some(index) => Some(index.first_timestamp()),
            None if self.end.pos == 0 => Some(NO_TIMESTAMP),
            None => self.first_timestamp,
        }
    }

    /// The highest timestamp of all batches, -1 if there is none; `None` if it is not known without the index.
    fn max_timestamp(&self) -> Option<Timestamp> {
        match self.whole_index() {
            Some(index) => Some(index.max_timestamp()),
            None if self.end.pos == 0 => Some(NO_TIMESTAMP),
            None => self.max_timestamp,
        }
    }

    fn whole_index(&self) -> Option<&Index> {
        self.index.as_ref().filter(|index| index.from().pos == 0)
    }

    /// Where to walk from to the entry with an index; `None` if the index has to be loaded first.
    pub(super) fn seek_index(&self, index: RaftIndex) -> Option<Seek> {
        let from = self.index.as_ref()?.seek_index(index)?;
        Some(Seek { from, end: self.end })
    }

    /// Where to walk from to the batch with an offset; `None` if the index has to be loaded first.
    pub(super) fn seek_offset(&self, offset: Offset) -> Option<Seek> {
        let from = self.index.as_ref()?.seek_offset(offset)?;
        Some(Seek { from, end: self.end })
    }
}

/// A leader epoch as a term; one that is negative fits none.
fn epoch(epoch: i32) -> u64 {
    u64::try_from(epoch).unwrap_or(u64::MAX)
}

/// The path of a segment's file.
pub(super) fn path(dir: &str, name: SegmentName, suffix: &str) -> String {
    format!("{dir}/{name}{suffix}")
}
