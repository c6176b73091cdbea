use super::*;

fn load(file: &str) -> Result<Config, Problems> {
    Config::load(&Sources { file: Some(("ottla.toml", file)), ..Sources::default() })
}

fn problems(file: &str) -> Vec<String> {
    load(file).expect_err("problems are found").to_string().lines().map(Into::into).collect()
}

fn env(pairs: &[(&str, &str)]) -> Vec<(String, String)> {
    pairs.iter().map(|(name, value)| ((*name).into(), (*value).into())).collect()
}

#[test]
fn nothing_at_all_is_the_default() {
    assert_eq!(Config::load(&Sources::default()), Ok(Config::default()));
    assert_eq!(load("# empty\n"), Ok(Config::default()));
}

#[test]
fn the_shipped_file_holds_every_key_with_its_default() {
    let text = include_str!("../../config/ottla.toml");
    assert_eq!(load(text), Ok(Config::default()));
    let table: toml::Table = text.parse().expect("the shipped file is TOML");
    for key in KEYS {
        let section = table.get(key.section).and_then(|section| section.as_table());
        assert!(section.is_some_and(|section| section.contains_key(key.name)), "{}.{}", key.section, key.name);
    }
}

#[test]
fn every_key_can_be_set() {
    let file = r#"
        [broker]
        id = 7
        data_dir = "/var/lib/ottla"
        rack = "a"
        durability = "page-cache"
        [kafka]
        listen = "0.0.0.0:9093"
        advertise = "broker.example.com:0"
        [cluster]
        name = "orders"
        [topics]
        auto_create = false
        partitions = 0x10
        replication_factor = 3
        retention_ms = -1
        retention_bytes = 1_000_000
        segment_bytes = 1048576
        [groups]
        initial_rebalance_delay_ms = 0
        session_timeout_min_ms = 1
        session_timeout_max_ms = 2
        consumer_session_timeout_ms = 9
        consumer_heartbeat_interval_ms = 8
        members = 3
        offsets_retention_minutes = 4
        [limits]
        connections = 11
        request_bytes = 2000000
        in_flight_bytes = 3000000
        fetch_bytes = 4000000
        fetch_sessions = 0
        idle_seconds = 12
        frame_seconds = 13
        producer_idle_seconds = 14
        [log]
        level = "debug"
        format = "json"
        [admin]
        listen = ""
    "#;
    let config = load(file).expect("the file is right");
    assert_eq!(config.broker.id, BrokerId(7));
    assert_eq!(config.broker.durability, Durability::PageCache);
    assert_eq!(config.kafka.advertised(9093), HostPort::new("broker.example.com", 9093));
    assert_eq!(config.topics.partitions, 16);
    assert_eq!((config.topics.retention_ms, config.topics.retention_bytes), (None, Some(1_000_000)));
    let consumers = (config.groups.consumer_session_timeout_ms, config.groups.consumer_heartbeat_interval_ms);
    assert_eq!(consumers, (9, 8));
    assert_eq!((config.groups.initial_rebalance_delay_ms, config.groups.offsets_retention_minutes), (0, 4));
    assert_eq!(config.limits.producer_idle_seconds, 14);
    assert_eq!(config.log.format, LogFormat::Json);
    assert_eq!(config.admin.listen, None);
    let left = file.lines().filter(|line| line.contains(" = ")).count();
    assert_eq!(left, KEYS.len(), "a key has no line in this test");
}

#[test]
fn all_problems_are_reported_at_once_in_the_file_s_order() {
    let found = problems(
        "broker = 3\n[kafka]\nlisen = \"127.0.0.1:1\"\nadvertise = 5\n[topic]\n[topics]\npartitions = \"many\"\n\
         retention = 1\nlevel = 1\n[log]\nformat = \"jsno\"\n[limits]\nconnections = 0\n",
    );
    assert_eq!(
        found,
        [
            "ottla.toml:1: broker: is a section: write [broker]",
            "ottla.toml:3: kafka.lisen: unknown key (did you mean `listen`?)",
            "ottla.toml:4: kafka.advertise: must be an address with a port, like \"127.0.0.1:9092\", not 5",
            "ottla.toml:5: topic: unknown section (did you mean `[topics]`?)",
            "ottla.toml:7: topics.partitions: must be an integer from 1 to 10000, not \"many\"",
            "ottla.toml:8: topics.retention: unknown key (did you mean `retention_ms`?)",
            "ottla.toml:9: topics.level: unknown key (did you mean `log.level`?)",
            "ottla.toml:11: log.format: must be \"text\" or \"json\", not \"jsno\" (did you mean `json`?)",
            "ottla.toml:13: limits.connections: must be an integer from 1 to 1000000, not 0",
        ]
    );
}

#[test]
fn a_line_that_is_no_toml_is_named() {
    let found = problems("[broker]\nid = 1\ndata_dir = oops\n");
    assert!(found[0].starts_with("ottla.toml:3: "), "{found:?}");
    let found = problems("[broker]\nid = 1\nid = 2\n");
    assert!(found[0].starts_with("ottla.toml:3: "), "{found:?}");
}

#[test]
fn a_misspelt_log_level_is_found() {
    assert!(load("[log]\nlevel = \"warn,ottla::raft=debug\"\n").is_ok());
    let found = problems("[log]\nlevel = \"inof\"\n");
    assert!(found[0].ends_with("not \"inof\" (did you mean `info`?)"), "{found:?}");
    assert_eq!(problems("[log]\nlevel = \"\"\n").len(), 1);
}

#[test]
fn listening_everywhere_needs_an_address_to_advertise() {
    let found = problems("[kafka]\nlisten = \"0.0.0.0:9092\"\n");
    assert!(found[0].starts_with("ottla.toml:2: kafka.listen: 0.0.0.0:9092 listens on every"), "{found:?}");
    assert!(found[0].contains("advertise = "), "{found:?}");
    assert!(load("[kafka]\nlisten = \"[::]:9092\"\nadvertise = \"a.example:9092\"\n").is_ok());
    assert_eq!(problems("[kafka]\nadvertise = \"0.0.0.0:9092\"\n").len(), 1);
}

#[test]
fn what_does_not_fit_together_is_reported() {
    let found = problems("[limits]\nin_flight_bytes = 1048576\n[admin]\nlisten = \"127.0.0.1:9092\"\n");
    assert_eq!(found.len(), 2, "{found:?}");
    assert!(found[0].starts_with("ottla.toml:4: admin.listen:"), "{found:?}");
    assert!(found[1].contains("1048576 is less than limits.request_bytes, 104857600"), "{found:?}");
}

#[test]
fn a_flag_is_stronger_than_the_environment_and_that_than_the_file() {
    let sources = Sources {
        file: Some((
            "ottla.toml",
            "[kafka]\nlisten = \"a:1\"\n[broker]\ndata_dir = \"file\"\n[log]\nlevel = \"warn\"\n",
        )),
        env: env(&[("OTTLA_KAFKA_LISTEN", "b:2"), ("OTTLA_BROKER_DATA_DIR", "env"), ("HOME", "/")]),
        flags: vec![Flag { name: "--listen", key: "kafka.listen", value: "c:3".into() }],
    };
    let config = Config::load(&sources).expect("the sources are right");
    assert_eq!(config.kafka.listen, HostPort::new("c", 3));
    assert_eq!(config.broker.data_dir, PathBuf::from("env"));
    assert_eq!(config.log.level, "warn");
}

#[test]
fn the_environment_and_flags_are_checked_like_the_file() {
    let sources = Sources {
        file: None,
        env: env(&[
            ("OTTLA_BROKER_ID", "x"),
            ("OTTLA_KAFKA_LISTE", "a:1"),
            ("OTTLA_BROKERS", "the command line's own"),
            ("OTTLA_TOPICS_AUTO_CREATE", "false"),
        ]),
        flags: vec![Flag { name: "--listen", key: "kafka.listen", value: "nowhere".into() }],
    };
    let found = Config::load(&sources).expect_err("problems are found").to_string();
    assert_eq!(
        found.lines().collect::<Vec<_>>(),
        [
            "environment OTTLA_BROKER_ID: broker.id: must be an integer from 0 to 2147483647, not `x`",
            "environment OTTLA_KAFKA_LISTE: sets no key (did you mean `OTTLA_KAFKA_LISTEN`?)",
            "--listen: kafka.listen: must be an address with a port, like \"127.0.0.1:9092\", not `nowhere`",
        ]
    );
}
