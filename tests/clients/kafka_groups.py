"""Apache Kafka's own kafka-consumer-groups with all its options, on groups of both protocols.

What it is expected to say is what it says of Apache Kafka after the same steps. It ends with exit code 0 when a broker
refuses, so that only its words tell.
"""

from __future__ import annotations

import re
import subprocess
import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

from groups import CONSUMER, Group, Program, Way
from harness import brokers, programs
from harness.programs import Tool
from harness.table import Result, attempt, eventually, expect
from harness.wire import Wire, batch_of

HERE = Path(__file__).resolve().parent
AT_ONCE = 2
"""So many runs of the tool at a time: each is a Java machine that starts."""
EACH = 25
"""Records in each partition that members read."""
OLD_MS = 1_700_000_000_000
"""The time of the older records: in November 2023."""
STATE_COLUMNS = ("COORDINATOR (ID)", "GROUP-EPOCH", "TARGET-ASSIGNMENT-EPOCH")
JAVA_NOTE = re.compile(r"^NOTE: Picked up .*\n", re.M)
Rows = list[dict[str, str]]


def run(bootstrap: str, arguments: list[str], wanted: int = 0) -> str:
    """What the tool says, complaints first. Another exit code than the wanted one raises."""
    where = [] if "--validate-regex" in arguments else ["--bootstrap-server", bootstrap]
    command = programs.quick_kafka_tool(Tool.CONSUMER_GROUPS, *where, *arguments)
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    if done.returncode != wanted:
        raise AssertionError(f"{' '.join(arguments)} ended with {done.returncode}: {done.stdout}{done.stderr[-600:]}")
    return JAVA_NOTE.sub("", done.stderr) + done.stdout


def runs(bootstrap: str, *commands: list[str]) -> list[str]:
    """The same for several that do not need each other."""
    with ThreadPoolExecutor(AT_ONCE) as pool:
        return list(pool.map(partial(run, bootstrap), commands))


def rows(said: str) -> Rows:
    """The rows of the tables in what the tool says, by the names of their columns."""
    columns: list[re.Match] = []
    found: Rows = []
    for line in said.splitlines():
        if line.startswith(("GROUP ", "TOPIC ")):
            columns = list(re.finditer(r"\S+( \(ID\))?", line))
        elif columns and line.strip():
            ends = [column.start() for column in columns[1:]] + [None]
            found.append({c[0]: line[c.start() : end].strip() for c, end in zip(columns, ends, strict=True)})
    return found


def of(group: str, table: Rows, *columns: str) -> list[tuple[str, ...]]:
    """What the group's rows say in these columns, in order."""
    return sorted(tuple(row[column] for column in columns) for row in table if row["GROUP"] == group)


def says(what: str, said: str, *wanted: str) -> None:
    """All of it must be there."""
    for words in wanted:
        if words not in said:
            raise AssertionError(f"{what}: no {words!r} in {said}")


def exported(said: str) -> list[str]:
    """The lines of an export, in order."""
    return sorted(line.replace('"', "") for line in said.splitlines() if re.search(r",\d+,\d+$", line))


def member_program(bootstrap: str) -> Program:
    """Members that start fast: of librdkafka."""

    def line(group: str, topic: str, assignor: str, instance: str) -> list[str]:
        script = str(HERE / "confluent_client.py")
        return [programs.python(), script, "member", bootstrap, group, topic, assignor, instance]

    return Program(line)


def living(bootstrap: str, topic: str, way: Way, instance: str) -> None:
    """A group with two members, one of which may be static: all that can be seen of it, and what is refused."""
    group = f"{topic}-g"
    with Group(bootstrap, member_program(bootstrap), way, topic, 2) as members:
        members.produce(EACH)
        one, other = members.join(instance), members.join()
        members.shared(one, other)
        members.all_read()
        with Wire(bootstrap) as wire:
            eventually("committed", lambda: wire.committed(group, topic, 2), [EACH, EACH])
        seen(bootstrap, group, topic, way, instance)
        listed(bootstrap, group, way)
        refused(bootstrap, group, topic)
        one.stop()
        other.stop()
    if not instance:
        # A static member's seat is kept until its session ends.
        left_behind(bootstrap, group, topic)


def seen(bootstrap: str, group: str, topic: str, way: Way, instance: str) -> None:
    """--describe with --state, --offsets and --members, with --verbose."""
    describe = ["--describe", "--group", group]
    epoch = stable(bootstrap, group, way)
    asked = [[*describe, "--offsets", "--verbose"], [*describe, "--members", "--verbose"]]
    # Less of the same is enough to see once.
    asked += [describe, [*describe, "--members"]] if way.protocol == "classic" else []
    offsets, members, *shorter = (rows(said) for said in runs(bootstrap, *asked))
    places = [(topic, str(partition), str(EACH), str(EACH), "0", "/127.0.0.1") for partition in (0, 1)]
    columns = ("TOPIC", "PARTITION", "CURRENT-OFFSET", "LOG-END-OFFSET", "LAG", "HOST")
    readers = of(group, offsets, "CONSUMER-ID")
    expect("readers", len(set(readers)), 2)
    for table in (offsets, *shorter[:1]):
        expect("offsets", of(group, table, *columns), places)
    expect("leader epochs, which librdkafka does not commit", of(group, offsets, "LEADER-EPOCH"), [("-",), ("-",)])
    for table in (members, *shorter[1:]):
        expect("members", of(group, table, "CONSUMER-ID"), readers)
        expect("where they are", of(group, table, "HOST", "#PARTITIONS"), [("/127.0.0.1", "1")] * 2)
        expect("static members", sorted(row.get("GROUP-INSTANCE-ID", "") for row in table), ["", instance])
    share = [f"{topic}:0", f"{topic}:1"]
    aims = share if way.protocol == "consumer" else ["-", "-"]
    shares = of(group, members, "CURRENT-ASSIGNMENT", "TARGET-ASSIGNMENT", "CURRENT-EPOCH", "TARGET-EPOCH")
    expect("shares", shares, [(*pair, epoch, epoch) for pair in zip(share, aims, strict=True)])


def stable(bootstrap: str, group: str, way: Way) -> str:
    """--describe --state --verbose of a group that has settled; the epoch that it shows."""
    found: Rows = []

    def state() -> list[tuple[str, ...]]:
        found[:] = rows(run(bootstrap, ["--describe", "--group", group, "--state", "--verbose"]))
        return of(group, found, "ASSIGNMENT-STRATEGY", "STATE", "#MEMBERS")

    assignor = "uniform" if way.protocol == "consumer" else way.assignor
    eventually("the group", state, [(assignor, "Stable", "2")], seconds=30)
    coordinator, epoch, target = (found[0][column] for column in STATE_COLUMNS)
    expect(f"coordinator {coordinator}", re.fullmatch(r"\S+:\d+ +\(\d+\)", coordinator) is None, False)
    expect("epochs", (epoch.isdecimal(), epoch == target), (way.protocol == "consumer", True))
    return epoch


def listed(bootstrap: str, group: str, way: Way) -> None:
    """--list with --state and --type, with and without filters."""
    name = way.protocol.capitalize()
    if way.protocol == "classic":
        types, missed = runs(bootstrap, ["--list", "--type"], ["--list", "--state", "stable", "--type", "consumer"])
        expect("with types", of(group, rows(types), "TYPE"), [(name,)])
        expect("of the other type", of(group, rows(missed), "STATE"), [])
        return
    states, found, missed = runs(
        bootstrap,
        ["--list", "--state"],
        ["--list", "--state", "empty,stable", "--type", "classic,consumer"],
        ["--list", "--state", "assigning,empty", "--type", "consumer"],
    )
    expect("with states", of(group, rows(states), "STATE"), [("Stable",)])
    expect("found by both", of(group, rows(found), "TYPE", "STATE"), [(name, "Stable")])
    expect("in another state", of(group, rows(missed), "STATE"), [])


def refused(bootstrap: str, group: str, topic: str) -> None:
    """What is not done to a group that has members."""
    delete, reset, forget = runs(
        bootstrap,
        ["--delete", "--group", group],
        ["--reset-offsets", "--group", group, "--topic", topic, "--to-earliest", "--execute"],
        ["--delete-offsets", "--group", group, "--topic", topic],
    )
    failed = f"* Group '{group}' could not be deleted due to: "
    says("delete", delete, failed, "GroupNotEmptyException: The group is not empty.")
    inactive = f"Assignments can only be reset if the group '{group}' is inactive, but the current state is Stable."
    says("reset", reset, f"Error: {inactive}")
    says("delete offsets", forget, "Encountered some partition-level error", "actively subscribed to it")
    expect("partitions that were refused", len(re.findall(rf"^{topic} .* Error: ", forget, re.M)), 2)
    with Wire(bootstrap) as wire:
        expect("offsets after all this", wire.committed(group, topic, 2), [EACH, EACH])


def left_behind(bootstrap: str, group: str, topic: str) -> None:
    """A group whose members have gone, to its end."""
    offsets, members = runs(bootstrap, ["--describe", "--group", group], ["--describe", "--group", group, "--members"])
    for said in (offsets, members):
        says("describe", said, f"Consumer group '{group}' has no active members.")
    places = [(str(partition), str(EACH), "0", "-", "-", "-") for partition in (0, 1)]
    columns = ("PARTITION", "CURRENT-OFFSET", "LAG", "CONSUMER-ID", "HOST", "CLIENT-ID")
    expect("offsets", of(group, rows(offsets), *columns), places)
    expect("members", of(group, rows(members), "GROUP"), [])
    forgot = run(bootstrap, ["--delete-offsets", "--group", group, "--topic", f"{topic}:1"])
    says("delete offsets", forgot, f"Request succeeded for deleting offsets from group {group}.")
    expect("what became of them", [(row["PARTITION"], row["STATUS"]) for row in rows(forgot)], [("1", "Successful")])
    with Wire(bootstrap) as wire:
        expect("offsets left", wire.committed(group, topic, 2), [EACH, -1])
    deleted = run(bootstrap, ["--delete", "--group", group])
    says("delete", deleted, f"Deletion of requested consumer groups ('{group}') was successful.")


def filled(bootstrap: str, topic: str, partitions: int) -> None:
    """A topic that has ten old records and ten new ones in each partition."""
    with Wire(bootstrap) as wire:
        expect("create", wire.create_topic(topic, partitions), 0)
        for partition in range(partitions):
            for timestamp in (OLD_MS, int(time.time() * 1000)):
                expect("produced", wire.produce(topic, partition, batch_of([b"v"] * 10, timestamp))[0], 0)


def resets(bootstrap: str, topic: str) -> None:
    """--reset-offsets: every way to say where to, and to say of what."""
    group, other = f"{topic}-g", f"{topic}-other"
    filled(bootstrap, topic, 2)
    filled(bootstrap, other, 1)
    reset = ["--reset-offsets", "--group", group]
    made = run(bootstrap, [*reset, "--topic", topic, "--topic", f"{other}:0", "--to-offset", "7", "--execute"])
    expect("made", of(group, rows(made), "NEW-OFFSET"), [("7",), ("7",), ("7",)])
    both, all_topics, export = ["--topic", topic], ["--all-topics"], ["--dry-run", "--export"]
    ways: list[tuple[list[str], list[int | None]]] = [
        ([*all_topics, "--to-earliest"], [0, 0, 0]),
        ([*both, "--to-latest"], [20, 20, None]),
        ([*all_topics, "--to-current"], [7, 7, 7]),
        ([*both, "--topic", other, "--to-offset", "700"], [20, 20, 20]),
        ([*all_topics, "--to-datetime", "2024-01-01T00:00:00.000"], [10, 10, 10]),
        ([*both, "--to-datetime", "2099-01-01T00:00:00.000Z"], [20, 20, None]),
        ([*all_topics, "--by-duration", "PT1H"], [10, 10, 10]),
        (["--topic", f"{topic}:1", "--topic", f"{other}:0", "--shift-by", "3"], [None, 10, 10]),
        (["--topic", f"{topic}:0,1", "--shift-by", "-9"], [0, 0, None]),
    ]
    places = [(topic, 0), (topic, 1), (other, 0)]
    for (what, wanted), said in zip(ways, runs(bootstrap, *([*reset, *what, *export] for what, _ in ways)), strict=True):
        plan = [f"{t},{p},{offset}" for (t, p), offset in zip(places, wanted, strict=True) if offset is not None]
        expect(f"export of {' '.join(what)}", exported(said), sorted(plan))
    all_groups, warned = runs(
        bootstrap,
        ["--reset-offsets", "--all-groups", "--topic", topic, "--to-latest", *export],
        [*reset, *both, "--to-latest"],
    )
    ends = [f"{group},{topic},{partition},20" for partition in (0, 1)]
    expect("of all groups", [line for line in exported(all_groups) if line.startswith(f"{group},")], ends)
    says("without --execute", warned, "No action will be performed as the --execute option is missing")
    with Wire(bootstrap) as wire:
        expect("only tried", wire.committed(group, topic, 2), [7, 7])
        from_file(bootstrap, [*reset, "--execute"], f'"{topic}",0,4\n"{topic}",1,11\n')
        expect("from a file", wire.committed(group, topic, 2), [4, 11])
    unknown = run(bootstrap, [*reset, "--topic", f"{topic}:9", "--to-earliest", "--dry-run"])
    says("a partition that there is not", unknown, "Error: ", f"{topic}-9")


def from_file(bootstrap: str, reset: list[str], lines: str) -> str:
    """What --from-file says to these lines."""
    with tempfile.NamedTemporaryFile("w", suffix=".csv") as file:
        file.write(lines)
        file.flush()
        return run(bootstrap, [*reset, "--from-file", file.name])


def several(bootstrap: str, topic: str) -> None:
    """--all-groups, groups that are not there, and deleting several; on a broker that has no other groups."""
    filled(bootstrap, topic, 1)
    names = [f"{topic}-{letter}" for letter in "abcde"]
    a, b, c, d, e = names
    named = [part for name in names for part in ("--group", name)]
    made = from_file(
        bootstrap,
        ["--reset-offsets", *named, "--execute"],
        "".join(f'"{name}","{topic}",0,{n}\n' for n, name in enumerate(names)),
    )
    expect("made", sorted(row["NEW-OFFSET"] for row in rows(made)), list("01234"))
    with tempfile.NamedTemporaryFile("w", suffix=".properties") as file:
        file.write("client.id=operator\nrequest.timeout.ms=20000\n")
        file.flush()
        states, offsets, members = runs(
            bootstrap,
            ["--describe", "--all-groups", "--state", "--timeout", "20000"],
            ["--describe", *named[:4], "--offsets", "--command-config", file.name],
            ["--describe", "--all-groups", "--members"],
        )
    expect("states", [(row["GROUP"], row["STATE"]) for row in rows(states)], [(name, "Empty") for name in names])
    lags = [(row["GROUP"], row["CURRENT-OFFSET"], row["LAG"]) for row in rows(offsets)]
    expect("offsets", lags, [(a, "0", "20"), (b, "1", "19")])
    expect("groups without members", members.count("has no active members."), 5)
    missing(bootstrap, topic)
    some = run(bootstrap, ["--delete", "--group", a, "--group", f"{topic}-none"])
    says("delete one of two", some, f"* Group '{topic}-none' could not be deleted due to: ", "GroupIdNotFoundException")
    says("delete one of two", some, f"These consumer groups were deleted successfully: '{a}'")
    says("delete two", run(bootstrap, ["--delete", "--group", b, "--group", c]), b, c, "was successful.")
    says("delete all", run(bootstrap, ["--delete", "--all-groups"]), d, e, "was successful.")
    expect("left", run(bootstrap, ["--list"]), "")


def missing(bootstrap: str, topic: str) -> None:
    """A group that there is not, whatever is asked of it."""
    none = f"{topic}-none"
    describe = ["--describe", "--group", none]
    asked = [describe, [*describe, "--state"], [*describe, "--members", "--verbose"]]
    for command, said in zip(asked, runs(bootstrap, *asked), strict=True):
        says(" ".join(command), said, "Error: ", f"Group {none} not found.")
    forget = run(bootstrap, ["--delete-offsets", "--group", none, "--topic", topic])
    says("delete offsets", forget, "Error: The group id does not exist.")


def alone(bootstrap: str) -> None:
    """What the tool refuses by itself, and --validate-regex, which asks no broker."""
    valid, invalid = runs(bootstrap, ["--validate-regex", "orders-.*"], ["--validate-regex", "("])
    says("a regular expression", valid, "The regular expression `orders-.*` is valid.")
    says("none", invalid, "The regular expression `(` is invalid: missing closing ).")
    with ThreadPoolExecutor(AT_ONCE) as pool:
        commands = [["--list", "--state", "asleep"], ["--list", "--type", "modern"]]
        states, types = pool.map(partial(run, bootstrap, wanted=1), commands)
    says("a state that there is not", states, "Invalid state list 'asleep'.", "Stable", "Assigning")
    says("a type that there is not", types, "Invalid types list 'modern'.", "Classic", "Consumer")


def on_its_own(topic: str) -> None:
    """--all-groups means those of every test on the broker: this one has its own."""
    with brokers.given_or_own(None, groups_initial_rebalance_delay_ms="0") as bootstrap:
        several(bootstrap, topic)


def results(bootstrap: str) -> Iterator[Result]:
    prefix = f"tool-groups-{time.time_ns():x}"
    yield attempt("a living group, consumer", partial(living, bootstrap, f"{prefix}-modern", CONSUMER, ""))
    yield attempt("a living group, classic", partial(living, bootstrap, f"{prefix}-classic", Way("range"), "one"))
    yield attempt("reset offsets", partial(resets, bootstrap, f"{prefix}-reset"))
    yield attempt("all groups, missing groups", partial(on_its_own, f"{prefix}-several"))
    yield attempt("regular expressions, wrong arguments", partial(alone, bootstrap))
