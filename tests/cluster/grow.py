"""A cluster that grows and shrinks under load, and replicas on their way while brokers are killed."""

from __future__ import annotations

import time
from pathlib import Path

from harness import check
from harness.brokers import BrokerFailed
from harness.cluster import Cluster
from harness.latency import Latency
from harness.load import Load
from harness.moves import held, ottla, reassign, status, under_way, wait_moved
from harness.routes import Routes
from harness.table import expect, render

from .records import TOPIC, Settings, clock

PROBED = "latency"
SINGLE, SINGLE_PARTITIONS = "single", 4
SETTLED_SECONDS = 180.0
CALM_SECONDS = 10.0
SLOW = {"cluster_move_bytes_per_second": "1000000"}
"""So that a move lasts long enough for a broker to be killed in the middle of it."""


class Traffic:
    """Load on a topic with three replicas and on one with one, and whoever follows them."""

    def __init__(self, cluster: Cluster, settings: Settings) -> None:
        self.partitions = {TOPIC: settings.partitions, SINGLE: SINGLE_PARTITIONS}
        self.bootstrap = cluster.bootstrap
        with Routes(self.bootstrap) as routes:
            for topic, partitions in self.partitions.items():
                routes.create_topic(topic, partitions, 3 if topic == TOPIC else 1, retention_ms="-1", segment_bytes=str(1 << 20))
        a_second = {TOPIC: settings.a_second, SINGLE: 100}
        self.loads = {
            topic: Load(self.bootstrap, topic, partitions, 1, a_second[topic]).start()
            for topic, partitions in self.partitions.items()
        }
        self.tails = {topic: check.Tail(self.bootstrap, topic, partitions) for topic, partitions in self.partitions.items()}

    def wait_acked(self) -> None:
        """Wait until every topic has taken some records more."""
        for topic, load in self.loads.items():
            load.wait_acked(load.ledger.acked + self.partitions[topic], 60)

    def finish(self, bootstrap: str) -> bool:
        """Stop, and judge what is stored; whether all is there."""
        passed = True
        for topic, load in self.loads.items():
            ledger = load.finish(120)
            partitions = self.partitions[topic]
            ends = check.ends(bootstrap, topic, partitions)
            verdict = check.judge(ledger, check.scan(bootstrap, topic, partitions), self.tails[topic].finish(ends))
            print(f"{topic}: {verdict}")
            passed &= not verdict.broken and not ledger.refused
        return passed


def settle(cluster: Cluster, at: int, is_so) -> dict:
    """Wait until the cluster is as it should be, and nothing is on its way."""
    deadline = time.monotonic() + SETTLED_SECONDS
    while True:
        told = status(cluster, at)
        if told["moving_partitions"] == 0 and is_so(told):
            return told
        if time.monotonic() > deadline:
            raise TimeoutError(f"not so after {SETTLED_SECONDS:.0f} s: {told}")
        time.sleep(0.3)


def is_even(told: dict) -> bool:
    counts = [count for count in held(told).values()]
    return max(counts) - min(counts) <= 2


def directories(cluster: Cluster, number: int) -> list[str]:
    """The replicas that lie on a broker's disk, the controller's own aside."""
    topics = cluster.brokers[number].data_dir / "topics"
    own = "00000000-0000-0000-0000-000000000001"
    return [f"{topic.name}/{part.name}" for topic in topics.iterdir() if topic.name != own for part in topic.iterdir()]


class Growth:
    """Four brokers out of three, and three out of four."""

    def __init__(self, cluster: Cluster, settings: Settings) -> None:
        self.cluster, self.settings = cluster, settings
        cluster.start()
        self.traffic = Traffic(cluster, settings)
        with Routes(cluster.bootstrap) as routes:
            routes.create_topic(PROBED, settings.partitions, 3)
            routes.coordinator("somebody")
        self.latency = Latency(cluster.bootstrap, PROBED, settings.partitions, 50).start()
        self.rows: list[tuple[object, ...]] = []

    def span(self, name: str, work) -> None:
        """Do something, and take down how produce fared meanwhile."""
        began = time.monotonic()
        work()
        ended = time.monotonic()
        # What was sent last is acknowledged a moment later.
        self.traffic.wait_acked()
        self.rows.append((*self.latency.row(name, began, ended), f"{ended - began:.1f}"))
        print(f"{clock()} {name}: {ended - began:.1f} s", flush=True)

    def calm(self) -> None:
        time.sleep(CALM_SECONDS)

    def join(self) -> None:
        self.cluster.brokers[4] = self.cluster.make(4)
        self.cluster.brokers[4].start()
        told = settle(self.cluster, 4, lambda told: held(told).get(4, 0) > 0 and is_even(told))
        print(f"replicas by broker: {held(told)}")

    def drain(self) -> None:
        said = ottla(self.cluster, 4, "cluster", "drain", "1", "--wait")
        expect(f"drain: {said.text}", said.code, 0)
        told = settle(self.cluster, 4, lambda told: held(told)[1] == 0)
        expect("leaderships of the drained broker", next(it["leaders"] for it in told["brokers"] if it["broker"] == 1), 0)
        print(f"replicas by broker: {held(told)}")

    def remove(self) -> None:
        cluster = self.cluster
        said = ottla(cluster, 4, "cluster", "remove", "1")
        expect(f"removed while it runs: {said.text}", said.code, 1)
        expect("replicas on the drained broker's disk", directories(cluster, 1), [])
        cluster.brokers[1].stop()
        said = ottla(cluster, 4, "cluster", "remove", "1")
        expect(f"remove: {said.text}", said.code, 0)
        with Routes(cluster.brokers[2].bootstrap) as routes:
            expect("brokers", sorted(routes.cluster()[2]), [2, 3, 4])
        refused(cluster, 1)

    def run(self) -> bool:
        self.traffic.wait_acked()
        self.span("before", self.calm)
        self.span("a fourth broker joins and is filled", self.join)
        self.span("with four", self.calm)
        self.span("the first is drained", self.drain)
        self.span("the first is stopped and removed", self.remove)
        self.span("after", self.calm)
        self.latency.stop()
        left = ",".join(self.cluster.brokers[number].bootstrap for number in (2, 3, 4))
        passed = self.traffic.finish(left)
        print("\n" + render((*Latency.HEAD, "lasted s"), self.rows))
        self.again()
        return passed

    def again(self) -> None:
        """The id is free: a broker with an empty disk takes it, and its share."""
        self.cluster.wipe(1)
        self.cluster.brokers[1].start()
        told = settle(self.cluster, 2, lambda told: held(told).get(1, 0) > 0 and is_even(told))
        print(f"broker 1 came anew; replicas by broker: {held(told)}")


def refused(cluster: Cluster, number: int) -> None:
    """A broker that was removed does not start with its old directory, and says why."""
    try:
        cluster.brokers[number].start(30)
    except BrokerFailed as failure:
        if "was removed from the cluster" not in str(failure):
            raise
    else:
        raise AssertionError(f"broker {number} was removed, and came back with its old directory")


def run(home: Path, port: int, settings: Settings) -> bool:
    """A fourth broker joins under load and takes its share; the first is drained and removed."""
    cluster = Cluster(home, port=port)
    try:
        return Growth(cluster, settings).run()
    finally:
        cluster.remove()


class Moves:
    """Rounds of moves in whose middle a broker is killed."""

    ROLES = ("target", "source", "controller")

    def __init__(self, cluster: Cluster, settings: Settings) -> None:
        self.cluster, self.settings, self.draw = cluster, settings, settings.draw
        self.rows: list[tuple[object, ...]] = []
        self.caught = 0

    def start(self) -> None:
        self.cluster.start()
        self.traffic = Traffic(self.cluster, self.settings)
        self.traffic.wait_acked()
        # Enough to move that a kill comes in between.
        time.sleep(CALM_SECONDS)

    def wish(self) -> dict[tuple[str, int], list[int]]:
        """Other replicas for some partitions: one is replaced, or there are more or fewer; of a single one, it goes elsewhere."""
        wanted = {}
        for topic, partitions in self.traffic.partitions.items():
            parts = self.cluster.view(topic).parts
            for partition in self.draw.sample(range(partitions), max(2, partitions // 4)):
                present = list(parts[partition].replicas)
                others = [number for number in self.cluster.ids if number not in present]
                if topic == SINGLE:
                    wanted[topic, partition] = [self.draw.choice(others)]
                elif len(present) == 3:
                    present[self.draw.randrange(3)] = self.draw.choice(others)
                    wanted[topic, partition] = present + (self.draw.choice(([], [n for n in self.cluster.ids if n not in present])))
                else:
                    wanted[topic, partition] = self.draw.sample(present, 3)
        return wanted

    def ask(self, at: int, wanted: dict[tuple[str, int], list[int] | None]) -> None:
        for topic in self.traffic.partitions:
            of = {partition: brokers for (name, partition), brokers in wanted.items() if name == topic}
            codes = reassign(self.cluster.brokers[at].bootstrap, topic, of)
            expect(f"codes of {topic}", {partition: code for partition, code in codes.items() if code}, {})

    def victim(self, role: str, moving: dict) -> int:
        brokers = {"target": 1, "source": 2}
        if role == "controller":
            with Routes(self.cluster.bootstrap) as routes:
                return routes.cluster()[1]
        places = [broker for told in moving.values() for broker in told[brokers[role]]]
        return self.draw.choice(sorted(places) or self.cluster.ids)

    def round(self, number: int) -> None:
        role = self.ROLES[(number - 1) % len(self.ROLES)]
        at = self.draw.choice(self.cluster.ids)
        began, wanted = time.monotonic(), self.wish()
        before = {key: list(self.cluster.view(key[0]).parts[key[1]].replicas) for key in wanted}
        self.ask(at, wanted)
        moving = under_way_at_last(self.cluster, at)
        victim = self.victim(role, moving)
        time.sleep(self.draw.uniform(0, 0.6))
        self.cluster.brokers[victim].kill()
        left = [other for other in self.cluster.ids if other != victim]
        called_off = number % 4 == 0
        time.sleep(self.draw.choice((0.0, 2.0)))
        caught = len(under_way_at_last(self.cluster, left[0]))
        self.caught += caught > 0
        self.cluster.brokers[victim].start()
        if called_off:
            still = under_way_at_last(self.cluster, left[0])
            asked = {key: None for key in wanted if key in still}
            if asked:
                codes = {}
                for topic in {topic for topic, _ in asked}:
                    of = {partition: None for name, partition in asked if name == topic}
                    told = reassign(self.cluster.brokers[left[0]].bootstrap, topic, of)
                    codes |= {(topic, partition): code for partition, code in told.items()}
                # One may have ended a moment before.
                wanted |= {key: before[key] for key, code in codes.items() if code == 0}
        took = wait_moved(self.cluster, left[0])
        self.check(wanted)
        self.traffic.wait_acked()
        self.rows.append((number, role, victim, len(wanted), caught, "yes" if called_off else "", f"{took:.1f}", f"{time.monotonic() - began:.1f}"))
        print(f"{clock()} round {number}: {role} {victim} killed, {len(wanted)} partitions moved, {caught} still on their way then", flush=True)

    def check(self, wanted: dict[tuple[str, int], list[int]]) -> None:
        """Every broker tells of the replicas that were asked for, and holds no others."""
        for number in self.cluster.ids:
            self.cluster.wait_caught_up(number, TOPIC, self.traffic.partitions[TOPIC])
        for number in self.cluster.ids:
            views = {topic: self.cluster.view(topic, number).parts for topic in self.traffic.partitions}
            told = {key: list(views[key[0]][key[1]].replicas) for key in wanted}
            expect(f"replicas, as broker {number} tells them", told, wanted)

    def finish(self) -> bool:
        self.check({})
        passed = self.traffic.finish(self.cluster.bootstrap)
        counts = {number: len(directories(self.cluster, number)) for number in self.cluster.ids}
        told = held(status(self.cluster, 1))
        expect("replicas on the brokers' disks", counts, told)
        head = ("round", "killed", "broker", "partitions", "on their way then", "called off", "settled after s", "lasted s")
        print("\n" + render(head, self.rows))
        if self.caught == 0:
            print("nobody was killed while replicas were on their way: this run has not seen what it is for")
        return passed and self.caught > 0


def under_way_at_last(cluster: Cluster, at: int, seconds: float = 30.0) -> dict:
    """The moves that a broker tells of, once it has a controller to ask."""
    deadline = time.monotonic() + seconds
    while True:
        try:
            return under_way(cluster.brokers[at].bootstrap)
        except (OSError, ValueError):
            if time.monotonic() > deadline:
                raise
            time.sleep(0.05)


def run_moves(home: Path, port: int, settings: Settings) -> bool:
    """kill -9 of a move's target, source, or of the controller, in the middle of it; one replica moves as well as three."""
    cluster = Cluster(home, 4, port=port, cluster_balance="false", **SLOW)
    try:
        moves = Moves(cluster, settings)
        moves.start()
        for number in range(1, max(settings.rounds, 3) + 1):
            moves.round(number)
        return moves.finish()
    finally:
        cluster.remove()
