//! Peers that want memory: announced frames, frames that stop half-way, requests that unfold, replies that nobody reads.
//!
//! What is measured is the broker's anonymous memory, against what `[limits]` grants and some room for the allocator.

use std::io::Read;
use std::time::{Duration, Instant};

use bytes::Bytes;
use ottla::ids::TopicId;
use ottla::protocol::frame::encode_request;
use ottla::protocol::messages::create_topics::CreatableTopic;
use ottla::protocol::messages::describe_configs::DescribeConfigsResource;
use ottla::protocol::messages::produce::{PartitionProduceData, TopicProduceData};
use ottla::protocol::messages::*;
use ottla::protocol::value::Records;
use ottla::protocol::wire::Request;

use crate::kit::{Beside, Broker, PATIENCE, Peer, announced, frame};

const MIB: usize = 1 << 20;
/// What the allocator may keep beyond what is in use.
const ROOM: usize = 24 * MIB;
const PRODUCE: i16 = 0;
const METADATA: i16 = 3;

/// Raises this process's own limit of open files: the peers are many.
fn raise_descriptor_limit() {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    let limit = getrlimit(Resource::Nofile);
    setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, maximum: limit.maximum }).unwrap();
}

/// A broker with these limits and an honest client that has warmed it up.
fn start(in_flight: usize, request: usize) -> (Broker, Beside, usize) {
    let (in_flight, request) = (in_flight.to_string(), request.to_string());
    let broker = Broker::start(&[("LIMITS_IN_FLIGHT_BYTES", &in_flight), ("LIMITS_REQUEST_BYTES", &request)]);
    let beside = broker.beside();
    beside.must_go_on(20);
    let before = broker.anonymous_bytes();
    (broker, beside, before)
}

#[track_caller]
fn assert_taken(broker: &Broker, before: usize, max: usize) {
    let taken = broker.anonymous_bytes().saturating_sub(before);
    assert!(taken <= max, "{} MiB more than before, {} MiB allowed", taken / MIB, max / MIB);
}

#[test]
fn frames_that_are_announced_and_not_sent_take_nothing_from_others() {
    raise_descriptor_limit();
    let (broker, beside, before) = start(100 * MIB, 100 * MIB);
    let hundred = i32::try_from(100 * MIB).unwrap();
    let mut peers: Vec<Peer> = (0..3000).map(|_| broker.peer()).collect();
    for peer in &mut peers {
        peer.send(&announced(hundred, PRODUCE, 9)).send(&[0; 3]);
    }
    beside.must_go_on(20);
    // A connection costs its two tasks and the first bytes of its frame.
    assert_taken(&broker, before, 3000 * (16 << 10) + ROOM);
    beside.finish();
}

#[test]
fn frames_that_stop_half_way_take_what_the_limits_say_and_are_given_up_for_others() {
    let (broker, beside, before) = start(16 * MIB, 8 * MIB);
    let mut peers: Vec<Peer> = (0..40).map(|_| broker.peer()).collect();
    let part = [announced(i32::try_from(8 * MIB).unwrap(), PRODUCE, 9), vec![0; 3 * MIB]].concat();
    for peer in &mut peers {
        // What the broker has no room for stays in the sockets.
        peer.stream.set_write_timeout(Some(Duration::from_millis(5))).unwrap();
        peer.send(&part);
    }
    beside.must_go_on(20);
    assert_taken(&broker, before, (16 + 8) * MIB + ROOM);
    broker.wait_for_line(&["closed a connection", "memory"]);
    beside.finish();
}

/// Produce requests of so many bytes, none of whose batches is good.
fn large(bytes: usize) -> Vec<u8> {
    let data = |index| PartitionProduceData { index, records: Some(Records::from(Bytes::from(vec![0; bytes / 8]))) };
    let topic_data = vec![TopicProduceData {
        name: "nowhere".into(),
        partition_data: (0..8).map(data).collect(),
        ..Default::default()
    }];
    let request = ProduceRequest { acks: -1, timeout_ms: 1000, topic_data, ..Default::default() };
    encode_request(9, 1, None, &request).unwrap().concat()
}

#[test]
fn honest_frames_that_compete_for_the_memory_all_get_through() {
    let (broker, beside, before) = start(8 * MIB, 8 * MIB);
    let frame = large(8 * MIB - 1000);
    std::thread::scope(|scope| {
        for _ in 0..12 {
            scope.spawn(|| {
                let mut peer = broker.peer();
                for _ in 0..3 {
                    peer.send(&frame);
                    let mut front = [0; 8];
                    peer.stream.read_exact(&mut front).expect("answered");
                    let size = usize::try_from(i32::from_be_bytes(*front.first_chunk().unwrap())).unwrap();
                    peer.stream.read_exact(&mut vec![0; size - 4]).unwrap();
                }
            });
        }
    });
    assert_taken(&broker, before, (8 + 8) * MIB + ROOM);
    beside.must_go_on(5);
    beside.finish();
}

#[test]
fn a_connection_that_was_busy_costs_little_when_it_is_idle() {
    let (broker, beside, before) = start(32 * MIB, 8 * MIB);
    let frame = large(250 << 10);
    let mut peers: Vec<Peer> = (0..600).map(|_| broker.peer()).collect();
    for round in 0..1200 {
        let peer = &mut peers[round % 600];
        peer.send(&frame);
        let mut size = [0; 4];
        peer.stream.read_exact(&mut size).unwrap();
        peer.stream.read_exact(&mut vec![0; usize::try_from(i32::from_be_bytes(size)).unwrap()]).unwrap();
    }
    beside.must_go_on(5);
    // Their room is given up while they are idle, and the allocator gives it back in its own time.
    let until = Instant::now() + PATIENCE;
    while broker.anonymous_bytes().saturating_sub(before) > ROOM && Instant::now() < until {
        beside.must_go_on(5);
    }
    assert_taken(&broker, before, ROOM);
    beside.finish();
}

/// Sends a request from several connections at once, several times each, and reads no reply. Returns the most memory seen meanwhile.
fn unfold(broker: &Broker, frames: &[u8], connections: usize) -> usize {
    let mut peers: Vec<Peer> = (0..connections).map(|_| broker.peer()).collect();
    let mut highest = 0;
    let mut sample = || highest = broker.anonymous_bytes().max(highest);
    for peer in &mut peers {
        peer.stream.set_nonblocking(true).unwrap();
    }
    let mut sent = vec![0; connections];
    // Until none of them could send anything for a while: each is through, or the broker takes no more from it.
    let mut quiet = Instant::now();
    let began = Instant::now();
    while quiet.elapsed() < Duration::from_secs(2) && began.elapsed() < PATIENCE {
        for (peer, sent) in peers.iter_mut().zip(&mut sent) {
            if let Ok(more) = std::io::Write::write(&mut peer.stream, &frames[*sent..])
                && more > 0
            {
                (*sent, quiet) = (*sent + more, Instant::now());
            }
        }
        sample();
    }
    highest
}

fn encoded<R: Request>(version: i16, request: &R) -> Vec<u8> {
    encode_request(version, 1, None, request).unwrap().concat()
}

fn offsets(topic_id: TopicId) -> OffsetFetchRequest {
    let topic =
        |_| offset_fetch::OffsetFetchRequestTopics { topic_id, partition_indexes: vec![0], ..Default::default() };
    let topics = Some((0..100_000).map(topic).collect());
    let group = offset_fetch::OffsetFetchRequestGroup { group_id: "g".into(), topics, ..Default::default() };
    OffsetFetchRequest { groups: vec![group], ..Default::default() }
}

#[test]
fn requests_that_unfold_stay_within_the_limits() {
    let (broker, beside, before) = start(32 * MIB, 16 * MIB);
    let mut client = broker.connect();
    client.create_topic("t", 1);
    let long = client.create_topic(&"l".repeat(249), 1);
    client.ask(&FindCoordinatorRequest { coordinator_keys: vec!["g".into()], ..Default::default() });
    let fetched = |partition| fetch::FetchPartition { partition, ..Default::default() };
    let fetched = vec![fetch::FetchTopic {
        topic: "t".into(),
        partitions: (0..100_000).map(fetched).collect(),
        ..Default::default()
    }];
    let names = |count: usize| (0..count).map(|number| format!("{number:04x}").as_str().into());
    let empty_names = [&1_000_000i32.to_be_bytes()[..], &[0; 2_000_000]].concat();
    let configs = |_| DescribeConfigsResource { resource_type: 2, resource_name: "t".into(), configuration_keys: None };
    let partition = |_| PartitionProduceData { index: 0, records: None };
    let partitions = vec![TopicProduceData {
        name: "t".into(),
        partition_data: (0..200_000).map(partition).collect(),
        ..Default::default()
    }];
    let topic = |name| CreatableTopic { name, num_partitions: 1, replication_factor: 1, ..Default::default() };
    let many: [(&str, Vec<u8>); 7] = [
        ("a million empty names", frame(METADATA, 1, &empty_names)),
        (
            "unknown topics",
            encoded(
                12,
                &MetadataRequest {
                    topics: Some(
                        names(60_000)
                            .map(|name| metadata::MetadataRequestTopic { name: Some(name), ..Default::default() })
                            .collect(),
                    ),
                    allow_auto_topic_creation: false,
                    ..Default::default()
                },
            ),
        ),
        (
            "one topic's configs again and again",
            encoded(
                4,
                &DescribeConfigsRequest {
                    resources: (0..50_000).map(configs).collect(),
                    include_synonyms: true,
                    include_documentation: true,
                },
            ),
        ),
        (
            "partitions without records",
            encoded(9, &ProduceRequest { acks: -1, topic_data: partitions, ..Default::default() }),
        ),
        (
            "topics to check",
            encoded(
                7,
                &CreateTopicsRequest { topics: names(50_000).map(topic).collect(), validate_only: true, timeout_ms: 1 },
            ),
        ),
        ("offsets of one topic with a long name, by its id", encoded(10, &offsets(long))),
        (
            "partitions to wait for",
            encoded(
                12,
                &FetchRequest {
                    max_wait_ms: 100,
                    min_bytes: 1,
                    max_bytes: 1,
                    session_epoch: -1,
                    topics: fetched,
                    ..Default::default()
                },
            ),
        ),
    ];
    for (what, request) in many {
        let highest = unfold(&broker, &request.repeat(20), 8);
        let taken = highest.saturating_sub(before);
        // The budget, one request beyond it, and what a request unfolds to while it is answered, by each of a few threads.
        assert!(
            taken < (32 + 16) * MIB + 200 * MIB,
            "{what}: {} MiB for requests of {} KiB",
            taken / MIB,
            request.len() >> 10
        );
        beside.must_go_on(2);
    }
    beside.finish();
}

#[test]
fn replies_that_nobody_reads_wait_in_bounds_and_not_for_ever() {
    let keys = [("LIMITS_IDLE_SECONDS", "2"), ("LIMITS_CONNECTIONS", "60")];
    let broker = Broker::start(&keys);
    let beside = broker.beside();
    beside.must_go_on(20);
    let before = broker.anonymous_bytes();
    let topics = (0..20_000).map(|number| format!("{number:0100}").as_str().into());
    let topics = topics.map(|name| metadata::MetadataRequestTopic { name: Some(name), ..Default::default() }).collect();
    let request =
        encoded(12, &MetadataRequest { topics: Some(topics), allow_auto_topic_creation: false, ..Default::default() });
    let mut peers: Vec<Peer> = (0..50).map(|_| broker.peer()).collect();
    let names: Vec<String> = peers.iter().map(Peer::name).collect();
    for peer in &mut peers {
        peer.stream.set_write_timeout(Some(Duration::from_millis(100))).unwrap();
        for _ in 0..20 {
            peer.send(&request);
        }
    }
    // Requests of 2 MiB, replies of more: one that is read, one that waits, one that is written.
    assert_taken(&broker, before, 50 * 8 * MIB + ROOM);
    beside.must_go_on(5);
    for name in &names {
        broker.wait_for_line(&["connection", name]);
    }
    assert!(!broker.lines_with("a reply was not taken within 2 s").is_empty(), "where replies filled the sockets");
    // Their room is free again.
    let again = (0..50).filter(|_| broker.connect().try_ask(&MetadataRequest::default()).is_some()).count();
    assert_eq!(again, 50);
    beside.must_go_on(5);
    beside.finish();
}
