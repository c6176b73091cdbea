"""kcat (librdkafka as a distribution ships it) against one broker."""

from __future__ import annotations

import re
import subprocess
import time
from collections.abc import Callable, Iterator
from functools import partial

from harness import programs
from harness.table import Result, attempt, expect
from harness.wire import CODECS, Wire

SHOW = "%K:%k %S:%s [%h]\\n"
LINES = "".join(f"key-{n}\tvalue {n} {'x' * (n % 90)}\n" if n % 7 else f"key-{n}\t\n" for n in range(1000))
REPEATED = "a header so long that even a batch of one record shrinks, " * 5
HEADERS = ("-H", "one=1", "-H", f"two={REPEATED}")


def version() -> str:
    banner = subprocess.run([programs.kcat(), "-V"], capture_output=True, text=True, check=True).stdout
    return " ".join(re.search(r"Version (\S+) .*(librdkafka \S+)", banner).groups())


def kcat(bootstrap: str, *arguments: str, text: str = "", timeout: float = 60.0) -> str:
    """Run kcat with some input; its output. Any failure, and any complaint on stderr, raises."""
    command = [programs.kcat(), "-b", bootstrap, "-q", "-m", "30", *arguments]
    done = subprocess.run(command, input=text, capture_output=True, text=True, timeout=timeout)
    if done.returncode != 0 or done.stderr:
        raise AssertionError(f"kcat {' '.join(arguments)} ended with {done.returncode}: {done.stderr[-300:]}")
    return done.stdout


def shown(lines: str, headers: str) -> str:
    """What SHOW prints for produced lines."""
    pairs = [line.split("\t") for line in lines.splitlines()]
    return "".join(
        f"{len(key)}:{key} {len(value) if value else -1}:{value if value else 'NULL'} [{headers}]\n"
        for key, value in pairs
    )


def round_trip(bootstrap: str, topic: str, codec: str) -> dict[str, str]:
    began = int(time.time() * 1000)
    options = ["-X", f"compression.codec={codec}", "-X", "linger.ms=500"]
    kcat(bootstrap, "-P", "-t", topic, "-p", "0", "-K", "\t", "-Z", *options, *HEADERS, text=LINES)
    read = ["-C", "-t", topic, "-p", "0", "-o", "beginning", "-e"]
    got = kcat(bootstrap, *read, "-Z", "-f", SHOW)
    expect("records", got, shown(LINES, f"one=1,two={REPEATED}"))
    times = [int(line) for line in kcat(bootstrap, *read, "-f", "%T\\n").splitlines()]
    with Wire(bootstrap) as wire:
        expect("largest timestamp", max(times), max(batch.max_timestamp for batch in wire.stored(topic, 0)))
    if min(times) < began or max(times) > time.time() * 1000:
        raise AssertionError(f"timestamps {min(times)}..{max(times)} lie outside of the run")
    return {topic: codec}


def idempotent(bootstrap: str, topic: str) -> None:
    options = ["-X", "enable.idempotence=true", "-X", "acks=all", "-X", "batch.num.messages=50"]
    kcat(bootstrap, "-P", "-t", topic, "-p", "0", "-K", "\t", "-Z", *options, text=LINES)
    got = kcat(bootstrap, "-C", "-t", topic, "-p", "0", "-o", "beginning", "-e", "-Z", "-f", SHOW)
    expect("records", got, shown(LINES, ""))
    with Wire(bootstrap) as wire:
        expect("batches without a producer id", sum(b.producer_id < 0 for b in wire.stored(topic, 0)), 0)


def listing(bootstrap: str, topic: str) -> None:
    with Wire(bootstrap) as wire:
        expect("create", wire.create_topic(topic, 3), 0)
    text = kcat(bootstrap, "-L", "-t", topic)
    expect("lines of partitions", len(re.findall(r"partition \d, leader \d+, replicas: \d+, isrs: \d+", text)), 3)
    expect("brokers", len(re.findall(rf"broker \d+ at {re.escape(bootstrap)}", text)), 1)
    expect("all topics hold it", f'topic "{topic}"' in kcat(bootstrap, "-L"), True)


def query(bootstrap: str, topic: str) -> None:
    kcat(bootstrap, "-P", "-t", topic, "-p", "0", text="one\n")
    middle = int(time.time() * 1000) + 5
    time.sleep(0.01)
    kcat(bootstrap, "-P", "-t", topic, "-p", "0", text="two\nthree\n")
    for when, offset in ((0, 0), (middle, 1), (-2, 0), (-1, 3)):
        expect(f"offset at {when}", kcat(bootstrap, "-Q", "-t", f"{topic}:0:{when}"), f"{topic} [0] offset {offset}\n")
    expect("from a time on", kcat(bootstrap, "-C", "-t", topic, "-p", "0", "-o", f"s@{middle}", "-e"), "two\nthree\n")
    expect("the last record", kcat(bootstrap, "-C", "-t", topic, "-p", "0", "-o", "-1", "-e"), "three\n")


def group(bootstrap: str, topic: str) -> None:
    """kcat -G: reads as a member, commits when it ends, and goes on there."""
    with Wire(bootstrap) as wire:
        expect("create", wire.create_topic(topic, 3), 0)
    read = ["-G", f"{topic}-g", "-X", "auto.offset.reset=earliest", "-f", "%s\\n"]
    for life in range(3):
        lines = [f"{life}-{n}" for n in range(90)]
        for place in range(3):
            kcat(bootstrap, "-P", "-t", topic, "-p", str(place), text="".join(f"{it}\n" for it in lines[place::3]))
        got = kcat(bootstrap, "-c", str(len(lines)), *read, topic).splitlines()
        expect(f"read in life {life}", sorted(got), sorted(lines))


def member(bootstrap: str) -> Callable[[str, str, str, str], list[str]]:
    """The command line of a member; see `groups.py`. It commits by itself: every tenth of a second, and at its end."""

    def command(group: str, topic: str, assignor: str, instance: str) -> list[str]:
        session = ["session.timeout.ms=" + ("30000" if instance else "10000"), "heartbeat.interval.ms=500"]
        commits = ["auto.offset.reset=earliest", "auto.commit.interval.ms=100"]
        options = [f"partition.assignment.strategy={assignor}", *session, *commits]
        options += [f"group.instance.id={instance}"] if instance else []
        given = [part for option in options for part in ("-X", option)]
        return [programs.kcat(), "-b", bootstrap, "-u", "-f", "READ %p %o %s\\n", *given, "-G", group, topic]

    return command


def large_value(bootstrap: str, topic: str) -> None:
    value = "0123456789" * 90_000
    kcat(bootstrap, "-P", "-t", topic, "-p", "0", text=value + "\n")
    expect("value", kcat(bootstrap, "-C", "-t", topic, "-p", "0", "-o", "beginning", "-e"), value + "\n")


def many_partitions(bootstrap: str, topic: str) -> None:
    with Wire(bootstrap) as wire:
        expect("create", wire.create_topic(topic, 64), 0)
    kcat(
        bootstrap,
        "-P",
        "-t",
        topic,
        "-K",
        "\t",
        "-X",
        "partitioner=murmur2_random",
        text=LINES.replace("\t\n", "\t-\n"),
    )
    got = kcat(bootstrap, "-C", "-t", topic, "-o", "beginning", "-e", "-f", "%p %k\\n").splitlines()
    expect("keys", {line.split()[1] for line in got}, {f"key-{n}" for n in range(1000)})
    expect("partitions in use", len({line.split()[0] for line in got}), 64)
    expect("records", len(got), 1000)


def results(bootstrap: str) -> Iterator[Result]:
    prefix = f"kcat-{time.time_ns():x}"
    for codec in CODECS:
        yield attempt(f"round trip, {codec}", partial(round_trip, bootstrap, f"{prefix}-{codec}", codec))
    yield attempt("idempotent", partial(idempotent, bootstrap, f"{prefix}-idempotent"))
    yield attempt("-L", partial(listing, bootstrap, f"{prefix}-list"))
    yield attempt("-Q, seek by time", partial(query, bootstrap, f"{prefix}-time"))
    yield attempt("large value", partial(large_value, bootstrap, f"{prefix}-large"))
    yield attempt("-G", partial(group, bootstrap, f"{prefix}-group"))
    yield attempt("64 partitions", partial(many_partitions, bootstrap, f"{prefix}-many"))
