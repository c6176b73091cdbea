"""How long single records take to be acknowledged: a few a second to every partition, whatever happens.

Needs confluent-kafka: scripts call `programs.enter_python()` before they import this.
"""

from __future__ import annotations

import threading
import time

from confluent_kafka import Producer

from .gaps import percentile


class Latency:
    """Sends records at a fixed pace until stopped, and keeps when each was sent and how long its acknowledgement took."""

    HEAD = ("produce, ms from send to ack", "records", "p50", "p99", "max")

    def __init__(self, bootstrap: str, topic: str, partitions: int, a_second: float) -> None:
        config = {"bootstrap.servers": bootstrap, "acks": "all", "enable.idempotence": True, "linger.ms": 0, "message.timeout.ms": 0}
        config |= {"retry.backoff.ms": 20, "reconnect.backoff.max.ms": 200, "log_level": 0}
        self.producer, self.topic, self.partitions = Producer(config), topic, partitions
        self.pause = 1 / a_second
        self.taken: list[tuple[float, float]] = []
        self.stopping = threading.Event()
        self.thread = threading.Thread(target=self.run, daemon=True)

    def start(self) -> Latency:
        self.thread.start()
        return self

    def run(self) -> None:
        due, number = time.monotonic(), 0
        while not self.stopping.is_set():
            self.send(number % self.partitions)
            number += 1
            due += self.pause
            while (left := due - time.monotonic()) > 0:
                self.producer.poll(left)
        self.producer.flush(30)

    def send(self, partition: int) -> None:
        began = time.monotonic()

        def delivered(error: object, _message: object) -> None:
            if error is None:
                self.taken.append((began, time.monotonic() - began))

        self.producer.produce(self.topic, b"x" * 200, partition=partition, on_delivery=delivered)
        self.producer.poll(0)

    def row(self, name: str, begin: float, end: float) -> tuple[object, ...]:
        """What was sent in that span took."""
        millis = [took * 1000 for sent, took in list(self.taken) if begin <= sent < end]
        if not millis:
            raise AssertionError(f"nothing was acknowledged {name}")
        return name, len(millis), *(f"{percentile(millis, part):.1f}" for part in (0.5, 0.99, 1.0))

    def stop(self) -> None:
        self.stopping.set()
        self.thread.join(40)
