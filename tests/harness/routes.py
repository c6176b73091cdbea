"""Raw requests to a cluster: each goes to the broker that it is for, as the cluster's metadata has it."""

from __future__ import annotations

import struct
import time
from dataclasses import dataclass, field

from .wire import CREATE_TOPICS, LEADERLESS, METADATA, Reader, Wire, string

FIND_COORDINATOR, DESCRIBE_CLUSTER = 10, 60
COORDINATOR_OF_GROUP = 0
TOPIC_EXISTS = 36
LOOK_SECONDS = 30.0


@dataclass(frozen=True)
class Part:
    """What metadata tells of one partition."""

    code: int
    leader: int
    epoch: int
    replicas: tuple[int, ...]
    isr: tuple[int, ...]


@dataclass
class View:
    """What one broker tells of the cluster and of one topic."""

    brokers: dict[int, str]
    controller: int
    code: int = 0
    parts: dict[int, Part] = field(default_factory=dict)

    def leaders(self) -> dict[int, int]:
        """The leader of each partition that has one."""
        return {at: part.leader for at, part in self.parts.items() if part.code == 0 and part.leader >= 0}


def numbers(answer: Reader) -> tuple[int, ...]:
    return answer.take(f"{answer.number('i')}i")


def nullable(answer: Reader) -> str:
    """A string in an old version, empty for null."""
    return answer.bytes(answer.number("h")).decode()


class Routes:
    """Connections to a cluster's brokers, made when they are needed."""

    def __init__(self, bootstrap: str, timeout: float = 10.0) -> None:
        self.bootstrap = bootstrap.split(",")
        self.timeout = timeout
        self.wires: dict[str, Wire] = {}
        self.known: dict[str, View] = {}

    def __enter__(self) -> Routes:
        return self

    def __exit__(self, *_: object) -> None:
        for wire in self.wires.values():
            wire.close()

    def to(self, address: str) -> Wire:
        if address not in self.wires:
            self.wires[address] = Wire(address, self.timeout)
        return self.wires[address]

    def drop(self, address: str) -> None:
        if wire := self.wires.pop(address, None):
            wire.close()

    def any(self) -> Wire:
        """A connection to the first broker that listens."""
        failures = []
        for address in self.bootstrap:
            try:
                return self.to(address)
            except OSError as failure:
                failures.append(f"{address}: {failure}")
        raise ConnectionError(f"no broker listens: {failures}")

    def view(self, topic: str) -> View:
        """Metadata, from the first broker that answers."""
        for _ in range(len(self.bootstrap)):
            wire = self.any()
            try:
                return self.ask_view(wire, topic)
            except OSError:
                address = next(address for address, known in self.wires.items() if known is wire)
                self.drop(address)
                self.bootstrap.append(self.bootstrap.pop(self.bootstrap.index(address)))
        raise ConnectionError(f"none of {self.bootstrap} answers")

    @staticmethod
    def ask_view(wire: Wire, topic: str) -> View:
        answer = wire.request(METADATA, 7, struct.pack(">i", 1) + string(topic) + b"\0")
        answer.number("i")
        brokers = {}
        for _ in range(answer.number("i")):
            number, host, port = answer.number("i"), answer.string(), answer.number("i")
            nullable(answer)
            brokers[number] = f"{host}:{port}"
        nullable(answer)
        view = View(brokers, answer.number("i"))
        for _ in range(answer.number("i")):
            view.code = answer.number("h")
            answer.string()
            answer.number("?")
            for _ in range(answer.number("i")):
                code, index, leader, epoch = answer.take("hiii")
                view.parts[index] = Part(code, leader, epoch, numbers(answer), numbers(answer))
                numbers(answer)
        return view

    def create_topic(self, topic: str, partitions: int, replicas: int = 3, **configs: str) -> None:
        """Create a topic and wait until every partition is led. In config names _ stands for the dot; a topic may exist."""
        pairs = b"".join(string(key.replace("_", ".")) + string(value) for key, value in configs.items())
        fields = struct.pack(">ihi", partitions, replicas, 0) + struct.pack(">i", len(configs)) + pairs
        body = struct.pack(">i", 1) + string(topic) + fields + struct.pack(">i?", 30_000, False)
        answer = self.any().request(CREATE_TOPICS, 4, body)
        answer.take("ii")
        answer.string()
        code, why = answer.number("h"), nullable(answer)
        if code not in (0, TOPIC_EXISTS):
            raise ValueError(f"creating {topic} answers {code}: {why}")
        deadline = time.monotonic() + LOOK_SECONDS
        while len(led := self.view(topic).leaders()) < partitions:
            if time.monotonic() > deadline:
                raise TimeoutError(f"{len(led)} of {partitions} partitions of {topic} have a leader after {LOOK_SECONDS:.0f} s")
            time.sleep(0.05)

    def leader(self, topic: str, partition: int, anew: bool = False) -> str:
        """The address of a partition's leader."""
        deadline = time.monotonic() + LOOK_SECONDS
        while True:
            if anew or topic not in self.known:
                self.known[topic] = self.view(topic)
            view = self.known[topic]
            leader = view.leaders().get(partition)
            if leader in view.brokers:
                return view.brokers[leader]
            if time.monotonic() > deadline:
                raise TimeoutError(f"nobody leads {topic}-{partition} after {LOOK_SECONDS:.0f} s")
            anew = True
            time.sleep(0.05)

    def offset(self, topic: str, partition: int, when: int) -> int:
        """As `Wire.offset`, from the partition's leader."""
        deadline = time.monotonic() + LOOK_SECONDS
        address = self.leader(topic, partition)
        while True:
            try:
                code, offset = self.to(address).offset_once(topic, partition, when)
            except OSError as failure:
                self.drop(address)
                code, offset = str(failure), -1
            if code == 0:
                return offset
            if (isinstance(code, int) and code not in LEADERLESS) or time.monotonic() > deadline:
                raise ValueError(f"ListOffsets of {topic}-{partition} at {address} answers {code}")
            time.sleep(0.05)
            address = self.leader(topic, partition, anew=True)

    def cluster(self) -> tuple[str, int, dict[int, str]]:
        """DescribeCluster, from the first broker: the cluster's id, its controller, its brokers."""
        answer = self.any().request(DESCRIBE_CLUSTER, 0, b"\0\0", tagged=True)
        answer.number("i")
        code = answer.number("h")
        why = answer.compact()
        if code:
            raise ValueError(f"DescribeCluster answers {code}: {why}")
        cluster, controller, brokers = answer.compact(), answer.number("i"), {}
        for _ in range(answer.uvarint() - 1):
            number, host, port = answer.number("i"), answer.compact(), answer.number("i")
            answer.compact()
            answer.tags()
            brokers[number] = f"{host}:{port}"
        return cluster, controller, brokers

    def coordinator(self, group: str) -> tuple[int, str]:
        """The broker that coordinates a group, and its address; waits until there is one."""
        deadline = time.monotonic() + LOOK_SECONDS
        while True:
            answer = self.any().request(FIND_COORDINATOR, 1, string(group) + struct.pack(">b", COORDINATOR_OF_GROUP))
            _, code = answer.take("ih")
            nullable(answer)
            if code == 0:
                number, host, port = answer.number("i"), answer.string(), answer.number("i")
                return number, f"{host}:{port}"
            if time.monotonic() > deadline:
                raise ValueError(f"FindCoordinator of {group} answers {code}")
            time.sleep(0.05)
