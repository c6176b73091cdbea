//! The file under the journal: creation, reading back, appending, compaction.

use std::io;
use std::sync::Arc;

use super::disk::{Disk, DiskFile, Open};
use super::journal_frame::{ALIGN, Change, FORMAT_VERSION, Found, Record, encode_frame, later_frame, read_frame};
use super::journal_state::Groups;

/// The journal's file name.
pub const JOURNAL: &str = "raft.journal";
const NEW_JOURNAL: &str = "raft.journal.new";

/// Space that is always allocated ahead.
const RESERVE_BYTES: u64 = 1 << 20;
/// By how much the allocation grows.
const STEP_BYTES: u64 = 4 << 20;
/// What descriptors leave of the reserve to votes.
const VOTES_BYTES: u64 = 256 << 10;
/// Dead bytes that are not worth a compaction.
const DEAD_BYTES: u64 = 4 << 20;
/// A frame that a compaction writes is closed at this size.
const COMPACT_FRAME_BYTES: usize = 1 << 20;

/// Why a journal does not open.
#[derive(Debug, thiserror::Error)]
pub enum JournalError {
    /// There is none, though the data directory has other content.
    #[error("{JOURNAL} is missing; `ottla repair` says what can be done")]
    Missing,
    /// There is one already.
    #[error("{JOURNAL} exists already")]
    Exists,
    /// Something in the middle of it is not what was written.
    #[error("{JOURNAL} is damaged at byte {position}, with valid data behind it; `ottla repair` says what can be done")]
    Damaged {
        /// Where the first bad frame begins.
        position: u64,
    },
    /// Another version of Ottla wrote it.
    #[error("{JOURNAL} has format version {found}, this Ottla reads version {FORMAT_VERSION}")]
    Version {
        /// The version it has.
        found: u32,
    },
    /// The disk failed.
    #[error("{JOURNAL}: {0}")]
    Io(#[from] io::Error),
}

#[derive(Debug)]
pub(super) struct JournalFile {
    file: Arc<dyn DiskFile>,
    end: u64,
    allocated: u64,
    /// The number of the next frame.
    seq: u64,
    /// At this length it is worth asking how much of it is dead.
    check_at: u64,
}

impl JournalFile {
    pub(super) fn create(disk: &dyn Disk) -> Result<Self, JournalError> {
        if disk.list("")?.iter().any(|entry| entry.name == JOURNAL) {
            return Err(JournalError::Exists);
        }
        Ok(Self::write_new(disk, 0, &[])?)
    }

    pub(super) fn open(disk: &dyn Disk) -> Result<(Self, Groups), JournalError> {
        let file = disk.open(JOURNAL, Open::Existing).map_err(|error| match error.kind() {
            io::ErrorKind::NotFound => JournalError::Missing,
            _ => error.into(),
        })?;
        remove_if_there(disk, NEW_JOURNAL)?;
        // Of the last process's writes memory may hold more than the device does: sync first, so that what is read below is durable;
        // and a sync that failed unseen leaves memory and device different, so ask the device.
        file.sync()?;
        file.evict()?;
        let (groups, end, seq) = read(file.as_ref())?;
        let len = file.len()?;
        if len > end {
            file.set_len(end)?;
        }
        file.sync()?;
        // The name: a crash may have come between a compaction's rename and its sync.
        disk.sync_dir("")?;
        let mut journal = Self { file, end, allocated: end, seq: seq + 1, check_at: DEAD_BYTES };
        match journal.extend(0) {
            Err(error) if error.kind() != io::ErrorKind::StorageFull => Err(error.into()),
            // Retried with each frame.
            Ok(()) | Err(_) => Ok((journal, groups)),
        }
    }

    /// Reads what a journal holds, and changes nothing.
    pub(super) fn look(disk: &dyn Disk) -> Result<Groups, JournalError> {
        let file = disk.open(JOURNAL, Open::ReadOnly).map_err(|error| match error.kind() {
            io::ErrorKind::NotFound => JournalError::Missing,
            _ => error.into(),
        })?;
        file.evict()?;
        read(file.as_ref()).map(|(groups, ..)| groups)
    }

    /// Writes a journal of just these records beside the old one, if any, and puts it in its place.
    fn write_new(disk: &dyn Disk, seq: u64, live: &[Record]) -> io::Result<Self> {
        remove_if_there(disk, NEW_JOURNAL)?;
        let file = disk.open(NEW_JOURNAL, Open::New)?;
        let mut new = Self { file, end: 0, allocated: 0, seq, check_at: 0 };
        let mut payload = Vec::new();
        Record::Format(FORMAT_VERSION).encode(&mut payload);
        for record in live {
            record.encode(&mut payload);
            if payload.len() >= COMPACT_FRAME_BYTES {
                new.write_frame(&std::mem::take(&mut payload))?;
            }
        }
        if !payload.is_empty() {
            new.write_frame(&payload)?;
        }
        new.extend(0)?;
        new.file.sync().map_err(fatal)?;
        disk.rename(NEW_JOURNAL, JOURNAL).map_err(fatal)?;
        disk.sync_dir("").map_err(fatal)?;
        new.check_at = new.end + DEAD_BYTES.max(2 * new.end);
        Ok(new)
    }

    /// Whether the records fit without touching what is kept for votes; allocates ahead.
    pub(super) fn has_room_for(&mut self, records: &[&Record]) -> io::Result<bool> {
        let bytes = encoded_bytes(records);
        match self.extend(bytes) {
            Ok(()) => Ok(true),
            Err(error) if error.kind() == io::ErrorKind::StorageFull => {
                let small = !records.iter().any(|it| matches!(it, Record::Group(_, Change::Descriptor(_))));
                Ok(self.end + bytes + if small { 0 } else { VOTES_BYTES } <= self.allocated)
            }
            Err(error) => Err(error),
        }
    }

    /// Whether the records fit into what is allocated.
    pub(super) fn has_room_for_urgent(&self, records: &[&Record]) -> bool {
        self.end + encoded_bytes(records) <= self.allocated
    }

    /// Appends a frame and syncs it.
    pub(super) fn append(&mut self, records: &[&Record]) -> io::Result<()> {
        if records.is_empty() {
            return Ok(());
        }
        let mut payload = Vec::new();
        records.iter().for_each(|record| record.encode(&mut payload));
        self.write_frame(&payload)?;
        self.file.sync().map_err(fatal)
    }

    pub(super) fn wants_compaction(&mut self, groups: &Groups) -> bool {
        if self.end < self.check_at {
            return false;
        }
        let mut payload = Vec::new();
        let mut live = 0;
        for record in groups.records() {
            record.encode(&mut payload);
            live += u64::try_from(payload.len()).expect("a length");
            payload.clear();
        }
        let wanted = self.end.saturating_sub(live) > DEAD_BYTES.max(2 * live);
        self.check_at = self.end + DEAD_BYTES;
        wanted
    }

    /// Replaces the file by one with just these records. A disk too full for it leaves everything as it was.
    pub(super) fn compact(&mut self, disk: &dyn Disk, live: &[Record]) -> io::Result<()> {
        match Self::write_new(disk, self.seq, live) {
            Ok(new) => *self = new,
            Err(error) if error.kind() == io::ErrorKind::StorageFull => remove_if_there(disk, NEW_JOURNAL)?,
            Err(error) => return Err(error),
        }
        Ok(())
    }

    fn write_frame(&mut self, payload: &[u8]) -> io::Result<()> {
        let frame = encode_frame(self.seq, payload);
        let len = u64::try_from(frame.len()).expect("a length");
        if self.allocated < self.end + len {
            self.extend(len)?;
        }
        self.file.write_at(self.end, &[io::IoSlice::new(&frame)]).map_err(fatal)?;
        self.end += len;
        self.seq += 1;
        Ok(())
    }

    /// Makes sure that there is space for `bytes` and the reserve behind them.
    fn extend(&mut self, bytes: u64) -> io::Result<()> {
        let needed = self.end + bytes + RESERVE_BYTES;
        if needed <= self.allocated {
            return Ok(());
        }
        let wanted = needed.next_multiple_of(STEP_BYTES);
        let to = match self.file.allocate(self.allocated, wanted - self.allocated) {
            Err(error) if error.kind() == io::ErrorKind::StorageFull => {
                self.file.allocate(self.allocated, needed - self.allocated)?;
                needed
            }
            other => other.map(|()| wanted)?,
        };
        self.allocated = to;
        Ok(())
    }
}

/// Folds all frames; also where the last one ends, and its number. A torn last frame is left out.
fn read(file: &dyn DiskFile) -> Result<(Groups, u64, u64), JournalError> {
    let len = file.len()?;
    let (mut groups, mut end, mut seq) = (Groups::default(), 0, None);
    while let Found::Frame { seq: found, payload, next } = read_frame(file, end, len)? {
        if seq.is_some_and(|last: u64| found != last + 1) {
            return Err(JournalError::Damaged { position: end });
        }
        let records = Record::decode_all(payload).map_err(|_| JournalError::Damaged { position: end })?;
        match (seq, records.first()) {
            (Some(_), _) | (None, Some(Record::Format(FORMAT_VERSION))) => {}
            (None, Some(Record::Format(found))) => return Err(JournalError::Version { found: *found }),
            (None, _) => return Err(JournalError::Damaged { position: end }),
        }
        records.into_iter().for_each(|record| groups.apply(record));
        (end, seq) = (next, Some(found));
    }
    // The first frame is durable before the file has this name.
    let Some(seq) = seq else { return Err(JournalError::Damaged { position: 0 }) };
    if later_frame(file, end + ALIGN, len, seq)? {
        return Err(JournalError::Damaged { position: end });
    }
    Ok((groups, end, seq))
}

/// An upper bound of a frame's size.
fn encoded_bytes(records: &[&Record]) -> u64 {
    let mut payload = Vec::new();
    records.iter().for_each(|record| record.encode(&mut payload));
    u64::try_from(payload.len()).expect("a length") + 2 * ALIGN
}

/// After these nobody knows what the device holds: even "disk full" is then not an error to go on from.
fn fatal(error: io::Error) -> io::Error {
    io::Error::other(format!("{JOURNAL}: {error}"))
}

fn remove_if_there(disk: &dyn Disk, path: &str) -> io::Result<()> {
    match disk.remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        Ok(()) | Err(_) => Ok(()),
    }
}
