//! The broker's own configuration, by the names that Kafka's tools look for.
//!
//! What is a default for topics is the controller's and can be changed while the broker runs; what is here is only shown.

use crate::config::Config;
use crate::machine::topic_config::Kind;

/// One config of the broker that does not change while it runs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BrokerConfig {
    /// Kafka's name for it.
    pub name: &'static str,
    /// Its value, as text.
    pub value: String,
    /// Its type.
    pub kind: Kind,
    /// Whether somebody has chosen it; else it is as everywhere.
    pub is_set: bool,
    /// What it does, for people.
    pub doc: &'static str,
}

/// What the broker shows of itself beside the defaults for topics, given where its clients reach it; by name.
#[must_use]
pub fn broker_configs(config: &Config, advertised_host: &str, advertised_port: i32) -> Vec<BrokerConfig> {
    let mut all = fixed_configs(config, advertised_host, advertised_port);
    all.extend(limits(config));
    all.sort_by_key(|config| config.name);
    all
}

fn chosen(name: &'static str, kind: Kind, value: String, doc: &'static str) -> BrokerConfig {
    BrokerConfig { name, value, kind, is_set: true, doc }
}

fn given(name: &'static str, kind: Kind, value: &str, doc: &'static str) -> BrokerConfig {
    BrokerConfig { name, value: value.to_owned(), kind, is_set: false, doc }
}

/// Who the broker is and where, and what no file changes.
fn fixed_configs(config: &Config, host: &str, port: i32) -> Vec<BrokerConfig> {
    let listener = |host: &str, port: i32| format!("PLAINTEXT://{host}:{port}");
    let data_dir = config.broker.data_dir.display().to_string();
    let listen = listener(&config.kafka.listen.host, i32::from(config.kafka.listen.port));
    let id = config.broker.id.to_string();
    vec![
        chosen("advertised.listeners", Kind::List, listener(host, port), "Where clients reach this broker."),
        chosen("broker.id", Kind::Int, id.clone(), "This broker's id."),
        given("delete.topic.enable", Kind::Boolean, "true", "Topics can be deleted."),
        given(
            "inter.broker.protocol.version",
            Kind::String,
            "4.3-IV0",
            "Which Kafka this broker's versions look like.",
        ),
        chosen("listeners", Kind::List, listen, "Where this broker listens."),
        chosen("log.dirs", Kind::List, data_dir, "Where this broker keeps its data."),
        given("max.request.partition.size.limit", Kind::Int, "2000", "Partitions in one page of described topics."),
        chosen("node.id", Kind::Int, id, "This broker's id."),
        chosen(
            "process.roles",
            Kind::List,
            "broker,controller".to_owned(),
            "Every broker serves clients and can lead the controller.",
        ),
    ]
}

/// How a config's value is read from the file's.
type Value = fn(&Config) -> String;
/// What the file may change: name, type, value, and what it is for people.
const ROWS: &[(&str, Kind, Value, &str)] = &[
    (
        "auto.create.topics.enable",
        Kind::Boolean,
        |c| c.topics.auto_create.to_string(),
        "Whether asking for a topic's metadata creates it.",
    ),
    (
        "connections.max.idle.ms",
        Kind::Long,
        |c| (u64::from(c.limits.idle_seconds) * 1000).to_string(),
        "After this long without a request a connection is closed.",
    ),
    (
        "default.replication.factor",
        Kind::Int,
        |c| c.topics.replication_factor.unwrap_or(1).to_string(),
        "Replicas of a topic that does not say.",
    ),
    (
        "fetch.max.bytes",
        Kind::Int,
        |c| c.limits.fetch_bytes.to_string(),
        "Records in one fetch response, whatever the client asks for (but never less than one batch).",
    ),
    (
        "group.consumer.heartbeat.interval.ms",
        Kind::Int,
        |c| c.groups.consumer_heartbeat_interval_ms.to_string(),
        "How often a member of the consumer protocol shall show itself.",
    ),
    (
        "group.consumer.session.timeout.ms",
        Kind::Int,
        |c| c.groups.consumer_session_timeout_ms.to_string(),
        "How long a member of the consumer protocol may be silent.",
    ),
    (
        "group.initial.rebalance.delay.ms",
        Kind::Int,
        |c| c.groups.initial_rebalance_delay_ms.to_string(),
        "How long the first members of an empty group wait for others.",
    ),
    (
        "group.max.session.timeout.ms",
        Kind::Int,
        |c| c.groups.session_timeout_max_ms.to_string(),
        "The longest session that a member may ask for.",
    ),
    ("group.max.size", Kind::Int, |c| c.groups.members.to_string(), "The most members of a group."),
    (
        "group.min.session.timeout.ms",
        Kind::Int,
        |c| c.groups.session_timeout_min_ms.to_string(),
        "The shortest session that a member may ask for.",
    ),
    ("max.connections", Kind::Int, |c| c.limits.connections.to_string(), "Client connections open at a time."),
    (
        "max.incremental.fetch.session.cache.slots",
        Kind::Int,
        |c| c.limits.fetch_sessions.to_string(),
        "Incremental fetch sessions kept.",
    ),
    ("num.partitions", Kind::Int, |c| c.topics.partitions.to_string(), "Partitions of a topic that does not say."),
    (
        "offsets.retention.minutes",
        Kind::Int,
        |c| c.groups.offsets_retention_minutes.to_string(),
        "How long the offsets of a group without members are kept.",
    ),
    (
        "producer.id.expiration.ms",
        Kind::Long,
        |c| (u64::from(c.limits.producer_idle_seconds) * 1000).to_string(),
        "An idempotent producer that writes nothing is forgotten after this long.",
    ),
    ("socket.request.max.bytes", Kind::Int, |c| c.limits.request_bytes.to_string(), "The longest request frame."),
];

/// What the file may change.
fn limits(config: &Config) -> Vec<BrokerConfig> {
    let default = Config::default();
    let row = |&(name, kind, value, doc): &(&'static str, Kind, Value, &'static str)| {
        let (value, usual) = (value(config), value(&default));
        BrokerConfig { name, is_set: value != usual, value, kind, doc }
    };
    ROWS.iter().map(row).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::machine::topic_config;

    #[test]
    fn no_config_is_listed_twice() {
        let fixed = broker_configs(&Config::default(), "host", 9092);
        assert!(fixed.is_sorted_by(|a, b| a.name < b.name));
        assert!(fixed.iter().all(|config| topic_config::find_by_broker_name(config.name).is_none()));
    }
}
