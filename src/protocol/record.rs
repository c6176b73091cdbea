//! The records inside a version 2 batch: reading them, and building batches of them.
//!
//! Used where somebody must look inside: consumers, benches, tests, and the broker for topics whose rules speak of keys.
//! Produce and fetch never come here but for [`walk`]. Reading is lazy, and bounded by what the batch really holds: counts
//! and lengths are believed only once the bytes are there.

use bytes::{Buf, BufMut, Bytes};

use super::batch::{Attributes, BatchError, BatchHeader, HEADER_BYTES, LENGTH_OVERHEAD, MAGIC, stamp_crc};
use super::compression::{Compression, CompressionError};

/// What is wrong with one record's framing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RecordError {
    /// The bytes end inside the record.
    #[error("the batch ends inside the record")]
    CutShort,
    /// A variable-length number of more bytes than its type has.
    #[error("a number takes too many bytes")]
    Number,
    /// A negative length where none may be, or one that means nothing.
    #[error("invalid length {0}")]
    Length(i32),
    /// The fields take more or fewer bytes than the record says it has.
    #[error("the fields do not take the {0} bytes that the record says it has")]
    Size(usize),
    /// The record's offset is not its place in the batch.
    #[error("offset delta {0} is not the record's place in the batch")]
    OffsetDelta(i32),
}

/// Why a batch's records cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    /// The header is not that of a version 2 batch.
    #[error(transparent)]
    Batch(#[from] BatchError),
    /// The records cannot be decompressed within the bound.
    #[error(transparent)]
    Compression(#[from] CompressionError),
    /// A record's framing is wrong.
    #[error(transparent)]
    Record(#[from] RecordError),
}

/// One record of a batch. Key, value and headers share the memory of the (decompressed) batch: copy what is kept.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Record {
    /// The record's offset.
    pub offset: i64,
    /// Its timestamp, milliseconds: the client's, or the broker's where the batch says so.
    pub timestamp: i64,
    /// Its key.
    pub key: Option<Bytes>,
    /// Its value; none is a tombstone.
    pub value: Option<Bytes>,
    /// Its headers, in order.
    pub headers: Vec<Header>,
}

/// A record's header.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Header {
    /// The name: UTF-8 by agreement of the clients, which no broker checks.
    pub key: Bytes,
    /// The value.
    pub value: Option<Bytes>,
}

/// The records of a whole batch, decompressed into at most `max_bytes`. The CRC is not looked at.
///
/// # Errors
/// When the header is none of a version 2 batch, or the records do not decompress within the bound. Each record's own
/// errors come with the record; nothing follows an error.
pub fn read_records(batch: &Bytes, max_bytes: usize) -> Result<Records, ReadError> {
    let header = BatchHeader::parse(batch)?;
    if header.magic != MAGIC {
        return Err(BatchError::UnknownMagic(header.magic).into());
    }
    if header.size_bytes() > batch.len() {
        return Err(BatchError::Missing.into());
    }
    let packed = batch.slice(HEADER_BYTES..header.size_bytes());
    let plain = header.compression()?.decompress(&packed, max_bytes)?;
    Ok(Records { header, plain, left: header.record_count.max(0) })
}

/// Iterator over the records of a batch; see [`read_records`].
#[derive(Debug)]
pub struct Records {
    header: BatchHeader,
    plain: Bytes,
    left: i32,
}

impl Records {
    /// The batch's header.
    #[must_use]
    pub const fn header(&self) -> &BatchHeader {
        &self.header
    }
}

impl Iterator for Records {
    type Item = Result<Record, RecordError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.left == 0 {
            return None;
        }
        let record = read_record(&mut self.plain, &self.header);
        self.left = if record.is_ok() { self.left - 1 } else { 0 };
        Some(record)
    }
}

fn read_record(plain: &mut Bytes, header: &BatchHeader) -> Result<Record, RecordError> {
    let size = get_length(plain)?;
    if size > plain.len() {
        return Err(RecordError::CutShort);
    }
    let mut body = plain.split_to(size);
    if body.is_empty() {
        return Err(RecordError::CutShort);
    }
    body.advance(1); // attributes: none are defined
    let timestamp_delta = get_varlong(&mut body)?;
    let offset_delta = get_varint(&mut body)?;
    let key = get_bytes(&mut body)?;
    let value = get_bytes(&mut body)?;
    let count = get_length(&mut body)?;
    // Each header takes two bytes at least, so the count cannot make this grow past the record.
    let mut headers = Vec::with_capacity(count.min(body.len() / 2));
    for _ in 0..count {
        let key = get_bytes(&mut body)?.ok_or(RecordError::Length(-1))?;
        headers.push(Header { key, value: get_bytes(&mut body)? });
    }
    if !body.is_empty() {
        return Err(RecordError::Size(size));
    }
    let timestamp = if header.is_log_append_time() {
        header.max_timestamp
    } else {
        header.base_timestamp.saturating_add(timestamp_delta)
    };
    Ok(Record { offset: header.base_offset.saturating_add(i64::from(offset_delta)), timestamp, key, value, headers })
}

/// Walks over one record's framing without looking at what it holds. Returns its offset delta and the bytes behind it.
///
/// # Errors
/// What is wrong with the framing.
pub fn walk(records: &[u8]) -> Result<(i32, &[u8]), RecordError> {
    let mut cursor = records;
    let size = get_length(&mut cursor)?;
    let (mut body, rest) = cursor.split_at_checked(size).ok_or(RecordError::CutShort)?;
    skip(&mut body, 1)?; // attributes: none are defined
    get_varlong(&mut body)?;
    let offset_delta = get_varint(&mut body)?;
    skip_bytes(&mut body, Nullable::Yes)?;
    skip_bytes(&mut body, Nullable::Yes)?;
    for _ in 0..get_length(&mut body)? {
        // Ends with the body at the latest: each header takes bytes or fails.
        skip_bytes(&mut body, Nullable::No)?;
        skip_bytes(&mut body, Nullable::Yes)?;
    }
    if body.is_empty() { Ok((offset_delta, rest)) } else { Err(RecordError::Size(size)) }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Nullable {
    Yes,
    No,
}

fn skip(body: &mut &[u8], bytes: usize) -> Result<(), RecordError> {
    *body = body.get(bytes..).ok_or(RecordError::CutShort)?;
    Ok(())
}

fn skip_bytes(body: &mut &[u8], nullable: Nullable) -> Result<(), RecordError> {
    match get_varint(body)? {
        -1 if nullable == Nullable::Yes => Ok(()),
        length => skip(body, usize::try_from(length).map_err(|_| RecordError::Length(length))?),
    }
}

fn get_bytes(body: &mut Bytes) -> Result<Option<Bytes>, RecordError> {
    let length = match get_varint(body)? {
        -1 => return Ok(None),
        length => usize::try_from(length).map_err(|_| RecordError::Length(length))?,
    };
    if length > body.len() { Err(RecordError::CutShort) } else { Ok(Some(body.split_to(length))) }
}

fn get_length(body: &mut impl Buf) -> Result<usize, RecordError> {
    let length = get_varint(body)?;
    usize::try_from(length).map_err(|_| RecordError::Length(length))
}

fn get_varint(body: &mut impl Buf) -> Result<i32, RecordError> {
    let value = get_unsigned(body, u32::BITS)?;
    let value = u32::try_from(value).map_err(|_| RecordError::Number)?;
    Ok((value >> 1).cast_signed() ^ -(value & 1).cast_signed())
}

fn get_varlong(body: &mut impl Buf) -> Result<i64, RecordError> {
    let value = get_unsigned(body, u64::BITS)?;
    Ok((value >> 1).cast_signed() ^ -(value & 1).cast_signed())
}

/// A number in groups of seven bits, the lowest first; the top bit says that more follows.
fn get_unsigned(body: &mut impl Buf, bits: u32) -> Result<u64, RecordError> {
    let mut value = 0;
    for shift in (0..bits).step_by(7) {
        if !body.has_remaining() {
            return Err(RecordError::CutShort);
        }
        let byte = body.get_u8();
        let group = u64::from(byte & 0x7f);
        if shift > 0 && group.leading_zeros() < shift {
            return Err(RecordError::Number);
        }
        value |= group << shift;
        if byte < 0x80 {
            return Ok(value);
        }
    }
    Err(RecordError::Number)
}

fn put_unsigned(out: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        out.put_u8(0x80 | u8::try_from(value & 0x7f).expect("seven bits"));
        value >>= 7;
    }
    out.put_u8(u8::try_from(value).expect("seven bits"));
}

const fn zigzag(value: i64) -> u64 {
    ((value << 1) ^ (value >> 63)).cast_unsigned()
}

const fn varint_bytes(value: i64) -> usize {
    let bits = 64 - (zigzag(value) | 1).leading_zeros();
    bits.div_ceil(7) as usize
}

fn put_varint(out: &mut Vec<u8>, value: i64) {
    put_unsigned(out, zigzag(value));
}

/// The producer that a batch belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Producer {
    /// Its id.
    pub id: i64,
    /// Its epoch.
    pub epoch: i16,
    /// The sequence of the batch's first record.
    pub base_sequence: i32,
}

/// What [`BatchBuilder::push`] takes: one record, borrowed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct NewRecord<'a> {
    /// Milliseconds since the Unix epoch.
    pub timestamp: i64,
    /// The key.
    pub key: Option<&'a [u8]>,
    /// The value; none is a tombstone.
    pub value: Option<&'a [u8]>,
    /// Names and values of the headers.
    pub headers: &'a [(&'a str, Option<&'a [u8]>)],
}

/// Builds one version 2 batch, from offset 0, as a client sends it.
#[derive(Debug)]
pub struct BatchBuilder {
    attributes: Attributes,
    producer: Option<Producer>,
    base_timestamp: i64,
    max_timestamp: i64,
    count: i32,
    /// Room for the header, then the records as they are before compression.
    bytes: Vec<u8>,
}

impl BatchBuilder {
    /// An empty batch whose records will be compressed by `compression`.
    #[must_use]
    pub fn new(compression: Compression) -> Self {
        Self::with_attributes(Attributes { compression, ..Attributes::default() })
    }

    /// An empty batch with the given attributes.
    #[must_use]
    pub fn with_attributes(attributes: Attributes) -> Self {
        Self {
            attributes,
            producer: None,
            base_timestamp: 0,
            max_timestamp: i64::MIN,
            count: 0,
            bytes: vec![0; HEADER_BYTES],
        }
    }

    /// Makes it a batch of an idempotent producer.
    #[must_use]
    pub const fn producer(mut self, producer: Producer) -> Self {
        self.producer = Some(producer);
        self
    }

    /// Sets memory aside for a batch of that many bytes before compression.
    pub fn reserve(&mut self, bytes: usize) {
        self.bytes.reserve(bytes.saturating_sub(self.bytes.len()));
    }

    /// Adds a record.
    ///
    /// # Panics
    /// When a record's field is larger than 2 GiB.
    pub fn push(&mut self, record: &NewRecord<'_>) {
        if self.count == 0 {
            self.base_timestamp = record.timestamp;
        }
        self.max_timestamp = self.max_timestamp.max(record.timestamp);
        let timestamp_delta = record.timestamp.wrapping_sub(self.base_timestamp);
        let size = 1
            + varint_bytes(timestamp_delta)
            + varint_bytes(i64::from(self.count))
            + field_bytes(record.key)
            + field_bytes(record.value)
            + varint_bytes(length(record.headers.len()))
            + record.headers.iter().map(|(k, v)| field_bytes(Some(k.as_bytes())) + field_bytes(*v)).sum::<usize>();
        put_varint(&mut self.bytes, length(size));
        self.bytes.put_u8(0);
        put_varint(&mut self.bytes, timestamp_delta);
        put_varint(&mut self.bytes, i64::from(self.count));
        put_field(&mut self.bytes, record.key);
        put_field(&mut self.bytes, record.value);
        put_varint(&mut self.bytes, length(record.headers.len()));
        for (key, value) in record.headers {
            put_field(&mut self.bytes, Some(key.as_bytes()));
            put_field(&mut self.bytes, *value);
        }
        self.count += 1;
    }

    /// Number of records so far.
    #[must_use]
    pub const fn count(&self) -> i32 {
        self.count
    }

    /// Bytes of the batch so far, before compression.
    #[must_use]
    pub const fn size_bytes(&self) -> usize {
        self.bytes.len()
    }

    /// The batch, compressed and with its CRC.
    ///
    /// # Panics
    /// Without a record (no such batch exists), or past 2 GiB.
    #[must_use]
    pub fn build(self) -> Bytes {
        assert!(self.count > 0, "a batch has at least one record");
        let mut bytes = self.bytes;
        if self.attributes.compression != Compression::None {
            let packed = self.attributes.compression.compress(&bytes[HEADER_BYTES..]);
            bytes.truncate(HEADER_BYTES);
            bytes.extend_from_slice(&packed);
        }
        let producer = self.producer.unwrap_or(Producer { id: -1, epoch: -1, base_sequence: -1 });
        let header = BatchHeader {
            base_offset: 0,
            batch_length: i32::try_from(bytes.len() - LENGTH_OVERHEAD).expect("a batch is smaller than 2 GiB"),
            leader_epoch: -1,
            magic: MAGIC,
            crc: 0,
            attributes: self.attributes.bits(),
            last_offset_delta: self.count - 1,
            base_timestamp: self.base_timestamp,
            max_timestamp: self.max_timestamp,
            producer_id: producer.id,
            producer_epoch: producer.epoch,
            base_sequence: producer.base_sequence,
            record_count: self.count,
        };
        bytes[..HEADER_BYTES].copy_from_slice(&header.encode());
        stamp_crc(&mut bytes);
        Bytes::from(bytes)
    }
}

fn length(n: usize) -> i64 {
    i64::from(i32::try_from(n).expect("a record's fields are smaller than 2 GiB"))
}

fn field_bytes(field: Option<&[u8]>) -> usize {
    field.map_or(1, |bytes| varint_bytes(length(bytes.len())) + bytes.len())
}

fn put_field(out: &mut Vec<u8>, field: Option<&[u8]>) {
    put_varint(out, field.map_or(-1, |bytes| length(bytes.len())));
    out.extend_from_slice(field.unwrap_or_default());
}

#[cfg(test)]
#[path = "record_tests.rs"]
mod tests;
