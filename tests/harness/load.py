"""Idempotent acks=all load whose every record can be told from every other, and a ledger of what was acknowledged.

Needs confluent-kafka: scripts call `programs.enter_python()` before they import this.
"""

from __future__ import annotations

import random
import threading
import time
from array import array
from collections import Counter
from dataclasses import dataclass, field

from confluent_kafka import KafkaError, Message, Producer

SEQUENCE_BITS = 40
IN_FLIGHT = 4000
"""Records that a producer has sent and not seen acknowledged, at most."""
UNACKED = -1
FILLER = random.Random(0).randbytes(1 << 16)


def value(producer: int, partition: int, sequence: int) -> bytes:
    """The record's content: says which it is, then incompressible bytes of a length that varies."""
    at = sequence * 7919 % 60_000
    return b"%d:%d:%d:" % (producer, partition, sequence) + FILLER[at : at + 200 + at % 1600]


def identity(content: bytes, partition: int) -> int:
    """Which record this is, as one number; raises if any byte of it is not what was sent."""
    producer, named, sequence = (int(part) for part in content.split(b":", 3)[:3])
    if named != partition or content != value(producer, partition, sequence):
        raise ValueError(f"partition {partition} holds a record that nobody sent: {content[:40]!r}")
    return producer << SEQUENCE_BITS | sequence


@dataclass
class Ledger:
    """What one topic's producers sent, and the offset of each acknowledgement, by producer and partition."""

    offsets: dict[tuple[int, int], array] = field(default_factory=dict)
    acked: int = 0
    refused: list[str] = field(default_factory=list)
    """Deliveries that ended in an error: such a record may or may not be stored."""
    fatal: list[str] = field(default_factory=list)

    @property
    def sent(self) -> int:
        return sum(len(offsets) for offsets in self.offsets.values())


class Load:
    """Producers that write to all partitions of a topic until stopped, retrying for ever."""

    def __init__(
        self, bootstrap: str, topic: str, partitions: int, producers: int = 2, a_second: int | None = None
    ) -> None:
        """With `a_second`, each producer sends about that many records a second; else as many as are acknowledged."""
        self.topic, self.partitions = topic, partitions
        self.pause_seconds = partitions / a_second if a_second else 0.0
        self.ledger = Ledger()
        self.times = [array("d") for _ in range(partitions)]
        """When each acknowledgement came, by partition."""
        self.ends = [array("q") for _ in range(partitions)]
        """What came behind all that was acknowledged then."""
        self.lock = threading.Lock()
        self.stopping = threading.Event()
        self.abandoning = False
        config = {
            "bootstrap.servers": bootstrap,
            "enable.idempotence": True,
            "acks": "all",
            "linger.ms": 2,
            "message.timeout.ms": 0,
            "reconnect.backoff.max.ms": 200,
            "retry.backoff.ms": 50,
            "error_cb": self.on_error,
            "log_level": 0,
        }
        self.producers = {number: Producer(config) for number in range(producers)}
        self.threads = [threading.Thread(target=self.run, args=one, daemon=True) for one in self.producers.items()]

    def start(self) -> Load:
        for thread in self.threads:
            thread.start()
        return self

    def on_error(self, error: KafkaError) -> None:
        if error.fatal():
            self.ledger.fatal.append(error.str())

    def run(self, number: int, producer: Producer) -> None:
        logs = [array("q") for _ in range(self.partitions)]
        for partition, log in enumerate(logs):
            self.ledger.offsets[number, partition] = log
        while not self.stopping.is_set() and not self.ledger.fatal:
            if len(producer) >= IN_FLIGHT:
                producer.poll(0.01)
                continue
            for partition, log in enumerate(logs):
                self.send(producer, number, partition, log)
            self.rest(producer)
        while len(producer) and not self.abandoning and not self.ledger.fatal:
            producer.poll(0.1)

    def rest(self, producer: Producer) -> None:
        """Take acknowledgements until more may be sent."""
        until = time.monotonic() + self.pause_seconds
        producer.poll(0)
        while (left := until - time.monotonic()) > 0:
            producer.poll(left)

    def send(self, producer: Producer, number: int, partition: int, log: array) -> None:
        sequence = len(log)
        log.append(UNACKED)

        def delivered(error: KafkaError | None, message: Message) -> None:
            if error:
                self.ledger.refused.append(error.str())
            else:
                log[sequence] = message.offset()
                self.ledger.acked += 1
                with self.lock:
                    self.ends[partition].append(max([message.offset() + 1, *self.ends[partition][-1:]]))
                    self.times[partition].append(time.monotonic())

        producer.produce(self.topic, value(number, partition, sequence), partition=partition, on_delivery=delivered)

    def wait_acked(self, count: int, seconds: float) -> None:
        """Wait until the ledger holds that many acknowledgements."""
        deadline = time.monotonic() + seconds
        while self.ledger.acked < count:
            if self.ledger.fatal:
                raise AssertionError(f"a producer failed for good: {self.ledger.fatal[0]}")
            if time.monotonic() > deadline:
                raise TimeoutError(f"{self.ledger.acked} of {count} records acknowledged after {seconds:.0f} s")
            time.sleep(0.002)

    def finish(self, seconds: float = 120.0) -> Ledger:
        """Stop sending and wait until everything sent is acknowledged."""
        self.stopping.set()
        deadline = time.monotonic() + seconds
        for thread in self.threads:
            thread.join(max(0.0, deadline - time.monotonic()))
        if any(thread.is_alive() for thread in self.threads):
            self.abandon()
            raise TimeoutError(f"not acknowledged after {seconds:.0f} s: {self.left()} (records by partition)")
        return self.ledger

    def left(self) -> dict[int, int]:
        """How many records of each partition are not acknowledged, of those partitions where there are any."""
        counts = Counter[int]()
        for (_, partition), offsets in self.ledger.offsets.items():
            counts[partition] += offsets.count(UNACKED)
        return {partition: count for partition, count in sorted(counts.items()) if count}

    def abandon(self) -> Ledger:
        """Stop sending at once, and drop what is not acknowledged: nothing is sent after this returns."""
        self.abandoning = True
        self.stopping.set()
        for thread in self.threads:
            thread.join(10)
        for producer in self.producers.values():
            producer.purge()
            producer.flush(5)
        self.producers.clear()
        return self.ledger
