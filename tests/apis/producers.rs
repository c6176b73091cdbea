//! Idempotent producers: what of them is remembered, and for how long.

use std::time::{Duration, Instant};

use ottla::protocol::compression::Compression;
use ottla::protocol::error_code::ErrorCode;
use ottla::protocol::messages::InitProducerIdRequest;
use ottla::protocol::record::{BatchBuilder, NewRecord, Producer};

use crate::client::produce;
use crate::kit::{Client, Server};

/// How long a test waits for what must happen.
const PATIENCE: Duration = Duration::from_secs(60);

fn new_producer(client: &mut Client) -> i64 {
    let response = client.ask(&InitProducerIdRequest { producer_id: -1, producer_epoch: -1, ..Default::default() });
    assert_eq!((response.error_code, response.producer_epoch), (ErrorCode::NONE, 0));
    response.producer_id
}

/// Sends one record under a sequence number; its offset, or the error.
fn send(client: &mut Client, id: i64, base_sequence: i32) -> Result<i64, ErrorCode> {
    let mut builder = BatchBuilder::new(Compression::None).producer(Producer { id, epoch: 0, base_sequence });
    builder.push(&NewRecord { timestamp: 1000, value: Some(b"v"), ..Default::default() });
    let response = client.ask(&produce("t", 0, -1, builder.build()));
    let answer = &response.responses[0].partition_responses[0];
    if answer.error_code.is_error() { Err(answer.error_code) } else { Ok(answer.base_offset) }
}

#[test]
fn a_producer_that_was_idle_too_long_is_forgotten_and_may_go_on_anywhere() {
    let server = Server::start_with(|config| {
        config.limits.producer_idle_seconds = 2;
        config.topics.retention_ms = None;
    });
    let mut client = server.connect();
    client.create_topic("t", 1);
    let (idle, busy) = (new_producer(&mut client), new_producer(&mut client));
    assert_eq!(send(&mut client, idle, 0), Ok(0));
    assert_eq!(send(&mut client, idle, 0), Ok(0), "a retry");
    assert_eq!(send(&mut client, idle, 7), Err(ErrorCode::OUT_OF_ORDER_SEQUENCE_NUMBER));
    let (mut sequence, until) = (0, Instant::now() + PATIENCE);
    // A refusal is no write. What is unknown is taken from any sequence on, as Kafka does.
    let went_on = loop {
        assert_eq!(send(&mut client, busy, sequence), Ok(i64::from(sequence) + 1), "one that writes is remembered");
        sequence += 1;
        match send(&mut client, idle, 7) {
            Err(ErrorCode::OUT_OF_ORDER_SEQUENCE_NUMBER) => assert!(Instant::now() < until, "it was to be forgotten"),
            answer => break answer,
        }
    };
    assert_eq!(went_on, Ok(i64::from(sequence) + 1));
    assert_eq!(send(&mut client, idle, 7), went_on, "known again, from there on");
    assert_eq!(send(&mut client, idle, 8), Ok(i64::from(sequence) + 2));
    assert_eq!(send(&mut client, idle, 0), Err(ErrorCode::OUT_OF_ORDER_SEQUENCE_NUMBER));
}
