//! CreateTopics, DeleteTopics, CreatePartitions.

use ottla::ids::TopicId;
use ottla::protocol::messages::create_partitions::{CreatePartitionsAssignment, CreatePartitionsTopic};
use ottla::protocol::messages::create_topics::{CreatableReplicaAssignment, CreatableTopic, CreatableTopicConfig};
use ottla::protocol::messages::delete_topics::DeleteTopicState;
use ottla::protocol::messages::{CreatePartitionsRequest, CreateTopicsRequest, DeleteTopicsRequest};

use super::kit::{NO_TOPIC, TIMEOUT_MS, create};
use crate::run::Run;

/// The cases.
pub fn cases(run: &mut Run) {
    create(run, "topics", 2, &[]);
    created(run);
    numbers(run);
    names(run);
    assignments(run);
    configs(run);
    deleted_by_name(run);
    deleted_by_state(run);
    partitions(run);
    partitions_refused(run);
}

fn plain(name: &str) -> CreatableTopic {
    CreatableTopic { name: name.into(), num_partitions: 1, replication_factor: 1, ..Default::default() }
}

fn create_all(topics: Vec<CreatableTopic>) -> CreateTopicsRequest {
    CreateTopicsRequest { topics, timeout_ms: TIMEOUT_MS, validate_only: false }
}

/// A request for one topic that is only checked.
fn checked(topic: CreatableTopic) -> CreateTopicsRequest {
    CreateTopicsRequest { validate_only: true, ..create_all(vec![topic]) }
}

fn created(run: &mut Run) {
    run.case("CreateTopics");
    run.with_defaults = true;
    run.step("one", |version| create_all(vec![plain(&format!("made-v{version}"))]));
    run.with_defaults = false;
    run.step("one that exists", |_| create_all(vec![plain("topics")]));
    run.step("only checked", |version| checked(plain(&format!("checked-v{version}"))));
    run.step("only checked, exists", |_| checked(plain("topics")));
    run.step("several", |version| {
        create_all(vec![
            plain(&format!("several-a-v{version}")),
            plain("topics"),
            CreatableTopic { num_partitions: 3, ..plain(&format!("several-b-v{version}")) },
            plain("a/b"),
        ])
    });
    run.step("one named twice", |version| {
        create_all(vec![plain(&format!("twice-v{version}")), plain(&format!("twice-v{version}")), plain("topics")])
    });
    run.step("none", |_| create_all(Vec::new()));
    run.step("no time to wait", |version| CreateTopicsRequest {
        timeout_ms: 0,
        ..create_all(vec![plain(&format!("hasty-v{version}"))])
    });
    run.step("a negative time to wait", |version| CreateTopicsRequest {
        timeout_ms: -1,
        ..create_all(vec![plain(&format!("hastier-v{version}"))])
    });
}

fn numbers(run: &mut Run) {
    run.case("CreateTopics, numbers");
    let numbered = |num_partitions, replication_factor| {
        move |version: i16| {
            let name = format!("numbers-v{version}");
            checked(CreatableTopic { num_partitions, replication_factor, ..plain(&name) })
        }
    };
    run.step("of the defaults", numbered(-1, -1));
    run.step("of three partitions", numbered(3, -1));
    run.step("no partitions", numbered(0, 1));
    run.step("fewer partitions than -1", numbered(-2, 1));
    run.step("no replicas", numbered(1, 0));
    run.step("fewer replicas than -1", numbered(1, -2));
    run.step("more replicas than brokers", numbered(1, 2));
    run.step("no partitions and no replicas", numbered(0, 0));
    run.step("more partitions than one request may make", numbered(10_001, 1));
    run.step("as many partitions as there are numbers", numbered(i32::MAX, 1));
}

fn names(run: &mut Run) {
    run.case("CreateTopics, names");
    let long = "x".repeat(249);
    let too_long = "x".repeat(250);
    for (what, name) in [
        ("empty", ""),
        ("a dot", "."),
        ("two dots", ".."),
        ("three dots", "..."),
        ("a space", "a b"),
        ("a slash", "a/b"),
        ("a colon", "a:b"),
        ("not ASCII", "ä"),
        ("249 characters", &long),
        ("250 characters", &too_long),
        ("all that is allowed", "aZ09._-"),
        ("the metadata topic", "__cluster_metadata"),
        ("an internal topic", "__share_group_state"),
    ] {
        run.step(what, |_| checked(plain(name)));
    }
    create(run, "names.a_b", 1, &[]);
    run.step("a name that collides", |_| checked(plain("names_a.b")));
    run.step("names that collide with each other", |_| CreateTopicsRequest {
        validate_only: true,
        ..create_all(vec![plain("each.other"), plain("each_other")])
    });
}

fn assignments(run: &mut Run) {
    run.case("CreateTopics, assignments");
    let assigned = |partitions: i32, replicas: i16, assignments: &[(i32, &[i32])]| {
        let assignment = |(partition_index, brokers): &(i32, &[i32])| CreatableReplicaAssignment {
            partition_index: *partition_index,
            broker_ids: brokers.to_vec(),
        };
        checked(CreatableTopic {
            num_partitions: partitions,
            replication_factor: replicas,
            assignments: assignments.iter().map(assignment).collect(),
            ..plain("assigned")
        })
    };
    run.step("two partitions", |_| assigned(-1, -1, &[(0, &[1]), (1, &[1])]));
    run.step("not in order", |_| assigned(-1, -1, &[(1, &[1]), (0, &[1])]));
    run.step("and a number of partitions", |_| assigned(1, -1, &[(0, &[1])]));
    run.step("and a number of replicas", |_| assigned(-1, 1, &[(0, &[1])]));
    run.step("and both", |_| assigned(1, 1, &[(0, &[1])]));
    run.step("that do not begin with 0", |_| assigned(-1, -1, &[(1, &[1])]));
    run.step("with a gap", |_| assigned(-1, -1, &[(0, &[1]), (2, &[1])]));
    run.step("a partition twice", |_| assigned(-1, -1, &[(0, &[1]), (0, &[1])]));
    run.step("a negative partition", |_| assigned(-1, -1, &[(-1, &[1])]));
    run.step("a broker that there is not", |_| assigned(-1, -1, &[(0, &[9])]));
    run.step("a negative broker", |_| assigned(-1, -1, &[(0, &[-1])]));
    run.step("no broker", |_| assigned(-1, -1, &[(0, &[])]));
    run.step("a broker twice", |_| assigned(-1, -1, &[(0, &[1, 1])]));
    run.step("as many replicas as differ", |_| assigned(-1, -1, &[(0, &[1]), (1, &[1, 9])]));
}

fn configs(run: &mut Run) {
    run.case("CreateTopics, configs");
    let with = |configs: &[(&str, Option<&str>)]| {
        let config = |(name, value): &(&str, Option<&str>)| CreatableTopicConfig {
            name: (*name).into(),
            value: value.map(Into::into),
        };
        checked(CreatableTopic { configs: configs.iter().map(config).collect(), ..plain("configured") })
    };
    run.step("several", |_| with(&[("retention.ms", Some("5")), ("cleanup.policy", Some("compact"))]));
    run.step("null", |_| with(&[("retention.ms", None)]));
    run.step("one twice", |_| with(&[("retention.ms", Some("5")), ("retention.ms", Some("6"))]));
    run.step("an unknown one", |_| with(&[("no.such.config", Some("5"))]));
    run.step("the broker's name of one", |_| with(&[("log.retention.ms", Some("5"))]));
    for (name, value) in BAD_VALUES {
        run.step_in(&format!("{name}={value}"), [7], |_| with(&[(*name, Some(*value))]));
    }
}

/// Values that a config does not take, and some at the edge that it does.
pub const BAD_VALUES: &[(&str, &str)] = &[
    ("retention.ms", "x"),
    ("retention.ms", ""),
    ("retention.ms", " 5 "),
    ("retention.ms", "-2"),
    ("retention.ms", "9223372036854775808"),
    ("retention.bytes", "-2"),
    ("cleanup.policy", "keep"),
    ("cleanup.policy", ""),
    ("cleanup.policy", "delete,keep"),
    ("cleanup.policy", "delete,delete"),
    ("cleanup.policy", "delete, compact"),
    ("compression.type", "best"),
    ("compression.gzip.level", "0"),
    ("compression.lz4.level", "18"),
    ("segment.bytes", "13"),
    ("segment.bytes", "1048575"),
    ("segment.ms", "0"),
    ("max.message.bytes", "-1"),
    ("max.message.bytes", "2147483648"),
    ("min.insync.replicas", "0"),
    ("min.insync.replicas", "9"),
    ("min.cleanable.dirty.ratio", "1.5"),
    ("min.cleanable.dirty.ratio", "x"),
    ("min.compaction.lag.ms", "9223372036854775807"),
    ("max.compaction.lag.ms", "0"),
    ("message.timestamp.type", "Now"),
    ("message.timestamp.after.max.ms", "-1"),
    ("unclean.leader.election.enable", "yes"),
    ("unclean.leader.election.enable", "TRUE"),
    ("preallocate", ""),
    ("remote.storage.enable", "true"),
    ("local.retention.ms", "-3"),
    ("local.retention.ms", "700000000"),
    ("local.retention.bytes", "5"),
    ("flush.messages", "0"),
    ("index.interval.bytes", "-1"),
    ("segment.index.bytes", "3"),
    ("file.delete.delay.ms", "-1"),
    ("leader.replication.throttled.replicas", "*"),
    ("leader.replication.throttled.replicas", "0:1,1:1"),
    ("leader.replication.throttled.replicas", "0"),
    ("follower.replication.throttled.replicas", "none"),
];

fn delete(names: &[&str]) -> DeleteTopicsRequest {
    let topic_names = names.iter().map(|name| (*name).into()).collect();
    DeleteTopicsRequest { topic_names, timeout_ms: TIMEOUT_MS, ..Default::default() }
}

fn deleted_by_name(run: &mut Run) {
    run.case("DeleteTopics by name");
    for version in 1..=5 {
        create(run, &format!("deleted-a-v{version}"), 1, &[]);
        create(run, &format!("deleted-b-v{version}"), 1, &[]);
    }
    run.step_in("one", 1..=5, |version| delete(&[&format!("deleted-a-v{version}")]));
    run.step_in("the same again", 1..=5, |version| delete(&[&format!("deleted-a-v{version}")]));
    run.step_in("one twice", 1..=5, |version| {
        let name = format!("deleted-b-v{version}");
        delete(&[&name, &name])
    });
    run.step_in("one that does not exist, and one that does", 1..=5, |version| {
        delete(&["deleted-none", &format!("deleted-b-v{version}")])
    });
    run.step_in("a name that cannot be", 1..=5, |_| delete(&["a/b", ""]));
    run.step_in("none", 1..=5, |_| delete(&[]));
}

fn deleted_by_state(run: &mut Run) {
    run.case("DeleteTopics by name or id");
    let ids: Vec<TopicId> =
        ["a", "b", "c", "d"].iter().map(|letter| create(run, &format!("gone-{letter}"), 1, &[])).collect();
    let state = |name: Option<&str>, topic_id| DeleteTopicState { name: name.map(Into::into), topic_id };
    let mut ask = |step: &str, topics: Vec<DeleteTopicState>| {
        run.one(step, 6, &DeleteTopicsRequest { topics, timeout_ms: TIMEOUT_MS, ..Default::default() });
    };
    ask("by name", vec![state(Some("gone-a"), TopicId::ZERO)]);
    ask("by id", vec![state(None, ids[1])]);
    ask("by an id that there is not", vec![state(None, NO_TOPIC)]);
    ask("by an id that there was", vec![state(None, ids[0])]);
    ask("by a name that there is not", vec![state(Some("gone-none"), TopicId::ZERO)]);
    ask("neither", vec![state(None, TopicId::ZERO)]);
    ask("both", vec![state(Some("gone-c"), ids[2])]);
    ask("one by name and by id", vec![state(Some("gone-c"), TopicId::ZERO), state(None, ids[2])]);
    ask("one id twice", vec![state(None, ids[3]), state(None, ids[3])]);
    ask("one name twice", vec![state(Some("gone-d"), TopicId::ZERO), state(Some("gone-d"), TopicId::ZERO)]);
    ask("two", vec![state(Some("gone-c"), TopicId::ZERO), state(None, ids[3])]);
    ask("none", Vec::new());
}

fn widened(name: &str, count: i32, assignments: Option<&[&[i32]]>) -> CreatePartitionsTopic {
    let assignment = |brokers: &&[i32]| CreatePartitionsAssignment { broker_ids: brokers.to_vec() };
    CreatePartitionsTopic {
        name: name.into(),
        count,
        assignments: assignments.map(|all| all.iter().map(assignment).collect()),
    }
}

fn widen(topics: Vec<CreatePartitionsTopic>) -> CreatePartitionsRequest {
    CreatePartitionsRequest { topics, timeout_ms: TIMEOUT_MS, validate_only: false }
}

fn partitions(run: &mut Run) {
    run.case("CreatePartitions");
    for version in 0..=3 {
        create(run, &format!("widened-v{version}"), 1, &[]);
    }
    let name = |version| format!("widened-v{version}");
    run.step("only checked", |version| CreatePartitionsRequest {
        validate_only: true,
        ..widen(vec![widened(&name(version), 3, None)])
    });
    run.step("to two", |version| widen(vec![widened(&name(version), 2, None)]));
    run.step("to two again", |version| widen(vec![widened(&name(version), 2, None)]));
    run.step("with assignments", |version| widen(vec![widened(&name(version), 4, Some(&[&[1], &[1]]))]));
    run.step("one of two exists", |version| {
        widen(vec![widened("widened-none", 5, None), widened(&name(version), 5, None)])
    });
    run.step("none", |_| widen(Vec::new()));
}

fn partitions_refused(run: &mut Run) {
    run.case("CreatePartitions, errors");
    let asked = |count, assignments: Option<&[&[i32]]>| widen(vec![widened("topics", count, assignments)]);
    run.step("fewer", |_| asked(1, None));
    run.step("none", |_| asked(0, None));
    run.step("a negative number", |_| asked(-1, None));
    run.step("too many", |_| asked(i32::MAX, None));
    run.step("a name that cannot be", |_| widen(vec![widened("a/b", 3, None), widened("", 3, None)]));
    run.step("a topic twice", |_| widen(vec![widened("topics", 3, None), widened("topics", 4, None)]));
    run.step("no assignments", |_| asked(3, Some(&[])));
    run.step("too few assignments", |_| asked(4, Some(&[&[1]])));
    run.step("too many assignments", |_| asked(3, Some(&[&[1], &[1]])));
    run.step("a broker that there is not", |_| asked(3, Some(&[&[9]])));
    run.step("an assignment without a broker", |_| asked(3, Some(&[&[]])));
    run.step("a broker twice", |_| asked(3, Some(&[&[1, 1]])));
    run.step("more replicas than before", |_| asked(3, Some(&[&[1, 9]])));
}
