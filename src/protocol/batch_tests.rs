use super::*;
use crate::protocol::record::{BatchBuilder, NewRecord, Producer};
use bytes::Bytes;
use proptest::prelude::*;

fn built(compression: Compression, values: &[&[u8]]) -> Vec<u8> {
    let mut builder = BatchBuilder::new(compression);
    for (i, value) in (0..).zip(values) {
        builder.push(&NewRecord {
            timestamp: 1000 + i,
            key: Some(b"key"),
            value: Some(value),
            headers: &[("h", None)],
        });
    }
    builder.build().to_vec()
}

/// A batch whose CRC is right whatever `change` did to it.
fn lying(change: impl FnOnce(&mut Vec<u8>)) -> Result<BatchHeader, BatchError> {
    let mut batch = built(Compression::None, &[b"one", b"two", b"three"]);
    change(&mut batch);
    stamp_crc(&mut batch);
    check_client_batch(&batch)
}

fn put<const N: usize>(batch: &mut [u8], at: usize, bytes: [u8; N]) {
    batch[at..at + N].copy_from_slice(&bytes);
}

#[test]
fn a_client_batch_of_each_codec_passes() {
    for compression in Compression::ALL {
        let batch = built(compression, &[b"one", b"two"]);
        let header = check_client_batch(&batch).unwrap();
        assert_eq!(header.compression(), Ok(compression));
        assert_eq!((header.record_count, header.last_offset_delta, header.max_timestamp), (2, 1, 1001));
        assert_eq!(header.size_bytes(), batch.len());
    }
}

#[test]
fn the_bytes_of_a_batch_are_kafkas() {
    let mut builder = BatchBuilder::new(Compression::None).producer(Producer { id: 5, epoch: 1, base_sequence: 9 });
    builder.push(&NewRecord { timestamp: 0x10, key: None, value: Some(b"v"), headers: &[] });
    builder.push(&NewRecord { timestamp: 0x0f, key: Some(b"k"), value: None, headers: &[("h", Some(b"w"))] });
    let golden: &[&[u8]] = &[
        &[0, 0, 0, 0, 0, 0, 0, 0],                       // base offset
        &[0, 0, 0, 69],                                  // length behind this field
        &[0xff; 4],                                      // leader epoch
        &[2],                                            // magic
        &[0x3b, 0x51, 0x2e, 0xb9],                       // CRC
        &[0, 0],                                         // attributes
        &[0, 0, 0, 1],                                   // last offset delta
        &[0, 0, 0, 0, 0, 0, 0, 0x10],                    // base timestamp
        &[0, 0, 0, 0, 0, 0, 0, 0x10],                    // max timestamp
        &[0, 0, 0, 0, 0, 0, 0, 5],                       // producer id
        &[0, 1],                                         // epoch
        &[0, 0, 0, 9],                                   // base sequence
        &[0, 0, 0, 2],                                   // records
        &[14, 0, 0, 0, 1, 2, b'v', 0],                   // length 7, attributes, deltas 0 0, no key, value, no headers
        &[22, 0, 1, 2, 2, b'k', 1, 2, 2, b'h', 2, b'w'], // length 11, attributes, deltas -1 1, key, no value, one header
    ];
    assert_eq!(builder.build(), golden.concat());
}

#[test]
fn a_header_reads_back_from_its_bytes() {
    let batch = built(Compression::Lz4, &[b"one"]);
    let header = BatchHeader::parse(&batch).unwrap();
    assert_eq!(header.encode(), batch[..HEADER_BYTES]);
}

#[test]
fn what_is_not_one_whole_batch_is_refused_as_kafka_does() {
    let batch = built(Compression::None, &[b"one"]);
    assert_eq!(check_client_batch(&[]), Err(BatchError::Missing));
    assert_eq!(check_client_batch(&batch[..batch.len() - 1]), Err(BatchError::Missing));
    assert_eq!(check_client_batch(&[&batch[..], &batch[..]].concat()), Err(BatchError::MoreThanOne));
    assert_eq!(check_client_batch(&[&batch[..], b"abc"].concat()), Err(BatchError::Trailing(3)));
    assert_eq!(lying(|b| put(b, 8, 13i32.to_be_bytes())), Err(BatchError::Length(13)));
    assert_eq!(lying(|b| put(b, 8, (-1i32).to_be_bytes())), Err(BatchError::Length(-1)));
    assert_eq!(lying(|b| put(b, 8, i32::MAX.to_be_bytes())), Err(BatchError::Missing));
    let short = [&[0; 8][..], &20i32.to_be_bytes(), &[0; 4], &[2], &[0; 15]].concat();
    assert_eq!(check_client_batch(&short), Err(BatchError::Length(20)));
}

#[test]
fn every_other_magic_is_refused() {
    for magic in i8::MIN..=i8::MAX {
        let expected = match magic {
            0 | 1 => BatchError::OldMagic(magic),
            2 => continue,
            _ => BatchError::UnknownMagic(magic),
        };
        assert_eq!(lying(|b| put(b, MAGIC_AT, magic.to_be_bytes())), Err(expected));
    }
}

#[test]
fn a_header_that_lies_is_refused_though_its_crc_is_right() {
    assert_eq!(lying(|b| put(b, 0, 7i64.to_be_bytes())), Err(BatchError::BaseOffset(7)));
    assert_eq!(lying(|b| put(b, 57, 0i32.to_be_bytes())), Err(BatchError::Count(0)));
    assert_eq!(lying(|b| put(b, 57, (-5i32).to_be_bytes())), Err(BatchError::Count(-5)));
    let range = |last_offset_delta, record_count| Err(BatchError::OffsetRange { last_offset_delta, record_count });
    assert_eq!(lying(|b| put(b, 57, 2i32.to_be_bytes())), range(2, 2));
    assert_eq!(lying(|b| put(b, 57, i32::MAX.to_be_bytes())), range(2, i32::MAX));
    assert_eq!(lying(|b| put(b, 23, (-1i32).to_be_bytes())), range(-1, 3));
    assert_eq!(lying(|b| put(b, 22, [0x20])), Err(BatchError::Control));
    assert_eq!(lying(|b| put(b, 22, [5])), Err(BatchError::Compression(5)));
    let sequence = BatchError::Sequence { producer_id: 1, base_sequence: -1 };
    assert_eq!(lying(|b| put(b, 43, 1i64.to_be_bytes())), Err(sequence));
}

#[test]
fn records_that_lie_are_refused_though_the_crc_is_right() {
    let both = |b: &mut Vec<u8>, count: i32| {
        put(b, 23, (count - 1).to_be_bytes());
        put(b, 57, count.to_be_bytes());
    };
    let record = |index, error| Err(BatchError::Record { index, error });
    assert_eq!(lying(|b| both(b, 4)), record(3, RecordError::CutShort));
    assert!(matches!(lying(|b| both(b, 2)), Err(BatchError::TrailingInBatch(_))));
    // The first record: length at 61, attributes, timestamp delta, offset delta at 64, key length at 65, then "key".
    assert_eq!(lying(|b| b[64] = 2), record(0, RecordError::OffsetDelta(1)));
    assert_eq!(lying(|b| b[64] = 1), record(0, RecordError::OffsetDelta(-1)));
    assert_eq!(lying(|b| b[65] = 3), record(0, RecordError::Length(-2)));
    assert_eq!(lying(|b| b[65] = 0x7e), record(0, RecordError::CutShort));
    assert_eq!(lying(|b| b[61] = 1), record(0, RecordError::Length(-1)));
    assert_eq!(lying(|b| b[61] += 2), record(0, RecordError::Size(16)));
    assert_eq!(lying(|b| put(b, 61, [0xff; 6])), record(0, RecordError::Number));
}

#[test]
fn a_flipped_bit_is_found() {
    let batch = built(Compression::Gzip, &[b"one", b"two"]);
    assert!(crc_matches(&batch));
    for byte in CRC_AT..batch.len() {
        let mut damaged = batch.clone();
        damaged[byte] ^= 0x10;
        assert!(!crc_matches(&damaged));
        assert!(matches!(check_client_batch(&damaged), Err(BatchError::Crc { .. })));
    }
    assert!(!crc_matches(&batch[..60]));
}

#[test]
fn the_stamp_lies_outside_the_crc_and_log_append_time_inside() {
    let mut batch = built(Compression::None, &[b"one"]);
    put(&mut batch, 0, 99i64.to_be_bytes());
    put(&mut batch, 12, 3i32.to_be_bytes());
    assert!(crc_matches(&batch));
    stamp_log_append_time(&mut batch, 5000);
    assert!(crc_matches(&batch));
    let header = BatchHeader::parse(&batch).unwrap();
    assert!(header.is_log_append_time());
    assert_eq!((header.max_timestamp, header.base_offset, header.leader_epoch), (5000, 99, 3));
    let records: Vec<_> = crate::protocol::record::read_records(&Bytes::from(batch), 1000).unwrap().collect();
    assert_eq!(records[0].as_ref().unwrap().timestamp, 5000);
}

#[test]
fn sequences_go_on_from_zero() {
    assert_eq!(advance_sequence(i32::MAX, 1), 0);
    assert_eq!(advance_sequence(i32::MAX - 1, 5), 3);
    assert_eq!(advance_sequence(7, 0), 7);
}

#[test]
fn the_crc_is_crc_32c_whole_or_in_parts() {
    assert_eq!(crc32c(&[b"123456789"]), 0xe306_9283);
    assert_eq!(crc32c(&[b"1234", b"", b"56789"]), 0xe306_9283);
    assert_eq!(crc32c(&[]), 0);
}

#[test]
fn last_offsets_of_hostile_headers_do_not_overflow() {
    let mut batch = built(Compression::None, &[b"one"]);
    put(&mut batch, 0, i64::MAX.to_be_bytes());
    put(&mut batch, 23, i32::MAX.to_be_bytes());
    let header = BatchHeader::parse(&batch).unwrap();
    assert_eq!((header.last_offset(), header.next_offset()), (i64::MAX, i64::MAX));
}

proptest! {
    #[test]
    fn junk_never_panics(mut junk in proptest::collection::vec(any::<u8>(), 0..200), dress in any::<bool>()) {
        if dress && junk.len() > HEADER_BYTES {
            let (length, count) = (junk.len() - LENGTH_OVERHEAD, i32::from(junk[60]));
            put(&mut junk, 0, [0; 8]);
            put(&mut junk, 8, i32::try_from(length).unwrap().to_be_bytes());
            put(&mut junk, MAGIC_AT, [2]);
            put(&mut junk, 21, [0, 0]);
            put(&mut junk, 23, (count - 1).to_be_bytes());
            put(&mut junk, 43, [0xff; 8]);
            put(&mut junk, 57, count.to_be_bytes());
            stamp_crc(&mut junk);
        }
        let _ = check_client_batch(&junk);
    }

    #[test]
    fn any_header_reads_back(base_offset in any::<i64>(), batch_length in LENGTH_MIN..i32::MAX, crc in any::<u32>(), attributes in any::<i16>(),
        deltas in any::<(i32, i64, i64)>(), producer in any::<(i64, i16, i32)>(), record_count in any::<i32>(), magic in any::<i8>()) {
        let header = BatchHeader { base_offset, batch_length, leader_epoch: 4, magic, crc, attributes, last_offset_delta: deltas.0,
            base_timestamp: deltas.1, max_timestamp: deltas.2, producer_id: producer.0, producer_epoch: producer.1,
            base_sequence: producer.2, record_count };
        prop_assert_eq!(BatchHeader::parse(&header.encode()), Ok(header));
        let _ = (header.last_offset(), header.last_sequence(), header.size_bytes(), header.compression());
    }
}
