"""What members of a group must do with any client: each member is a process of its own, so that one can be killed.

A client's program, run as `PROGRAM member BOOTSTRAP GROUP TOPIC ASSIGNOR INSTANCE`, joins (as a dynamic member if
INSTANCE is empty) with a session of 10 seconds (a static member: 30) and a heartbeat every half second, and prints

    ASSIGNED 0 2      all its partitions, whenever some were given to it or taken from it
    READ 0 17 value   a record; it has committed it when it takes the next one

When its standard input ends, it commits what it has read, leaves, and ends with exit code 0.
"""

from __future__ import annotations

import re
import signal
import subprocess
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial

from harness.table import Result, attempt, expect
from harness.wire import Wire, batch_of

PROTOCOLS = ("classic", "consumer")
"""The group protocols that the broker speaks; "consumer" is that of KIP-848."""

WAIT_SECONDS = 60.0
FEED_SECONDS = 0.02
"""Between two records of a feeder: slow enough for members that commit each record."""
SOME = 20
"""Records that show that a member reads."""
KCAT_REBALANCED = re.compile(r"% Group .* rebalanced .*: (assigned|revoked): (.*)")


@dataclass(frozen=True)
class Way:
    """How members of a client join: the word that its program knows it by, and what it is."""

    assignor: str
    protocol: str = "classic"
    static: tuple[str, ...] = ("stop", "stop", "kill")
    """The ends after which a static member comes back to what it had; empty where members cannot be static."""
    handover: str = "once"
    """What a rebalance in the middle of reading does to a record, with any broker: it is read "once", perhaps "again", or
    perhaps "never", and then no member hands over under load."""


CONSUMER = Way("consumer", "consumer", static=("stop", "stop"))
"""The protocol of KIP-848 with the broker's own assignor. One that is killed keeps its name until its session ends."""


@dataclass(frozen=True)
class Program:
    """A client's program that is a member."""

    command: Callable[[str, str, str, str], list[str]]
    """Its command line, for group, topic, assignor and instance id."""
    quits_on: signal.Signals | None = None
    """The signal that makes it leave, if it does not look at its standard input."""
    commits_each: bool = True
    """Whether it commits each record before it takes the next one, and not a moment later."""


class Member:
    """One member's process, and what it has said."""

    def __init__(self, command: list[str], quits_on: signal.Signals | None, said: threading.Condition) -> None:
        self.said, self.quits_on = said, quits_on
        self.partitions: list[int] = []
        self.rebalances = 0
        self.read: list[tuple[int, int]] = []
        self.other: list[str] = []
        self.process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, bufsize=1
        )
        self.listener = threading.Thread(target=self.listen, daemon=True)
        self.listener.start()

    def listen(self) -> None:
        for line in self.process.stdout:
            with self.said:
                self.hear(line.rstrip("\n"))
                self.said.notify_all()
        self.process.wait()
        with self.said:
            self.said.notify_all()

    def hear(self, line: str) -> None:
        word, _, rest = line.partition(" ")
        if word == "READ":
            partition, offset, value = rest.split(" ")
            if value != f"{partition}:{offset}":
                self.other.append(f"WRONG VALUE: {line}")
            self.read.append((int(partition), int(offset)))
        elif word == "ASSIGNED":
            self.given([int(partition) for partition in rest.split()])
        elif rebalanced := KCAT_REBALANCED.fullmatch(line):
            given = rebalanced[1] == "assigned"
            self.given([int(p) for p in re.findall(r" \[(\d+)\]", rebalanced[2])] if given else [])
        elif line:
            self.other.append(line)

    def given(self, partitions: list[int]) -> None:
        self.partitions = sorted(partitions)
        self.rebalances += 1

    def ended(self) -> bool:
        return self.process.poll() is not None

    def stop(self) -> None:
        """Ask it to leave, and wait until it is gone: it must end well."""
        if self.quits_on:
            self.process.send_signal(self.quits_on)
        else:
            self.process.stdin.close()
        code = self.process.wait(WAIT_SECONDS)
        self.listener.join()
        expect(f"exit code of a member that said {self.other[-5:]}", code, 0)
        expect("values that are not those of their place", [it for it in self.other if it.startswith("WRONG")], [])

    def end(self, how: str) -> None:
        {"stop": self.stop, "kill": self.kill}[how]()

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()
        self.listener.join()


class Group:
    """A group of one client's members on a topic of its own, and all that they have read."""

    def __init__(self, bootstrap: str, program: Program, way: Way, topic: str, partitions: int) -> None:
        self.program, self.way, self.topic = program, way, topic
        self.said = threading.Condition()
        self.members: list[Member] = []
        self.produced = [0] * partitions
        self.wire = Wire(bootstrap)
        expect("create", self.wire.create_topic(topic, partitions), 0)

    def __enter__(self) -> Group:
        return self

    def __exit__(self, *_: object) -> None:
        for member in self.members:
            member.kill()
        self.wire.close()

    def join(self, instance: str = "") -> Member:
        command = self.program.command(f"{self.topic}-g", self.topic, self.way.assignor, instance)
        self.members.append(Member(command, self.program.quits_on, self.said))
        return self.members[-1]

    def produce(self, each: int) -> None:
        """So many records more in each partition; the value of each is its place."""
        for partition, before in enumerate(self.produced):
            values = [f"{partition}:{before + n}".encode() for n in range(each)]
            batch = batch_of(values, int(time.time() * 1000))
            expect("produced at", self.wire.produce(self.topic, partition, batch), (0, before))
            self.produced[partition] += each

    def until(self, what: str, seen: Callable[[], bool]) -> None:
        """Wait until members have said so; fails at once if one that should run has ended."""
        deadline = time.monotonic() + WAIT_SECONDS
        running = [member for member in self.members if not member.ended()]
        with self.said:
            while not seen():
                gone = [member for member in running if member.ended()]
                left = deadline - time.monotonic()
                if gone or left <= 0:
                    how = f"a member ended with {gone[0].process.returncode}" if gone else "not in time"
                    has = [(member.partitions, len(member.read), member.other[-5:]) for member in self.members]
                    raise AssertionError(f"{what}: {how}; partitions, records read and words of each member: {has}")
                self.said.wait(min(left, 1.0))

    def shared(self, *members: Member) -> None:
        """Wait until these members have an equal share each, of all partitions."""
        each = len(self.produced) // len(members)

        def seen() -> bool:
            given = [partition for member in members for partition in member.partitions]
            whole = sorted(given) == list(range(len(self.produced)))
            return whole and all(len(member.partitions) == each for member in members)

        self.until(f"{len(members)} members share {len(self.produced)} partitions", seen)

    def reads(self, member: Member) -> None:
        """Wait until this member has read some more."""
        before = len(member.read)
        self.until(f"it goes on from {before} records", lambda: len(member.read) >= before + SOME)

    def read(self) -> Counter[tuple[int, int]]:
        return Counter(place for member in self.members for place in member.read)

    def all_read(self) -> None:
        wanted = {(partition, n) for partition, count in enumerate(self.produced) for n in range(count)}
        self.until(f"all {len(wanted)} records are read", lambda: self.read().keys() >= wanted)
        expect("records that nobody sent", self.read().keys() - wanted, set())

    def repeated_at_most(self, most: int) -> None:
        expect(f"at most {most} records are read again: {self.repeated()}", len(self.repeated()) <= most, True)

    def repeated(self) -> list[tuple[int, int]]:
        return [place for place, count in self.read().items() for _ in range(count - 1)]


class Feeder:
    """Produces to every partition in turn, in a thread of its own, until told to stop."""

    def __init__(self, group: Group) -> None:
        self.group = group
        self.stopping = threading.Event()
        self.failure: Exception | None = None
        self.thread = threading.Thread(target=self.run, daemon=True)
        self.thread.start()

    def run(self) -> None:
        try:
            while not self.stopping.wait(FEED_SECONDS * len(self.group.produced)):
                self.group.produce(1)
        except Exception as failure:
            self.failure = failure

    def __enter__(self) -> Feeder:
        return self

    def __exit__(self, *_: object) -> None:
        self.stopping.set()
        self.thread.join()
        if self.failure:
            raise self.failure


def lives(group: Group) -> None:
    """Members read what is there, commit, leave; those who come later go on there. Two at once share the partitions."""
    for each in (100, 25, 1):
        group.produce(each)
        member = group.join()
        group.all_read()
        member.stop()
        expect("read again", group.repeated(), [])
    group.shared(group.join(), group.join())
    for member in group.members[-2:]:
        member.stop()
    expect("read again", group.repeated(), [])


def handed_over(group: Group) -> None:
    """Under load one member leaves and another comes: every record is read once."""
    first, second = group.join(), group.join()
    group.shared(first, second)
    with Feeder(group):
        group.reads(first)
        first.stop()
        group.shared(second)
        group.reads(second)
        third = group.join()
        group.shared(second, third)
        group.reads(second)
        group.reads(third)
    group.all_read()
    second.stop()
    third.stop()
    if group.way.handover == "once":
        group.repeated_at_most(0)


def killed(group: Group) -> None:
    """Under load one member is killed: the other gets its partitions, and nothing is lost."""
    first, second = group.join(), group.join()
    group.shared(first, second)
    # One record of each of its partitions it may have shown and not committed.
    most = len(first.partitions)
    with Feeder(group):
        group.reads(first)
        first.kill()
        group.shared(second)
        group.reads(second)
    group.all_read()
    second.stop()
    if group.program.commits_each and group.way.handover == "once":
        group.repeated_at_most(most)


def static(group: Group) -> None:
    """A static member that ends and comes back has its partition at once, and the other member is left in peace."""
    one, other = group.join("one"), group.join("other")
    group.shared(one, other)
    partitions = one.partitions
    for end in group.way.static:
        group.produce(SOME)
        group.all_read()
        # What the first rebalances still have to say has been said when the member has come back once.
        rebalances = other.rebalances if len(group.members) > 2 else None
        one.end(end)
        group.produce(SOME)
        one = group.join("one")
        group.until("it has the same partition", lambda one=one: one.partitions == partitions)
        group.all_read()
        if rebalances is not None:
            expect("rebalances of the other", other.rebalances, rebalances)
    one.stop()
    other.stop()
    if group.program.commits_each:
        group.repeated_at_most(group.way.static.count("kill"))


SCENARIOS: dict[str, tuple[Callable[[Group], None], int]] = {
    "group: commit, leave, go on, share out": (lives, 4),
    "group: hand over": (handed_over, 4),
    "group: a member is killed": (killed, 4),
    "group: static member": (static, 2),
}
"""Each with the partitions of its topic."""


def one_group(bootstrap: str, program: Program, way: Way, topic: str, scenario: str) -> Result:
    body, partitions = SCENARIOS[scenario]

    def run() -> None:
        with Group(bootstrap, program, way, topic, partitions) as group:
            body(group)

    return attempt(f"{scenario}, {way.assignor}", run)


def jobs(bootstrap: str, name: str, program: Program, ways: tuple[Way, ...]) -> Iterator[Callable[[], Result]]:
    """Each scenario that a way can show, on a topic of its own: they may run side by side."""
    for way in ways:
        for number, scenario in enumerate(SCENARIOS):
            body, _ = SCENARIOS[scenario]
            if body is static and not way.static or body is handed_over and way.handover == "never":
                continue
            topic = f"{name}-{time.time_ns():x}-{way.assignor}-{number}"
            yield partial(one_group, bootstrap, program, way, topic, scenario)
