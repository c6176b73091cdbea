//! Reading a segment file entry by entry through one buffer: headers only, or whole entries.

use std::io;

use super::disk::DiskFile;
use super::entry::{Fault, Point, is_intact, size_of};
use crate::protocol::batch::{BatchHeader, HEADER_BYTES};

/// Read ahead when only headers are wanted.
const HEADER_WINDOW: usize = 16 << 10;
/// Read ahead when everything is wanted.
const SCAN_WINDOW: usize = 1 << 20;
/// Read ahead when nobody waits.
const DEVICE_WINDOW: usize = 256 << 10;

/// See the module's documentation.
pub(super) struct Walker<'a> {
    file: &'a dyn DiskFile,
    /// Nothing at or past this is looked at.
    end: u64,
    window: usize,
    buf: Vec<u8>,
    buf_pos: u64,
    /// The entry read last was so large that reading ahead of the next header is wasted.
    far: bool,
    /// Whether what the device holds is wanted, and not what memory does.
    of_device: bool,
}

impl<'a> Walker<'a> {
    /// For headers.
    pub(super) fn headers(file: &'a dyn DiskFile, end: u64) -> Self {
        Self { file, end, window: HEADER_WINDOW, buf: Vec::new(), buf_pos: 0, far: false, of_device: false }
    }

    /// For whole entries.
    pub(super) fn entries(file: &'a dyn DiskFile, end: u64) -> Self {
        Self { window: SCAN_WINDOW, ..Self::headers(file, end) }
    }

    /// For whole entries as the device holds them.
    pub(super) fn of_device(file: &'a dyn DiskFile, end: u64) -> Self {
        Self { window: DEVICE_WINDOW, of_device: true, ..Self::headers(file, end) }
    }

    /// The header at `point` and the point behind its entry.
    pub(super) fn header(&mut self, point: Point) -> io::Result<Result<(BatchHeader, Point), Fault>> {
        let bytes = self.bytes(point.pos, HEADER_BYTES)?;
        let Ok(header) = BatchHeader::parse(bytes) else { return Ok(Err(Fault::Header)) };
        let next = point.step(&header, self.end);
        self.far = size_of(&header) > u64::try_from(self.window).expect("a small number");
        Ok(next.map(|next| (header, next)))
    }

    /// As [`Walker::header`], with the CRC of the whole entry checked.
    pub(super) fn entry(&mut self, point: Point) -> io::Result<Result<(BatchHeader, Point), Fault>> {
        let (header, next) = match self.header(point)? {
            Ok(found) => found,
            Err(fault) => return Ok(Err(fault)),
        };
        let intact = is_intact(self.bytes(point.pos, header.size_bytes())?);
        Ok(if intact { Ok((header, next)) } else { Err(Fault::Crc) })
    }

    /// Up to `len` bytes at `pos`; fewer where the file or what is allowed ends.
    pub(super) fn bytes(&mut self, pos: u64, len: usize) -> io::Result<&[u8]> {
        let left = usize::try_from(self.end.saturating_sub(pos)).unwrap_or(usize::MAX);
        let len = len.min(left);
        let skip = pos.checked_sub(self.buf_pos).and_then(|skip| usize::try_from(skip).ok());
        let have = skip.is_some_and(|skip| skip.saturating_add(len) <= self.buf.len());
        let skip = if have {
            skip.expect("it was just looked at")
        } else {
            let ahead = if self.far { len } else { len.max(self.window.min(left)) };
            self.buf.resize(ahead, 0);
            self.buf_pos = pos;
            let read = match self.of_device {
                true => self.file.read_device(pos, &mut self.buf)?,
                false => self.file.read_at(pos, &mut self.buf)?,
            };
            self.buf.truncate(read);
            0
        };
        let to = (skip + len).min(self.buf.len());
        Ok(&self.buf[skip.min(to)..to])
    }
}
