package ottla;

import java.time.Duration;
import java.util.ArrayList;
import java.util.HashMap;
import java.util.List;
import java.util.Map;
import java.util.Set;
import java.util.TreeSet;
import java.util.concurrent.TimeUnit;
import org.apache.kafka.clients.admin.Admin;
import org.apache.kafka.clients.consumer.KafkaConsumer;
import org.apache.kafka.clients.consumer.OffsetAndMetadata;
import org.apache.kafka.common.GroupState;
import org.apache.kafka.common.KafkaFuture;
import org.apache.kafka.common.TopicPartition;
import org.apache.kafka.common.serialization.ByteArrayDeserializer;

/** Members of consumer groups of the classic protocol. */
final class Groups {
    private static final long WAIT_SECONDS = 60;
    private final String bootstrap;
    private final Admin admin;
    private final Data data;

    Groups(String bootstrap, Admin admin, Data data) {
        this.bootstrap = bootstrap;
        this.admin = admin;
        this.data = data;
    }

    /** Members read what is there, commit, leave; those who come later go on there. Two at once share the partitions. */
    void lives(String topic, String assignor) throws Exception {
        data.create(topic, 4);
        var config = Map.<String, Object>of(
                "partition.assignment.strategy", "org.apache.kafka.clients.consumer." + assignor + "Assignor");
        for (int each : new int[] {100, 25, 1}) {
            Set<String> wanted = produce(topic, 4, each);
            try (var consumer = member(topic, topic, config)) {
                ClientTest.expect("read", read(consumer, wanted.size()), wanted);
                consumer.commitSync();
            }
        }
        try (var one = member(topic, topic, config); var other = member(topic, topic, config)) {
            shareOut(one, other, 2);
        }
    }

    /** A static member that was closed and comes back has its partitions at once. */
    void staticMember(String topic) throws Exception {
        data.create(topic, 2);
        try (var other = member(topic, topic, Map.of("group.instance.id", "other"))) {
            Set<TopicPartition> before;
            try (var one = member(topic, topic, Map.of("group.instance.id", "one"))) {
                shareOut(one, other, 1);
                before = Set.copyOf(one.assignment());
            }
            int generation = other.groupMetadata().generationId();
            try (var one = member(topic, topic, Map.of("group.instance.id", "one"))) {
                shareOut(one, other, 1);
                ClientTest.expect("partitions", Set.copyOf(one.assignment()), before);
            }
            ClientTest.expect("generation", other.groupMetadata().generationId(), generation);
        }
    }

    /** The Admin client's calls about groups. */
    void administer(String topic) throws Exception {
        data.create(topic, 1);
        var place = new TopicPartition(topic, 0);
        Set<String> wanted = produce(topic, 1, 10);
        try (var consumer = member(topic, topic, Map.of())) {
            read(consumer, wanted.size());
            consumer.commitSync(Map.of(place, new OffsetAndMetadata(7, "kept")));
            var described = get(admin.describeClassicGroups(List.of(topic)).all()).get(topic);
            ClientTest.expect("state", described.state(), org.apache.kafka.common.ClassicGroupState.STABLE);
            ClientTest.expect("members", described.members().size(), 1);
        }
        var offsets = get(admin.listConsumerGroupOffsets(topic).partitionsToOffsetAndMetadata());
        ClientTest.expect("offset", offsets.get(place).offset(), 7L);
        ClientTest.expect("kept", offsets.get(place).metadata(), "kept");
        var listed = get(admin.listGroups().all()).stream().filter(group -> group.groupId().equals(topic)).toList();
        ClientTest.expect("listed as", listed.get(0).groupState().orElseThrow(), GroupState.EMPTY);
        get(admin.alterConsumerGroupOffsets(topic, Map.of(place, new OffsetAndMetadata(3))).all());
        ClientTest.expect("altered", get(admin.listConsumerGroupOffsets(topic).partitionsToOffsetAndMetadata()).get(place).offset(), 3L);
        get(admin.deleteConsumerGroupOffsets(topic, Set.of(place)).all());
        var left = get(admin.listConsumerGroupOffsets(topic).partitionsToOffsetAndMetadata());
        ClientTest.expect("offsets left", left.get(place), null);
        get(admin.deleteConsumerGroups(List.of(topic)).all());
        ClientTest.expect("listed", get(admin.listGroups().all()).stream().anyMatch(group -> group.groupId().equals(topic)), false);
    }

    private Set<String> produce(String topic, int partitions, int each) throws Exception {
        Set<String> places = new TreeSet<>();
        try (var producer = data.producer(Map.of())) {
            for (int partition = 0; partition < partitions; partition++) {
                List<Sent> sent = new ArrayList<>();
                for (int n = 0; n < each; n++) {
                    sent.add(Sent.of("k", "value " + n));
                }
                int of = partition;
                Data.produce(producer, topic, partition, sent).forEach(offset -> places.add(of + ":" + offset));
            }
        }
        return places;
    }

    private KafkaConsumer<byte[], byte[]> member(String group, String topic, Map<String, Object> more) {
        Map<String, Object> config = new HashMap<>(Map.of(
                "bootstrap.servers", bootstrap, "group.id", group, "enable.auto.commit", false, "auto.offset.reset", "earliest"));
        config.putAll(more);
        var consumer = new KafkaConsumer<>(config, new ByteArrayDeserializer(), new ByteArrayDeserializer());
        consumer.subscribe(List.of(topic));
        return consumer;
    }

    private static Set<String> read(KafkaConsumer<byte[], byte[]> consumer, int count) {
        Set<String> got = new TreeSet<>();
        long until = System.nanoTime() + TimeUnit.SECONDS.toNanos(WAIT_SECONDS);
        while (got.size() < count) {
            ClientTest.expect("records came in time", System.nanoTime() < until, true);
            consumer.poll(Duration.ofMillis(500)).forEach(record -> {
                boolean isNew = got.add(record.partition() + ":" + record.offset());
                ClientTest.expect("read once", isNew, true);
            });
        }
        return got;
    }

    /** Polls two members, each in a thread of its own, until both have so many partitions. */
    private static void shareOut(KafkaConsumer<byte[], byte[]> one, KafkaConsumer<byte[], byte[]> other, int partitions)
            throws InterruptedException {
        long until = System.nanoTime() + TimeUnit.SECONDS.toNanos(WAIT_SECONDS);
        int[] has = new int[2];
        Thread second = new Thread(() -> pollUntilShared(other, 1, has, partitions, until));
        second.start();
        pollUntilShared(one, 0, has, partitions, until);
        second.join();
        ClientTest.expect("partitions of the first", has[0], partitions);
        ClientTest.expect("partitions of the second", has[1], partitions);
    }

    private static void pollUntilShared(KafkaConsumer<byte[], byte[]> member, int at, int[] has, int partitions, long until) {
        while (System.nanoTime() < until) {
            member.poll(Duration.ofMillis(100));
            synchronized (has) {
                has[at] = member.assignment().size();
                if (has[0] == partitions && has[1] == partitions) {
                    return;
                }
            }
        }
    }

    private static <T> T get(KafkaFuture<T> future) throws Exception {
        return future.get(WAIT_SECONDS, TimeUnit.SECONDS);
    }
}
