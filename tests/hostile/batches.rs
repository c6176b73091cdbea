//! Record batches that lie: refused with Kafka's error codes, and nothing of them is stored.

use bytes::Bytes;
use ottla::protocol::batch::stamp_crc;
use ottla::protocol::compression::Compression;
use ottla::protocol::error_code::ErrorCode;
use ottla::protocol::messages::CreateTopicsRequest;
use ottla::protocol::messages::create_topics::CreatableTopicConfig;
use ottla::protocol::record::{BatchBuilder, NewRecord};

use crate::client::{Client, batch, produce, topic};
use crate::kit::{Broker, produce_frame};

const LENGTH_AT: usize = 8;
const MAGIC_AT: usize = 16;
const CRC_AT: usize = 17;
const ATTRIBUTES_AT: usize = 22;
const LAST_OFFSET_AT: usize = 23;
const PRODUCER_AT: usize = 43;
const COUNT_AT: usize = 57;
const RECORDS_AT: usize = 61;

/// A good batch of three records with some bytes replaced and, unless the CRC is what lies, the right CRC again.
fn lying(at: usize, bytes: &[u8]) -> Bytes {
    let mut lying = batch(1000, 3, 50).to_vec();
    lying[at..at + bytes.len()].copy_from_slice(bytes);
    if at != CRC_AT {
        stamp_crc(&mut lying);
    }
    lying.into()
}

fn code(client: &mut Client, topic: &str, bytes: Bytes) -> ErrorCode {
    client.ask(&produce(topic, 0, -1, bytes)).responses[0].partition_responses[0].error_code
}

#[test]
fn a_batch_that_lies_is_refused_with_kafkas_code_and_not_stored() {
    let broker = Broker::start(&[]);
    let mut client = broker.connect();
    client.create_topic("t", 1);
    let beside = broker.beside();
    let good = batch(1000, 3, 50);
    let length = |length: i32| lying(LENGTH_AT, &length.to_be_bytes());
    let whole = i32::try_from(good.len()).unwrap() - 12;
    let (corrupt, invalid) = (ErrorCode::CORRUPT_MESSAGE, ErrorCode::INVALID_RECORD);
    let cases = [
        ("a wrong CRC", lying(CRC_AT, &[1, 2, 3, 4]), corrupt),
        ("a flipped bit", [&good[..80], &[good[80] ^ 1], &good[81..]].concat().into(), corrupt),
        ("magic 0", lying(MAGIC_AT, &[0]), invalid),
        ("magic 1", lying(MAGIC_AT, &[1]), invalid),
        ("magic 3", lying(MAGIC_AT, &[3]), corrupt),
        ("the magic of what is no record", lying(MAGIC_AT, &[0x7f]), corrupt),
        ("a negative magic", lying(MAGIC_AT, &[0xff]), corrupt),
        ("a length of 0", length(0), corrupt),
        ("a negative length", length(-1), corrupt),
        ("a length of 2 GiB", length(i32::MAX), invalid),
        ("a length past the end", length(whole + 1), invalid),
        ("a length before the end", length(whole - 1), invalid),
        ("a length of the header", length(49), corrupt),
        ("a count of 0", lying(COUNT_AT, &[0; 4]), invalid),
        ("a count of -1", lying(COUNT_AT, &[0xff; 4]), invalid),
        ("a count of 2", lying(COUNT_AT, &[0, 0, 0, 2]), invalid),
        ("a count of 2^31 - 1", lying(COUNT_AT, &[0x7f, 0xff, 0xff, 0xff]), invalid),
        (
            "counts that agree and lie",
            {
                let mut counts = [0; 38];
                counts.copy_from_slice(&good[LAST_OFFSET_AT..RECORDS_AT]);
                counts[..4].copy_from_slice(&[0x7f, 0xff, 0xff, 0xfe]);
                counts[34..].copy_from_slice(&[0x7f, 0xff, 0xff, 0xff]);
                lying(LAST_OFFSET_AT, &counts)
            },
            invalid,
        ),
        ("a last offset of 5", lying(LAST_OFFSET_AT, &[0, 0, 0, 5]), invalid),
        ("a base offset", lying(0, &[0, 0, 0, 0, 0, 0, 0, 9]), invalid),
        ("a negative base offset", lying(0, &[0xff; 8]), invalid),
        ("control records", lying(ATTRIBUTES_AT, &[0x20]), invalid),
        ("compression 7", lying(ATTRIBUTES_AT, &[0x07]), invalid),
        ("a transaction", lying(ATTRIBUTES_AT, &[0x10]), ErrorCode::INVALID_TXN_STATE),
        ("a time that brokers stamp", lying(ATTRIBUTES_AT, &[0x08]), ErrorCode::INVALID_TIMESTAMP),
        ("a producer without a sequence", lying(PRODUCER_AT, &[0, 0, 0, 0, 0, 0, 0, 1, 0, 0]), invalid),
        ("a record longer than the batch", lying(RECORDS_AT, &[0xfe, 0x7f]), invalid),
        ("a record of a negative length", lying(RECORDS_AT, &[0x01]), invalid),
        ("records out of their order", lying(RECORDS_AT + 3, &[0x04]), invalid),
        ("two batches", [&good[..], &good].concat().into(), invalid),
        ("bytes behind the batch", [&good[..], &[0; 7]].concat().into(), invalid),
        ("half a batch", good.slice(..good.len() / 2), invalid),
        ("half a header", good.slice(..30), invalid),
        ("nothing", Bytes::new(), invalid),
        ("more than max.message.bytes", batch(1000, 1, 2 << 20), ErrorCode::MESSAGE_TOO_LARGE),
    ];
    for (what, bytes, wanted) in cases {
        assert_eq!(code(&mut client, "t", bytes), wanted, "{what}");
    }
    assert_eq!(client.produce("t", 0, 1, 10), 0, "nothing of them was stored");
    beside.must_go_on(1);
    beside.finish();
}

#[test]
fn a_batch_that_lies_to_one_who_wants_no_answer_closes_the_connection() {
    let broker = Broker::start(&[]);
    broker.connect().create_topic("t", 1);
    let beside = broker.beside();
    let mut frame = produce_frame("t", 0);
    let last = frame.len() - 10;
    frame[last] ^= 1;
    assert_eq!(broker.peer().send(&frame).read_to_close(), b"");
    beside.must_go_on(1);
    beside.finish();
}

fn create(client: &mut Client, name: &str, config: &str, value: &str) {
    let config = CreatableTopicConfig { name: config.into(), value: Some(value.into()) };
    let topics =
        vec![ottla::protocol::messages::create_topics::CreatableTopic { configs: vec![config], ..topic(name, 1) }];
    let response = client.ask(&CreateTopicsRequest { topics, timeout_ms: 30_000, ..Default::default() });
    assert_eq!(response.topics[0].error_code, ErrorCode::NONE);
}

/// A batch that says its records are compressed so, and whose records are these bytes.
fn compressed(codec: Compression, records: &[u8]) -> Bytes {
    let mut builder = BatchBuilder::new(codec);
    builder.push(&NewRecord { timestamp: 1000, key: Some(b"k"), ..Default::default() });
    let mut batch = builder.build().to_vec();
    batch.truncate(RECORDS_AT);
    batch.extend_from_slice(records);
    let length = i32::try_from(batch.len() - 12).unwrap();
    batch[LENGTH_AT..LENGTH_AT + 4].copy_from_slice(&length.to_be_bytes());
    stamp_crc(&mut batch);
    batch.into()
}

#[test]
fn what_unpacks_to_more_than_it_may_is_refused_and_does_not_stay_in_memory() {
    let broker = Broker::start(&[]);
    let mut client = broker.connect();
    create(&mut client, "compacted", "cleanup.policy", "compact");
    create(&mut client, "recompressed", "compression.type", "gzip");
    let beside = broker.beside();
    beside.must_go_on(5);
    let before = broker.anonymous_bytes();
    let bomb = vec![0; 512 << 20];
    for codec in [Compression::Gzip, Compression::Snappy, Compression::Lz4, Compression::Zstd] {
        let packed = codec.compress(&bomb);
        // Snappy does not pack zeroes below the size that a topic takes; half as much is still a bomb.
        let packed = if packed.len() > 1_000_000 { codec.compress(&bomb[..16 << 20]) } else { packed };
        for (name, records) in
            [("a bomb", &packed[..]), ("half of one", &packed[..packed.len() / 2]), ("junk", &[0xa5; 999])]
        {
            // Of a batch that is stored as it comes the broker does not look at the records.
            let looked_into =
                ["compacted", "recompressed"].into_iter().take(if codec == Compression::Gzip { 1 } else { 2 });
            for topic in looked_into {
                let refused = code(&mut client, topic, compressed(codec, records));
                assert!(refused.is_error(), "{name}, {codec:?}, {topic}");
            }
        }
    }
    let taken = broker.anonymous_bytes().saturating_sub(before);
    assert!(taken < 200 << 20, "{} MiB more than before", taken >> 20);
    beside.must_go_on(1);
    beside.finish();
}
