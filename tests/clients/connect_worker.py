"""Kafka Connect, one standalone worker: a file into a topic, and the topic into a file."""

from __future__ import annotations

import random
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from harness import brokers, programs
from harness.table import Result, attempt, eventually, expect
from harness.wire import LATEST, Wire

LINES = 5000
LATER_LINES = 2000
WAIT_SECONDS = 120.0
NEWLINE = b"\n"
WORKER = {
    "key.converter": "org.apache.kafka.connect.storage.StringConverter",
    "value.converter": "org.apache.kafka.connect.storage.StringConverter",
    "offset.flush.interval.ms": "1000",
    "plugin.discovery": "service_load",
}


def lines(count: int, seed: int) -> str:
    """Lines of every length, some empty. ASCII: the source counts characters, and later skips so many bytes."""
    draw = random.Random(seed)
    return "".join(f"{n} {'x' * draw.randrange(200)} {n}\n" if n % 9 else "\n" for n in range(count))


def properties(path: Path, **given: str) -> str:
    path.write_text("".join(f"{key}={value}\n" for key, value in given.items()))
    return str(path)


class Worker:
    """A worker with a connector each way, on files in a directory of its own."""

    def __init__(self, bootstrap: str, topic: str, home: Path) -> None:
        self.source, self.sink, self.log = home / "in", home / "out", home / "log"
        names = {"bootstrap.servers": bootstrap, "offset.storage.file.filename": str(home / "offsets")}
        rest = {"listeners": f"http://127.0.0.1:{brokers.free_port()}"}
        created = {"topic.creation.default.partitions": "1", "topic.creation.default.replication.factor": "1"}
        one_way = {"connector.class": "FileStreamSource", "file": str(self.source), "topic": topic, **created}
        other_way = {"connector.class": "FileStreamSink", "file": str(self.sink), "topics": topic}
        self.files = [
            properties(home / "worker.properties", **WORKER, **names, **rest),
            properties(home / "source.properties", name=f"{topic}-source", **one_way),
            properties(home / "sink.properties", name=f"{topic}-sink", **other_way),
        ]
        self.process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Worker:
        command = ["java", "-Xmx512m", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1", "-cp", programs.connect()]
        with open(self.log, "ab") as log:
            started = [*command, "org.apache.kafka.connect.cli.ConnectStandalone", *self.files]
            self.process = subprocess.Popen(started, stdin=subprocess.DEVNULL, stdout=log, stderr=log)
        return self

    def __exit__(self, *_: object) -> None:
        self.process.kill()
        self.process.wait()

    def stop(self) -> None:
        self.process.terminate()
        # What a Java program ends with after SIGTERM.
        expect("exit code", self.process.wait(WAIT_SECONDS), 143)

    def copied(self) -> None:
        """Wait until the one file holds what the other holds."""

        def stands() -> str:
            if self.process.poll() is not None:
                raise AssertionError(f"the worker ended: {self.log.read_text()[-1500:]}")
            wanted, got = self.source.read_bytes(), self.sink.read_bytes() if self.sink.exists() else b""
            return "equal" if wanted == got else f"{got.count(NEWLINE)} of {wanted.count(NEWLINE)} lines"

        eventually("the copy", stands, "equal", WAIT_SECONDS)


def there_and_back(bootstrap: str, topic: str) -> None:
    """What is written into the file comes out; after a clean stop both connectors go on where they were."""
    with tempfile.TemporaryDirectory(prefix="ottla-connect-") as home:
        with Worker(bootstrap, topic, Path(home)) as worker:
            worker.source.write_text(lines(LINES, 1))
            worker.copied()
            worker.stop()
        with worker.source.open("a") as more:
            more.write(lines(LATER_LINES, 2))
        with worker:
            worker.copied()
            worker.stop()
        with Wire(bootstrap) as wire:
            expect("records, each line once", wire.offset(topic, 0, LATEST), LINES + LATER_LINES)


def results(bootstrap: str) -> Iterator[Result]:
    topic = f"connect-{time.time_ns():x}"
    yield attempt("file to topic to file, stop, go on", lambda: there_and_back(bootstrap, topic))
