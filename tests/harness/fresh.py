"""Asks every broker for the ends of all partitions, on and on: whoever answers must know of everything that was acknowledged before it was asked."""

from __future__ import annotations

import bisect
import struct
import threading
import time
from array import array
from dataclasses import dataclass, field

from .cluster import Cluster
from .load import Load
from .wire import FETCH, LATEST, LIST_OFFSETS, OFFSET_OUT_OF_RANGE, Wire, string

EVERY_SECONDS = 0.05
PATIENCE = 0.3
"""A request that is not answered is given up, so that the next one is asked late enough to see what a broker that comes to itself believes."""


@dataclass
class Answers:
    """What one broker has answered."""

    led: int = 0
    refused: int = 0
    silent: int = 0


@dataclass
class Fresh:
    """Runs in two threads for each broker, until stopped: one asks where partitions end, one reads there."""

    cluster: Cluster
    load: Load
    partitions: int
    wrong: list[str] = field(default_factory=list)

    def start(self) -> Fresh:
        self.answers = {(number, ask): Answers() for number in self.cluster.ids for ask in (list_offsets, fetch_ends)}
        self.stopping = threading.Event()
        self.threads = [threading.Thread(target=self.run, args=one, daemon=True) for one in self.answers]
        for thread in self.threads:
            thread.start()
        return self

    def run(self, number: int, ask) -> None:
        answers = self.answers[number, ask]
        while not self.stopping.is_set():
            try:
                with Wire(self.cluster.brokers[number].bootstrap, PATIENCE) as wire:
                    while not self.stopping.wait(EVERY_SECONDS):
                        self.look(number, ask, wire, answers)
            except (OSError, struct.error):
                answers.silent += 1
                self.stopping.wait(EVERY_SECONDS)

    def look(self, number: int, ask, wire: Wire, answers: Answers) -> None:
        ends = [self.end_at(partition, time.monotonic()) for partition in range(self.partitions)]
        asked = time.monotonic()
        for partition, (code, end) in ask(wire, self.load.topic, ends).items():
            if code not in (0, OFFSET_OUT_OF_RANGE):
                answers.refused += 1
                continue
            answers.led += 1
            if is_stale(code, end, ends[partition]):
                place = f"broker {number} answers {ask.__name__} of partition {partition} with {end} (error {code})"
                late = f"{ends[partition]} were acknowledged before it was asked, {time.monotonic() - asked:.3f} s before its answer"
                self.wrong.append(f"stale-read: {place}: {late} ({time.strftime('%H:%M:%S', time.gmtime())})")

    def end_at(self, partition: int, moment: float) -> int:
        """How far the partition was acknowledged by then."""
        return end_known(self.load.times[partition], self.load.ends[partition], moment)

    def stop(self) -> None:
        self.stopping.set()
        for thread in self.threads:
            thread.join(5)

    def __str__(self) -> str:
        told = [f"{n} {ask.__name__} {a.led}/{a.refused}/{a.silent}" for (n, ask), a in self.answers.items()]
        return f"asked for ends (broker, how, led/refused/silent): {', '.join(told)}"


def end_known(times: array, ends: array, moment: float) -> int:
    """How far a partition was acknowledged at a moment, given when each acknowledgement came, and how far it was then."""
    known = min(len(ends), bisect.bisect_right(times, moment))
    return ends[known - 1] if known else 0


def is_stale(code: int, end: int, acked: int) -> bool:
    """Whether an answer that is no refusal leaves out what was acknowledged before it was asked."""
    return code == OFFSET_OUT_OF_RANGE or end < acked


def list_offsets(wire: Wire, topic: str, ends: list[int]) -> dict[int, tuple[int, int]]:
    """ListOffsets: error code and end of each partition."""
    wanted = b"".join(struct.pack(">iq", partition, LATEST) for partition in range(len(ends)))
    body = struct.pack(">ii", -1, 1) + string(topic) + struct.pack(">i", len(ends)) + wanted
    answer = wire.request(LIST_OFFSETS, 1, body)
    answer.number("i")
    answer.string()
    found = {}
    for _ in range(answer.number("i")):
        partition, code, _, end = answer.take("ihqq")
        found[partition] = code, end
    return found


def fetch_ends(wire: Wire, topic: str, ends: list[int]) -> dict[int, tuple[int, int]]:
    """Fetch from what is known to be acknowledged, without waiting: error code and high watermark of each partition."""
    limits = struct.pack(">iiiib", -1, 0, 0, 1, 0)
    wanted = b"".join(struct.pack(">iqi", partition, end, 1) for partition, end in enumerate(ends))
    answer = wire.request(FETCH, 4, limits + struct.pack(">i", 1) + string(topic) + struct.pack(">i", len(ends)) + wanted)
    answer.number("i")
    found = {}
    for _ in range(answer.number("i")):
        answer.string()
        for _ in range(answer.number("i")):
            partition, code, end, _stable = answer.take("ihqq")
            answer.take(f"{max(answer.number('i'), 0) * 2}q")
            answer.bytes(answer.number("i"))
            found[partition] = code, end
    return found
