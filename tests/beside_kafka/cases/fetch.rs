//! Fetch: reading, errors, limits.

use ottla::ids::TopicId;
use ottla::protocol::compression::Compression;
use ottla::protocol::messages::delete_topics::DeleteTopicState;
use ottla::protocol::messages::fetch::{FetchPartition, FetchTopic, ReplicaState};
use ottla::protocol::messages::{DeleteTopicsRequest, FetchRequest};
use ottla::protocol::record::BatchBuilder;

use super::kit::{NO_TOPIC, TIMEOUT_MS, append, batch, batch_of, create, sequenced, versions};
use crate::run::Run;

/// What a request wants of one partition.
#[derive(Clone, Copy, Debug)]
pub struct Want<'a> {
    pub topic: (&'a str, TopicId),
    pub partition: i32,
    pub offset: i64,
    pub max_bytes: i32,
    pub current_epoch: i32,
    pub last_epoch: i32,
}

impl<'a> Want<'a> {
    /// A partition from its beginning.
    pub fn new(topic: (&'a str, TopicId), partition: i32, offset: i64) -> Self {
        Self { topic, partition, offset, max_bytes: 1 << 20, current_epoch: -1, last_epoch: -1 }
    }
}

/// A request for those partitions that waits for nothing.
pub fn request(wants: &[Want<'_>], version: i16) -> FetchRequest {
    let mut topics: Vec<FetchTopic> = Vec::new();
    for want in wants {
        let partition = FetchPartition {
            partition: want.partition,
            current_leader_epoch: want.current_epoch,
            fetch_offset: want.offset,
            last_fetched_epoch: if version >= 12 { want.last_epoch } else { -1 },
            partition_max_bytes: want.max_bytes,
            ..Default::default()
        };
        match topics.last_mut() {
            Some(last) if last.topic == want.topic.0 => last.partitions.push(partition),
            _ => topics.push(FetchTopic {
                topic: want.topic.0.into(),
                topic_id: want.topic.1,
                partitions: vec![partition],
            }),
        }
    }
    FetchRequest { max_wait_ms: 0, min_bytes: 1, topics, ..Default::default() }
}

/// The cases.
pub fn cases(run: &mut Run) {
    let id = create(run, "fetch", 3, &[]);
    let topic = ("fetch", id);
    append(run, "fetch", 0, batch(1000, &["a", "b"]));
    append(run, "fetch", 0, batch_of(BatchBuilder::new(Compression::Lz4), 1002, &["c", "d", "e"]));
    append(run, "fetch", 0, sequenced(42, 3, 0, &["f"]));
    append(run, "fetch", 1, batch(1000, &["g"]));
    reading(run, topic);
    as_another(run, topic);
    places(run, topic);
    epochs(run, topic);
    limits(run, topic);
    waiting(run, topic);
    woken(run);
    stored(run);
}

fn reading(run: &mut Run, topic: (&str, TopicId)) {
    run.case("reading");
    let at = |offset| move |version: i16| request(&[Want::new(topic, 0, offset)], version);
    run.step("from the beginning", at(0));
    run.step("from within a batch", at(3));
    run.step("the last record", at(5));
    run.step("the end", at(6));
    run.step("behind the end", at(7));
    run.step("a negative offset", at(-1));
    run.step("an empty partition", |version| request(&[Want::new(topic, 2, 0)], version));
    run.step("several partitions", |version| {
        request(&[Want::new(topic, 1, 0), Want::new(topic, 0, 5), Want::new(topic, 2, 0)], version)
    });
    run.step("read committed", |version| FetchRequest { isolation_level: 1, ..at(0)(version) });
    run.step("an isolation that there is not", |version| FetchRequest { isolation_level: 7, ..at(0)(version) });
    run.step("nothing", |version| request(&[], version));
    run.step_from("with a high watermark", 18, |version| {
        let mut request = at(0)(version);
        request.topics[0].partitions[0].high_watermark = 2;
        request
    });
    run.step_from("with a rack", 11, |version| FetchRequest { rack_id: "r".into(), ..at(0)(version) });
}

/// Who asks: a consumer says -1, a debugger -2, a broker its id.
fn as_another(run: &mut Run, topic: (&str, TopicId)) {
    run.case("as another");
    for replica in [-2, 1, 5] {
        run.step(&format!("replica {replica}"), |version| {
            let request = request(&[Want::new(topic, 1, 0)], version);
            match version {
                ..=14 => FetchRequest { replica_id: replica, ..request },
                _ => FetchRequest { replica_state: ReplicaState { replica_id: replica, replica_epoch: -1 }, ..request },
            }
        });
    }
}

fn places(run: &mut Run, topic: (&str, TopicId)) {
    run.case("no place");
    let none = ("fetch-none", NO_TOPIC);
    run.step("no such topic", |version| request(&[Want::new(none, 0, 0)], version));
    run.step("no such topic, and one that exists", |version| {
        request(&[Want::new(none, 0, 0), Want::new(topic, 0, 0)], version)
    });
    run.step("no such partition", |version| request(&[Want::new(topic, 9, 0)], version));
    run.step("a negative partition", |version| request(&[Want::new(topic, -1, 0)], version));
    run.step("no topic id", |version| request(&[Want::new(("fetch", TopicId::ZERO), 0, 0)], version));
    run.step("the same partition twice", |version| request(&[Want::new(topic, 0, 0), Want::new(topic, 0, 5)], version));
    run.step("out of range, and one that is not", |version| {
        request(&[Want::new(topic, 0, 99), Want::new(topic, 1, 0)], version)
    });
}

fn epochs(run: &mut Run, topic: (&str, TopicId)) {
    run.case("leader epochs");
    let epoch = run.epoch();
    let known = |current_epoch| move |version| request(&[Want { current_epoch, ..Want::new(topic, 1, 0) }], version);
    run.step_from("the right one", 9, known(epoch));
    run.step_from("one from the future", 9, known(epoch + 1));
    run.step_from("a negative one", 9, known(-2));
    let last =
        |last_epoch, offset| move |version| request(&[Want { last_epoch, ..Want::new(topic, 0, offset) }], version);
    run.step_from("the last record was of this epoch", 12, last(epoch, 3));
    run.step_from("the last record was of this epoch, at the end", 12, last(epoch, 6));
    run.step_from("behind the end of this epoch", 12, last(epoch, 9));
    run.step_from("the last record was of an epoch to come", 12, last(epoch + 5, 3));
}

fn limits(run: &mut Run, topic: (&str, TopicId)) {
    run.case("limits of bytes");
    let small = |max_bytes, partition| Want { max_bytes, ..Want::new(topic, partition, 0) };
    run.step("a partition's is less than a batch", |version| request(&[small(1, 0)], version));
    run.step("a partition's is 0", |version| request(&[small(0, 0)], version));
    run.step("a partition's is negative", |version| request(&[small(-1, 0)], version));
    run.step("a partition's is more than one batch", |version| request(&[small(90, 0)], version));
    run.step("two partitions, each less than a batch", |version| request(&[small(1, 0), small(1, 1)], version));
    let whole = |max_bytes| {
        move |version| FetchRequest { max_bytes, ..request(&[Want::new(topic, 0, 0), Want::new(topic, 1, 0)], version) }
    };
    run.step("the answer's is less than a batch", whole(1));
    run.step("the answer's is 0", whole(0));
    run.step("the answer's is negative", whole(-1));
    run.step("the answer's is the first batch", whole(90));
}

fn waiting(run: &mut Run, topic: (&str, TopicId)) {
    run.case("waiting");
    let end = |version| request(&[Want::new(topic, 0, 6)], version);
    run.step("nothing comes", |version| FetchRequest { max_wait_ms: 30, ..end(version) });
    run.step("no bytes are needed", |version| FetchRequest { max_wait_ms: 5000, min_bytes: 0, ..end(version) });
    run.step("an error is not waited with", |version| FetchRequest {
        max_wait_ms: 5000,
        ..request(&[Want::new(topic, 0, 6), Want::new(topic, 0, 99), Want::new(topic, 1, 99)], version)
    });
    run.step("more is needed than there is", |version| FetchRequest {
        max_wait_ms: 30,
        min_bytes: 1 << 20,
        ..request(&[Want::new(topic, 0, 0)], version)
    });
    run.step("a negative wait", |version| FetchRequest { max_wait_ms: -1, ..end(version) });
}

fn woken(run: &mut Run) {
    run.case("woken");
    let id = create(run, "fetch-woken", 2, &[]);
    let topic = ("fetch-woken", id);
    for version in versions::<FetchRequest>() {
        let end = append(run, "fetch-woken", 0, batch(1, &["x"])) + 1;
        let patient = |wants: &[Want<'_>]| FetchRequest { max_wait_ms: 8000, ..request(wants, version) };
        let waiting = patient(&[Want::new(topic, 1, 0), Want::new(topic, 0, end)]);
        run.parked("by records", version, &waiting, |run| {
            append(run, "fetch-woken", 0, batch(1, &["new"]));
        });
        let greedy = FetchRequest { min_bytes: 140, ..patient(&[Want::new(topic, 0, end + 1)]) };
        run.parked("by enough records", version, &greedy, |run| {
            append(run, "fetch-woken", 0, batch(1, &["one"]));
            append(run, "fetch-woken", 0, batch(1, &["two"]));
        });
        let name = format!("fetch-woken-v{version}");
        let gone = create(run, &name, 1, &[]);
        let waiting = patient(&[Want::new((&name, gone), 0, 0)]);
        run.parked("by the end of the topic", version, &waiting, |run| {
            let state = DeleteTopicState { name: Some(name.as_str().into()), ..Default::default() };
            run.ask(&DeleteTopicsRequest { topics: vec![state], timeout_ms: TIMEOUT_MS, ..Default::default() });
        });
    }
}

/// What was made of batches that were stored otherwise than they were sent.
fn stored(run: &mut Run) {
    run.case("what is stored");
    for (what, configs, codec) in [
        ("the broker's time", ("message.timestamp.type", "LogAppendTime"), Compression::None),
        ("the broker's time, compressed", ("message.timestamp.type", "LogAppendTime"), Compression::Gzip),
        ("compressed by the broker", ("compression.type", "zstd"), Compression::None),
        ("compressed anew", ("compression.type", "snappy"), Compression::Lz4),
        ("unpacked by the broker", ("compression.type", "uncompressed"), Compression::Lz4),
    ] {
        let name = format!("fetch-{}", what.replace([' ', ','], "-").replace('\'', ""));
        let id = create(run, &name, 1, &[configs]);
        append(run, &name, 0, batch_of(BatchBuilder::new(codec), 1000, &["a", "b"]));
        run.step_from(what, 4, |version| request(&[Want::new((&name, id), 0, 0)], version));
    }
}
