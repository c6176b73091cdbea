"""Moves replicas between brokers, as an operator or an admin client does: raw requests, and the `ottla` program."""

from __future__ import annotations

import json
import struct
import subprocess
import time
from dataclasses import dataclass

from .brokers import ottla_binary
from .cluster import Cluster
from .routes import Routes

REASSIGN, LIST_REASSIGNMENTS = 45, 46
NOTHING_UNDER_WAY = 85
MOVED_SECONDS = 120.0


def uvarint(number: int) -> bytes:
    out = bytearray()
    while number >= 0x80:
        out.append(number & 0x7F | 0x80)
        number >>= 7
    return bytes([*out, number])


def compact(text: str) -> bytes:
    return uvarint(len(text) + 1) + text.encode()


def reassign(at: str, topic: str, wanted: dict[int, list[int] | None]) -> dict[int, int]:
    """Ask a broker to move partitions to these brokers, or (None) to call off what is under way; the error code of each."""
    parts = b""
    for partition, brokers in wanted.items():
        chosen = b"\0" if brokers is None else uvarint(len(brokers) + 1) + struct.pack(f">{len(brokers)}i", *brokers)
        parts += struct.pack(">i", partition) + chosen + b"\0"
    body = struct.pack(">i", 30_000) + uvarint(2) + compact(topic) + uvarint(len(wanted) + 1) + parts + b"\0\0"
    with Routes(at) as routes:
        answer = routes.any().request(REASSIGN, 0, body, tagged=True)
    answer.number("i")
    if code := answer.number("h"):
        raise ValueError(f"AlterPartitionReassignments answers {code}: {answer.compact()}")
    answer.compact()
    codes = {}
    for _ in range(answer.uvarint() - 1):
        answer.compact()
        for _ in range(answer.uvarint() - 1):
            partition, codes_of = answer.take("ih")
            codes[partition] = codes_of
            answer.compact()
            answer.tags()
        answer.tags()
    return codes


def under_way(at: str) -> dict[tuple[str, int], tuple[tuple[int, ...], tuple[int, ...], tuple[int, ...]]]:
    """The moves that a broker tells of: replicas, those that are added, those that go."""
    with Routes(at) as routes:
        answer = routes.any().request(LIST_REASSIGNMENTS, 0, struct.pack(">i", 30_000) + b"\0\0", tagged=True)
    answer.number("i")
    if code := answer.number("h"):
        raise ValueError(f"ListPartitionReassignments answers {code}")
    answer.compact()
    found = {}
    for _ in range(answer.uvarint() - 1):
        topic = answer.compact()
        for _ in range(answer.uvarint() - 1):
            partition = answer.number("i")
            found[topic, partition] = tuple(answer.take(f"{answer.uvarint() - 1}i") for _ in range(3))
            answer.tags()
        answer.tags()
    return found


def wait_moved(cluster: Cluster, at: int, seconds: float = MOVED_SECONDS) -> float:
    """Wait until nothing is on its way; how long it took."""
    began = time.monotonic()
    while left := unless_away(cluster, at):
        if time.monotonic() > began + seconds:
            raise TimeoutError(f"still on the way after {seconds:.0f} s: {left}")
        time.sleep(0.1)
    return time.monotonic() - began


def unless_away(cluster: Cluster, at: int) -> object:
    """What is on its way; that nobody can say it, for as long as that is so."""
    try:
        return under_way(cluster.brokers[at].bootstrap)
    except (OSError, ValueError) as failure:
        return failure


@dataclass
class Said:
    """How the program ended, and what it said."""

    code: int
    text: str


def ottla(cluster: Cluster, at: int, *arguments: str, seconds: float = 180.0) -> Said:
    """Run `ottla ...` against a broker."""
    command = [str(ottla_binary()), *arguments, "--brokers", cluster.brokers[at].bootstrap]
    done = subprocess.run(command, capture_output=True, text=True, timeout=seconds)
    return Said(done.returncode, done.stdout + done.stderr)


def status(cluster: Cluster, at: int) -> dict:
    """What `ottla cluster status` says."""
    command = [str(ottla_binary()), "cluster", "status", "--format", "json", "--brokers", cluster.brokers[at].bootstrap]
    done = subprocess.run(command, capture_output=True, text=True, timeout=30)
    if done.returncode not in (0, 1):
        raise AssertionError(f"ottla cluster status ended with {done.returncode}: {done.stderr}")
    return json.loads(done.stdout)


def held(told: dict) -> dict[int, int]:
    """How many replicas each broker holds."""
    return {broker["broker"]: broker["replicas"] for broker in told["brokers"]}
