use super::*;
use crate::protocol::batch::check_client_batch;
use proptest::prelude::*;

type Plain = (i64, Option<Vec<u8>>, Option<Vec<u8>>, Vec<(String, Option<Vec<u8>>)>);

fn records() -> impl Strategy<Value = Vec<Plain>> {
    let bytes = || proptest::option::of(proptest::collection::vec(any::<u8>(), 0..200));
    let headers = proptest::collection::vec(("[a-zé]{0,5}", bytes()), 0..4);
    proptest::collection::vec((-1..i64::MAX / 2, bytes(), bytes(), headers), 1..40)
}

fn build(compression: Compression, records: &[Plain]) -> Bytes {
    let mut builder = BatchBuilder::new(compression);
    for (timestamp, key, value, headers) in records {
        let headers: Vec<_> = headers.iter().map(|(k, v)| (k.as_str(), v.as_deref())).collect();
        builder.push(&NewRecord {
            timestamp: *timestamp,
            key: key.as_deref(),
            value: value.as_deref(),
            headers: &headers,
        });
    }
    builder.build()
}

fn plain(record: &Record) -> Plain {
    let vec = |bytes: &Option<Bytes>| bytes.as_ref().map(|b| b.to_vec());
    let headers = record.headers.iter().map(|h| (String::from_utf8(h.key.to_vec()).unwrap(), vec(&h.value))).collect();
    (record.timestamp, vec(&record.key), vec(&record.value), headers)
}

proptest! {
    #[test]
    fn records_come_back_through_every_codec(records in records()) {
        for compression in Compression::ALL {
            let batch = build(compression, &records);
            prop_assert!(check_client_batch(&batch).is_ok());
            let read: Vec<_> = read_records(&batch, 1 << 20).unwrap().collect::<Result<_, _>>().unwrap();
            prop_assert_eq!(read.iter().map(|r| r.offset).collect::<Vec<_>>(), (0..i64::try_from(records.len()).unwrap()).collect::<Vec<_>>());
            prop_assert_eq!(&read.iter().map(plain).collect::<Vec<_>>(), &records);
        }
    }

    #[test]
    fn another_implementation_reads_the_same(records in records()) {
        let mut batch = build(Compression::None, &records);
        let read = kafka_protocol::records::RecordBatchDecoder::decode(&mut batch).unwrap();
        prop_assert_eq!(read.records.len(), records.len());
        for (theirs, (timestamp, key, value, _)) in read.records.iter().zip(&records) {
            prop_assert_eq!(theirs.timestamp, *timestamp);
            prop_assert_eq!(theirs.key.as_deref(), key.as_deref());
            prop_assert_eq!(theirs.value.as_deref(), value.as_deref());
        }
    }

    #[test]
    fn damaged_batches_never_panic(records in records(), damage in proptest::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..5)) {
        let mut batch = build(Compression::None, &records).to_vec();
        for (at, to) in damage {
            let at = HEADER_BYTES + at.index(batch.len() - HEADER_BYTES);
            batch[at] = to;
        }
        let walked = {
            stamp_crc(&mut batch);
            check_client_batch(&batch).is_ok()
        };
        let read: Result<Vec<_>, _> = read_records(&Bytes::from(batch), 1 << 20).unwrap().collect();
        prop_assert!(!walked || read.is_ok(), "what produce lets in, consumers can read");
    }

    #[test]
    fn numbers_come_back(n in any::<i64>(), small in any::<i32>()) {
        let mut out = Vec::new();
        put_varint(&mut out, n);
        put_varint(&mut out, i64::from(small));
        prop_assert_eq!(out.len(), varint_bytes(n) + varint_bytes(i64::from(small)));
        let mut bytes = out.as_slice();
        prop_assert_eq!(get_varlong(&mut bytes), Ok(n));
        prop_assert_eq!(get_varint(&mut bytes), Ok(small));
    }
}

#[test]
fn a_million_headers_in_a_few_bytes_allocate_nothing() {
    let mut batch = build(Compression::None, &[(0, None, None, vec![])]).to_vec();
    // The header count is the record's last byte: claim i32::MAX of them in a record made longer by four bytes.
    batch.pop();
    put_varint(&mut batch, i64::from(i32::MAX));
    let grown = i32::try_from(batch.len() - LENGTH_OVERHEAD).unwrap();
    batch[8..12].copy_from_slice(&grown.to_be_bytes());
    batch[HEADER_BYTES] += 8;
    stamp_crc(&mut batch);
    let expected = BatchError::Record { index: 0, error: RecordError::CutShort };
    assert_eq!(check_client_batch(&batch), Err(expected));
    let mut read = read_records(&Bytes::from(batch), 1000).unwrap();
    assert_eq!(read.next(), Some(Err(RecordError::CutShort)));
    assert_eq!(read.next(), None);
}

#[test]
fn numbers_of_too_many_bytes_are_refused() {
    assert_eq!(get_varint(&mut &[0xff; 6][..]), Err(RecordError::Number));
    assert_eq!(get_varint(&mut &[0xff, 0xff, 0xff, 0xff, 0x1f][..]), Err(RecordError::Number));
    assert_eq!(get_varlong(&mut &[0xff; 10][..]), Err(RecordError::Number));
    assert_eq!(get_varlong(&mut &[0x80; 3][..]), Err(RecordError::CutShort));
}
