//! Properties of every message of the codec at every version: what is written reads back, and no bytes do harm.

#[path = "codec/every.rs"]
mod every;
#[path = "codec/generator.rs"]
mod generator;

use bytes::Bytes;
use every::{Visit, every_message};
use generator::{Generator, body, generate};
use ottla::ids::TopicId;
use ottla::protocol::api::ApiKey;
use ottla::protocol::error_code::ErrorCode;
use ottla::protocol::frame::{decode_body, decode_response, encode_request, encode_response};
use ottla::protocol::header::RequestHeader;
use ottla::protocol::messages::produce::{PartitionProduceData, TopicProduceData};
use ottla::protocol::messages::*;
use ottla::protocol::primitive::{At, DecodeError, EncodeError, Reader};
use ottla::protocol::value::Records;
use ottla::protocol::wire::Message;

struct ReadsBack;

impl Visit for ReadsBack {
    fn message<M: Message>(&mut self, version: i16) {
        for seed in 0..100 {
            let message: M = generate(seed, version);
            let bytes = body(&message, version);
            let read: M = decode_body(bytes.clone(), version).unwrap_or_else(|error| panic!("{error}: {message:?}"));
            assert_eq!(read, message, "{} version {version}", M::NAME);
            assert_eq!(body(&read, version), bytes, "{} version {version}", M::NAME);
        }
    }
}

#[test]
fn every_message_reads_back_at_every_version() {
    every_message(&mut ReadsBack);
}

struct DefaultsReadBack(Vec<(&'static str, i16)>);

impl Visit for DefaultsReadBack {
    fn message<M: Message>(&mut self, version: i16) {
        let mut writer = ottla::protocol::primitive::Writer::default();
        match ottla::protocol::frame::write_body(&mut writer, &M::default(), version) {
            Ok(()) => assert_eq!(decode_body(writer.into_chunks().concat().into(), version), Ok(M::default())),
            Err(_) => self.0.push((M::NAME, version)),
        }
    }
}

#[test]
fn only_a_metadata_request_for_all_topics_has_a_version_that_cannot_say_its_defaults() {
    let mut cannot = DefaultsReadBack(Vec::new());
    every_message(&mut cannot);
    assert_eq!(cannot.0, [("MetadataRequest", 0)]);
}

/// The first few bodies from the generator that are short enough to be tried at every byte.
fn short_bodies<M: Message>(version: i16) -> impl Iterator<Item = Bytes> {
    (0..).map(move |seed| body(&generate::<M>(seed, version), version)).filter(|body| body.len() <= 1500).take(3)
}

struct Truncated;

impl Visit for Truncated {
    fn message<M: Message>(&mut self, version: i16) {
        for bytes in short_bodies::<M>(version) {
            for length in 0..bytes.len() {
                let cut = decode_body::<M>(bytes.slice(..length), version);
                assert!(cut.is_err(), "{} version {version} cut at {length} of {}", M::NAME, bytes.len());
            }
        }
    }
}

#[test]
fn a_message_cut_at_any_byte_is_an_error() {
    every_message(&mut Truncated);
}

struct Damaged;

impl Visit for Damaged {
    fn message<M: Message>(&mut self, version: i16) {
        let at = At { version, flexible: M::API.is_flexible(version), nullable: false };
        for bytes in short_bodies::<M>(version) {
            for place in 0..bytes.len() {
                for hostile in [&[0x7f, 0xff, 0xff, 0xff][..], &[0xff, 0xff, 0xff, 0xff, 0x07], &[0xff; 5], &[0x80; 6]]
                {
                    let mut damaged = bytes.to_vec();
                    damaged.splice(place..bytes.len().min(place + hostile.len()), hostile.iter().copied());
                    // Every vector's memory is charged to the reader's allowance before it is made.
                    let allowance = 1024 + damaged.len() * 256;
                    let read = M::read(&mut Reader::new(Bytes::from(damaged), allowance), at);
                    assert_ne!(read.err(), Some(DecodeError::TooMuchMemory), "{} version {version}", M::NAME);
                }
            }
        }
    }
}

#[test]
fn a_hostile_count_or_length_anywhere_allocates_no_more_than_the_frame_can_hold() {
    every_message(&mut Damaged);
}

struct Junk;

impl Visit for Junk {
    fn message<M: Message>(&mut self, version: i16) {
        let mut generator = Generator::new::<M>(7, version);
        for _ in 0..500 {
            // Small bytes get further than random ones: they are believable counts and tags.
            let junk: Vec<u8> = (0..generator.below(80))
                .map(|_| {
                    if generator.below(3) == 0 {
                        generator.next().to_le_bytes()[0]
                    } else {
                        generator.below(3).to_le_bytes()[0]
                    }
                })
                .collect();
            if let Ok(message) = decode_body::<M>(Bytes::from(junk), version) {
                assert_eq!(decode_body(body(&message, version), version), Ok(message));
            }
        }
    }
}

#[test]
fn junk_is_refused_or_reads_back_like_any_message() {
    every_message(&mut Junk);
}

#[test]
fn a_few_bytes_that_announce_two_billion_topics_are_refused() {
    for (body, version) in [(&[0x7f, 0xff, 0xff, 0xff][..], 1), (&[0xff, 0xff, 0xff, 0xff, 0x0f], 12)] {
        let error = decode_body::<MetadataRequest>(Bytes::copy_from_slice(body), version).unwrap_err();
        assert!(matches!(error.error, DecodeError::Count { .. }), "{error}");
    }
}

#[test]
fn many_tiny_elements_do_not_multiply_into_more_memory_than_allowed() {
    // 40 MB of partitions of six bytes each, which are many times larger once decoded.
    let mut frame = b"\xff\xff\0\x01\0\0\0\0\0\0\0\x01\0\0".to_vec();
    let count = 7_000_000;
    frame.extend_from_slice(&i32::to_be_bytes(count));
    frame.resize(frame.len() + usize::try_from(count).unwrap() * 8, 0);
    let error = decode_body::<ProduceRequest>(Bytes::from(frame), 3).unwrap_err();
    assert_eq!(error.error, DecodeError::TooMuchMemory);
}

#[test]
fn records_of_a_produce_request_are_copied_on_neither_side() {
    let batch = Bytes::from(vec![7; 64 * 1024]);
    let partition = PartitionProduceData { index: 3, records: Some(Records::from(batch.clone())) };
    let topic = TopicProduceData { name: "orders".into(), partition_data: vec![partition], ..Default::default() };
    let request = ProduceRequest { acks: -1, timeout_ms: 1000, topic_data: vec![topic], ..Default::default() };
    for version in [3, 8, 9, 12] {
        let chunks = encode_request(version, 1, Some("me"), &request).unwrap();
        assert!(chunks.iter().any(|chunk| chunk.as_ptr() == batch.as_ptr() && chunk.len() == batch.len()));

        let frame = Bytes::from(chunks.concat()).slice(4..);
        let (header, body) = RequestHeader::decode(frame.clone()).unwrap();
        let read: ProduceRequest = decode_body(body, header.version).unwrap();
        assert_eq!(read, request);
        let records = read.topic_data[0].partition_data[0].records.clone().unwrap().into_bytes();
        assert!(frame.as_ptr_range().contains(&records.as_ptr()), "a slice of the frame");
    }
}

#[test]
fn unknown_tags_and_tags_below_their_version_are_skipped() {
    // Fetch version 12: in a partition tag 0 (from version 17), at the top tag 1 (from version 15) and an unknown one.
    let partition =
        b"\0\0\0\x05\0\0\0\x01\0\0\0\0\0\0\0\x09\xff\xff\xff\xff\0\0\0\0\0\0\0\0\0\0\0\x64\x01\0\x02\x07\x07";
    let mut body = b"\xff\xff\xff\xff\0\0\0\x0a\0\0\0\x01\0\0\0\x02\0\0\0\0\0\0\0\0\0\x02\x02t\x02".to_vec();
    body.extend_from_slice(partition);
    body.extend_from_slice(b"\x01\x2a\x01\x07\x01\x01\x02\x01\x03\x09\x09\x09\x07\x01\x08");
    let request: FetchRequest = decode_body(Bytes::from(body), 12).unwrap();
    assert_eq!(request.topics[0].topic, "t");
    assert_eq!(request.topics[0].partitions[0].partition, 5);
    assert_eq!(request.topics[0].partitions[0].fetch_offset, 9);
    assert_eq!(request.topics[0].partitions[0].replica_directory_id, [0; 16]);
    assert_eq!(request.replica_state, Default::default());
}

#[test]
fn bytes_behind_a_request_are_ignored_as_kafka_does() {
    let request = FindCoordinatorRequest { key: "group".into(), ..Default::default() };
    let longer = [&body(&request, 0)[..], b"more"].concat();
    assert_eq!(decode_body(Bytes::from(longer), 0), Ok(request));
}

#[test]
fn a_field_that_a_version_lacks_is_dropped_or_refused_as_declared() {
    let ignorable = ApiVersionsResponse { throttle_time_ms: 5, ..Default::default() };
    assert_eq!(body(&ignorable, 0), "\0\0\0\0\0\0");
    let request = InitProducerIdRequest { producer_id: 7, ..Default::default() };
    let refused = encode_request(2, 0, None, &request).unwrap_err();
    assert_eq!(refused, EncodeError::Field { field: "producer_id", version: 2 });
    let null = encode_request(0, 0, None, &MetadataRequest::default()).unwrap_err();
    assert_eq!(null, EncodeError::Null { field: "topics", version: 0 });
}

#[test]
fn topics_have_either_names_or_ids() {
    let topic = TopicProduceData { name: "orders".into(), topic_id: TopicId([7; 16]), ..Default::default() };
    let request = ProduceRequest { topic_data: vec![topic.clone()], ..Default::default() };
    let read = |version| decode_body::<ProduceRequest>(body(&request, version), version).unwrap().topic_data;
    assert_eq!(read(12), [TopicProduceData { topic_id: TopicId::ZERO, ..topic.clone() }]);
    assert_eq!(read(13), [TopicProduceData { name: "".into(), ..topic }]);
}

/// Asserts that the message is what Kafka's own classes write and read as these bytes.
fn assert_written<M: Message>(version: i16, message: &M, hex: &str) {
    let bytes = body(message, version);
    let written: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
    assert_eq!(written, hex, "{} version {version}", M::NAME);
    assert_eq!(decode_body::<M>(bytes, version).as_ref(), Ok(message));
}

/// The bytes were written by kafka-clients 4.3.1. `codec_oracle` lists the versions that are here and not there.
#[test]
fn versions_newer_than_the_oracle_are_written_as_kafka_writes_them() {
    let topic_id = TopicId([1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16]);
    offsets_by_id(topic_id);
    let partition = list_offsets::ListOffsetsPartition { partition_index: 1, current_leader_epoch: 2, timestamp: -6 };
    let topic = list_offsets::ListOffsetsTopic { name: "t".into(), partitions: vec![partition] };
    let request = ListOffsetsRequest { replica_id: -1, isolation_level: 1, topics: vec![topic], timeout_ms: 77 };
    assert_written(11, &request, "ffffffff01020274020000000100000002fffffffffffffffa00000000004d00");
    let partition = list_offsets::ListOffsetsPartitionResponse {
        partition_index: 1,
        error_code: ErrorCode::UNKNOWN_TOPIC_OR_PARTITION,
        timestamp: 8,
        offset: 5,
        leader_epoch: 2,
    };
    let topic = list_offsets::ListOffsetsTopicResponse { name: "t".into(), partitions: vec![partition] };
    let response = ListOffsetsResponse { throttle_time_ms: 9, topics: vec![topic] };
    assert_written(11, &response, "00000009020274020000000100030000000000000008000000000000000500000002000000");
    let topic = describe_log_dirs::DescribableLogDirTopic { topic: "t".into(), partitions: vec![1] };
    assert_written(5, &DescribeLogDirsRequest { topics: Some(vec![topic]) }, "02027402000000010000");
    let partition = describe_log_dirs::DescribeLogDirsPartition {
        partition_index: 1,
        partition_size: 6,
        offset_lag: 5,
        is_future_key: true,
    };
    let topic = describe_log_dirs::DescribeLogDirsTopic { name: "t".into(), partitions: vec![partition] };
    let result = describe_log_dirs::DescribeLogDirsResult {
        log_dir: "/d".into(),
        topics: vec![topic],
        total_bytes: 8,
        usable_bytes: 7,
        is_cordoned: true,
        ..Default::default()
    };
    assert_written(
        5,
        &DescribeLogDirsResponse { throttle_time_ms: 9, results: vec![result], ..Default::default() },
        "000000090000020000032f6402027402000000010000000000000006000000000000000501000000000000000000080000000000000007010000",
    );
}

fn offsets_by_id(topic_id: TopicId) {
    let partitions = vec![offset_commit::OffsetCommitRequestPartition {
        partition_index: 1,
        committed_offset: 5,
        committed_leader_epoch: 2,
        committed_metadata: Some("k".into()),
    }];
    let request = OffsetCommitRequest {
        group_id: "g".into(),
        generation_id_or_member_epoch: 3,
        member_id: "m".into(),
        group_instance_id: Some("i".into()),
        topics: vec![offset_commit::OffsetCommitRequestTopic { topic_id, partitions, ..Default::default() }],
        ..Default::default()
    };
    assert_written(
        10,
        &request,
        "026700000003026d0269020102030405060708090a0b0c0d0e0f100200000001000000000000000500000002026b000000",
    );
    let error_code = ErrorCode::UNKNOWN_TOPIC_ID;
    let partitions = vec![offset_commit::OffsetCommitResponsePartition { partition_index: 1, error_code }];
    let topics = vec![offset_commit::OffsetCommitResponseTopic { topic_id, partitions, ..Default::default() }];
    assert_written(
        10,
        &OffsetCommitResponse { throttle_time_ms: 9, topics },
        "00000009020102030405060708090a0b0c0d0e0f1002000000010064000000",
    );
    let topic =
        offset_fetch::OffsetFetchRequestTopics { topic_id, partition_indexes: vec![1, 2], ..Default::default() };
    let member = offset_fetch::OffsetFetchRequestGroup {
        group_id: "g".into(),
        member_id: Some("m".into()),
        member_epoch: 4,
        topics: Some(vec![topic]),
    };
    let other = offset_fetch::OffsetFetchRequestGroup { group_id: "h".into(), topics: None, ..Default::default() };
    assert_written(
        10,
        &OffsetFetchRequest { groups: vec![member, other], require_stable: true, ..Default::default() },
        "030267026d00000004020102030405060708090a0b0c0d0e0f100300000001000000020000026800ffffffff00000100",
    );
    let partitions = vec![offset_fetch::OffsetFetchResponsePartitions {
        partition_index: 1,
        committed_offset: 5,
        committed_leader_epoch: 2,
        metadata: Some("k".into()),
        error_code,
    }];
    let topics = vec![offset_fetch::OffsetFetchResponseTopics { topic_id, partitions, ..Default::default() }];
    let group = offset_fetch::OffsetFetchResponseGroup {
        group_id: "g".into(),
        topics,
        error_code: ErrorCode::UNKNOWN_MEMBER_ID,
    };
    assert_written(
        10,
        &OffsetFetchResponse { throttle_time_ms: 9, groups: vec![group], ..Default::default() },
        "00000009020267020102030405060708090a0b0c0d0e0f100200000001000000000000000500000002026b0064000000190000",
    );
}

#[test]
fn a_fetch_response_says_empty_and_null_records_apart() {
    use fetch::{FetchableTopicResponse, PartitionData};
    for (records, compact, classic) in [(None, 0u8, -1i32), (Some(Records::default()), 1, 0)] {
        let partition = PartitionData { records: records.clone(), ..Default::default() };
        let topic = FetchableTopicResponse { partitions: vec![partition], ..Default::default() };
        let response = FetchResponse { responses: vec![topic], ..Default::default() };
        // Behind the records stand the tag counts of partition, topic and response.
        let flexible = body(&response, 12);
        assert_eq!(flexible[flexible.len() - 4..], [compact, 0, 0, 0]);
        let plain = body(&response, 11);
        assert_eq!(plain[plain.len() - 4..], classic.to_be_bytes());
    }
}

#[test]
fn an_unsupported_api_versions_request_is_answered_in_version_0() {
    let response = ApiVersionsResponse { error_code: ErrorCode::UNSUPPORTED_VERSION, ..Default::default() };
    let frame = Bytes::from(encode_response(0, 9, &response).unwrap().concat());
    assert_eq!(frame, "\0\0\0\x0a\0\0\0\x09\0\x23\0\0\0\0");
    assert_eq!(decode_response(frame.slice(4..), 0), Ok((9, response)));
    assert!(!ApiKey::ApiVersions.accepts(5));
}
