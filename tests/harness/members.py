"""Many members of one consumer group, in a few processes, and what becomes of their partitions while some are restarted.

`Members` starts the processes and gives orders; each runs this file, with a thread for each of its consumers. Needs confluent-kafka.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import threading
import time
from array import array
from collections import Counter, defaultdict
from dataclasses import dataclass, field
from pathlib import Path

if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from harness import programs

SETTLE_SECONDS = 180.0
QUIET_SECONDS = 1.0
"""A group is taken for stable when nothing was assigned or revoked for so long."""


def config(bootstrap: str, group: str, protocol: str, **more: object) -> dict[str, object]:
    """A consumer's settings. `protocol` is `consumer` (KIP-848) or an assignor of the classic protocol."""
    settings: dict[str, object] = {
        "bootstrap.servers": bootstrap,
        "group.id": group,
        "auto.offset.reset": "earliest",
        "auto.commit.interval.ms": 1000,
        "reconnect.backoff.max.ms": 200,
        "log_level": 0,
    }
    if protocol == "consumer":
        settings["group.protocol"] = "consumer"
    else:
        settings |= {"partition.assignment.strategy": protocol, "session.timeout.ms": 45_000}
    return settings | more


# ---- what runs in the processes -------------------------------------------------------------------------------------


class Member(threading.Thread):
    """One consumer: says what it is given and what is taken from it, and notes every record."""

    def __init__(self, number: int, topic: str, settings: dict[str, object]) -> None:
        super().__init__(daemon=True)
        self.number, self.topic, self.settings = number, topic, settings
        self.stopping = threading.Event()
        self.records = array("q")

    def say(self, what: str, partitions: list) -> None:
        numbers = sorted(it.partition for it in partitions)
        tell({"at": time.monotonic(), "member": self.number, "what": what, "partitions": numbers})

    def run(self) -> None:
        from confluent_kafka import Consumer

        consumer = Consumer(self.settings)
        consumer.subscribe(
            [self.topic],
            on_assign=lambda _, partitions: self.say("assigned", partitions),
            on_revoke=lambda _, partitions: self.say("revoked", partitions),
            on_lost=lambda _, partitions: self.say("lost", partitions),
        )
        while not self.stopping.is_set():
            for message in consumer.consume(500, 0.2):
                if message.error():
                    self.say(message.error().str(), [])
                    continue
                self.records.extend((message.partition(), message.offset(), time.monotonic_ns()))
        consumer.close()
        self.say("closed", [])


TELLING = threading.Lock()


def tell(event: dict) -> None:
    with TELLING:
        print(json.dumps(event), flush=True)


def work() -> None:
    """Orders come as lines: start or stop a member, or write down what was read and end."""
    members: dict[int, Member] = {}
    past: list[Member] = []
    for line in sys.stdin:
        order = json.loads(line)
        if order["what"] == "start":
            member = Member(order["member"], order["topic"], order["settings"])
            members[order["member"]] = member
            member.start()
        elif order["what"] == "stop":
            member = members.pop(order["member"])
            member.stopping.set()
            past.append(member)
        else:
            for member in members.values():
                member.stopping.set()
            with open(order["into"], "wb") as out:
                for member in [*past, *members.values()]:
                    member.join()
                    member.records.tofile(out)
            tell({"at": time.monotonic(), "member": -1, "what": "ended", "partitions": []})
            return


# ---- what gives the orders ------------------------------------------------------------------------------------------


@dataclass
class Reading:
    """What all members together have read."""

    records: int = 0
    twice: int = 0
    stalls: list[float] = field(default_factory=list)
    """For each partition the longest time in which no record of it came, in seconds."""


class Members:
    """A group of `count` members on `partitions` partitions of a topic."""

    def __init__(self, topic: str, partitions: int, count: int, processes: int) -> None:
        self.topic, self.partitions, self.count = topic, partitions, count
        self.changed = threading.Condition()
        self.owned: dict[int, set[int]] = defaultdict(set)
        self.events: list[dict] = []
        self.ended = 0
        command = [programs.python(), __file__]
        self.processes = [
            subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
            for _ in range(processes)
        ]
        for process in self.processes:
            threading.Thread(target=self.listen, args=(process,), daemon=True).start()

    def listen(self, process: subprocess.Popen[str]) -> None:
        assert process.stdout is not None
        for line in process.stdout:
            event = json.loads(line)
            with self.changed:
                self.take(event)
                self.changed.notify_all()

    def take(self, event: dict) -> None:
        what, own = event["what"], self.owned[event["member"]]
        if what == "assigned":
            own |= set(event["partitions"])
        elif what in ("revoked", "lost"):
            own -= set(event["partitions"])
        elif what == "closed":
            own.clear()
        elif what == "ended":
            self.ended += 1
        self.events.append(event)

    def order(self, member: int, **order: object) -> None:
        process = self.processes[member % len(self.processes)]
        assert process.stdin is not None
        process.stdin.write(json.dumps({"member": member, **order}) + "\n")
        process.stdin.flush()

    def start(self, member: int, settings: dict[str, object]) -> None:
        self.order(member, what="start", topic=self.topic, settings=settings)

    def stop(self, member: int) -> None:
        """Returns when it has closed: it has committed, and left unless it is static."""
        before = len(self.events)
        self.order(member, what="stop")
        self.wait(lambda: any(it["what"] == "closed" and it["member"] == member for it in self.events[before:]), "closed")

    def wait(self, done, what: str, seconds: float = SETTLE_SECONDS) -> None:
        with self.changed:
            if not self.changed.wait_for(done, seconds):
                shares = Counter(len(own) for own in self.owned.values())
                raise TimeoutError(f"not {what} after {seconds:.0f} s; members by size of their share: {dict(shares)}")

    def is_stable(self) -> bool:
        """Whether every partition has one owner, and every member an equal share."""
        each, more = divmod(self.partitions, self.count)
        shares = [own for own in self.owned.values() if own]
        all_owned = sum(len(own) for own in shares) == self.partitions == len(set().union(*shares))
        return all_owned and len(shares) == min(self.count, self.partitions) and all(
            len(own) in (each, each + bool(more)) for own in shares
        )

    def settle(self) -> float:
        """Wait until the group is stable and stays so for a moment; when the last change was."""
        while True:
            self.wait(self.is_stable, "stable")
            with self.changed:
                seen = len(self.events)
                if not self.changed.wait_for(lambda: len(self.events) > seen, QUIET_SECONDS):
                    return max(event["at"] for event in self.events)

    def finish(self) -> Reading:
        """End all members; what they read."""
        with tempfile.TemporaryDirectory(prefix="ottla-members-") as home:
            for number, _ in enumerate(self.processes):
                self.order(number, what="end", into=f"{home}/{number}")
            self.wait(lambda: self.ended == len(self.processes), "ended")
            for process in self.processes:
                process.wait(10)
            return self.judge([Path(home) / str(number) for number, _ in enumerate(self.processes)])

    def judge(self, files: list[Path]) -> Reading:
        reading = Reading()
        arrivals: dict[int, list[tuple[int, int]]] = defaultdict(list)
        for file in files:
            data = array("q")
            data.frombytes(file.read_bytes())
            for at in range(0, len(data), 3):
                arrivals[data[at]].append((data[at + 2], data[at + 1]))
        for partition in range(self.partitions):
            came = sorted(arrivals[partition])
            reading.records += len(came)
            reading.twice += len(came) - len({offset for _, offset in came})
            gaps = [(later[0] - earlier[0]) / 1e9 for earlier, later in zip(came, came[1:], strict=False)]
            reading.stalls.append(max(gaps, default=float("inf")))
        return reading

    def remove(self) -> None:
        for process in self.processes:
            process.kill()
            process.wait()


if __name__ == "__main__":
    work()
