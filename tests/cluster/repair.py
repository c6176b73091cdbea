"""Bits flipped on a broker's disk, under load: found by a start, a reader or the scrub, and mended with what the other replicas hold."""

from __future__ import annotations

import mmap
import os
import random
import re
import time
from dataclasses import dataclass
from pathlib import Path

from harness import check
from harness.brokers import Ottla
from harness.cluster import Cluster
from harness.load import Load
from harness.routes import Routes
from harness.table import eventually, expect

from .records import Settings, clock

TOPIC, PARTITIONS, REPLICAS = "kept", 4, 3
SEGMENT_BYTES = 1 << 20
HEADER_BYTES = 61
BLOCK = 4096
"""What is written past the page cache comes in blocks."""
MENDED = "a damaged range is whole again"
MEND_SECONDS = 60.0
SCRUB_FAST = str(64 << 20)
INDEX_DIGITS = re.compile(r"^(\d{20})-(\d{20})-(\d{10})\.log$")


def say(what: str) -> None:
    print(f"{clock()} {what}", flush=True)


def segments(broker: Ottla, partition: int) -> list[Path]:
    """The files of a partition of the topic, oldest first: its directory is the one that holds most."""
    topics = [path for path in (broker.data_dir / "topics").iterdir() if (path / str(PARTITIONS - 1)).is_dir()]
    sizes = {path: sum(file.stat().st_size for file in path.rglob("*.log")) for path in topics if len(list(path.iterdir())) == PARTITIONS}
    topic = max(sizes, key=lambda path: sizes[path])
    return sorted(path for path in (topic / str(partition)).iterdir() if INDEX_DIGITS.match(path.name))


def flip(file: Path, position: int, bit: int) -> None:
    """Flip a bit on the device: written past the page cache, of which the kernel drops what it held of the block."""
    descriptor = os.open(file, os.O_RDWR | os.O_DIRECT)
    try:
        start = position // BLOCK * BLOCK
        block = mmap.mmap(-1, BLOCK)
        read = os.preadv(descriptor, [block], start)
        expect("bytes read of a whole block", read, BLOCK)
        block[position - start] ^= 1 << bit
        expect("bytes written", os.pwritev(descriptor, [block], start), BLOCK)
    finally:
        os.close(descriptor)


@dataclass
class Struck:
    """A damaged file, and what was in it before."""

    number: int
    file: Path
    before: bytes
    at: float
    """When that was."""
    mended: int
    """How often its broker had said that something was whole again."""


def strike(cluster: Cluster, number: int, partition: int, draw: random.Random, newest: bool = False) -> Struck:
    """Flip a bit in a sealed segment of a broker; or in the one that is written to, well before its end."""
    broker = cluster.brokers[number]
    files = segments(broker, partition)
    file = files[-1] if newest else draw.choice(files[:-1])
    before = file.read_bytes()
    blocks = (len(before) // 2 if newest else len(before)) // BLOCK
    position, bit = draw.randrange(blocks * BLOCK), draw.randrange(8)
    struck = Struck(number, file, before, time.monotonic(), broker.log().count(MENDED))
    flip(file, position, bit)
    say(f"broker {number}, partition {partition}: flipped bit {bit} of byte {position} of {file.name}, {len(before)} bytes")
    return struck


def healed(cluster: Cluster, struck: Struck, seconds: float = MEND_SECONDS) -> None:
    """The file is again as it was, byte for byte, and the broker said so."""
    log = cluster.brokers[struck.number].log
    eventually(f"broker {struck.number} says that a range is whole", lambda: log().count(MENDED) > struck.mended, True, seconds)
    now = struck.file.read_bytes()
    if now[: len(struck.before)] != struck.before:
        at = next(n for n, (a, b) in enumerate(zip(now, struck.before, strict=False)) if a != b)
        raise AssertionError(f"{struck.file} differs at byte {at} from what it was before it was damaged")
    line = [line for line in log().splitlines() if MENDED in line][-1]
    say(f"whole again after {time.monotonic() - struck.at:.2f} s: {line.split('damage=')[-1][-200:]}")


def entries(files: list[Path]) -> dict[int, bytes]:
    """The entries of a log by their Raft index. A file of a higher generation supersedes what older ones hold from its first entry on."""
    names = {file: tuple(int(part) for part in INDEX_DIGITS.match(file.name).groups()) for file in files}
    found = {}
    for file in files:
        first, _, generation = names[file]
        later = [other[0] for other in names.values() if other[2] > generation]
        data, at, index = file.read_bytes(), 0, first
        while at + HEADER_BYTES <= len(data) and index < min(later, default=index + 1):
            size = 12 + int.from_bytes(data[at + 8 : at + 12])
            if size < HEADER_BYTES or at + size > len(data):
                break
            found[index] = data[at : at + size]
            at, index = at + size, index + 1
    return found


def same_on_all(cluster: Cluster) -> None:
    """Every replica holds the same entries, byte for byte, from where the logs of all begin: a first entry without records may be purged on one."""
    compared = 0
    for partition in range(PARTITIONS):
        logs = {number: entries(segments(broker, partition)) for number, broker in cluster.brokers.items()}
        first, last = max(min(log) for log in logs.values()), min(max(log) for log in logs.values())
        expect(f"partition {partition}: entries of the beginning that a broker has not", first <= 1, True)
        for index in range(first, last + 1):
            kinds = {log.get(index) for log in logs.values()}
            if len(kinds) != 1 or None in kinds:
                raise AssertionError(f"replica-divergence: partition {partition}, entry {index} of {last}")
        compared += last + 1 - first
    say(f"{compared} entries of {PARTITIONS} partitions are the same on all brokers, byte for byte")


class Repair:
    """One run: a cluster under load, and damage of one kind after the other."""

    def __init__(self, cluster: Cluster, settings: Settings) -> None:
        self.cluster, self.draw = cluster, settings.draw
        self.load = Load(cluster.bootstrap, TOPIC, PARTITIONS, 2, settings.a_second // 2)

    def leader(self, partition: int) -> int:
        deadline = time.monotonic() + 60
        while True:
            self.cluster.wait_led(TOPIC, PARTITIONS)
            leader = self.cluster.view(TOPIC).leaders().get(partition)
            # A leadership may go back to its preferred broker at any moment.
            if leader is not None:
                return leader
            if time.monotonic() > deadline:
                raise TimeoutError(f"partition {partition} has no leader for long enough to be told")

    def follower(self, partition: int) -> int:
        return self.draw.choice(self.cluster.others(self.leader(partition)))

    def grow(self) -> None:
        """Wait until every partition has some sealed segments on every broker."""
        deadline = time.monotonic() + 120
        while min(len(segments(broker, at)) for broker in self.cluster.brokers.values() for at in range(PARTITIONS)) < 4:
            if time.monotonic() > deadline:
                raise TimeoutError("no four segments of each partition after 120 s")
            time.sleep(0.1)

    def whole(self) -> None:
        for number in self.cluster.ids:
            self.cluster.wait_caught_up(number, TOPIC, PARTITIONS)

    def read(self, when: str) -> None:
        """Everything is read from the beginning, as it was written; the client hears of no error."""
        reader = check.Reader(self.cluster.bootstrap, TOPIC, PARTITIONS)
        try:
            reader.read_to(check.ends(self.cluster.bootstrap, TOPIC, PARTITIONS))
            wrong = {error: count for error, count in reader.errors.items() if "CRC" in error.upper() or "CORRUPT" in error.upper()}
            expect(f"errors of a reader {when}", wrong, {})
        finally:
            reader.close()

    def found_when_read(self) -> None:
        """A leader that runs: the reader that comes first waits a moment, and hears of nothing."""
        partition = self.draw.randrange(PARTITIONS)
        struck = strike(self.cluster, self.leader(partition), partition, self.draw)
        self.read("of damage on a leader")
        healed(self.cluster, struck)

    def found_at_start(self) -> None:
        """A broker that was killed: what it reads back is damaged, and it is whole before its group is opened."""
        partition = self.draw.randrange(PARTITIONS)
        number = self.follower(partition)
        # Marks of what is synced go to the disk each second.
        time.sleep(2.5)
        self.cluster.brokers[number].kill()
        struck = strike(self.cluster, number, partition, self.draw, newest=True)
        self.cluster.start(number)
        healed(self.cluster, struck)
        self.whole()

    def found_when_filled(self) -> None:
        """A leader that fills a replica which has lost its disk: it mends what it cannot read from the third broker, and goes on."""
        partition = self.draw.randrange(PARTITIONS)
        leader, number = self.leader(partition), self.follower(partition)
        while number == leader:
            number = self.follower(partition)
        self.cluster.brokers[number].kill()
        self.cluster.wipe(number)
        struck = strike(self.cluster, leader, partition, self.draw)
        self.cluster.start(number)
        healed(self.cluster, struck)
        self.whole()

    def found_by_scrub(self, kind: str) -> None:
        """Damage that nobody reads: of a leader or a follower that runs, or of a broker that was stopped well."""
        partition = self.draw.randrange(PARTITIONS)
        number = self.leader(partition) if kind == "leader" else self.follower(partition)
        if kind == "stopped":
            self.cluster.brokers[number].stop()
        struck = strike(self.cluster, number, partition, self.draw)
        if kind == "stopped":
            self.cluster.start(number)
        healed(self.cluster, struck, 150.0)

    def all_at_once(self) -> None:
        """Every broker has damage, each elsewhere; all were killed."""
        for broker in self.cluster.brokers.values():
            broker.kill()
        struck = []
        for number in self.cluster.ids:
            broker = self.cluster.brokers[number]
            count = len(segments(broker, number % PARTITIONS))
            struck.append(strike(self.cluster, number, number % PARTITIONS, random.Random(self.draw.random())))
            expect("segments", count >= 2, True)
        self.cluster.start()
        for one in struck:
            healed(self.cluster, one, 150.0)
        self.whole()

    def run(self) -> bool:
        cluster = self.cluster
        cluster.start()
        with Routes(cluster.bootstrap) as routes:
            routes.create_topic(TOPIC, PARTITIONS, REPLICAS, segment_bytes=str(SEGMENT_BYTES), retention_ms="-1")
        self.load.start()
        self.grow()
        self.found_when_read()
        self.found_at_start()
        self.found_when_filled()
        for number in cluster.ids:
            cluster.brokers[number].stop()
            cluster.brokers[number].configure(limits_scrub_bytes_per_second=SCRUB_FAST)
            cluster.start(number)
            self.whole()
        for kind in ("stopped", "follower", "leader"):
            self.found_by_scrub(kind)
        self.all_at_once()
        ledger = self.load.finish(60)
        self.whole()
        self.read("at the end")
        verdict = check.judge(ledger, check.scan(cluster.bootstrap, TOPIC, PARTITIONS))
        say(str(verdict))
        for broker in cluster.brokers.values():
            broker.stop()
        same_on_all(cluster)
        left = [number for number, broker in cluster.brokers.items() if "replica-divergence" in broker.log()]
        expect("brokers that found replicas to differ", left, [])
        return not verdict.broken and not ledger.refused


def run(home: Path, port: int, settings: Settings) -> bool:
    """Flip bits on leaders and followers, running and stopped, under load: what is damaged is whole again, byte for byte, and nothing is lost."""
    cluster = Cluster(home, port=port, limits_scrub_bytes_per_second="0")
    try:
        return Repair(cluster, settings).run()
    finally:
        cluster.remove()
