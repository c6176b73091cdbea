package ottla;

import java.io.IOException;
import java.time.Duration;
import java.util.Collection;
import java.util.HashMap;
import java.util.List;
import java.util.Map;
import java.util.Set;
import java.util.TreeSet;
import java.util.stream.Collectors;
import org.apache.kafka.clients.consumer.ConsumerRebalanceListener;
import org.apache.kafka.clients.consumer.ConsumerRecord;
import org.apache.kafka.clients.consumer.KafkaConsumer;
import org.apache.kafka.clients.consumer.OffsetAndMetadata;
import org.apache.kafka.common.TopicPartition;
import org.apache.kafka.common.errors.RebalanceInProgressException;
import org.apache.kafka.common.serialization.StringDeserializer;

/** A member of a group that commits each record, as `groups.py` wants it: it leaves when the standard input ends. */
final class Member implements ConsumerRebalanceListener {
    private static final Map<String, String> ASSIGNORS = Map.of("range", "Range", "cooperative-sticky", "CooperativeSticky");
    private static final Duration POLL = Duration.ofMillis(100);
    private final KafkaConsumer<String, String> consumer;
    private final Map<TopicPartition, OffsetAndMetadata> uncommitted = new HashMap<>();
    private final Set<Integer> partitions = new TreeSet<>();
    private volatile boolean leaving;

    private Member(Map<String, Object> config) {
        consumer = new KafkaConsumer<>(config, new StringDeserializer(), new StringDeserializer());
    }

    static void run(String bootstrap, String group, String topic, String assignor, String instance) {
        Map<String, Object> config = new HashMap<>(Map.of(
                "bootstrap.servers", bootstrap, "group.id", group, "enable.auto.commit", false, "auto.offset.reset", "earliest"));
        if (assignor.equals("consumer")) {
            config.put("group.protocol", "consumer");
        } else {
            String named = "org.apache.kafka.clients.consumer." + ASSIGNORS.get(assignor) + "Assignor";
            config.put("partition.assignment.strategy", named);
            config.put("session.timeout.ms", instance.isEmpty() ? 10_000 : 30_000);
            config.put("heartbeat.interval.ms", 500);
        }
        if (!instance.isEmpty()) {
            config.put("group.instance.id", instance);
        }
        new Member(config).readUntilItLeaves(topic);
    }

    private void readUntilItLeaves(String topic) {
        Thread end = new Thread(this::waitForTheEnd);
        end.setDaemon(true);
        end.start();
        try (consumer) {
            consumer.subscribe(List.of(topic), this);
            while (!leaving || !uncommitted.isEmpty()) {
                for (ConsumerRecord<String, String> record : consumer.poll(POLL)) {
                    if (leaving) {
                        break;
                    }
                    System.out.println("READ " + record.partition() + " " + record.offset() + " " + record.value());
                    var place = new TopicPartition(record.topic(), record.partition());
                    uncommitted.put(place, new OffsetAndMetadata(record.offset() + 1));
                    commit();
                }
                commit();
            }
        }
    }

    /** Commits what was read, unless a rebalance is in its way: then a later call does. */
    private void commit() {
        if (uncommitted.isEmpty()) {
            return;
        }
        try {
            consumer.commitSync(uncommitted);
            uncommitted.clear();
        } catch (RebalanceInProgressException inTheMiddle) {
            // The next poll takes part in it.
        }
    }

    private void waitForTheEnd() {
        try {
            System.in.readAllBytes();
        } catch (IOException error) {
            error.printStackTrace();
        }
        leaving = true;
    }

    @Override
    public void onPartitionsAssigned(Collection<TopicPartition> given) {
        given.forEach(place -> partitions.add(place.partition()));
        show();
    }

    @Override
    public void onPartitionsRevoked(Collection<TopicPartition> taken) {
        commit();
        taken.forEach(place -> partitions.remove(place.partition()));
        show();
    }

    @Override
    public void onPartitionsLost(Collection<TopicPartition> lost) {
        lost.forEach(uncommitted::remove);
        lost.forEach(place -> partitions.remove(place.partition()));
        show();
    }

    private void show() {
        System.out.println("ASSIGNED " + partitions.stream().map(String::valueOf).collect(Collectors.joining(" ")));
    }
}
