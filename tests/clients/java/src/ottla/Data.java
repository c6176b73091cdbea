package ottla;

import java.time.Duration;
import java.util.ArrayList;
import java.util.HashMap;
import java.util.List;
import java.util.Map;
import java.util.Random;
import java.util.concurrent.ExecutionException;
import java.util.concurrent.Future;
import java.util.concurrent.TimeUnit;
import org.apache.kafka.clients.admin.Admin;
import org.apache.kafka.clients.admin.NewTopic;
import org.apache.kafka.clients.consumer.ConsumerRecord;
import org.apache.kafka.clients.consumer.KafkaConsumer;
import org.apache.kafka.clients.consumer.OffsetAndTimestamp;
import org.apache.kafka.clients.producer.KafkaProducer;
import org.apache.kafka.clients.producer.RecordMetadata;
import org.apache.kafka.common.TopicPartition;
import org.apache.kafka.common.errors.RecordTooLargeException;
import org.apache.kafka.common.serialization.ByteArrayDeserializer;
import org.apache.kafka.common.serialization.ByteArraySerializer;

/** Writing and reading records. Reading is by assignment, without a group. */
final class Data {
    private static final long WAIT_SECONDS = 60;
    private final String bootstrap;
    private final Admin admin;

    Data(String bootstrap, Admin admin) {
        this.bootstrap = bootstrap;
        this.admin = admin;
    }

    /** All shapes of records, byte-identical after the way through the broker. */
    void roundTrip(String topic, String codec) throws Exception {
        create(topic, 2);
        List<Sent> sent = Sent.sample(700, 1);
        try (var producer = producer(Map.of("compression.type", codec, "enable.idempotence", false))) {
            produce(producer, topic, 1, sent);
        }
        try (var consumer = consumer()) {
            ClientTest.expect("records", read(consumer, topic, 1, 0, sent.size()), sent);
        }
    }

    /** A timestamp finds its record, a gap the next one, the future none. */
    void seekByTime(String topic) throws Exception {
        create(topic, 1);
        List<Sent> sent = Sent.sample(500, 3);
        try (var producer = producer(Map.of()); var consumer = consumer()) {
            produce(producer, topic, 0, sent);
            ClientTest.expect("exact", offsetAt(consumer, topic, Sent.BASE_TIME + 100_000), 100L);
            ClientTest.expect("gap", offsetAt(consumer, topic, Sent.BASE_TIME + 99_001), 100L);
            ClientTest.expect("future", offsetAt(consumer, topic, Sent.BASE_TIME + 10_000_000), null);
            ClientTest.expect("from the middle", read(consumer, topic, 0, 250, 250), sent.subList(250, 500));
            var place = new TopicPartition(topic, 0);
            ClientTest.expect("start", consumer.beginningOffsets(List.of(place)).get(place), 0L);
            ClientTest.expect("end", consumer.endOffsets(List.of(place)).get(place), 500L);
        }
    }

    /** Five requests in flight: each record once, in order. */
    void idempotent(String topic) throws Exception {
        create(topic, 1);
        List<Sent> sent = new ArrayList<>();
        for (int n = 0; n < 20_000; n++) {
            sent.add(Sent.of("k", "value " + n));
        }
        Map<String, Object> config = Map.of("enable.idempotence", true, "batch.size", 2000, "linger.ms", 1);
        try (var producer = producer(config); var consumer = consumer()) {
            produce(producer, topic, 0, sent);
            ClientTest.expect("records", read(consumer, topic, 0, 0, sent.size()), sent);
        }
    }

    /** Values close to the limit pass whole; one beyond it is refused by the broker, and the topic goes on. */
    void largeValues(String topic) throws Exception {
        create(topic, 1);
        List<Sent> sent = new ArrayList<>();
        for (int n = 0; n < 8; n++) {
            sent.add(new Sent(null, new byte[900_000], List.of(), Sent.BASE_TIME));
            new Random(n).nextBytes(sent.get(n).value());
        }
        try (var producer = producer(Map.of("max.request.size", 10_000_000)); var consumer = consumer()) {
            produce(producer, topic, 0, sent);
            ClientTest.expect("records", read(consumer, topic, 0, 0, sent.size()), sent);
            Sent large = new Sent(null, new byte[2_000_000], List.of(), Sent.BASE_TIME);
            try {
                producer.send(large.to(topic, 0)).get(WAIT_SECONDS, TimeUnit.SECONDS);
                throw new AssertionError("a record beyond the limit was taken");
            } catch (ExecutionException error) {
                ClientTest.expect("refusal", error.getCause().getClass(), RecordTooLargeException.class);
            }
        }
        try (var producer = producer(Map.of()); var consumer = consumer()) {
            ClientTest.expect("offset after the refusal", produce(producer, topic, 0, sent.subList(0, 1)), List.of(8L));
            ClientTest.expect("after the refusal", read(consumer, topic, 0, 8, 1), sent.subList(0, 1));
        }
    }

    /** Records reach the partition that was named, of 64, and one consumer reads them all. */
    void manyPartitions(String topic) throws Exception {
        create(topic, 64);
        Map<TopicPartition, List<Sent>> got = new HashMap<>();
        try (var producer = producer(Map.of("compression.type", "zstd")); var consumer = consumer()) {
            for (int partition = 0; partition < 64; partition++) {
                got.put(new TopicPartition(topic, partition), new ArrayList<>());
                produce(producer, topic, partition, List.of(Sent.of("p" + partition, "a"), Sent.of(null, "b")));
            }
            consumer.assign(got.keySet());
            consumer.seekToBeginning(got.keySet());
            for (int count = 0; count < 128; ) {
                var polled = consumer.poll(Duration.ofSeconds(WAIT_SECONDS));
                ClientTest.expect("nothing polled", polled.isEmpty(), false);
                polled.forEach(record -> got.get(place(record)).add(Sent.received(record)));
                count += polled.count();
            }
        }
        got.forEach((place, records) -> ClientTest.expect(
                "records of " + place, records, List.of(Sent.of("p" + place.partition(), "a"), Sent.of(null, "b"))));
    }

    void create(String topic, int partitions) throws Exception {
        admin.createTopics(List.of(new NewTopic(topic, partitions, (short) -1))).all().get(WAIT_SECONDS, TimeUnit.SECONDS);
    }

    KafkaProducer<byte[], byte[]> producer(Map<String, Object> more) {
        Map<String, Object> config = new HashMap<>(Map.of("bootstrap.servers", bootstrap, "acks", "all", "linger.ms", 20));
        config.putAll(more);
        return new KafkaProducer<>(config, new ByteArraySerializer(), new ByteArraySerializer());
    }

    KafkaConsumer<byte[], byte[]> consumer() {
        Map<String, Object> config = Map.of("bootstrap.servers", bootstrap, "check.crcs", true);
        return new KafkaConsumer<>(config, new ByteArrayDeserializer(), new ByteArrayDeserializer());
    }

    static List<Long> produce(KafkaProducer<byte[], byte[]> producer, String topic, int partition, List<Sent> records)
            throws Exception {
        List<Future<RecordMetadata>> sends = new ArrayList<>();
        records.forEach(record -> sends.add(producer.send(record.to(topic, partition))));
        List<Long> offsets = new ArrayList<>();
        for (var send : sends) {
            offsets.add(send.get(WAIT_SECONDS, TimeUnit.SECONDS).offset());
        }
        return offsets;
    }

    private static List<Sent> read(
            KafkaConsumer<byte[], byte[]> consumer, String topic, int partition, long start, int count) {
        var place = new TopicPartition(topic, partition);
        consumer.assign(List.of(place));
        consumer.seek(place, start);
        List<Sent> got = new ArrayList<>();
        while (got.size() < count) {
            var polled = consumer.poll(Duration.ofSeconds(WAIT_SECONDS));
            ClientTest.expect("nothing polled", polled.isEmpty(), false);
            for (var record : polled) {
                ClientTest.expect("offset", record.offset(), start + got.size());
                got.add(Sent.received(record));
            }
        }
        return got;
    }

    private static Long offsetAt(KafkaConsumer<byte[], byte[]> consumer, String topic, long timestamp) {
        var place = new TopicPartition(topic, 0);
        OffsetAndTimestamp found = consumer.offsetsForTimes(Map.of(place, timestamp)).get(place);
        return found == null ? null : found.offset();
    }

    private static TopicPartition place(ConsumerRecord<byte[], byte[]> record) {
        return new TopicPartition(record.topic(), record.partition());
    }
}
