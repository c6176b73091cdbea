//! The real [`Disk`]: a directory of files, written with `pwritev` and read through read-only maps. Linux only.
//!
//! This file holds the only `unsafe` of the crate, its children the only threads of the pure modules.
//!
//! # Invariants
//! - Nothing is ever stored through a map: a full disk or a bad sector is an error of a call, not a signal.
//! - A file with unsynced writes keeps its descriptor, so that an error of the kernel's writeback has someone to be told to. Descriptors
//!   of other files and maps are caches with a limit: the one longest unused goes first.
//! - One file has one `Entry`, however many handles; it follows renames. A closed descriptor is opened again by name, and the
//!   file found there must be the same inode.
//! - After a failed sync every later sync of this disk fails too: the kernel would say `Ok` although the bytes are gone.

#![allow(unsafe_code)]

mod file;
mod lanes;
#[cfg(test)]
mod tests;

use std::any::Any;
use std::collections::BTreeMap;
use std::ffi::{c_int, c_void};
use std::fs::{self, File, OpenOptions};
use std::io::{self, ErrorKind};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use bytes::Bytes;
use rustix::fs::FlockOperation;
use rustix::process::Resource;

use self::file::{Cache, Entry, MmapFile};
use self::lanes::Lanes;
use super::disk::{DirEntry, Disk, DiskFile, Job, Lane, Open, Space};
use super::disk_args::{check_dir, check_file, wide};

/// The limits of a [`MmapDisk`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MmapOptions {
    /// Threads that sync; at least one.
    pub flush_threads: usize,
    /// Threads that read cold data; at least one.
    pub read_threads: usize,
    /// Threads for what nobody waits for; at least one.
    pub background_threads: usize,
    /// Descriptors kept open, beside those of files with unsynced writes.
    pub open_files: usize,
    /// Maps kept for later views. Those that views still use come on top; the kernel's own limit is 65,530 (`vm.max_map_count`).
    pub maps: usize,
    /// A map's length is a multiple of this, so that a growing file needs a new one only that often.
    pub map_step_bytes: usize,
}

impl Default for MmapOptions {
    fn default() -> Self {
        let descriptors = rustix::process::getrlimit(Resource::Nofile).current.unwrap_or(1 << 20);
        Self {
            flush_threads: 16,
            read_threads: 4,
            background_threads: 1,
            open_files: usize::try_from(descriptors / 4).unwrap_or(1 << 18).max(16),
            maps: 16_000,
            map_step_bytes: 64 << 20,
        }
    }
}

/// A data directory on the operating system's filesystem. Dropping it waits for the jobs it was given.
#[derive(Debug)]
pub struct MmapDisk {
    shared: Arc<Shared>,
    lanes: Lanes,
}

/// What the disk and its open files have in common.
#[derive(Debug)]
struct Shared {
    root: PathBuf,
    map_step_bytes: usize,
    names: Mutex<Names>,
    files: Cache,
    maps: Cache,
    sync_failed: AtomicBool,
}

/// The open files by path. Lock order: this, then an entry's place. No entry's descriptor or map is locked while waiting for this.
#[derive(Debug, Default)]
struct Names {
    entries: BTreeMap<String, Weak<Entry>>,
    prune_at: usize,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl MmapDisk {
    /// Opens a data directory and starts one thread for each lane; creates the directory if it is missing, durably.
    ///
    /// # Errors
    /// If the directory can be neither found nor created, or no thread can be started.
    pub fn open(data_dir: PathBuf, options: MmapOptions) -> io::Result<Self> {
        let root = std::path::absolute(data_dir)?;
        create_durably(&root)?;
        let shared = Shared {
            root: root.canonicalize()?,
            map_step_bytes: options.map_step_bytes.max(1).next_multiple_of(rustix::param::page_size()),
            names: Mutex::default(),
            files: Cache::new(options.open_files),
            maps: Cache::new(options.maps),
            sync_failed: AtomicBool::new(false),
        };
        Ok(Self { shared: Arc::new(shared), lanes: Lanes::start(&options)? })
    }
}

/// Creates a directory with its parents and syncs the parent of each one created.
fn create_durably(dir: &Path) -> io::Result<()> {
    let missing: Vec<&Path> = dir.ancestors().take_while(|dir| !dir.exists()).collect();
    fs::create_dir_all(dir)?;
    for parent in missing.into_iter().rev().filter_map(Path::parent) {
        File::open(parent)?.sync_all()?;
    }
    Ok(())
}

/// Makes a full quota a full disk: the caller's answer is the same.
fn explain(error: impl Into<io::Error>) -> io::Error {
    let error = error.into();
    if error.kind() == ErrorKind::QuotaExceeded { io::Error::new(ErrorKind::StorageFull, error) } else { error }
}

impl Shared {
    fn path(&self, path: &str) -> PathBuf {
        self.root.join(path)
    }

    /// Runs a sync, unless one has failed before.
    fn sync(&self, sync: impl FnOnce() -> io::Result<()>) -> io::Result<()> {
        if self.sync_failed.load(Ordering::Acquire) {
            return Err(io::Error::other("an earlier sync of this disk has failed"));
        }
        sync().inspect_err(|_| self.sync_failed.store(true, Ordering::Release))
    }
}

impl Names {
    fn get(&self, path: &str) -> Option<Arc<Entry>> {
        self.entries.get(path).and_then(Weak::upgrade)
    }

    fn insert(&mut self, path: String, entry: Weak<Entry>) {
        self.entries.insert(path, entry);
        if self.entries.len() > self.prune_at {
            self.entries.retain(|_, entry| entry.strong_count() > 0);
            self.prune_at = (self.entries.len() * 2).max(1024);
        }
    }

    /// Takes out the file with this path, or those in the directory with this path, with what follows the path in theirs.
    fn take(&mut self, path: &str) -> Vec<(String, Weak<Entry>)> {
        let inside = format!("{path}/");
        let below = self.entries.range(inside.clone()..).map(|(key, _)| key).take_while(|key| key.starts_with(&inside));
        let keys: Vec<String> = below.cloned().chain([path.to_owned()]).collect();
        let entries = keys.into_iter().filter_map(|key| self.entries.remove_entry(&key));
        entries.map(|(key, entry)| (key[path.len()..].to_owned(), entry)).collect()
    }

    /// Takes out what [`Self::take`] does, as removed: an inode's number may be used again for another file at once.
    fn forget(&mut self, path: &str) -> Vec<(String, Weak<Entry>)> {
        let taken = self.take(path);
        for entry in taken.iter().filter_map(|(_, entry)| entry.upgrade()) {
            entry.set_removed(true);
        }
        taken
    }

    /// Puts back what a removal that failed has forgotten.
    fn restore(&mut self, path: &str, taken: Vec<(String, Weak<Entry>)>) {
        for (rest, weak) in taken {
            if let Some(entry) = weak.upgrade() {
                entry.set_removed(false);
                self.insert(format!("{path}{rest}"), weak);
            }
        }
    }
}

impl Disk for MmapDisk {
    fn create_dir_all(&self, dir: &str) -> io::Result<()> {
        check_dir(dir)?;
        fs::create_dir_all(self.shared.path(dir)).map_err(explain)
    }

    fn list(&self, dir: &str) -> io::Result<Vec<DirEntry>> {
        check_dir(dir)?;
        let mut entries = Vec::new();
        for entry in fs::read_dir(self.shared.path(dir))? {
            let entry = entry?;
            if let Ok(name) = entry.file_name().into_string() {
                entries.push(DirEntry { name, is_dir: entry.file_type()?.is_dir() });
            }
        }
        entries.sort();
        Ok(entries)
    }

    fn open(&self, path: &str, how: Open) -> io::Result<Arc<dyn DiskFile>> {
        check_file(path)?;
        let writable = how != Open::ReadOnly;
        let mut names = lock(&self.shared.names);
        let known = if how == Open::New { None } else { names.get(path) };
        if let Some(entry) = known {
            return Ok(Arc::new(MmapFile::new(entry, writable)));
        }
        let mut options = OpenOptions::new();
        options.read(true).write(writable).create_new(how == Open::New);
        let file = options.open(self.shared.path(path)).map_err(explain)?;
        let entry = Entry::new(Arc::clone(&self.shared), path, file, writable)?;
        names.forget(path);
        names.insert(path.to_owned(), Arc::downgrade(&entry));
        drop(names);
        self.shared.files.admit(&entry, Entry::close_idle_file);
        Ok(Arc::new(MmapFile::new(entry, writable)))
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        check_file(from)?;
        check_file(to)?;
        let mut names = lock(&self.shared.names);
        fs::rename(self.shared.path(from), self.shared.path(to)).map_err(explain)?;
        if from != to {
            names.forget(to);
            for (rest, weak) in names.take(from) {
                if let Some(entry) = weak.upgrade() {
                    let path = format!("{to}{rest}");
                    entry.move_to(&path);
                    names.insert(path, weak);
                }
            }
        }
        Ok(())
    }

    fn remove_file(&self, path: &str) -> io::Result<()> {
        check_file(path)?;
        // Not under the lock while it removes: a large file takes long, and other files must open meanwhile.
        let taken = lock(&self.shared.names).forget(path);
        fs::remove_file(self.shared.path(path)).inspect_err(|_| lock(&self.shared.names).restore(path, taken))
    }

    fn remove_dir_all(&self, dir: &str) -> io::Result<()> {
        check_file(dir)?;
        fs::read_dir(self.shared.path(dir)).map(drop)?;
        // Not under the lock while it removes, as above. If it fails, what is left is opened anew.
        lock(&self.shared.names).forget(dir);
        fs::remove_dir_all(self.shared.path(dir))
    }

    fn sync_dir(&self, dir: &str) -> io::Result<()> {
        check_dir(dir)?;
        let handle = File::open(self.shared.path(dir))?;
        self.shared.sync(|| handle.sync_all())
    }

    fn space(&self) -> io::Result<Space> {
        let stat = rustix::fs::statvfs(&self.shared.root)?;
        let bytes = |blocks: u64| blocks.saturating_mul(stat.f_frsize);
        Ok(Space { total_bytes: bytes(stat.f_blocks), free_bytes: bytes(stat.f_bavail) })
    }

    fn lock(&self, path: &str) -> io::Result<Box<dyn Any + Send + Sync>> {
        check_file(path)?;
        let mut options = OpenOptions::new();
        let file = options.read(true).write(true).create(true).truncate(false).open(self.shared.path(path))?;
        rustix::fs::flock(&file, FlockOperation::NonBlockingLockExclusive)?;
        Ok(Box::new(file))
    }

    fn offload(&self, lane: Lane, job: Job) {
        self.lanes.push(lane, job);
    }
}

/// A read-only map of a file from its start. It may be longer than the file: the file grows into it.
#[derive(Clone, Debug)]
struct Map(Bytes);

/// How many pages [`Map::resident`] asks for at once: 1 MiB.
const PAGES_AT_ONCE: usize = 256;

unsafe extern "C" {
    /// mincore(2): sets one byte a page, its lowest bit says whether the page is in memory.
    fn mincore(addr: *mut c_void, length: usize, vec: *mut u8) -> c_int;
}

impl Map {
    fn new(file: &File, len: usize) -> io::Result<Self> {
        // SAFETY: the map is read-only and shared. Nobody outside this process writes to the data directory (it is locked), and inside,
        // `DiskFile::view` is documented to cover only bytes that have been written and do not change while the view lives, so no slice
        // that leaves this module shows bytes that change. Bytes past the file's end are mapped but never part of such a slice. The
        // pages are not dereferenced by user code, by the same documentation, so a bad page is an error of the system call that reads it.
        let map = unsafe { memmap2::MmapOptions::new().len(len).map(file) }.map_err(explain)?;
        Ok(Self(Bytes::from_owner(map)))
    }

    fn len(&self) -> usize {
        self.0.len()
    }

    fn slice(&self, start: usize, end: usize) -> Bytes {
        self.0.slice(start..end)
    }

    /// Whether all pages of `start..end`, which lie within the map, are in memory.
    fn resident(&self, start: usize, end: usize) -> io::Result<bool> {
        assert!(start <= end && end <= self.len(), "a range within the map");
        let page = rustix::param::page_size();
        let mut at = start / page * page;
        while at < end {
            let len = (end - at).min(PAGES_AT_ONCE * page);
            let mut pages = [0_u8; PAGES_AT_ONCE];
            // SAFETY: `at` is page-aligned and `at..at+len` lies within a live map (asserted above; `self` keeps it). `pages` has a byte for
            // each page of it, since `len` is at most `PAGES_AT_ONCE` pages. mincore writes to nothing else and reads no page.
            let code = unsafe { mincore(self.0.as_ptr().add(at).cast_mut().cast(), len, pages.as_mut_ptr()) };
            if code != 0 {
                return Err(io::Error::last_os_error());
            }
            if pages[..len.div_ceil(page)].iter().any(|page| page & 1 == 0) {
                return Ok(false);
            }
            at += len;
        }
        Ok(true)
    }

    /// Takes the map's pages out of this process's page table, so that the kernel may drop them from memory.
    fn release_pages(&self) -> io::Result<()> {
        // SAFETY: the range is exactly one live map (`self` keeps it) of a file, shared and read-only. For such a map the advice
        // only unlinks page-table entries; whoever reads through a view afterwards finds the same bytes of the file again.
        let advised = unsafe {
            rustix::mm::madvise(self.0.as_ptr().cast_mut().cast(), self.len(), rustix::mm::Advice::LinuxDontNeed)
        };
        advised.map_err(io::Error::from)
    }
}

/// The smallest length of a map that holds `end` and the whole file, in steps.
fn map_len(end: usize, file_bytes: u64, step: usize) -> io::Result<usize> {
    let wanted = usize::try_from(file_bytes.max(wide(end))).map_err(|_| ErrorKind::InvalidInput)?;
    wanted.checked_next_multiple_of(step).ok_or_else(|| ErrorKind::InvalidInput.into())
}
