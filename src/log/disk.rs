//! The disk seam: everything that Ottla stores goes through [`Disk`] and [`DiskFile`].
//!
//! Two implementations pass one contract suite: `MmapDisk` (the real one; the only threads and the only `unsafe`
//! of the crate) and `MemDisk` (the simulation's, with faults: power cuts that keep an arbitrary subset of unsynced
//! sectors and directory entries, failed syncs, a full disk, flipped bits).
//!
//! Paths are relative to the data directory, with `/` between parts. The functions of both traits are synchronous and
//! may block: whoever must not block (the async shell) calls them inside [`Disk::offload`]. Exceptions, cheap by contract:
//! [`DiskFile::write_at`] of a few hundred KiB into allocated space, [`DiskFile::view`] and [`DiskFile::resident`].
//!
//! # Durability
//! - Written bytes are readable at once, through any handle of the same file and through views.
//! - Written bytes and the file's length survive a power cut after [`DiskFile::sync`] returned `Ok`; a file's or directory's
//!   *name* (creation, rename, removal) only after [`Disk::sync_dir`] of its parent returned `Ok`.
//! - Bytes that were not synced may survive in any subset of 512-byte sectors, each in any of its unsynced versions; a sector is
//!   never mixed. That includes the zeros of [`DiskFile::set_len`]: a file that was cut and has grown again may show its old bytes
//!   where the new ones did not survive. Lengths may survive without the bytes (zeros) and the other way round.
//! - Names that were not synced survive in any subset, whatever their order was. A rename survives whole or not at all.
//! - A failed sync is final (measured: the kernel reports an error once, forgets it, and later syncs say `Ok` while the
//!   data is gone): the caller must not retry, must not acknowledge, and the process stops. `MmapDisk` fails every sync after the first that
//!   failed; `MemDisk` says `Ok`, as the kernel does, so that a caller that retries is found out.

use std::any::Any;
use std::fmt::Debug;
use std::io;
use std::sync::Arc;

use bytes::Bytes;

/// Work handed to a disk's own threads.
pub type Job = Box<dyn FnOnce() + Send>;

/// Which of a disk's queues a [`Job`] waits in. Jobs of one lane may run in parallel and in any order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Lane {
    /// Syncs that acknowledgements wait for.
    Flush,
    /// Reads of cold data that a client waits for.
    Read,
    /// Deletion, index building, scrubbing: nobody waits.
    Background,
}

/// How [`Disk::open`] treats a missing or an existing file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Open {
    /// The file must exist.
    Existing,
    /// The file must not exist: it is created empty. Its name is durable after [`Disk::sync_dir`] of its parent.
    New,
    /// The file must exist and is only read; every write to this handle is an error.
    ReadOnly,
}

/// One entry of a directory.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct DirEntry {
    /// The entry's name, without its directory. Names that are not UTF-8 are not listed.
    pub name: String,
    /// Whether it is a directory.
    pub is_dir: bool,
}

/// The room on the filesystem that holds the data directory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Space {
    /// The filesystem's size.
    pub total_bytes: u64,
    /// What an unprivileged process may still allocate.
    pub free_bytes: u64,
}

/// A data directory. See the module's documentation for what is durable when.
///
/// # Errors
/// Every function passes on the operating system's error. `ErrorKind::StorageFull` means what it says (also for quotas);
/// `NotFound` and `AlreadyExists` are used as for `std::fs`.
pub trait Disk: Debug + Send + Sync + 'static {
    /// Creates a directory and its missing parents; fine if it exists. Durable after `sync_dir` of each parent.
    fn create_dir_all(&self, dir: &str) -> io::Result<()>;
    /// The entries of a directory, sorted by name. `""` is the data directory itself.
    fn list(&self, dir: &str) -> io::Result<Vec<DirEntry>>;
    /// Opens a file. Handles are cheap: an implementation may close the descriptor and the map behind a handle that has no
    /// unsynced writes, and opens them again on use. A handle stays usable after [`Disk::remove_file`] as long as it has been used
    /// before the removal and something still needs it: views stay valid for ever, reads and writes may say `NotFound`.
    fn open(&self, path: &str, how: Open) -> io::Result<Arc<dyn DiskFile>>;
    /// Renames a file or directory, replacing a file at `to` (callers make sure that it is not a directory). Atomic; durable after
    /// `sync_dir` of both parents. Open handles follow.
    fn rename(&self, from: &str, to: &str) -> io::Result<()>;
    /// Removes a file's name. Views of its bytes stay valid.
    fn remove_file(&self, path: &str) -> io::Result<()>;
    /// Removes a directory and all below it, one entry after the other: an error or a crash in between leaves some of them.
    fn remove_dir_all(&self, dir: &str) -> io::Result<()>;
    /// Makes the names in a directory durable. Blocks. A failure is final, as for [`DiskFile::sync`].
    fn sync_dir(&self, dir: &str) -> io::Result<()>;
    /// The filesystem's size and free space.
    fn space(&self) -> io::Result<Space>;
    /// Takes the exclusive lock on a file (created if missing) that keeps a second process out of the data directory, until the
    /// returned guard is dropped or the process ends. `ErrorKind::WouldBlock` if another process holds it.
    fn lock(&self, path: &str) -> io::Result<Box<dyn Any + Send + Sync>>;
    /// Runs a job on the disk's own threads (`MmapDisk`) or on the simulation's clock (`MemDisk`); never inside this call, unless a
    /// test asked for that. Queues are unbounded: callers bound what they have outstanding (one flush a partition, one read a
    /// connection).
    fn offload(&self, lane: Lane, job: Job);
}

/// An open file. See the module's documentation for what is durable when.
pub trait DiskFile: Debug + Send + Sync + 'static {
    /// The file's length: the highest byte written (or set), not what is allocated.
    fn len(&self) -> io::Result<u64>;
    /// Whether the file has no bytes.
    fn is_empty(&self) -> io::Result<bool> {
        Ok(self.len()? == 0)
    }
    /// Writes all of `bufs`, one behind the other, from `pos`. On an error any part may have been written.
    fn write_at(&self, pos: u64, bufs: &[io::IoSlice<'_>]) -> io::Result<()>;
    /// Reads up to `buf.len()` bytes from `pos`; fewer only at the file's end.
    fn read_at(&self, pos: u64, buf: &mut [u8]) -> io::Result<usize>;
    /// As [`DiskFile::read_at`], but what the device holds, as far as the system can tell, and without making room for it in memory: for bytes that are
    /// synced, and that nobody waits for.
    fn read_device(&self, pos: u64, buf: &mut [u8]) -> io::Result<usize>;
    /// Reserves space for `pos..pos+len` without changing the file's length, so that later writes there cannot run out of it.
    fn allocate(&self, pos: u64, len: u64) -> io::Result<()>;
    /// Cuts or extends (with zeros) the file. Cutting also frees space allocated past `len`. The caller makes sure that no view
    /// covers what is cut.
    fn set_len(&self, len: u64) -> io::Result<()>;
    /// A read-only view of bytes that have been written and will never change while the view lives. User code must not
    /// dereference it, only hand it to the kernel (`writev`): the pages may be cold, and a bad page is then an error of that call
    /// instead of a signal here.
    ///
    /// # Errors
    /// If the file cannot be mapped; never because of where its end is. The caller answers for the range being written: `MemDisk` panics
    /// if it is not.
    fn view(&self, pos: u64, len: usize) -> io::Result<Bytes>;
    /// Whether all of `pos..pos+len` is in memory, so that sending it does not wait for the device.
    fn resident(&self, pos: u64, len: u64) -> io::Result<bool>;
    /// Drops the file's clean pages from memory, so that the next `read_at` asks the device. Unsynced bytes stay, and pages may that
    /// somebody is using (another process, a view older than the newest map): before trusting a read to show the device's bytes,
    /// have no views.
    fn evict(&self) -> io::Result<()>;
    /// Makes the written bytes and the file's length durable (`fdatasync`). Blocks. A failure is final.
    fn sync(&self) -> io::Result<()>;
}
