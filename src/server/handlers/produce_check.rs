//! What Produce checks, and sometimes rewrites, before a batch goes to its partition: all that needs the topic's configs but no state.

use bytes::{Bytes, BytesMut};

use crate::ids::Timestamp;
use crate::machine::topic_config::{TimestampType, TopicConfig};
use crate::protocol::batch::{self, BatchError, BatchHeader, HEADER_BYTES};
use crate::protocol::compression::Compression;
use crate::protocol::error_code::ErrorCode;
use crate::protocol::messages::produce::{BatchIndexAndErrorMessage, PartitionProduceResponse};
use crate::protocol::record::{ReadError, read_records};
use crate::protocol::value::Text;
use crate::server::error;

/// `log_append_time` of a batch that keeps its producer's times.
pub(super) const NO_APPEND_TIME: i64 = -1;
/// The first version in which clients know zstd (KIP-110).
const ZSTD_FROM: i16 = 7;
/// What a batch may hold unpacked, as a multiple of `max.message.bytes`: the broker looks inside only of compacted topics' batches and of
/// those it has to compress anew.
const UNPACKED_FACTOR: usize = 64;
/// Records at fault that one answer names. A small compressed batch holds millions, and an answer with all of them would take gigabytes.
const RECORDS_NAMED_MAX: usize = 1000;

/// A batch that may be submitted.
pub(super) struct Checked {
    pub(super) batch: Bytes,
    pub(super) header: BatchHeader,
    /// The time of its arrival, if its topic uses that.
    pub(super) append_time: i64,
}

/// A batch that failed a check.
#[derive(Debug)]
pub(super) struct Refused {
    code: ErrorCode,
    message: String,
    /// Named in `record_errors` (KIP-467) when the fault is that of records.
    records: Vec<i32>,
}

impl Refused {
    fn new(code: ErrorCode, message: impl Into<String>) -> Self {
        Self { code, message: message.into(), records: Vec::new() }
    }

    /// What the client is told.
    pub(super) fn response(self, index: i32) -> PartitionProduceResponse {
        let message = Text::from(self.message);
        let record_errors = self.records.into_iter().map(|batch_index| BatchIndexAndErrorMessage {
            batch_index,
            batch_index_error_message: Some(message.clone()),
        });
        PartitionProduceResponse {
            record_errors: record_errors.collect(),
            error_message: Some(message),
            ..super::produce::failed(index, self.code)
        }
    }
}

impl From<BatchError> for Refused {
    fn from(error: BatchError) -> Self {
        Self::new(error::batch(&error), error.to_string())
    }
}

impl From<ReadError> for Refused {
    fn from(error: ReadError) -> Self {
        Self::new(ErrorCode::INVALID_RECORD, error.to_string())
    }
}

/// Checks one partition's bytes, for a request of `version` that arrived at `now`.
pub(super) fn check(config: &TopicConfig, version: i16, bytes: Bytes, now: Timestamp) -> Result<Checked, Refused> {
    let header = batch::check_client_batch(&bytes)?;
    let size = i64::try_from(header.size_bytes()).expect("a length fits");
    if size > config.max_message_bytes {
        let max = config.max_message_bytes;
        let message =
            format!("The record batch size is {size} bytes, which exceeds the maximum configured value of {max}.");
        return Err(Refused::new(ErrorCode::MESSAGE_TOO_LARGE, message));
    }
    if size > config.segment_bytes {
        let max = config.segment_bytes;
        let message = format!("A batch of {size} bytes does not fit into a segment of {max} bytes.");
        return Err(Refused::new(ErrorCode::RECORD_LIST_TOO_LARGE, message));
    }
    let codec = header.compression()?;
    if codec == Compression::Zstd && version < ZSTD_FROM {
        let message = format!("Produce requests with version {version} are not allowed to use ZStandard compression");
        return Err(Refused::new(ErrorCode::UNSUPPORTED_COMPRESSION_TYPE, message));
    }
    if header.is_transactional() {
        let message = "This broker has no transactions yet: a transactional batch belongs to none.";
        return Err(Refused::new(ErrorCode::INVALID_TXN_STATE, message));
    }
    let max_unpacked = usize::try_from(config.max_message_bytes).unwrap_or(usize::MAX).saturating_mul(UNPACKED_FACTOR);
    if config.compact {
        check_keys(&bytes, max_unpacked)?;
    }
    check_times(config, &header, now)?;
    let bytes = match config.compression {
        Some(wanted) if wanted != codec => recompress(&bytes, wanted, max_unpacked)?,
        _ => bytes,
    };
    match config.timestamp_type {
        TimestampType::CreateTime => {
            Ok(Checked { header: BatchHeader::parse(&bytes)?, batch: bytes, append_time: NO_APPEND_TIME })
        }
        TimestampType::LogAppendTime => {
            let mut stamped = BytesMut::from(&bytes[..]);
            batch::stamp_log_append_time(&mut stamped, now.0);
            let batch = stamped.freeze();
            Ok(Checked { header: BatchHeader::parse(&batch)?, batch, append_time: now.0 })
        }
    }
}

fn check_keys(bytes: &Bytes, max_unpacked: usize) -> Result<(), Refused> {
    let mut without = Vec::new();
    for (index, record) in (0..).zip(read_records(bytes, max_unpacked)?) {
        let record = record.map_err(|error| Refused::new(ErrorCode::INVALID_RECORD, error.to_string()))?;
        if record.key.is_none() {
            without.push(index);
        }
        if without.len() == RECORDS_NAMED_MAX {
            break;
        }
    }
    if without.is_empty() {
        return Ok(());
    }
    let message = "Compacted topic cannot accept message without key in topic partition.";
    Err(Refused { records: without, ..Refused::new(ErrorCode::INVALID_RECORD, message) })
}

fn check_times(config: &TopicConfig, header: &BatchHeader, now: Timestamp) -> Result<(), Refused> {
    if config.timestamp_type == TimestampType::LogAppendTime {
        return Ok(());
    }
    let newest = header.max_timestamp;
    if header.is_log_append_time() {
        let message = "Invalid timestamp type: a client's batch cannot carry the time of its arrival.";
        return Err(Refused::new(ErrorCode::INVALID_TIMESTAMP, message));
    }
    let earliest = now.0.saturating_sub(config.timestamp_before_max_ms);
    let latest = now.0.saturating_add(config.timestamp_after_max_ms);
    if newest < 0 || (earliest..=latest).contains(&newest) {
        return Ok(());
    }
    let message = format!(
        "Timestamp {newest} of message with offset {} is out of range. The timestamp should be within [{earliest}, {latest}]",
        header.last_offset_delta
    );
    let records = vec![header.last_offset_delta];
    Err(Refused { records, ..Refused::new(ErrorCode::INVALID_TIMESTAMP, message) })
}

/// The same records under another codec (topic config `compression.type`). Only attributes, length and CRC change.
fn recompress(bytes: &Bytes, wanted: Compression, max_unpacked: usize) -> Result<Bytes, Refused> {
    let header = BatchHeader::parse(bytes)?;
    let packed = bytes.slice(HEADER_BYTES..header.size_bytes());
    let plain = header.compression()?.decompress(&packed, max_unpacked).map_err(ReadError::from)?;
    // A compressed batch's framing was not walked when it was checked, and it may become an uncompressed one here.
    let records = read_records(bytes, max_unpacked)?;
    for record in records {
        record.map_err(|error| Refused::new(ErrorCode::INVALID_RECORD, error.to_string()))?;
    }
    let packed = wanted.compress(&plain);
    let codec_bits = 0x07;
    let attributes = (header.attributes & !codec_bits) | i16::from(wanted.code());
    let length = i32::try_from(HEADER_BYTES - 12 + packed.len());
    let batch_length = length.map_err(|_| Refused::new(ErrorCode::MESSAGE_TOO_LARGE, "the batch grows too large"))?;
    let header = BatchHeader { attributes, batch_length, ..header };
    let mut out = BytesMut::with_capacity(header.size_bytes());
    out.extend_from_slice(&header.encode());
    out.extend_from_slice(&packed);
    batch::stamp_crc(&mut out);
    Ok(out.freeze())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::machine::topic_config::{BrokerValues, Values};
    use crate::protocol::record::{BatchBuilder, NewRecord};

    const NOW: Timestamp = Timestamp(1_700_000_000_000);

    fn config(set: &[(&str, &str)]) -> TopicConfig {
        let topic: Values = set.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        let none = Values::new();
        TopicConfig::resolve(&topic, BrokerValues { dynamic: &none, dynamic_default: &none, fixed: &none })
    }

    fn batch(codec: Compression, timestamp: i64, key: Option<&[u8]>) -> Bytes {
        let mut builder = BatchBuilder::new(codec);
        builder.push(&NewRecord { timestamp, key, value: Some(b"value"), headers: &[] });
        builder.build()
    }

    fn code(config: &TopicConfig, version: i16, bytes: Bytes) -> ErrorCode {
        check(config, version, bytes, NOW).err().map_or(ErrorCode::NONE, |refused| refused.code)
    }

    #[test]
    fn configs_bound_size_and_time() {
        let plain = config(&[]);
        assert_eq!(code(&plain, 9, batch(Compression::None, NOW.0, None)), ErrorCode::NONE);
        assert_eq!(code(&plain, 9, batch(Compression::None, NOW.0 + 3_600_001, None)), ErrorCode::INVALID_TIMESTAMP);
        assert_eq!(code(&plain, 6, batch(Compression::Zstd, NOW.0, None)), ErrorCode::UNSUPPORTED_COMPRESSION_TYPE);
        let small = config(&[("max.message.bytes", "70")]);
        assert_eq!(code(&small, 9, batch(Compression::None, NOW.0, None)), ErrorCode::MESSAGE_TOO_LARGE);
        let compacted = config(&[("cleanup.policy", "compact")]);
        assert_eq!(code(&compacted, 9, batch(Compression::Gzip, NOW.0, None)), ErrorCode::INVALID_RECORD);
        assert_eq!(code(&compacted, 9, batch(Compression::Gzip, NOW.0, Some(b"k"))), ErrorCode::NONE);
    }

    #[test]
    fn an_answer_names_so_many_records_at_most() {
        let compacted = config(&[("cleanup.policy", "compact")]);
        let mut builder = BatchBuilder::new(Compression::Gzip);
        for _ in 0..RECORDS_NAMED_MAX + 10 {
            builder.push(&NewRecord { timestamp: NOW.0, key: None, value: None, headers: &[] });
        }
        let refused = check(&compacted, 9, builder.build(), NOW).err().expect("no record has a key");
        assert_eq!(refused.response(0).record_errors.len(), RECORDS_NAMED_MAX);
    }

    #[test]
    fn append_time_is_stamped_under_a_fresh_crc() {
        let config = config(&[("message.timestamp.type", "LogAppendTime")]);
        let checked = check(&config, 9, batch(Compression::Lz4, 5, None), NOW).unwrap_or_else(|_| panic!("accepted"));
        assert!(batch::crc_matches(&checked.batch));
        assert_eq!((checked.append_time, checked.header.max_timestamp), (NOW.0, NOW.0));
        assert!(checked.header.is_log_append_time());
    }

    #[test]
    fn a_topics_codec_replaces_the_producers() {
        for (name, codec) in
            [("uncompressed", Compression::None), ("gzip", Compression::Gzip), ("zstd", Compression::Zstd)]
        {
            let config = config(&[("compression.type", name)]);
            let sent = batch(Compression::Snappy, NOW.0, Some(b"k"));
            let checked = check(&config, 9, sent, NOW).unwrap_or_else(|_| panic!("accepted"));
            assert_eq!(checked.header.compression().unwrap(), codec);
            assert!(batch::check_client_batch(&checked.batch).is_ok(), "{name}");
            let record = read_records(&checked.batch, 1 << 20).unwrap().next().unwrap().unwrap();
            assert_eq!(record.value.as_deref(), Some(&b"value"[..]));
        }
    }
}
