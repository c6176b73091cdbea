//! Produce.

use bytes::{BufMut, Bytes, BytesMut};
use ottla::ids::TopicId;
use ottla::protocol::batch::{Attributes, BatchHeader, HEADER_BYTES};
use ottla::protocol::compression::Compression;
use ottla::protocol::messages::ProduceRequest;
use ottla::protocol::messages::produce::{PartitionProduceData, TopicProduceData};
use ottla::protocol::record::{BatchBuilder, NewRecord};

use super::fetch::{self, Want};
use super::kit::{
    NO_TOPIC, TIMEOUT_MS, append, batch, batch_of, create, produce, recreate, sequenced, versions, with_header,
};
use crate::run::Run;

/// The cases.
pub fn cases(run: &mut Run) {
    create(run, "produce", 2, &[]);
    good(run);
    no_place(run);
    by_id(run);
    acks(run);
    no_batch(run);
    damaged(run);
    headers(run);
    compression(run);
    limits(run);
    times(run);
    compacted(run);
}

const TOPIC: &str = "produce";

fn one(records: Option<Bytes>) -> ProduceRequest {
    produce(-1, &[(TOPIC, 0, records)])
}

/// Sends the same bytes in every version to a topic of their own, so that the next step does not depend on whether they are taken.
fn alone(run: &mut Run, step: &str, records: Bytes) {
    let name = format!("alone-{}", step.replace(|c: char| !c.is_ascii_alphanumeric(), "-"));
    create(run, &name, 1, &[]);
    run.step(step, |_| produce(-1, &[(&name, 0, Some(records.clone()))]));
}

fn good(run: &mut Run) {
    run.case("what is taken");
    run.step("one record", |_| one(Some(batch(1000, &["a"]))));
    run.step("acks 1", |_| produce(1, &[(TOPIC, 0, Some(batch(1000, &["a", "b"])))]));
    run.step("two partitions", |_| {
        produce(-1, &[(TOPIC, 0, Some(batch(1000, &["a"]))), (TOPIC, 1, Some(batch(1000, &["b", "c"])))])
    });
    run.step("nothing", |_| produce(-1, &[]));
    run.step("a topic without partitions", |_| {
        let mut request = produce(-1, &[(TOPIC, 0, None)]);
        request.topic_data[0].partition_data.clear();
        request
    });
    run.step("no time to wait", |_| ProduceRequest {
        timeout_ms: 0,
        ..produce(1, &[(TOPIC, 0, Some(batch(1, &["a"])))])
    });
    let headers: &[(&str, Option<&[u8]>)] = &[("h", Some(b"1")), ("", None)];
    run.step("null key and value, headers", |_| {
        let mut builder = BatchBuilder::new(Compression::None);
        builder.push(&NewRecord { timestamp: 5, headers, ..Default::default() });
        one(Some(builder.build()))
    });
}

fn no_place(run: &mut Run) {
    run.case("no place");
    run.step("no such topic", |_| produce(-1, &[("produce-none", 0, Some(batch(1, &["a"])))]));
    run.step("no such partition", |_| produce(-1, &[(TOPIC, 2, Some(batch(1, &["a"])))]));
    run.step("a negative partition", |_| produce(-1, &[(TOPIC, -1, Some(batch(1, &["a"])))]));
    run.step("a name that cannot be", |_| produce(-1, &[("a/b", 0, Some(batch(1, &["a"])))]));
    run.step("one of two exists", |_| {
        produce(-1, &[(TOPIC, 9, Some(batch(1, &["a"]))), (TOPIC, 1, Some(batch(1, &["a"])))])
    });
    run.step("an internal topic", |_| produce(-1, &[("__consumer_offsets", 0, Some(batch(1, &["a"])))]));
}

/// Topics by id, in the versions that have no names.
fn by_id(run: &mut Run) {
    run.case("by topic id");
    let name = "produce-ids";
    let id = create(run, name, 2, &[]);
    let to = |topics: &[(TopicId, i32)]| {
        let topic = |(topic_id, index): &(TopicId, i32)| TopicProduceData {
            topic_id: *topic_id,
            partition_data: vec![PartitionProduceData { index: *index, records: Some(batch(1, &["a"]).into()) }],
            ..Default::default()
        };
        let topic_data = topics.iter().map(topic).collect();
        ProduceRequest { acks: -1, timeout_ms: TIMEOUT_MS, topic_data, ..Default::default() }
    };
    run.step_from("one that exists", 13, |_| to(&[(id, 0)]));
    run.step_from("one that does not exist", 13, |_| to(&[(NO_TOPIC, 0)]));
    run.step_from("no id", 13, |_| to(&[(TopicId::ZERO, 0)]));
    run.step_from("no such partition", 13, |_| to(&[(id, 9)]));
    run.step_from("one of two exists", 13, |_| to(&[(NO_TOPIC, 0), (id, 0)]));
    run.step_from("one in two parts", 13, |_| to(&[(id, 0), (id, 1)]));
    run.one_way("acks 0", 13, &ProduceRequest { acks: 0, ..to(&[(id, 0)]) });
    run.one_way("acks 0, one that does not exist", 13, &ProduceRequest { acks: 0, ..to(&[(NO_TOPIC, 0)]) });
    let again = recreate(run, name, 2);
    run.step_from("one that was", 13, |_| to(&[(id, 0)]));
    run.step_from("one that was, and the one that is", 13, |_| to(&[(id, 0), (again, 0)]));
}

fn acks(run: &mut Run) {
    run.case("acks");
    for acks in [-2, 2, 100] {
        run.step(&format!("acks {acks}"), |_| produce(acks, &[(TOPIC, 0, Some(batch(1, &["a"])))]));
    }
    for version in versions::<ProduceRequest>() {
        run.one_way("acks 0", version, &produce(0, &[(TOPIC, 0, Some(batch(1, &["a"])))]));
        run.one_way("acks 0 with an error", version, &produce(0, &[(TOPIC, 9, Some(batch(1, &["a"])))]));
        run.one_way("acks 0 with nothing", version, &produce(0, &[]));
    }
}

fn no_batch(run: &mut Run) {
    run.case("not one batch");
    run.step_in("null", [3, 9, 11], |_| one(None));
    alone(run, "empty", Bytes::new());
    alone(run, "two batches", Bytes::from([batch(1, &["a"]), batch(1, &["b"])].concat()));
    alone(run, "cut in the header", batch(1, &["a"]).slice(..40));
    alone(run, "cut in the records", batch(1, &["abc"]).slice(..66));
    let behind = |more: &[u8]| Bytes::from([&batch(1, &["a"])[..], more].concat());
    alone(run, "a few bytes behind it", behind(&[0; 5]));
    alone(run, "half a batch behind it", behind(&batch(1, &["b"])[..30]));
    for magic in [0u8, 1, 3] {
        alone(run, &format!("magic {magic}"), old(magic));
        let mut bytes = BytesMut::from(&batch(1, &["a"])[..]);
        bytes[16] = magic;
        alone(run, &format!("a batch of magic {magic}"), bytes.freeze());
    }
}

/// A message set of before Kafka 0.11, with one message; its CRC is wrong.
fn old(magic: u8) -> Bytes {
    let mut message = BytesMut::new();
    message.put_i64(0);
    message.put_i32(if magic == 0 { 15 } else { 23 });
    message.put_u32(0);
    message.put_u8(magic);
    message.put_u8(0);
    if magic > 0 {
        message.put_i64(1000);
    }
    message.put_i32(-1);
    message.put_i32(1);
    message.put_u8(b'a');
    message.freeze()
}

fn damaged(run: &mut Run) {
    run.case("damaged");
    let change = |at: usize, to: u8| {
        let mut bytes = BytesMut::from(&batch(1, &["abc"])[..]);
        bytes[at] = to;
        bytes.freeze()
    };
    alone(run, "a byte of the CRC", change(17, 0x55));
    alone(run, "a byte of the records", change(70, 0x55));
    alone(run, "a length that is too small", change(11, 20));
    alone(run, "a length of less than any message", change(11, 5));
    alone(run, "a negative length", change(8, 0xff));
    alone(run, "a length that is too large", change(11, 0x7f));
    let framing = |at: usize, to: u8| {
        let mut bytes = BytesMut::from(&batch(1, &["abc", "def"])[..]);
        bytes[HEADER_BYTES + at] = to;
        with_header(&bytes.freeze(), |_| {})
    };
    // Of the first record: its length, attributes, time, offset, then the length of its key.
    alone(run, "a record's length is too large", framing(0, 60));
    alone(run, "a record's length is too small", framing(0, 8));
    alone(run, "a record's attributes", framing(1, 7));
    alone(run, "a record's offset", framing(3, 8));
    alone(run, "a key's length", framing(4, 60));
    alone(run, "a number of headers", framing(10, 20));
}

fn headers(run: &mut Run) {
    run.case("headers that do not fit");
    let with = |change: fn(&mut BatchHeader)| with_header(&batch(1, &["a", "b"]), change);
    alone(run, "the base offset is not 0", with(|header| header.base_offset = 7));
    alone(run, "a leader epoch", with(|header| header.leader_epoch = 99));
    alone(run, "no records by their number", with(|header| header.record_count = 0));
    alone(run, "a negative number of records", with(|header| header.record_count = -1));
    alone(run, "too many records", with(|header| (header.record_count, header.last_offset_delta) = (3, 2)));
    alone(run, "too few records", with(|header| (header.record_count, header.last_offset_delta) = (1, 0)));
    alone(run, "the last offset does not fit the number", with(|header| header.last_offset_delta = 5));
    alone(run, "a negative last offset", with(|header| header.last_offset_delta = -1));
    alone(run, "a control batch", with(|header| header.attributes |= 0x20));
    alone(run, "a transactional batch without a producer", with(|header| header.attributes |= 0x10));
    alone(run, "the bit of the delete horizon", with(|header| header.attributes |= 0x40));
    alone(run, "unknown attribute bits", with(|header| header.attributes |= 0x100));
    alone(run, "the largest time is not that of a record", with(|header| header.max_timestamp = 5000));
    alone(run, "a producer without a sequence", with(|header| (header.producer_id, header.producer_epoch) = (9, 0)));
    alone(
        run,
        "a negative epoch of a producer",
        with(|header| {
            (header.producer_id, header.producer_epoch, header.base_sequence) = (9, -1, 0);
        }),
    );
    alone(run, "a sequence without a producer", with(|header| header.base_sequence = 5));
    let attributes = Attributes { log_append_time: true, ..Default::default() };
    alone(run, "a log append time", batch_of(BatchBuilder::with_attributes(attributes), 1, &["a"]));
    run.case("what was stored of headers that do not fit");
    for (what, name) in [
        ("the bit of the delete horizon", "alone-the-bit-of-the-delete-horizon"),
        ("unknown attribute bits", "alone-unknown-attribute-bits"),
        ("the largest time", "alone-the-largest-time-is-not-that-of-a-record"),
        ("a record's attributes", "alone-a-record-s-attributes"),
        ("a leader epoch", "alone-a-leader-epoch"),
        ("a log append time", "alone-a-log-append-time"),
    ] {
        run.step_in(what, [12], |version| {
            let mut request = fetch::request(&[Want::new((name, TopicId::ZERO), 0, 0)], version);
            request.max_bytes = 1;
            request
        });
    }
}

fn compression(run: &mut Run) {
    run.case("compression");
    for codec in Compression::ALL {
        run.step(&codec.to_string(), |_| one(Some(batch_of(BatchBuilder::new(codec), 1, &["a", "b"]))));
    }
    let with = |bits: i16| with_header(&batch(1, &["a"]), |header| header.attributes |= bits);
    alone(run, "a codec that there is not", with(5));
    alone(run, "records that are not what the codec says", with(1));
    let packed = batch_of(BatchBuilder::new(Compression::Gzip), 1, &["a", "b"]);
    let too_many = with_header(&packed, |header| (header.record_count, header.last_offset_delta) = (3, 2));
    alone(run, "a wrong number of compressed records", too_many);
    for codec in ["gzip", "uncompressed", "zstd"] {
        let name = format!("produce-{codec}");
        create(run, &name, 1, &[("compression.type", codec)]);
        let request = |made: Compression| {
            let batch = batch_of(BatchBuilder::new(made), 1, &["a", "b"]);
            produce(-1, &[(&name, 0, Some(batch))])
        };
        run.step(&format!("none into a topic of {codec}"), |_| request(Compression::None));
        run.step(&format!("lz4 into a topic of {codec}"), |_| request(Compression::Lz4));
    }
}

fn limits(run: &mut Run) {
    run.case("limits");
    create(run, "produce-small", 1, &[("max.message.bytes", "200")]);
    let sized = |bytes: usize| produce(-1, &[("produce-small", 0, Some(batch(1, &[&"x".repeat(bytes)])))]);
    run.step("within max.message.bytes", |_| sized(100));
    run.step("above max.message.bytes", |_| sized(300));
    run.step("above the default of max.message.bytes", |_| one(Some(batch(1, &[&"x".repeat(1_100_000)]))));
    create(run, "produce-segment", 1, &[("segment.bytes", "1048576"), ("max.message.bytes", "3000000")]);
    run.step("above segment.bytes", |_| {
        produce(-1, &[("produce-segment", 0, Some(batch(1, &[&"x".repeat(1_100_000)])))])
    });
}

fn times(run: &mut Run) {
    run.case("times");
    create(run, "produce-times", 1, &[("message.timestamp.before.max.ms", "3600000")]);
    let at = |topic: &str, time: i64| produce(-1, &[(topic, 0, Some(batch(time, &["a", "b"])))]);
    run.step("too old", |_| at("produce-times", 1000));
    run.step("no time", |_| at("produce-times", -1));
    run.step("too far ahead", |_| at(TOPIC, 9_000_000_000_000));
    run.step("a negative time", |_| at(TOPIC, -5));
    create(run, "produce-append-time", 1, &[("message.timestamp.type", "LogAppendTime")]);
    run.step("the broker's time", |_| at("produce-append-time", 1000));
    run.step("the broker's time, whatever the client's", |_| at("produce-append-time", 9_000_000_000_000));
    run.step("the broker's time, compressed", |_| {
        let batch = batch_of(BatchBuilder::new(Compression::Lz4), 1, &["a", "b"]);
        produce(-1, &[("produce-append-time", 0, Some(batch))])
    });
}

fn compacted(run: &mut Run) {
    run.case("compacted topics");
    create(run, "produce-compact", 1, &[("cleanup.policy", "compact")]);
    let keys = |keys: &[Option<&[u8]>]| {
        let mut builder = BatchBuilder::new(Compression::None);
        for key in keys {
            builder.push(&NewRecord { timestamp: 1, key: *key, value: Some(b"v"), ..Default::default() });
        }
        produce(-1, &[("produce-compact", 0, Some(builder.build()))])
    };
    run.step("with keys", |_| keys(&[Some(b"a"), Some(b"")]));
    run.step("without a key", |_| keys(&[Some(b"a"), None, None]));
}

/// The cases of idempotent producers.
pub fn idempotence(run: &mut Run) {
    create(run, "idempotent", 1, &[]);
    run.case("sequences");
    for version in versions::<ProduceRequest>() {
        let id = 7000 + i64::from(version);
        let mut send = |step: &str, epoch: i16, sequence: i32, values: &[&str]| {
            let request = produce(-1, &[("idempotent", 0, Some(sequenced(id, epoch, sequence, values)))]);
            run.one(step, version, &request);
        };
        send("the first", 0, 0, &["a", "b"]);
        send("the next", 0, 2, &["c"]);
        send("the same again", 0, 2, &["c"]);
        send("the one before again", 0, 0, &["a", "b"]);
        send("a part of the one before", 0, 0, &["a"]);
        send("a gap", 0, 9, &["d"]);
        for (number, sequence) in (3..9).enumerate() {
            send(&format!("more, {number}"), 0, sequence, &["m"]);
        }
        send("one that is too long ago to be known", 0, 0, &["a", "b"]);
        send("a new epoch that does not begin at 0", 1, 9, &["e"]);
        send("a new epoch", 1, 0, &["e"]);
        send("the old epoch", 0, 9, &["f"]);
        send("the old epoch, a batch that is known", 0, 8, &["m"]);
    }
    run.case("sequences of an unknown producer");
    run.step("they need not begin at 0", |version| {
        produce(-1, &[("idempotent", 0, Some(sequenced(7100 + i64::from(version), 3, 50, &["a"])))])
    });
    run.step("the next wraps around", |version| {
        let id = 7200 + i64::from(version);
        produce(-1, &[("idempotent", 0, Some(sequenced(id, 0, i32::MAX - 1, &["a", "b", "c"])))])
    });
    run.step("and goes on behind 0", |version| {
        produce(-1, &[("idempotent", 0, Some(sequenced(7200 + i64::from(version), 0, 1, &["d"])))])
    });
    transactional(run);
}

fn transactional(run: &mut Run) {
    run.case("transactional batches of no transaction");
    let attributes = Attributes { transactional: true, ..Default::default() };
    let builder = || {
        let producer = ottla::protocol::record::Producer { id: 7300, epoch: 0, base_sequence: 0 };
        BatchBuilder::with_attributes(attributes).producer(producer)
    };
    let parts = || [("idempotent", 0, Some(batch_of(builder(), 1, &["a"])))];
    run.step("without a transactional id", |_| produce(-1, &parts()));
    run.step("with a transactional id", |_| ProduceRequest {
        transactional_id: Some("nobody".into()),
        ..produce(-1, &parts())
    });
    run.step("a plain batch with a transactional id", |_| ProduceRequest {
        transactional_id: Some("nobody".into()),
        ..produce(-1, &[("idempotent", 0, Some(batch(1, &["a"])))])
    });
    // What the steps before have stored shows in the next offset.
    append(run, "idempotent", 0, batch(1, &["last"]));
    run.step("the next offset", |_| produce(-1, &[("idempotent", 0, Some(batch(1, &["a"])))]));
}
