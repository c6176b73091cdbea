"""The clients under test: how each is installed, what it runs, and how its members join groups."""

from __future__ import annotations

import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import connect_worker
import kafka_groups
import kafka_tools
import kcat_client
import scenarios
from groups import CONSUMER, Program, Way
from harness import programs
from harness.table import Result, parse
from remote import Remote

HERE = Path(__file__).resolve().parent
CLIENT_SECONDS = 300.0


@dataclass(frozen=True)
class Client:
    name: str
    install: Callable[[], str]
    """Installs it; its version."""
    results: Callable[[str], Iterator[Result]]
    program: Callable[[str], Program] | None = None
    """Its program for members of groups, on a broker."""
    ways: tuple[Way, ...] = ()


def output_results(*command: str) -> Iterator[Result]:
    """The results that a client program prints; one that dies is a failure of its own."""
    with tempfile.TemporaryFile("w+") as errors:
        process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=errors, text=True)
        deadline = time.monotonic() + CLIENT_SECONDS
        with process:
            for line in process.stdout:
                result = parse(line)
                if result:
                    yield result
                if time.monotonic() > deadline:
                    process.kill()
            code = process.wait()
        errors.seek(0)
        said = errors.read()
    sys.stderr.write(said)
    if code != 0:
        yield Result("the program's end", False, f"exit code {code}: {said[-300:]}".replace("\n", " | "))


def members(command: Callable[[], list[str]], quits_on: signal.Signals | None = None) -> Callable[[str], Program]:
    """A client's program that is told by its arguments to be a member; see `groups.py`."""

    def program(bootstrap: str) -> Program:
        def line(group: str, topic: str, assignor: str, instance: str) -> list[str]:
            return [*command(), "member", bootstrap, group, topic, assignor, instance]

        return Program(line, quits_on)

    return program


def python_client(package: str, script: str, ways: tuple[Way, ...], quits_on: signal.Signals | None = None) -> Client:
    def command() -> list[str]:
        return [programs.python(), str(HERE / script)]

    def install() -> str:
        ask = f"import importlib.metadata; print(importlib.metadata.version({package!r}))"
        return subprocess.run([programs.python(), "-c", ask], capture_output=True, text=True, check=True).stdout.strip()

    member = members(command, quits_on)
    return Client(package, install, lambda bootstrap: output_results(*command(), bootstrap), member, ways)


def java_client(name: str, version: str, ways: tuple[Way, ...]) -> Client:
    def command() -> list[str]:
        options = ["-Xmx512m", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1"]
        return ["java", *options, "-cp", programs.java_client(version), "ottla.ClientTest"]

    def install() -> str:
        jars = programs.java_client(version).split(":")
        return next(Path(jar).stem.removeprefix("kafka-clients-") for jar in jars if "/kafka-clients-" in jar)

    return Client(name, install, lambda bootstrap: output_results(*command(), bootstrap), members(command), ways)


def remote_client(
    name: str,
    command: Callable[[], list[str]],
    ways: tuple[Way, ...],
    sends_nothing: bool = True,
    lacks: tuple[str, ...] = (),
) -> Client:
    """A client whose program is driven call by call; see `remote.py`."""

    def install() -> str:
        asked = subprocess.run([*command(), "version"], capture_output=True, text=True, check=True)
        return asked.stdout.strip()

    def run(bootstrap: str) -> Iterator[Result]:
        remote = Remote(bootstrap, command(), ways[0].assignor, sends_nothing, lacks)
        try:
            yield from scenarios.results(remote, name)
        finally:
            remote.close()

    return Client(name, install, run, members(command), ways)


def install_tools() -> str:
    subprocess.run([programs.KAFKA, "classpath"], check=True, stdout=subprocess.DEVNULL)
    command = programs.kafka_tool(programs.Tool.TOPICS, "--version")
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.split()[0]


def install_connect() -> str:
    jars = programs.connect().split(":")
    return next(Path(jar).stem.removeprefix("connect-runtime-") for jar in jars if "/connect-runtime-" in jar)


RANGE, COOPERATIVE = Way("range"), Way("cooperative-sticky")
KCAT_WAYS = (Way("range", handover="never"),)
"""kcat throws away the record that it has in hand when it is told to end, and commits that it was read."""
LIBRDKAFKA_WAYS = (RANGE, Way("cooperative-sticky", handover="again"))
"""librdkafka 1.9.2 gives up all its partitions when a commit comes in the middle of a cooperative rebalance."""
ROUND_ROBIN = Way("roundrobin", static=())
KILLED = ("kill", "kill")
PLATFORMATIC_WAYS = (
    Way("roundrobin", static=KILLED, handover="again"),
    Way("cooperative-sticky", static=KILLED),
    Way("consumer", "consumer", static=()),
)
"""@platformatic/kafka 2.12.1 leaves its group when it is closed, static or not, and joins again amid a commit."""
FRANZ_WAYS = (RANGE, COOPERATIVE, Way("consumer", "consumer", static=()))
"""franz-go 1.22.2 leaves groups of the consumer protocol without its instance id: Kafka refuses; the name stays taken."""
CLIENTS = (
    Client(
        "kcat",
        lambda: programs.kcat() and kcat_client.version(),
        kcat_client.results,
        lambda bootstrap: Program(kcat_client.member(bootstrap), signal.SIGTERM, commits_each=False),
        KCAT_WAYS,
    ),
    python_client("confluent-kafka", "confluent_client.py", (RANGE, COOPERATIVE, CONSUMER)),
    remote_client("librdkafka", lambda: [programs.librdkafka_old()], LIBRDKAFKA_WAYS, lacks=("delete records",)),
    python_client("kafka-python", "kafka_python_client.py", (RANGE, COOPERATIVE), signal.SIGTERM),
    java_client("java", "4.3.1", (RANGE, COOPERATIVE, CONSUMER)),
    java_client("java-3.9", "3.9.2", (RANGE, COOPERATIVE)),
    remote_client("franz-go", lambda: [str(programs.go_clients() / "franz")], FRANZ_WAYS),
    remote_client("sarama", lambda: [str(programs.go_clients() / "sarama")], (RANGE, Way("sticky"))),
    remote_client("kafkajs", lambda: programs.node_client("kafkajs.mjs"), (ROUND_ROBIN,), sends_nothing=False),
    remote_client("platformatic", lambda: programs.node_client("platformatic.mjs"), PLATFORMATIC_WAYS),
    Client("kafka-tools", install_tools, kafka_tools.results),
    Client("kafka-groups", install_tools, kafka_groups.results),
    Client("connect", install_connect, connect_worker.results),
)
