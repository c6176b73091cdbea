//! ApiVersions, and that every version of every API is answered.

use ottla::protocol::api::ApiKey;
use ottla::protocol::error_code::ErrorCode;
use ottla::protocol::messages::describe_configs::DescribeConfigsResource;
use ottla::protocol::messages::describe_quorum::{DescribeQuorumRequestPartition, DescribeQuorumRequestTopic};
use ottla::protocol::messages::*;
use ottla::protocol::wire::Request;

use crate::kit::{Client, Server, topic, versions};

#[test]
fn the_versions_listed_are_those_of_the_table() {
    let server = Server::start();
    let response = server
        .connect()
        .ask(&ApiVersionsRequest { client_software_name: "test".into(), client_software_version: "1.0".into() });
    let listed: Vec<_> = response.api_keys.iter().map(|api| (api.api_key, api.min_version, api.max_version)).collect();
    let table: Vec<_> = ApiKey::advertised().map(|(api, range)| (api.key(), *range.start(), *range.end())).collect();
    assert_eq!(listed, table);
}

#[test]
fn features_are_told_as_the_version_can_tell_them() {
    let server = Server::start();
    let mut client = server.connect();
    let request = ApiVersionsRequest { client_software_name: "test".into(), client_software_version: "1.0".into() };
    let mut told = |version| {
        let response = client.ask_in(version, &request);
        let supported = response.supported_features.iter();
        let supported: Vec<_> = supported.map(|it| (it.name.to_string(), it.min_version..=it.max_version)).collect();
        let finalized = response.finalized_features.iter();
        let finalized: Vec<_> =
            finalized.map(|it| (it.name.to_string(), it.min_version_level..=it.max_version_level)).collect();
        (supported, finalized, response.finalized_features_epoch)
    };
    let (group, metadata) = ("group.version".to_owned(), "metadata.version".to_owned());
    assert_eq!(told(2), (vec![], vec![], -1), "there is no place for them");
    let turned_on = vec![(group.clone(), 1..=1), (metadata.clone(), 30..=30)];
    assert_eq!(told(3), (vec![(metadata.clone(), 7..=30)], turned_on.clone(), 1), "old clients fail on a level of 0");
    assert_eq!(told(4), (vec![(group, 0..=1), (metadata, 7..=30)], turned_on, 1));
}

#[test]
fn a_version_from_the_future_is_answered_in_version_0() {
    let server = Server::start();
    let mut client = server.connect();
    // Key 18, version 9, correlation id 5, and a body that nobody understands.
    client.send_raw(b"\0\0\0\x0c\0\x12\0\x09\0\0\0\x05\xff\xff\xff\xff");
    let frame = client.receive_frame();
    assert_eq!(&frame[..], b"\0\0\0\x05\0\x23\0\0\0\x01\0\x12\0\0\0\x04");
    assert_eq!(client.ask_in(0, &ApiVersionsRequest::default()).error_code, ErrorCode::NONE, "the connection lives");
}

#[test]
fn a_client_with_an_odd_name_is_refused() {
    let server = Server::start();
    let mut client = server.connect();
    let odd = ApiVersionsRequest { client_software_name: "a b".into(), client_software_version: "1".into() };
    assert_eq!(client.ask(&odd).error_code, ErrorCode::INVALID_REQUEST);
    assert_eq!(client.ask_in(2, &ApiVersionsRequest::default()).error_code, ErrorCode::NONE, "who has no name");
}

#[test]
fn what_is_no_request_closes_the_connection() {
    let server = Server::start();
    for junk in [
        &b"\0\0\0\x08\0\x04\0\0\0\0\0\x01"[..],
        b"\0\0\0\x08\0\x03\0\x63\0\0\0\x01",
        b"\xff\xff\xff\xff\0\x03",
        b"\0\0\0\x0e\0\x03\0\0\0\0\0\x01\xff\xff\x7f\xff\xff\xff",
    ] {
        let mut client = server.connect();
        client.send_raw(junk);
        assert!(client.is_closed(), "{junk:?}");
    }
}

/// Asks in every version; a response that its version cannot carry would close the connection.
fn every<R: Request>(client: &mut Client, request: impl Fn(i16) -> R) {
    for version in versions::<R>() {
        let _ = client.ask_in(version, &request(version));
    }
}

#[test]
fn every_version_of_every_api_is_answered() {
    let server = Server::start();
    let mut client = server.connect();
    let id = client.create_topic("all", 2);
    client.produce("all", 0, 3, 10);
    every(&mut client, |_| ApiVersionsRequest {
        client_software_name: "test".into(),
        client_software_version: "1".into(),
    });
    every(&mut client, |_| MetadataRequest { topics: Some(Vec::new()), ..Default::default() });
    every(&mut client, |_| FindCoordinatorRequest::default());
    every(&mut client, |_| InitProducerIdRequest::default());
    every(&mut client, |_| DescribeClusterRequest::default());
    let metadata = DescribeQuorumRequestTopic {
        topic_name: "__cluster_metadata".into(),
        partitions: vec![DescribeQuorumRequestPartition { partition_index: 0 }],
    };
    every(&mut client, |_| DescribeQuorumRequest { topics: vec![metadata.clone()] });
    every(&mut client, |_| DescribeTopicPartitionsRequest::default());
    every(&mut client, |_| ElectLeadersRequest::default());
    every(&mut client, |_| AlterPartitionReassignmentsRequest::default());
    every(&mut client, |_| ListPartitionReassignmentsRequest::default());
    every(&mut client, |_| UnregisterBrokerRequest { broker_id: 9 });
    every(&mut client, |_| DescribeLogDirsRequest::default());
    every(&mut client, |version| CreateTopicsRequest {
        topics: vec![topic("all", 1), topic(&format!("all-{version}"), 1)],
        ..Default::default()
    });
    every(&mut client, |_| CreatePartitionsRequest::default());
    every(&mut client, |_| JoinGroupRequest::default());
    every(&mut client, |_| SyncGroupRequest::default());
    every(&mut client, |_| HeartbeatRequest::default());
    every(&mut client, |_| LeaveGroupRequest::default());
    every(&mut client, |_| OffsetCommitRequest::default());
    every(&mut client, |_| OffsetFetchRequest::default());
    every(&mut client, |_| OffsetDeleteRequest::default());
    every(&mut client, |_| DescribeGroupsRequest { groups: vec!["none".into()], ..Default::default() });
    every(&mut client, |_| ListGroupsRequest::default());
    every(&mut client, |_| DeleteGroupsRequest { groups_names: vec!["none".into()] });
    every(&mut client, |_| DeleteRecordsRequest::default());
    every(&mut client, |_| AlterConfigsRequest::default());
    every(&mut client, |_| IncrementalAlterConfigsRequest::default());
    every(&mut client, |_| OffsetForLeaderEpochRequest::default());
    every(&mut client, |version| ListOffsetsRequest {
        replica_id: -1,
        topics: super::offsets::asked("all", 0, if version > 3 { -1 } else { 0 }),
        ..Default::default()
    });
    every(&mut client, |version| super::fetch::request(version, "all", id, 0, 0));
    every(&mut client, |_| {
        let resource = |resource_type, name: &str| DescribeConfigsResource {
            resource_type,
            resource_name: name.into(),
            configuration_keys: None,
        };
        let resources =
            vec![resource(2, "all"), resource(2, "none"), resource(4, "1"), resource(4, ""), resource(99, "")];
        DescribeConfigsRequest { resources, include_synonyms: true, ..Default::default() }
    });
    every(&mut client, |version| DeleteTopicsRequest {
        topic_names: if version < 6 { vec![format!("all-{version}").as_str().into()] } else { Vec::new() },
        ..Default::default()
    });
}
