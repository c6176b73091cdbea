//! What the configuration says, as clients see it; and what is counted of them.

use std::time::{Duration, Instant};

use ottla::protocol::error_code::ErrorCode;
use ottla::protocol::messages::metadata::MetadataRequestTopic;
use ottla::protocol::messages::*;

use crate::kit::{Server, topic};

#[test]
fn clients_are_told_the_brokers_rack() {
    for rack in [None, Some("zone-a")] {
        let server = Server::start_with(|config| config.broker.rack = rack.map(str::to_owned));
        let mut client = server.connect();
        let metadata = client.ask(&MetadataRequest { topics: Some(Vec::new()), ..Default::default() });
        assert_eq!(metadata.brokers[0].rack.as_deref(), rack);
        let cluster = client.ask(&DescribeClusterRequest { endpoint_type: 1, ..Default::default() });
        assert_eq!(cluster.brokers[0].rack.as_deref(), rack);
    }
}

#[test]
fn the_configured_number_of_replicas_is_what_a_topic_gets_that_does_not_say() {
    let usual = Server::start();
    let unsaid = |name: &str| CreateTopicsRequest {
        topics: vec![create_topics::CreatableTopic { replication_factor: -1, ..topic(name, 1) }],
        ..Default::default()
    };
    let created = usual.connect().ask(&unsaid("t")).topics.remove(0);
    assert_eq!((created.error_code, created.replication_factor), (ErrorCode::NONE, 1), "as many as there are brokers");

    let three = Server::start_with(|config| config.topics.replication_factor = Some(3));
    let mut client = three.connect();
    let refused = client.ask(&unsaid("t")).topics.remove(0);
    assert_eq!(refused.error_code, ErrorCode::INVALID_REPLICATION_FACTOR);
    let asked = MetadataRequestTopic { name: Some("auto".into()), ..Default::default() };
    let automatic = client.ask(&MetadataRequest { topics: Some(vec![asked]), ..Default::default() }).topics.remove(0);
    assert_eq!(automatic.error_code, ErrorCode::INVALID_REPLICATION_FACTOR);
    assert_eq!(
        client.ask(&CreateTopicsRequest { topics: vec![topic("one", 1)], ..Default::default() }).topics.len(),
        1
    );
    assert_eq!(client.produce("one", 0, 1, 10), 0, "who says one gets one");
}

/// The value of a metric's line.
fn value(server: &Server, line: &str) -> f64 {
    let shown = server.metrics();
    let found = shown.lines().find_map(|shown| shown.strip_prefix(line)?.strip_prefix(' ')?.parse().ok());
    found.unwrap_or_else(|| panic!("no {line} in\n{shown}"))
}

#[test]
fn requests_bytes_and_flushes_are_counted() {
    let server = Server::start();
    let mut client = server.connect();
    client.create_topic("t", 1);
    let received = || value(&server, "ottla_kafka_received_bytes_total");
    let before = received();
    client.produce("t", 0, 1, 10_000);
    assert!((10_000.0..11_000.0).contains(&(received() - before)), "{} bytes", received() - before);
    // A reply is counted behind its write: the client may have it a moment before.
    let until = Instant::now() + Duration::from_secs(30);
    while value(&server, "ottla_kafka_sent_bytes_total") == 0.0 {
        assert!(Instant::now() < until, "nothing was counted as sent");
    }
    assert_eq!(value(&server, "ottla_kafka_request_duration_seconds_count{api=\"Produce\"}"), 1.0);
    assert!(value(&server, "ottla_kafka_request_duration_seconds_count{api=\"CreateTopics\"}") > 0.0);
    assert!(value(&server, "ottla_log_flush_duration_seconds_count") > 0.0);
    assert!(value(&server, "ottla_log_flush_size_bytes_sum") > 10_000.0);
}
