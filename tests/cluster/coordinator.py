"""The broker that coordinates the groups is killed while their members commit: no acknowledged offset goes back, and nobody has to join again."""

from __future__ import annotations

import time
from array import array
from pathlib import Path

from harness.cluster import Cluster
from harness.commits import Groups
from harness.gaps import Gaps, longest
from harness.routes import Routes
from harness.table import render

from .records import Settings, clock

TOPIC, PARTITIONS, REPLICAS = "read", 8, 3
GROUPS, MEMBERS = 6, 2
CALM_SECONDS = 3.0
STALL_LIMIT = 15.0
STRUCK, OTHERS, CALM = "groups of the broker that was struck", "groups of others", "before the fault"


class Rounds:
    """The rounds with groups of one protocol."""

    def __init__(self, cluster: Cluster, settings: Settings, protocol: str) -> None:
        self.cluster, self.draw = cluster, settings.draw
        cluster.start()
        with Routes(cluster.bootstrap) as routes:
            routes.create_topic(TOPIC, PARTITIONS, REPLICAS)
        self.groups = Groups(cluster.bootstrap, TOPIC, PARTITIONS, GROUPS, MEMBERS, protocol).start()
        self.gaps = Gaps()
        self.wrong: list[str] = []
        self.rows: list[tuple[object, ...]] = []

    def coordinators(self) -> dict[str, int]:
        with Routes(self.cluster.bootstrap) as routes:
            return {group: routes.coordinator(group)[0] for group in self.groups.ledgers}

    def times(self, group: str) -> array:
        return self.groups.ledgers[group].times

    def round(self, number: int) -> None:
        self.groups.wait_acked(self.groups.acked + GROUPS * PARTITIONS, 60)
        began = time.monotonic()
        time.sleep(CALM_SECONDS + self.draw.uniform(0, 0.4))
        for at, group in enumerate(self.groups.ledgers):
            self.gaps.add(CALM, longest(self.times(group), at, began + 0.5, time.monotonic()))
        coordinators = self.coordinators()
        victim = self.draw.choice(sorted(set(coordinators.values())))
        struck = [group for group, broker in coordinators.items() if broker == victim]
        print(f"{clock()} round {number}: broker {victim}, which coordinates {len(struck)} of {GROUPS} groups", flush=True)
        promised, before, began = self.groups.promised(), self.groups.acked, time.monotonic()
        self.cluster.brokers[victim].kill()
        away = self.draw.choice((0.0, 3.0))
        time.sleep(away)
        ready = self.cluster.brokers[victim].start() if away == 0 else 0.0
        self.wrong += self.groups.judge(promised)
        if away:
            ready = self.cluster.brokers[victim].start()
            self.wrong += self.groups.judge(promised)
        self.groups.wait_acked(self.groups.acked + GROUPS * PARTITIONS, 60)
        self.cluster.wait_led(TOPIC, PARTITIONS)
        time.sleep(1.0)
        ended = time.monotonic()
        worst = Gaps()
        for at, group in enumerate(self.groups.ledgers):
            kind, gap = STRUCK if group in struck else OTHERS, longest(self.times(group), at, began, ended)
            worst.add(kind, gap)
            self.gaps.add(kind, gap)
            if gap.seconds > STALL_LIMIT:
                self.wrong.append(f"availability-gap: {group} acknowledged no commit: {gap}")
        acked = self.groups.acked - before
        self.rows.append((number, victim, len(struck), f"{away:.0f}", f"{ready:.0f}", f"{ended - began:.1f}", acked))
        told = "; ".join(f"{kind}: {worst.worst(kind, 1)[0]}" for kind in worst.kinds)
        print(f"{clock()} round {number}: away {away:.0f} s, {acked} commits; worst: {told}; faults so far: {len(self.wrong)}", flush=True)

    def finish(self) -> bool:
        self.groups.wait_acked(self.groups.acked + GROUPS * PARTITIONS, 60)
        self.wrong += self.groups.finish() + self.groups.judge(self.groups.promised())
        self.groups.close()
        print("\n" + render(("round", "broker", "its groups", "away s", "ready ms", "lasted s", "commits"), self.rows))
        print("\n" + render(("longest gap between commits, ms", *Gaps.HEAD[1:]), self.gaps.rows()))
        print(f"\n{self.groups.acked} commits acknowledged, {len(self.wrong)} faults")
        for fault in self.wrong[:20]:
            print(f"  {fault}")
        return not self.wrong


def run(home: Path, port: int, settings: Settings) -> bool:
    """kill -9 of the broker that coordinates groups under commits."""
    passed = True
    for protocol in ("classic", "consumer"):
        print(f"protocol {protocol}")
        cluster = Cluster(home / protocol, port=port)
        try:
            rounds = Rounds(cluster, settings, protocol)
            for number in range(1, settings.rounds + 1):
                rounds.round(number)
            passed &= rounds.finish()
        finally:
            cluster.remove()
    return passed
