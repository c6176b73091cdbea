"""Reads a topic as a consumer does, and compares what it holds with what was acknowledged.

Needs confluent-kafka: scripts call `programs.enter_python()` before they import this.
"""

from __future__ import annotations

import threading
import time
from array import array
from collections import Counter
from dataclasses import dataclass, field

from confluent_kafka import Consumer, KafkaError, KafkaException, TopicPartition

from .load import SEQUENCE_BITS, UNACKED, Ledger, identity
from .routes import Routes
from .wire import EARLIEST, LATEST

STUCK_SECONDS = 60.0
PASSING = (KafkaError._TRANSPORT, KafkaError._ALL_BROKERS_DOWN, KafkaError._TIMED_OUT, KafkaError._RESOLVE)
"""What a consumer reports while a broker is away."""
Holding = list[array]
"""For each partition, by offset from 0: which record is there."""


class Reader:
    """A consumer by assignment from offset 0 of every partition, which checks each record's content."""

    def __init__(self, bootstrap: str, topic: str, partitions: int) -> None:
        config = {
            "bootstrap.servers": bootstrap,
            "group.id": "by-assignment",
            "enable.auto.commit": False,
            "auto.offset.reset": "error",
            "check.crcs": True,
            "reconnect.backoff.max.ms": 200,
            "log_level": 0,
        }
        self.consumer = Consumer(config)
        self.consumer.assign([TopicPartition(topic, partition, 0) for partition in range(partitions)])
        self.errors: Counter[str] = Counter()
        self.held: Holding = [array("Q") for _ in range(partitions)]

    def poll(self) -> None:
        for message in self.consumer.consume(2000, 0.2):
            if error := message.error():
                self.errors[f"partition {message.partition()}: {error.str()}"] += 1
                if error.retriable() or error.code() in PASSING:
                    continue
                raise KafkaException(error)
            held = self.held[message.partition()]
            if message.offset() != len(held):
                place = f"partition {message.partition()}"
                raise AssertionError(f"poll-skip: {place} goes from offset {len(held) - 1} to {message.offset()}")
            held.append(identity(message.value(), message.partition()))

    def read_to(self, ends: list[int]) -> Holding:
        """Read on to these ends; raises when no record has come for a while."""
        count, since = 0, time.monotonic()
        while any(len(held) < end for held, end in zip(self.held, ends, strict=True)):
            self.poll()
            read = [len(held) for held in self.held]
            if sum(read) > count:
                count, since = sum(read), time.monotonic()
            elif time.monotonic() - since > STUCK_SECONDS:
                raise TimeoutError(f"read {read} of {ends}; errors seen: {dict(self.errors)}")
        return self.held

    def close(self) -> None:
        self.consumer.close()


def ends(bootstrap: str, topic: str, partitions: int) -> list[int]:
    with Routes(bootstrap) as routes:
        return [routes.offset(topic, partition, LATEST) for partition in range(partitions)]


def starts(bootstrap: str, topic: str, partitions: int) -> list[int]:
    with Routes(bootstrap) as routes:
        return [routes.offset(topic, partition, EARLIEST) for partition in range(partitions)]


def scan(bootstrap: str, topic: str, partitions: int) -> Holding:
    """Everything the topic holds now."""
    reader = Reader(bootstrap, topic, partitions)
    try:
        return reader.read_to(ends(bootstrap, topic, partitions))
    finally:
        reader.close()


class Tail:
    """A reader in a thread of its own that follows the topic through every restart."""

    def __init__(self, bootstrap: str, topic: str, partitions: int) -> None:
        self.reader = Reader(bootstrap, topic, partitions)
        self.stopping = threading.Event()
        self.failure: Exception | None = None
        self.thread = threading.Thread(target=self.run, daemon=True)
        self.thread.start()

    def run(self) -> None:
        try:
            while not self.stopping.is_set():
                self.reader.poll()
        except Exception as failure:
            self.failure = failure

    def finish(self, upto: list[int]) -> Holding:
        """Read on to these ends; what it recorded."""
        self.stopping.set()
        self.thread.join()
        if self.failure:
            raise self.failure
        try:
            return self.reader.read_to(upto)
        finally:
            self.reader.close()


@dataclass
class Verdict:
    """How often each invariant was broken; all zero is what must be."""

    acked: int = 0
    stored: int = 0
    broken: dict[str, int] = field(default_factory=dict)
    examples: list[str] = field(default_factory=list)

    def count(self, invariant: str, example: str) -> None:
        self.broken[invariant] = self.broken.get(invariant, 0) + 1
        if self.broken[invariant] <= 3:
            self.examples.append(f"{invariant}: {example}")

    def __str__(self) -> str:
        named = ("lost-write", "duplicate", "reordered")
        counts = {name: self.broken.get(name, 0) for name in named} | self.broken
        text = ", ".join(f"{name} {count}" for name, count in counts.items())
        return "\n  ".join([f"{self.acked} acked, {self.stored} stored: {text}", *self.examples])


def judge(ledger: Ledger, held: Holding, tail: Holding | None = None) -> Verdict:
    """Compare a ledger with what a scan found, and with what a tailing reader recorded."""
    verdict = Verdict(ledger.acked, sum(len(records) for records in held))
    for partition, records in enumerate(held):
        judge_order(verdict, ledger, partition, records)
    for (producer, partition), offsets in ledger.offsets.items():
        judge_acknowledged(verdict, producer, partition, offsets, held[partition])
    if tail is not None:
        for partition, (seen, records) in enumerate(zip(tail, held, strict=True)):
            if seen != records:
                at = next((n for n, (a, b) in enumerate(zip(seen, records, strict=False)) if a != b), "the end")
                verdict.count("inconsistent-offset", f"the tailing reader of {partition} differs from offset {at} on")
    return verdict


def judge_order(verdict: Verdict, ledger: Ledger, partition: int, records: array) -> None:
    """Each producer's records come once and in the order sent, and were sent at all."""
    last: dict[int, int] = {}
    seen = set()
    for offset, record in enumerate(records):
        producer, sequence = record >> SEQUENCE_BITS, record & (1 << SEQUENCE_BITS) - 1
        place = f"producer {producer}, sequence {sequence} at {partition}:{offset}"
        if record in seen:
            verdict.count("duplicate", place)
        elif sequence < last.get(producer, -1):
            verdict.count("reordered", place)
        elif sequence >= len(ledger.offsets.get((producer, partition), ())):
            verdict.count("phantom", place)
        seen.add(record)
        last[producer] = max(sequence, last.get(producer, -1))


def judge_acknowledged(verdict: Verdict, producer: int, partition: int, offsets: array, records: array) -> None:
    """Each acknowledged record is there, and where the acknowledgement said."""
    present = {record & (1 << SEQUENCE_BITS) - 1 for record in records if record >> SEQUENCE_BITS == producer}
    for sequence, offset in enumerate(offsets):
        if offset == UNACKED:
            continue
        place = f"producer {producer}, sequence {sequence}, acked at {partition}:{offset}"
        if sequence not in present:
            verdict.count("lost-write", place)
        elif offset >= 0 and records[offset] != producer << SEQUENCE_BITS | sequence:
            verdict.count("inconsistent-offset", place)
