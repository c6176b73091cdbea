//! `ottla group ...` as people and scripts see it, on groups of both protocols.

use std::collections::BTreeSet;
use std::process::{Command, Output};

use ottla::protocol::consumer_protocol::{Assignment, Subscription, TopicPartitions};
use ottla::protocol::error_code::ErrorCode;
use ottla::protocol::messages::join_group::JoinGroupRequestProtocol;
use ottla::protocol::messages::leave_group::MemberIdentity;
use ottla::protocol::messages::offset_commit::{OffsetCommitRequestPartition, OffsetCommitRequestTopic};
use ottla::protocol::messages::sync_group::SyncGroupRequestAssignment;
use ottla::protocol::messages::*;
use serde_json::{Value, json};

use crate::consumer_groups::{GROUP as MODERN, Member, TOPIC, find};
use crate::kit::{Client, Server};

const CLASSIC: &str = "classic";
/// Exit codes.
const REFUSED: i32 = 1;
const NOT_FOUND: i32 = 4;

/// A broker with a topic of four partitions with ten records each.
fn server() -> Server {
    let server = Server::start_with(|config| config.groups.initial_rebalance_delay_ms = 0);
    let mut client = server.connect();
    client.create_topic(TOPIC, 4);
    (0..4).for_each(|partition| assert_eq!(client.produce(TOPIC, partition, 10, 10), 0));
    find(&mut client);
    server
}

fn ottla(server: &Server, args: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_ottla"));
    command.arg("group").args(args).env("OTTLA_BROKERS", server.address().to_string()).output().unwrap()
}

/// What it prints, its columns one space apart; it must succeed.
fn said(server: &Server, args: &[&str]) -> Vec<String> {
    let output = ottla(server, args);
    assert!(output.status.success(), "{args:?}: {output:?}");
    let text = String::from_utf8(output.stdout).unwrap();
    text.lines().map(|line| line.split_whitespace().collect::<Vec<_>>().join(" ")).collect()
}

fn parsed(server: &Server, args: &[&str]) -> Value {
    let output = ottla(server, &[args, &["--format", "json"]].concat());
    assert!(output.status.success(), "{args:?}: {output:?}");
    serde_json::from_slice(&output.stdout).unwrap()
}

/// Its exit code and what it complains of.
fn refused(server: &Server, args: &[&str]) -> (i32, String) {
    let output = ottla(server, args);
    assert!(output.stdout.is_empty(), "{args:?}: {output:?}");
    (output.status.code().unwrap(), String::from_utf8(output.stderr).unwrap())
}

/// The static member `desk-1` of the classic group, which has all partitions.
fn join_classic(client: &mut Client) -> JoinGroupResponse {
    let subscription = Subscription { topics: vec![TOPIC.into()], ..Default::default() };
    let joined = client.ask(&JoinGroupRequest {
        group_id: CLASSIC.into(),
        session_timeout_ms: 30_000,
        rebalance_timeout_ms: 30_000,
        group_instance_id: Some("desk-1".into()),
        protocol_type: "consumer".into(),
        protocols: vec![JoinGroupRequestProtocol { name: "range".into(), metadata: subscription.encode(1) }],
        ..Default::default()
    });
    assert_eq!(joined.error_code, ErrorCode::NONE);
    let topics = vec![TopicPartitions { topic: TOPIC.into(), partitions: vec![0, 1, 2, 3] }];
    let assignment = Assignment { topics, user_data: None }.encode(1);
    let synced = client.ask(&SyncGroupRequest {
        group_id: CLASSIC.into(),
        generation_id: joined.generation_id,
        member_id: joined.member_id.clone(),
        group_instance_id: Some("desk-1".into()),
        assignments: vec![SyncGroupRequestAssignment { member_id: joined.member_id.clone(), assignment }],
        ..Default::default()
    });
    assert_eq!(synced.error_code, ErrorCode::NONE);
    joined
}

fn commit_classic(client: &mut Client, member: &JoinGroupResponse, offset: i64) {
    let partitions = vec![OffsetCommitRequestPartition { committed_offset: offset, ..Default::default() }];
    let response = client.ask(&OffsetCommitRequest {
        group_id: CLASSIC.into(),
        generation_id_or_member_epoch: member.generation_id,
        member_id: member.member_id.clone(),
        group_instance_id: Some("desk-1".into()),
        topics: vec![OffsetCommitRequestTopic { name: TOPIC.into(), partitions, ..Default::default() }],
        ..Default::default()
    });
    assert_eq!(response.topics[0].partitions[0].error_code, ErrorCode::NONE);
}

fn leave_classic(client: &mut Client) {
    let members = vec![MemberIdentity { group_instance_id: Some("desk-1".into()), ..Default::default() }];
    let response = client.ask(&LeaveGroupRequest { group_id: CLASSIC.into(), members, ..Default::default() });
    assert_eq!((response.error_code, response.members[0].error_code), (ErrorCode::NONE, ErrorCode::NONE));
}

fn join_modern(client: &mut Client, id: &'static str) -> Member {
    let mut member = Member { id, ..Default::default() };
    member.beat(client);
    member
}

fn leave_modern(client: &mut Client, member: &Member) {
    let left = client.ask(&ConsumerGroupHeartbeatRequest {
        group_id: MODERN.into(),
        member_id: member.id.into(),
        member_epoch: -1,
        ..Default::default()
    });
    assert_eq!(left.error_code, ErrorCode::NONE);
}

fn keys(value: &Value) -> BTreeSet<&String> {
    value.as_object().unwrap().keys().collect()
}

#[test]
fn groups_of_both_protocols_are_shown_alike() {
    let server = server();
    let client = &mut server.connect();
    let classic = join_classic(client);
    commit_classic(client, &classic, 4);
    let member = join_modern(client, "a");
    client.ask_in(9, &member.commit(member.epoch, 7));

    let groups = ["classic Stable classic consumer", "modern Stable consumer consumer"];
    assert_eq!(said(&server, &["list"]), [&["GROUP STATE TYPE PROTOCOL-TYPE"], &groups[..]].concat());
    for (filter, found) in [
        (&["--type", "Consumer"][..], &groups[1..]),
        (&["--type", "classic,consumer", "--state", "stable"], &groups),
        (&["--state", "Empty,Assigning"], &[]),
    ] {
        assert_eq!(said(&server, &[&["list"], filter].concat())[1..], *found, "{filter:?}");
    }

    let described = parsed(&server, &["describe", CLASSIC, MODERN]);
    let [old, new] = [&described["groups"][0], &described["groups"][1]];
    assert_eq!(keys(old), keys(new));
    assert_eq!(keys(&old["members"][0]), keys(&new["members"][0]));
    assert_eq!([&old["type"], &new["type"]], ["classic", "consumer"]);
    assert_eq!([&old["assignor"], &new["assignor"]], ["range", "uniform"]);
    assert_eq!([&old["epoch"], &old["members"][0]["epoch"]], [&Value::Null; 2], "nobody tells");
    assert_eq!([&new["epoch"], &new["assignment_epoch"], &new["members"][0]["epoch"]], [&json!(member.epoch); 3]);
    let all = json!([{"topic": TOPIC, "partitions": [0, 1, 2, 3]}]);
    for (group, lag) in [(old, 6), (new, 3)] {
        assert_eq!((&group["state"], &group["protocol_type"]), (&json!("Stable"), &json!("consumer")));
        assert_eq!((&group["lag"], &group["offsets"][0]["lag"]), (&json!(lag), &json!(lag)));
        assert_eq!([&group["members"][0]["assignment"], &group["members"][0]["target_assignment"]], [&all; 2]);
    }
    let text = said(&server, &["describe", MODERN]);
    for line in ["Type consumer", "State Stable", "Assignor uniform", "Members 1", "Lag 3", "read 0 7 0 10 3"] {
        assert!(text.iter().any(|found| found == line), "{line:?} in {text:?}");
    }
    assert!(text.contains(&format!("Epoch {}", member.epoch)), "{text:?}");
    let unread = ["read 1 - 0 10 -", "read 2 - 0 10 -", "read 3 - 0 10 -"];
    assert_eq!(
        said(&server, &["lag", MODERN])[1..],
        [&["read 0 7 0 10 3"], &unread[..]].concat(),
        "what it has, all of it"
    );
    assert_eq!(said(&server, &["lag", CLASSIC])[1..], [&["read 0 4 0 10 6"], &unread[..]].concat());
    assert_eq!(new["offsets"][1]["committed"], Value::Null);
    let member_id = &classic.member_id;
    let members = format!("{member_id} desk-1 test /127.0.0.1 - read[0,1,2,3]");
    assert_eq!(said(&server, &["members", CLASSIC]), ["MEMBER INSTANCE CLIENT HOST EPOCH PARTITIONS", &*members]);
}

#[test]
fn partitions_on_their_way_are_shown_with_both_members() {
    let server = server();
    let client = &mut server.connect();
    let mut a = join_modern(client, "a");
    let before = a.epoch;
    let mut b = join_modern(client, "b");
    let moving = said(&server, &["members", MODERN]);
    assert_eq!(moving[0], "MEMBER INSTANCE CLIENT HOST EPOCH PARTITIONS TARGET");
    let of = |partitions: &Value| format!("read{}", partitions[0]["partitions"]);
    let shown = parsed(&server, &["members", MODERN]);
    let targets = [0, 1].map(|at| of(&shown["members"][at]["target_assignment"]));
    assert_eq!(moving[1], format!("a - test /127.0.0.1 {before} read[0,1,2,3] {}", targets[0]));
    assert_eq!(moving[2], format!("b - test /127.0.0.1 {} - {}", b.epoch, targets[1]));
    assert_eq!(shown["members"][1]["assignment"], json!([]));
    assert_eq!(parsed(&server, &["describe", MODERN])["groups"][0]["state"], "Reconciling");
    for _ in 0..3 {
        a.beat(client);
        b.beat(client);
    }
    let settled = said(&server, &["members", MODERN]);
    let row = |member: &Member, target: &str| format!("{} - test /127.0.0.1 {} {target}", member.id, member.epoch);
    assert_eq!(
        settled,
        ["MEMBER INSTANCE CLIENT HOST EPOCH PARTITIONS".to_owned(), row(&a, &targets[0]), row(&b, &targets[1])]
    );
}

#[test]
fn members_of_both_protocols_in_one_group_are_told_apart() {
    let server = server();
    let client = &mut server.connect();
    let member = join_modern(client, "a");
    let subscription = Subscription { topics: vec![TOPIC.into()], ..Default::default() };
    let mut request = JoinGroupRequest {
        group_id: MODERN.into(),
        session_timeout_ms: 30_000,
        rebalance_timeout_ms: 30_000,
        protocol_type: "consumer".into(),
        protocols: vec![JoinGroupRequestProtocol { name: "range".into(), metadata: subscription.encode(1) }],
        ..Default::default()
    };
    let told = client.named("billing").ask(&request);
    assert_eq!(told.error_code, ErrorCode::MEMBER_ID_REQUIRED);
    assert_eq!(told.member_id.len(), 22, "as all ids that the broker gives in such a group: {}", told.member_id);
    request.member_id = told.member_id;
    let joined = client.ask(&request);
    assert_eq!((joined.error_code, joined.generation_id > member.epoch), (ErrorCode::NONE, true));
    let members = parsed(&server, &["members", MODERN]);
    let shown = members["members"].as_array().unwrap().iter().map(|it| (&it["client"], &it["type"], &it["member"]));
    let shown: BTreeSet<_> =
        shown.map(|(client, kind, id)| [client, kind, id].map(|it| it.as_str().unwrap())).collect();
    assert_eq!(shown, BTreeSet::from([["test", "consumer", "a"], ["billing", "classic", &*request.member_id]]));
}

/// What an operator does to a group, first while `leave` was not called.
fn operate(server: &Server, group: &str, leave: impl FnOnce()) {
    let header = "TOPIC PARTITION BEFORE AFTER";
    let dry = said(server, &["reset", group, "--to", "end"]);
    assert_eq!(dry[..2], [header, "read 0 4 10"]);
    assert_eq!(dry[2], "Nothing was changed; stop its member, then --apply does it.");
    let exported = ottla(server, &["export", group]).stdout;
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), &exported).unwrap();
    let import = ["import", file.path().to_str().unwrap(), "--apply"];
    let stop = format!("ottla: setting the offsets of group {group}: NON_EMPTY_GROUP (68): stop its member first\n");
    assert_eq!(refused(server, &["reset", group, "--shift", "-1", "--apply"]), (REFUSED, stop.clone()));
    assert_eq!(refused(server, &import), (REFUSED, stop));
    let (code, message) = refused(server, &["delete", group]);
    assert!(code == REFUSED && message.contains("NON_EMPTY_GROUP (68): The group has members."), "{code}: {message}");
    let (code, message) = refused(server, &["delete-offsets", group, "--topics", TOPIC]);
    assert!(code == REFUSED && message.contains("GROUP_SUBSCRIBED_TO_TOPIC (86)"), "{code}: {message}");
    let standing = |committed: &str, lag: &str| {
        let lines = said(server, &["lag", group]);
        assert_eq!(lines[1], format!("read 0 {committed} 0 10 {lag}"), "group {group}");
    };
    standing("4", "6");

    leave();
    assert_eq!(parsed(server, &["describe", group])["groups"][0]["state"], "Empty");
    assert_eq!(said(server, &["members", group]).len(), 1, "no more than column names");
    let nothing = "Nothing was changed; --apply does it.";
    assert_eq!(said(server, &["reset", group, "--shift", "-1"]), [header, "read 0 4 3", nothing]);
    assert_eq!(said(server, &["reset", group, "--shift", "-1", "--apply"]), [header, "read 0 4 3"]);
    standing("3", "7");
    assert_eq!(said(server, &import), [header, "read 0 3 4"]);
    standing("4", "6");
    said(server, &["delete-offsets", group, "--topics", TOPIC]);
    assert_eq!(parsed(server, &["lag", group])["offsets"], json!([]));
    said(server, &["delete", group]);
    for command in ["describe", "members", "lag", "export", "delete"] {
        let missing = (NOT_FOUND, format!("ottla: there is no group {group}\n"));
        assert_eq!(refused(server, &[command, group]), missing, "{command}");
    }
}

#[test]
fn offsets_are_set_when_the_members_have_left() {
    let server = server();
    let client = &mut server.connect();
    let member = join_classic(client);
    commit_classic(client, &member, 4);
    operate(&server, CLASSIC, || leave_classic(client));

    let member = join_modern(client, "a");
    client.ask_in(9, &member.commit(member.epoch, 4));
    operate(&server, MODERN, || leave_modern(client, &member));
}
