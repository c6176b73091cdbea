"""Members of groups that commit on and on, and a ledger of what was acknowledged: nothing of it may go back, whatever becomes of the broker.

Needs confluent-kafka: scripts call `programs.enter_python()` before they import this.
"""

from __future__ import annotations

import threading
import time
from array import array
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TypeVar

from confluent_kafka import Consumer, KafkaError, KafkaException, TopicPartition

from .routes import Routes
from .wire import NotCoordinator, Wire

Answer = TypeVar("Answer")
NOTHING = -1
SESSION_MS = 45_000
SETTLE_SECONDS = 60.0
PASSING = (
    KafkaError._TRANSPORT,
    KafkaError._ALL_BROKERS_DOWN,
    KafkaError._TIMED_OUT,
    KafkaError._WAIT_COORD,
    KafkaError.REQUEST_TIMED_OUT,
    KafkaError.COORDINATOR_NOT_AVAILABLE,
    KafkaError.COORDINATOR_LOAD_IN_PROGRESS,
    KafkaError.NOT_COORDINATOR,
)
"""What a commit may end in while a broker is away: whether it counts is unknown."""


@dataclass
class Committed:
    """What one group has committed, by partition."""

    tried: list[int]
    acked: list[int]
    """The highest offset that was acknowledged; the next that is tried is higher."""
    count: int = 0
    failures: Counter[str] = field(default_factory=Counter)
    times: array = field(default_factory=lambda: array("d"))
    """When each acknowledgement came."""


def judge_offsets(group: str, found: list[int], acked: list[int], tried: list[int]) -> list[str]:
    """What is wrong with a group's offsets, given what was acknowledged and what was tried."""
    wrong = []
    for partition, (there, promised, highest) in enumerate(zip(found, acked, tried, strict=True)):
        if there < promised:
            wrong.append(f"group-offset-regress: {group} has {there} of partition {partition}, {promised} was acknowledged")
        if there > highest:
            wrong.append(f"phantom: {group} has {there} of partition {partition}, only {highest} was tried")
    return wrong


def judge_members(group: str, found: tuple, wanted: tuple) -> list[str]:
    """What is wrong with a group's state, epoch and members, which nothing should have disturbed."""
    return [] if found == wanted else [f"lost-member: {group} is {found}, not {wanted}"]


class Member(threading.Thread):
    """A consumer of a group that commits offsets of its partitions, one after the other, each higher than the last."""

    def __init__(self, bootstrap: str, group: str, topic: str, number: int, ledger: Committed, protocol: str) -> None:
        super().__init__(daemon=True)
        self.group, self.topic, self.number, self.ledger = group, topic, number, ledger
        self.stopping = threading.Event()
        self.own: list[int] = []
        self.changes = 0
        """How often something was given to it or taken from it, since its group was stable."""
        self.id = ""
        self.fatal: Exception | None = None
        settings = {
            "bootstrap.servers": bootstrap,
            "group.id": group,
            "enable.auto.commit": False,
            "auto.offset.reset": "earliest",
            "group.protocol": protocol,
            "reconnect.backoff.max.ms": 100,
            "log_level": 0,
        }
        if protocol == "classic":
            # Of the other protocol the broker says how long these are.
            settings |= {"session.timeout.ms": SESSION_MS, "heartbeat.interval.ms": 500}
        self.consumer = Consumer(settings)

    def on_assign(self, _: Consumer, partitions: list[TopicPartition]) -> None:
        self.own = sorted({*self.own, *(it.partition for it in partitions)})
        self.changes += 1

    def on_revoke(self, _: Consumer, partitions: list[TopicPartition]) -> None:
        self.own = sorted({*self.own} - {it.partition for it in partitions})
        self.changes += 1

    def run(self) -> None:
        try:
            self.consumer.subscribe([self.topic], on_assign=self.on_assign, on_revoke=self.on_revoke, on_lost=self.on_revoke)
            while not self.stopping.is_set():
                self.consumer.poll(0 if self.own else 0.1)
                self.id = self.consumer.memberid() or self.id
                for partition in list(self.own):
                    self.commit(partition)
        except Exception as failure:
            self.fatal = failure

    def commit(self, partition: int) -> None:
        offset = self.ledger.tried[partition] + 1
        self.ledger.tried[partition] = offset
        try:
            self.consumer.commit(offsets=[TopicPartition(self.topic, partition, offset)], asynchronous=False)
        except KafkaException as failure:
            error = failure.args[0]
            if error.code() not in PASSING:
                self.ledger.failures[error.str()] += 1
            return
        self.ledger.acked[partition] = offset
        self.ledger.count += 1
        self.ledger.times.append(time.monotonic())


class Groups:
    """So many groups of so many members, on all partitions of a topic. `protocol` is `classic` or `consumer` (KIP-848)."""

    def __init__(self, bootstrap: str, topic: str, partitions: int, groups: int, members: int, protocol: str) -> None:
        self.bootstrap, self.topic, self.partitions, self.protocol = bootstrap, topic, partitions, protocol
        nothing = [NOTHING] * partitions
        self.ledgers = {f"group-{number}": Committed(list(nothing), list(nothing)) for number in range(groups)}
        self.members = [
            Member(bootstrap, group, topic, number, ledger, protocol)
            for group, ledger in self.ledgers.items()
            for number in range(members)
        ]

    @property
    def acked(self) -> int:
        return sum(ledger.count for ledger in self.ledgers.values())

    def start(self) -> Groups:
        """Start all members; returns when each group has shared out all partitions and has committed in each."""
        for member in self.members:
            member.start()
        self.wait(lambda: all(min(ledger.acked) >= 0 for ledger in self.ledgers.values()), "a commit in each partition")
        # The first members of a group may have begun without the last.
        self.wait(lambda: all(self.shared_out(group) for group in self.ledgers), "a share for each member")
        for member in self.members:
            member.changes = 0
        self.ids = {(member.group, member.number): member.id for member in self.members}
        self.epochs = {group: self.described(group)[1] for group in self.ledgers}
        return self

    def ask(self, group: str, question: Callable[[Wire], Answer]) -> Answer:
        """What the group's coordinator answers; it may move meanwhile."""
        deadline = time.monotonic() + SETTLE_SECONDS
        while True:
            try:
                with Routes(self.bootstrap) as routes, Wire(routes.coordinator(group)[1]) as wire:
                    return question(wire)
            except (OSError, NotCoordinator):
                if time.monotonic() > deadline:
                    raise

    def described(self, group: str) -> tuple[str, int, list[str]]:
        """State, epoch and members of a group. The classic protocol does not tell generations: members notice when theirs is another."""
        if self.protocol == "consumer":
            return self.ask(group, lambda wire: wire.consumer_group(group))
        state, members = self.ask(group, lambda wire: wire.group_members(group))
        return state, 0, members

    def of(self, group: str) -> list[Member]:
        return [member for member in self.members if member.group == group]

    def shared_out(self, group: str) -> bool:
        shares = [member.own for member in self.of(group)]
        return all(shares) and sorted(sum(shares, [])) == list(range(self.partitions))

    def wait(self, done, what: str, seconds: float = SETTLE_SECONDS) -> None:
        deadline = time.monotonic() + seconds
        while not done():
            for member in self.members:
                if member.fatal:
                    raise member.fatal
            if time.monotonic() > deadline:
                shares = {(member.group, member.number): member.own for member in self.members}
                raise TimeoutError(f"no {what} after {seconds:.0f} s; shares {shares}")
            time.sleep(0.002)

    def wait_acked(self, count: int, seconds: float) -> None:
        self.wait(lambda: self.acked >= count, f"{count} commits acknowledged", seconds)

    def promised(self) -> dict[str, list[int]]:
        """What is acknowledged now."""
        return {group: list(ledger.acked) for group, ledger in self.ledgers.items()}

    def judge(self, promised: dict[str, list[int]]) -> list[str]:
        """What is wrong with the broker's offsets and members, after a restart: `promised` was acknowledged before it."""
        wrong = []
        for group, acked in promised.items():
            found = self.ask(group, lambda wire, group=group: wire.committed(group, self.topic, self.partitions))
            # More may have been tried while this was asked.
            wrong += judge_offsets(group, found, acked, self.ledgers[group].tried)
            wanted = sorted(id for (of, _), id in self.ids.items() if of == group)
            wrong += judge_members(group, self.described(group), ("Stable", self.epochs[group], wanted))
        return wrong

    def finish(self) -> list[str]:
        """Stop all members; what was wrong with their lives."""
        for member in self.members:
            member.stopping.set()
        for member in self.members:
            member.join(60)
        wrong = []
        for member in self.members:
            name = f"{member.group}, member {member.number}"
            if member.fatal:
                wrong.append(f"{name}: {member.fatal}")
            if member.changes:
                wrong.append(f"rebalance: the share of {name} changed {member.changes} times")
            if member.id != self.ids[member.group, member.number]:
                wrong.append(f"rebalance: {name} has another id")
        for group, ledger in self.ledgers.items():
            wrong += [f"refused: {group}, {count} times: {error}" for error, count in ledger.failures.items()]
        return wrong

    def close(self) -> None:
        for member in self.members:
            member.stopping.set()
            member.join(60)
            member.consumer.close()
