"""Apache Kafka's own command-line tools against one broker."""

from __future__ import annotations

import json
import re
import subprocess
import tempfile
import time
from collections.abc import Iterator
from functools import partial

from harness import programs
from harness.programs import Tool
from harness.table import Result, attempt, eventually, expect

LINES = "".join(f"h:header {n}\tkey-{n}\tvalue {n} {'y' * (n % 60)}\n" for n in range(300))


def tool(bootstrap: str, main: str, *arguments: str, text: str = "", wanted: int = 0) -> str:
    """Run one tool; its output. Another exit code than the wanted one raises."""
    command = programs.quick_kafka_tool(main, "--bootstrap-server", bootstrap, *arguments)
    done = subprocess.run(command, input=text, capture_output=True, text=True, timeout=120)
    if done.returncode != wanted:
        raise AssertionError(
            f"{main} {' '.join(arguments)} ended with {done.returncode}: {done.stdout}{done.stderr[-600:]}"
        )
    return done.stdout + (done.stderr if wanted else "")


def produce(bootstrap: str, topic: str, codec: str) -> None:
    reader = ["--reader-property", "parse.key=true", "--reader-property", "parse.headers=true"]
    options = ["--topic", topic, "--compression-codec", codec, "--command-property", "linger.ms=100"]
    tool(bootstrap, Tool.CONSOLE_PRODUCER, *options, *reader, text=LINES)


def consume(bootstrap: str, topic: str, offset: str, count: int) -> str:
    show = [part for field in ("key", "headers") for part in ("--formatter-property", f"print.{field}=true")]
    place = ["--topic", topic, "--partition", "0", "--offset", offset, "--max-messages", str(count)]
    return tool(bootstrap, Tool.CONSOLE_CONSUMER, *place, *show, "--timeout-ms", "30000")


def topics(bootstrap: str, topic: str) -> None:
    """kafka-topics: create, list, describe, alter, delete."""
    create = ["--create", "--topic", topic, "--partitions", "2", "--config", "retention.ms=1234567"]
    tool(bootstrap, Tool.TOPICS, *create)
    again = tool(bootstrap, Tool.TOPICS, *create, wanted=1)
    expect("created again", "already exists" in again, True)
    expect("listed", topic in tool(bootstrap, Tool.TOPICS, "--list").splitlines(), True)
    described = tool(bootstrap, Tool.TOPICS, "--describe", "--topic", topic)
    expect("partition count", re.findall(r"PartitionCount: (\d+)", described), ["2"])
    expect("config", "retention.ms=1234567" in described, True)
    tool(bootstrap, Tool.TOPICS, "--alter", "--topic", topic, "--partitions", "5")
    eventually("partitions", lambda: lines_of_partitions(bootstrap, topic), 5, seconds=20)
    tool(bootstrap, Tool.TOPICS, "--delete", "--topic", topic)
    gone = partial(tool, bootstrap, Tool.TOPICS, "--list")
    eventually("still listed", lambda: topic in gone().splitlines(), False, seconds=20)


def lines_of_partitions(bootstrap: str, topic: str) -> int:
    return tool(bootstrap, Tool.TOPICS, "--describe", "--topic", topic).count("\tPartition: ")


def configs(bootstrap: str, topic: str) -> None:
    """kafka-configs: alter and describe a topic."""
    tool(bootstrap, Tool.TOPICS, "--create", "--topic", topic)
    entity = ["--entity-type", "topics", "--entity-name", topic]
    tool(bootstrap, Tool.CONFIGS, "--alter", *entity, "--add-config", "retention.bytes=123456789,segment.bytes=2097152")
    described = tool(bootstrap, Tool.CONFIGS, "--describe", *entity)
    expect(
        "set",
        sorted(re.findall(r"^  ([a-z.]+=\d+) ", described, re.M)),
        ["retention.bytes=123456789", "segment.bytes=2097152"],
    )
    tool(bootstrap, Tool.CONFIGS, "--alter", *entity, "--delete-config", "retention.bytes")
    described = tool(bootstrap, Tool.CONFIGS, "--describe", *entity, "--all")
    expect("deleted", re.findall(r"^  (retention.bytes=-?\d+) ", described, re.M), ["retention.bytes=-1"])
    expect("kept", re.findall(r"^  (segment.bytes=\d+) ", described, re.M), ["segment.bytes=2097152"])


def console(bootstrap: str, topic: str, codec: str) -> dict[str, str]:
    """Console producer and consumer, by partition."""
    tool(bootstrap, Tool.TOPICS, "--create", "--topic", topic)
    produce(bootstrap, topic, codec)
    expect("lines", consume(bootstrap, topic, "earliest", 300), LINES)
    return {topic: codec}


def offsets(bootstrap: str, topic: str) -> None:
    """kafka-get-offsets, console consumer from an offset, kafka-delete-records, kafka-log-dirs."""
    tool(bootstrap, Tool.TOPICS, "--create", "--topic", topic)
    produce(bootstrap, topic, "none")
    for when, offset in (("-1", 300), ("-2", 0), ("1", 0), ("-3", 299)):
        found = tool(bootstrap, Tool.GET_OFFSETS, "--topic", topic, "--time", when)
        if when == "-3":
            expect(
                f"a record has the largest timestamp: {found}", re.fullmatch(rf"{topic}:0:\d+\n", found) is None, False
            )
        else:
            expect(f"offset at {when}", found, f"{topic}:0:{offset}\n")
    expect("from offset 290", consume(bootstrap, topic, "290", 10), "".join(LINES.splitlines(True)[290:]))
    delete_records(bootstrap, topic)
    expect("new start", tool(bootstrap, Tool.GET_OFFSETS, "--topic", topic, "--time", "earliest"), f"{topic}:0:120\n")
    text = tool(bootstrap, Tool.LOG_DIRS, "--describe", "--topic-list", topic)
    described = json.loads(text[text.index("{") :])
    held = [p for broker in described["brokers"] for dir in broker["logDirs"] for p in dir["partitions"]]
    expect("partitions held", [p["partition"] for p in held], [f"{topic}-0"])
    expect(f"size {held[0]['size']} is that of the records", held[0]["size"] > 5000, True)


def delete_records(bootstrap: str, topic: str) -> None:
    with tempfile.NamedTemporaryFile("w", suffix=".json") as file:
        json.dump({"version": 1, "partitions": [{"topic": topic, "partition": 0, "offset": 120}]}, file)
        file.flush()
        said = tool(bootstrap, Tool.DELETE_RECORDS, "--offset-json-file", file.name)
    expect("low watermark", re.findall(r"low_watermark: (\d+)", said), ["120"])


def performance(bootstrap: str, topic: str) -> None:
    """kafka-producer-perf-test, idempotent with five in flight (its default)."""
    tool(bootstrap, Tool.TOPICS, "--create", "--topic", topic, "--partitions", "4")
    load = ["--num-records", "50000", "--record-size", "500", "--throughput", "-1"]
    said = tool(bootstrap, Tool.PRODUCER_PERFORMANCE, "--topic", topic, *load)
    expect("records sent", "50000 records sent" in said, True)
    ends = tool(bootstrap, Tool.GET_OFFSETS, "--topic", topic)
    expect("records stored", sum(int(line.rsplit(":", 1)[1]) for line in ends.splitlines()), 50_000)


def groups(bootstrap: str, topic: str) -> None:
    """Console consumer in a group; kafka-consumer-groups: list, describe, reset, delete offsets, delete."""
    tool(bootstrap, Tool.TOPICS, "--create", "--topic", topic, "--partitions", "1")
    produce(bootstrap, topic, "none")
    group = f"{topic}-g"
    member = ["--topic", topic, "--group", group, "--timeout-ms", "30000"]
    lines = "".join(line.split("\t")[-1] for line in LINES.splitlines(True))
    first = [*member, "--from-beginning", "--max-messages", "100"]
    expect("the first hundred", tool(bootstrap, Tool.CONSOLE_CONSUMER, *first), "".join(lines.splitlines(True)[:100]))
    rest = [*member, "--max-messages", "200"]
    expect("the rest", tool(bootstrap, Tool.CONSOLE_CONSUMER, *rest), "".join(lines.splitlines(True)[100:]))
    of = partial(tool, bootstrap, Tool.CONSUMER_GROUPS)
    expect("listed", group in of("--list").splitlines(), True)
    described = of("--describe", "--group", group)
    expect("lag", re.findall(rf"{topic}\s+0\s+(\d+)\s+(\d+)\s+(\d+)", described), [("300", "300", "0")])
    expect("state", "Empty" in of("--describe", "--group", group, "--state"), True)
    reset = ["--reset-offsets", "--group", group, "--topic", topic, "--to-offset", "250"]
    of(*reset, "--dry-run")
    expect("only tried", "300" in of("--describe", "--group", group), True)
    of(*reset, "--execute")
    described = of("--describe", "--group", group)
    expect("lag after the reset", re.findall(rf"{topic}\s+0\s+(\d+)\s+(\d+)\s+(\d+)", described), [("250", "300", "50")])
    exported = of("--reset-offsets", "--group", group, "--all-topics", "--to-current", "--export", "--dry-run")
    expect("exported", f'"{topic}",0,250' in exported or f"{topic},0,250" in exported, True)
    of("--delete-offsets", "--group", group, "--topic", topic)
    expect("without offsets", topic in of("--describe", "--group", group), False)
    of("--delete", "--group", group)
    expect("still listed", group in of("--list").splitlines(), False)


def results(bootstrap: str) -> Iterator[Result]:
    prefix = f"tools-{time.time_ns():x}"
    yield attempt("kafka-topics", partial(topics, bootstrap, f"{prefix}-topics"))
    yield attempt("kafka-configs", partial(configs, bootstrap, f"{prefix}-configs"))
    for codec in ("none", "gzip", "snappy", "lz4", "zstd"):
        yield attempt(f"console round trip, {codec}", partial(console, bootstrap, f"{prefix}-{codec}", codec))
    yield attempt("get-offsets, delete-records, log-dirs", partial(offsets, bootstrap, f"{prefix}-offsets"))
    yield attempt("console consumer in a group, consumer-groups", partial(groups, bootstrap, f"{prefix}-groups"))
    yield attempt("producer-perf-test", partial(performance, bootstrap, f"{prefix}-perf"))
