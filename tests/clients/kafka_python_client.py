"""kafka-python against one broker: kafka_python_client.py BOOTSTRAP"""

from __future__ import annotations

import sys
import time
from concurrent.futures import ThreadPoolExecutor

import scenarios
from kafka import KafkaAdminClient, KafkaConsumer, KafkaProducer, TopicPartition
from kafka.admin import ConfigResource, ConfigResourceType, NewPartitions, NewTopic
from kafka.errors import MessageSizeTooLargeError, TopicAlreadyExistsError
from scenarios import Sent, eventually, expect

WAIT_SECONDS = 60.0
CREATE_TIME = 0


class KafkaPython(scenarios.Client):
    sends_nothing = False

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
            linger_ms=50,
            compression_type=None if codec == "none" else codec,
            enable_idempotence=idempotent,
        )
        sends = [
            producer.send(topic, record.value, record.key, list(record.headers), partition, record.timestamp)
            for partition, record in records
        ]
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

    def member(self, group: str, topic: str) -> KafkaConsumer:
        return KafkaConsumer(
            topic,
            bootstrap_servers=self.bootstrap,
            group_id=group,
            enable_auto_commit=False,
            auto_offset_reset="earliest",
        )

    def read_as_member(self, group: str, topic: str, count: int) -> list[tuple[int, int]]:
        consumer, got, until = self.member(group, topic), [], time.monotonic() + WAIT_SECONDS
        while len(got) < count:
            if time.monotonic() > until:
                raise TimeoutError(f"{len(got)} of {count} records")
            polled = consumer.poll(timeout_ms=1000)
            got += [(record.partition, record.offset) for records in polled.values() for record in records]
        consumer.commit()
        consumer.close()
        return got

    def share_out(self, group: str, topic: str) -> list[int]:
        members = [self.member(group, topic), self.member(group, topic)]
        until = time.monotonic() + WAIT_SECONDS
        # Each must go on polling while the other joins.
        with ThreadPoolExecutor() as pool:

            def poll(member: KafkaConsumer) -> None:
                while not all(other.assignment() for other in members) and time.monotonic() < until:
                    member.poll(timeout_ms=100)

            list(pool.map(poll, members))
        shares = [len(member.assignment()) for member in members]
        for member in members:
            member.close()
        return shares

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


if __name__ == "__main__":
    scenarios.run(KafkaPython(sys.argv[1]), "kafka-python")
