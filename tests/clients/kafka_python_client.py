"""kafka-python against one broker: kafka_python_client.py BOOTSTRAP, or as a member (see `groups.py`)."""

from __future__ import annotations

import signal
import sys

import scenarios
from kafka import (
    ConsumerRebalanceListener,
    KafkaAdminClient,
    KafkaConsumer,
    KafkaProducer,
    OffsetAndMetadata,
    TopicPartition,
)
from kafka.admin import ConfigResource, ConfigResourceType, NewPartitions, NewTopic
from kafka.consumer.fetcher import ConsumerRecord
from kafka.coordinator.assignors.cooperative_sticky import CooperativeStickyAssignor
from kafka.coordinator.assignors.range import RangePartitionAssignor
from kafka.errors import MessageSizeTooLargeError, RebalanceInProgressError, TopicAlreadyExistsError
from scenarios import LINGER_MS, Membership, Sent, eventually, expect
from seat import HEARTBEAT_MS, Seat

WAIT_SECONDS = 60.0
UNENDING_MS = 3_600_000
CREATE_TIME = 0
ASSIGNORS = {"range": RangePartitionAssignor, "cooperative-sticky": CooperativeStickyAssignor}


class KafkaPython(scenarios.Client):
    sends_nothing = False
    program = (sys.executable, __file__)
    quits_on = signal.SIGTERM

    def __init__(self, bootstrap: str) -> None:
        super().__init__(bootstrap)
        self.admin = KafkaAdminClient(bootstrap_servers=bootstrap)
        self.consumer = KafkaConsumer(bootstrap_servers=bootstrap, group_id=None, check_crcs=True)

    def create_topic(self, topic: str, partitions: int) -> None:
        self.admin.create_topics([NewTopic(topic, partitions, -1)])

    def produce(self, topic: str, records: list[tuple[int, Sent]], codec: str, idempotent: bool) -> list[int]:
        producer = KafkaProducer(
            bootstrap_servers=self.bootstrap,
            acks="all",
            linger_ms=LINGER_MS,
            compression_type=None if codec == "none" else codec,
            enable_idempotence=idempotent,
        )
        sends = [
            producer.send(topic, record.value, record.key, list(record.headers), partition, record.timestamp)
            for partition, record in records
        ]
        producer.flush(WAIT_SECONDS)
        offsets = [send.get(WAIT_SECONDS).offset for send in sends]
        producer.close()
        return offsets

    def read(self, topic: str, partition: int, start: int, count: int) -> list[Sent]:
        consumer, place, got = self.consumer, TopicPartition(topic, partition), []
        consumer.assign([place])
        consumer.seek(place, start)
        while len(got) < count:
            polled = consumer.poll(timeout_ms=int(WAIT_SECONDS * 1000))
            if not polled:
                raise TimeoutError(f"{len(got)} of {count} records")
            for record in polled[place]:
                expect("offset", record.offset, start + len(got))
                expect("kind of timestamp", record.timestamp_type, CREATE_TIME)
                got.append(Sent(record.key, record.value, tuple(record.headers), record.timestamp))
        return got[:count]

    def offset_for_time(self, topic: str, partition: int, timestamp: int) -> int | None:
        place = TopicPartition(topic, partition)
        found = self.consumer.offsets_for_times({place: timestamp})[place]
        return found.offset if found else None

    def bounds(self, topic: str, partition: int) -> tuple[int, int]:
        place = TopicPartition(topic, partition)
        return self.consumer.beginning_offsets([place])[place], self.consumer.end_offsets([place])[place]

    def refused_as_too_large(self, topic: str, value: bytes) -> bool:
        producer = KafkaProducer(bootstrap_servers=self.bootstrap, max_request_size=10_000_000)
        try:
            producer.send(topic, value).get(WAIT_SECONDS)
            return False
        except MessageSizeTooLargeError:
            return True
        finally:
            producer.close()

    def administer(self, topic: str) -> None:
        created = NewTopic(topic, 2, -1, topic_configs={"retention.ms": "1234567"})
        self.admin.create_topics([created])
        try:
            self.admin.create_topics([created])
            raise AssertionError("a topic was created twice")
        except TopicAlreadyExistsError:
            pass
        self.admin.create_partitions({topic: NewPartitions(5)})
        eventually("partitions", lambda: self.partitions(topic), [0, 1, 2, 3, 4])
        self.admin.alter_configs([ConfigResource(ConfigResourceType.TOPIC, topic, {"retention.ms": "7654321"})])
        self.move_log_start(topic)
        expect("the version of Kafka", self.admin.get_broker_version_data(1).broker_version, (4, 3))
        expect("brokers", len(self.admin.describe_cluster()["brokers"]), 1)
        self.admin.delete_topics([topic])
        eventually("still listed", lambda: topic in self.admin.list_topics(), False)

    def partitions(self, topic: str) -> list[int]:
        (described,) = self.admin.describe_topics([topic])
        return sorted(partition["partition_index"] for partition in described["partitions"])

    def move_log_start(self, topic: str) -> None:
        self.produce(topic, [(3, Sent(None, b"x"))] * 10, "none", idempotent=False)
        self.admin.delete_records({TopicPartition(topic, 3): 4})
        expect("bounds", self.bounds(topic, 3), (4, 10))

    def groups(self) -> list[str]:
        return [group["group_id"] for group in self.admin.list_groups()]

    def described(self, group: str) -> tuple[str, int]:
        described = self.admin.describe_groups([group])[group]
        return described["group_state"].lower(), len(described["members"])

    def committed(self, group: str, topic: str, partition: int) -> int:
        return self.admin.list_group_offsets({group: None})[group][TopicPartition(topic, partition)].offset

    def delete_group(self, group: str) -> None:
        self.admin.delete_groups([group])


class Listener(ConsumerRebalanceListener):
    def __init__(self, consumer: KafkaConsumer, topic: str) -> None:
        self.consumer, self.topic, self.seat = consumer, topic, Seat()

    def on_partitions_revoked(self, revoked: list[TopicPartition]) -> None:
        self.commit()
        self.seat.taken(place.partition for place in revoked)

    def on_partitions_assigned(self, assigned: list[TopicPartition]) -> None:
        self.seat.given(place.partition for place in assigned)

    def commit(self) -> None:
        """Commit what was read, unless a rebalance is in its way: then a later call does."""
        if not self.seat.uncommitted:
            return
        behind = {p: OffsetAndMetadata(offset, "", -1) for p, offset in self.seat.uncommitted.items()}
        try:
            self.consumer.commit({TopicPartition(self.topic, p): offset for p, offset in behind.items()})
            self.seat.uncommitted.clear()
        except RebalanceInProgressError:
            pass


class Leaving(Exception):
    """Raised inside a poll when it is time to leave."""


class Patience:
    """Polls without an end, until SIGTERM.

    A poll that gives up while the group is joined can lose what it was assigned (kafka-python 3.0.12): the assignment
    that comes between this poll and the next one is never looked at. So no poll gives up.
    """

    def __init__(self) -> None:
        self.polling = self.leaving = False
        signal.signal(signal.SIGTERM, self.leave)

    def leave(self, *_: object) -> None:
        self.leaving = True
        if self.polling:
            raise Leaving

    def poll(self, consumer: KafkaConsumer) -> list[ConsumerRecord]:
        try:
            self.polling = True
            if self.leaving:
                return []
            return [record for records in consumer.poll(UNENDING_MS, max_records=1).values() for record in records]
        except Leaving:
            return []
        finally:
            self.polling = False


def member(about: Membership) -> None:
    patience = Patience()
    consumer = KafkaConsumer(
        bootstrap_servers=about.bootstrap,
        group_id=about.group,
        group_instance_id=about.instance or None,
        enable_auto_commit=False,
        auto_offset_reset="earliest",
        session_timeout_ms=about.session_ms,
        heartbeat_interval_ms=HEARTBEAT_MS,
        partition_assignment_strategy=[ASSIGNORS[about.assignor]],
    )
    listener = Listener(consumer, about.topic)
    consumer.subscribe([about.topic], listener=listener)
    while not patience.leaving or listener.seat.uncommitted:
        for record in patience.poll(consumer):
            listener.seat.read(record.partition, record.offset, record.value)
        listener.commit()
    consumer.close()


if __name__ == "__main__":
    scenarios.main(KafkaPython, "kafka-python", member)
