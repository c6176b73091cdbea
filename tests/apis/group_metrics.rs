//! What `/metrics` says of consumer groups, read over HTTP as a monitoring system does.

use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::net::TcpStream;

use ottla::config::HostPort;
use ottla::protocol::error_code::ErrorCode;
use ottla::protocol::messages::join_group::JoinGroupRequestProtocol;
use ottla::protocol::messages::offset_commit::{OffsetCommitRequestPartition, OffsetCommitRequestTopic};
use ottla::protocol::messages::sync_group::SyncGroupRequestAssignment;
use ottla::protocol::messages::*;

use crate::kit::{Client, Server};

/// A version in which a member is taken in at once.
const JOIN: i16 = 3;

/// All samples, by name and labels.
type Samples = BTreeMap<(String, Vec<(String, String)>), f64>;

/// Reads the text format by its grammar: a label's value ends at the first quote that no backslash stands before.
fn parse(text: &str) -> Samples {
    let mut samples = Samples::new();
    assert!(text.ends_with("\n# EOF\n"), "the text has an end");
    for line in text.split('\n').filter(|line| !line.is_empty() && !line.starts_with('#')) {
        let (name, mut rest) = line.split_at(line.find(['{', ' ']).expect("a name ends"));
        let mut labels = Vec::new();
        while let Some(inside) = rest.strip_prefix(['{', ',']) {
            let (label, value) = inside.split_once("=\"").expect("a label has a value");
            let (mut read, mut characters) = (String::new(), value.char_indices());
            let end = loop {
                match characters.next().unwrap_or_else(|| panic!("a label's value ends: {line}")) {
                    (at, '"') => break at,
                    (_, '\\') => read.push(match characters.next().expect("something is escaped").1 {
                        'n' => '\n',
                        other @ ('\\' | '"') => other,
                        other => panic!("\\{other} is no escape: {line}"),
                    }),
                    (_, other) => read.push(other),
                }
            };
            labels.push((label.to_owned(), read));
            rest = value[end + 1..].strip_prefix('}').unwrap_or(&value[end + 1..]);
        }
        let value = rest.trim_start().parse().unwrap_or_else(|error| panic!("{error}: {line}"));
        assert!(samples.insert((name.to_owned(), labels), value).is_none(), "twice: {line}");
    }
    samples
}

fn scrape(server: &Server) -> Samples {
    let mut stream = TcpStream::connect(server.admin_address()).unwrap();
    stream.write_all(b"GET /metrics HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n").unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    assert!(head.starts_with("HTTP/1.1 200"), "{head}");
    // It is longer than one chunk where it is sent in chunks, which this reader does not put together.
    assert!(head.to_lowercase().contains("content-length"), "{head}");
    parse(body)
}

fn one(samples: &Samples, name: &str, labels: &[(&str, &str)]) -> Option<f64> {
    let labels = labels.iter().map(|(label, value)| ((*label).to_owned(), (*value).to_owned())).collect();
    samples.get(&(name.to_owned(), labels)).copied()
}

/// Lag, the largest of a partition, the sum of what is committed, and how many partitions.
fn standing(samples: &Samples, group: &str, topic: &str) -> Option<[f64; 4]> {
    let of = |name: &str| one(samples, name, &[("group", group), ("topic", topic)]);
    Some([
        of("ottla_group_lag_records")?,
        of("ottla_group_lag_max_records")?,
        of("ottla_group_committed_records")?,
        of("ottla_group_committed_partitions")?,
    ])
}

fn series(samples: &Samples) -> usize {
    samples.keys().filter(|(name, _)| name == "ottla_group_lag_records").count()
}

fn start() -> Server {
    Server::start_with(|config| {
        config.topics.retention_ms = None;
        config.admin.listen = Some(HostPort::new("127.0.0.1", 0));
        config.groups.initial_rebalance_delay_ms = 0;
    })
}

fn commit(client: &mut Client, group: &str, topic: &str, offsets: &[(i32, i64)]) {
    let partition = |(partition, offset): &(i32, i64)| OffsetCommitRequestPartition {
        partition_index: *partition,
        committed_offset: *offset,
        ..Default::default()
    };
    let partitions = offsets.iter().map(partition).collect();
    let request = OffsetCommitRequest {
        group_id: group.into(),
        generation_id_or_member_epoch: -1,
        topics: vec![OffsetCommitRequestTopic { name: topic.into(), partitions, ..Default::default() }],
        ..Default::default()
    };
    let answer = client.ask(&request);
    assert!(answer.topics[0].partitions.iter().all(|it| it.error_code == ErrorCode::NONE), "{answer:?}");
}

fn find(client: &mut Client) {
    let request = FindCoordinatorRequest { coordinator_keys: vec!["any".into()], ..Default::default() };
    assert_eq!(client.ask(&request).coordinators[0].error_code, ErrorCode::NONE);
}

#[test]
fn lag_is_shown_by_group_and_topic_under_every_name_that_a_group_may_have() {
    let server = start();
    assert_eq!(one(&scrape(&server), "ottla_groups", &[("state", "Stable")]), Some(0.0), "before there are groups");
    let mut client = server.connect();
    find(&mut client);
    for topic in ["a", "b.c"] {
        client.create_topic(topic, 3);
        client.produce(topic, 0, 100, 10);
        client.produce(topic, 1, 10, 10);
    }
    let names = [
        "plain",
        "",
        "with \"quotes\"",
        "back\\slash",
        "ends with \\",
        "\\n",
        "two\nlines\r\n",
        "{a=\"b\"} 1 # EOF",
        "\u{0}\u{1f}",
        "größer ∞ 🦀",
    ];
    for name in names {
        commit(&mut client, name, "a", &[(0, 30), (1, 4), (2, 0)]);
    }
    commit(&mut client, "plain", "b.c", &[(0, 100)]);
    let samples = scrape(&server);
    for name in names {
        assert_eq!(standing(&samples, name, "a"), Some([76.0, 70.0, 34.0, 3.0]), "group {name:?}");
    }
    assert_eq!(standing(&samples, "plain", "b.c"), Some([0.0, 0.0, 100.0, 1.0]));
    assert_eq!(series(&samples), names.len() + 1);
    assert_eq!(one(&samples, "ottla_groups", &[("state", "Empty")]), Some(10.0));
    assert_eq!(one(&samples, "ottla_group_topics_left_out", &[]), Some(0.0));

    client.produce("b.c", 2, 5, 10);
    client.produce("b.c", 0, 5, 10);
    assert_eq!(
        standing(&scrape(&server), "plain", "b.c"),
        Some([5.0, 5.0, 100.0, 1.0]),
        "nothing was committed of the other"
    );
    let deleted = client.ask(&DeleteTopicsRequest {
        topics: vec![delete_topics::DeleteTopicState { name: Some("b.c".into()), ..Default::default() }],
        timeout_ms: 30_000,
        ..Default::default()
    });
    assert_eq!(deleted.responses[0].error_code, ErrorCode::NONE);
    assert_eq!(standing(&scrape(&server), "plain", "b.c"), None, "the topic is gone");
    client.create_topic("b.c", 1);
    client.produce("b.c", 0, 7, 10);
    assert_eq!(standing(&scrape(&server), "plain", "b.c"), None, "this is another topic");
}

#[test]
fn members_are_counted_and_a_group_without_commits_has_no_lag() {
    let server = start();
    let mut client = server.connect();
    client.create_topic("a", 1);
    find(&mut client);
    let join = JoinGroupRequest {
        group_id: "readers".into(),
        session_timeout_ms: 30_000,
        rebalance_timeout_ms: 30_000,
        protocol_type: "consumer".into(),
        protocols: vec![JoinGroupRequestProtocol { name: "range".into(), metadata: "m".into() }],
        ..Default::default()
    };
    let joined = client.ask_in(JOIN, &join);
    assert_eq!(joined.error_code, ErrorCode::NONE);
    let count = |state: &str| {
        let samples = scrape(&server);
        assert_eq!(series(&samples), 0, "nothing was committed");
        let counted = one(&samples, "ottla_groups", &[("state", state)]).unwrap();
        (counted, one(&samples, "ottla_group_members", &[]).unwrap())
    };
    assert_eq!(count("CompletingRebalance"), (1.0, 1.0));
    let assignments =
        vec![SyncGroupRequestAssignment { member_id: joined.member_id.clone(), assignment: "all".into() }];
    let sync = SyncGroupRequest {
        group_id: "readers".into(),
        generation_id: joined.generation_id,
        member_id: joined.member_id.clone(),
        assignments,
        ..Default::default()
    };
    assert_eq!(client.ask(&sync).error_code, ErrorCode::NONE);
    assert_eq!(count("Stable"), (1.0, 1.0));
    let member = leave_group::MemberIdentity { member_id: joined.member_id, ..Default::default() };
    let left =
        client.ask(&LeaveGroupRequest { group_id: "readers".into(), members: vec![member], ..Default::default() });
    assert_eq!(left.error_code, ErrorCode::NONE);
    assert_eq!(count("Stable"), (0.0, 0.0));
    assert_eq!(count("Empty"), (1.0, 0.0));

    let joins = ConsumerGroupHeartbeatRequest {
        group_id: "modern".into(),
        member_id: "one".into(),
        rebalance_timeout_ms: 30_000,
        subscribed_topic_names: Some(vec!["a".into()]),
        topic_partitions: Some(Vec::new()),
        ..Default::default()
    };
    assert_eq!(client.ask(&joins).error_code, ErrorCode::NONE);
    assert_eq!(count("Empty"), (1.0, 1.0), "a member of the other protocol, whose group is not empty");
}

#[test]
fn no_more_than_a_thousand_pairs_are_shown_and_the_others_are_counted() {
    let server = start();
    let mut client = server.connect();
    find(&mut client);
    client.create_topic("a", 1);
    client.produce("a", 0, 10, 10);
    for number in (0..1003).rev() {
        commit(&mut client, &format!("group {number:04}"), "a", &[(0, 3)]);
    }
    commit(&mut client, &"a".repeat(256), "a", &[(0, 3)]);
    let samples = scrape(&server);
    assert_eq!(series(&samples), 1000);
    assert_eq!(one(&samples, "ottla_group_topics_left_out", &[]), Some(4.0));
    assert_eq!(one(&samples, "ottla_groups", &[("state", "Empty")]), Some(1004.0));
    assert_eq!(standing(&samples, "group 0999", "a"), Some([7.0, 7.0, 3.0, 1.0]));
    assert_eq!(standing(&samples, "group 1000", "a"), None, "the first are shown");
}
