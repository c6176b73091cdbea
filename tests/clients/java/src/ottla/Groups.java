package ottla;

import java.time.Duration;
import java.util.Collections;
import java.util.List;
import java.util.Map;
import java.util.Set;
import java.util.concurrent.TimeUnit;
import org.apache.kafka.clients.admin.Admin;
import org.apache.kafka.clients.consumer.KafkaConsumer;
import org.apache.kafka.clients.consumer.OffsetAndMetadata;
import org.apache.kafka.common.ConsumerGroupState;
import org.apache.kafka.common.KafkaFuture;
import org.apache.kafka.common.TopicPartition;
import org.apache.kafka.common.serialization.ByteArrayDeserializer;

/** The Admin client and consumer groups. Its members are of the classic protocol. */
final class Groups {
    private static final long WAIT_SECONDS = 60;
    private static final int RECORDS = 10;
    private final String bootstrap;
    private final Admin admin;
    private final Data data;

    Groups(String bootstrap, Admin admin, Data data) {
        this.bootstrap = bootstrap;
        this.admin = admin;
        this.data = data;
    }

    /** The Admin client's calls about groups. */
    void administer(String topic) throws Exception {
        data.create(topic, 1);
        var place = new TopicPartition(topic, 0);
        try (var producer = data.producer(Map.of())) {
            Data.produce(producer, topic, 0, Collections.nCopies(RECORDS, Sent.of("k", "v")));
        }
        try (var consumer = member(topic)) {
            read(consumer);
            consumer.commitSync(Map.of(place, new OffsetAndMetadata(7, "kept")));
            var described = get(admin.describeConsumerGroups(List.of(topic)).all()).get(topic);
            ClientTest.expect("state", described.state(), ConsumerGroupState.STABLE);
            ClientTest.expect("members", described.members().size(), 1);
        }
        var offsets = get(admin.listConsumerGroupOffsets(topic).partitionsToOffsetAndMetadata());
        ClientTest.expect("offset", offsets.get(place).offset(), 7L);
        ClientTest.expect("kept", offsets.get(place).metadata(), "kept");
        var listed = get(admin.listConsumerGroups().all()).stream().filter(group -> group.groupId().equals(topic)).toList();
        ClientTest.expect("listed as", listed.get(0).state().orElseThrow(), ConsumerGroupState.EMPTY);
        get(admin.alterConsumerGroupOffsets(topic, Map.of(place, new OffsetAndMetadata(3))).all());
        ClientTest.expect("altered", get(admin.listConsumerGroupOffsets(topic).partitionsToOffsetAndMetadata()).get(place).offset(), 3L);
        get(admin.deleteConsumerGroupOffsets(topic, Set.of(place)).all());
        var left = get(admin.listConsumerGroupOffsets(topic).partitionsToOffsetAndMetadata());
        ClientTest.expect("offsets left", left.get(place), null);
        get(admin.deleteConsumerGroups(List.of(topic)).all());
        ClientTest.expect("listed", get(admin.listConsumerGroups().all()).stream().anyMatch(group -> group.groupId().equals(topic)), false);
    }

    private KafkaConsumer<byte[], byte[]> member(String topic) {
        Map<String, Object> config = Map.of(
                "bootstrap.servers", bootstrap, "group.id", topic, "enable.auto.commit", false, "auto.offset.reset", "earliest");
        var consumer = new KafkaConsumer<>(config, new ByteArrayDeserializer(), new ByteArrayDeserializer());
        consumer.subscribe(List.of(topic));
        return consumer;
    }

    private static void read(KafkaConsumer<byte[], byte[]> consumer) {
        long until = System.nanoTime() + TimeUnit.SECONDS.toNanos(WAIT_SECONDS);
        for (int got = 0; got < RECORDS; got += consumer.poll(Duration.ofMillis(500)).count()) {
            ClientTest.expect("records came in time", System.nanoTime() < until, true);
        }
    }

    private static <T> T get(KafkaFuture<T> future) throws Exception {
        return future.get(WAIT_SECONDS, TimeUnit.SECONDS);
    }
}
