"""What every test here gets, and the brokers it may ask for."""

from __future__ import annotations

import contextlib
from dataclasses import dataclass
from pathlib import Path

from harness.brokers import Broker, Kafka, Ottla


@dataclass
class Context:
    """One test's surroundings: removed, in reverse order, when it ends."""

    home: Path
    rounds: int
    after: contextlib.ExitStack
    kind: str

    @property
    def of_kafka(self) -> bool:
        return self.kind == "kafka"

    def broker(self, data: Path, durable: bool = True) -> Broker:
        """A broker on a data directory, whose acknowledgements are durable or are not."""
        broker: Broker
        if self.of_kafka:
            broker = Kafka(data, fsync=durable)
        else:
            broker = Ottla(data / "data", broker_durability="fsync" if durable else "page-cache")
        self.after.callback(broker.remove)
        return broker

    def ottla(self, data: Path, **config: str) -> Ottla:
        if self.of_kafka:
            raise SystemExit("this test is about Ottla's own behaviour and cannot be run with Kafka")
        broker = Ottla(data, **config)
        self.after.callback(broker.remove)
        return broker
