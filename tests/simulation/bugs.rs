//! Bugs that the checker must catch: each breaks one rule of durability, in the disk below the broker that ships.

use std::any::Any;
use std::collections::BTreeSet;
use std::io;
use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;
use ottla::log::disk::{DirEntry, Disk, DiskFile, Job, Lane, Open, Space};
use ottla::log::mem_disk::MemDisk;

/// A planted bug.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Bug {
    /// Syncs make nothing durable.
    SyncIsNoop,
    /// Syncs of directories make nothing durable: a new segment's name may vanish.
    DirSyncIsNoop,
    /// Appends are acknowledged before they are synced.
    AckBeforeSync,
    /// After a roll only the newest segment is synced, not the one before it.
    OnlyNewestFileSynced,
    /// What recovery read past the last mark is not synced before it counts.
    RecoveredTailNotSynced,
}

/// A disk with a bug above it.
#[derive(Debug)]
pub struct BuggyDisk {
    inner: MemDisk,
    bug: Bug,
    appended: Appended,
}

/// The directories of logs that this life has appended to: their recovery is over.
#[derive(Clone, Debug, Default)]
struct Appended(Arc<Mutex<BTreeSet<String>>>);

impl Appended {
    fn note(&self, dir: &str) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).insert(dir.to_owned());
    }

    fn has(&self, dir: &str) -> bool {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).contains(dir)
    }
}

impl BuggyDisk {
    /// `inner` with a bug.
    pub fn new(inner: MemDisk, bug: Bug) -> Self {
        Self { inner, bug, appended: Appended::default() }
    }
}

#[derive(Debug)]
struct BuggyFile {
    inner: Arc<dyn DiskFile>,
    path: String,
    disk: MemDisk,
    bug: Bug,
    appended: Appended,
}

impl BuggyFile {
    fn is_segment(&self) -> bool {
        self.path.ends_with(".log")
    }

    fn place(&self) -> (&str, &str) {
        self.path.rsplit_once('/').unwrap_or(("", &self.path))
    }

    fn is_newest_of_its_directory(&self) -> bool {
        let (dir, name) = self.place();
        let names = self.disk.list(dir).unwrap_or_default();
        names.iter().rfind(|entry| entry.name.ends_with(".log")).is_none_or(|newest| newest.name == name)
    }

    fn skips_sync(&self) -> bool {
        match self.bug {
            Bug::OnlyNewestFileSynced => self.is_segment() && !self.is_newest_of_its_directory(),
            Bug::RecoveredTailNotSynced => self.is_segment() && !self.appended.has(self.place().0),
            Bug::SyncIsNoop | Bug::DirSyncIsNoop | Bug::AckBeforeSync => false,
        }
    }
}

impl Disk for BuggyDisk {
    fn create_dir_all(&self, dir: &str) -> io::Result<()> {
        self.inner.create_dir_all(dir)
    }
    fn list(&self, dir: &str) -> io::Result<Vec<DirEntry>> {
        self.inner.list(dir)
    }
    fn open(&self, path: &str, how: Open) -> io::Result<Arc<dyn DiskFile>> {
        let inner = self.inner.open(path, how)?;
        let (path, disk) = (path.to_owned(), self.inner.clone());
        Ok(Arc::new(BuggyFile { inner, path, disk, bug: self.bug, appended: self.appended.clone() }))
    }
    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        self.inner.rename(from, to)
    }
    fn remove_file(&self, path: &str) -> io::Result<()> {
        self.inner.remove_file(path)
    }
    fn remove_dir_all(&self, dir: &str) -> io::Result<()> {
        self.inner.remove_dir_all(dir)
    }
    fn sync_dir(&self, dir: &str) -> io::Result<()> {
        let recovers = self.bug == Bug::RecoveredTailNotSynced && !self.appended.has(dir);
        // A partition's directory, two levels below `topics`: the names of its segments are part of what was recovered.
        let is_partition = dir.starts_with("topics/") && dir.matches('/').count() == 2;
        if recovers && is_partition { Ok(()) } else { self.inner.sync_dir(dir) }
    }
    fn space(&self) -> io::Result<Space> {
        self.inner.space()
    }
    fn lock(&self, path: &str) -> io::Result<Box<dyn Any + Send + Sync>> {
        self.inner.lock(path)
    }
    fn offload(&self, lane: Lane, job: Job) {
        self.inner.offload(lane, job);
    }
}

impl DiskFile for BuggyFile {
    fn len(&self) -> io::Result<u64> {
        self.inner.len()
    }
    fn write_at(&self, pos: u64, bufs: &[io::IoSlice<'_>]) -> io::Result<()> {
        if self.is_segment() {
            self.appended.note(self.place().0);
        }
        self.inner.write_at(pos, bufs)
    }
    fn read_at(&self, pos: u64, buf: &mut [u8]) -> io::Result<usize> {
        self.inner.read_at(pos, buf)
    }
    fn read_device(&self, pos: u64, buf: &mut [u8]) -> io::Result<usize> {
        self.inner.read_device(pos, buf)
    }
    fn allocate(&self, pos: u64, len: u64) -> io::Result<()> {
        self.inner.allocate(pos, len)
    }
    fn set_len(&self, len: u64) -> io::Result<()> {
        self.inner.set_len(len)
    }
    fn view(&self, pos: u64, len: usize) -> io::Result<Bytes> {
        self.inner.view(pos, len)
    }
    fn resident(&self, pos: u64, len: u64) -> io::Result<bool> {
        self.inner.resident(pos, len)
    }
    fn evict(&self) -> io::Result<()> {
        self.inner.evict()
    }
    fn sync(&self) -> io::Result<()> {
        if self.skips_sync() { Ok(()) } else { self.inner.sync() }
    }
}
