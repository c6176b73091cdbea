use std::collections::BTreeSet;

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
        listen = "0.0.0.0:9193"
        advertise = "broker.example.com:0"
        seeds = ["seed.example.com:9192", "[::1]:9193"]
        balance = false
        move_bytes_per_second = 1_000_000
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
        scrub_bytes_per_second = 15
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
    assert_eq!(config.cluster.advertised(9193), HostPort::new("broker.example.com", 9193));
    assert_eq!(config.cluster.seeds, [HostPort::new("seed.example.com", 9192), HostPort::new("::1", 9193)]);
    assert_eq!((config.cluster.balance, config.cluster.move_bytes_per_second), (false, 1_000_000));
    assert_eq!(config.topics.partitions, 16);
    assert_eq!((config.topics.retention_ms, config.topics.retention_bytes), (None, Some(1_000_000)));
    let consumers = (config.groups.consumer_session_timeout_ms, config.groups.consumer_heartbeat_interval_ms);
    assert_eq!(consumers, (9, 8));
    assert_eq!((config.groups.initial_rebalance_delay_ms, config.groups.offsets_retention_minutes), (0, 4));
    assert_eq!(config.limits.producer_idle_seconds, 14);
    assert_eq!(config.limits.scrub_bytes_per_second, 15);
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
fn seeds_are_a_list_in_the_file_and_have_commas_in_the_environment() {
    let seeds = |seeds: &str| load(&format!("[broker]\nid = 1\n[cluster]\nseeds = {seeds}\n"));
    let two = vec![HostPort::new("a", 1), HostPort::new("b", 2)];
    assert_eq!(
        seeds("[\n  \"a:1\",\n  \"b:2\", # the last comma is TOML's\n]").map(|it| it.cluster.seeds),
        Ok(two.clone())
    );
    let from_env = |value: &str| {
        let env = env(&[("OTTLA_BROKER_ID", "1"), ("OTTLA_CLUSTER_SEEDS", value)]);
        Config::load(&Sources {
            file: Some(("ottla.toml", "[cluster]\nseeds = [\"file:1\"]\n")),
            env,
            flags: Vec::new(),
        })
    };
    assert_eq!(from_env("a:1, b:2").map(|it| it.cluster.seeds), Ok(two));
    assert_eq!(from_env("").map(|it| it.cluster.seeds), Ok(Vec::new()), "an empty text takes the file's away");
    for bad in ["\"a:1\"", "[\"a:1\", 2]", "[\"a\"]", "[[\"a:1\"]]"] {
        let found = seeds(bad).expect_err(bad).to_string();
        assert!(found.starts_with("ottla.toml:4: cluster.seeds: must be a list of addresses with ports"), "{found}");
    }
    let found = from_env("a:1,,b:2").expect_err("an address is missing").to_string();
    assert!(found.starts_with("environment OTTLA_CLUSTER_SEEDS: cluster.seeds: must be a list"), "{found}");
}

#[test]
fn a_broker_among_others_must_be_found_by_them() {
    let among = |cluster: &str| format!("[broker]\nid = 1\n[cluster]\nseeds = [\"a:1\"]\n{cluster}\n");
    let found = problems(&among("listen = \"0.0.0.0:9192\""));
    assert_eq!(found.len(), 1, "{found:?}");
    assert!(found[0].starts_with("ottla.toml:5: cluster.listen: 0.0.0.0:9192 listens on every"), "{found:?}");
    assert!(found[0].contains("advertise = \"broker-1.example.com:9192\""), "{found:?}");
    assert!(load(&among("listen = \"[::]:9192\"\nadvertise = \"a.example:9192\"")).is_ok());
    assert!(load("[cluster]\nlisten = \"0.0.0.0:9192\"\n").is_ok(), "nothing listens there without seeds");
    let found = problems(&among("advertise = \"0.0.0.0:9192\""));
    assert_eq!(found, ["ottla.toml:5: cluster.advertise: other brokers cannot connect to 0.0.0.0:9192"]);
}

#[test]
fn a_seed_is_an_address_that_others_can_connect_to() {
    let seeds = |seeds: &str| problems(&format!("[broker]\nid = 1\n[cluster]\nseeds = [{seeds}]\n"));
    assert_eq!(seeds("\"a:1\", \"b:0\""), ["ottla.toml:4: cluster.seeds: b:0 has no port"]);
    let found = seeds("\"0.0.0.0:9192\", \"a:1\"");
    assert_eq!(found, ["ottla.toml:4: cluster.seeds: other brokers cannot connect to 0.0.0.0:9192"]);
}

#[test]
fn a_broker_with_seeds_has_an_id_of_its_own() {
    let seeds = "[cluster]\nseeds = [\"a:1\"]\n";
    let found = problems(seeds);
    assert_eq!(found.len(), 1, "{found:?}");
    assert!(found[0].contains("broker.id: must be set, and be another one on each broker"), "{found:?}");
    let with_env =
        Sources { file: Some(("ottla.toml", seeds)), env: env(&[("OTTLA_BROKER_ID", "1")]), flags: Vec::new() };
    assert_eq!(Config::load(&with_env).map(|config| config.broker.id), Ok(BrokerId(1)), "wherever it is set");
}

#[test]
fn the_shipped_cluster_is_of_one_piece() {
    let files = [
        include_str!("../../config/cluster/broker-1.toml"),
        include_str!("../../config/cluster/broker-2.toml"),
        include_str!("../../config/cluster/broker-3.toml"),
    ];
    let brokers = files.map(|file| load(file).expect("a shipped file is right"));
    assert_eq!(brokers.each_ref().map(|broker| broker.broker.id.0), [1, 2, 3]);
    assert_eq!(brokers.each_ref().map(|broker| broker.kafka.listen.port), [9092, 9093, 9094]);
    let listeners: Vec<HostPort> = brokers.iter().map(|broker| broker.cluster.listen.clone()).collect();
    for (at, broker) in (1..).zip(&brokers) {
        assert_eq!(broker.cluster.seeds, listeners, "each names all three, in the same order");
        assert_eq!(broker.cluster.name, brokers[0].cluster.name);
        assert_eq!(broker.broker.data_dir, PathBuf::from(format!("./ottla-data/broker-{at}")));
    }
    let all = |broker: &Config| {
        [Some(broker.kafka.listen.clone()), Some(broker.cluster.listen.clone()), broker.admin.listen.clone()]
    };
    let addresses: BTreeSet<HostPort> = brokers.iter().flat_map(all).flatten().collect();
    assert_eq!(addresses.len(), 9, "no two listen at the same address: {addresses:?}");
}

#[test]
fn what_does_not_fit_together_is_reported() {
    let found = problems("[limits]\nin_flight_bytes = 1048576\n[admin]\nlisten = \"127.0.0.1:9092\"\n");
    assert_eq!(found.len(), 2, "{found:?}");
    assert!(found[0].starts_with("ottla.toml:4: admin.listen:"), "{found:?}");
    assert!(found[1].contains("1048576 is less than limits.request_bytes, 104857600"), "{found:?}");
}

#[test]
fn each_listener_has_an_address_of_its_own() {
    let cluster = "[broker]\nid = 1\n[cluster]\nseeds = [\"a:1\"]\nlisten = \"127.0.0.1:9092\"\n";
    assert_eq!(problems(cluster), ["ottla.toml:5: cluster.listen: 127.0.0.1:9092 is kafka.listen's address already"]);
    assert!(load("[cluster]\nlisten = \"127.0.0.1:9092\"\n").is_ok(), "nothing listens there without seeds");
    let free = "[kafka]\nlisten = \"127.0.0.1:0\"\n[admin]\nlisten = \"127.0.0.1:0\"\n";
    assert!(load(free).is_ok(), "each takes a free one");
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
