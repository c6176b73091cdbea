//! A connection to a broker, speaking our own codec, and what it sends.

#![allow(dead_code, reason = "each test crate that has it uses its part")]

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use bytes::Bytes;
use ottla::ids::TopicId;
use ottla::protocol::api::ApiKey;
use ottla::protocol::compression::Compression;
use ottla::protocol::error_code::ErrorCode;
use ottla::protocol::frame::{decode_response, encode_request};
use ottla::protocol::messages::create_topics::CreatableTopic;
use ottla::protocol::messages::produce::{PartitionProduceData, TopicProduceData};
use ottla::protocol::messages::{CreateTopicsRequest, ProduceRequest};
use ottla::protocol::record::{BatchBuilder, NewRecord};
use ottla::protocol::value::Records;
use ottla::protocol::wire::{Message, Request};

/// One connection.
pub struct Client {
    stream: TcpStream,
    correlation_id: i32,
    client_id: String,
}

impl Client {
    pub fn connect(address: SocketAddr) -> Self {
        let stream = TcpStream::connect(address).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(30))).unwrap();
        Self { stream, correlation_id: 0, client_id: "test".to_owned() }
    }

    /// The same connection under another client id.
    pub fn named(&mut self, client_id: &str) -> &mut Self {
        client_id.clone_into(&mut self.client_id);
        self
    }

    /// The socket under it.
    pub fn stream(&self) -> &TcpStream {
        &self.stream
    }

    /// Sends a request in the newest version in which topics have names, and returns the response.
    pub fn ask<R: Request>(&mut self, request: &R) -> R::Response {
        self.ask_in(newest_with_names::<R>(), request)
    }

    /// Sends a request in that version and returns the response.
    pub fn ask_in<R: Request>(&mut self, version: i16, request: &R) -> R::Response {
        self.send(version, request);
        self.receive::<R::Response>(version)
    }

    /// As [`Client::ask`]; nothing if the broker closes the connection instead.
    pub fn try_ask<R: Request>(&mut self, request: &R) -> Option<R::Response> {
        self.try_ask_in(newest_with_names::<R>(), request)
    }

    /// As [`Client::ask_in`]; nothing if the broker closes the connection instead.
    pub fn try_ask_in<R: Request>(&mut self, version: i16, request: &R) -> Option<R::Response> {
        self.correlation_id += 1;
        let frame = encode_request(version, self.correlation_id, Some(self.client_id.as_str()), request).unwrap();
        // The broker may have closed before it sees any of this.
        self.stream.write_all(&frame.concat()).ok()?;
        let mut size = [0; 4];
        self.stream.read_exact(&mut size).ok()?;
        let mut frame = vec![0; usize::try_from(i32::from_be_bytes(size)).unwrap()];
        self.stream.read_exact(&mut frame).ok()?;
        Some(decode_response(Bytes::from(frame), version).unwrap().1)
    }

    pub fn send<R: Request>(&mut self, version: i16, request: &R) {
        self.correlation_id += 1;
        let frame = encode_request(version, self.correlation_id, Some(self.client_id.as_str()), request).unwrap();
        self.stream.write_all(&frame.concat()).unwrap();
    }

    pub fn send_raw(&mut self, frame: &[u8]) {
        self.stream.write_all(frame).unwrap();
    }

    pub fn receive<R: ottla::protocol::wire::Response>(&mut self, version: i16) -> R {
        let (correlation_id, response) = decode_response(self.receive_frame(), version).unwrap();
        assert_eq!(correlation_id, self.correlation_id);
        response
    }

    /// The next frame, without its size.
    pub fn receive_frame(&mut self) -> Bytes {
        let mut size = [0; 4];
        self.stream.read_exact(&mut size).unwrap();
        let mut frame = vec![0; usize::try_from(i32::from_be_bytes(size)).unwrap()];
        self.stream.read_exact(&mut frame).unwrap();
        Bytes::from(frame)
    }

    /// Whether the broker has closed the connection without a reply.
    pub fn is_closed(&mut self) -> bool {
        matches!(self.stream.read(&mut [0; 1]), Ok(0) | Err(_))
    }

    pub fn create_topic(&mut self, name: &str, partitions: i32) -> TopicId {
        let topics = vec![topic(name, partitions)];
        let response = self.ask(&CreateTopicsRequest { topics, ..Default::default() });
        assert_eq!(response.topics[0].error_code, ErrorCode::NONE, "{:?}", response.topics[0].error_message);
        response.topics[0].topic_id
    }

    /// Appends one batch of as many records, each of as many bytes, and returns its first offset.
    pub fn produce(&mut self, topic: &str, partition: i32, records: i64, bytes: usize) -> i64 {
        self.try_produce(topic, partition, records, bytes).unwrap()
    }

    /// The same, or the error that the broker answers.
    pub fn try_produce(&mut self, topic: &str, partition: i32, records: i64, bytes: usize) -> Result<i64, ErrorCode> {
        let response = self.ask(&produce(topic, partition, -1, batch(1000, records, bytes)));
        let answer = &response.responses[0].partition_responses[0];
        if answer.error_code.is_error() { Err(answer.error_code) } else { Ok(answer.base_offset) }
    }
}

/// The newest version in which topics may be named: those of three APIs after it know only ids, and have tests of their own.
fn newest_with_names<R: Request>() -> i16 {
    match R::API {
        ApiKey::Produce => 12,
        ApiKey::OffsetCommit | ApiKey::OffsetFetch => 9,
        api => *api.spec().versions.end(),
    }
}

/// A topic to create.
pub fn topic(name: &str, partitions: i32) -> CreatableTopic {
    CreatableTopic { name: name.into(), num_partitions: partitions, replication_factor: 1, ..Default::default() }
}

/// A request to append these bytes to a partition.
pub fn produce(topic: &str, partition: i32, acks: i16, batch: Bytes) -> ProduceRequest {
    let partition_data = vec![PartitionProduceData { index: partition, records: Some(Records::from(batch)) }];
    let topic_data = vec![TopicProduceData { name: topic.into(), partition_data, ..Default::default() }];
    ProduceRequest { acks, timeout_ms: 30_000, topic_data, ..Default::default() }
}

/// A batch whose records' timestamps go up by 1 from `timestamp`.
pub fn batch(timestamp: i64, records: i64, bytes: usize) -> Bytes {
    let mut builder = BatchBuilder::new(Compression::None);
    let value = vec![b'v'; bytes];
    for number in 0..records {
        builder.push(&NewRecord { timestamp: timestamp + number, value: Some(&value), ..Default::default() });
    }
    builder.build()
}

/// Every version of an API that the broker accepts.
pub fn versions<M: Message>() -> impl Iterator<Item = i16> {
    M::API.spec().versions.clone()
}
