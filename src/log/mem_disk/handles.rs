//! [`Disk`] and [`DiskFile`] over a [`MemDisk`]'s state: checks, numbers and traces each operation.

use std::any::Any;
use std::fmt;
use std::io::{self, ErrorKind, IoSlice};
use std::sync::Arc;

use bytes::Bytes;

use super::chance::Mercy;
use super::file::{FileNode, SECTOR_BYTES};
use super::state::{DirNode, Node, NodeId, Power, State};
use super::{Jobs, MemDisk, Op, Shared, lock, power_is_off};
use crate::log::disk::{DirEntry, Disk, DiskFile, Job, Lane, Open, Space};
use crate::log::disk_args::{check_dir, check_file, end_of, wide};

/// What [`Disk::space`] calls the size of a disk without a capacity.
const ENDLESS_BYTES: u64 = 1 << 50;
const EIO: i32 = 5;

impl State {
    /// Counts a sync; answers whether it is the one that fails.
    fn count_sync(&mut self) -> bool {
        let fails = self.fail_sync_at == Some(self.counters.syncs);
        self.counters.syncs += 1;
        self.counters.failed_syncs += u64::from(fails);
        fails
    }

    fn open(&mut self, id: NodeId) -> io::Result<()> {
        self.file_mut(id)?.0.opens += 1;
        Ok(())
    }
}

impl Disk for MemDisk {
    fn create_dir_all(&self, dir: &str) -> io::Result<()> {
        check_dir(dir)?;
        let ends = dir.match_indices('/').map(|(at, _)| at).chain([dir.len()]);
        for part in ends.map(|end| &dir[..end]).filter(|part| !part.is_empty()) {
            let exists = self.shared.look(Op::CreateDir, &[], |state| match state.find(part) {
                Ok(id) => state.dir_node(id).map(|_| true),
                Err(_) => Ok(false),
            });
            if !exists? {
                self.shared.change_whole(Op::CreateDir, part, |s| s.create(part, Node::Dir(DirNode::default())))?;
            }
        }
        Ok(())
    }

    fn list(&self, dir: &str) -> io::Result<Vec<DirEntry>> {
        check_dir(dir)?;
        self.shared.look(Op::List, &[], |state| {
            let id = state.dir(dir)?;
            let names = &state.dir_node(id)?.now;
            Ok(names.iter().map(|(name, &id)| DirEntry { name: name.clone(), is_dir: state.is_dir(id) }).collect())
        })
    }

    fn open(&self, path: &str, how: Open) -> io::Result<Arc<dyn DiskFile>> {
        check_file(path)?;
        let find = |state: &mut State| {
            state.trace.bytes(path.as_bytes());
            let id = state.find(path)?;
            state.open(id).map(|()| id)
        };
        let create = |state: &mut State| {
            let id = state.create(path, Node::File(FileNode::default()))?;
            state.open(id).map(|()| id)
        };
        let node = match how {
            Open::Existing | Open::ReadOnly => self.shared.look(Op::Open, &[], find)?,
            Open::New => self.shared.change_whole(Op::Create, path, create)?,
        };
        let path = path.to_owned();
        Ok(Arc::new(MemFile { disk: self.clone(), node, path, writable: how != Open::ReadOnly }))
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        check_file(from)?;
        check_file(to)?;
        self.shared.change_whole(Op::Rename, from, |state| {
            state.trace.bytes(to.as_bytes());
            state.rename(from, to)
        })
    }

    fn remove_file(&self, path: &str) -> io::Result<()> {
        check_file(path)?;
        self.shared.change_whole(Op::Remove, path, |state| state.remove(path, false))
    }

    fn remove_dir_all(&self, dir: &str) -> io::Result<()> {
        check_file(dir)?;
        for entry in self.list(dir)? {
            let path = format!("{dir}/{}", entry.name);
            if entry.is_dir { self.remove_dir_all(&path)? } else { self.remove_file(&path)? }
        }
        self.shared.change_whole(Op::Remove, dir, |state| state.remove(dir, true))
    }

    fn sync_dir(&self, dir: &str) -> io::Result<()> {
        check_dir(dir)?;
        let skipped = self.skips_sync(dir);
        self.shared.change_whole(Op::SyncDir, dir, |state| {
            let id = state.dir(dir)?;
            state.counters.dir_syncs += 1;
            if state.count_sync() {
                state.fail_sync_dir(id);
                return Err(io::Error::from_raw_os_error(EIO));
            }
            if !state.dir_sync_is_noop && !skipped {
                state.sync_dir(id);
            }
            Ok(())
        })
    }

    fn space(&self) -> io::Result<Space> {
        let state = lock(&self.shared.state);
        if state.power != Power::On {
            return Err(power_is_off());
        }
        let total_bytes = state.capacity_bytes.unwrap_or(ENDLESS_BYTES);
        Ok(Space { total_bytes, free_bytes: total_bytes.saturating_sub(state.used_bytes()) })
    }

    fn lock(&self, path: &str) -> io::Result<Box<dyn Any + Send + Sync>> {
        check_file(path)?;
        let exists = self.shared.look(Op::Lock, &[], |state| Ok(state.find(path).is_ok()))?;
        if !exists {
            self.shared.change_whole(Op::Create, path, |state| state.create(path, Node::File(FileNode::default())))?;
        }
        let node = self.shared.look(Op::Lock, &[], |state| {
            let id = state.find(path)?;
            if state.locks.insert(id) { Ok(id) } else { Err(ErrorKind::WouldBlock.into()) }
        })?;
        Ok(Box::new(Lock { shared: Arc::clone(&self.shared), node }))
    }

    fn offload(&self, lane: Lane, job: Job) {
        if self.shared.look(Op::Offload, &[lane as u64], |_| Ok(())).is_err() && self.is_gone() {
            return;
        }
        match &self.shared.jobs {
            Jobs::Inline => job(),
            Jobs::Queued(queue) => lock(queue).push_back(job),
            Jobs::Deferred(defer) => {
                let disk = self.clone();
                defer(lane, Box::new(move || if disk.is_gone() { drop(job) } else { job() }));
            }
        }
    }
}

struct Lock {
    shared: Arc<Shared>,
    node: NodeId,
}

impl Drop for Lock {
    fn drop(&mut self) {
        lock(&self.shared.state).locks.remove(&self.node);
    }
}

/// An open file of a [`MemDisk`].
struct MemFile {
    disk: MemDisk,
    node: NodeId,
    path: String,
    writable: bool,
}

impl MemFile {
    fn check_writable(&self) -> io::Result<()> {
        if self.writable { Ok(()) } else { Err(ErrorKind::PermissionDenied.into()) }
    }
}

impl fmt::Debug for MemFile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MemFile").field("node", &self.node).field("writable", &self.writable).finish_non_exhaustive()
    }
}

impl Drop for MemFile {
    fn drop(&mut self) {
        if let Ok((file, _)) = lock(&self.disk.shared.state).file_mut(self.node) {
            file.opens = file.opens.saturating_sub(1);
        }
    }
}

impl DiskFile for MemFile {
    fn len(&self) -> io::Result<u64> {
        let state = lock(&self.disk.shared.state);
        if state.power == Power::On { state.file(self.node).map(FileNode::len) } else { Err(power_is_off()) }
    }

    fn write_at(&self, pos: u64, bufs: &[IoSlice<'_>]) -> io::Result<()> {
        self.check_writable()?;
        let data = bufs.iter().map(|buf| &**buf).collect::<Vec<&[u8]>>().concat();
        end_of(pos, wide(data.len()))?;
        self.disk.tear_if_due(&self.path);
        self.disk.shared.change(Op::Write, &[self.node, pos], |state, last| {
            state.trace.bytes(&data);
            let free = state.free_bytes();
            let fits = state.file(self.node)?.fitting(pos, data.len(), free);
            let sectors = pos / SECTOR_BYTES..(pos + wide(fits)).div_ceil(SECTOR_BYTES);
            let torn = Mercy::Some.survivors(&mut state.rng, if last { sectors.count() } else { 0 });
            let (file, rng) = state.file_mut(self.node)?;
            let mut torn = torn.into_iter();
            file.write(pos, &data[..fits], rng, || torn.next().unwrap_or(!last));
            if fits < data.len() {
                return Err(ErrorKind::StorageFull.into());
            }
            state.counters.bytes_written += wide(data.len());
            Ok(())
        })
    }

    fn read_at(&self, pos: u64, buf: &mut [u8]) -> io::Result<usize> {
        self.disk.shared.look(Op::Read, &[self.node, pos, wide(buf.len())], |state| {
            let n = state.file_mut(self.node)?.0.read(pos, buf);
            state.counters.bytes_read += wide(n);
            Ok(n)
        })
    }

    fn read_device(&self, pos: u64, buf: &mut [u8]) -> io::Result<usize> {
        self.disk.shared.look(Op::Read, &[self.node, pos, wide(buf.len())], |state| {
            let n = state.file(self.node)?.read_device(pos, buf);
            state.counters.bytes_read += wide(n);
            Ok(n)
        })
    }

    fn allocate(&self, pos: u64, len: u64) -> io::Result<()> {
        self.check_writable()?;
        let range = pos..end_of(pos, len)?;
        self.disk.shared.change(Op::Allocate, &[self.node, pos, len], |state, _| {
            if state.file(self.node)?.missing_bytes(range.clone()) > state.free_bytes() {
                return Err(ErrorKind::StorageFull.into());
            }
            state.file_mut(self.node)?.0.allocate(range);
            Ok(())
        })
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.check_writable()?;
        end_of(0, len)?;
        self.disk.shared.change(Op::SetLen, &[self.node, len], |state, last| {
            if last && state.rng.coin() {
                return Err(power_is_off());
            }
            let (file, rng) = state.file_mut(self.node)?;
            file.set_len(len, rng);
            Ok(())
        })
    }

    fn view(&self, pos: u64, len: usize) -> io::Result<Bytes> {
        let end = end_of(pos, wide(len))?;
        self.disk.shared.look(Op::View, &[self.node, pos, wide(len)], |state| {
            let (file, _) = state.file_mut(self.node)?;
            assert!(end <= file.len(), "a view of {pos}..{end} of a file with {} bytes", file.len());
            Ok(file.copy(pos, len))
        })
    }

    fn resident(&self, pos: u64, len: u64) -> io::Result<bool> {
        let end = end_of(pos, len)?;
        let state = lock(&self.disk.shared.state);
        if state.power == Power::On { Ok(state.file(self.node)?.resident(pos..end)) } else { Err(power_is_off()) }
    }

    fn evict(&self) -> io::Result<()> {
        self.disk.shared.look(Op::Evict, &[self.node], |state| {
            state.file_mut(self.node)?.0.evict();
            Ok(())
        })
    }

    fn sync(&self) -> io::Result<()> {
        let skipped = self.disk.skips_sync(&self.path);
        self.disk.shared.change(Op::Sync, &[self.node], |state, last| {
            state.file(self.node)?;
            let (fails, noop) = (state.count_sync(), state.sync_is_noop || skipped);
            let (file, rng) = state.file_mut(self.node)?;
            if fails {
                file.fail_sync(rng);
                return Err(io::Error::from_raw_os_error(EIO));
            }
            // A sync that the power cuts has written any subset, which is what the cut leaves anyway.
            if !noop && !last {
                file.sync();
            }
            Ok(())
        })
    }
}
