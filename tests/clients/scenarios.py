"""The scenarios that every client runs but Java's, over one small interface that each client fills in."""

from __future__ import annotations

import random
import signal
import sys
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import groups
from harness.table import Result, attempt, eventually, expect
from harness.wire import CODECS, Wire
from seat import Membership

__all__ = ["Client", "Membership", "Sent", "eventually", "expect", "main", "results"]

BASE_TIME = 1_600_000_000_000
LINGER_MS = 500
"""How long a producer gathers, until it is flushed: a batch that does not shrink is sent without compression."""
Headers = tuple[tuple[str, bytes | None], ...]


@dataclass(frozen=True)
class Sent:
    """A record as it is sent, and as it must come back."""

    key: bytes | None
    value: bytes | None
    headers: Headers = ()
    timestamp: int = BASE_TIME


class Client(ABC):
    """A client under test, on one broker. Reading is by assignment; members of groups are programs of their own."""

    sends_nothing = True
    """Whether the client can send a record without key and value, and a header without value."""
    assignor = "range"
    """One of the assignors that its members know."""
    program: tuple[str, ...]
    """The command that runs as a member; see `groups.py`."""
    quits_on: signal.Signals | None = None
    """The signal that makes it leave, if not the end of its standard input."""

    def __init__(self, bootstrap: str) -> None:
        self.bootstrap = bootstrap

    @abstractmethod
    def create_topic(self, topic: str, partitions: int) -> None: ...

    @abstractmethod
    def produce(self, topic: str, records: list[tuple[int, Sent]], codec: str, idempotent: bool) -> list[int]:
        """Send (partition, record) pairs with acks=all; the acknowledged offsets, in order."""

    @abstractmethod
    def read(self, topic: str, partition: int, start: int, count: int) -> list[Sent]:
        """Exactly `count` records from an offset on."""

    @abstractmethod
    def offset_for_time(self, topic: str, partition: int, timestamp: int) -> int | None:
        """The first offset whose timestamp is at or after; None behind the last record."""

    @abstractmethod
    def bounds(self, topic: str, partition: int) -> tuple[int, int]:
        """Log start and end."""

    @abstractmethod
    def refused_as_too_large(self, topic: str, value: bytes) -> bool:
        """Whether the broker (not the client) refuses this value as too large."""

    @abstractmethod
    def administer(self, topic: str) -> None:
        """Create, describe, alter, grow and delete a topic; asserts what it sees."""

    @abstractmethod
    def groups(self) -> list[str]:
        """The ids of all groups."""

    @abstractmethod
    def described(self, group: str) -> tuple[str, int]:
        """A group's state, in small letters, and how many members it has."""

    @abstractmethod
    def committed(self, group: str, topic: str, partition: int) -> int: ...

    @abstractmethod
    def delete_group(self, group: str) -> None: ...


def sample(count: int, seed: int = 1, nothing: bool = True) -> list[Sent]:
    """Records with every shape of key, value and headers that the format knows."""
    draw = random.Random(seed)
    words = [draw.randbytes(draw.randint(3, 9)) for _ in range(50)]

    def one(n: int) -> Sent:
        key = None if n % 5 == 0 else b"" if n % 11 == 0 else b"key-%d" % n
        value = None if n % 7 == 3 else b"" if n % 13 == 5 else b"".join(draw.choices(words, k=60))
        if key is None and value is None and not nothing:
            value = b"something"
        last = ("null", None if nothing else b"not null")
        headers: Headers = (("a", b"\x00\xff%d" % n), ("a", b"again"), ("empty", b""), last)
        return Sent(key, value, headers[: n % 5], BASE_TIME + n * 1000)

    return [one(n) for n in range(count)]


def create(client: Client, topic: str, partitions: int) -> None:
    """Create a topic, and wait for its leaders: not every client does before it sends."""
    client.create_topic(topic, partitions)
    with Wire(client.bootstrap) as wire:
        wire.wait_served(topic, partitions)


def round_trip(client: Client, topic: str, codec: str) -> dict[str, str]:
    """All shapes of records, byte-identical after the way through the broker."""
    create(client, topic, 2)
    sent = {0: sample(700, 1, client.sends_nothing), 1: sample(300, 2, client.sends_nothing)}
    pairs = [(place, record) for place, records in sent.items() for record in records]
    offsets = client.produce(topic, pairs, codec, idempotent=False)
    expect("acknowledged offsets", offsets, [*range(700), *range(300)])
    for place, records in sent.items():
        got = client.read(topic, place, 0, len(records))
        for offset, (was, now) in enumerate(zip(records, got, strict=True)):
            expect(f"record {offset} of partition {place}", now, was)
    return {topic: codec}


def seek_by_time(client: Client, topic: str) -> None:
    """A timestamp finds its record, a gap the next one, the future none."""
    create(client, topic, 1)
    sent = sample(500, 3, client.sends_nothing)
    client.produce(topic, [(0, record) for record in sent], "none", idempotent=False)
    for timestamp, offset in ((BASE_TIME, 0), (BASE_TIME + 100_000, 100), (BASE_TIME + 99_001, 100), (0, 0)):
        expect(f"offset at {timestamp}", client.offset_for_time(topic, 0, timestamp), offset)
    expect("offset in the future", client.offset_for_time(topic, 0, BASE_TIME + 10_000_000), None)
    expect("bounds", client.bounds(topic, 0), (0, 500))
    expect("from the middle", client.read(topic, 0, 250, 250), sent[250:])


def idempotent(client: Client, topic: str) -> None:
    """An idempotent producer's batches carry its id and a gapless sequence, each record once and in order."""
    create(client, topic, 1)
    sent = [Sent(b"k", b"%d" % n) for n in range(5000)]
    client.produce(topic, [(0, record) for record in sent], "none", idempotent=True)
    expect("records", client.read(topic, 0, 0, len(sent)), sent)
    expected = 0
    with Wire(client.bootstrap) as wire:
        for batch in wire.stored(topic, 0):
            if batch.producer_id < 0:
                raise AssertionError(f"the batch at {batch.base_offset} has no producer id")
            expect("base sequence", batch.base_sequence, expected)
            expected += batch.records


def large_values(client: Client, topic: str) -> None:
    """Values close to the limit pass whole; one beyond it is refused by the broker, and the topic goes on."""
    create(client, topic, 1)
    sent = [Sent(None, random.Random(n).randbytes(900_000)) for n in range(8)]
    client.produce(topic, [(0, record) for record in sent], "none", idempotent=True)
    expect("records", client.read(topic, 0, 0, len(sent)), sent)
    expect("refused as too large", client.refused_as_too_large(topic, bytes(2_000_000)), True)
    client.produce(topic, [(0, sent[0])], "none", idempotent=True)
    expect("after the refusal", client.read(topic, 0, 8, 1), sent[:1])


def many_partitions(client: Client, topic: str) -> None:
    """Records reach the partition that was named, of 64."""
    create(client, topic, 64)
    pairs = [(place, Sent(b"%d" % place, b"%d" % n)) for n in range(20) for place in range(64)]
    client.produce(topic, pairs, "lz4", idempotent=True)
    for place in range(64):
        wanted = [Sent(b"%d" % place, b"%d" % n) for n in range(20)]
        expect(f"partition {place}", client.read(topic, place, 0, 20), wanted)


def administer_groups(client: Client, topic: str) -> None:
    """List and describe a group with a member and without, see how far it has come, delete it."""

    def command(group: str, topic: str, assignor: str, instance: str) -> list[str]:
        return [*client.program, "member", client.bootstrap, group, topic, assignor, instance]

    program, way = groups.Program(command, client.quits_on), groups.Way(client.assignor)
    with groups.Group(client.bootstrap, program, way, topic, 1) as group:
        name = f"{topic}-g"
        group.produce(10)
        member = group.join()
        group.all_read()
        expect("with a member", client.described(name), ("stable", 1))
        member.stop()
        expect("without", client.described(name), ("empty", 0))
    expect("listed", name in client.groups(), True)
    expect("committed", client.committed(name, topic, 0), 10)
    client.delete_group(name)
    expect("still listed", name in client.groups(), False)


def results(client: Client, name: str) -> Iterator[Result]:
    """Run every scenario on topics of its own."""
    prefix = f"{name}-{time.time_ns():x}"
    scenarios: dict[str, Callable[[], dict[str, str] | None]] = {
        f"round trip, {codec}": partial(round_trip, client, f"{prefix}-{codec}", codec) for codec in CODECS
    }
    scenarios["seek by time"] = partial(seek_by_time, client, f"{prefix}-time")
    scenarios["idempotent"] = partial(idempotent, client, f"{prefix}-idempotent")
    scenarios["large values"] = partial(large_values, client, f"{prefix}-large")
    scenarios["64 partitions"] = partial(many_partitions, client, f"{prefix}-many")
    scenarios["admin"] = partial(client.administer, f"{prefix}-admin")
    scenarios["admin: groups"] = partial(administer_groups, client, f"{prefix}-groups")
    for scenario, body in scenarios.items():
        yield attempt(scenario, body)


def main(client: type[Client], name: str, member: Callable[[Membership], None]) -> None:
    """The entry of a Python client's program: its scenarios, a result line each, or one member of a group."""
    match sys.argv[1:]:
        case ["member", *about]:
            member(Membership(*about))
        case [bootstrap]:
            for result in results(client(bootstrap), name):
                print(result.line(), flush=True)
        case other:
            sys.exit(f"cannot be run with {other}")
