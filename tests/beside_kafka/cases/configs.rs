//! DescribeConfigs and DescribeLogDirs.

use ottla::protocol::messages::describe_configs::DescribeConfigsResource;
use ottla::protocol::messages::describe_log_dirs::DescribableLogDirTopic;
use ottla::protocol::messages::{DescribeConfigsRequest, DescribeLogDirsRequest};

use super::kit::{append, batch, create};
use crate::run::Run;

/// A topic's configs.
pub const TOPIC: i8 = 2;
/// A broker's configs.
pub const BROKER: i8 = 4;

/// The cases.
pub fn cases(run: &mut Run) {
    create(run, "configs", 1, &[("cleanup.policy", "compact"), ("segment.bytes", "2000000")]);
    topics(run);
    brokers(run);
    refused(run);
    log_dirs(run);
}

/// A request for some configs of one resource.
pub fn describe(resource_type: i8, name: &str, keys: Option<&[&str]>) -> DescribeConfigsRequest {
    let configuration_keys = keys.map(|keys| keys.iter().map(|key| (*key).into()).collect());
    let resource = DescribeConfigsResource { resource_type, resource_name: name.into(), configuration_keys };
    DescribeConfigsRequest { resources: vec![resource], ..Default::default() }
}

fn topics(run: &mut Run) {
    run.case("DescribeConfigs of a topic");
    run.step("all", |_| describe(TOPIC, "configs", None));
    run.step("one", |_| describe(TOPIC, "configs", Some(&["retention.ms"])));
    run.step("one that there is not", |_| describe(TOPIC, "configs", Some(&["no.such.config", "segment.bytes"])));
    run.step("no keys", |_| describe(TOPIC, "warm-up", Some(&[])));
    run.step_in("all, with synonyms", [4], |_| DescribeConfigsRequest {
        include_synonyms: true,
        ..describe(TOPIC, "configs", None)
    });
    run.step("one, with synonyms", |_| DescribeConfigsRequest {
        include_synonyms: true,
        ..describe(TOPIC, "configs", Some(&["cleanup.policy", "retention.ms", "flush.ms"]))
    });
    run.step_in("with documentation", 3..=4, |_| DescribeConfigsRequest {
        include_documentation: true,
        ..describe(TOPIC, "configs", Some(&["cleanup.policy", "retention.ms"]))
    });
    run.step("two topics", |_| {
        let mut request = describe(TOPIC, "configs", Some(&["retention.ms"]));
        request.resources.extend(describe(TOPIC, "warm-up", Some(&["segment.bytes"])).resources);
        request
    });
    run.step("a topic twice", |_| {
        let mut request = describe(TOPIC, "configs", Some(&["retention.ms"]));
        request.resources.extend(describe(TOPIC, "configs", Some(&["segment.bytes"])).resources);
        request
    });
    run.step("nothing", |_| DescribeConfigsRequest::default());
}

/// The broker's configs that tools ask for.
const BROKER_KEYS: &[&str] = &[
    "auto.create.topics.enable",
    "broker.id",
    "compression.type",
    "connections.max.idle.ms",
    "default.replication.factor",
    "delete.topic.enable",
    "fetch.max.bytes",
    "inter.broker.protocol.version",
    "log.cleanup.policy",
    "log.dirs",
    "log.flush.interval.ms",
    "log.retention.bytes",
    "log.retention.hours",
    "log.retention.ms",
    "log.roll.ms",
    "log.segment.bytes",
    "max.connections",
    "max.incremental.fetch.session.cache.slots",
    "max.request.partition.size.limit",
    "message.max.bytes",
    "node.id",
    "num.partitions",
    "process.roles",
    "socket.request.max.bytes",
    "unclean.leader.election.enable",
];

fn brokers(run: &mut Run) {
    run.case("DescribeConfigs of a broker");
    run.step("what tools ask for", |_| describe(BROKER, "1", Some(BROKER_KEYS)));
    run.step_in("with synonyms", [4], |_| DescribeConfigsRequest {
        include_synonyms: true,
        ..describe(BROKER, "1", Some(BROKER_KEYS))
    });
    run.step("what all brokers share", |_| describe(BROKER, "", None));
    run.step("what all brokers share, by key", |_| describe(BROKER, "", Some(&["log.retention.ms"])));
}

fn refused(run: &mut Run) {
    run.case("DescribeConfigs, errors");
    for (what, kind, name) in [
        ("no such topic", TOPIC, "configs-none"),
        ("no topic", TOPIC, ""),
        ("a topic's name that cannot be", TOPIC, "a/b"),
        ("no such broker", BROKER, "9"),
        ("a negative broker", BROKER, "-1"),
        ("a broker that is no number", BROKER, "x"),
        ("the unknown type", 0, "x"),
        ("the type of any", 1, "x"),
        ("the type of groups of old", 3, "x"),
        ("the type of client metrics", 16, "x"),
        ("the type of groups", 32, "x"),
        ("a type that there is not", 99, "x"),
        ("a negative type", -1, "x"),
    ] {
        run.step(what, |_| describe(kind, name, None));
    }
    run.step("one of two fails", |_| {
        let mut request = describe(TOPIC, "configs", Some(&["retention.ms"]));
        request.resources.extend(describe(TOPIC, "configs-none", None).resources);
        request
    });
}

fn log_dirs(run: &mut Run) {
    create(run, "log-dirs", 2, &[]);
    append(run, "log-dirs", 0, batch(1, &["a"]));
    run.case("DescribeLogDirs");
    let asked = |topics: &[(&str, &[i32])]| {
        let topic = |(name, partitions): &(&str, &[i32])| DescribableLogDirTopic {
            topic: (*name).into(),
            partitions: partitions.to_vec(),
        };
        DescribeLogDirsRequest { topics: Some(topics.iter().map(topic).collect()) }
    };
    run.step("two partitions", |_| asked(&[("log-dirs", &[0, 1])]));
    run.step("one partition", |_| asked(&[("log-dirs", &[1])]));
    run.step("no such partition", |_| asked(&[("log-dirs", &[1, 9])]));
    run.step("no such topic", |_| asked(&[("log-dirs-none", &[0])]));
    run.step("no partitions", |_| asked(&[("log-dirs", &[])]));
    run.step("no topics", |_| asked(&[]));
    run.step("two topics", |_| asked(&[("warm-up", &[0]), ("log-dirs", &[0])]));
}
