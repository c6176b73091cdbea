"""How a cluster comes to be, and who is taken into it: founding, a lost directory, ids and directories that do not belong, other ports."""

from __future__ import annotations

import itertools
import shutil
import time
from pathlib import Path

from harness import check
from harness.brokers import BrokerFailed, Ottla
from harness.cluster import Cluster
from harness.load import Ledger, Load
from harness.routes import Routes
from harness.table import eventually, expect

from .records import Settings, clock

TOPIC, PARTITIONS, REPLICAS = "kept", 8, 3
LOAD_SECONDS = 2.0
REFUSED_SECONDS = 15.0


def say(what: str) -> None:
    print(f"{clock()} {what}", flush=True)


def described(cluster: Cluster, number: int) -> tuple[str, dict[int, str]]:
    """The cluster's id and its brokers, as one broker tells them."""
    with Routes(cluster.brokers[number].bootstrap) as routes:
        name, _, brokers = routes.cluster()
        return name, brokers


def agree(cluster: Cluster) -> str:
    """All brokers are of one cluster and know each other; its id."""
    wanted = {number: broker.bootstrap for number, broker in cluster.brokers.items()}
    for number in cluster.ids:
        eventually(f"brokers told by {number}", lambda of=number: described(cluster, of)[1], wanted)
    names = {number: described(cluster, number)[0] for number in cluster.ids}
    expect("clusters founded", len(set(names.values())), 1)
    return names[1]


def founded_in_every_order(home: Path, port: int) -> None:
    """The brokers may come in any order: one cluster is founded, and not before all are there."""
    for order in itertools.permutations((1, 2, 3)):
        for apart in (0.0, 0.7):
            cluster = Cluster(home / f"founded-{''.join(map(str, order))}-{apart}", port=port)
            try:
                began = time.monotonic()
                ready = cluster.start(*order, apart=apart)
                lasted = time.monotonic() - began
                for at, number in enumerate(order):
                    if at * apart + ready[number] / 1000 < 2 * apart:
                        raise AssertionError(f"broker {number} was ready before the last broker was started: {ready} ms")
                say(f"started as {order}, {apart} s apart: {agree(cluster)}, all ready after {lasted:.2f} s")
            finally:
                cluster.remove()
            # All come back on what they have.
            shutil.rmtree(cluster.home)


def write(cluster: Cluster, seconds: float = LOAD_SECONDS) -> Ledger:
    """Everything that is acknowledged in a while, as the first load on the topic."""
    with Routes(cluster.bootstrap) as routes:
        routes.create_topic(TOPIC, PARTITIONS, REPLICAS, retention_ms="-1")
    load = Load(cluster.bootstrap, TOPIC, PARTITIONS, a_second=300).start()
    time.sleep(seconds)
    return load.finish()


def all_there(cluster: Cluster, ledger: Ledger, when: str, alive: list[int] | None = None) -> None:
    """Everything acknowledged is there, nothing else, in order."""
    alive = alive or cluster.ids
    cluster.wait_led(TOPIC, PARTITIONS, alive)
    bootstrap = ",".join(cluster.brokers[number].bootstrap for number in alive)
    verdict = check.judge(ledger, check.scan(bootstrap, TOPIC, PARTITIONS))
    say(f"{when}: {verdict}")
    if verdict.broken:
        raise AssertionError(f"{when}: {verdict}")


def in_sync(cluster: Cluster) -> None:
    """Every replica of the topic is told to be in sync."""
    wanted = {partition: cluster.ids for partition in range(PARTITIONS)}

    def told() -> dict[int, list[int]]:
        return {at: sorted(part.isr) for at, part in cluster.view(TOPIC).parts.items()}

    eventually("replicas in sync", told, wanted, 60.0)


def rebuilt(cluster: Cluster, ledger: Ledger, number: int) -> None:
    """A broker whose directory is lost comes back under its id; then the others can be spared, one at a time."""
    before = agree(cluster)
    cluster.brokers[number].kill()
    cluster.wipe(number)
    ready = cluster.start(number)[number]
    expect("the cluster's id", agree(cluster), before)
    took = cluster.wait_caught_up(number, TOPIC, PARTITIONS)
    in_sync(cluster)
    say(f"broker {number} without its data: ready in {ready:.0f} ms, rebuilt after {took:.2f} s")
    for other in cluster.others(number):
        cluster.brokers[other].kill()
        all_there(cluster, ledger, f"without broker {other}", cluster.others(other))
        cluster.start(other)
        cluster.wait_caught_up(other, TOPIC, PARTITIONS)
    all_there(cluster, ledger, "all back")


def one_lost_when_all_restart(cluster: Cluster, ledger: Ledger, number: int, order: list[int]) -> None:
    """All are restarted at once, one of them without its directory: it joins the others and founds nothing."""
    before = agree(cluster)
    for broker in cluster.brokers.values():
        broker.kill()
    cluster.wipe(number)
    cluster.start(*order)
    expect("the cluster's id", agree(cluster), before)
    cluster.wait_caught_up(number, TOPIC, PARTITIONS)
    in_sync(cluster)
    all_there(cluster, ledger, f"all restarted as {order}, broker {number} without its data")


def refused(broker: Ottla, words: str) -> str:
    """Start a broker that must not come up: it exits with an error, or waits and says why; in its own words."""
    try:
        # One that goes on waiting for its cluster is stopped by the harness.
        broker.start(REFUSED_SECONDS)
    except BrokerFailed:
        log = broker.log()
        said = [line for line in log.splitlines() if words in line]
        if not said:
            raise AssertionError(f"refused, but nothing in its log says {words!r}: {log[-1500:]}") from None
        return said[-1].split(": ", 1)[-1]
    finally:
        broker.kill()
    raise AssertionError("came up")


def strangers_refused(cluster: Cluster, ledger: Ledger) -> None:
    """An id that is in use, and a directory of another cluster, are refused, and who says why; the cluster goes on."""
    intruder = Ottla(cluster.home / "intruder", **cluster.brokers[1].settings | {"cluster_listen": "127.0.0.1:0"})
    intruder.log_file = cluster.home / "log-intruder"
    say(f"an id in use: {refused(intruder, 'broker.id')}")
    all_there(cluster, ledger, "after an intruder")

    foreign = Cluster(cluster.home / "foreign", port=cluster.port + 200)
    try:
        foreign.start()
        for broker in foreign.brokers.values():
            broker.stop()
    finally:
        foreign.remove()
    cluster.brokers[3].stop()
    lost = Ottla(foreign.brokers[3].data_dir, **cluster.brokers[3].settings)
    lost.log_file = cluster.home / "log-foreign"
    lost.port = cluster.brokers[3].port
    say(f"a directory of another cluster: {refused(lost, 'another cluster')}")
    cluster.start(3)
    agree(cluster)
    cluster.wait_caught_up(3, TOPIC, PARTITIONS)
    all_there(cluster, ledger, "after a stranger's directory")


def alone_founds_nothing(cluster: Cluster, ledger: Ledger, number: int) -> None:
    """A broker whose directory is lost, and whose seeds name only itself: the others call it, so it waits and says why."""
    broker, seeds = cluster.brokers[number], cluster.seeds()
    broker.kill()
    cluster.wipe(number)
    broker.configure(cluster_seeds=broker.settings["cluster_listen"])
    say(f"seeds that name only itself: {refused(broker, 'name one of them in cluster.seeds')}")
    if (broker.data_dir / "identity.toml").exists():
        raise AssertionError("a cluster was founded")
    all_there(cluster, ledger, f"broker {number} has no cluster", cluster.others(number))
    broker.configure(cluster_seeds=seeds)
    cluster.start(number)
    agree(cluster)
    cluster.wait_caught_up(number, TOPIC, PARTITIONS)
    all_there(cluster, ledger, "all back")


def founded_alone(cluster: Cluster, ledger: Ledger, number: int) -> None:
    """The same while the others are away: it founds a cluster of its own. When they are back both sides say so, and nothing is mixed."""
    broker, seeds = cluster.brokers[number], cluster.seeds()
    others = [cluster.brokers[other] for other in cluster.others(number)]
    before = described(cluster, number)[0]
    for one in cluster.brokers.values():
        one.kill()
    cluster.wipe(number)
    broker.configure(cluster_seeds=broker.settings["cluster_listen"])
    cluster.start(number)
    name, known = described(cluster, number)
    if name == before or list(known) != [number]:
        raise AssertionError(f"broker {number} is of cluster {name} with {known}, and the others of {before}")
    cluster.start(*cluster.others(number))
    for one in (broker, *others):
        eventually("a broker says that one of another cluster is there", lambda of=one: "a broker of another cluster" in of.log(), True, 20.0)
    for other in cluster.others(number):
        expect("the others' cluster", described(cluster, other)[0], before)
    all_there(cluster, ledger, f"broker {number} has a cluster of its own", cluster.others(number))
    broker.stop()
    broker.configure(cluster_seeds=seeds)
    say(f"with the seeds of old: {refused(broker, 'another cluster')}")
    cluster.wipe(number)
    cluster.start(number)
    agree(cluster)
    cluster.wait_caught_up(number, TOPIC, PARTITIONS)
    all_there(cluster, ledger, "all back")


def moved(cluster: Cluster, ledger: Ledger, number: int) -> None:
    """A broker comes back on other ports, and its peers find it: they need it when another is gone."""
    broker = cluster.brokers[number]
    broker.stop()
    broker.port += 50
    broker.configure(cluster_listen=f"127.0.0.1:{cluster.port + 150 + number}")
    cluster.start(number)
    agree(cluster)
    cluster.wait_caught_up(number, TOPIC, PARTITIONS)
    other = cluster.others(number)[0]
    cluster.brokers[other].kill()
    all_there(cluster, ledger, f"broker {number} on other ports, without broker {other}", cluster.others(other))
    cluster.start(other)
    cluster.wait_caught_up(other, TOPIC, PARTITIONS)
    agree(cluster)
    all_there(cluster, ledger, "all back")


def run(home: Path, port: int, settings: Settings) -> bool:
    """Start in every order, lose a directory, bring strangers, move to other ports."""
    founded_in_every_order(home, port)
    cluster = Cluster(home / "one", port=port)
    try:
        cluster.start()
        name = agree(cluster)
        ledger = write(cluster)
        all_there(cluster, ledger, "written")
        rebuilt(cluster, ledger, settings.draw.choice(cluster.ids))
        for order in ([1, 2, 3], [3, 2, 1]):
            one_lost_when_all_restart(cluster, ledger, 1, order)
        strangers_refused(cluster, ledger)
        alone_founds_nothing(cluster, ledger, 3)
        founded_alone(cluster, ledger, 3)
        # The seeds name the ports of old, so it is one of those that stay that is asked.
        moved(cluster, ledger, 2)
        expect("the cluster's id at the end", agree(cluster), name)
        return True
    finally:
        cluster.remove()
