"""confluent-kafka (librdkafka) against one broker: confluent_client.py BOOTSTRAP, or as a member (see `groups.py`)."""

from __future__ import annotations

import sys

import scenarios
from confluent_kafka import (
    TIMESTAMP_CREATE_TIME,
    Consumer,
    ConsumerGroupTopicPartitions,
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
from scenarios import LINGER_MS, Membership, Sent, eventually, expect
from seat import HEARTBEAT_MS, Seat

WAIT_SECONDS = 60.0
TRY_AGAIN = (KafkaError.REBALANCE_IN_PROGRESS, KafkaError.ILLEGAL_GENERATION, KafkaError.STALE_MEMBER_EPOCH)
"""What a commit in the middle of a rebalance may answer."""


def value_of(futures: dict) -> object:
    """The one result of an admin call."""
    (future,) = futures.values()
    return future.result(WAIT_SECONDS)


class Confluent(scenarios.Client):
    program = (sys.executable, __file__)

    def __init__(self, bootstrap: str) -> None:
        super().__init__(bootstrap)
        self.admin = AdminClient({"bootstrap.servers": bootstrap})

    def create_topic(self, topic: str, partitions: int) -> None:
        value_of(self.admin.create_topics([NewTopic(topic, partitions)]))

    def produce(self, topic: str, records: list[tuple[int, Sent]], codec: str, idempotent: bool) -> list[int]:
        options = {"compression.type": codec, "enable.idempotence": idempotent, "linger.ms": LINGER_MS, "acks": "all"}
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

    def groups(self) -> list[str]:
        listed = self.admin.list_consumer_groups().result(WAIT_SECONDS)
        expect("errors of the list", listed.errors, [])
        return [group.group_id for group in listed.valid]

    def described(self, group: str) -> tuple[str, int]:
        described = value_of(self.admin.describe_consumer_groups([group]))
        return described.state.name.lower(), len(described.members)

    def committed(self, group: str, topic: str, partition: int) -> int:
        asked = ConsumerGroupTopicPartitions(group, [TopicPartition(topic, partition)])
        (found,) = value_of(self.admin.list_consumer_group_offsets([asked])).topic_partitions
        return found.offset

    def delete_group(self, group: str) -> None:
        value_of(self.admin.delete_consumer_groups([group]))


def commit(consumer: Consumer, topic: str, seat: Seat) -> None:
    """Commit what was read, unless a rebalance is in its way: then a later call does."""
    if not seat.uncommitted:
        return
    try:
        offsets = [TopicPartition(topic, partition, offset) for partition, offset in seat.uncommitted.items()]
        consumer.commit(offsets=offsets, asynchronous=False)
        seat.uncommitted.clear()
    except KafkaException as error:
        if error.args[0].code() not in TRY_AGAIN:
            raise


def member(about: Membership) -> None:
    options = {"group.id": about.group, "enable.auto.commit": False, "auto.offset.reset": "earliest"}
    if about.assignor == "consumer":
        options["group.protocol"] = "consumer"
    else:
        options["partition.assignment.strategy"] = about.assignor
        options |= {"session.timeout.ms": about.session_ms, "heartbeat.interval.ms": HEARTBEAT_MS}
    if about.instance:
        options["group.instance.id"] = about.instance
    consumer, seat = Consumer({"bootstrap.servers": about.bootstrap, **options}), Seat()

    def given(_: Consumer, partitions: list[TopicPartition]) -> None:
        seat.given(place.partition for place in partitions)

    def taken(_: Consumer, partitions: list[TopicPartition]) -> None:
        commit(consumer, about.topic, seat)
        seat.taken(place.partition for place in partitions)

    consumer.subscribe([about.topic], on_assign=given, on_revoke=taken)
    while not seat.leaving.is_set() or seat.uncommitted:
        message = consumer.poll(0.1)
        if message and message.error():
            raise KafkaException(message.error())
        if message and not seat.leaving.is_set():
            seat.read(message.partition(), message.offset(), message.value())
        commit(consumer, about.topic, seat)
    consumer.close()


if __name__ == "__main__":
    scenarios.main(Confluent, "confluent-kafka", member)
