//! Reading and writing the fixed-width big-endian fields of the log's own formats (journal, descriptors, index files).
//!
//! Bytes from disk never panic and never make it allocate more than they are long.

use bytes::{Buf, BufMut, Bytes};

/// The bytes end before the value, or hold one that is not allowed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the bytes are not what this format writes")]
pub struct Malformed;

/// A cursor over bytes that were read from disk.
pub(super) struct Reader(Bytes);

impl Reader {
    pub(super) fn new(bytes: Bytes) -> Self {
        Self(bytes)
    }

    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub(super) fn u8(&mut self) -> Result<u8, Malformed> {
        self.0.try_get_u8().map_err(|_| Malformed)
    }

    pub(super) fn u32(&mut self) -> Result<u32, Malformed> {
        self.0.try_get_u32().map_err(|_| Malformed)
    }

    pub(super) fn u64(&mut self) -> Result<u64, Malformed> {
        self.0.try_get_u64().map_err(|_| Malformed)
    }

    pub(super) fn i32(&mut self) -> Result<i32, Malformed> {
        self.0.try_get_i32().map_err(|_| Malformed)
    }

    pub(super) fn i64(&mut self) -> Result<i64, Malformed> {
        self.0.try_get_i64().map_err(|_| Malformed)
    }

    pub(super) fn array<const N: usize>(&mut self) -> Result<[u8; N], Malformed> {
        let mut out = [0; N];
        self.0.try_copy_to_slice(&mut out).map_err(|_| Malformed)?;
        Ok(out)
    }

    /// Bytes behind a 32-bit length.
    pub(super) fn bytes(&mut self) -> Result<Bytes, Malformed> {
        let len = usize::try_from(self.u32()?).map_err(|_| Malformed)?;
        if len > self.0.len() {
            return Err(Malformed);
        }
        Ok(self.0.split_to(len))
    }

    /// A 32-bit count of items of at least `item_bytes` each.
    pub(super) fn count(&mut self, item_bytes: usize) -> Result<usize, Malformed> {
        let count = usize::try_from(self.u32()?).map_err(|_| Malformed)?;
        if count.checked_mul(item_bytes).is_none_or(|bytes| bytes > self.0.len()) {
            return Err(Malformed);
        }
        Ok(count)
    }

    pub(super) fn end(&self) -> Result<(), Malformed> {
        if self.is_empty() { Ok(()) } else { Err(Malformed) }
    }
}

/// Writes a 32-bit length and the bytes.
pub(super) fn put_bytes(out: &mut Vec<u8>, bytes: &[u8]) {
    put_count(out, bytes.len());
    out.extend_from_slice(bytes);
}

/// Writes a 32-bit count.
pub(super) fn put_count(out: &mut Vec<u8>, count: usize) {
    out.put_u32(u32::try_from(count).expect("no count or length here reaches 4 Gi"));
}
