//! One file of a [`MemDisk`](super::MemDisk): what a reader sees now, and what the device would hold after a power cut.
//!
//! # Invariants
//! - A sector where the two images differ is in `dirty` (a sync will write it) or in `lost` (a failed sync forgot it), never in both.
//! - Bytes of `now` past its length are zero. (The device may hold some: their length was not synced.)
//! - `low <= high` bound every length the file had since the device last learned its length.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;
use std::sync::Arc;

use bytes::Bytes;

use super::chance::{Mercy, Rng};
use crate::log::disk_args::wide;

/// The unit that the device writes as one.
pub(super) const SECTOR_BYTES: u64 = 512;
/// The unit of the page cache and of space on the filesystem.
pub(super) const BLOCK_BYTES: u64 = 4096;

const SECTORS_PER_BLOCK: u64 = BLOCK_BYTES / SECTOR_BYTES;
const SECTOR: usize = 512;

type Sector = Arc<[u8; SECTOR]>;

/// A file's bytes at one place: absent sectors are zeros.
#[derive(Clone, Debug, Default)]
struct Image {
    len: u64,
    sectors: BTreeMap<u64, Sector>,
}

impl Image {
    fn sector(&self, n: u64) -> [u8; SECTOR] {
        self.sectors.get(&n).map_or([0; SECTOR], |sector| **sector)
    }

    fn copy_sector(&mut self, n: u64, from: &Self) {
        match from.sectors.get(&n) {
            Some(sector) => self.sectors.insert(n, Arc::clone(sector)),
            None => self.sectors.remove(&n),
        };
    }

    /// Keeps `len` bytes; answers which sectors changed.
    fn cut(&mut self, len: u64) -> BTreeSet<u64> {
        self.len = len;
        let mut changed: BTreeSet<u64> = self.sectors.split_off(&len.div_ceil(SECTOR_BYTES)).into_keys().collect();
        let tail = small(len % SECTOR_BYTES);
        if tail > 0
            && let Some(sector) = self.sectors.get_mut(&(len / SECTOR_BYTES))
            && sector[tail..].iter().any(|&byte| byte != 0)
        {
            Arc::make_mut(sector)[tail..].fill(0);
            changed.insert(len / SECTOR_BYTES);
        }
        changed
    }
}

impl Image {
    fn flip_bit(&mut self, pos: u64, bit: u32) {
        let n = pos / SECTOR_BYTES;
        let mut sector = self.sector(n);
        sector[small(pos % SECTOR_BYTES)] ^= 1 << bit;
        self.sectors.insert(n, Arc::new(sector));
    }
}

/// A set of blocks, as intervals.
#[derive(Clone, Debug, Default)]
struct Blocks(BTreeMap<u64, u64>);

impl Blocks {
    fn contains(&self, block: u64) -> bool {
        self.0.range(..=block).next_back().is_some_and(|(_, &end)| block < end)
    }

    fn insert(&mut self, blocks: Range<u64>) {
        let (mut start, mut end) = (blocks.start, blocks.end);
        if start >= end {
            return;
        }
        while let Some((&s, &e)) = self.0.range(..=end).next_back().filter(|&(_, &e)| e >= start) {
            self.0.remove(&s);
            start = start.min(s);
            end = end.max(e);
        }
        self.0.insert(start, end);
    }

    fn cut(&mut self, from: u64) {
        drop(self.0.split_off(&from));
        if let Some(mut last) = self.0.last_entry() {
            let end = (*last.get()).min(from);
            last.insert(end);
        }
    }

    fn count(&self) -> u64 {
        self.0.iter().map(|(start, end)| end - start).sum()
    }

    fn count_in(&self, blocks: &Range<u64>) -> u64 {
        self.0.iter().map(|(&start, &end)| end.min(blocks.end).saturating_sub(start.max(blocks.start))).sum()
    }
}

/// One file. See the module's header.
#[derive(Clone, Debug, Default)]
pub(super) struct FileNode {
    now: Image,
    device: Image,
    dirty: BTreeSet<u64>,
    lost: BTreeSet<u64>,
    low: u64,
    high: u64,
    blocks: Blocks,
    device_blocks: Blocks,
    cold: BTreeSet<u64>,
    /// Handles that are open; a removed file lives as long as there is one.
    pub(super) opens: u64,
}

/// A number below a sector's or a buffer's size.
fn small(n: u64) -> usize {
    usize::try_from(n).expect("a position within a buffer fits usize")
}

fn blocks_of(bytes: Range<u64>) -> Range<u64> {
    bytes.start / BLOCK_BYTES..bytes.end.div_ceil(BLOCK_BYTES)
}

impl FileNode {
    pub(super) fn len(&self) -> u64 {
        self.now.len
    }

    /// What the file occupies on the filesystem.
    pub(super) fn space_bytes(&self) -> u64 {
        self.blocks.count() * BLOCK_BYTES
    }

    /// What `pos..pos+len` would occupy in addition.
    pub(super) fn missing_bytes(&self, bytes: Range<u64>) -> u64 {
        let blocks = blocks_of(bytes);
        ((blocks.end - blocks.start) - self.blocks.count_in(&blocks)) * BLOCK_BYTES
    }

    /// How many of `len` bytes from `pos` can be written with `free` bytes on the filesystem.
    pub(super) fn fitting(&self, pos: u64, len: usize, free: u64) -> usize {
        let mut left = free / BLOCK_BYTES;
        for block in blocks_of(pos..pos + wide(len)) {
            if !self.blocks.contains(block) {
                if left == 0 {
                    return small((block * BLOCK_BYTES).saturating_sub(pos));
                }
                left -= 1;
            }
        }
        len
    }

    pub(super) fn allocate(&mut self, bytes: Range<u64>) {
        self.blocks.insert(blocks_of(bytes));
    }

    /// Writes those sectors of `data` that `keep` chooses; the file's length follows the last one written.
    pub(super) fn write(&mut self, pos: u64, data: &[u8], rng: &mut Rng, mut keep: impl FnMut() -> bool) {
        let mut at = 0;
        while at < data.len() {
            let start = pos + wide(at);
            let (n, offset) = (start / SECTOR_BYTES, small(start % SECTOR_BYTES));
            let part = (SECTOR - offset).min(data.len() - at);
            if keep() {
                self.touch(n, rng);
                let mut sector = if part == SECTOR { [0; SECTOR] } else { self.now.sector(n) };
                sector[offset..offset + part].copy_from_slice(&data[at..at + part]);
                self.now.sectors.insert(n, Arc::new(sector));
                self.now.len = self.now.len.max(start + wide(part));
                self.blocks.insert(blocks_of(start..start + wide(part)));
                self.cold.remove(&(n / SECTORS_PER_BLOCK));
            }
            at += part;
        }
        self.bound_len();
    }

    /// Marks a sector dirty. If it was already, the kernel may have written its older content back by now.
    fn touch(&mut self, n: u64, rng: &mut Rng) {
        self.lost.remove(&n);
        if !self.dirty.insert(n) && rng.coin() {
            self.device.copy_sector(n, &self.now);
        }
    }

    fn bound_len(&mut self) {
        self.low = self.low.min(self.now.len);
        self.high = self.high.max(self.now.len);
    }

    /// Reads what is there, up to the end of the file; what was read is warm.
    pub(super) fn read(&mut self, pos: u64, buf: &mut [u8]) -> usize {
        let len = small(self.now.len.saturating_sub(pos).min(wide(buf.len())));
        self.copy_to(pos, &mut buf[..len]);
        if len > 0 && !self.cold.is_empty() {
            for block in blocks_of(pos..pos + wide(len)) {
                self.cold.remove(&block);
            }
        }
        len
    }

    /// Reads what the device holds; of what is not written back yet, what it will hold. Nothing gets warm.
    pub(super) fn read_device(&self, pos: u64, buf: &mut [u8]) -> usize {
        let len = small(self.now.len.saturating_sub(pos).min(wide(buf.len())));
        let mut at = 0;
        while at < len {
            let start = pos + wide(at);
            let (n, offset) = (start / SECTOR_BYTES, small(start % SECTOR_BYTES));
            let part = (SECTOR - offset).min(len - at);
            let image = if self.dirty.contains(&n) { &self.now } else { &self.device };
            buf[at..at + part].copy_from_slice(&image.sector(n)[offset..offset + part]);
            at += part;
        }
        len
    }

    /// A copy of bytes that are within the file.
    pub(super) fn copy(&self, pos: u64, len: usize) -> Bytes {
        let mut bytes = vec![0; len];
        self.copy_to(pos, &mut bytes);
        bytes.into()
    }

    fn copy_to(&self, pos: u64, buf: &mut [u8]) {
        let (mut at, len) = (0, buf.len());
        while at < len {
            let start = pos + wide(at);
            let (n, offset) = (start / SECTOR_BYTES, small(start % SECTOR_BYTES));
            let part = (SECTOR - offset).min(len - at);
            match self.now.sectors.get(&n) {
                Some(sector) => buf[at..at + part].copy_from_slice(&sector[offset..offset + part]),
                None => buf[at..at + part].fill(0),
            }
            at += part;
        }
    }

    pub(super) fn set_len(&mut self, len: u64, rng: &mut Rng) {
        if len <= self.now.len {
            // The zeros that a later extension would show there reach the device sector by sector, like any write.
            let mut gone = self.now.clone().cut(len);
            gone.extend(self.device.sectors.range(len.div_ceil(SECTOR_BYTES)..).map(|(&n, _)| n));
            for n in gone {
                self.touch(n, rng);
            }
            self.now.cut(len);
            self.blocks.cut(len.div_ceil(BLOCK_BYTES));
        } else {
            self.now.len = len;
        }
        self.bound_len();
    }

    pub(super) fn resident(&self, bytes: Range<u64>) -> bool {
        bytes.is_empty() || self.cold.range(blocks_of(bytes)).next().is_none()
    }

    /// Makes the whole file cold, without forgetting anything.
    pub(super) fn chill(&mut self) {
        self.cold = blocks_of(0..self.now.len).collect();
    }

    /// Drops clean pages: what a failed sync forgot is gone now.
    pub(super) fn evict(&mut self) {
        for block in blocks_of(0..self.now.len) {
            let sectors = block * SECTORS_PER_BLOCK..(block + 1) * SECTORS_PER_BLOCK;
            if self.dirty.range(sectors.clone()).next().is_none() {
                self.cold.insert(block);
                let lost: Vec<u64> = self.lost.range(sectors).copied().collect();
                for n in lost {
                    self.lost.remove(&n);
                    self.now.copy_sector(n, &self.device);
                }
            }
        }
    }

    pub(super) fn sync(&mut self) {
        for n in std::mem::take(&mut self.dirty) {
            self.device.copy_sector(n, &self.now);
        }
        self.device.len = self.now.len;
        (self.low, self.high) = (self.now.len, self.now.len);
        self.device_blocks = self.blocks.clone();
    }

    /// What Linux does when the device fails: some sectors made it, and all are called clean.
    pub(super) fn fail_sync(&mut self, rng: &mut Rng) {
        let written = Mercy::Some.survivors(rng, self.dirty.len());
        for (n, written) in std::mem::take(&mut self.dirty).into_iter().zip(written) {
            if written {
                self.device.copy_sector(n, &self.now);
            } else {
                self.lost.insert(n);
            }
        }
    }

    /// The file as it may be found after a power cut, cold and with nothing unsynced.
    pub(super) fn after_power_cut(&self, mercy: Mercy, rng: &mut Rng) -> Self {
        let mut image = self.device.clone();
        let kept = mercy.survivors(rng, self.dirty.len());
        for (&n, _) in self.dirty.iter().zip(kept).filter(|&(_, kept)| kept) {
            image.copy_sector(n, &self.now);
        }
        let any = self.low + rng.below(self.high - self.low + 1);
        let len = match (mercy, rng.below(3)) {
            (Mercy::Nothing, _) | (Mercy::Some, 0) => self.device.len,
            (Mercy::Everything, _) | (Mercy::Some, 1) => self.now.len,
            (Mercy::Some, _) => any,
        };
        image.cut(len);
        let mut blocks = if mercy.keeps(rng) { self.blocks.clone() } else { self.device_blocks.clone() };
        for &n in image.sectors.keys() {
            blocks.insert(n / SECTORS_PER_BLOCK..n / SECTORS_PER_BLOCK + 1);
        }
        let mut file = Self {
            low: len,
            high: len,
            device: image.clone(),
            now: image,
            device_blocks: blocks.clone(),
            blocks,
            ..Self::default()
        };
        file.chill();
        file
    }

    /// Flips one bit on the device and in memory.
    pub(super) fn flip_bit(&mut self, pos: u64, bit: u32) {
        self.now.flip_bit(pos, bit);
        self.device.flip_bit(pos, bit);
    }

    /// The same on the device alone: memory still has what was there.
    pub(super) fn rot_bit(&mut self, pos: u64, bit: u32) {
        self.device.flip_bit(pos, bit);
    }
}
