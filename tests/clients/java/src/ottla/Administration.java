package ottla;

import java.util.Collection;
import java.util.List;
import java.util.Map;
import java.util.concurrent.ExecutionException;
import java.util.concurrent.TimeUnit;
import org.apache.kafka.clients.admin.Admin;
import org.apache.kafka.clients.admin.AlterConfigOp;
import org.apache.kafka.clients.admin.Config;
import org.apache.kafka.clients.admin.ConfigEntry;
import org.apache.kafka.clients.admin.NewPartitions;
import org.apache.kafka.clients.admin.NewTopic;
import org.apache.kafka.clients.admin.OffsetSpec;
import org.apache.kafka.clients.admin.RecordsToDelete;
import org.apache.kafka.clients.admin.TopicDescription;
import org.apache.kafka.common.KafkaFuture;
import org.apache.kafka.common.TopicPartition;
import org.apache.kafka.common.TopicCollection;
import org.apache.kafka.common.Uuid;
import org.apache.kafka.common.config.ConfigResource;
import org.apache.kafka.common.errors.InvalidPartitionsException;
import org.apache.kafka.common.errors.TopicExistsException;
import org.apache.kafka.common.errors.UnknownTopicIdException;
import org.apache.kafka.common.errors.UnknownTopicOrPartitionException;

/** The Admin client's calls, each with what it must show. */
final class Administration {
    private final Admin admin;
    private final Data data;

    Administration(Admin admin, Data data) {
        this.admin = admin;
        this.data = data;
    }

    void topics(String topic) throws Exception {
        var created = admin.createTopics(List.of(new NewTopic(topic, 3, (short) -1).configs(Map.of("retention.ms", "1234567"))));
        Uuid id = get(created.topicId(topic));
        ClientTest.expect("partitions created", get(created.numPartitions(topic)), 3);
        ClientTest.expect("again", failure(() -> data.create(topic, 3)), TopicExistsException.class);
        ClientTest.expect("listed", get(admin.listTopics().names()).contains(topic), true);
        TopicDescription described = describe(topic);
        ClientTest.expect("id", described.topicId(), id);
        ClientTest.expect("partitions", described.partitions().size(), 3);
        described.partitions().forEach(p -> ClientTest.expect("in sync", p.isr(), List.of(p.leader())));
        var byId = admin.describeTopics(TopicCollection.ofTopicIds(List.of(id))).topicIdValues().get(id);
        ClientTest.expect("name by id", get(byId).name(), topic);
        get(admin.deleteTopics(List.of(topic)).all());
        ClientTest.expect("deleted", failure(() -> describe(topic)), UnknownTopicOrPartitionException.class);
        var again = admin.deleteTopics(TopicCollection.ofTopicIds(List.of(id))).all();
        ClientTest.expect("deleted by id again", failure(() -> get(again)), UnknownTopicIdException.class);
    }

    void partitions(String topic) throws Exception {
        data.create(topic, 2);
        get(admin.createPartitions(Map.of(topic, NewPartitions.increaseTo(6))).all());
        ClientTest.expect("partitions", describe(topic).partitions().size(), 6);
        var fewer = admin.createPartitions(Map.of(topic, NewPartitions.increaseTo(4))).all();
        ClientTest.expect("fewer", failure(() -> get(fewer)), InvalidPartitionsException.class);
        try (var producer = data.producer(Map.of())) {
            ClientTest.expect("new partition", Data.produce(producer, topic, 5, List.of(Sent.of("k", "v"))), List.of(0L));
        }
    }

    void configs(String topic) throws Exception {
        data.create(topic, 1);
        var resource = new ConfigResource(ConfigResource.Type.TOPIC, topic);
        ClientTest.expect("default", configs(resource).get("cleanup.policy").value(), "delete");
        alter(resource, "retention.bytes", "123456789", AlterConfigOp.OpType.SET);
        ConfigEntry set = configs(resource).get("retention.bytes");
        ClientTest.expect("set", set.value(), "123456789");
        ClientTest.expect("source", set.source(), ConfigEntry.ConfigSource.DYNAMIC_TOPIC_CONFIG);
        alter(resource, "retention.bytes", "", AlterConfigOp.OpType.DELETE);
        ClientTest.expect("deleted", configs(resource).get("retention.bytes").value(), "-1");
        Throwable refused = null;
        try {
            alter(resource, "no.such.config", "1", AlterConfigOp.OpType.SET);
        } catch (ExecutionException error) {
            refused = error.getCause();
        }
        ClientTest.expect("an unknown name is refused", refused == null, false);
        var broker = new ConfigResource(ConfigResource.Type.BROKER, "1");
        ClientTest.expect("broker's configs", configs(broker).entries().isEmpty(), false);
    }

    void records(String topic) throws Exception {
        data.create(topic, 1);
        var place = new TopicPartition(topic, 0);
        try (var producer = data.producer(Map.of())) {
            Data.produce(producer, topic, 0, Sent.sample(100, 5));
        }
        long low = get(admin.deleteRecords(Map.of(place, RecordsToDelete.beforeOffset(40))).lowWatermarks().get(place)).lowWatermark();
        ClientTest.expect("low watermark", low, 40L);
        ClientTest.expect("earliest", offset(place, OffsetSpec.earliest()), 40L);
        ClientTest.expect("latest", offset(place, OffsetSpec.latest()), 100L);
        ClientTest.expect("of the largest timestamp", offset(place, OffsetSpec.maxTimestamp()), 99L);
        ClientTest.expect("by time", offset(place, OffsetSpec.forTimestamp(Sent.BASE_TIME + 60_000)), 60L);
        get(admin.deleteRecords(Map.of(place, RecordsToDelete.beforeOffset(-1))).all());
        ClientTest.expect("all deleted", offset(place, OffsetSpec.earliest()), 100L);
    }

    void cluster(String topic) throws Exception {
        data.create(topic, 1);
        try (var producer = data.producer(Map.of())) {
            Data.produce(producer, topic, 0, Sent.sample(100, 5));
        }
        var cluster = admin.describeCluster();
        ClientTest.expect("nodes", get(cluster.nodes()).size(), 1);
        ClientTest.expect("cluster id is empty", get(cluster.clusterId()).isEmpty(), false);
        var features = get(admin.describeFeatures().featureMetadata()).finalizedFeatures();
        ClientTest.expect("group.version", (int) features.get("group.version").maxVersionLevel(), 1);
        int broker = get(cluster.controller()).id();
        var dirs = get(admin.describeLogDirs(List.of(broker)).allDescriptions()).get(broker);
        var held = dirs.values().stream().map(dir -> dir.replicaInfos().get(new TopicPartition(topic, 0)));
        long size = held.filter(replica -> replica != null).mapToLong(replica -> replica.size()).sum();
        ClientTest.expect("the log directory holds " + size + " bytes", size > 10_000, true);
    }

    private void alter(ConfigResource resource, String name, String value, AlterConfigOp.OpType how) throws Exception {
        Collection<AlterConfigOp> changes = List.of(new AlterConfigOp(new ConfigEntry(name, value), how));
        get(admin.incrementalAlterConfigs(Map.of(resource, changes)).all());
    }

    private Config configs(ConfigResource resource) throws Exception {
        return get(admin.describeConfigs(List.of(resource)).all()).get(resource);
    }

    private TopicDescription describe(String topic) throws Exception {
        return get(admin.describeTopics(List.of(topic)).topicNameValues().get(topic));
    }

    private long offset(TopicPartition place, OffsetSpec which) throws Exception {
        return get(admin.listOffsets(Map.of(place, which)).partitionResult(place)).offset();
    }

    private static <T> T get(KafkaFuture<T> future) throws Exception {
        return future.get(60, TimeUnit.SECONDS);
    }

    private static Class<?> failure(ClientTest.Body body) throws Exception {
        try {
            body.run();
            return null;
        } catch (ExecutionException error) {
            return error.getCause().getClass();
        }
    }
}
