"""A majority that is gone for good: `ottla cluster unsafe-recover`, what is left goes on, and who was given up is refused with its old data."""

from __future__ import annotations

import re
import shutil
import subprocess
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from harness.brokers import ottla_binary
from harness.cluster import Cluster
from harness.load import Load
from harness.routes import Routes
from harness.table import eventually, expect

from .forming import PARTITIONS, TOPIC, agree, all_there, in_sync, refused, say, write
from .records import Settings

AFTER = "after"
MANY, MANY_PARTITIONS = "many", 60
WORDS = "another data directory"


def recover(cluster: Cluster, number: int, *arguments: str) -> tuple[int, str]:
    """Run the command on a broker's directory; its exit code, and what it said."""
    command = [str(ottla_binary()), "cluster", "unsafe-recover", "--data-dir", str(cluster.brokers[number].data_dir)]
    done = subprocess.run([*command, *arguments], capture_output=True, text=True)
    return done.returncode, done.stdout + done.stderr


def contents(home: Path) -> dict[str, bytes]:
    return {str(path.relative_to(home)): path.read_bytes() for path in sorted(home.rglob("*")) if path.is_file()}


def said(outcome: tuple[int, str], code: int, *words: str) -> None:
    """The command ended so, and said this."""
    got, text = outcome
    missing = [word for word in words if word not in text]
    if got != code or missing:
        raise AssertionError(f"exit code {got} and not {code}, or without {missing}:\n{text}")


def looked_at(cluster: Cluster, survivor: int, lost: list[int]) -> None:
    """What must not be done is refused, and without --apply nothing is changed."""
    home = cluster.brokers[survivor].data_dir
    before = contents(home)
    names = ",".join(map(str, lost))
    said(recover(cluster, survivor, "--lost", str(lost[0])), 1, "are left: start them")
    said(recover(cluster, survivor, "--lost", f"{survivor},{lost[0]}"), 1, "it is not lost")
    said(recover(cluster, survivor, "--lost", f"{names},9"), 1, "there is no broker 9")
    outcome = recover(cluster, survivor, "--lost", names)
    said(outcome, 0, "Nothing was changed", f"{PARTITIONS} partitions go on", "nothing is lost then")
    print(outcome[1], flush=True)
    after = contents(home)
    expect("files that a look has changed", [name for name in before | after if before.get(name) != after.get(name)], [])


def written_after(cluster: Cluster, alive: list[int]) -> None:
    """The cluster takes topics and records."""
    bootstrap = ",".join(cluster.brokers[number].bootstrap for number in alive)
    with Routes(bootstrap) as routes:
        routes.create_topic(AFTER, 2, 1)
    load = Load(bootstrap, AFTER, 2, a_second=200).start()
    load.wait_acked(100, 60)
    load.finish()
    say(f"a topic that was created afterwards takes records: {load.ledger.acked} acknowledged")


def old_ones_refused_by_the_survivor(cluster: Cluster, lost: list[int]) -> None:
    """Before anybody has taken their places: both come back at once on their old data."""
    for number in lost:
        data = cluster.brokers[number].data_dir
        shutil.copytree(data.with_name(f"old-{number}"), data)
    with ThreadPoolExecutor(len(lost)) as pool:
        for number, why in zip(lost, pool.map(lambda number: refused(cluster.brokers[number], WORDS), lost), strict=True):
            say(f"broker {number} on its old data, before it was replaced: {why}")
    for number in lost:
        cluster.wipe(number)


def old_majority_refused(cluster: Cluster, lost: list[int]) -> None:
    """Both brokers that were given up come back at once on their old data, a majority of what was: both are refused."""
    for number in lost:
        cluster.brokers[number].stop()
        data = cluster.brokers[number].data_dir
        data.rename(data.with_name(f"new-{number}"))
        data.with_name(f"old-{number}").rename(data)
    with ThreadPoolExecutor(len(lost)) as pool:
        for number, why in zip(lost, pool.map(lambda number: refused(cluster.brokers[number], WORDS), lost), strict=True):
            say(f"broker {number} on its old data: {why}")
    for number in lost:
        data = cluster.brokers[number].data_dir
        shutil.rmtree(data)
        data.with_name(f"new-{number}").rename(data)
    cluster.start(*lost)


def end_of(outcome: tuple[int, str]) -> tuple[int, int]:
    """Where a look says that the log of the metadata ends: the higher is the longer one."""
    index, term = re.search(r"ends at entry (\d+) of term (\d+)", outcome[1]).groups()
    return int(term), int(index)


def two_of_five(home: Path, port: int, settings: Settings) -> None:
    """Three of five disks are lost: of the two that are left, the one with the longer log goes on, and the other follows it."""
    cluster = Cluster(home, count=5, port=port)
    try:
        cluster.start()
        with Routes(cluster.bootstrap) as routes:
            routes.create_topic(TOPIC, PARTITIONS, 5)
        ledger = write(cluster)
        in_sync(cluster)
        left = sorted(settings.draw.sample(cluster.ids, 2))
        lost = [number for number in cluster.ids if number not in left]
        for broker in cluster.brokers.values():
            broker.kill()
        for number in lost:
            cluster.wipe(number)
        names = ",".join(map(str, lost))
        ends = {number: end_of(recover(cluster, number, "--lost", names)) for number in left}
        longest = max(left, key=lambda number: ends[number])
        say(f"left are {left}, whose logs of the metadata end at {ends}: broker {longest} goes on")
        said(recover(cluster, longest, "--lost", names, "--apply"), 0, "Done.")
        cluster.start(longest)
        cluster.start(*(number for number in left if number != longest))
        all_there(cluster, ledger, "what two of five have", left)
        written_after(cluster, left)
        # The seeds may all be among the lost ones.
        for number in lost:
            cluster.brokers[number].configure(cluster_seeds=cluster.brokers[longest].settings["cluster_listen"])
        cluster.start(*lost)
        in_sync(cluster)
        for number in left:
            cluster.brokers[number].kill()
        all_there(cluster, ledger, "without the two that were left", lost)
    finally:
        cluster.remove()


def replaced_at_once(home: Path, port: int, settings: Settings) -> None:
    """New brokers wait already in the places of the lost ones when the survivor starts: they are taken in while partitions are yet to go on."""
    cluster = Cluster(home, port=port)
    try:
        cluster.start()
        ledger = write(cluster)
        with Routes(cluster.bootstrap) as routes:
            routes.create_topic(MANY, MANY_PARTITIONS, 3)
        cluster.wait_led(MANY, MANY_PARTITIONS)
        in_sync(cluster)
        survivor = settings.draw.choice(cluster.ids)
        lost = cluster.others(survivor)
        for broker in cluster.brokers.values():
            broker.kill()
        for number in lost:
            cluster.wipe(number)
        said(recover(cluster, survivor, "--lost", ",".join(map(str, lost)), "--apply"), 0, "Done.")
        began = time.monotonic()
        cluster.start(*lost, survivor, apart=1.0)
        cluster.wait_led(MANY, MANY_PARTITIONS)
        say(f"{MANY_PARTITIONS} partitions are led {time.monotonic() - began:.1f} s after the survivor and those that replace the others were started")
        in_sync(cluster)
        cluster.brokers[survivor].kill()
        all_there(cluster, ledger, "without the one that was left", lost)
    finally:
        cluster.remove()


def epochs(cluster: Cluster, at: int) -> set[int]:
    """The partitions that go on under a leader epoch that no election leads to so soon."""
    return {number for number, part in cluster.view(TOPIC, at).parts.items() if part.epoch >= 1000 and part.leader >= 0}


def some_partitions(home: Path, port: int) -> None:
    """Two of five disks are lost: the metadata has its majority, and the cluster runs; partitions that had two of three replicas there go on from the third."""
    cluster = Cluster(home, count=5, port=port)
    try:
        cluster.start()
        ledger = write(cluster)
        before = cluster.view(TOPIC).parts
        eventually("replicas in sync", lambda: all(len(part.isr) == 3 for part in cluster.view(TOPIC).parts.values()), True, 60.0)
        lost = sorted(before[0].replicas[:2])
        left = cluster.others(lost[0])
        left.remove(lost[1])
        doomed = {at for at, part in before.items() if len(set(part.replicas) & set(lost)) == 2}
        for number in lost:
            cluster.brokers[number].kill()
            cluster.wipe(number)
        bootstrap = ",".join(cluster.brokers[number].bootstrap for number in left)
        names = ",".join(map(str, lost))

        def tell(*arguments: str) -> tuple[int, str]:
            command = [str(ottla_binary()), "cluster", "unsafe-recover", "--running", "--brokers", bootstrap]
            done = subprocess.run([*command, *arguments], capture_output=True, text=True)
            return done.returncode, done.stdout + done.stderr

        table = [f"{TOPIC:5}  {at:<9}  goes on from the longest log left  {next(iter(set(before[at].replicas) - set(lost)))}" for at in doomed]
        eventually("those that were killed are not heard any more", lambda: tell("--lost", names)[0], 0, 30.0)
        said(tell("--lost", f"{lost[0]},{left[0]}", "--apply"), 1, "is running")
        said(tell("--lost", f"{lost[0]},9", "--apply"), 1, "not currently registered")
        said(tell("--lost", names), 0, "Nothing was changed", *table)
        expect("brokers that have heard of it", [at for at in left if "given up" in cluster.brokers[at].log()], [])
        said(tell("--lost", names, "--apply"), 0, "Done.")
        began = time.monotonic()
        # Terms are passed over that those given up may have reached.
        eventually("partitions that go on anew", lambda: epochs(cluster, left[0]) >= doomed, True, 60.0)
        say(f"{len(doomed)} of {PARTITIONS} partitions had lost their majority, and are led after {time.monotonic() - began:.1f} s")
        all_there(cluster, ledger, "what three of five have", left)
        said(tell("--lost", names, "--apply"), 0, "Done.")
        cluster.start(*lost)
        eventually("replicas in sync", lambda: all(len(part.isr) == 3 for part in cluster.view(TOPIC).parts.values()), True, 60.0)
        all_there(cluster, ledger, "with new disks")
    finally:
        cluster.remove()


def two_of_three(home: Path, port: int, settings: Settings) -> None:
    cluster = Cluster(home, port=port)
    try:
        cluster.start()
        name = agree(cluster)
        ledger = write(cluster)
        in_sync(cluster)
        survivor = settings.draw.choice(cluster.ids)
        lost = cluster.others(survivor)
        said(recover(cluster, survivor, "--lost", ",".join(map(str, lost))), 1, "in use")
        for broker in cluster.brokers.values():
            broker.kill()
        for number in lost:
            data = cluster.brokers[number].data_dir
            data.rename(data.with_name(f"old-{number}"))
        looked_at(cluster, survivor, lost)
        said(recover(cluster, survivor, "--lost", ",".join(map(str, lost)), "--apply"), 0, "Done.")
        ready = cluster.start(survivor)[survivor]
        say(f"broker {survivor} alone: ready in {ready:.0f} ms")
        all_there(cluster, ledger, "what is left, alone", [survivor])
        old_ones_refused_by_the_survivor(cluster, lost)
        written_after(cluster, [survivor])
        cluster.start(*lost)
        in_sync(cluster)
        all_there(cluster, ledger, "with new disks")
        expect("the cluster's id", agree(cluster), name)
        old_majority_refused(cluster, lost)
        for number in cluster.ids:
            cluster.wait_caught_up(number, TOPIC, PARTITIONS)
        all_there(cluster, ledger, "after the old ones were sent away")
    finally:
        cluster.remove()


def run(home: Path, port: int, settings: Settings) -> bool:
    """Lose two of three disks for good, recover from the third, fill new ones, send the old ones away; the same with new ones that wait already; then lose three of five;
    then two of five, while the cluster runs."""
    two_of_three(home / "three", port, settings)
    replaced_at_once(home / "replaced", port + 20, settings)
    two_of_five(home / "five", port + 40, settings)
    some_partitions(home / "running", port + 60)
    return True
