"""Asks every broker for the leaders of a topic, on and on: what clients are told while brokers come and go."""

from __future__ import annotations

import threading
import time
from dataclasses import dataclass, field

from .cluster import Cluster
from .routes import Routes

EVERY_SECONDS = 0.1


@dataclass
class Told:
    """What one broker told at one moment."""

    at: float
    leaders: dict[int, int]
    epochs: dict[int, int]


@dataclass
class Watch:
    """Runs in a thread for each broker, until stopped."""

    cluster: Cluster
    topic: str
    partitions: int
    wrong: list[str] = field(default_factory=list)

    def start(self) -> Watch:
        self.told: dict[int, list[Told]] = {number: [] for number in self.cluster.ids}
        self.stopping = threading.Event()
        self.threads = [threading.Thread(target=self.run, args=(number,), daemon=True) for number in self.cluster.ids]
        for thread in self.threads:
            thread.start()
        return self

    def run(self, number: int) -> None:
        epochs: dict[int, int] = {}
        while not self.stopping.is_set():
            try:
                with Routes(self.cluster.brokers[number].bootstrap, timeout=2.0) as routes:
                    while not self.stopping.wait(EVERY_SECONDS):
                        self.look(number, routes, epochs)
            except OSError:
                self.stopping.wait(EVERY_SECONDS)

    def look(self, number: int, routes: Routes, epochs: dict[int, int]) -> None:
        view = routes.view(self.topic)
        told = Told(time.monotonic(), view.leaders(), {at: part.epoch for at, part in view.parts.items() if part.code == 0})
        self.wrong += [f"leader-epoch-regress: broker {number} tells {back}" for back in went_back(epochs, told.epochs)]
        self.told[number].append(told)

    def until_led(self, partition: int, begin: float, end: float) -> float | None:
        """How long after `begin` somebody told a leader of a higher epoch than anybody had told before; none if nobody did until `end`."""
        before = max((told.epochs.get(partition, 0) for all in self.told.values() for told in all if told.at < begin), default=0)
        after = [
            told.at
            for all in self.told.values()
            for told in all
            if begin <= told.at <= end and partition in told.leaders and told.epochs[partition] > before
        ]
        return min(after) - begin if after else None

    def incomplete(self, begin: float, end: float) -> dict[int, str]:
        """For each broker: how long, from a moment on, it left out leaders, and of how many partitions at most."""
        found = {}
        for number, answers in self.told.items():
            short = [told for told in answers if begin <= told.at <= end and len(told.leaders) < self.partitions]
            if short:
                most = self.partitions - min(len(told.leaders) for told in short)
                found[number] = f"{most} at most, from {short[0].at - begin:+.1f} to {short[-1].at - begin:+.1f} s"
        return found

    def stop(self) -> None:
        self.stopping.set()
        for thread in self.threads:
            thread.join(5)


def went_back(highest: dict[int, int], epochs: dict[int, int]) -> list[str]:
    """Leader epochs that are lower than one that was told before; takes note of those that are higher."""
    wrong = []
    for partition, epoch in epochs.items():
        if epoch < highest.get(partition, 0):
            wrong.append(f"epoch {epoch} of partition {partition}, after {highest[partition]}")
        highest[partition] = max(epoch, highest.get(partition, 0))
    return wrong
