//! Record batches, format version 2 (KIP-98): the header, its checks, and what a client's batch must be.
//!
//! A batch is a 61-byte header and the records behind it. Base offset, length, leader epoch and magic lie outside the
//! CRC-32C, so that a broker may stamp the first and the third in place; the CRC covers everything from `attributes` on.
//!
//! Nothing here allocates or copies. [`check_client_batch`] refuses what would stick the consumers behind it: a batch
//! whose CRC is right and whose counts, offsets or lengths lie. Compressed records are vouched for by header and CRC only.

use super::compression::Compression;
use super::record::{self, RecordError};

/// Bytes of a batch's header.
pub const HEADER_BYTES: usize = 61;

/// Bytes in front of what `batch_length` counts: base offset and the length itself.
pub const LENGTH_OVERHEAD: usize = 12;

/// The magic of the one batch format that is written and stored.
pub const MAGIC: i8 = 2;

/// The first byte that the CRC covers (`attributes`).
const CRC_FROM: usize = 21;
const CRC_AT: usize = 17;
const MAGIC_AT: usize = 16;

/// The least that `batch_length` may say for a version 2 batch.
const LENGTH_MIN: i32 = 49;
/// The least that it may say for a batch of any version (the overhead of a version 0 message).
const LENGTH_MIN_EVER: i32 = 14;

const COMPRESSION_MASK: i16 = 0x07;
const LOG_APPEND_TIME_BIT: i16 = 0x08;
const TRANSACTIONAL_BIT: i16 = 0x10;
const CONTROL_BIT: i16 = 0x20;

const _: () = assert!(HEADER_BYTES == LENGTH_OVERHEAD + LENGTH_MIN.unsigned_abs() as usize);

/// Why bytes are not a batch, or not one that a client may write.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum BatchError {
    /// There is no whole batch (Kafka: `INVALID_RECORD`).
    #[error("there is no complete record batch")]
    Missing,
    /// The length is less than the header it lies in takes (Kafka: `CORRUPT_MESSAGE`).
    #[error("the batch says it is {0} bytes long, which is less than its header")]
    Length(i32),
    /// A message set of before Kafka 0.11 (Kafka: `INVALID_RECORD`).
    #[error("record format version {0} is not supported, only {MAGIC}")]
    OldMagic(i8),
    /// No magic that Kafka ever had (Kafka: `CORRUPT_MESSAGE`).
    #[error("unknown record format version {0}")]
    UnknownMagic(i8),
    /// More than one batch (Kafka: `INVALID_RECORD`).
    #[error("there must be exactly one record batch for each partition")]
    MoreThanOne,
    /// Bytes behind the batch that are no batch (`INVALID_RECORD`; Kafka itself drops them in silence).
    #[error("there are {0} bytes behind the record batch")]
    Trailing(usize),
    /// The CRC does not match the bytes (Kafka: `CORRUPT_MESSAGE`).
    #[error("the batch's CRC is {stored:#010x}, its bytes give {computed:#010x}")]
    Crc {
        /// What the batch says.
        stored: u32,
        /// What its bytes give.
        computed: u32,
    },
    /// A client numbers its offsets from 0 (Kafka: `INVALID_RECORD`).
    #[error("the base offset of a client's batch should be 0, but it is {0}")]
    BaseOffset(i64),
    /// No records, or a negative number of them (Kafka: `INVALID_RECORD`).
    #[error("invalid record count {0}")]
    Count(i32),
    /// The last offset delta is not the count minus one (Kafka: `INVALID_RECORD`).
    #[error("the last offset delta {last_offset_delta} does not fit {record_count} records")]
    OffsetRange {
        /// The last offset delta that the header names.
        last_offset_delta: i32,
        /// The number of records that it names.
        record_count: i32,
    },
    /// A producer id without a sequence (Kafka: `INVALID_RECORD`).
    #[error("invalid sequence {base_sequence} in a batch of producer {producer_id}")]
    Sequence {
        /// The producer.
        producer_id: i64,
        /// The negative sequence.
        base_sequence: i32,
    },
    /// A control batch, which only brokers write (Kafka: `INVALID_RECORD`).
    #[error("clients may not write control records")]
    Control,
    /// A compression code that no codec has (`INVALID_RECORD`).
    #[error("unknown compression {0}")]
    Compression(u8),
    /// A record whose framing lies (Kafka: `INVALID_RECORD`).
    #[error("record {index}: {error}")]
    Record {
        /// Which record, from 0.
        index: i32,
        /// What is wrong with it.
        error: RecordError,
    },
    /// Bytes behind the last record (Kafka: `INVALID_RECORD`).
    #[error("{0} bytes follow the last record")]
    TrailingInBatch(usize),
}

/// The header of a batch, as it stands in the bytes. `-1` means "none" where Kafka says so (leader epoch, producer).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BatchHeader {
    /// Offset of the first record.
    pub base_offset: i64,
    /// Bytes behind this field.
    pub batch_length: i32,
    /// Leader epoch of the append.
    pub leader_epoch: i32,
    /// Format version: 2 for a batch.
    pub magic: i8,
    /// CRC-32C of everything from `attributes` on.
    pub crc: u32,
    /// Bits: 0-2 compression, 3 log append time, 4 transactional, 5 control, 6 delete horizon.
    pub attributes: i16,
    /// Offset of the last record minus `base_offset`.
    pub last_offset_delta: i32,
    /// Timestamp that the records' deltas count from, milliseconds.
    pub base_timestamp: i64,
    /// The highest timestamp of the records, milliseconds.
    pub max_timestamp: i64,
    /// The idempotent producer, or -1.
    pub producer_id: i64,
    /// Its epoch, or -1.
    pub producer_epoch: i16,
    /// Its sequence number for the first record, or -1.
    pub base_sequence: i32,
    /// Number of records.
    pub record_count: i32,
}

impl BatchHeader {
    /// Reads the header that `bytes` start with. Whether the rest is there, and what the magic is, is the caller's to ask.
    ///
    /// # Errors
    /// [`BatchError::Missing`] on fewer than [`HEADER_BYTES`]; [`BatchError::Length`] when the length is less than the header.
    pub fn parse(bytes: &[u8]) -> Result<Self, BatchError> {
        let header: &[u8; HEADER_BYTES] = bytes.first_chunk().ok_or(BatchError::Missing)?;
        let batch_length = i32::from_be_bytes(field(header, 8));
        if batch_length < LENGTH_MIN {
            return Err(BatchError::Length(batch_length));
        }
        Ok(Self {
            base_offset: i64::from_be_bytes(field(header, 0)),
            batch_length,
            leader_epoch: i32::from_be_bytes(field(header, 12)),
            magic: i8::from_be_bytes(field(header, MAGIC_AT)),
            crc: u32::from_be_bytes(field(header, CRC_AT)),
            attributes: i16::from_be_bytes(field(header, CRC_FROM)),
            last_offset_delta: i32::from_be_bytes(field(header, 23)),
            base_timestamp: i64::from_be_bytes(field(header, 27)),
            max_timestamp: i64::from_be_bytes(field(header, 35)),
            producer_id: i64::from_be_bytes(field(header, 43)),
            producer_epoch: i16::from_be_bytes(field(header, 51)),
            base_sequence: i32::from_be_bytes(field(header, 53)),
            record_count: i32::from_be_bytes(field(header, 57)),
        })
    }

    /// The header's bytes.
    #[must_use]
    pub fn encode(&self) -> [u8; HEADER_BYTES] {
        let mut out = [0; HEADER_BYTES];
        out[0..8].copy_from_slice(&self.base_offset.to_be_bytes());
        out[8..12].copy_from_slice(&self.batch_length.to_be_bytes());
        out[12..16].copy_from_slice(&self.leader_epoch.to_be_bytes());
        out[16..17].copy_from_slice(&self.magic.to_be_bytes());
        out[17..21].copy_from_slice(&self.crc.to_be_bytes());
        out[21..23].copy_from_slice(&self.attributes.to_be_bytes());
        out[23..27].copy_from_slice(&self.last_offset_delta.to_be_bytes());
        out[27..35].copy_from_slice(&self.base_timestamp.to_be_bytes());
        out[35..43].copy_from_slice(&self.max_timestamp.to_be_bytes());
        out[43..51].copy_from_slice(&self.producer_id.to_be_bytes());
        out[51..53].copy_from_slice(&self.producer_epoch.to_be_bytes());
        out[53..57].copy_from_slice(&self.base_sequence.to_be_bytes());
        out[57..61].copy_from_slice(&self.record_count.to_be_bytes());
        out
    }

    /// Bytes of the whole batch, header included.
    ///
    /// # Panics
    /// On a negative length, which [`BatchHeader::parse`] never returns.
    #[must_use]
    pub fn size_bytes(&self) -> usize {
        LENGTH_OVERHEAD + usize::try_from(self.batch_length).expect("a parsed batch length is positive")
    }

    /// Offset of the last record (of the entry before, for an entry without records, whose delta is -1).
    #[must_use]
    pub fn last_offset(&self) -> i64 {
        // Saturates: the fields come from a device, and a chain check finds out whether they fit.
        self.base_offset.saturating_add(i64::from(self.last_offset_delta))
    }

    /// The offset behind the last record.
    #[must_use]
    pub fn next_offset(&self) -> i64 {
        self.last_offset().saturating_add(1)
    }

    /// Sequence of the last record: sequences go on from 0 behind `i32::MAX`. Meaningless without a producer.
    #[must_use]
    pub fn last_sequence(&self) -> i32 {
        advance_sequence(self.base_sequence, self.last_offset_delta)
    }

    /// Whether the batch holds control records (transaction markers).
    #[must_use]
    pub const fn is_control(&self) -> bool {
        self.attributes & CONTROL_BIT != 0
    }

    /// Whether the batch is part of a transaction.
    #[must_use]
    pub const fn is_transactional(&self) -> bool {
        self.attributes & TRANSACTIONAL_BIT != 0
    }

    /// Whether the broker set the timestamp: `max_timestamp` is then that of every record.
    #[must_use]
    pub const fn is_log_append_time(&self) -> bool {
        self.attributes & LOG_APPEND_TIME_BIT != 0
    }

    /// Whether an idempotent producer wrote it.
    #[must_use]
    pub const fn has_producer(&self) -> bool {
        self.producer_id > -1
    }

    /// The codec of the records.
    ///
    /// # Errors
    /// [`BatchError::Compression`] when no codec has that code.
    pub fn compression(&self) -> Result<Compression, BatchError> {
        let code = u8::try_from(self.attributes & COMPRESSION_MASK).expect("three bits");
        Compression::from_code(code).ok_or(BatchError::Compression(code))
    }
}

/// The attribute bits of a batch.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Attributes {
    /// The codec of the records.
    pub compression: Compression,
    /// Whether the broker set the timestamp.
    pub log_append_time: bool,
    /// Whether the batch is part of a transaction.
    pub transactional: bool,
    /// Whether the records are control records.
    pub control: bool,
}

impl Attributes {
    /// The bits as they stand in a header.
    #[must_use]
    pub fn bits(self) -> i16 {
        let bit = |set: bool, bit: i16| if set { bit } else { 0 };
        i16::from(self.compression.code())
            | bit(self.log_append_time, LOG_APPEND_TIME_BIT)
            | bit(self.transactional, TRANSACTIONAL_BIT)
            | bit(self.control, CONTROL_BIT)
    }
}

/// The sequence `by` records behind `sequence`: 0 follows `i32::MAX` (KIP-98).
#[must_use]
pub fn advance_sequence(sequence: i32, by: i32) -> i32 {
    let sum = i64::from(sequence) + i64::from(by);
    i32::try_from(sum.rem_euclid(1 << 31)).expect("a remainder of 2^31 fits")
}

/// CRC-32C of the parts as if they were one piece.
#[must_use]
pub fn crc32c(parts: &[&[u8]]) -> u32 {
    if let [one] = parts {
        return crc_fast::crc32_iscsi(one);
    }
    let mut digest = crc_fast::Digest::new(crc_fast::CrcAlgorithm::Crc32Iscsi);
    for part in parts {
        digest.update(part);
    }
    u32::try_from(digest.finalize()).expect("a CRC of 32 bits")
}

/// Whether the CRC of a whole batch matches its bytes. A slice shorter than a header does not match.
#[must_use]
pub fn crc_matches(batch: &[u8]) -> bool {
    crcs(batch).is_some_and(|(stored, computed)| stored == computed)
}

/// Writes the CRC of a whole batch anew, after something that it covers was changed.
///
/// # Panics
/// When the slice is shorter than a header.
pub fn stamp_crc(batch: &mut [u8]) {
    let computed = crc32c(&[&batch[CRC_FROM..]]);
    batch[CRC_AT..CRC_FROM].copy_from_slice(&computed.to_be_bytes());
}

/// Makes the broker's time that of every record of a whole batch: sets the maximum timestamp, marks the batch as
/// having log append time and computes the CRC anew (topic config `message.timestamp.type`).
///
/// # Panics
/// When the slice is shorter than a header.
pub fn stamp_log_append_time(batch: &mut [u8], timestamp: i64) {
    let attributes = i16::from_be_bytes([batch[CRC_FROM], batch[CRC_FROM + 1]]) | LOG_APPEND_TIME_BIT;
    batch[CRC_FROM..CRC_FROM + 2].copy_from_slice(&attributes.to_be_bytes());
    batch[35..43].copy_from_slice(&timestamp.to_be_bytes());
    stamp_crc(batch);
}

/// Checks what a client wants to append, as Kafka does, in Kafka's order: exactly one version 2 batch, whole, from
/// offset 0, with the right CRC, counts that fit, a sequence if there is a producer, and no control records. The record
/// framing of an uncompressed batch is walked: lengths, offset deltas 0 to n-1, nothing behind the last record.
///
/// What needs a topic's configuration or the request's version (size, timestamps, zstd) is the caller's to check.
///
/// # Errors
/// The first thing that is wrong.
pub fn check_client_batch(bytes: &[u8]) -> Result<BatchHeader, BatchError> {
    let size = frame(bytes)?.ok_or(BatchError::Missing)?;
    let magic = i8::from_be_bytes([bytes[MAGIC_AT]]);
    if magic != MAGIC {
        return Err(BatchError::OldMagic(magic));
    }
    let (batch, behind) = bytes.split_at(size);
    if frame(behind)?.is_some() {
        return Err(BatchError::MoreThanOne);
    }
    if !behind.is_empty() {
        return Err(BatchError::Trailing(behind.len()));
    }
    // A whole batch that is too short for a header has no base offset to speak of: parse says which.
    let header = match BatchHeader::parse(batch) {
        Err(BatchError::Missing) => {
            let length = i32::from_be_bytes(field(batch, 8));
            return Err(BatchError::Length(length));
        }
        parsed => parsed?,
    };
    if header.base_offset != 0 {
        return Err(BatchError::BaseOffset(header.base_offset));
    }
    let (stored, computed) = crcs(batch).expect("a parsed header is there");
    if stored != computed {
        return Err(BatchError::Crc { stored, computed });
    }
    check_header(&header)?;
    if header.compression()? == Compression::None {
        walk(&batch[HEADER_BYTES..], header.record_count)?;
    }
    Ok(header)
}

/// Size of the batch that `bytes` start with, none when it is not all there (as Kafka reads it: what is not whole is
/// not there).
fn frame(bytes: &[u8]) -> Result<Option<usize>, BatchError> {
    if bytes.len() < LENGTH_OVERHEAD {
        return Ok(None);
    }
    let length = i32::from_be_bytes(field(bytes, 8));
    if length < LENGTH_MIN_EVER {
        return Err(BatchError::Length(length));
    }
    let Some(magic) = bytes.get(MAGIC_AT) else { return Ok(None) };
    let magic = i8::from_be_bytes([*magic]);
    if !(0..=MAGIC).contains(&magic) {
        return Err(BatchError::UnknownMagic(magic));
    }
    let size = LENGTH_OVERHEAD + usize::try_from(length).expect("checked to be positive");
    Ok((size <= bytes.len()).then_some(size))
}

fn check_header(header: &BatchHeader) -> Result<(), BatchError> {
    let &BatchHeader { last_offset_delta, record_count, producer_id, base_sequence, .. } = header;
    if record_count <= 0 {
        return Err(BatchError::Count(record_count));
    }
    if last_offset_delta != record_count - 1 {
        return Err(BatchError::OffsetRange { last_offset_delta, record_count });
    }
    if header.has_producer() && base_sequence < 0 {
        return Err(BatchError::Sequence { producer_id, base_sequence });
    }
    if header.is_control() {
        return Err(BatchError::Control);
    }
    Ok(())
}

/// Walks the framing of uncompressed records.
fn walk(mut records: &[u8], count: i32) -> Result<(), BatchError> {
    for index in 0..count {
        let (delta, rest) = record::walk(records).map_err(|error| BatchError::Record { index, error })?;
        if delta != index {
            return Err(BatchError::Record { index, error: RecordError::OffsetDelta(delta) });
        }
        records = rest;
    }
    if records.is_empty() { Ok(()) } else { Err(BatchError::TrailingInBatch(records.len())) }
}

/// The stored and the computed CRC.
fn crcs(batch: &[u8]) -> Option<(u32, u32)> {
    if batch.len() < HEADER_BYTES {
        return None;
    }
    Some((u32::from_be_bytes(field(batch, CRC_AT)), crc32c(&[&batch[CRC_FROM..]])))
}

/// The `N` bytes at `at`, which the caller has checked to be there.
fn field<const N: usize>(bytes: &[u8], at: usize) -> [u8; N] {
    *bytes[at..].first_chunk().expect("the caller checked the length")
}

#[cfg(test)]
#[path = "batch_tests.rs"]
mod tests;
