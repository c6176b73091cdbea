//! Opening a log: what of its files counts, what is damage, what is cut.
//!
//! The journal knows up to where the files were durable (marks, descriptors). A bad entry below that is damage: reported, never
//! cut, the rest stays usable. Above it, unsynced sectors may have reached the device in any order: the log ends at the first bad entry
//! whatever follows it. After anything but a clean stop, what is read was synced and dropped from memory before, so that it is what
//! the device holds, and all of it, the names too, is durable before the log opens: Raft takes the recovered end as flushed.

use std::io;
use std::sync::Arc;

use super::append::allocate_slack;
use super::descriptor::{Descriptor, Mark, Place};
use super::disk::Disk;
use super::entry::{Fault, Point};
use super::epochs::EpochTable;
use super::error::{Damage, LogError};
use super::journal::{GroupState, Journal};
use super::name::{CUT, LOG, directory};
use super::partition::{Log, LogConfig, OpenAfter, Shared, Writer};
use super::recovery_files::{Files, LiveFile, prune_cuts};
use super::recovery_scan::{Outcome, Scan, Scanned, Start, superseded_end};
use super::segment::{Bad, Segment, State, path};
use crate::ids::{LogId, Offset, PartitionId, RaftIndex};

/// What a log was found to be.
#[derive(Debug, Default)]
pub struct Recovered {
    /// The newest descriptor at or below the log's end: where the machine begins.
    pub descriptor: Option<Descriptor>,
    /// An entry known to be committed, at or below the log's end.
    pub committed: Option<LogId>,
    /// What was cut off, if anything was.
    pub cut: Option<CutReport>,
    /// What cannot be read of what was read back. More may be found later, by reads.
    pub damage: Vec<Damage>,
    /// Entries that were durable here are gone from the log's end: this replica must not vote as if it had them.
    pub forgotten: bool,
    /// Bytes that were read back.
    pub read_bytes: u64,
}

/// What recovery cut off a log's end: never anything that was durable, unless the log has forgotten.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CutReport {
    /// The file.
    pub path: String,
    /// Where it ends now.
    pub position: u64,
    /// Bytes that were there behind, up to the last that is not zero, and in files behind it.
    pub bytes: u64,
    /// What stopped the reading.
    pub fault: Fault,
    /// Where the bytes are kept, unless there was no space.
    pub kept_as: Option<String>,
}

impl Log {
    /// Opens a partition's log, or creates it: its directory is durable on return. Blocks.
    ///
    /// # Errors
    /// [`LogError::PurgeWithoutDescriptor`] if the journal does not say where a log that was purged to its end goes on; of the disk.
    pub fn open(
        disk: Arc<dyn Disk>,
        journal: Arc<Journal>,
        id: PartitionId,
        config: LogConfig,
        how: OpenAfter,
    ) -> Result<(Self, Recovered), LogError> {
        let dir = directory(id);
        let existed = match disk.list(&dir) {
            Ok(_) => true,
            Err(error) if error.kind() == io::ErrorKind::NotFound => false,
            Err(error) => return Err(error.into()),
        };
        if !existed {
            journal.parents().will_make(id);
            disk.create_dir_all(&dir)?;
        }
        journal.parents().sync(disk.as_ref(), id, how.clean)?;
        if existed && !how.clean {
            // Before anything is removed because of a file that supersedes it: after kill -9 that one's name may be in memory only.
            disk.sync_dir(&dir).map_err(LogError::Sync)?;
        }
        let mut group = journal.group(id);
        if let Some(cut) = group.cut().filter(|cut| group.purged != Some(*cut)) {
            group.purged = Some(cut);
            journal.put_purged(id, cut);
        }
        let files = Files::open(disk.as_ref(), &dir, group.purged)?;
        let recovery = Recovery { disk, journal, id, dir, config, clean: how.clean, group };
        recovery.run(files)
    }
}

struct Recovery {
    disk: Arc<dyn Disk>,
    journal: Arc<Journal>,
    id: PartitionId,
    dir: String,
    config: LogConfig,
    clean: bool,
    group: GroupState,
}

impl Recovery {
    fn run(self, mut files: Files) -> Result<(Log, Recovered), LogError> {
        let durable = files.durable(&self.group);
        let marks = self.group.mark.into_iter().chain(self.group.checkpoint().and_then(Descriptor::mark));
        let marks: Vec<Mark> = marks.filter(|mark| files.vouched(mark) == Some(mark.id.index)).collect();
        // Before this recovery adds its own, which names alone would not tell from older ones.
        prune_cuts(self.disk.as_ref(), &self.dir)?;
        let headless = self.put_headless_aside(&mut files, durable.is_some())?;
        let (start, lost) = self.start(&files);
        let first = start.file;
        let mut names_changed = false;
        if !self.clean {
            names_changed = files.remove_indexes(self.disk.as_ref(), &self.dir, first)?;
            for file in &files.live[first..] {
                // Synced first: what stays in memory only would be gone after the next power cut, acknowledged or not.
                file.file.sync().map_err(LogError::Sync)?;
                file.file.evict()?;
            }
        }
        let scan = Scan { files: &files, durable, marks, terms: None, epochs: EpochTable::default(), last: None };
        let outcome = scan.run(start)?;
        let mut recovered =
            Recovered { forgotten: outcome.forgotten || lost, read_bytes: outcome.read_bytes, ..Recovered::default() };
        recovered.cut = self.cut(&mut files, first, &outcome)?.or(headless);
        if let Some(reset) = self.reset(&outcome, &recovered)? {
            return Ok(self.begin_anew(files, &reset, recovered));
        }
        let known = self.group.mark.is_some() || self.group.purged.is_some() || !self.group.descriptors.is_empty();
        if outcome.last.is_none() && outcome.files.len() == files.live.len() && !known {
            // No entry ever became durable; the name of the file must not decide which index comes first. Otherwise it must stay: it is what
            // supersedes the entries of the mark, which were truncated.
            files.clear(self.disk.as_ref(), &self.dir)?;
        }
        if names_changed || files.changed || recovered.cut.is_some() {
            self.disk.sync_dir(&self.dir).map_err(LogError::Sync)?;
        }
        self.finish(files, first, outcome, recovered)
    }

    /// A log begins at index 0 or behind its raft cut. Files that begin later, when nothing was ever known to be durable, are what a power
    /// cut left of a log whose first file was not synced yet: flushes go oldest first, so none of it was acknowledged.
    fn put_headless_aside(&self, files: &mut Files, has_durable: bool) -> Result<Option<CutReport>, LogError> {
        let Some(name) = files.live.first().map(|file| file.name) else { return Ok(None) };
        let known = has_durable || self.group.purged.is_some() || !self.group.descriptors.is_empty();
        if known || name.first_index == RaftIndex(0) {
            return Ok(None);
        }
        let bytes = files.put_aside(self.disk.as_ref(), &self.dir, 0)?;
        self.disk.sync_dir(&self.dir).map_err(LogError::Sync)?;
        let kept_as = Some(path(&self.dir, name, CUT));
        Ok(Some(CutReport { path: path(&self.dir, name, LOG), position: 0, bytes, fault: Fault::Missing, kept_as }))
    }

    /// Where reading begins: at the checkpoint if its place is there, otherwise at the log's first byte. Also whether the checkpoint's
    /// place is gone.
    fn start(&self, files: &Files) -> (Start, bool) {
        let from_first = |last, epochs| {
            let at = files.live.first().map(|file| Point::start_of(file.name)).unwrap_or_default();
            Start { file: 0, at, last, epochs }
        };
        let purged = |at: &Start| self.group.purged.filter(|it| it.index.next() == at.at.index);
        let Some(checkpoint) = self.group.checkpoint() else {
            let start = from_first(None, EpochTable::default());
            return (Start { last: purged(&start), ..start }, false);
        };
        let epochs = EpochTable::new(checkpoint.epochs.clone()).unwrap_or_default();
        let at = Point { pos: 0, index: checkpoint.id.index.next(), offset: checkpoint.next_offset };
        let begins = |file: &LiveFile| file.name.first_index == at.index && file.name.first_offset == at.offset;
        if let Some(file) = files.live.iter().position(begins) {
            return (Start { file, at, last: Some(checkpoint.id), epochs }, false);
        }
        if let Some(place) = checkpoint.place
            && let Some(file) = files.live.iter().position(|file| file.name == place.segment)
            && place.position <= files.live[file].len
            && files.live[file].superseded_from.is_none_or(|from| from >= at.index)
        {
            let at = Point { pos: place.position, ..at };
            return (Start { file, at, last: Some(checkpoint.id), epochs }, false);
        }
        let start = from_first(None, EpochTable::default());
        (Start { last: purged(&start), ..start }, checkpoint.place.is_some())
    }

    /// Cuts what is behind the log's end, and keeps a copy.
    fn cut(&self, files: &mut Files, first: usize, outcome: &Outcome) -> Result<Option<CutReport>, LogError> {
        let disk = self.disk.as_ref();
        let ends = first + outcome.files.len();
        let mut report = None;
        for (number, (scanned, file)) in outcome.files.iter().zip(&files.live[first..]).enumerate() {
            let end = scanned.end.pos;
            if file.len <= end {
                continue;
            }
            // Otherwise the rest of the file is superseded by the next one, and was never committed.
            if let (Some(fault), true) = (outcome.cut, first + number + 1 == ends) {
                let (bytes, kept_as) = file.copy_tail(disk, &self.dir, end)?;
                if bytes > 0 {
                    let path = path(&self.dir, file.name, LOG);
                    report = Some(CutReport { path, position: end, bytes, fault, kept_as });
                }
            }
            file.file.set_len(end)?;
            file.file.sync().map_err(LogError::Sync)?;
        }
        if let (Some(fault), true) = (outcome.cut, ends < files.live.len()) {
            let name = files.live[ends].name;
            let behind = files.put_aside(disk, &self.dir, ends)?;
            let kept = path(&self.dir, name, CUT);
            let report = report.get_or_insert_with(|| CutReport {
                path: path(&self.dir, name, LOG),
                position: 0,
                bytes: 0,
                fault,
                kept_as: Some(kept),
            });
            report.bytes += behind;
        }
        Ok(report)
    }

    /// If the log begins anew behind a point that another replica, or a purge, has set: the descriptor for it.
    fn reset(&self, outcome: &Outcome, recovered: &Recovered) -> Result<Option<Descriptor>, LogError> {
        let end = outcome.last;
        if let Some(received) = self.group.checkpoint().filter(|it| it.place.is_none())
            && end.is_none_or(|end| end.index < received.id.index)
        {
            return Ok(Some(received.clone()));
        }
        let Some(upto) = self.group.purged.filter(|purged| end.is_none_or(|end| end.index < purged.index)) else {
            return Ok(None);
        };
        match self.group.descriptors.iter().find(|it| it.id == upto) {
            Some(descriptor) => Ok(Some(descriptor.clone())),
            None if recovered.forgotten => Ok(None),
            None => Err(LogError::PurgeWithoutDescriptor { upto, last: end }),
        }
    }

    /// The files that were found stay until the journal has the cut and a mark of the new log: the old mark would call them forgotten.
    fn begin_anew(self, files: Files, at: &Descriptor, recovered: Recovered) -> (Log, Recovered) {
        let generation = files.generation + 1;
        self.journal.put_purged(self.id, at.id);
        self.journal.put_mark(self.id, Mark::beginning(at, generation));
        let shared = Shared {
            purged: Some(at.id),
            last: Some(at.id),
            next_offset: at.next_offset,
            flushed: Some(at.id),
            epochs: EpochTable::new(at.epochs.clone()).unwrap_or_default(),
            ..Shared::empty()
        };
        let descriptor = Some(at.clone());
        let writer = Writer { config: self.config, generation, named: files.generation };
        let committed = self.group.committed.filter(|it| it.index <= at.id.index);
        let gone =
            |file: LiveFile| Segment::new(&self.dir, file.name, file.file, State::at(Point::start_of(file.name)));
        let gone: Vec<_> = files.live.into_iter().map(gone).collect();
        let log = Log::new(self.disk, self.journal, self.id, writer, shared);
        log.remove_later(gone);
        (log, Recovered { descriptor, committed, ..recovered })
    }

    fn finish(
        self,
        files: Files,
        first: usize,
        outcome: Outcome,
        mut recovered: Recovered,
    ) -> Result<(Log, Recovered), LogError> {
        let segments = self.segments(&files, first, outcome.files)?;
        let last = outcome.last;
        let next_offset = segments.last().map_or(Offset(0), |segment| segment.lock().end.offset);
        let durable = last.zip(segments.last()).map(|(id, segment)| {
            let place = Place { segment: segment.name, position: segment.lock().end.pos };
            Mark { id, next_offset, place }
        });
        recovered.damage = damage_of(&segments);
        let known = self.group.mark.is_some() || !self.group.descriptors.is_empty();
        let first = self.group.purged.map(|cut| cut.index.next()).or(known.then_some(RaftIndex(0)));
        if let (Some(kept), Some(first)) = (segments.first(), first)
            && kept.name.first_index > first
        {
            let to = Point::start_of(kept.name);
            recovered
                .damage
                .insert(0, kept.damage(Bad { from: Point { index: first, ..to }, to, fault: Fault::Missing }));
        }
        recovered.committed =
            self.group.committed.map(|it| last.map_or(it, |last| last.min(it))).filter(|_| last.is_some());
        let at_or_below = |it: &&Descriptor| last.is_some_and(|last| it.id.index <= last.index);
        recovered.descriptor = self.group.descriptors.iter().rev().find(at_or_below).cloned();
        if let (Some(active), Some(_)) = (segments.last(), last) {
            // Space for what Raft appends by itself.
            let end = active.lock().end.pos;
            let allocated = allocate_slack(active.file.as_ref(), end)?;
            active.lock().allocated = allocated;
        }
        let changed = files.changed || recovered.cut.is_some();
        let shared = Shared {
            has_active: !segments.is_empty(),
            segments,
            purged: self.group.purged,
            last,
            next_offset,
            flushed: last,
            committed: recovered.committed,
            epochs: outcome.epochs,
            durable,
            marked: self.group.mark,
            ..Shared::empty()
        };
        let generation = files.generation + u32::from(changed);
        let writer = Writer { config: self.config, generation, named: files.generation };
        let log = Log::new(self.disk, self.journal, self.id, writer, shared);
        if !self.clean {
            log.mark_flushed();
        }
        Ok((log, recovered))
    }

    fn segments(&self, files: &Files, first: usize, scanned: Vec<Scanned>) -> Result<Vec<Arc<Segment>>, LogError> {
        let mut scanned = scanned.into_iter();
        let count = files.live.len();
        let mut segments = Vec::with_capacity(count);
        for (number, file) in files.live.iter().enumerate() {
            let next = files.live.get(number + 1).map(|next| Point::start_of(next.name));
            let mut state = if number >= first {
                let scanned = scanned.next().expect("each file from the first on was read, or was put aside");
                state_of(scanned)
            } else {
                let next = next.expect("files before the last have one behind them");
                let (end, bad) = match file.superseded_from {
                    Some(_) => superseded_end(file, next)?,
                    None => (Point { pos: file.len, ..next }, None),
                };
                let mut state = State::at(end);
                if let Some(bad) = bad {
                    state.add_bad(bad);
                }
                state
            };
            state.sealed = number + 1 < count;
            state.limit = self.config.segment_bytes;
            segments.push(Segment::new(&self.dir, file.name, Arc::clone(&file.file), state));
        }
        Ok(segments)
    }
}

fn state_of(scanned: Scanned) -> State {
    let chunks = scanned.chunks();
    let mut state = State::at(scanned.end);
    chunks.for_each(|chunk| state.checked.set(chunk, true));
    state.index = Some(scanned.index);
    for bad in scanned.bad {
        state.add_bad(bad);
    }
    state
}

fn damage_of(segments: &[Arc<Segment>]) -> Vec<Damage> {
    let of = |segment: &Arc<Segment>| {
        let bad = segment.lock().all_bad().to_vec();
        bad.into_iter().map(|bad| segment.damage(bad)).collect::<Vec<_>>()
    };
    segments.iter().flat_map(of).collect()
}
