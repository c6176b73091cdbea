//! Frames that are none, or not whole, or not in time.

use std::io::{ErrorKind, Read, Write};
use std::time::{Duration, Instant};

use ottla::protocol::api::ApiKey;
use ottla::protocol::messages::fetch::{FetchPartition, FetchTopic};
use ottla::protocol::messages::{ApiVersionsRequest, FetchRequest, ProduceResponse};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

use crate::kit::{Broker, PATIENCE, announced, frame, produce_frame};

const PRODUCE: i16 = 0;
const FETCH: i16 = 1;
const METADATA: i16 = 3;
/// The largest count that an array can announce.
const BILLIONS: [u8; 4] = [0x7f, 0xff, 0xff, 0xff];

#[test]
fn what_is_no_request_closes_its_connection_and_the_log_says_who_and_why() {
    let broker = Broker::start(&[]);
    let beside = broker.beside();
    let junk = |why, bytes: &[u8]| (why, bytes.to_vec());
    let cases = [
        ("a frame of -1 bytes cannot be", announced(-1, METADATA, 0)),
        ("a frame of 0 bytes cannot be", announced(0, METADATA, 0)),
        ("a frame of 7 bytes cannot be", announced(7, METADATA, 0)),
        ("a frame of 2147483647 bytes is larger than", announced(i32::MAX, PRODUCE, 9)),
        ("a frame of 104857601 bytes is larger than the 104857600 bytes", announced((100 << 20) + 1, PRODUCE, 9)),
        ("a frame of 8388609 bytes is larger than the 8388608 bytes", announced((8 << 20) + 1, FETCH, 12)),
        junk("a frame of 1195725856 bytes is larger than", b"GET / HTTP/1.1\r\nHost: broker\r\n\r\n"),
        junk("a frame of 369295617 bytes is larger than", b"\x16\x03\x01\x01\xfc\x03\x03 and more of a TLS hello"),
        ("unknown API key 4", frame(4, 0, &[])),
        ("unknown API key -1", frame(-1, 0, &[])),
        junk("malformed request header: 2 bytes are missing", b"\0\0\0\x08\0\x03\0\0\0\0\0\x01"),
        ("malformed request header: 257 tagged fields", frame(METADATA, 12, &[&[0x81, 0x02][..], &[0; 600]].concat())),
        ("malformed request header: a varint is longer than 32 bits", frame(METADATA, 12, &[0xff; 9])),
        ("malformed request header", frame(METADATA, 12, &[1, 0, 0xff, 0xff, 0xff, 0xff, 0x07])),
        ("malformed MetadataRequest version 0", frame(METADATA, 0, &BILLIONS)),
        ("malformed MetadataRequest version 12", frame(METADATA, 12, &[0, 0xff, 0xff, 0xff, 0xff, 0x0f])),
        ("malformed MetadataRequest version 12", frame(METADATA, 12, &[0, 1, 0, 0, 1, 0, 0x80, 0x80, 0x80, 0x08])),
        ("malformed MetadataRequest version 1", frame(METADATA, 1, b"\0\0\0\x01\0\x02\xff\xfe")),
        // A topic whose array of partitions is longer than the frame, within one that is not.
        ("malformed FetchRequest version 4", {
            let body = [&[0; 17][..], &[0, 0, 0, 1, 0, 1, b't'], &BILLIONS].concat();
            frame(FETCH, 4, &body)
        }),
        ("malformed ProduceRequest version 3", frame(PRODUCE, 3, &[0xff, 0xff, 0xff, 0xff, 0, 0, 0, 0, 0x7f, 0xff])),
    ];
    for (why, bytes) in cases {
        let mut peer = broker.peer();
        assert_eq!(peer.send(&bytes).read_to_close(), b"", "{why}");
        broker.wait_for_line(&["closed a connection", &peer.name(), why]);
        beside.must_go_on(1);
    }
    beside.finish();
}

#[test]
fn versions_that_an_api_does_not_have_close_the_connection() {
    let broker = Broker::start(&[]);
    let beside = broker.beside();
    for api in ApiKey::ALL.iter().filter(|api| **api != ApiKey::ApiVersions) {
        let versions = &api.spec().versions;
        for version in [versions.end() + 1, versions.start() - 1, i16::MAX, i16::MIN] {
            let mut peer = broker.peer();
            assert_eq!(peer.send(&frame(api.key(), version, &[0; 64])).read_to_close(), b"", "{api} {version}");
            broker.wait_for_line(&["closed a connection", &peer.name(), &format!("{api} has no version {version}")]);
        }
    }
    for version in [-1, 5, i16::MAX] {
        let mut peer = broker.peer();
        let answer = peer.send(&frame(18, version, &[0xff; 64])).half_close().read_to_close();
        assert_eq!(answer[4..10], [0, 0, 0, 1, 0, 35], "UNSUPPORTED_VERSION, in version 0");
    }
    beside.must_go_on(1);
    beside.finish();
}

#[test]
fn unknown_tagged_fields_are_passed_over_at_every_level() {
    let broker = Broker::start(&[]);
    let mut tags = vec![0x80, 0x02];
    for tag in 0..256u16 {
        // Tags from 128 on, in two bytes, each with three bytes.
        tags.extend([
            0x80 | u8::try_from(tag & 0x7f).unwrap(),
            1 + u8::try_from(tag >> 7).unwrap(),
            3,
            0xff,
            0xff,
            0xff,
        ]);
    }
    let topic = [&[0; 16][..], &[2, b'x'], &tags].concat();
    let body = [&tags[..], &[2], &topic, &[0, 0], &tags].concat();
    let mut peer = broker.peer();
    let answer = peer.send(&frame(METADATA, 12, &body)).half_close().read_to_close();
    assert_eq!(answer[4..8], [0, 0, 0, 1], "it is answered");
}

#[test]
fn random_bytes_are_survived() {
    let broker = Broker::start(&[]);
    let beside = broker.beside();
    let mut random = StdRng::seed_from_u64(7);
    let good = produce_frame("nowhere", -1);
    for round in 0..300 {
        let mut peer = broker.peer();
        let bytes = match round % 3 {
            0 => (0..random.random_range(1..200)).map(|_| random.random()).collect(),
            // A believable front.
            1 => {
                let body: Vec<u8> = (0..random.random_range(1..200)).map(|_| random.random()).collect();
                frame(random.random_range(0..80), random.random_range(0..14), &body)
            }
            _ => {
                let mut bytes = good.clone();
                for _ in 0..random.random_range(1..8) {
                    let at = random.random_range(0..bytes.len());
                    bytes[at] = random.random();
                }
                bytes
            }
        };
        peer.send(&bytes).half_close().read_to_close();
    }
    beside.must_go_on(1);
    beside.finish();
}

#[test]
fn a_frame_that_is_cut_short_does_nothing() {
    let broker = Broker::start(&[]);
    let mut client = broker.connect();
    client.create_topic("t", 1);
    let beside = broker.beside();
    let whole = produce_frame("t", -1);
    for length in 0..whole.len() {
        let mut peer = broker.peer();
        assert_eq!(peer.send(&whole[..length]).half_close().read_to_close(), b"", "{length}");
        if length > 0 {
            broker.wait_for_line(&["closed a connection", &peer.name(), "ended inside a frame"]);
        }
    }
    assert_eq!(client.produce("t", 0, 1, 10), 0, "nothing of them was appended");
    beside.must_go_on(1);
    beside.finish();
}

#[test]
fn a_frame_of_a_byte_at_a_time_is_given_up_after_its_time() {
    let broker = Broker::start(&[("LIMITS_FRAME_SECONDS", "1")]);
    let beside = broker.beside();
    let whole = produce_frame("t", -1);
    let mut slow: Vec<_> = (0..100).map(|_| broker.peer()).collect();
    for peer in &slow {
        peer.stream.set_read_timeout(Some(Duration::from_millis(1))).unwrap();
    }
    let (began, mut at) = (Instant::now(), 0);
    let mut open: Vec<usize> = (0..slow.len()).collect();
    while !open.is_empty() {
        assert!(began.elapsed() < PATIENCE, "{} are still open", open.len());
        open.retain(|index| {
            let peer = &mut slow[*index].stream;
            // The last byte is never sent: what is still open has not been answered.
            let _ = peer.write_all(&whole[at % (whole.len() - 1)..][..1]);
            match peer.read(&mut [0; 1]) {
                Err(error) => matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut),
                Ok(0) => false,
                Ok(_) => panic!("answered a request that was never whole"),
            }
        });
        at += 1;
    }
    assert!(began.elapsed() >= Duration::from_secs(1), "they had their time");
    for peer in &slow {
        broker.wait_for_line(&["closed a connection", &peer.name(), "a frame did not arrive within 1 s"]);
    }
    beside.must_go_on(1);
    beside.finish();
}

#[test]
fn who_stops_sending_still_gets_what_it_asked_for() {
    let broker = Broker::start(&[]);
    let mut client = broker.connect();
    let topic_id = client.create_topic("t", 1);
    let beside = broker.beside();
    let mut peer = broker.peer();
    // Three at once, then half-closed: all are answered, in order, before the broker closes its side.
    let answers = peer.send(&produce_frame("t", -1).repeat(3)).half_close().read_to_close();
    let mut rest = &answers[..];
    for offset in 0..3 {
        let size = usize::try_from(i32::from_be_bytes(*rest.first_chunk().unwrap())).unwrap();
        let frame = bytes::Bytes::copy_from_slice(&rest[4..4 + size]);
        let (_, response) = ottla::protocol::frame::decode_response::<ProduceResponse>(frame, 11).unwrap();
        assert_eq!(response.responses[0].partition_responses[0].base_offset, offset);
        rest = &rest[4 + size..];
    }
    assert!(rest.is_empty());

    // A fetch that would wait for an hour ends with its reader.
    let partition = FetchPartition { fetch_offset: 3, partition_max_bytes: 1, ..Default::default() };
    let topic = FetchTopic { topic_id, partitions: vec![partition], ..Default::default() };
    let poll = FetchRequest {
        max_wait_ms: 3_600_000,
        min_bytes: 1,
        max_bytes: 1,
        session_epoch: -1,
        topics: vec![topic],
        ..Default::default()
    };
    let poll = ottla::protocol::frame::encode_request(17, 1, None, &poll).unwrap().concat();
    broker.peer().send(&poll).half_close().read_to_close();

    // A connection that breaks off hard in the middle of its requests leaves nothing behind.
    for _ in 0..50 {
        let mut peer = broker.peer();
        peer.send(&produce_frame("t", -1).repeat(5));
        let socket = socket2::SockRef::from(&peer.stream);
        socket.set_linger(Some(Duration::ZERO)).unwrap();
    }
    let version =
        client.ask(&ApiVersionsRequest { client_software_name: "t".into(), client_software_version: "1".into() });
    assert!(!version.error_code.is_error());
    beside.must_go_on(1);
    beside.finish();
}
