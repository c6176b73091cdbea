//! Asks a broker the requests of the cases, one after the other, and writes down what it answers.

use std::fmt::Write as _;
use std::net::SocketAddr;
use std::time::Duration;

use bytes::Bytes;
use ottla::ids::TopicId;
use ottla::protocol::api::ApiKey;
use ottla::protocol::error_code::ErrorCode;
use ottla::protocol::frame::decode_response;
use ottla::protocol::messages::*;
use ottla::protocol::wire::{Request, Response};

use crate::answer;
use crate::connection::{Connection, Reply};
use crate::ids::{self, Topics};
use crate::mapping::Mapping;
use crate::recording::{Fields, Recording};

/// How long after a change Kafka's broker may still answer from what was before: its controller answers first.
const KAFKA_CATCHES_UP: Duration = Duration::from_millis(250);

/// How long a request takes to come to rest that has nothing to answer yet.
const PARKS_WITHIN: Duration = Duration::from_millis(100);

/// Which broker is asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// The reference.
    Kafka,
    /// Ours.
    Ottla,
}

/// A broker.
#[derive(Clone, Copy, Debug)]
pub struct Peer {
    address: SocketAddr,
    kind: Kind,
}

impl Peer {
    /// The broker at that address.
    pub fn new(address: SocketAddr, kind: Kind) -> Self {
        Self { address, kind }
    }

    /// A new connection.
    fn connect(self) -> Connection {
        // Kafka leaves a request unanswered, and its connection open, where its handler fails; Ottla may be on a busy machine.
        let patience = match self.kind {
            Kind::Kafka => Duration::from_secs(10),
            Kind::Ottla => Duration::from_secs(60),
        };
        Connection::open(self.address, patience)
    }

    /// Asserts that there are no topics: the cases create them, and whoever's broker this is may want to keep theirs.
    pub fn assert_fresh(&self) {
        let topics = Run::new(*self).ask(&MetadataRequest::default()).topics;
        assert!(topics.is_empty(), "{} has topics: record from a Kafka that was just started", self.address);
    }
}

/// The cases' way to a broker.
pub struct Run {
    peer: Peer,
    connection: Connection,
    correlation_id: i32,
    mapping: Mapping,
    topics: Topics,
    recording: Recording,
    case: String,
    has_changed: bool,
    /// Whether a created topic's configs are told that nobody has set.
    pub with_defaults: bool,
}

impl Run {
    /// Nothing was asked yet.
    pub fn new(peer: Peer) -> Self {
        let connection = peer.connect();
        let mapping = Mapping::new(peer.address.port());
        Self {
            peer,
            connection,
            correlation_id: 0,
            mapping,
            topics: Topics::default(),
            recording: Recording::default(),
            case: String::new(),
            has_changed: false,
            with_defaults: false,
        }
    }

    /// The answers so far; what follows is another group's.
    pub fn take_recording(&mut self) -> Recording {
        self.mapping.forget_members();
        std::mem::take(&mut self.recording)
    }

    /// What comes next belongs to the case of that name.
    pub fn case(&mut self, name: &str) {
        name.clone_into(&mut self.case);
    }

    /// Asks in every version that the API has, and writes the answers down.
    pub fn step<R: Request + 'static>(&mut self, name: &str, request: impl Fn(i16) -> R)
    where
        R::Response: 'static,
    {
        self.step_in(name, R::API.spec().versions.clone(), request);
    }

    /// Asks in every version from that one on, and writes the answers down.
    pub fn step_from<R: Request + 'static>(&mut self, name: &str, first: i16, request: impl Fn(i16) -> R)
    where
        R::Response: 'static,
    {
        self.step_in(name, first..=*R::API.spec().versions.end(), request);
    }

    /// Asks in those versions, and writes the answers down.
    pub fn step_in<R: Request + 'static>(
        &mut self,
        name: &str,
        versions: impl IntoIterator<Item = i16>,
        request: impl Fn(i16) -> R,
    ) where
        R::Response: 'static,
    {
        for version in versions {
            self.one(name, version, &request(version));
        }
    }

    /// Asks in one version, and writes the answer down; `None` if there is none.
    pub fn one<R: Request + 'static>(&mut self, name: &str, version: i16, request: &R) -> Option<R::Response>
    where
        R::Response: 'static,
    {
        let exchanged = self.exchange(version, request);
        let fields = match &exchanged {
            Ok(response) => answer::fields(response, version, &mut self.mapping, self.with_defaults),
            Err(what) => said(what),
        };
        self.write_down(name, R::API.key(), version, fields);
        exchanged.ok()
    }

    /// Sends a request that is not answered when all is well, and writes down what becomes of the connection.
    pub fn one_way<R: Request + 'static>(&mut self, name: &str, version: i16, request: &R) {
        self.send(version, request);
        let sent = self.correlation_id;
        self.send(0, &ApiVersionsRequest::default());
        let fields = match self.receive() {
            Ok(frame) if frame[..4] == (sent + 1).to_be_bytes() => said("nothing"),
            Ok(_) => {
                self.reconnect();
                said("an answer")
            }
            Err(what) => said(what),
        };
        self.write_down(name, R::API.key(), version, fields);
    }

    /// Sends bytes as they are, size in front, and writes down what comes back.
    pub fn raw(&mut self, name: &str, api: i16, version: i16, frame: &[u8]) {
        self.connection.send(frame);
        let fields = match self.receive() {
            Ok(frame) => said(&hex(&frame)),
            Err(what) => said(what),
        };
        self.write_down(name, api, version, fields);
    }

    /// Sends a request as these bytes, size in front, and writes down the answer that they get.
    pub fn as_bytes<R: Request + 'static>(&mut self, name: &str, version: i16, frame: &[u8])
    where
        R::Response: 'static,
    {
        self.connection.send(frame);
        let fields = match self.receive() {
            Ok(frame) => {
                let (_, response) = decode_response::<R::Response>(frame, version).unwrap();
                answer::fields(&response, version, &mut self.mapping, self.with_defaults)
            }
            Err(what) => said(what),
        };
        self.write_down(name, R::API.key(), version, fields);
    }

    /// Sends all requests before it takes the first answer, and writes the answers down.
    pub fn together<R: Request + 'static>(&mut self, version: i16, requests: &[(&str, R)])
    where
        R::Response: 'static,
    {
        let before = self.correlation_id;
        requests.iter().for_each(|(_, request)| self.send(version, request));
        self.correlation_id = before;
        for (name, _) in requests {
            self.correlation_id += 1;
            let frame = self.receive().unwrap_or_else(|what| panic!("{what}: {name}"));
            let response = self.decode::<R::Response>(frame, version);
            let fields = answer::fields(&response, version, &mut self.mapping, self.with_defaults);
            self.write_down(name, R::API.key(), version, fields);
        }
    }

    /// Asks, does something else over another connection before the answer is there, and writes the answer down.
    pub fn parked<R: Request + 'static>(
        &mut self,
        name: &str,
        version: i16,
        request: &R,
        meanwhile: impl FnOnce(&mut Self),
    ) where
        R::Response: 'static,
    {
        self.send(version, request);
        let asked = self.correlation_id;
        let other = self.peer.connect();
        let waiting = std::mem::replace(&mut self.connection, other);
        // Long enough for the request to have come to rest; had it not, it would be answered with what is there.
        std::thread::sleep(PARKS_WITHIN);
        meanwhile(self);
        self.connection = waiting;
        let fields = match self.receive() {
            Ok(frame) => {
                let (correlation_id, response) = decode_response::<R::Response>(frame, version).unwrap();
                assert_eq!(correlation_id, asked, "the answer to what was asked");
                answer::fields(&response, version, &mut self.mapping, self.with_defaults)
            }
            Err(what) => said(what),
        };
        self.write_down(name, R::API.key(), version, fields);
    }

    /// Asks in the newest version, and writes nothing down.
    ///
    /// # Panics
    /// If there is no answer.
    pub fn ask<R: Request + 'static>(&mut self, request: &R) -> R::Response {
        let response = self.exchange(*R::API.spec().versions.end(), request);
        response.unwrap_or_else(|what| panic!("{what}: {request:?}"))
    }

    /// Asks the same until the answer is as wanted, and writes nothing down: for what a broker does in its own time.
    pub fn await_answer<R: Request + 'static>(
        &mut self,
        request: &R,
        is_wanted: impl Fn(&R::Response) -> bool,
    ) -> R::Response {
        let mut response = self.ask(request);
        for _ in 0..200 {
            if is_wanted(&response) {
                return response;
            }
            std::thread::sleep(Duration::from_millis(50));
            response = self.ask(request);
        }
        panic!("the answer to {request:?} never became what it must: {response:?}");
    }

    /// Whether the broker is an Ottla: for what it is not asked to wait for.
    pub fn is_ours(&self) -> bool {
        self.peer.kind == Kind::Ottla
    }

    /// The leader epoch of every partition as long as this broker leads them.
    pub fn epoch(&mut self) -> i32 {
        self.mapping.epoch.expect("a group begins with `Run::learn_epoch`")
    }

    /// Learns the epoch that leaders begin with: 0 for Kafka, a Raft term for us.
    pub fn learn_epoch(&mut self, topic: &str) {
        let topics = vec![metadata::MetadataRequestTopic { name: Some(topic.into()), ..Default::default() }];
        let request = MetadataRequest { topics: Some(topics), ..Default::default() };
        let has_leader = |response: &MetadataResponse| {
            response.topics[0].error_code == ErrorCode::NONE && response.topics[0].partitions[0].leader_id >= 0
        };
        let response = self.await_answer(&request, has_leader);
        self.mapping.epoch = Some(response.topics[0].partitions[0].leader_epoch);
    }

    /// Learns which topic has the id.
    pub fn know_topic(&mut self, name: &str, id: TopicId) {
        self.mapping.learn_topic(&id.to_string(), name);
        self.topics.insert(name.to_owned(), id);
    }

    fn exchange<R: Request + 'static>(&mut self, version: i16, request: &R) -> Result<R::Response, &'static str> {
        self.send(version, request);
        let frame = self.receive()?;
        Ok(self.decode(frame, version))
    }

    /// The next frame, or what came instead; then there is a new connection.
    fn receive(&mut self) -> Result<Bytes, &'static str> {
        let what = match self.connection.receive() {
            Reply::Frame(frame) => return Ok(frame),
            Reply::Closed => "closed",
            Reply::Silence => "no answer",
        };
        self.reconnect();
        Err(what)
    }

    fn send<R: Request + 'static>(&mut self, version: i16, request: &R) {
        self.settle(R::API);
        self.correlation_id += 1;
        let frame = ids::encode(version, self.correlation_id, request, &self.topics);
        let frame = frame.unwrap_or_else(|error| panic!("{} version {version}: {error}: {request:?}", R::NAME));
        self.connection.send(&frame.concat());
    }

    fn decode<R: Response>(&self, frame: Bytes, version: i16) -> R {
        let (correlation_id, response) = decode_response(frame, version).unwrap();
        assert_eq!(correlation_id, self.correlation_id, "answers come in the order of requests");
        response
    }

    fn reconnect(&mut self) {
        self.connection = self.peer.connect();
    }

    fn write_down(&mut self, step: &str, api: i16, version: i16, fields: Fields) {
        let name = format!("{}: {step}", self.case);
        self.recording.add(&name, api, version, fields);
    }

    /// Changes are made one after the other by Kafka's controller; what else is asked is answered by its broker, which learns of them later.
    fn settle(&mut self, next: ApiKey) {
        use ApiKey::{AlterConfigs, CreatePartitions, CreateTopics, DeleteTopics, IncrementalAlterConfigs};
        let changes = [AlterConfigs, CreatePartitions, CreateTopics, DeleteTopics, IncrementalAlterConfigs];
        let is_change = changes.contains(&next);
        if self.has_changed && !is_change && self.peer.kind == Kind::Kafka {
            std::thread::sleep(KAFKA_CATCHES_UP);
        }
        self.has_changed = is_change;
    }
}

fn said(what: &str) -> Fields {
    Fields::from([("(connection)".to_owned(), what.to_owned())])
}

fn hex(bytes: &[u8]) -> String {
    let mut text = String::new();
    for byte in bytes {
        write!(text, "{byte:02x}").expect("a string takes everything");
    }
    text
}
