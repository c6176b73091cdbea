//! How machines write their commands and snapshots: numbers big-endian, lengths and counts as u32, nothing optional.
//!
//! Reading is bounded: a length or count is believed only if the bytes for it are there, and every read says what it was
//! looking for. Text must be UTF-8. Equal values give equal bytes.

use bytes::{BufMut, Bytes};

/// Why bytes are not what a machine wrote.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum StateError {
    /// The bytes end too early.
    #[error("the bytes end inside {0}")]
    CutShort(&'static str),
    /// A value that no version has written.
    #[error("invalid {0}")]
    Invalid(&'static str),
    /// More bytes than the last field takes.
    #[error("{0} bytes too many")]
    Trailing(usize),
    /// A number that this version does not know: a newer Ottla wrote it.
    #[error("{what} {number} is not known: a newer version of Ottla wrote it")]
    Newer {
        /// What the number tells apart.
        what: &'static str,
        /// The unknown number.
        number: u32,
    },
}

/// Writes state.
#[derive(Debug, Default)]
pub struct Writer {
    bytes: Vec<u8>,
}

impl Writer {
    /// Starts with the byte that tells versions or commands apart.
    #[must_use]
    pub fn tagged(tag: u8) -> Self {
        Self { bytes: vec![tag] }
    }

    /// What was written.
    #[must_use]
    pub fn finish(self) -> Bytes {
        Bytes::from(self.bytes)
    }

    /// Writes a byte.
    pub fn u8(&mut self, value: u8) {
        self.bytes.put_u8(value);
    }

    /// Writes a 16-bit number.
    pub fn i16(&mut self, value: i16) {
        self.bytes.put_i16(value);
    }

    /// Writes a 32-bit number.
    pub fn i32(&mut self, value: i32) {
        self.bytes.put_i32(value);
    }

    /// Writes a 64-bit number.
    pub fn i64(&mut self, value: i64) {
        self.bytes.put_i64(value);
    }

    /// Writes a 64-bit number.
    pub fn u64(&mut self, value: u64) {
        self.bytes.put_u64(value);
    }

    /// Writes bytes whose number the reader knows.
    pub fn raw(&mut self, value: &[u8]) {
        self.bytes.put_slice(value);
    }

    /// Writes how many items follow.
    ///
    /// # Panics
    /// Past 2^32, which no bounded state reaches.
    pub fn count(&mut self, items: usize) {
        self.bytes.put_u32(u32::try_from(items).expect("state is bounded far below 2^32 items"));
    }

    /// Writes text with its length.
    pub fn text(&mut self, value: &str) {
        self.count(value.len());
        self.raw(value.as_bytes());
    }
}

/// Reads what a [`Writer`] wrote.
#[derive(Clone, Debug)]
pub struct Reader<'a> {
    bytes: &'a [u8],
}

impl<'a> Reader<'a> {
    /// Reads `bytes` from their start.
    #[must_use]
    pub const fn new(bytes: &'a [u8]) -> Self {
        Self { bytes }
    }

    /// The next `N` bytes.
    ///
    /// # Errors
    /// When there are fewer.
    pub fn array<const N: usize>(&mut self, what: &'static str) -> Result<[u8; N], StateError> {
        let (value, rest) = self.bytes.split_first_chunk().ok_or(StateError::CutShort(what))?;
        self.bytes = rest;
        Ok(*value)
    }

    /// Reads a byte.
    ///
    /// # Errors
    /// When there is none.
    pub fn u8(&mut self, what: &'static str) -> Result<u8, StateError> {
        self.array::<1>(what).map(|[byte]| byte)
    }

    /// Reads a 16-bit number.
    ///
    /// # Errors
    /// When the bytes end.
    pub fn i16(&mut self, what: &'static str) -> Result<i16, StateError> {
        self.array(what).map(i16::from_be_bytes)
    }

    /// Reads a 32-bit number.
    ///
    /// # Errors
    /// When the bytes end.
    pub fn i32(&mut self, what: &'static str) -> Result<i32, StateError> {
        self.array(what).map(i32::from_be_bytes)
    }

    /// Reads a 64-bit number.
    ///
    /// # Errors
    /// When the bytes end.
    pub fn i64(&mut self, what: &'static str) -> Result<i64, StateError> {
        self.array(what).map(i64::from_be_bytes)
    }

    /// Reads a 64-bit number.
    ///
    /// # Errors
    /// When the bytes end.
    pub fn u64(&mut self, what: &'static str) -> Result<u64, StateError> {
        self.array(what).map(u64::from_be_bytes)
    }

    /// Reads a count of items that take at least `item_bytes` each, so that the count bounds what may be allocated.
    ///
    /// # Errors
    /// When the bytes end, or could not hold so many items.
    pub fn count(&mut self, item_bytes: usize, what: &'static str) -> Result<usize, StateError> {
        let count = usize::try_from(u32::from_be_bytes(self.array(what)?)).expect("32 bits fit");
        if count > self.bytes.len() / item_bytes.max(1) { Err(StateError::CutShort(what)) } else { Ok(count) }
    }

    /// Reads text.
    ///
    /// # Errors
    /// When the bytes end or are not UTF-8.
    pub fn text(&mut self, what: &'static str) -> Result<&'a str, StateError> {
        std::str::from_utf8(self.bytes(what)?).map_err(|_| StateError::Invalid(what))
    }

    /// Reads bytes that have their number in front.
    ///
    /// # Errors
    /// When they end too early.
    pub fn bytes(&mut self, what: &'static str) -> Result<&'a [u8], StateError> {
        let length = self.count(1, what)?;
        let (bytes, rest) = self.bytes.split_at(length);
        self.bytes = rest;
        Ok(bytes)
    }

    /// Reads the byte in front and checks that it is the one version that is known.
    ///
    /// # Errors
    /// When it is another.
    pub fn version(&mut self, known: u8) -> Result<(), StateError> {
        match self.u8("version")? {
            version if version == known => Ok(()),
            version => Err(StateError::Newer { what: "version", number: version.into() }),
        }
    }

    /// As [`Reader::version`], of versions that are all known: which it is.
    ///
    /// # Errors
    /// When it is another.
    pub fn versions(&mut self, known: std::ops::RangeInclusive<u8>) -> Result<u8, StateError> {
        match self.u8("version")? {
            version if known.contains(&version) => Ok(version),
            version => Err(StateError::Newer { what: "version", number: version.into() }),
        }
    }

    /// Checks that nothing is left.
    ///
    /// # Errors
    /// When something is.
    pub fn end(&self) -> Result<(), StateError> {
        if self.bytes.is_empty() { Ok(()) } else { Err(StateError::Trailing(self.bytes.len())) }
    }
}
