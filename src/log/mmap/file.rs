//! One file of a [`MmapDisk`](super::MmapDisk): its descriptor and its map, both opened when needed and closed when too many.

use std::collections::VecDeque;
use std::fs::{File, OpenOptions};
use std::io::{self, ErrorKind, IoSlice};
use std::num::NonZeroU64;
use std::os::unix::fs::{FileExt, MetadataExt, OpenOptionsExt};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, Weak};

use bytes::Bytes;
use rustix::fs::{Advice, FallocateFlags, OFlags};
use rustix::io::Errno;

use super::{Map, Shared, explain, lock, map_len};
use crate::log::disk::DiskFile;
use crate::log::disk_args::{end_of, wide};

/// The kernel's limit of buffers in one call.
const BUFFERS_AT_ONCE: usize = 1024;
/// What reads past the page cache are aligned to: at least any device's block.
const DIRECT_ALIGN: usize = 4096;
/// How many candidates one admission to a [`Cache`] looks at, so that thousands of files that must stay open do not slow it down.
const LOOKS_AT_ONCE: usize = 64;

/// One file, shared by all its handles.
#[derive(Debug)]
pub(super) struct Entry {
    shared: Arc<Shared>,
    /// Device and inode: a file opened again by name must be this one.
    identity: (u64, u64),
    place: Mutex<Place>,
    open: Mutex<OpenState>,
    file_used: AtomicBool,
    map_used: AtomicBool,
    /// Counts changes, when they begin and when they end; the descriptor stays open while this is not `synced`.
    written: AtomicU64,
    synced: AtomicU64,
}

#[derive(Debug)]
struct Place {
    path: String,
    removed: bool,
}

/// Never locked while waiting for a path's lock or a system call that may block, so that views are quick.
#[derive(Debug)]
struct OpenState {
    file: Option<Descriptor>,
    map: Option<Map>,
}

#[derive(Clone, Debug)]
struct Descriptor {
    file: Arc<File>,
    writable: bool,
}

/// Entries that hold a descriptor (or a map), oldest first; each gets a second chance if it was used since it was last looked at.
#[derive(Debug)]
pub(super) struct Cache {
    limit: usize,
    queue: Mutex<VecDeque<Weak<Entry>>>,
}

impl Cache {
    pub(super) fn new(limit: usize) -> Self {
        Self { limit, queue: Mutex::default() }
    }

    /// Adds an entry, and lets others go while there are too many. `close` answers whether the entry had nothing that must stay.
    pub(super) fn admit(&self, entry: &Arc<Entry>, close: fn(&Entry) -> bool) {
        let mut queue = lock(&self.queue);
        queue.push_back(Arc::downgrade(entry));
        for _ in 0..LOOKS_AT_ONCE {
            if queue.len() <= self.limit {
                return;
            }
            let Some(oldest) = queue.pop_front() else { return };
            if oldest.upgrade().is_some_and(|entry| !close(&entry)) {
                queue.push_back(oldest);
            }
        }
    }
}

impl Entry {
    pub(super) fn new(shared: Arc<Shared>, path: &str, file: File, writable: bool) -> io::Result<Arc<Self>> {
        let stat = file.metadata()?;
        if !stat.is_file() {
            return Err(ErrorKind::IsADirectory.into());
        }
        let file = Some(Descriptor { file: Arc::new(file), writable });
        Ok(Arc::new(Self {
            shared,
            identity: (stat.dev(), stat.ino()),
            place: Mutex::new(Place { path: path.to_owned(), removed: false }),
            open: Mutex::new(OpenState { file, map: None }),
            file_used: AtomicBool::new(true),
            map_used: AtomicBool::new(false),
            written: AtomicU64::new(0),
            synced: AtomicU64::new(0),
        }))
    }

    pub(super) fn set_removed(&self, removed: bool) {
        lock(&self.place).removed = removed;
    }

    pub(super) fn move_to(&self, path: &str) {
        path.clone_into(&mut lock(&self.place).path);
    }

    /// Closes the descriptor unless something is unsynced or it was used lately.
    pub(super) fn close_idle_file(&self) -> bool {
        let mut open = lock(&self.open);
        let unsynced = self.written.load(Ordering::Acquire) != self.synced.load(Ordering::Acquire);
        if unsynced || self.file_used.swap(false, Ordering::Relaxed) {
            return false;
        }
        open.file = None;
        true
    }

    /// Drops the map unless it was used lately. Views keep it alive.
    fn close_idle_map(&self) -> bool {
        let mut open = lock(&self.open);
        if self.map_used.swap(false, Ordering::Relaxed) {
            return false;
        }
        open.map = None;
        true
    }

    /// The descriptor for reading and syncing.
    fn reader(self: &Arc<Self>) -> io::Result<Arc<File>> {
        self.descriptor(false)
    }

    /// Runs a change of the file, which is unsynced from before it begins until a sync that begins after it has ended.
    fn change<T>(self: &Arc<Self>, act: impl FnOnce(&File) -> io::Result<T>) -> io::Result<T> {
        let file = self.descriptor(true)?;
        let result = act(&file);
        self.written.fetch_add(1, Ordering::AcqRel);
        result
    }

    fn descriptor(self: &Arc<Self>, to_change: bool) -> io::Result<Arc<File>> {
        if let Some(file) = self.current(&mut lock(&self.open), to_change) {
            return Ok(file);
        }
        let fresh = Descriptor { file: Arc::new(self.open_again(to_change)?), writable: to_change };
        let mut open = lock(&self.open);
        if let Some(file) = self.current(&mut open, to_change) {
            return Ok(file);
        }
        let is_new = open.file.replace(fresh).is_none();
        let file = self.current(&mut open, to_change).expect("it was just opened for this");
        drop(open);
        if is_new {
            self.shared.files.admit(self, Self::close_idle_file);
        }
        Ok(file)
    }

    /// The open descriptor, if it will do. A change is counted under the lock, so that the descriptor stays from here on.
    fn current(&self, open: &mut OpenState, to_change: bool) -> Option<Arc<File>> {
        let descriptor = open.file.as_ref().filter(|descriptor| descriptor.writable || !to_change)?;
        self.file_used.store(true, Ordering::Relaxed);
        if to_change {
            self.written.fetch_add(1, Ordering::AcqRel);
        }
        Some(Arc::clone(&descriptor.file))
    }

    fn open_again(&self, writable: bool) -> io::Result<File> {
        let _names = lock(&self.shared.names);
        let place = lock(&self.place);
        if place.removed {
            return Err(ErrorKind::NotFound.into());
        }
        let file = OpenOptions::new().read(true).write(writable).open(self.shared.path(&place.path))?;
        let stat = file.metadata()?;
        if (stat.dev(), stat.ino()) == self.identity { Ok(file) } else { Err(ErrorKind::NotFound.into()) }
    }

    /// Reads past the page cache.
    fn read_direct(&self, pos: u64, buf: &mut [u8]) -> io::Result<usize> {
        let file = {
            let _names = lock(&self.shared.names);
            let place = lock(&self.place);
            if place.removed {
                return Err(ErrorKind::NotFound.into());
            }
            let direct = i32::try_from(OFlags::DIRECT.bits()).expect("a flag of the system's");
            OpenOptions::new().read(true).custom_flags(direct).open(self.shared.path(&place.path))?
        };
        let stat = file.metadata()?;
        if (stat.dev(), stat.ino()) != self.identity {
            return Err(ErrorKind::NotFound.into());
        }
        // Place, length and memory all have to be multiples of the device's blocks.
        let skip = usize::try_from(pos % wide(DIRECT_ALIGN)).expect("less than a block");
        let wanted = (skip + buf.len()).next_multiple_of(DIRECT_ALIGN);
        let mut memory = vec![0; wanted + DIRECT_ALIGN];
        let aligned = memory.as_ptr().align_offset(DIRECT_ALIGN);
        let memory = &mut memory[aligned..][..wanted];
        let (from, mut read) = (pos - wide(skip), 0);
        while read < wanted {
            match file.read_at(&mut memory[read..], from + wide(read)) {
                Ok(0) => break,
                Ok(n) => read += n,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
            if !read.is_multiple_of(DIRECT_ALIGN) {
                // The file's end.
                break;
            }
        }
        let there = read.saturating_sub(skip).min(buf.len());
        buf[..there].copy_from_slice(&memory[skip..][..there]);
        Ok(there)
    }

    /// A map that holds everything below `end`.
    fn map(self: &Arc<Self>, end: usize) -> io::Result<Map> {
        if let Some(map) = self.current_map(&lock(&self.open), end) {
            return Ok(map.clone());
        }
        let file = self.reader()?;
        let map = Map::new(&file, map_len(end, file.metadata()?.len(), self.shared.map_step_bytes)?)?;
        let mut open = lock(&self.open);
        if let Some(other) = self.current_map(&open, end) {
            return Ok(other.clone());
        }
        self.map_used.store(true, Ordering::Relaxed);
        let is_new = open.map.replace(map.clone()).is_none();
        drop(open);
        if is_new {
            self.shared.maps.admit(self, Self::close_idle_map);
        }
        Ok(map)
    }

    fn current_map<'a>(&self, open: &'a OpenState, end: usize) -> Option<&'a Map> {
        let map = open.map.as_ref().filter(|map| map.len() >= end)?;
        self.map_used.store(true, Ordering::Relaxed);
        Some(map)
    }
}

/// An open file of a [`MmapDisk`](super::MmapDisk).
#[derive(Debug)]
pub(super) struct MmapFile {
    entry: Arc<Entry>,
    writable: bool,
}

impl MmapFile {
    pub(super) fn new(entry: Arc<Entry>, writable: bool) -> Self {
        Self { entry, writable }
    }

    fn change<T>(&self, act: impl FnOnce(&File) -> io::Result<T>) -> io::Result<T> {
        if self.writable { self.entry.change(act) } else { Err(ErrorKind::PermissionDenied.into()) }
    }
}

/// The range as positions within a map.
fn in_memory(pos: u64, len: u64) -> io::Result<(usize, usize)> {
    let end = end_of(pos, len)?;
    match (usize::try_from(pos), usize::try_from(end)) {
        (Ok(start), Ok(end)) => Ok((start, end)),
        _ => Err(ErrorKind::InvalidInput.into()),
    }
}

/// Writes all of `bufs`, however many there are and however little the kernel takes at once.
fn write_all(file: &File, mut pos: u64, bufs: &[IoSlice<'_>]) -> io::Result<()> {
    let (mut rest, mut skip) = (bufs, 0);
    while let Some(first) = rest.first() {
        if skip == first.len() {
            (rest, skip) = (&rest[1..], 0);
            continue;
        }
        let written = if skip == 0 {
            rustix::io::pwritev(file, &rest[..rest.len().min(BUFFERS_AT_ONCE)], pos)
        } else {
            rustix::io::pwrite(file, &first[skip..], pos)
        };
        let mut written = match written {
            Ok(0) => return Err(ErrorKind::WriteZero.into()),
            Ok(written) => written,
            Err(Errno::INTR) => continue,
            Err(error) => return Err(explain(error)),
        };
        pos += wide(written);
        while written > 0 {
            let here = written.min(rest[0].len() - skip);
            written -= here;
            skip += here;
            if skip == rest[0].len() {
                (rest, skip) = (&rest[1..], 0);
            }
        }
    }
    Ok(())
}

impl DiskFile for MmapFile {
    fn len(&self) -> io::Result<u64> {
        Ok(self.entry.reader()?.metadata()?.len())
    }

    fn write_at(&self, pos: u64, bufs: &[IoSlice<'_>]) -> io::Result<()> {
        end_of(pos, bufs.iter().map(|buf| wide(buf.len())).sum())?;
        self.change(|file| write_all(file, pos, bufs))
    }

    fn read_at(&self, pos: u64, buf: &mut [u8]) -> io::Result<usize> {
        if end_of(pos, wide(buf.len())).is_err() {
            return Ok(0);
        }
        let file = self.entry.reader()?;
        let mut read = 0;
        while read < buf.len() {
            match file.read_at(&mut buf[read..], pos + wide(read)) {
                Ok(0) => break,
                Ok(n) => read += n,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(read)
    }

    fn read_device(&self, pos: u64, buf: &mut [u8]) -> io::Result<usize> {
        match self.entry.read_direct(pos, buf) {
            // A filesystem that cannot do it: what memory holds, and not for longer than it did.
            Err(error) if matches!(error.kind(), ErrorKind::InvalidInput | ErrorKind::Unsupported) => {
                let read = self.read_at(pos, buf)?;
                let file = self.entry.reader()?;
                rustix::fs::fadvise(&*file, pos, NonZeroU64::new(wide(read)), Advice::DontNeed)?;
                Ok(read)
            }
            other => other,
        }
    }

    fn allocate(&self, pos: u64, len: u64) -> io::Result<()> {
        end_of(pos, len)?;
        if len == 0 {
            return Ok(());
        }
        self.change(|file| rustix::fs::fallocate(file, FallocateFlags::KEEP_SIZE, pos, len).map_err(explain))
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        end_of(0, len)?;
        self.change(|file| file.set_len(len).map_err(explain))
    }

    fn view(&self, pos: u64, len: usize) -> io::Result<Bytes> {
        let (start, end) = in_memory(pos, wide(len))?;
        if len == 0 {
            return Ok(Bytes::new());
        }
        if let Some(map) = self.entry.current_map(&lock(&self.entry.open), end) {
            return Ok(map.slice(start, end));
        }
        Ok(self.entry.map(end)?.slice(start, end))
    }

    fn resident(&self, pos: u64, len: u64) -> io::Result<bool> {
        let (start, end) = in_memory(pos, len)?;
        if len == 0 { Ok(true) } else { self.entry.map(end)?.resident(start, end) }
    }

    fn evict(&self) -> io::Result<()> {
        let map = lock(&self.entry.open).map.clone();
        if let Some(map) = map {
            map.release_pages()?;
        }
        let file = self.entry.reader()?;
        Ok(rustix::fs::fadvise(&*file, 0, None, Advice::DontNeed)?)
    }

    fn sync(&self) -> io::Result<()> {
        // Before the sync begins: what is written while it runs may not be part of it.
        let written = self.entry.written.load(Ordering::Acquire);
        let file = self.entry.reader()?;
        self.entry.shared.sync(|| file.sync_data())?;
        self.entry.synced.fetch_max(written, Ordering::AcqRel);
        Ok(())
    }
}
