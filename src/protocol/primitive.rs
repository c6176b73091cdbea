//! The primitive types of the wire: a bounded reader over a frame and a writer that splices records in uncopied.
//!
//! Invariants: no read goes past the frame or past the tagged field it is in; no length or count from the wire is
//! believed before it is compared with the bytes that are left, and all the vectors of one message together stay
//! within the heap allowance the reader was given. Nothing here panics on any input.
//! Integers are big-endian; "flexible" versions (KIP-482) use compact lengths (a varint of length + 1, 0 for null).

use bytes::Bytes;

use super::value::{Records, Text};

/// Most tagged fields that one struct may carry; known messages have at most four.
pub const MAX_TAGS: u32 = 256;
/// Records shorter than this are copied into the frame: a slice of their own would cost more than the copy.
pub const SPLICE_MIN_BYTES: usize = 512;

/// Why bytes are not the message they should be.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DecodeError {
    /// The frame, or the tagged field, ends before the value does.
    #[error("{missing} bytes are missing")]
    Truncated {
        /// How many more bytes the value needs.
        missing: usize,
    },
    /// More elements are announced than the rest of the frame can hold.
    #[error("{count} elements of at least {element_bytes} bytes are announced, {remaining} bytes are left")]
    Count {
        /// The announced number of elements.
        count: usize,
        /// The smallest possible element.
        element_bytes: usize,
        /// What is left of the frame.
        remaining: usize,
    },
    /// The decoded message would take more memory than the reader allows.
    #[error("the decoded message would take more memory than allowed")]
    TooMuchMemory,
    /// A null where this version has none.
    #[error("null where this version allows none")]
    Null,
    /// A string longer than Kafka's limit of 32767 bytes.
    #[error("a string of {0} bytes is longer than any may be")]
    TextTooLong(usize),
    /// A string that is not UTF-8.
    #[error("a string is not UTF-8")]
    NotUtf8,
    /// A varint of more than 32 bits.
    #[error("a varint is longer than 32 bits")]
    Varint,
    /// A struct with more tagged fields than any may have.
    #[error("{0} tagged fields in one struct")]
    Tags(u32),
    /// A known tagged field whose value does not fill its announced size.
    #[error("tagged field {tag} has {extra} bytes behind its value")]
    TagSize {
        /// The field's tag.
        tag: u32,
        /// The bytes that are left over.
        extra: usize,
    },
}

/// Why a message cannot be written at the asked version: always a mistake of the caller.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum EncodeError {
    /// The version is not one that this API has.
    #[error("{message} has no version {version}")]
    Version {
        /// The message.
        message: &'static str,
        /// The asked version.
        version: i16,
    },
    /// A field has a value that this version cannot carry and that may not be left out silently.
    #[error("{field} cannot be said in version {version}")]
    Field {
        /// The field.
        field: &'static str,
        /// The asked version.
        version: i16,
    },
    /// A field is null in a version that does not allow it.
    #[error("{field} may not be null in version {version}")]
    Null {
        /// The field.
        field: &'static str,
        /// The asked version.
        version: i16,
    },
    /// A string, array or frame is longer than its length field can say.
    #[error("{0} bytes or elements are more than a length field can say")]
    TooLong(usize),
}

/// Where a value stands: the version that is read or written, and whether null is allowed there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct At {
    /// The message's version.
    pub version: i16,
    /// Whether that version is flexible: compact lengths and tagged fields.
    pub flexible: bool,
    /// Whether the value may be null.
    pub nullable: bool,
}

/// Where the fields of a message come from: a frame ([`Reader`]), or in tests a generator of valid messages.
///
/// A null is returned only where `at` allows one.
pub trait Source: Sized {
    /// A byte.
    fn i8(&mut self) -> Result<i8, DecodeError>;
    /// Two bytes.
    fn i16(&mut self) -> Result<i16, DecodeError>;
    /// Four bytes.
    fn i32(&mut self) -> Result<i32, DecodeError>;
    /// Eight bytes.
    fn i64(&mut self) -> Result<i64, DecodeError>;
    /// Sixteen bytes, as they are.
    fn uuid(&mut self) -> Result<[u8; 16], DecodeError>;
    /// A string.
    fn text(&mut self, at: At) -> Result<Option<Text>, DecodeError>;
    /// Record batches.
    fn records(&mut self, at: At) -> Result<Option<Records>, DecodeError>;
    /// The length of an array whose elements take at least `element_bytes` here and `element_heap` in memory.
    fn count(&mut self, at: At, element_bytes: usize, element_heap: usize) -> Result<Option<usize>, DecodeError>;
    /// Whether a struct that may be null is there.
    fn present(&mut self, at: At) -> Result<bool, DecodeError>;
    /// Tagged fields: calls `read` with each tag; `false` from it means that the field is not known.
    fn tags(&mut self, read: impl FnMut(&mut Self, u32) -> Result<bool, DecodeError>) -> Result<(), DecodeError>;
}

/// Reads a frame from front to back, within bounds.
#[derive(Debug)]
pub struct Reader {
    frame: Bytes,
    at: usize,
    end: usize,
    heap_left: usize,
}

impl Reader {
    /// A reader of the whole frame that lets the vectors of the message take up to `max_heap_bytes`.
    #[must_use]
    pub fn new(frame: Bytes, max_heap_bytes: usize) -> Self {
        Self { at: 0, end: frame.len(), frame, heap_left: max_heap_bytes }
    }

    /// How many bytes have been read.
    #[must_use]
    pub fn position(&self) -> usize {
        self.at
    }

    /// The bytes that have not been read.
    #[must_use]
    pub fn rest(&self) -> Bytes {
        self.frame.slice(self.at..self.end)
    }

    fn remaining(&self) -> usize {
        self.end - self.at
    }

    /// Moves over `n` bytes and says where they begin.
    #[inline]
    fn skip(&mut self, n: usize) -> Result<usize, DecodeError> {
        if n > self.remaining() {
            return Err(DecodeError::Truncated { missing: n - self.remaining() });
        }
        let start = self.at;
        self.at += n;
        Ok(start)
    }

    #[inline]
    fn array<const N: usize>(&mut self) -> Result<[u8; N], DecodeError> {
        let start = self.skip(N)?;
        Ok(self.frame[start..start + N].try_into().expect("the slice has N bytes"))
    }

    fn slice(&mut self, n: usize) -> Result<Bytes, DecodeError> {
        let start = self.skip(n)?;
        Ok(self.frame.slice(start..start + n))
    }

    /// An unsigned varint of at most 32 bits (KIP-482).
    #[inline]
    pub fn varint(&mut self) -> Result<u32, DecodeError> {
        let mut value = 0u32;
        for shift in [0, 7, 14, 21, 28] {
            let [byte] = self.array::<1>()?;
            if shift == 28 && byte > 0x0f {
                break;
            }
            value |= u32::from(byte & 0x7f) << shift;
            if byte & 0x80 == 0 {
                return Ok(value);
            }
        }
        Err(DecodeError::Varint)
    }

    /// A length: compact where flexible, else 16 bits for strings and 32 for the rest; negative or 0 is null.
    #[inline]
    fn length(&mut self, at: At, short: bool) -> Result<Option<usize>, DecodeError> {
        let length = if at.flexible {
            self.varint()?.checked_sub(1).map(|n| n as usize)
        } else if short {
            usize::try_from(self.i16()?).ok()
        } else {
            usize::try_from(self.i32()?).ok()
        };
        if length.is_none() && !at.nullable {
            return Err(DecodeError::Null);
        }
        Ok(length)
    }

    /// Reads one tagged field whose tag and size have been read; its reader sees no byte behind it.
    fn tagged(
        &mut self,
        tag: u32,
        size: usize,
        read: &mut impl FnMut(&mut Self, u32) -> Result<bool, DecodeError>,
    ) -> Result<(), DecodeError> {
        if size > self.remaining() {
            return Err(DecodeError::Truncated { missing: size - self.remaining() });
        }
        let outer_end = std::mem::replace(&mut self.end, self.at + size);
        let start = self.at;
        let known = read(self, tag)?;
        let field_end = std::mem::replace(&mut self.end, outer_end);
        if !known {
            assert_eq!(self.at, start, "an unknown tag's bytes are left alone");
            self.at = field_end;
        }
        match field_end - self.at {
            0 => Ok(()),
            extra => Err(DecodeError::TagSize { tag, extra }),
        }
    }
}

impl Source for Reader {
    #[inline]
    fn i8(&mut self) -> Result<i8, DecodeError> {
        self.array().map(i8::from_be_bytes)
    }

    #[inline]
    fn i16(&mut self) -> Result<i16, DecodeError> {
        self.array().map(i16::from_be_bytes)
    }

    #[inline]
    fn i32(&mut self) -> Result<i32, DecodeError> {
        self.array().map(i32::from_be_bytes)
    }

    #[inline]
    fn i64(&mut self) -> Result<i64, DecodeError> {
        self.array().map(i64::from_be_bytes)
    }

    fn uuid(&mut self) -> Result<[u8; 16], DecodeError> {
        self.array()
    }

    fn text(&mut self, at: At) -> Result<Option<Text>, DecodeError> {
        let Some(length) = self.length(at, true)? else { return Ok(None) };
        if i16::try_from(length).is_err() {
            return Err(DecodeError::TextTooLong(length));
        }
        Text::from_utf8(self.slice(length)?).map(Some).ok_or(DecodeError::NotUtf8)
    }

    fn records(&mut self, at: At) -> Result<Option<Records>, DecodeError> {
        let Some(length) = self.length(at, false)? else { return Ok(None) };
        Ok(Some(Records::from(self.slice(length)?)))
    }

    fn count(&mut self, at: At, element_bytes: usize, element_heap: usize) -> Result<Option<usize>, DecodeError> {
        let Some(count) = self.length(at, false)? else { return Ok(None) };
        let remaining = self.remaining();
        if count > remaining / element_bytes.max(1) {
            return Err(DecodeError::Count { count, element_bytes, remaining });
        }
        let heap = count.checked_mul(element_heap).and_then(|heap| self.heap_left.checked_sub(heap));
        self.heap_left = heap.ok_or(DecodeError::TooMuchMemory)?;
        Ok(Some(count))
    }

    fn present(&mut self, at: At) -> Result<bool, DecodeError> {
        let present = self.i8()? >= 0;
        if present || at.nullable { Ok(present) } else { Err(DecodeError::Null) }
    }

    fn tags(&mut self, mut read: impl FnMut(&mut Self, u32) -> Result<bool, DecodeError>) -> Result<(), DecodeError> {
        let count = self.varint()?;
        if count > MAX_TAGS {
            return Err(DecodeError::Tags(count));
        }
        for _ in 0..count {
            let tag = self.varint()?;
            let size = self.varint()? as usize;
            self.tagged(tag, size, &mut read)?;
        }
        Ok(())
    }
}

/// Collects a frame: small values in one buffer, records beside it as the slices they are.
#[derive(Debug, Default)]
pub struct Writer {
    buffer: Vec<u8>,
    /// Slices, each with the place in `buffer` before which it belongs, in order.
    splices: Vec<(usize, Bytes)>,
    spliced_bytes: usize,
}

impl Writer {
    /// A writer with room for `bytes` of small values.
    #[must_use]
    pub fn with_capacity(bytes: usize) -> Self {
        Self { buffer: Vec::with_capacity(bytes), ..Self::default() }
    }

    /// All bytes written.
    #[must_use]
    pub fn len(&self) -> usize {
        self.buffer.len() + self.spliced_bytes
    }

    /// Whether nothing has been written.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Bytes as they are.
    #[inline]
    pub fn raw(&mut self, bytes: &[u8]) {
        self.buffer.extend_from_slice(bytes);
    }

    /// A byte.
    #[inline]
    pub fn i8(&mut self, value: i8) {
        self.raw(&value.to_be_bytes());
    }

    /// Two bytes.
    #[inline]
    pub fn i16(&mut self, value: i16) {
        self.raw(&value.to_be_bytes());
    }

    /// Four bytes.
    #[inline]
    pub fn i32(&mut self, value: i32) {
        self.raw(&value.to_be_bytes());
    }

    /// Eight bytes.
    #[inline]
    pub fn i64(&mut self, value: i64) {
        self.raw(&value.to_be_bytes());
    }

    /// An unsigned varint.
    #[inline]
    pub fn varint(&mut self, mut value: u32) {
        while value > 0x7f {
            self.buffer.push(value.to_le_bytes()[0] | 0x80);
            value >>= 7;
        }
        self.buffer.push(value.to_le_bytes()[0]);
    }

    /// The length before a string, array or bytes; `None` is null.
    #[inline]
    fn length(&mut self, at: At, short: bool, length: Option<usize>) -> Result<(), EncodeError> {
        let max = if short { i16::MAX.unsigned_abs().into() } else { i32::MAX.unsigned_abs() };
        let length = match length.map(|n| (n, u32::try_from(n))) {
            Some((_, Ok(n))) if n <= max => Some(n),
            Some((n, _)) => return Err(EncodeError::TooLong(n)),
            None => None,
        };
        if at.flexible {
            self.varint(length.map_or(0, |n| n + 1));
        } else if short {
            self.i16(length.map_or(-1, |n| i16::try_from(n).expect("compared with the maximum above")));
        } else {
            self.i32(length.map_or(-1, |n| i32::try_from(n).expect("compared with the maximum above")));
        }
        Ok(())
    }

    /// A string.
    pub fn text(&mut self, at: At, text: Option<&str>) -> Result<(), EncodeError> {
        self.length(at, true, text.map(str::len))?;
        self.raw(text.unwrap_or_default().as_bytes());
        Ok(())
    }

    /// The length of an array.
    #[inline]
    pub fn count(&mut self, at: At, count: Option<usize>) -> Result<(), EncodeError> {
        self.length(at, false, count)
    }

    /// Record batches, not copied unless they are tiny.
    pub fn records(&mut self, at: At, records: Option<&Records>) -> Result<(), EncodeError> {
        self.length(at, false, records.map(Records::len))?;
        for slice in records.into_iter().flat_map(Records::slices) {
            if slice.len() < SPLICE_MIN_BYTES {
                self.raw(slice);
            } else {
                self.splices.push((self.buffer.len(), slice.clone()));
                self.spliced_bytes += slice.len();
            }
        }
        Ok(())
    }

    /// A tagged field: tag, size, and what `write` writes.
    ///
    /// # Panics
    /// If `write` splices records in: no message of Kafka's has records in a tagged field.
    pub fn tagged(
        &mut self,
        tag: u32,
        write: impl FnOnce(&mut Self) -> Result<(), EncodeError>,
    ) -> Result<(), EncodeError> {
        self.varint(tag);
        let (start, splices) = (self.buffer.len(), self.splices.len());
        write(self)?;
        assert_eq!(self.splices.len(), splices, "records stand in no tagged field");
        let end = self.buffer.len();
        let size = u32::try_from(end - start).map_err(|_| EncodeError::TooLong(end - start))?;
        self.varint(size);
        // The size is known only now: it goes in front of the value.
        let size_bytes = self.buffer.len() - end;
        self.buffer[start..].rotate_right(size_bytes);
        Ok(())
    }

    /// Writes over four bytes at the very front.
    ///
    /// # Panics
    /// If fewer have been written.
    pub fn patch_front(&mut self, value: i32) {
        self.buffer[..4].copy_from_slice(&value.to_be_bytes());
    }

    /// Everything written, in one piece.
    #[must_use]
    pub fn into_bytes(self) -> Bytes {
        if self.splices.is_empty() { self.buffer.into() } else { self.into_chunks().concat().into() }
    }

    /// Everything written, in order, as slices for one vectored write.
    #[must_use]
    pub fn into_chunks(self) -> Vec<Bytes> {
        let mut chunks = Vec::with_capacity(self.splices.len() * 2 + 1);
        let mut small = Bytes::from(self.buffer);
        let mut taken = 0;
        for (place, slice) in self.splices {
            if place > taken {
                chunks.push(small.split_to(place - taken));
                taken = place;
            }
            chunks.push(slice);
        }
        if !small.is_empty() {
            chunks.push(small);
        }
        chunks
    }
}

#[cfg(test)]
#[path = "primitive_tests.rs"]
mod tests;
