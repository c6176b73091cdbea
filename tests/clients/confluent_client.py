"""confluent-kafka (librdkafka) against one broker: confluent_client.py BOOTSTRAP"""

from __future__ import annotations

import sys
import time

import scenarios
from confluent_kafka import (
    TIMESTAMP_CREATE_TIME,
    Consumer,
    KafkaError,
    KafkaException,
    Message,
    Producer,
    TopicPartition,
)
from confluent_kafka.admin import (
    AdminClient,
    AlterConfigOpType,
    ConfigEntry,
    ConfigResource,
    NewPartitions,
    NewTopic,
    OffsetSpec,
    ResourceType,
    TopicMetadata,
)
from scenarios import Sent, eventually, expect

WAIT_SECONDS = 60.0


def value_of(futures: dict) -> object:
    """The one result of an admin call."""
    (future,) = futures.values()
    return future.result(WAIT_SECONDS)


class Confluent(scenarios.Client):
    def __init__(self, bootstrap: str) -> None:
        super().__init__(bootstrap)
        self.admin = AdminClient({"bootstrap.servers": bootstrap})

    def create_topic(self, topic: str, partitions: int) -> None:
        value_of(self.admin.create_topics([NewTopic(topic, partitions)]))

    def produce(self, topic: str, records: list[tuple[int, Sent]], codec: str, idempotent: bool) -> list[int]:
        options = {"compression.type": codec, "enable.idempotence": idempotent, "linger.ms": 50, "acks": "all"}
        producer = Producer({"bootstrap.servers": self.bootstrap, **options})
        producer.list_topics(topic, WAIT_SECONDS)
        acked: dict[int, int] = {}

        def delivered(n: int, error: KafkaError | None, message: Message) -> None:
            if error:
                raise KafkaException(error)
            acked[n] = message.offset()

        for n, (partition, record) in enumerate(records):
            producer.produce(
                topic,
                record.value,
                record.key,
                partition,
                on_delivery=lambda error, message, n=n: delivered(n, error, message),
                timestamp=record.timestamp,
                headers=list(record.headers),
            )
        expect("left in the producer", producer.flush(WAIT_SECONDS), 0)
        return [acked[n] for n in range(len(records))]

    def consumer(self) -> Consumer:
        options = {"group.id": "by-assignment", "enable.auto.commit": False, "check.crcs": True}
        return Consumer({"bootstrap.servers": self.bootstrap, "enable.partition.eof": True, **options})

    def read(self, topic: str, partition: int, start: int, count: int) -> list[Sent]:
        consumer, got = self.consumer(), []
        consumer.assign([TopicPartition(topic, partition, start)])
        while len(got) < count:
            message = consumer.poll(WAIT_SECONDS)
            if message is None:
                raise TimeoutError(f"{len(got)} of {count} records")
            if message.error():
                raise KafkaException(message.error())
            expect("offset", message.offset(), start + len(got))
            kind, timestamp = message.timestamp()
            expect("kind of timestamp", kind, TIMESTAMP_CREATE_TIME)
            got.append(Sent(message.key(), message.value(), tuple(message.headers() or ()), timestamp))
        consumer.close()
        return got

    def member(self, group: str) -> Consumer:
        options = {"group.id": group, "enable.auto.commit": False, "auto.offset.reset": "earliest"}
        return Consumer({"bootstrap.servers": self.bootstrap, "session.timeout.ms": 10_000, **options})

    def read_as_member(self, group: str, topic: str, count: int) -> list[tuple[int, int]]:
        consumer, got = self.member(group), []
        consumer.subscribe([topic])
        while len(got) < count:
            message = consumer.poll(WAIT_SECONDS)
            if message is None:
                raise TimeoutError(f"{len(got)} of {count} records")
            if message.error():
                raise KafkaException(message.error())
            got.append((message.partition(), message.offset()))
        consumer.commit(asynchronous=False)
        consumer.close()
        return got

    def share_out(self, group: str, topic: str) -> list[int]:
        members = [self.member(group), self.member(group)]
        for member in members:
            member.subscribe([topic])
        until = time.monotonic() + WAIT_SECONDS
        while not all(member.assignment() for member in members) and time.monotonic() < until:
            for member in members:
                member.poll(0.1)
        shares = [len(member.assignment()) for member in members]
        for member in members:
            member.close()
        return shares

    def offset_for_time(self, topic: str, partition: int, timestamp: int) -> int | None:
        consumer = self.consumer()
        (found,) = consumer.offsets_for_times([TopicPartition(topic, partition, timestamp)], WAIT_SECONDS)
        consumer.close()
        if found.error:
            raise KafkaException(found.error)
        return found.offset if found.offset >= 0 else None

    def bounds(self, topic: str, partition: int) -> tuple[int, int]:
        consumer = self.consumer()
        low, high = consumer.get_watermark_offsets(TopicPartition(topic, partition), WAIT_SECONDS)
        consumer.close()
        return low, high

    def refused_as_too_large(self, topic: str, value: bytes) -> bool:
        producer = Producer({"bootstrap.servers": self.bootstrap, "message.max.bytes": 10_000_000})
        codes: list[int] = []
        producer.produce(topic, value, on_delivery=lambda error, _: codes.append(error.code() if error else 0))
        producer.flush(WAIT_SECONDS)
        return codes == [KafkaError.MSG_SIZE_TOO_LARGE]

    def administer(self, topic: str) -> None:
        created = NewTopic(topic, 2, config={"retention.ms": "123456789000000"})
        value_of(self.admin.create_topics([created]))
        try:
            value_of(self.admin.create_topics([created]))
            raise AssertionError("a topic was created twice")
        except KafkaException as error:
            expect("creating it again", error.args[0].code(), KafkaError.TOPIC_ALREADY_EXISTS)
        value_of(self.admin.create_partitions([NewPartitions(topic, 5)]))
        eventually("partitions", lambda: sorted(self.listed()[topic].partitions), [0, 1, 2, 3, 4])
        self.alter_config(topic)
        self.move_log_start(topic)
        cluster = self.admin.describe_cluster().result(WAIT_SECONDS)
        expect("nodes", len(cluster.nodes), 1)
        value_of(self.admin.delete_topics([topic]))
        eventually("still listed", lambda: topic in self.listed(), False)

    def listed(self) -> dict[str, TopicMetadata]:
        return self.admin.list_topics(timeout=WAIT_SECONDS).topics

    def alter_config(self, topic: str) -> None:
        kept = ConfigEntry("retention.ms", "765432100000000", incremental_operation=AlterConfigOpType.SET)
        resource = ConfigResource(ResourceType.TOPIC, topic, incremental_configs=[kept])
        value_of(self.admin.incremental_alter_configs([resource]))
        configs = value_of(self.admin.describe_configs([ConfigResource(ResourceType.TOPIC, topic)]))
        expect("retention.ms", configs["retention.ms"].value, "765432100000000")
        expect("cleanup.policy", configs["cleanup.policy"].value, "delete")

    def move_log_start(self, topic: str) -> None:
        self.produce(topic, [(3, Sent(None, b"x"))] * 10, "none", idempotent=False)
        self.admin.delete_records([TopicPartition(topic, 3, 4)])[TopicPartition(topic, 3, 4)].result(WAIT_SECONDS)
        expect("bounds", self.bounds(topic, 3), (4, 10))
        found = value_of(self.admin.list_offsets({TopicPartition(topic, 3): OffsetSpec.earliest()}))
        expect("earliest", found.offset, 4)


if __name__ == "__main__":
    scenarios.run(Confluent(sys.argv[1]), "confluent-kafka")
