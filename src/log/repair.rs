//! Repair, for when no broker runs: finding what of a log cannot be read any more, and taking it out so that the rest is usable.
//!
//! [`examine`] reads every byte and changes nothing. [`Examined::apply`] puts *lost* entries in the place of each [`Hole`]: as many
//! entries as were there, for as many offsets, in as many bytes. So all others keep their index, offset and position, what names them
//! stays true, and no lost record's offset is ever given to another one. Readers pass over lost entries.
//!
//! # Invariants
//! - What is overwritten was copied to a file beside, and that copy is durable, before.
//! - A crash at any point leaves what the next repair repairs.

use std::io::{self, IoSlice};

use bytes::Bytes;

use super::descriptor::{Descriptor, Mark};
use super::disk::{Disk, DiskFile, Open};
use super::entry::{Lost, Point, RaftEntryKind, kind_of, term_of};
use super::epochs::EpochTable;
use super::error::LogError;
use super::journal::GroupState;
use super::name::{DAMAGED, INDEX, LOG, directory};
use super::recovery_files::Files;
use super::recovery_scan::{Outcome, Scan, Start};
use super::repair_holes::{Hole, Search};
use super::segment::path;
use super::walk::Walker;
use crate::ids::{LogId, PartitionId, RaftIndex};
use crate::protocol::batch::HEADER_BYTES;

/// Bytes that are copied or written at a time.
const STEP_BYTES: usize = 1 << 20;

/// What a log was found to be.
pub struct Examined {
    dir: String,
    files: Files,
    outcome: Outcome,
    /// Where a restart goes on reading; what lies behind it is not folded into any durable state.
    checkpoint: Option<LogId>,
    /// What cannot be read, in the order of the log.
    pub holes: Vec<Hole>,
}

/// Reads a partition's log from its first byte to its end. `group` is what the journal has of it. Changes nothing. Blocks.
///
/// # Errors
/// Of the disk.
pub fn examine(disk: &dyn Disk, group: &GroupState, id: PartitionId) -> Result<Examined, LogError> {
    let dir = directory(id);
    let files = Files::look(disk, &dir, group.cut())?;
    for file in &files.live {
        file.file.evict()?;
    }
    // All points that the journal knows: none of them may come to lie inside a hole.
    let marks = group.descriptors.iter().filter_map(Descriptor::mark).chain(group.mark);
    let marks: Vec<Mark> = marks.filter(|mark| files.vouched(mark) == Some(mark.id.index)).collect();
    let at = files.live.first().map(|file| Point::start_of(file.name)).unwrap_or_default();
    let last = group.cut().filter(|cut| cut.index.next() == at.index);
    let scan = Scan {
        files: &files,
        durable: files.durable(group),
        marks: marks.clone(),
        terms: terms(group),
        epochs: EpochTable::default(),
        last: None,
    };
    let outcome = scan.run(Start { file: 0, at, last, epochs: EpochTable::default() })?;
    let search = Search { dir: &dir, files: &files, outcome: &outcome, marks: &marks, group };
    let holes = search.holes();
    let checkpoint = group.checkpoint().map(|checkpoint| checkpoint.id);
    Ok(Examined { dir, files, outcome, checkpoint, holes })
}

/// The terms that the newest checkpoint knows, and up to which entry.
pub(super) fn terms(group: &GroupState) -> Option<(EpochTable, RaftIndex)> {
    let checkpoint = group.checkpoint()?;
    Some((EpochTable::new(checkpoint.epochs.clone())?, checkpoint.id.index))
}

impl Examined {
    /// Bytes that were read.
    #[must_use]
    pub fn read_bytes(&self) -> u64 {
        self.outcome.read_bytes
    }

    /// The last entry that was found.
    #[must_use]
    pub fn last(&self) -> Option<LogId> {
        self.outcome.last
    }

    /// The first hole that takes something from the state that a restart folds: it lies behind the last checkpoint.
    #[must_use]
    pub fn behind_checkpoint(&self) -> Option<&Hole> {
        let checkpoint = self.checkpoint.map(|id| id.index);
        self.holes.iter().find(|hole| checkpoint.is_none_or(|checkpoint| hole.damage.indexes.end.0 > checkpoint.0 + 1))
    }

    /// Whether what is left says who the group's voters are: a descriptor, or an entry that can be read.
    ///
    /// # Errors
    /// Of the disk.
    pub fn has_membership(&self) -> Result<bool, LogError> {
        let mut found = self.checkpoint.is_some();
        self.raft_entries(RaftIndex(0), |_, kind, _| found |= kind == RaftEntryKind::Membership)?;
        Ok(found)
    }

    /// Shows the entries of Raft's own from an index on that can be read.
    ///
    /// # Errors
    /// Of the disk.
    pub fn raft_entries(
        &self,
        from: RaftIndex,
        mut each: impl FnMut(LogId, RaftEntryKind, Bytes),
    ) -> Result<(), LogError> {
        for (file, scanned) in self.files.live.iter().zip(&self.outcome.files) {
            let mut walker = Walker::entries(file.file.as_ref(), scanned.end.pos);
            let mut at = scanned.from;
            while at.pos < scanned.end.pos {
                if let Some(bad) = scanned.bad.iter().find(|bad| bad.from.pos == at.pos) {
                    at = bad.to;
                    continue;
                }
                let Ok((header, next)) = walker.header(at)? else { break };
                if let Some(kind) = kind_of(&header).filter(|_| at.index >= from) {
                    let bytes = Bytes::copy_from_slice(walker.bytes(at.pos, header.size_bytes())?);
                    let id = LogId { term: term_of(&header), index: at.index };
                    each(id, kind, bytes.slice(HEADER_BYTES..));
                }
                at = next;
            }
        }
        Ok(())
    }

    /// Takes the holes out, oldest first. Answers for each where the bytes are that stood there, if any did. Blocks.
    ///
    /// # Errors
    /// Of the disk; [`LogError::Full`] if there is no space for the copies.
    pub fn apply(&self, disk: &dyn Disk) -> Result<Vec<Option<String>>, LogError> {
        let mut kept = Vec::with_capacity(self.holes.len());
        for hole in &self.holes {
            kept.push(self.fill(disk, hole)?);
        }
        Ok(kept)
    }

    fn fill(&self, disk: &dyn Disk, hole: &Hole) -> Result<Option<String>, LogError> {
        let name = hole.damage.segment;
        let log = path(&self.dir, name, LOG);
        let file = match disk.open(&log, Open::Existing) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => disk.open(&log, Open::New)?,
            other => other?,
        };
        let position = hole.damage.position.clone();
        let stands = position.start < position.end.min(file.len()?);
        let kept_as = if stands { Some(self.keep(disk, file.as_ref(), hole)?) } else { None };
        remove_if_there(disk, &path(&self.dir, name, INDEX))?;
        let mut pos = position.start;
        for lost in hole.entries()? {
            pos = write(file.as_ref(), pos, &lost)?;
        }
        if hole.ends_file {
            file.set_len(pos)?;
        }
        file.sync()?;
        disk.sync_dir(&self.dir)?;
        Ok(kept_as)
    }

    /// Copies what stands in a hole to a file beside; durable on return.
    fn keep(&self, disk: &dyn Disk, file: &dyn DiskFile, hole: &Hole) -> io::Result<String> {
        let stem = format!("{}/{}-{:020}", self.dir, hole.damage.segment, hole.damage.position.start);
        let mut to = format!("{stem}{DAMAGED}");
        let mut number = 1;
        let copy = loop {
            match disk.open(&to, Open::New) {
                // An earlier repair's, which may have been interrupted: what it kept stays.
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
                    number += 1;
                    to = format!("{stem}-{number}{DAMAGED}");
                }
                other => break other?,
            }
        };
        let (mut at, mut buf) = (hole.damage.position.start, vec![0; STEP_BYTES]);
        while at < hole.damage.position.end {
            let want = usize::try_from(hole.damage.position.end - at).unwrap_or(STEP_BYTES).min(STEP_BYTES);
            let read = file.read_at(at, &mut buf[..want])?;
            if read == 0 {
                break;
            }
            copy.write_at(at - hole.damage.position.start, &[IoSlice::new(&buf[..read])])?;
            at += u64::try_from(read).expect("a length");
        }
        copy.sync()?;
        disk.sync_dir(&self.dir)?;
        Ok(to)
    }
}

/// Writes a lost entry; answers where it ends.
fn write(file: &dyn DiskFile, pos: u64, lost: &Lost) -> io::Result<u64> {
    file.write_at(pos, &[IoSlice::new(&lost.header)])?;
    let mut at = pos + u64::try_from(lost.header.len()).expect("a length");
    let end = at + lost.body_bytes;
    let zeros = vec![0; STEP_BYTES];
    while at < end {
        let step = usize::try_from(end - at).unwrap_or(STEP_BYTES).min(STEP_BYTES);
        file.write_at(at, &[IoSlice::new(&zeros[..step])])?;
        at += u64::try_from(step).expect("a length");
    }
    Ok(end)
}

fn remove_if_there(disk: &dyn Disk, path: &str) -> io::Result<()> {
    match disk.remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        Ok(()) | Err(_) => Ok(()),
    }
}
