//! Produce requests made in place: one buffer a connection, in which each batch gets new records, sequence and checksum.
//!
//! The frame is encoded once by the codec; afterwards only what differs is written, so that the generator leaves the
//! processor to the broker. The bytes are those that the codec would have written.

use bytes::Bytes;

use super::noise::Noise;
use crate::cli::client::CLIENT_ID;
use crate::protocol::batch::{self, advance_sequence};
use crate::protocol::compression::Compression;
use crate::protocol::frame::encode_request;
use crate::protocol::messages::ProduceRequest;
use crate::protocol::messages::produce::{PartitionProduceData, TopicProduceData};
use crate::protocol::primitive::EncodeError;
use crate::protocol::record::{BatchBuilder, NewRecord, Producer, read_records};
use crate::protocol::value::Records;

/// Where the correlation id stands in a frame.
const CORRELATION_ID: std::ops::Range<usize> = 8..12;
/// Where these fields stand in a batch.
const BASE_TIMESTAMP: usize = 27;
const MAX_TIMESTAMP: usize = 35;
const BASE_SEQUENCE: usize = 53;

/// What the requests of one connection are like.
#[derive(Clone, Copy, Debug)]
pub(super) struct Shape<'a> {
    pub(super) topic: &'a str,
    pub(super) version: i16,
    pub(super) acks: i16,
    pub(super) timeout_ms: i32,
    /// Bytes of a record's value.
    pub(super) record_bytes: usize,
    /// Bytes that a batch has at most; one record stands in it in any case.
    pub(super) batch_bytes: usize,
    /// The idempotent producer's id and epoch, if it is one.
    pub(super) producer: Option<(i64, i16)>,
}

/// The requests of one connection.
#[derive(Debug)]
pub(super) struct ProduceFrames {
    frame: Vec<u8>,
    /// What stands before the batch, for each partition of the connection.
    heads: Vec<Vec<u8>>,
    sequences: Vec<i32>,
    batch: std::ops::Range<usize>,
    /// Where the values of the records stand in the frame.
    values: Vec<std::ops::Range<usize>>,
    idempotent: bool,
    noise: Noise,
    next: usize,
    next_id: i32,
}

impl ProduceFrames {
    /// Requests that go to the partitions in turn.
    ///
    /// # Errors
    /// If the version cannot say it.
    pub(super) fn new(shape: &Shape<'_>, partitions: &[i32], noise: Noise) -> Result<Self, EncodeError> {
        let batch = empty_batch(shape);
        let frame_of = |partition| encode(shape, partition, &batch);
        let frame = frame_of(partitions[0])?;
        let start = frame.windows(batch.len()).position(|window| window == batch).expect("the codec copies the batch");
        let head = |partition: &i32| frame_of(*partition).map(|frame| frame[..start].to_vec());
        Ok(Self {
            heads: partitions.iter().map(head).collect::<Result<_, _>>()?,
            sequences: vec![0; partitions.len()],
            batch: start..start + batch.len(),
            values: value_ranges(&batch, start),
            idempotent: shape.producer.is_some(),
            noise,
            next: 0,
            next_id: 0,
            frame,
        })
    }

    /// Bytes of a batch.
    pub(super) fn batch_bytes(&self) -> usize {
        self.batch.len()
    }

    /// Records of a batch.
    pub(super) fn records(&self) -> usize {
        self.values.len()
    }

    /// The next request: all of its records are new.
    pub(super) fn next(&mut self, now_ms: i64) -> &[u8] {
        let turn = self.next;
        self.next = (turn + 1) % self.heads.len();
        self.frame[..self.batch.start].copy_from_slice(&self.heads[turn]);
        self.frame[CORRELATION_ID].copy_from_slice(&self.next_id.to_be_bytes());
        self.next_id = self.next_id.wrapping_add(1);
        for value in &self.values {
            self.noise.fill(&mut self.frame[value.clone()]);
        }
        let batch = &mut self.frame[self.batch.clone()];
        batch[BASE_TIMESTAMP..][..8].copy_from_slice(&now_ms.to_be_bytes());
        batch[MAX_TIMESTAMP..][..8].copy_from_slice(&now_ms.to_be_bytes());
        if self.idempotent {
            let sequence = self.sequences[turn];
            batch[BASE_SEQUENCE..][..4].copy_from_slice(&sequence.to_be_bytes());
            let records = i32::try_from(self.values.len()).expect("a batch counts its records in 32 bits");
            self.sequences[turn] = advance_sequence(sequence, records);
        }
        batch::stamp_crc(batch);
        &self.frame
    }
}

/// A batch of that shape whose records are all zeros.
fn empty_batch(shape: &Shape<'_>) -> Bytes {
    let value = vec![0; shape.record_bytes];
    let mut builder = BatchBuilder::new(Compression::None);
    if let Some((id, epoch)) = shape.producer {
        builder = builder.producer(Producer { id, epoch, base_sequence: 0 });
    }
    builder.reserve(shape.batch_bytes);
    let record = NewRecord { value: Some(&value), ..NewRecord::default() };
    loop {
        let before = builder.size_bytes();
        builder.push(&record);
        // The next record may be a few bytes longer than this one: its number takes more digits.
        let grown = builder.size_bytes() - before + 4;
        if builder.size_bytes() + grown > shape.batch_bytes {
            return builder.build();
        }
    }
}

fn encode(shape: &Shape<'_>, partition: i32, batch: &Bytes) -> Result<Vec<u8>, EncodeError> {
    let data = PartitionProduceData { index: partition, records: Some(Records::from(batch.clone())) };
    let request = ProduceRequest {
        transactional_id: None,
        acks: shape.acks,
        timeout_ms: shape.timeout_ms,
        topic_data: vec![TopicProduceData {
            name: shape.topic.into(),
            partition_data: vec![data],
            ..TopicProduceData::default()
        }],
    };
    Ok(encode_request(shape.version, 0, Some(CLIENT_ID), &request)?.concat())
}

/// Where the values of the batch's records are, counted from `start` bytes before the batch.
fn value_ranges(batch: &Bytes, start: usize) -> Vec<std::ops::Range<usize>> {
    let records = read_records(batch, batch.len()).expect("a batch that was just built");
    let value = |record: Result<crate::protocol::record::Record, _>| {
        let value = record.expect("a record that was just written").value.expect("its value is not null");
        // Values share the batch's memory.
        let from = start + (value.as_ptr().addr() - batch.as_ptr().addr());
        from..from + value.len()
    };
    records.map(value).collect()
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;
    use crate::protocol::batch::check_client_batch;
    use crate::protocol::frame::decode_body;
    use crate::protocol::header::RequestHeader;

    fn shape(record_bytes: usize, producer: Option<(i64, i16)>) -> Shape<'static> {
        Shape { topic: "bench", version: 9, acks: -1, timeout_ms: 1000, record_bytes, batch_bytes: 4096, producer }
    }

    #[test]
    fn every_request_is_one_that_a_broker_takes_and_no_record_comes_twice() {
        for (record_bytes, producer) in [(1024, None), (100, Some((7, 1))), (10_000, None), (1, None)] {
            let mut frames = ProduceFrames::new(&shape(record_bytes, producer), &[4, 9], Noise::new(5)).unwrap();
            let mut seen = BTreeSet::new();
            for turn in 0..6i32 {
                let frame = Bytes::copy_from_slice(frames.next(1_700_000_000_000));
                let (header, body) = RequestHeader::decode(frame.slice(4..)).unwrap();
                assert_eq!(header.correlation_id, turn);
                let mut request: ProduceRequest = decode_body(body, header.version).unwrap();
                let data = request.topic_data[0].partition_data.remove(0);
                assert_eq!(data.index, if turn % 2 == 0 { 4 } else { 9 });
                let batch = data.records.unwrap().into_bytes();
                assert_eq!(batch.len(), frames.batch_bytes());
                let header = check_client_batch(&batch).unwrap();
                assert_eq!(header.max_timestamp, 1_700_000_000_000);
                let records = i32::try_from(frames.records()).unwrap();
                assert_eq!(header.base_sequence, if producer.is_some() { turn / 2 * records } else { -1 });
                let values = read_records(&batch, 1 << 20).unwrap().map(|record| record.unwrap().value.unwrap());
                let values: Vec<_> = values.collect();
                assert_eq!((values.len(), values[0].len()), (frames.records(), record_bytes));
                // One byte cannot be distinct for long.
                assert!(record_bytes == 1 || values.into_iter().all(|value| seen.insert(value)));
            }
            assert!(frames.batch_bytes() <= 4096 || frames.records() == 1);
        }
    }
}
