//! The files of a log's directory when it is opened: which of them are live, what is superseded, and what is put aside.

use std::collections::BTreeSet;
use std::io;
use std::sync::Arc;

use super::descriptor::{Descriptor, Mark};
use super::disk::{Disk, DiskFile, Open};
use super::journal::GroupState;
use super::name::{CUT, INDEX, LOG, SegmentName};
use super::segment::path;
use crate::ids::{LogId, RaftIndex};

/// Files with bytes that earlier recoveries cut which are kept.
const CUT_FILES: usize = 4;
/// Bytes of one tail that are kept.
const CUT_BYTES: u64 = 16 << 20;
const COPY_BYTES: usize = 1 << 20;

/// A live segment file.
pub(super) struct LiveFile {
    pub(super) name: SegmentName,
    pub(super) file: Arc<dyn DiskFile>,
    pub(super) len: u64,
    /// Entries from this index on are superseded by another file.
    pub(super) superseded_from: Option<RaftIndex>,
}

/// What is in the directory.
pub(super) struct Files {
    /// Oldest first.
    pub(super) live: Vec<LiveFile>,
    /// The highest generation of all names.
    pub(super) generation: u32,
    /// Whether files were removed.
    pub(super) changed: bool,
    /// Index files of live segments.
    indexes: BTreeSet<SegmentName>,
}

impl Files {
    /// Lists a log's directory and clears it of what is no part of the log: superseded segments, those that lie whole at or below the
    /// raft cut (an interrupted deletion), and indexes without a segment.
    pub(super) fn open(disk: &dyn Disk, dir: &str, cut: Option<LogId>) -> io::Result<Self> {
        let (files, gone) = Self::list(disk, dir, cut, Open::Existing)?;
        for path in &gone {
            disk.remove_file(path)?;
        }
        Ok(files)
    }

    /// The same, but changes nothing.
    pub(super) fn look(disk: &dyn Disk, dir: &str, cut: Option<LogId>) -> io::Result<Self> {
        Self::list(disk, dir, cut, Open::ReadOnly).map(|(files, _)| files)
    }

    /// What is part of the log, and the files that are not.
    fn list(disk: &dyn Disk, dir: &str, purged: Option<LogId>, how: Open) -> io::Result<(Self, Vec<String>)> {
        let (mut names, mut indexes) = (BTreeSet::new(), BTreeSet::new());
        for entry in disk.list(dir)?.into_iter().filter(|entry| !entry.is_dir) {
            if let Some(name) = entry.name.strip_suffix(LOG).and_then(SegmentName::parse) {
                names.insert(name);
            } else if let Some(name) = entry.name.strip_suffix(INDEX).and_then(SegmentName::parse) {
                indexes.insert(name);
            }
        }
        let generation = names.iter().map(|name| name.generation).max().unwrap_or(0);
        let mut gone: BTreeSet<SegmentName> = BTreeSet::new();
        let superseded_from = |name: &SegmentName| {
            names.iter().filter(|it| it.generation > name.generation).map(|it| it.first_index).min()
        };
        let mut live: Vec<(SegmentName, Option<RaftIndex>)> = Vec::new();
        for name in &names {
            match superseded_from(name) {
                Some(from) if from <= name.first_index => drop(gone.insert(*name)),
                from => live.push((*name, from)),
            }
        }
        // Invariant: the raft cut is at or below log start, so nobody needs what lies at or below it. The last file stays: it says where
        // the log goes on.
        let below = |next: &SegmentName| purged.is_some_and(|purged| next.first_index.0 <= purged.index.0 + 1);
        let dropped = live.windows(2).take_while(|pair| below(&pair[1].0)).count();
        gone.extend(live.drain(..dropped).map(|(name, _)| name));
        let stray = indexes.iter().filter(|name| gone.contains(name) || !names.contains(name));
        let stray = stray.map(|name| path(dir, *name, INDEX));
        let removed: Vec<String> = gone.iter().map(|name| path(dir, *name, LOG)).chain(stray).collect();
        indexes.retain(|name| names.contains(name) && !gone.contains(name));
        let live = live.into_iter().map(|(name, superseded_from)| {
            let file = disk.open(&path(dir, name, LOG), how)?;
            let len = file.len()?;
            Ok(LiveFile { name, file, len, superseded_from })
        });
        let live = live.collect::<io::Result<_>>()?;
        Ok((Self { live, generation, changed: !gone.is_empty(), indexes }, removed))
    }

    /// The last entry that a mark vouches for, now that later files may have superseded some. `None`: none.
    pub(super) fn vouched(&self, mark: &Mark) -> Option<RaftIndex> {
        let index = mark.id.index;
        match self.superseded_from(mark.place.segment.generation) {
            Some(from) if from <= index => Some(RaftIndex(from.0.checked_sub(1)?)),
            Some(_) | None => Some(index),
        }
    }

    /// The last entry that the journal vouches for.
    pub(super) fn durable(&self, group: &GroupState) -> Option<RaftIndex> {
        let marks = group.mark.into_iter().chain(group.checkpoint().and_then(Descriptor::mark));
        let durable = marks.filter_map(|mark| self.vouched(&mark)).max();
        // Where the log begins anew, nothing before that point is needed, and nothing may be left of it.
        durable.filter(|durable| Some(*durable) > group.received().map(|id| id.index))
    }

    /// Removes the indexes of the files from number `from` on, which may have lost what those speak of, and may get other entries in its
    /// place. Answers whether there were any.
    pub(super) fn remove_indexes(&self, disk: &dyn Disk, dir: &str, from: usize) -> io::Result<bool> {
        let mut removed = false;
        for file in self.live[from..].iter().filter(|file| self.indexes.contains(&file.name)) {
            disk.remove_file(&path(dir, file.name, INDEX))?;
            removed = true;
        }
        Ok(removed)
    }

    /// The lowest index that a file of a later generation begins at: what was durable from there on is superseded.
    pub(super) fn superseded_from(&self, generation: u32) -> Option<RaftIndex> {
        self.live.iter().filter(|it| it.name.generation > generation).map(|it| it.name.first_index).min()
    }

    /// Removes all segments.
    pub(super) fn clear(&mut self, disk: &dyn Disk, dir: &str) -> io::Result<()> {
        for file in self.live.drain(..) {
            disk.remove_file(&path(dir, file.name, LOG))?;
            remove_index(disk, dir, file.name)?;
            self.changed = true;
        }
        Ok(())
    }

    /// Takes the files from number `from` on out of the log, under another name. Answers their bytes.
    pub(super) fn put_aside(&mut self, disk: &dyn Disk, dir: &str, from: usize) -> io::Result<u64> {
        let mut bytes = 0;
        for file in self.live.drain(from..) {
            bytes += file.len;
            disk.rename(&path(dir, file.name, LOG), &path(dir, file.name, CUT))?;
            remove_index(disk, dir, file.name)?;
            self.changed = true;
        }
        Ok(bytes)
    }
}

impl LiveFile {
    /// Copies what stands from `pos` on to a file beside, if it is not just zeros. Answers the bytes, and the file unless there was no
    /// space for it.
    pub(super) fn copy_tail(&self, disk: &dyn Disk, dir: &str, pos: u64) -> io::Result<(u64, Option<String>)> {
        let (mut buf, mut used) = (vec![0; COPY_BYTES], None);
        let mut at = pos;
        while at < self.len {
            let read = self.file.read_at(at, &mut buf)?;
            if read == 0 {
                break;
            }
            if let Some(last) = buf[..read].iter().rposition(|byte| *byte != 0) {
                used = Some(at + u64::try_from(last).expect("an index") + 1);
            }
            at += u64::try_from(read).expect("a length");
        }
        let Some(end) = used else { return Ok((0, None)) };
        let to = format!("{dir}/{}-{pos:020}{CUT}", self.name);
        match self.copy(disk, &to, pos, end.min(pos + CUT_BYTES)) {
            Ok(()) => Ok((end - pos, Some(to))),
            Err(error) if error.kind() == io::ErrorKind::StorageFull => Ok((end - pos, None)),
            Err(error) => Err(error),
        }
    }

    fn copy(&self, disk: &dyn Disk, to: &str, from: u64, end: u64) -> io::Result<()> {
        match disk.remove_file(to) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            Ok(()) | Err(_) => {}
        }
        let copy = disk.open(to, Open::New)?;
        let mut buf = vec![0; COPY_BYTES];
        let (mut at, mut out) = (from, 0);
        while at < end {
            let want = usize::try_from(end - at).unwrap_or(usize::MAX).min(COPY_BYTES);
            let read = self.file.read_at(at, &mut buf[..want])?;
            if read == 0 {
                break;
            }
            copy.write_at(out, &[io::IoSlice::new(&buf[..read])])?;
            (at, out) = (at + u64::try_from(read).expect("a length"), out + u64::try_from(read).expect("a length"));
        }
        copy.sync()
    }
}

/// Removes all but the last files with bytes that were cut.
pub(super) fn prune_cuts(disk: &dyn Disk, dir: &str) -> io::Result<()> {
    let entries = disk.list(dir)?;
    let cuts: Vec<_> = entries.iter().filter(|entry| entry.name.ends_with(CUT)).collect();
    for entry in &cuts[..cuts.len().saturating_sub(CUT_FILES)] {
        disk.remove_file(&format!("{dir}/{}", entry.name))?;
    }
    Ok(())
}

fn remove_index(disk: &dyn Disk, dir: &str, name: SegmentName) -> io::Result<()> {
    match disk.remove_file(&path(dir, name, INDEX)) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        Ok(()) | Err(_) => Ok(()),
    }
}
