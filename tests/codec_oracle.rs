//! Our codec beside the crate `kafka-protocol`, for every API and version that both know: the same bytes say the same.

#[path = "codec/debug.rs"]
mod debug;
#[path = "codec/generator.rs"]
mod generator;

use std::collections::BTreeMap;

use bytes::{Bytes, BytesMut};
use debug::{Value, parse};
use generator::{body, generate};
use kafka_protocol::messages as theirs;
use kafka_protocol::protocol::{Decodable, Encodable};
use ottla::protocol::api::ApiKey;
use ottla::protocol::frame::decode_body;
use ottla::protocol::header::RequestHeader;
use ottla::protocol::messages as ours;
use ottla::protocol::primitive::Writer;
use ottla::protocol::value::Text;
use ottla::protocol::wire::Message;

/// The versions that the crate does not know: it has the definitions of Kafka 4.1. Of these `tests/codec.rs` has Kafka's own bytes.
const NEWER: [(&str, i16); 6] = [
    ("ListOffsetsRequest", 11),
    ("ListOffsetsResponse", 11),
    ("OffsetCommitRequest", 10),
    ("OffsetFetchRequest", 10),
    ("DescribeLogDirsRequest", 5),
    ("DescribeLogDirsResponse", 5),
];

fn agree<M: Message, T: kafka_protocol::protocol::Message + Encodable + Decodable + std::fmt::Debug>() {
    let is_known = |version: &i16| (T::VERSIONS.min..=T::VERSIONS.max).contains(version);
    let (known, newer): (Vec<i16>, Vec<i16>) = M::API.spec().versions.clone().partition(is_known);
    let listed: Vec<i16> = NEWER.iter().filter(|(name, _)| *name == M::NAME).map(|(_, version)| *version).collect();
    assert_eq!(newer, listed, "{}", M::NAME);
    known.iter().for_each(|version| (0..60).for_each(|seed| agree_on::<M, T>(&generate(seed, *version), *version)));
}

fn agree_on<M: Message, T: Encodable + Decodable + std::fmt::Debug>(message: &M, version: i16) {
    let what = format!("{} version {version}", M::NAME);
    let bytes = body(message, version);

    let mut rest = bytes.clone();
    let read = T::decode(&mut rest, version).unwrap_or_else(|error| panic!("{what}: {error}: {message:?}"));
    assert!(rest.is_empty(), "{what}: {} bytes left over", rest.len());
    parse(&format!("{message:?}")).assert_said_by(&parse(&format!("{read:?}")), &what);

    let mut written = BytesMut::new();
    read.encode(&mut written, version).unwrap_or_else(|error| panic!("{what}: {error}: {message:?}"));
    assert_eq!(written, bytes, "{what}: {message:?}");
    assert_eq!(decode_body::<M>(written.freeze(), version).as_ref(), Ok(message), "{what}");
}

#[test]
fn produce_and_fetch_agree() {
    agree::<ours::ProduceRequest, theirs::ProduceRequest>();
    agree::<ours::ProduceResponse, theirs::ProduceResponse>();
    agree::<ours::FetchRequest, theirs::FetchRequest>();
    agree::<ours::FetchResponse, theirs::FetchResponse>();
}

#[test]
fn discovery_agrees() {
    agree::<ours::ApiVersionsRequest, theirs::ApiVersionsRequest>();
    agree::<ours::ApiVersionsResponse, theirs::ApiVersionsResponse>();
    agree::<ours::MetadataRequest, theirs::MetadataRequest>();
    agree::<ours::MetadataResponse, theirs::MetadataResponse>();
    agree::<ours::FindCoordinatorRequest, theirs::FindCoordinatorRequest>();
    agree::<ours::FindCoordinatorResponse, theirs::FindCoordinatorResponse>();
    agree::<ours::DescribeClusterRequest, theirs::DescribeClusterRequest>();
    agree::<ours::DescribeClusterResponse, theirs::DescribeClusterResponse>();
    agree::<ours::DescribeQuorumRequest, theirs::DescribeQuorumRequest>();
    agree::<ours::DescribeQuorumResponse, theirs::DescribeQuorumResponse>();
    agree::<ours::DescribeTopicPartitionsRequest, theirs::DescribeTopicPartitionsRequest>();
    agree::<ours::DescribeTopicPartitionsResponse, theirs::DescribeTopicPartitionsResponse>();
}

#[test]
fn offsets_and_producer_ids_agree() {
    agree::<ours::ListOffsetsRequest, theirs::ListOffsetsRequest>();
    agree::<ours::ListOffsetsResponse, theirs::ListOffsetsResponse>();
    agree::<ours::OffsetForLeaderEpochRequest, theirs::OffsetForLeaderEpochRequest>();
    agree::<ours::OffsetForLeaderEpochResponse, theirs::OffsetForLeaderEpochResponse>();
    agree::<ours::InitProducerIdRequest, theirs::InitProducerIdRequest>();
    agree::<ours::InitProducerIdResponse, theirs::InitProducerIdResponse>();
    agree::<ours::DeleteRecordsRequest, theirs::DeleteRecordsRequest>();
    agree::<ours::DeleteRecordsResponse, theirs::DeleteRecordsResponse>();
}

#[test]
fn groups_agree() {
    agree::<ours::OffsetCommitRequest, theirs::OffsetCommitRequest>();
    agree::<ours::OffsetCommitResponse, theirs::OffsetCommitResponse>();
    agree::<ours::OffsetFetchRequest, theirs::OffsetFetchRequest>();
    agree::<ours::OffsetFetchResponse, theirs::OffsetFetchResponse>();
    agree::<ours::JoinGroupRequest, theirs::JoinGroupRequest>();
    agree::<ours::JoinGroupResponse, theirs::JoinGroupResponse>();
    agree::<ours::HeartbeatRequest, theirs::HeartbeatRequest>();
    agree::<ours::HeartbeatResponse, theirs::HeartbeatResponse>();
    agree::<ours::LeaveGroupRequest, theirs::LeaveGroupRequest>();
    agree::<ours::LeaveGroupResponse, theirs::LeaveGroupResponse>();
    agree::<ours::SyncGroupRequest, theirs::SyncGroupRequest>();
    agree::<ours::SyncGroupResponse, theirs::SyncGroupResponse>();
    agree::<ours::DescribeGroupsRequest, theirs::DescribeGroupsRequest>();
    agree::<ours::DescribeGroupsResponse, theirs::DescribeGroupsResponse>();
    agree::<ours::ListGroupsRequest, theirs::ListGroupsRequest>();
    agree::<ours::ListGroupsResponse, theirs::ListGroupsResponse>();
    agree::<ours::DeleteGroupsRequest, theirs::DeleteGroupsRequest>();
    agree::<ours::DeleteGroupsResponse, theirs::DeleteGroupsResponse>();
    agree::<ours::OffsetDeleteRequest, theirs::OffsetDeleteRequest>();
    agree::<ours::OffsetDeleteResponse, theirs::OffsetDeleteResponse>();
}

#[test]
fn groups_of_the_consumer_protocol_agree() {
    agree::<ours::ConsumerGroupHeartbeatRequest, theirs::ConsumerGroupHeartbeatRequest>();
    agree::<ours::ConsumerGroupHeartbeatResponse, theirs::ConsumerGroupHeartbeatResponse>();
    agree::<ours::ConsumerGroupDescribeRequest, theirs::ConsumerGroupDescribeRequest>();
    agree::<ours::ConsumerGroupDescribeResponse, theirs::ConsumerGroupDescribeResponse>();
}

#[test]
fn topics_and_configurations_agree() {
    agree::<ours::CreateTopicsRequest, theirs::CreateTopicsRequest>();
    agree::<ours::CreateTopicsResponse, theirs::CreateTopicsResponse>();
    agree::<ours::DeleteTopicsRequest, theirs::DeleteTopicsRequest>();
    agree::<ours::DeleteTopicsResponse, theirs::DeleteTopicsResponse>();
    agree::<ours::CreatePartitionsRequest, theirs::CreatePartitionsRequest>();
    agree::<ours::CreatePartitionsResponse, theirs::CreatePartitionsResponse>();
    agree::<ours::DescribeConfigsRequest, theirs::DescribeConfigsRequest>();
    agree::<ours::DescribeConfigsResponse, theirs::DescribeConfigsResponse>();
    agree::<ours::AlterConfigsRequest, theirs::AlterConfigsRequest>();
    agree::<ours::AlterConfigsResponse, theirs::AlterConfigsResponse>();
    agree::<ours::IncrementalAlterConfigsRequest, theirs::IncrementalAlterConfigsRequest>();
    agree::<ours::IncrementalAlterConfigsResponse, theirs::IncrementalAlterConfigsResponse>();
    agree::<ours::DescribeLogDirsRequest, theirs::DescribeLogDirsRequest>();
    agree::<ours::DescribeLogDirsResponse, theirs::DescribeLogDirsResponse>();
}

#[test]
fn moves_and_elections_agree() {
    agree::<ours::AlterPartitionReassignmentsRequest, theirs::AlterPartitionReassignmentsRequest>();
    agree::<ours::AlterPartitionReassignmentsResponse, theirs::AlterPartitionReassignmentsResponse>();
    agree::<ours::ListPartitionReassignmentsRequest, theirs::ListPartitionReassignmentsRequest>();
    agree::<ours::ListPartitionReassignmentsResponse, theirs::ListPartitionReassignmentsResponse>();
    agree::<ours::ElectLeadersRequest, theirs::ElectLeadersRequest>();
    agree::<ours::ElectLeadersResponse, theirs::ElectLeadersResponse>();
    agree::<ours::UnregisterBrokerRequest, theirs::UnregisterBrokerRequest>();
    agree::<ours::UnregisterBrokerResponse, theirs::UnregisterBrokerResponse>();
}

#[test]
fn the_oracle_and_we_place_the_fields_alike() {
    let said = parse("A { b: 1, c: [Some(\"x,]\")], d: None, e: NOT_CONTROLLER (41), unknown_tagged_fields: {} }");
    let Value::Struct(fields) = said else { panic!("a struct") };
    assert_eq!(fields["c"], Value::List(vec![Value::Atom("\"x,]\"".into())]));
    assert_eq!(fields["e"], Value::Atom("41".into()));
    assert_eq!(fields["d"], Value::Atom("None".into()));
}

#[test]
fn unknown_tags_are_skipped_at_every_level() {
    use theirs::produce_request::{PartitionProduceData, TopicProduceData};
    let tags = || BTreeMap::from([(5, Bytes::from_static(b"five")), (200, Bytes::from(vec![0; 300]))]);
    let mut partition = PartitionProduceData::default().with_index(4).with_records(Some(Bytes::from_static(b"batch")));
    partition.unknown_tagged_fields = tags();
    let mut topic = TopicProduceData::default().with_partition_data(vec![partition]);
    topic.unknown_tagged_fields = tags();
    let mut request = theirs::ProduceRequest::default().with_acks(1).with_topic_data(vec![topic]);
    request.unknown_tagged_fields = tags();
    let mut bytes = BytesMut::new();
    request.encode(&mut bytes, 9).unwrap();
    let read: ours::ProduceRequest = decode_body(bytes.freeze(), 9).unwrap();
    assert_eq!(read.acks, 1);
    assert_eq!(read.topic_data[0].partition_data[0].index, 4);
    assert_eq!(read.topic_data[0].partition_data[0].records.clone().unwrap().into_bytes(), "batch");
}

#[test]
fn request_headers_agree() {
    for api in ApiKey::ALL {
        for version in api.spec().versions.clone() {
            for client_id in [None, Some("me")] {
                let header =
                    RequestHeader { api: *api, version, correlation_id: 77, client_id: client_id.map(Text::from) };
                let mut writer = Writer::default();
                header.write(&mut writer).unwrap();
                let bytes = Bytes::from(writer.into_chunks().concat());
                let key = theirs::ApiKey::try_from(api.key()).unwrap();
                let form = key.request_header_version(version);
                let read = theirs::RequestHeader::decode(&mut bytes.clone(), form).unwrap();
                assert_eq!((read.request_api_key, read.request_api_version), (api.key(), version));
                assert_eq!((read.correlation_id, read.client_id.as_deref()), (77, client_id));
                let mut written = BytesMut::new();
                read.encode(&mut written, form).unwrap();
                assert_eq!(written, bytes, "{api} version {version}");
                let flexible = i16::from(api.has_flexible_response_header(version));
                assert_eq!(key.response_header_version(version), flexible, "{api} version {version}");
            }
        }
    }
}
