"""A client in another language, behind a program that is told in lines of JSON what to do.

`PROGRAM calls BOOTSTRAP` reads a request a line, {"do": "bounds", "topic": "t", "partition": 0}, and answers a line:
{"answer": [0, 10]}, or {"error": "words"}. Its other words go to stderr. Keys, values and headers are base64, null where
there is none. `PROGRAM version` prints its client's version, and `PROGRAM member ...` is a member of a group: see
`groups.py`.
"""

from __future__ import annotations

import json
import subprocess
import threading
from base64 import b64decode, b64encode
from contextlib import suppress
from typing import Any

import scenarios
from harness.table import eventually, expect
from harness.wire import Wire
from scenarios import Sent

ANSWER_SECONDS = 90.0


class Refused(Exception):
    """What the client's program said instead of an answer."""


def encoded(data: bytes | None) -> str | None:
    return None if data is None else b64encode(data).decode()


def decoded(text: str | None) -> bytes | None:
    return None if text is None else b64decode(text)


class Remote(scenarios.Client):
    """`lacks` names what the client has no call for."""

    def __init__(
        self, bootstrap: str, program: list[str], assignor: str, sends_nothing: bool, lacks: tuple[str, ...]
    ) -> None:
        super().__init__(bootstrap)
        self.program, self.assignor, self.sends_nothing, self.lacks = tuple(program), assignor, sends_nothing, lacks
        self.process: subprocess.Popen[str] | None = None

    def close(self) -> None:
        if self.process:
            self.process.stdin.close()
            with suppress(subprocess.TimeoutExpired):
                self.process.wait(10)
            self.process.kill()
            self.process.wait()
            self.process = None

    def ask(self, do: str, **about: object) -> Any:
        """Have the program do something; its answer. One that dies or is silent for too long is started again."""
        if self.process is None:
            command = [*self.program, "calls", self.bootstrap]
            self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        process = self.process
        patience = threading.Timer(ANSWER_SECONDS, process.kill)
        patience.start()
        try:
            process.stdin.write(json.dumps({"do": do, **about}) + "\n")
            process.stdin.flush()
            line = process.stdout.readline()
        except OSError:
            line = ""
        finally:
            patience.cancel()
        if not line:
            self.close()
            raise AssertionError(f"the program ended with {process.returncode} when asked for {do} {str(about)[:100]}")
        answer = json.loads(line)
        if "error" in answer:
            raise Refused(f"{do}: {answer['error']}")
        return answer.get("answer")

    def create_topic(self, topic: str, partitions: int) -> None:
        self.ask("create", topic=topic, partitions=partitions, configs={})

    def produce(self, topic: str, records: list[tuple[int, Sent]], codec: str, idempotent: bool) -> list[int]:
        sent = [
            {
                "partition": partition,
                "key": encoded(record.key),
                "value": encoded(record.value),
                "headers": [{"key": key, "value": encoded(value)} for key, value in record.headers],
                "timestamp": record.timestamp,
            }
            for partition, record in records
        ]
        return self.ask("produce", topic=topic, records=sent, codec=codec, idempotent=idempotent)

    def read(self, topic: str, partition: int, start: int, count: int) -> list[Sent]:
        got = self.ask("read", topic=topic, partition=partition, start=start, count=count)
        expect("offsets", [record["offset"] for record in got], list(range(start, start + count)))
        return [
            Sent(
                decoded(record["key"]),
                decoded(record["value"]),
                tuple((header["key"], decoded(header["value"])) for header in record["headers"] or ()),
                record["timestamp"],
            )
            for record in got
        ]

    def offset_for_time(self, topic: str, partition: int, timestamp: int) -> int | None:
        found = self.ask("time", topic=topic, partition=partition, timestamp=timestamp)
        return found if found >= 0 else None

    def bounds(self, topic: str, partition: int) -> tuple[int, int]:
        low, high = self.ask("bounds", topic=topic, partition=partition)
        return low, high

    def refused_as_too_large(self, topic: str, value: bytes) -> bool:
        return self.ask("too large", topic=topic, size=len(value))

    def administer(self, topic: str) -> None:
        about = {"topic": topic, "partitions": 2, "configs": {"retention.ms": "123456789"}}
        self.ask("create", **about)
        with Wire(self.bootstrap) as wire:
            wire.wait_served(topic, 2)
        try:
            self.ask("create", **about)
            raise AssertionError("a topic was created twice")
        except Refused as error:
            expect(f"{error} says that it exists", "exist" in str(error).lower(), True)
        expect("retention.ms", self.ask("config", topic=topic, name="retention.ms"), "123456789")
        if "grow" not in self.lacks:
            self.ask("grow", topic=topic, partitions=5)
            eventually("partitions", lambda: self.ask("partitions", topic=topic), 5)
        self.ask("alter", topic=topic, name="retention.ms", value="987654321")
        eventually("altered", lambda: self.ask("config", topic=topic, name="retention.ms"), "987654321")
        if "delete records" not in self.lacks:
            self.produce(topic, [(1, Sent(None, b"x"))] * 10, "none", idempotent=False)
            self.ask("delete records", topic=topic, partition=1, before=4)
            expect("bounds", self.bounds(topic, 1), (4, 10))
        expect("brokers", self.ask("brokers"), 1)
        self.ask("delete", topic=topic)
        eventually("still listed", lambda: topic in self.ask("topics"), False)

    def groups(self) -> list[str]:
        return self.ask("groups")

    def described(self, group: str) -> tuple[str, int]:
        state, members = self.ask("describe", group=group)
        return state.lower(), members

    def committed(self, group: str, topic: str, partition: int) -> int:
        return self.ask("committed", group=group, topic=topic, partition=partition)

    def delete_group(self, group: str) -> None:
        self.ask("delete group", group=group)
