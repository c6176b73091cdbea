//! The real binary, driven by librdkafka: what a user of it notices.
//!
//! Each test starts a broker of its own on a free port and an empty directory, and kills it at the end.

#![allow(clippy::unwrap_used)] // A test that cannot go on says where.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use rdkafka::admin::{AdminClient, AdminOptions, NewPartitions, NewTopic, ResourceSpecifier, TopicReplication};
use rdkafka::client::DefaultClientContext;
use rdkafka::config::ClientConfig;
use rdkafka::consumer::{BaseConsumer, CommitMode, Consumer};
use rdkafka::error::RDKafkaErrorCode;
use rdkafka::message::{Header, Headers, Message, OwnedHeaders, Timestamp};
use rdkafka::producer::{FutureProducer, FutureRecord};
use rdkafka::topic_partition_list::{Offset, TopicPartitionList};

const PATIENCE: Duration = Duration::from_secs(60);
const CODECS: [&str; 5] = ["none", "gzip", "snappy", "lz4", "zstd"];

/// A broker in a process of its own.
struct Broker {
    process: Child,
    directory: tempfile::TempDir,
    address: String,
}

impl Broker {
    fn start() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let (process, address) = serve(&directory, "127.0.0.1:0");
        Self { process, directory, address }
    }

    /// Kills it at once and starts it again on what its directory holds, at the same address.
    fn kill_and_start(&mut self) {
        self.process.kill().unwrap();
        self.process.wait().unwrap();
        (self.process, _) = serve(&self.directory, &self.address);
    }

    fn config(&self) -> ClientConfig {
        let mut config = ClientConfig::new();
        config.set("bootstrap.servers", &self.address).set("broker.address.family", "v4");
        config
    }

    fn producer(&self, settings: &[(&str, &str)]) -> FutureProducer {
        let mut config = self.config();
        for (key, value) in settings {
            config.set(*key, *value);
        }
        config.set("message.timeout.ms", PATIENCE.as_millis().to_string()).create().unwrap()
    }

    fn consumer(&self) -> BaseConsumer {
        self.config().set("group.id", "by-assign").set("enable.auto.commit", "false").create().unwrap()
    }

    /// A member of a group, which commits when it is told to.
    fn member(&self, group: &str, settings: &[(&str, &str)]) -> BaseConsumer {
        let mut config = self.config();
        config.set("group.id", group).set("enable.auto.commit", "false").set("auto.offset.reset", "earliest");
        config.set("session.timeout.ms", "6000").set("heartbeat.interval.ms", "300");
        for (key, value) in settings {
            config.set(*key, *value);
        }
        config.create().unwrap()
    }

    fn admin(&self) -> AdminClient<DefaultClientContext> {
        self.config().create().unwrap()
    }

    async fn create_topic(&self, name: &str, partitions: i32) {
        let topic = NewTopic::new(name, partitions, TopicReplication::Fixed(1));
        let created = self.admin().create_topics([&topic], &options()).await.unwrap();
        assert_eq!(created, [Ok(name.to_owned())]);
    }
}

impl Drop for Broker {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// Starts the binary and waits for the line that says ready.
fn serve(directory: &tempfile::TempDir, listen: &str) -> (Child, String) {
    let mut command = Command::new(env!("CARGO_BIN_EXE_ottla"));
    let data = directory.path().join("data");
    command.arg("serve").arg("--data-dir").arg(data).args(["--listen", listen]);
    command.env("OTTLA_GROUPS_INITIAL_REBALANCE_DELAY_MS", "100");
    command.env("OTTLA_ADMIN_LISTEN", "127.0.0.1:0").stdin(Stdio::null()).stdout(Stdio::piped());
    let mut process = command.spawn().unwrap();
    let mut lines = BufReader::new(process.stdout.take().unwrap()).lines();
    let ready = lines.next().expect("the broker says that it is ready").unwrap();
    let address = ready.split(' ').find_map(|field| field.strip_prefix("kafka=")).unwrap_or_else(|| panic!("{ready}"));
    (process, address.to_owned())
}

fn options() -> AdminOptions {
    AdminOptions::new().request_timeout(Some(PATIENCE)).operation_timeout(Some(PATIENCE))
}

/// What a test sends, and gets back.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Sent {
    key: Option<Vec<u8>>,
    value: Option<Vec<u8>>,
    headers: Vec<(String, Option<Vec<u8>>)>,
    timestamp: i64,
}

impl Sent {
    fn new(number: u8) -> Self {
        let bytes = |size: u8| (0..size).map(|at| at.wrapping_mul(number)).collect::<Vec<u8>>();
        Self {
            key: (!number.is_multiple_of(3)).then(|| bytes(number)),
            value: (!number.is_multiple_of(5)).then(|| bytes(number.wrapping_mul(7))),
            headers: (0..number % 3).map(|at| (format!("h{at}"), (at > 0).then(|| bytes(at)))).collect(),
            timestamp: 1_700_000_000_000 + i64::from(number) * 1000,
        }
    }

    async fn send(&self, producer: &FutureProducer, topic: &str, partition: i32) -> i64 {
        let header = |headers: OwnedHeaders, (key, value): &(String, Option<Vec<u8>>)| {
            headers.insert(Header { key, value: value.as_ref() })
        };
        let headers = self.headers.iter().fold(OwnedHeaders::new(), header);
        let mut record = FutureRecord::to(topic).partition(partition).timestamp(self.timestamp);
        record.key = self.key.as_deref();
        record.payload = self.value.as_deref();
        record.headers = (!self.headers.is_empty()).then_some(headers);
        let delivery = producer.send::<[u8], [u8], _>(record, PATIENCE).await.unwrap();
        assert_eq!(delivery.partition, partition);
        delivery.offset
    }
}

/// Reads so many records of a partition, from an offset on; their offsets have no gap.
fn read(consumer: &BaseConsumer, topic: &str, partition: i32, from: Offset, count: usize) -> Vec<Sent> {
    let mut assignment = TopicPartitionList::new();
    assignment.add_partition_offset(topic, partition, from).unwrap();
    consumer.assign(&assignment).unwrap();
    let mut got = Vec::new();
    let mut next = None;
    let until = Instant::now() + PATIENCE;
    while got.len() < count {
        assert!(Instant::now() < until, "{} of {count} records came", got.len());
        let Some(message) = consumer.poll(Duration::from_millis(100)) else { continue };
        let message = match message {
            Ok(message) => message,
            Err(error) if error.rdkafka_error_code().is_some_and(passes) => continue,
            Err(error) => panic!("{error}"),
        };
        assert_eq!(message.offset(), next.unwrap_or(message.offset()));
        next = Some(message.offset() + 1);
        let headers = message.headers().map(|headers| headers.iter().map(owned).collect()).unwrap_or_default();
        let Timestamp::CreateTime(timestamp) = message.timestamp() else { panic!("{:?}", message.timestamp()) };
        let (key, value) = (message.key().map(<[u8]>::to_vec), message.payload().map(<[u8]>::to_vec));
        got.push(Sent { key, value, headers, timestamp });
    }
    got
}

/// What librdkafka tells about its connections and goes on.
fn passes(code: RDKafkaErrorCode) -> bool {
    matches!(
        code,
        RDKafkaErrorCode::BrokerTransportFailure
            | RDKafkaErrorCode::AllBrokersDown
            | RDKafkaErrorCode::OperationTimedOut
            | RDKafkaErrorCode::UnsupportedFeature
    )
}

fn owned(header: Header<'_, &[u8]>) -> (String, Option<Vec<u8>>) {
    (header.key.to_owned(), header.value.map(<[u8]>::to_vec))
}

#[tokio::test(flavor = "multi_thread")]
async fn records_of_every_codec_come_back_as_they_were_sent_and_after_a_kill() {
    let mut broker = Broker::start();
    for codec in CODECS {
        broker.create_topic(codec, 1).await;
    }
    let sent: Vec<Sent> = (0..50).map(Sent::new).collect();
    for codec in CODECS {
        let producer = broker.producer(&[("compression.type", codec), ("linger.ms", "20")]);
        let sending = sent.iter().map(|record| record.send(&producer, codec, 0));
        let offsets = futures::future::join_all(sending).await;
        assert_eq!(offsets, (0..50).collect::<Vec<i64>>(), "{codec}");
    }
    for killed in [false, true] {
        if killed {
            broker.kill_and_start();
        }
        for codec in CODECS {
            assert_eq!(read(&broker.consumer(), codec, 0, Offset::Beginning, 50), sent, "{codec}, killed: {killed}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_idempotent_producer_writes_once_and_in_order_over_a_kill() {
    let mut broker = Broker::start();
    broker.create_topic("once", 1).await;
    let producer = broker.producer(&[("enable.idempotence", "true"), ("linger.ms", "1")]);
    let record = |number: i32| Sent {
        key: None,
        value: Some(number.to_be_bytes().to_vec()),
        headers: Vec::new(),
        timestamp: i64::from(number) + 1,
    };
    let sent: Vec<Sent> = (0..3000).map(record).collect();
    for (turn, part) in sent.chunks(1000).enumerate() {
        // The last records of the part before are under way when the broker dies.
        let sending = futures::future::join_all(part.iter().map(|record| record.send(&producer, "once", 0)));
        let sending = async {
            tokio::pin!(sending);
            if turn > 0 {
                // Polled once, so that everything is queued.
                assert!(futures::poll!(&mut sending).is_pending());
                tokio::task::block_in_place(|| broker.kill_and_start());
            }
            sending.await
        };
        sending.await;
    }
    assert_eq!(read(&broker.consumer(), "once", 0, Offset::Beginning, 3000), sent);
    let (start, end) = broker.consumer().fetch_watermarks("once", 0, PATIENCE).unwrap();
    assert_eq!((start, end), (0, 3000));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_consumer_finds_records_by_time_and_by_offset() {
    let broker = Broker::start();
    broker.create_topic("times", 2).await;
    let producer = broker.producer(&[]);
    let sent: Vec<Sent> = (0..20).map(Sent::new).collect();
    for record in &sent {
        record.send(&producer, "times", 1).await;
    }
    let consumer = broker.consumer();
    let found = |partition: i32, timestamp: i64| {
        let mut asked = TopicPartitionList::new();
        asked.add_partition_offset("times", partition, Offset::Offset(timestamp)).unwrap();
        consumer.offsets_for_times(asked, PATIENCE).unwrap().elements()[0].offset()
    };
    assert_eq!(found(1, sent[7].timestamp), Offset::Offset(7));
    assert_eq!(found(1, sent[7].timestamp + 1), Offset::Offset(8));
    assert_eq!(found(1, sent[19].timestamp + 1), Offset::End);
    assert_eq!(found(0, 0), Offset::End);
    assert_eq!(read(&consumer, "times", 1, Offset::Offset(15), 5), sent[15..]);
    assert_eq!(consumer.fetch_watermarks("times", 1, PATIENCE).unwrap(), (0, 20));
    assert_eq!(consumer.fetch_watermarks("times", 0, PATIENCE).unwrap(), (0, 0));
}

#[tokio::test(flavor = "multi_thread")]
async fn an_administrator_creates_describes_grows_and_deletes_topics() {
    let broker = Broker::start();
    let admin = broker.admin();
    let topic = NewTopic::new("orders", 3, TopicReplication::Fixed(1)).set("retention.ms", "3600000");
    assert_eq!(admin.create_topics([&topic], &options()).await.unwrap(), [Ok("orders".to_owned())]);
    let again = admin.create_topics([&topic], &options()).await.unwrap();
    assert_eq!(again, [Err(("orders".to_owned(), RDKafkaErrorCode::TopicAlreadyExists))]);

    let described = admin.describe_configs([&ResourceSpecifier::Topic("orders")], &options()).await.unwrap();
    let configs = described.into_iter().next().unwrap().unwrap().entries;
    let configs: BTreeMap<_, _> = configs.into_iter().map(|entry| (entry.name, entry.value)).collect();
    assert_eq!(configs["retention.ms"].as_deref(), Some("3600000"));
    assert_eq!(configs["cleanup.policy"].as_deref(), Some("delete"));

    let more = NewPartitions::new("orders", 5);
    assert_eq!(admin.create_partitions([&more], &options()).await.unwrap(), [Ok("orders".to_owned())]);
    let metadata = broker.consumer().fetch_metadata(None, PATIENCE).unwrap();
    assert_eq!(metadata.brokers().len(), 1);
    let topics = metadata.topics().iter().map(|topic| (topic.name(), topic.partitions().len()));
    // A consumer with a group looks for its coordinator, which makes the topic of those.
    let topics: Vec<_> = topics.filter(|(name, _)| *name != "__consumer_offsets").collect();
    assert_eq!(topics, [("orders", 5)]);

    assert_eq!(admin.delete_topics(&["orders"], &options()).await.unwrap(), [Ok("orders".to_owned())]);
    let gone = admin.delete_topics(&["orders"], &options()).await.unwrap();
    assert_eq!(gone, [Err(("orders".to_owned(), RDKafkaErrorCode::UnknownTopicOrPartition))]);
    let metadata = broker.consumer().fetch_metadata(None, PATIENCE).unwrap();
    assert!(metadata.topics().iter().all(|topic| topic.name() == "__consumer_offsets"));
}

/// Where a record was read: partition and offset.
type Place = (i32, i64);

/// Polls all members in turn until they have read so many records, and gives what each read.
fn read_together(members: &[&BaseConsumer], count: usize) -> Vec<Vec<Place>> {
    let mut got = vec![Vec::new(); members.len()];
    let until = Instant::now() + PATIENCE;
    while got.iter().map(Vec::len).sum::<usize>() < count {
        assert!(Instant::now() < until, "{got:?} of {count} records came");
        for (member, got) in members.iter().zip(&mut got) {
            match member.poll(Duration::from_millis(10)) {
                Some(Ok(message)) => got.push((message.partition(), message.offset())),
                Some(Err(error)) => assert!(error.rdkafka_error_code().is_some_and(passes), "{error}"),
                None => {}
            }
        }
    }
    got
}

/// Polls all members in turn until each has so many partitions.
fn await_shares(members: &[&BaseConsumer], partitions: usize) {
    let until = Instant::now() + PATIENCE;
    while members.iter().any(|member| member.assignment().unwrap().count() != partitions) {
        assert!(Instant::now() < until, "the partitions are not shared out");
        for member in members {
            assert!(
                member.poll(Duration::from_millis(10)).is_none_or(|polled| polled.is_err()),
                "nothing is there to read"
            );
        }
    }
}

async fn send_numbered(broker: &Broker, topic: &str, partitions: i32, each: u8) {
    let producer = broker.producer(&[]);
    for partition in 0..partitions {
        let sending = (0..each).map(|number| async move { Sent::new(number) });
        for record in futures::future::join_all(sending).await {
            record.send(&producer, topic, partition).await;
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_group_goes_on_where_it_committed_whoever_comes_leaves_or_dies() {
    for strategy in ["range", "cooperative-sticky"] {
        let mut broker = Broker::start();
        broker.create_topic("shared", 4).await;
        let settings = [("partition.assignment.strategy", strategy)];
        let first = broker.member("g", &settings);
        first.subscribe(&["shared"]).unwrap();
        await_shares(&[&first], 4);
        let second = broker.member("g", &settings);
        second.subscribe(&["shared"]).unwrap();
        await_shares(&[&first, &second], 2);
        send_numbered(&broker, "shared", 4, 10).await;
        let got = read_together(&[&first, &second], 40);
        assert_eq!((got[0].len(), got[1].len()), (20, 20), "{strategy}: each reads its own partitions");
        for member in [&first, &second] {
            member.commit_consumer_state(CommitMode::Sync).unwrap();
        }
        tokio::task::block_in_place(|| broker.kill_and_start());
        drop(second);
        // What is read before the rebalance and not committed would be read again after it.
        await_shares(&[&first], 4);
        send_numbered(&broker, "shared", 4, 10).await;
        let mut got = read_together(&[&first], 40).remove(0);
        got.sort_unstable();
        let wanted: Vec<Place> = (0..4).flat_map(|partition| (10..20).map(move |offset| (partition, offset))).collect();
        assert_eq!(got, wanted, "{strategy}: nothing twice, nothing left out");
        first.commit_consumer_state(CommitMode::Sync).unwrap();
        drop(first);
        send_numbered(&broker, "shared", 4, 1).await;
        let third = broker.member("g", &settings);
        third.subscribe(&["shared"]).unwrap();
        let mut got = read_together(&[&third], 4).remove(0);
        got.sort_unstable();
        assert_eq!(got, [(0, 20), (1, 20), (2, 20), (3, 20)], "{strategy}");
    }
}
