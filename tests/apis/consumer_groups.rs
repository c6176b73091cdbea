//! Groups of the consumer protocol (KIP-848) over lives of the broker, and topics that come while it runs.

use std::time::{Duration, Instant};

use ottla::ids::TopicId;
use ottla::log::mem_disk::MemDisk;
use ottla::protocol::error_code::ErrorCode;
use ottla::protocol::messages::consumer_group_heartbeat::TopicPartitions;
use ottla::protocol::messages::offset_commit::{OffsetCommitRequestPartition, OffsetCommitRequestTopic};
use ottla::protocol::messages::offset_fetch::OffsetFetchRequestGroup;
use ottla::protocol::messages::*;
use ottla::protocol::value::Text;

use crate::kit::{Client, Server};

pub const GROUP: &str = "modern";
pub const TOPIC: &str = "read";
/// The version in which offsets have names of topics and epochs of members.
const NAMED: i16 = 9;

pub fn find(client: &mut Client) {
    let request = FindCoordinatorRequest { coordinator_keys: vec![GROUP.into()], ..Default::default() };
    let found = client.ask(&request).coordinators.remove(0);
    assert_eq!(found.error_code, ErrorCode::NONE, "{:?}", found.error_message);
}

/// A member, as its client has it.
#[derive(Clone, Default)]
pub struct Member {
    pub id: &'static str,
    pub regex: Option<&'static str>,
    pub epoch: i32,
    pub has: Vec<(TopicId, Vec<i32>)>,
}

impl Member {
    fn request(&self) -> ConsumerGroupHeartbeatRequest {
        let joins = self.epoch == 0;
        let names = if self.regex.is_some() { Vec::new() } else { vec![Text::from(TOPIC)] };
        let owned = self.has.iter().map(|(id, has)| TopicPartitions { topic_id: *id, partitions: has.clone() });
        ConsumerGroupHeartbeatRequest {
            group_id: GROUP.into(),
            member_id: self.id.into(),
            member_epoch: self.epoch,
            rebalance_timeout_ms: if joins { 30_000 } else { -1 },
            subscribed_topic_names: joins.then_some(names),
            subscribed_topic_regex: self.regex.filter(|_| joins).map(Text::from),
            topic_partitions: Some(if joins { Vec::new() } else { owned.collect() }),
            ..Default::default()
        }
    }

    fn take(&mut self, told: ConsumerGroupHeartbeatResponse) {
        assert_eq!(told.error_code, ErrorCode::NONE, "{:?}", told.error_message);
        self.epoch = told.member_epoch;
        if let Some(assignment) = told.assignment {
            let topics = assignment.topic_partitions.into_iter();
            self.has = topics.map(|topic| (topic.topic_id, topic.partitions)).collect();
        }
    }

    pub fn beat(&mut self, client: &mut Client) {
        let told = client.ask(&self.request());
        self.take(told);
    }

    pub fn count(&self) -> usize {
        self.has.iter().map(|(_, partitions)| partitions.len()).sum()
    }

    pub fn commit(&self, epoch: i32, offset: i64) -> OffsetCommitRequest {
        let partitions = vec![OffsetCommitRequestPartition { committed_offset: offset, ..Default::default() }];
        OffsetCommitRequest {
            group_id: GROUP.into(),
            generation_id_or_member_epoch: epoch,
            member_id: self.id.into(),
            topics: vec![OffsetCommitRequestTopic { name: TOPIC.into(), partitions, ..Default::default() }],
            ..Default::default()
        }
    }

    /// The group's offset, as this member reads it.
    fn fetch(&self, client: &mut Client) -> i64 {
        let group = OffsetFetchRequestGroup {
            group_id: GROUP.into(),
            member_id: Some(self.id.into()),
            member_epoch: self.epoch,
            topics: None,
        };
        let response = client.ask_in(NAMED, &OffsetFetchRequest { groups: vec![group], ..Default::default() });
        let group = &response.groups[0];
        assert_eq!(group.error_code, ErrorCode::NONE);
        group.topics.first().map_or(-1, |topic| topic.partitions[0].committed_offset)
    }
}

fn committed(response: &OffsetCommitResponse) -> ErrorCode {
    response.topics[0].partitions[0].error_code
}

#[test]
fn members_keep_epoch_and_partitions_whatever_the_power_does() {
    let mut cuts = 0;
    for seed in 0..6u64 {
        let mut disk = MemDisk::inline().seeded(seed);
        let mut server = Server::start_life_with(&disk, "first", |_| {});
        let mut client = server.as_ref().unwrap().connect();
        client.create_topic(TOPIC, 4);
        find(&mut client);
        let (mut a, mut b) = (Member { id: "a", ..Default::default() }, Member { id: "b", ..Default::default() });
        for _ in 0..4 {
            a.beat(&mut client);
            b.beat(&mut client);
        }
        assert_eq!((a.count(), b.count(), a.epoch, b.epoch), (2, 2, 3, 3));
        let mut acked = -1;
        for life in 0..3u64 {
            if let Some(server) = server.take() {
                let mut client = server.connect();
                disk.cut_power_at(disk.ops() + 5 + (seed * 11 + life * 17) % 60);
                for offset in acked + 1.. {
                    match client.try_ask_in(NAMED, &a.commit(a.epoch, offset)) {
                        Some(response) if committed(&response) == ErrorCode::NONE => acked = offset,
                        _ => break,
                    }
                }
                cuts += u64::from(disk.is_cut());
                server.kill();
            }
            disk = disk.after_power_cut();
            server = Server::start_life_with(&disk, &format!("{seed}-{life}"), |_| {});
        }
        let server = server.expect("nobody cuts its power");
        let mut client = server.connect();
        find(&mut client);
        assert!(a.fetch(&mut client) >= acked, "group-offset-regress: {} after {acked}", a.fetch(&mut client));
        for member in [&mut a, &mut b] {
            let before = member.clone();
            member.beat(&mut client);
            assert_eq!((member.epoch, &member.has), (before.epoch, &before.has), "no rebalance for a restart");
        }
        let stale = client.ask_in(NAMED, &a.commit(a.epoch + 1, 0));
        assert_eq!(committed(&stale), ErrorCode::STALE_MEMBER_EPOCH);
    }
    assert!(cuts >= 6, "the power went in {cuts} lives only");
}

#[test]
fn topics_that_match_are_read_when_they_come() {
    let disk = MemDisk::inline();
    let server = Server::start_life_with(&disk, "first", |_| {}).unwrap();
    let mut client = server.connect();
    client.create_topic("orders-1", 2);
    client.create_topic("bills", 2);
    find(&mut client);
    let mut member = Member { id: "a", regex: Some("orders-.*|__.*"), ..Default::default() };
    member.beat(&mut client);
    assert_eq!(member.count(), 2, "the cluster's own topics are nobody's to read by chance");
    client.create_topic("orders-2", 3);
    let deadline = Instant::now() + Duration::from_secs(60);
    while member.count() < 5 {
        assert!(Instant::now() < deadline, "stuck-group: {:?}", member.has);
        member.beat(&mut client);
    }
    let described = client.ask(&ConsumerGroupDescribeRequest { group_ids: vec![GROUP.into()], ..Default::default() });
    let group = &described.groups[0];
    assert_eq!((group.group_state.as_ref(), group.members.len()), ("Stable", 1));
    let mut names: Vec<&str> =
        group.members[0].assignment.topic_partitions.iter().map(|topic| &*topic.topic_name).collect();
    names.sort_unstable();
    assert_eq!(names, ["orders-1", "orders-2"]);
}
