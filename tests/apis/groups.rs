//! Consumer groups over lives of the broker, and what others must not feel of them.

use ottla::ids::TopicId;
use ottla::log::mem_disk::MemDisk;
use ottla::protocol::error_code::ErrorCode;
use ottla::protocol::messages::create_topics::{CreatableTopic, CreatableTopicConfig};
use ottla::protocol::messages::delete_topics::DeleteTopicState;
use ottla::protocol::messages::join_group::JoinGroupRequestProtocol;
use ottla::protocol::messages::offset_commit::{OffsetCommitRequestPartition, OffsetCommitRequestTopic};
use ottla::protocol::messages::offset_fetch::{OffsetFetchRequestGroup, OffsetFetchRequestTopics};
use ottla::protocol::messages::sync_group::SyncGroupRequestAssignment;
use ottla::protocol::messages::*;
use ottla::protocol::value::Text;

use crate::kit::{Client, Server, topic};

const GROUP: &str = "readers";
const TOPIC: &str = "read";
/// A version in which a member is taken in at once.
const JOIN: i16 = 3;

fn find(client: &mut Client) {
    let request = FindCoordinatorRequest { coordinator_keys: vec![GROUP.into()], ..Default::default() };
    let found = client.ask(&request).coordinators.remove(0);
    assert_eq!(found.error_code, ErrorCode::NONE, "{:?}", found.error_message);
}

fn join(member_id: &Text) -> JoinGroupRequest {
    JoinGroupRequest {
        group_id: GROUP.into(),
        session_timeout_ms: 30_000,
        rebalance_timeout_ms: 30_000,
        member_id: member_id.clone(),
        protocol_type: "consumer".into(),
        protocols: vec![JoinGroupRequestProtocol { name: "range".into(), metadata: "m".into() }],
        ..Default::default()
    }
}

fn sync(joined: &JoinGroupResponse) -> SyncGroupRequest {
    SyncGroupRequest {
        group_id: GROUP.into(),
        generation_id: joined.generation_id,
        member_id: joined.member_id.clone(),
        assignments: vec![SyncGroupRequestAssignment { member_id: joined.member_id.clone(), assignment: "all".into() }],
        ..Default::default()
    }
}

/// A member of a stable group.
fn member(client: &mut Client) -> JoinGroupResponse {
    let joined = client.ask_in(JOIN, &join(&Text::default()));
    assert_eq!(joined.error_code, ErrorCode::NONE);
    assert_eq!(client.ask(&sync(&joined)).assignment, "all");
    joined
}

fn commit(member: &JoinGroupResponse, offset: i64) -> OffsetCommitRequest {
    let partitions = vec![OffsetCommitRequestPartition { committed_offset: offset, ..Default::default() }];
    OffsetCommitRequest {
        group_id: GROUP.into(),
        generation_id_or_member_epoch: member.generation_id,
        member_id: member.member_id.clone(),
        topics: vec![OffsetCommitRequestTopic { name: TOPIC.into(), partitions, ..Default::default() }],
        ..Default::default()
    }
}

fn committed(response: &OffsetCommitResponse) -> ErrorCode {
    response.topics[0].partitions[0].error_code
}

/// The group's offset, -1 if there is none.
fn fetch(client: &mut Client) -> i64 {
    let group = OffsetFetchRequestGroup { group_id: GROUP.into(), topics: None, ..Default::default() };
    let response = client.ask(&OffsetFetchRequest { groups: vec![group], ..Default::default() });
    let group = &response.groups[0];
    assert_eq!(group.error_code, ErrorCode::NONE);
    group.topics.first().map_or(-1, |topic| topic.partitions[0].committed_offset)
}

fn heartbeat(client: &mut Client, member: &JoinGroupResponse) -> ErrorCode {
    let request = HeartbeatRequest {
        group_id: GROUP.into(),
        generation_id: member.generation_id,
        member_id: member.member_id.clone(),
        ..Default::default()
    };
    client.ask(&request).error_code
}

/// A broker whose groups do not wait for more members.
fn start(disk: &MemDisk, boot_id: &str) -> Option<Server> {
    Server::start_life_with(disk, boot_id, |config| config.groups.initial_rebalance_delay_ms = 0)
}

#[test]
fn no_acknowledged_offset_goes_back_and_members_stay_whatever_the_power_does() {
    let mut cuts = 0;
    for seed in 0..8u64 {
        let mut disk = MemDisk::inline().seeded(seed);
        let server = start(&disk, "first").unwrap();
        let mut client = server.connect();
        client.create_topic(TOPIC, 1);
        find(&mut client);
        let reader = member(&mut client);
        let (mut acked, mut server) = (-1, Some(server));
        for life in 0..4u64 {
            if let Some(server) = &server {
                let mut client = server.connect();
                disk.cut_power_at(disk.ops() + 5 + (seed * 7 + life * 13) % 60);
                for offset in acked + 1.. {
                    match client.try_ask(&commit(&reader, offset)) {
                        Some(response) if committed(&response) == ErrorCode::NONE => acked = offset,
                        _ => break,
                    }
                }
                cuts += u64::from(disk.is_cut());
            }
            if let Some(server) = server.take() {
                server.kill();
            }
            disk = disk.after_power_cut();
            server = start(&disk, &format!("{seed}-{life}"));
        }
        let server = server.expect("nobody cuts its power");
        let mut client = server.connect();
        find(&mut client);
        assert!(fetch(&mut client) >= acked, "group-offset-regress: {} after {acked}", fetch(&mut client));
        assert_eq!(heartbeat(&mut client, &reader), ErrorCode::NONE, "nobody has to join again for a restart");
        assert_eq!(committed(&client.ask(&commit(&reader, acked + 10))), ErrorCode::NONE);
        assert_eq!(fetch(&mut client), acked + 10);
    }
    assert!(cuts >= 8, "the power went in {cuts} lives only");
}

#[test]
fn a_group_is_found_again_after_its_log_was_given_up() {
    let mut disk = MemDisk::inline();
    let server = start(&disk, "first").unwrap();
    let mut client = server.connect();
    client.create_topic(TOPIC, 1);
    // One partition of small segments; that the broker does not sync other topics does not matter.
    let configs = [("cleanup.policy", "compact"), ("segment.bytes", "1048576")];
    let configs = configs.map(|(name, value)| CreatableTopicConfig { name: name.into(), value: Some(value.into()) });
    let topics = vec![CreatableTopic { configs: configs.into(), ..topic("__consumer_offsets", 1) }];
    let created = client.ask(&CreateTopicsRequest { topics, timeout_ms: 30_000, ..Default::default() });
    assert_eq!(created.topics[0].error_code, ErrorCode::NONE, "{:?}", created.topics[0].error_message);
    find(&mut client);
    let reader = member(&mut client);
    let mut other = server.connect();
    let first_kept = |client: &mut Client| {
        let topics = super::offsets::asked("__consumer_offsets", 0, -2);
        let response = client.ask(&ListOffsetsRequest { replica_id: -1, topics, ..Default::default() });
        response.topics[0].partitions[0].offset
    };
    let mut last = 0;
    while first_kept(&mut other) < 300 {
        last += 1;
        let mut request = commit(&reader, last);
        request.topics[0].partitions[0].committed_metadata = Some("m".repeat(4000).as_str().into());
        assert_eq!(committed(&client.ask(&request)), ErrorCode::NONE);
    }
    for life in 0..3 {
        disk.cut_power_now();
        disk = disk.after_power_cut();
        let server = start(&disk, &format!("life {life}")).unwrap();
        let mut client = server.connect();
        assert_eq!(fetch(&mut client), last + life);
        assert_eq!(heartbeat(&mut client, &reader), ErrorCode::NONE);
        assert_eq!(committed(&client.ask(&commit(&reader, last + life + 1))), ErrorCode::NONE);
        server.kill();
    }
    server.kill();
}

#[test]
fn a_topic_that_was_deleted_takes_its_offsets_along() {
    let disk = MemDisk::inline();
    let server = start(&disk, "first").unwrap();
    let mut client = server.connect();
    client.create_topic(TOPIC, 1);
    find(&mut client);
    let nobody = JoinGroupResponse { generation_id: -1, ..Default::default() };
    assert_eq!(committed(&client.ask(&commit(&nobody, 7))), ErrorCode::NONE);
    assert_eq!(fetch(&mut client), 7);
    client.ask(&DeleteTopicsRequest {
        topics: vec![delete_topics::DeleteTopicState { name: Some(TOPIC.into()), ..Default::default() }],
        timeout_ms: 1000,
        ..Default::default()
    });
    assert_eq!(committed(&client.ask(&commit(&nobody, 8))), ErrorCode::UNKNOWN_TOPIC_OR_PARTITION);
    client.create_topic(TOPIC, 1);
    assert_eq!(fetch(&mut client), -1, "it is another topic");
}

#[test]
fn a_stop_does_not_wait_for_members_that_wait() {
    let disk = MemDisk::inline();
    let server = start(&disk, "first").unwrap();
    let mut client = server.connect();
    client.create_topic(TOPIC, 1);
    find(&mut client);
    let first = member(&mut client);
    let mut other = server.connect();
    other.send(JOIN, &join(&Text::default()));
    while heartbeat(&mut client, &first) != ErrorCode::REBALANCE_IN_PROGRESS {}
    // Asserts that it stops cleanly.
    drop(server);
}

#[test]
fn nobody_but_the_coordinators_writes_to_their_topic() {
    let disk = MemDisk::inline();
    let server = start(&disk, "first").unwrap();
    let mut client = server.connect();
    find(&mut client);
    let refused = client.try_produce("__consumer_offsets", 0, 1, 10);
    assert_eq!(refused, Err(ErrorCode::INVALID_TOPIC_EXCEPTION));
}

#[test]
fn names_of_any_length_and_many_protocols_harm_nobody() {
    let disk = MemDisk::inline();
    let server = start(&disk, "first").unwrap();
    let mut client = server.connect();
    client.create_topic(TOPIC, 1);
    find(&mut client);
    let long: Text = "i".repeat(32_760).as_str().into();
    let instance = JoinGroupRequest { group_instance_id: Some(long.clone()), ..join(&Text::default()) };
    assert_eq!(client.ask(&instance).error_code, ErrorCode::INVALID_REQUEST);
    let protocols = (0..1000).map(|n| JoinGroupRequestProtocol { name: format!("{n}").into(), metadata: "m".into() });
    let many = JoinGroupRequest { protocols: protocols.collect(), ..join(&Text::default()) };
    assert_eq!(client.ask(&many).error_code, ErrorCode::INCONSISTENT_GROUP_PROTOCOL);
    let joined = client.named(&long).ask_in(JOIN, &join(&Text::default()));
    assert_eq!(joined.error_code, ErrorCode::NONE);
    assert!(joined.member_id.len() < 300, "{}", joined.member_id.len());
    assert_eq!(client.ask(&sync(&joined)).assignment, "all");
    assert_eq!(committed(&client.ask(&commit(&joined, 5))), ErrorCode::NONE);
    assert_eq!(fetch(&mut client), 5);
}

#[test]
fn offsets_go_by_the_ids_of_topics() {
    let server = start(&MemDisk::inline(), "boot").unwrap();
    let mut client = server.connect();
    let id = client.create_topic(TOPIC, 1);
    find(&mut client);
    let none = TopicId([9; 16]);
    let mut committer = server.connect();
    let mut commit = |id| {
        let partitions = vec![OffsetCommitRequestPartition { committed_offset: 7, ..Default::default() }];
        let topics = vec![OffsetCommitRequestTopic { topic_id: id, partitions, ..Default::default() }];
        let response =
            committer.ask_in(10, &OffsetCommitRequest { group_id: GROUP.into(), topics, ..Default::default() });
        assert_eq!(response.topics[0].topic_id, id);
        committed(&response)
    };
    assert_eq!((commit(none), commit(id)), (ErrorCode::UNKNOWN_TOPIC_ID, ErrorCode::NONE));
    let mut reader = server.connect();
    let mut fetched = |ids: Option<&[TopicId]>| -> Vec<_> {
        let topic =
            |id: &TopicId| OffsetFetchRequestTopics { topic_id: *id, partition_indexes: vec![0], ..Default::default() };
        let topics = ids.map(|ids| ids.iter().map(topic).collect());
        let group = OffsetFetchRequestGroup { group_id: GROUP.into(), topics, ..Default::default() };
        let response = reader.ask_in(10, &OffsetFetchRequest { groups: vec![group], ..Default::default() });
        let topics = response.groups[0].topics.iter();
        topics.map(|it| (it.topic_id, it.partitions[0].committed_offset, it.partitions[0].error_code)).collect()
    };
    assert_eq!(fetched(None), [(id, 7, ErrorCode::NONE)]);
    let both = [(id, 7, ErrorCode::NONE), (none, -1, ErrorCode::UNKNOWN_TOPIC_ID)];
    assert_eq!(fetched(Some(&[none, id])), both);

    let gone = DeleteTopicState { name: Some(TOPIC.into()), ..Default::default() };
    client.ask(&DeleteTopicsRequest { topics: vec![gone], timeout_ms: 10_000, ..Default::default() });
    let again = client.create_topic(TOPIC, 1);
    assert_eq!(fetched(Some(&[again, id])), [(again, -1, ErrorCode::NONE), (id, -1, ErrorCode::UNKNOWN_TOPIC_ID)]);
    assert_eq!(fetched(None), [], "it was the other topic's");
}
