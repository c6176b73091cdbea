//! The consumer protocol (KIP-848): members one after the other and together, and groups that migrate between the protocols.

use ottla::ids::TopicId;
use ottla::protocol::consumer_protocol::{Assignment, Subscription, TopicPartitions as Named};
use ottla::protocol::error_code::ErrorCode;
use ottla::protocol::messages::consumer_group_heartbeat::TopicPartitions;
use ottla::protocol::messages::join_group::JoinGroupRequestProtocol;
use ottla::protocol::messages::leave_group::MemberIdentity;
use ottla::protocol::messages::sync_group::SyncGroupRequestAssignment;
use ottla::protocol::messages::*;
use ottla::protocol::messages::{offset_commit, offset_delete, offset_fetch};
use ottla::protocol::value::Text;

use super::kit::create;
use crate::run::Run;

const TOPIC: &str = "modern";
/// The versions of the heartbeat.
const VERSIONS: [i16; 2] = [0, 1];
/// The version in which offsets have names of topics, and epochs of members.
const OFFSETS: i16 = 9;
const DESCRIBE: i16 = 5;
const REBALANCE_MS: i32 = 60_000;

/// The cases.
pub fn cases(run: &mut Run) {
    let topic = create(run, TOPIC, 4, &[]);
    let find = FindCoordinatorRequest { coordinator_keys: vec!["any".into()], ..Default::default() };
    run.await_answer(&find, |found| found.coordinators[0].error_code == ErrorCode::NONE);
    run.await_answer(&fetch("any", None, -1), |fetched| fetched.groups[0].error_code == ErrorCode::NONE);
    alone(run, topic);
    errors(run, topic);
    two(run, topic);
    statics(run, topic);
    expressions(run);
    migration(run, topic);
    mixed(run, topic);
}

type Beat = ConsumerGroupHeartbeatRequest;

fn owned(topic: TopicId, partitions: &[i32]) -> Vec<TopicPartitions> {
    if partitions.is_empty() {
        return Vec::new();
    }
    vec![TopicPartitions { topic_id: topic, partitions: partitions.to_vec() }]
}

fn join(group: &str, member: &str) -> Beat {
    Beat {
        group_id: group.into(),
        member_id: member.into(),
        rebalance_timeout_ms: REBALANCE_MS,
        subscribed_topic_names: Some(vec![TOPIC.into()]),
        topic_partitions: Some(Vec::new()),
        ..Default::default()
    }
}

fn beat(group: &str, member: &str, epoch: i32) -> Beat {
    Beat { group_id: group.into(), member_id: member.into(), member_epoch: epoch, ..Default::default() }
}

fn with(beat: Beat, topic: TopicId, partitions: &[i32]) -> Beat {
    Beat { topic_partitions: Some(owned(topic, partitions)), ..beat }
}

fn describe(group: &str) -> ConsumerGroupDescribeRequest {
    ConsumerGroupDescribeRequest { group_ids: vec![group.into()], include_authorized_operations: true }
}

fn commit(group: &str, member: &str, epoch: i32, partition: i32) -> OffsetCommitRequest {
    let partition = offset_commit::OffsetCommitRequestPartition {
        partition_index: partition,
        committed_offset: 7,
        ..Default::default()
    };
    let topic = offset_commit::OffsetCommitRequestTopic {
        name: TOPIC.into(),
        partitions: vec![partition],
        ..Default::default()
    };
    OffsetCommitRequest {
        group_id: group.into(),
        generation_id_or_member_epoch: epoch,
        member_id: member.into(),
        topics: vec![topic],
        ..Default::default()
    }
}

fn fetch(group: &str, member: Option<&str>, epoch: i32) -> OffsetFetchRequest {
    let group = offset_fetch::OffsetFetchRequestGroup {
        group_id: group.into(),
        member_id: member.map(Text::from),
        member_epoch: epoch,
        topics: None,
    };
    OffsetFetchRequest { groups: vec![group], ..Default::default() }
}

/// One member, from its first request to its last.
fn alone(run: &mut Run, topic: TopicId) {
    run.case("a consumer alone");
    for version in VERSIONS {
        let group = &format!("consumer-v{version}");
        let as_in = |step: &str| format!("{step}, heartbeats of version {version}");
        run.one("joins", version, &join(group, "m"));
        run.one("joins again: the answer was lost", version, &join(group, "m"));
        run.one("is alive", version, &beat(group, "m", 1));
        run.one("says what it has", version, &with(beat(group, "m", 1), topic, &[0, 1, 2, 3]));
        run.one("says everything", version, &Beat { member_epoch: 1, ..with(join(group, "m"), topic, &[0, 1, 2, 3]) });
        for of in 0..=1 {
            run.one(&as_in("is described"), of, &describe(group));
        }
        let classic = DescribeGroupsRequest { groups: vec![group.as_str().into()], ..Default::default() };
        run.one(&as_in("is no classic group"), DESCRIBE, &classic);
        let listed = ListGroupsRequest { types_filter: vec!["consumer".into()], ..Default::default() };
        run.one(&as_in("is listed among [\"consumer\"]"), 5, &listed);
        for (what, member, epoch) in [
            ("its epoch", "m", 1),
            ("an epoch to come", "m", 2),
            ("an epoch gone", "m", 0),
            ("nobody", "", -1),
            ("another", "x", 1),
        ] {
            run.one(&as_in(&format!("a commit of {what}")), OFFSETS, &commit(group, member, epoch, 0));
            let reader = Some(member).filter(|member| !member.is_empty());
            run.one(&as_in(&format!("what is read by {what}")), OFFSETS, &fetch(group, reader, epoch));
        }
        run.one(&as_in("a commit of an old client"), OFFSETS - 1, &commit(group, "m", 1, 0));
        let topics = vec![offset_delete::OffsetDeleteRequestTopic {
            name: TOPIC.into(),
            partitions: vec![offset_delete::OffsetDeleteRequestPartition { partition_index: 0 }],
        }];
        run.one(&as_in("its offsets are in use"), 0, &OffsetDeleteRequest { group_id: group.as_str().into(), topics });
        let delete = DeleteGroupsRequest { groups_names: vec![group.as_str().into()] };
        run.one(&as_in("it cannot be deleted"), 2, &delete);
        run.one("leaves", version, &beat(group, "m", -1));
        run.one("leaves again", version, &beat(group, "m", -1));
        run.one("is out", version, &beat(group, "m", 1));
        run.one(&as_in("the group it left"), 1, &describe(group));
        run.one(&as_in("a commit of nobody, when nobody is there"), OFFSETS, &commit(group, "", -1, 1));
        run.one(&as_in("a commit of one who left"), OFFSETS, &commit(group, "m", 1, 1));
        run.one(&as_in("it is deleted"), 2, &delete);
        run.one(&as_in("the group is gone"), 1, &describe(group));
        run.one("of a group that is gone", version, &beat(group, "m", 1));
    }
}

/// Requests that make no sense.
fn errors(run: &mut Run, topic: TopicId) {
    run.case("heartbeats, errors");
    for version in VERSIONS {
        let group = &format!("errors-v{version}");
        let new = || join(group, "m");
        let text = |text: &str| Some(Text::from(text));
        let cases: Vec<(&str, Beat)> = vec![
            ("no group", Beat { group_id: "".into(), ..new() }),
            ("an epoch that there is not", Beat { member_epoch: -3, ..new() }),
            ("no id, and an epoch", Beat { member_id: "".into(), member_epoch: 1, ..new() }),
            ("no id, and it leaves", Beat { member_id: "".into(), member_epoch: -1, ..new() }),
            ("an empty instance id", Beat { instance_id: text(""), ..new() }),
            ("an empty rack", Beat { rack_id: text(""), ..new() }),
            ("no time to rebalance", Beat { rebalance_timeout_ms: -1, ..new() }),
            ("it has partitions when it joins", with(new(), topic, &[0])),
            ("it does not say what it has when it joins", Beat { topic_partitions: None, ..new() }),
            ("it reads nothing", Beat { subscribed_topic_names: None, ..new() }),
            ("it leaves for a while without an instance id", Beat { member_epoch: -2, ..new() }),
            ("an assignor that there is not", Beat { server_assignor: text("sticky"), ..new() }),
            ("an assignor in other letters", Beat { server_assignor: text("Range"), ..new() }),
            ("of no group", beat(group, "m", 5)),
            ("it leaves no group", beat(group, "m", -1)),
        ];
        for (name, request) in cases {
            run.one(name, version, &request);
        }
        if version >= 1 {
            run.one("no id", version, &Beat { member_id: "".into(), ..new() });
            let bad = Beat { subscribed_topic_regex: text("("), subscribed_topic_names: None, ..new() };
            run.one("no regular expression", version, &bad);
        } else {
            run.one("no id is given one", version, &Beat { member_id: "".into(), ..join("given", "m") });
        }
        run.one("nothing was made of all this", version, &beat(group, "m", 1));
        run.one("joins", version, &new());
        run.one("an epoch to come", version, &beat(group, "m", 2));
        run.one("an epoch far away", version, &beat(group, "m", i32::MAX));
        run.one("a member that there is not", version, &beat(group, "x", 1));
        run.one("an instance that there is not", version, &Beat { instance_id: text("x"), ..beat(group, "m", 1) });
        run.one("names nothing to read", version, &Beat { subscribed_topic_names: Some(vec![]), ..join(group, "n") });
        run.one(
            "a topic that there is not",
            version,
            &Beat { subscribed_topic_names: Some(vec!["none".into()]), ..join(group, "o") },
        );
        run.one(
            "the group after all this",
            1.min(version),
            &Beat { member_epoch: 1, ..with(new(), topic, &[0, 1, 2, 3]) },
        );
    }
    let groups = vec!["".into(), "nobody's".into()];
    for version in 0..=1 {
        let request = ConsumerGroupDescribeRequest { group_ids: groups.clone(), ..Default::default() };
        run.one("described: groups that there are not", version, &request);
    }
}

/// Two members: what one gives up, the other is given.
fn two(run: &mut Run, topic: TopicId) {
    run.case("two consumers");
    for version in VERSIONS {
        let group = &format!("two-v{version}");
        let as_in = |step: &str| format!("{step}, heartbeats of version {version}");
        run.one("a joins", version, &join(group, "a"));
        run.one("b joins", version, &join(group, "b"));
        run.one(&as_in("described while a has everything"), 1, &describe(group));
        run.one("b is alive", version, &with(beat(group, "b", 2), topic, &[]));
        run.one("a is told what to keep", version, &with(beat(group, "a", 1), topic, &[0, 1, 2, 3]));
        run.one(&as_in("described while a gives up"), 1, &describe(group));
        run.one("a has not given up", version, &with(beat(group, "a", 1), topic, &[0, 1, 2, 3]));
        run.one("a says nothing", version, &beat(group, "a", 1));
        run.one("b still waits", version, &with(beat(group, "b", 2), topic, &[]));
        run.one(&as_in("a commits what it gives up"), OFFSETS, &commit(group, "a", 1, 3));
        run.one("a has given up", version, &with(beat(group, "a", 1), topic, &[0, 1]));
        run.one(&as_in("a commits what it gave up"), OFFSETS, &commit(group, "a", 1, 3));
        run.one(&as_in("a commits what it kept, of its old epoch"), OFFSETS, &commit(group, "a", 1, 0));
        run.one("a again, of its old epoch: the answer was lost", version, &with(beat(group, "a", 1), topic, &[0, 1]));
        run.one("a of its old epoch, with too much", version, &with(beat(group, "a", 1), topic, &[0, 1, 2]));
        run.one("a of its old epoch, without what it has", version, &beat(group, "a", 1));
        run.one("b is given the rest", version, &with(beat(group, "b", 2), topic, &[]));
        run.one(&as_in("b commits of an epoch before it had it"), OFFSETS, &commit(group, "b", 1, 3));
        run.one(&as_in("b commits"), OFFSETS, &commit(group, "b", 2, 3));
        run.one(&as_in("described when all is done"), 1, &describe(group));
        run.one(
            "b reads nothing any more",
            version,
            &Beat { subscribed_topic_names: Some(vec![]), ..beat(group, "b", 2) },
        );
        run.one("b has given up", version, &with(beat(group, "b", 2), topic, &[]));
        run.one("a is given everything", version, &with(beat(group, "a", 2), topic, &[0, 1]));
        run.one("b leaves", version, &beat(group, "b", -1));
        run.one("a is alone", version, &with(beat(group, "a", 3), topic, &[0, 1, 2, 3]));
        let range = Beat { server_assignor: Some("range".into()), ..with(beat(group, "a", 4), topic, &[0, 1, 2, 3]) };
        run.one("a would have ranges", version, &range);
        run.one(&as_in("described with another assignor"), 1, &describe(group));
    }
}

/// Members that come back.
fn statics(run: &mut Run, topic: TopicId) {
    run.case("static consumers");
    for version in VERSIONS {
        let group = &format!("static-v{version}");
        let of = |beat: Beat| Beat { instance_id: Some("i".into()), ..beat };
        let as_in = |step: &str| format!("{step}, heartbeats of version {version}");
        run.one("joins", version, &of(join(group, "old")));
        run.one("another under the same instance id", version, &of(join(group, "new")));
        run.one("leaves for a while", version, &of(beat(group, "old", -2)));
        run.one(&as_in("described while it is away"), 1, &describe(group));
        run.one("the old one is alive", version, &of(beat(group, "old", 1)));
        run.one("comes back", version, &of(join(group, "new")));
        run.one("the old one is fenced", version, &of(beat(group, "old", 1)));
        run.one("the old one without its instance id", version, &beat(group, "old", 1));
        run.one("is alive", version, &of(with(beat(group, "new", 1), topic, &[0, 1, 2, 3])));
        run.one(&as_in("described when it is back"), 1, &describe(group));
        run.one("the old one leaves", version, &of(beat(group, "old", -1)));
        let identity = MemberIdentity { group_instance_id: Some("i".into()), ..Default::default() };
        let leave =
            LeaveGroupRequest { group_id: group.as_str().into(), members: vec![identity], ..Default::default() };
        run.one(&as_in("is removed by its instance id"), 5, &leave);
        run.one(&as_in("described when it is out"), 1, &describe(group));
    }
}

/// Topics by regular expression.
fn expressions(run: &mut Run) {
    run.case("regular expressions");
    let first = create(run, "expressed-1", 1, &[]);
    let join = |member: &str, regex: &str| Beat {
        subscribed_topic_regex: Some(regex.into()),
        subscribed_topic_names: None,
        ..join("regex", member)
    };
    let is_given = |count: usize| {
        move |told: &ConsumerGroupHeartbeatResponse| {
            let given = told.assignment.as_ref();
            given.is_some_and(|given| {
                given.topic_partitions.iter().map(|it| it.partitions.len()).sum::<usize>() == count
            })
        }
    };
    run.await_answer(&join("m", "expressed-.*"), is_given(1));
    run.one("described", 1, &describe("regex"));
    run.one("no more than whole names", 1, &with(join("m", "expressed-.*"), first, &[]));
    for bad in ["[", "*", "a)(b", "(?<!a)b", r"(a)\1", "(?P<"] {
        run.one(&format!("no expression: {bad}"), 1, &join("bad", bad));
    }
    run.one("an empty one", 1, &join("empty", ""));
}

fn classic(group: &str, member: &Text, topics: &[&str], has: &[i32]) -> JoinGroupRequest {
    let owned = vec![Named { topic: TOPIC.into(), partitions: has.to_vec() }];
    let topics = topics.iter().map(|topic| (*topic).into()).collect();
    let metadata = Subscription { topics, owned, ..Default::default() }.encode(1);
    JoinGroupRequest {
        group_id: group.into(),
        session_timeout_ms: 30_000,
        rebalance_timeout_ms: REBALANCE_MS,
        member_id: member.clone(),
        protocol_type: "consumer".into(),
        protocols: vec![JoinGroupRequestProtocol { name: "cooperative-sticky".into(), metadata }],
        ..Default::default()
    }
}

fn sync(group: &str, joined: &JoinGroupResponse, share: &[i32]) -> SyncGroupRequest {
    let topics = vec![Named { topic: TOPIC.into(), partitions: share.to_vec() }];
    let share = SyncGroupRequestAssignment {
        member_id: joined.member_id.clone(),
        assignment: Assignment { topics, user_data: None }.encode(1),
    };
    SyncGroupRequest {
        group_id: group.into(),
        generation_id: joined.generation_id,
        member_id: joined.member_id.clone(),
        protocol_type: Some("consumer".into()),
        protocol_name: Some("cooperative-sticky".into()),
        assignments: vec![share],
        ..Default::default()
    }
}

fn classic_beat(group: &str, joined: &JoinGroupResponse) -> HeartbeatRequest {
    HeartbeatRequest {
        group_id: group.into(),
        generation_id: joined.generation_id,
        member_id: joined.member_id.clone(),
        ..Default::default()
    }
}

/// A classic group whose members go over one by one, and come back.
fn migration(run: &mut Run, topic: TopicId) {
    run.case("migration");
    let group = "migrates";
    let joined =
        run.one("a classic member joins", 3, &classic(group, &Text::default(), &[TOPIC], &[])).expect("an answer");
    run.one("it has everything", 5, &sync(group, &joined, &[0, 1, 2, 3]));
    run.one("a consumer joins", 1, &join(group, "new"));
    run.one("described as consumers", 1, &describe(group));
    run.one("the classic member is alive", 4, &classic_beat(group, &joined));
    run.one("the classic member commits", OFFSETS, &commit(group, &joined.member_id, joined.generation_id, 0));
    run.one("the classic member asks again", 5, &sync(group, &joined, &[]));
    let again = classic(group, &joined.member_id, &[TOPIC], &[0, 1, 2, 3]);
    let joined = run.one("the classic member joins again", 4, &again).expect("an answer");
    run.one("it is told what to keep", 5, &sync(group, &joined, &[]));
    run.one("it has to join once more", 3, &classic_beat(group, &joined));
    run.one("the consumer waits", 1, &with(beat(group, "new", 2), topic, &[]));
    let joined =
        run.one("it joins once more", 5, &classic(group, &joined.member_id, &[TOPIC], &[0, 1])).expect("an answer");
    run.one("it keeps that", 5, &sync(group, &joined, &[]));
    run.one("the consumer is given the rest", 0, &with(beat(group, "new", 2), topic, &[]));
    run.one("it is alive", 2, &classic_beat(group, &joined));
    run.one("it is of another generation", 2, &HeartbeatRequest { generation_id: 77, ..classic_beat(group, &joined) });
    let other = SyncGroupRequest { protocol_name: Some("range".into()), ..sync(group, &joined, &[]) };
    run.one("it takes another protocol for chosen", 5, &other);
    run.one("described with both", 0, &describe(group));
    run.one("described with both kinds", 1, &describe(group));
    run.one("the consumer leaves", 1, &beat(group, "new", -1));
    let names = DescribeGroupsRequest { groups: vec![group.into()], ..Default::default() };
    run.one("described as a classic group", DESCRIBE, &names);
    run.one("described as consumers no more", 1, &describe(group));
    run.one("a consumer that left", 1, &beat(group, "new", 2));
    let joined = run
        .one("the classic member leads again", 6, &classic(group, &joined.member_id, &[TOPIC], &[0, 1]))
        .expect("an answer");
    run.one("it has everything again", 5, &sync(group, &joined, &[0, 1, 2, 3]));
    run.one("it is alive as ever", 4, &classic_beat(group, &joined));
    let identity = MemberIdentity { member_id: joined.member_id.clone(), ..Default::default() };
    run.one(
        "it leaves",
        5,
        &LeaveGroupRequest { group_id: group.into(), members: vec![identity], ..Default::default() },
    );
    run.one("a consumer joins what is left", 1, &join(group, "newer"));
    run.one("described at the end", 1, &describe(group));
}

/// Classic members in a group of consumers, and groups that cannot go over.
fn mixed(run: &mut Run, topic: TopicId) {
    run.case("mixed protocols");
    let group = "mixed";
    run.one("a consumer joins", 1, &join(group, "a"));
    let unknown = run
        .one("a classic member is given its id", 9, &classic(group, &Text::default(), &[TOPIC], &[]))
        .expect("an answer");
    let joined =
        run.one("a classic member joins", 9, &classic(group, &unknown.member_id, &[TOPIC], &[])).expect("an answer");
    run.one("the classic member asks", 5, &sync(group, &joined, &[]));
    run.one("the consumer gives up", 1, &with(beat(group, "a", 1), topic, &[0, 1]));
    run.one("the classic member has to join", 4, &classic_beat(group, &joined));
    let joined = run
        .one("the classic member joins again", 8, &classic(group, &joined.member_id, &[TOPIC], &[]))
        .expect("an answer");
    run.one("the classic member is given its share", 4, &sync(group, &joined, &[]));
    let other = JoinGroupRequest { protocol_type: "connect".into(), ..classic(group, &Text::default(), &[TOPIC], &[]) };
    run.one("a member of another kind", 2, &other);
    let mut range = classic(group, &Text::default(), &[TOPIC], &[]);
    range.protocols[0].name = "range".into();
    run.one("a member that knows another protocol", 1, &range);
    let connect =
        JoinGroupRequest { protocol_type: "connect".into(), ..classic("connects", &Text::default(), &[TOPIC], &[]) };
    run.one("a group of another kind", 0, &connect);
    run.one("a consumer in a group of another kind", 1, &join("connects", "a"));
    let mine = classic("own-assignor", &Text::default(), &[TOPIC], &[]);
    let joined = run.one("a group with an assignor of its own", 2, &mine).expect("an answer");
    let topics = vec![Named { topic: TOPIC.into(), partitions: vec![0] }];
    let assignment = Assignment { topics, user_data: Some("mine".into()) }.encode(1);
    let share = SyncGroupRequestAssignment { member_id: joined.member_id.clone(), assignment };
    run.one("its share", 5, &SyncGroupRequest { assignments: vec![share], ..sync("own-assignor", &joined, &[]) });
    run.one("a consumer in a group with an assignor of its own", 1, &join("own-assignor", "a"));
    run.one("an empty group of simple commits", OFFSETS, &commit("simple-then", "", -1, 0));
    run.one("a consumer in it", 1, &join("simple-then", "a"));
    run.one("described after simple commits", 1, &describe("simple-then"));
}
