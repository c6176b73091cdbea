use super::*;

fn values(pairs: &[(&str, &str)]) -> Values {
    pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
}

fn refused(name: &str, value: &str) -> String {
    check_topic(&values(&[(name, value)])).unwrap_err().to_string()
}

#[test]
fn the_table_is_in_order_and_its_defaults_are_valid() {
    assert!(DEFINITIONS.is_sorted_by(|a, b| a.name < b.name));
    for definition in DEFINITIONS {
        assert_eq!(definition.check(definition.default), Ok(()), "{}", definition.name);
        assert!(std::ptr::eq(find(definition.name).unwrap(), definition));
    }
    assert!(find("nosuch").is_none());
}

/// What Kafka 4.3.1's ConfigCommand prints for a new topic.
#[test]
fn names_and_defaults_are_kafkas() {
    let kafka = "cleanup.policy=delete compression.gzip.level=-1 compression.lz4.level=9 compression.type=producer \
        compression.zstd.level=3 delete.retention.ms=86400000 file.delete.delay.ms=60000 \
        flush.messages=9223372036854775807 flush.ms=9223372036854775807 follower.replication.throttled.replicas= \
        index.interval.bytes=4096 leader.replication.throttled.replicas= local.retention.bytes=-2 local.retention.ms=-2 \
        max.compaction.lag.ms=9223372036854775807 max.message.bytes=1048588 message.timestamp.after.max.ms=3600000 \
        message.timestamp.before.max.ms=9223372036854775807 message.timestamp.type=CreateTime \
        min.cleanable.dirty.ratio=0.5 min.compaction.lag.ms=0 min.insync.replicas=1 preallocate=false \
        remote.log.copy.disable=false remote.log.delete.on.disable=false remote.storage.enable=false retention.bytes=-1 \
        retention.ms=604800000 segment.bytes=1073741824 segment.index.bytes=10485760 segment.jitter.ms=0 \
        segment.ms=604800000 unclean.leader.election.enable=false";
    let ours: Vec<_> = DEFINITIONS
        .iter()
        .filter(|definition| !definition.name.starts_with("ottla."))
        .map(|definition| format!("{}={}", definition.name, definition.default))
        .collect();
    assert_eq!(ours, kafka.split_whitespace().collect::<Vec<_>>());
}

/// Each message as Kafka 4.3.1 says it.
#[test]
fn refusals_read_as_kafkas() {
    let expected = [
        ("retention.ms", "abc", "Invalid value abc for configuration retention.ms: Not a number of type LONG"),
        ("retention.ms", "-5", "Invalid value -5 for configuration retention.ms: Value must be at least -1"),
        (
            "cleanup.policy",
            "foo",
            "Invalid value foo for configuration cleanup.policy: String must be one of: compact, delete",
        ),
        (
            "compression.gzip.level",
            "20",
            "Invalid value 20 for configuration compression.gzip.level: Value must be between 1 and 9 or equal to -1",
        ),
        (
            "compression.type",
            "none",
            "Invalid value none for configuration compression.type: String must be one of: uncompressed, zstd, lz4, snappy, gzip, producer",
        ),
        (
            "min.cleanable.dirty.ratio",
            "2",
            "Invalid value 2.0 for configuration min.cleanable.dirty.ratio: Value must be no more than 1",
        ),
        (
            "preallocate",
            "maybe",
            "Invalid value maybe for configuration preallocate: Expected value to be either true or false",
        ),
        ("nosuch", "1", "Unknown topic config name: nosuch"),
        (
            "remote.storage.enable",
            "true",
            "Tiered Storage functionality is disabled in the broker. Topic cannot be configured with remote log storage.",
        ),
        ("min.insync.replicas", "0", "Invalid value 0 for configuration min.insync.replicas: Value must be at least 1"),
        ("segment.bytes", "10", "Invalid value 10 for configuration segment.bytes: Value must be at least 1048576"),
        (
            "follower.replication.throttled.replicas",
            "x",
            "Invalid value [x] for configuration follower.replication.throttled.replicas: \
             follower.replication.throttled.replicas must be the literal '*' or a list of replicas in the following format: \
             [partitionId]:[brokerId],[partitionId]:[brokerId],...",
        ),
    ];
    for (name, value, message) in expected {
        assert_eq!(refused(name, value), message);
    }
}

#[test]
fn what_kafka_accepts_is_accepted() {
    let accepted = [
        ("cleanup.policy", ""),
        ("cleanup.policy", "compact,delete"),
        ("retention.bytes", "-7"),
        ("retention.ms", " 5 "),
        ("preallocate", "TRUE"),
        ("min.cleanable.dirty.ratio", "1"),
        ("leader.replication.throttled.replicas", "*"),
        ("leader.replication.throttled.replicas", "0:1,12:3"),
        ("remote.storage.enable", "false"),
    ];
    for (name, value) in accepted {
        assert_eq!(check_topic(&values(&[(name, value)])), Ok(()), "{name}={value}");
    }
}

#[test]
fn numbers_that_are_none_are_refused() {
    for (name, value) in [("segment.bytes", "2147483648"), ("retention.ms", ""), ("min.cleanable.dirty.ratio", "NaN")] {
        assert!(check_topic(&values(&[(name, value)])).is_err(), "{name}={value}");
    }
}

#[test]
fn the_least_compaction_lag_is_not_above_the_most() {
    let both = values(&[("min.compaction.lag.ms", "100"), ("max.compaction.lag.ms", "50")]);
    let message = "conflict topic config setting min.compaction.lag.ms (100) > max.compaction.lag.ms (50)";
    assert_eq!(check_topic(&both).unwrap_err().to_string(), message);
}

#[test]
fn a_long_value_is_refused() {
    assert_eq!(check_topic(&values(&[("cleanup.policy", &"x".repeat(VALUE_BYTES_MAX + 1))])), Err(Invalid::TooLong));
}

#[test]
fn the_nearest_value_holds() {
    let topic = values(&[("retention.ms", "1")]);
    let dynamic = values(&[("log.retention.ms", "2"), ("log.segment.bytes", "2000000")]);
    let dynamic_default = values(&[("log.retention.ms", "3"), ("message.max.bytes", "3")]);
    let fixed = values(&[("log.retention.ms", "4"), ("message.max.bytes", "4"), ("log.retention.bytes", "4")]);
    let broker = BrokerValues { dynamic: &dynamic, dynamic_default: &dynamic_default, fixed: &fixed };
    let held = |name: &str| {
        let found = effective(find(name).unwrap(), &topic, broker);
        assert_eq!(found.name, name);
        (found.value.to_owned(), found.source)
    };
    assert_eq!(held("retention.ms"), ("1".to_owned(), Source::Topic));
    assert_eq!(held("segment.bytes"), ("2000000".to_owned(), Source::DynamicBroker));
    assert_eq!(held("max.message.bytes"), ("3".to_owned(), Source::DynamicDefaultBroker));
    assert_eq!(held("retention.bytes"), ("4".to_owned(), Source::StaticBroker));
    assert_eq!(held("segment.ms"), ("604800000".to_owned(), Source::Default));

    let names: Vec<_> = synonyms(find("max.message.bytes").unwrap(), &topic, broker);
    assert_eq!(names.iter().map(|found| found.source.code()).collect::<Vec<_>>(), [3, 4, 5]);
    assert!(synonyms(find("segment.ms").unwrap(), &topic, broker).is_empty());

    let config = TopicConfig::resolve(&topic, broker);
    assert_eq!((config.retention_ms, config.retention_bytes), (Some(1), Some(4)));
    assert_eq!((config.segment_bytes, config.max_message_bytes), (2_000_000, 3));
}

#[test]
fn a_config_that_is_not_set_has_kafkas_default_as_a_value() {
    let none = Values::new();
    let broker = BrokerValues { dynamic: &none, dynamic_default: &none, fixed: &none };
    let config = TopicConfig::resolve(&none, broker);
    assert!(config.delete && !config.compact);
    assert_eq!((config.retention_ms, config.retention_bytes), (Some(604_800_000), None));
    assert_eq!((config.compression, config.durability), (None, Durability::Fsync));

    let topic = values(&[
        ("cleanup.policy", "compact, delete"),
        ("compression.type", "uncompressed"),
        ("ottla.durability", "page-cache"),
    ]);
    let config = TopicConfig::resolve(&topic, broker);
    assert!(config.delete && config.compact);
    assert_eq!(config.compression, Some(crate::protocol::compression::Compression::None));
    assert_eq!(config.durability, Durability::PageCache);
}
