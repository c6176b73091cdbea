"""Rounds of faults under idempotent acks=all load on every partition, and what they may not break."""

from __future__ import annotations

import random
import time
from dataclasses import dataclass

from harness import check
from harness.cluster import Cluster
from harness.fresh import Fresh
from harness.gaps import Gap, Gaps, longest
from harness.load import Load
from harness.routes import Routes
from harness.table import render
from harness.watch import Watch

TOPIC, REPLICAS = "chaos", 3
SEGMENT_BYTES = 1 << 20
PRODUCERS = 2
CALM_SECONDS = 3.0
"""How long nothing is broken before each fault, all partitions being served."""
GAP_LIMIT = 15.0
"""A partition that acknowledges nothing for so long is out of service, whatever the machine has to do besides."""
STRUCK, OTHERS, CALM = "led by the broker that was struck", "led by others", "before the fault"
CHANGING = "handed from one to another just then"
ELECTED = "until a new leader is told"
BACK = "all, from the broker's return on"


@dataclass
class Settings:
    """What the command line says."""

    rounds: int
    partitions: int
    a_second: int
    draw: random.Random
    aims: bool


class Rounds:
    """The rounds of one scenario. Each strikes a fault and returns when the cluster is whole again."""

    gap_limit = GAP_LIMIT

    def __init__(self, cluster: Cluster, settings: Settings) -> None:
        self.cluster, self.settings, self.draw = cluster, settings, settings.draw
        self.partitions = settings.partitions
        self.load: Load | None = None
        self.gaps = Gaps()
        self.struck_leaders = 0
        self.rows: list[tuple[object, ...]] = []

    def start(self) -> None:
        """Start the cluster, the load, and those who watch."""
        cluster, settings = self.cluster, self.settings
        ready = cluster.start()
        print(f"ready after {', '.join(f'{ms:.0f}' for ms in ready.values())} ms", flush=True)
        with Routes(cluster.bootstrap) as routes:
            configs = {"segment_bytes": str(SEGMENT_BYTES), "retention_ms": "-1"}
            routes.create_topic(TOPIC, self.partitions, REPLICAS, **configs)
        self.whole()
        log = cluster.home / "log-clients"
        self.load = Load(cluster.bootstrap, TOPIC, self.partitions, PRODUCERS, settings.a_second // PRODUCERS, log).start()
        self.tail = check.Tail(cluster.bootstrap, TOPIC, self.partitions)
        self.watch = Watch(cluster, TOPIC, self.partitions).start()
        self.fresh = Fresh(cluster, self.load, self.partitions).start()
        self.back_at = 0.0
        """When the broker that was struck was started again."""

    def remove(self) -> None:
        """Stop what is not the cluster itself."""

    def whole(self) -> float:
        """Wait until every broker has what its peers had."""
        began = time.monotonic()
        for number in self.cluster.ids:
            self.cluster.wait_caught_up(number, TOPIC, self.partitions)
        return time.monotonic() - began

    def calm(self) -> dict[int, int]:
        """Let the load run undisturbed, up to a random moment; who leads then."""
        began, before = time.monotonic(), self.load.ledger.acked
        self.load.wait_acked(before + self.partitions, 60)
        time.sleep(CALM_SECONDS + self.draw.uniform(0, 0.4))
        self.note(dict.fromkeys(range(self.partitions), CALM), began + 1, time.monotonic())
        return self.cluster.view(TOPIC).leaders()

    def note(self, kinds: dict[int, str], begin: float, end: float) -> list[str]:
        """Take the gaps of a span; the worst of each kind but the calm one, for people."""
        span = Gaps()
        for partition, kind in kinds.items():
            gap = longest(self.load.times[partition], partition, begin, end)
            span.add(kind, gap)
            self.gaps.add(kind, gap)
        return [f"{kind}: {span.worst(kind, 1)[0]}" for kind in span.kinds]

    def strike(self, victim: int) -> str:
        """Break something and put it right again, with this broker; in a word what was done."""
        raise NotImplementedError

    def round(self, number: int) -> None:
        leaders = self.calm()
        victim = self.victim(number, leaders)
        kinds = self.kinds(victim)
        led = {partition for partition, kind in kinds.items() if kind == STRUCK}
        self.struck_leaders += len(led)
        began, before = time.monotonic(), self.load.ledger.acked
        print(f"{clock()} round {number}: broker {victim}, which leads {len(led)}", flush=True)
        what = self.strike(victim)
        whole = self.whole()
        # What the return of a broker disturbs shows a moment later.
        time.sleep(1.0)
        ended = time.monotonic()
        worst = self.note(kinds, began, max(self.back_at, began + 1.0))
        worst += self.note(dict.fromkeys(range(self.partitions), BACK), max(self.back_at, began), ended)
        for partition in led:
            if (told := self.watch.until_led(partition, began, ended)) is not None:
                self.gaps.add(ELECTED, Gap(partition, told, 0.0))
        acked = self.load.ledger.acked - before
        self.rows.append((number, victim, len(led), what, f"{whole:.2f}", f"{ended - began:.1f}", acked))
        print(f"{clock()} round {number}: {what}, whole again after {whole:.2f} s; worst: {'; '.join(worst)}", flush=True)
        if untold := self.watch.incomplete(began, ended):
            print(f"  leaders not told, by broker: {untold}", flush=True)
        if self.tail.failure:
            raise self.tail.failure

    def kinds(self, victim: int) -> dict[int, str]:
        """Who leads what at this moment, by what all brokers tell: leaderships that go back to a broker that has returned are on their way at times."""
        told = [self.cluster.view(TOPIC, number).leaders() for number in self.cluster.ids]

        def kind(partition: int) -> str:
            leaders = {leaders.get(partition) for leaders in told}
            if len(leaders) > 1 or None in leaders:
                return CHANGING
            return STRUCK if victim in leaders else OTHERS

        return {partition: kind(partition) for partition in range(self.partitions)}

    def victim(self, _number: int, leaders: dict[int, int]) -> int:
        """Who is struck: whoever leads most is so most often."""
        return self.draw.choice([leader for _, leader in sorted(leaders.items())] or self.cluster.ids)

    def finish(self) -> bool:
        self.load.wait_acked(self.load.ledger.acked + self.partitions, 60)
        ledger = self.load.finish(60)
        self.whole()
        bootstrap = self.cluster.bootstrap
        ends = check.ends(bootstrap, TOPIC, self.partitions)
        verdict = check.judge(ledger, check.scan(bootstrap, TOPIC, self.partitions), self.tail.finish(ends))
        if moved := [start for start in check.starts(bootstrap, TOPIC, self.partitions) if start]:
            verdict.count("early-delete", f"log start of a topic without a rule moved to {moved}")
        self.watch.stop()
        self.fresh.stop()
        print(f"\n{self.fresh}")
        for wrong in self.watch.wrong + self.fresh.wrong:
            verdict.count(*wrong.split(": ", 1))
        for kind in (STRUCK, OTHERS, BACK):
            for gap in self.gaps.worst(kind, 20):
                if gap.seconds > self.gap_limit:
                    verdict.count("availability-gap", f"partition {gap}")
        head = ("round", "broker", "led", "what", "whole after s", "lasted s", "acked")
        print("\n" + render(head, self.rows))
        print("\n" + render(Gaps.HEAD, self.gaps.rows()))
        print(f"\n{verdict}")
        for failed in set(ledger.refused):
            print(f"refused {ledger.refused.count(failed)} times: {failed}")
        if self.struck_leaders == 0:
            print("no fault struck a leader: this run has not seen what it is for")
        return not verdict.broken and not ledger.refused and self.struck_leaders > 0 and self.aims_met()

    def explain(self) -> None:
        """Say where the cluster stands, after a failure."""
        if self.load is None:
            return
        left = self.load.left()
        print(f"not acknowledged, by partition: {left}")
        most = sorted(left, key=lambda at: -left[at])[:8]
        for number in self.cluster.ids:
            try:
                parts = self.cluster.view(TOPIC, number).parts
                told = {at: (parts[at].code, parts[at].leader, parts[at].epoch, parts[at].isr) for at in most if at in parts}
                print(f"broker {number} tells of the worst (error, leader, epoch, isr): {told}", flush=True)
            except Exception as failure:
                print(f"broker {number}: {failure!r}", flush=True)

    def aims_met(self) -> bool:
        """Whether the gaps are as short as they should be, if that is asked for."""
        return True


class Kill(Rounds):
    """kill -9 of a random broker; it comes back at once, or some seconds later."""

    AIMS = {STRUCK: 1.0, OTHERS: 0.15}

    def strike(self, victim: int) -> str:
        self.cluster.brokers[victim].kill()
        away = self.draw.choice((0.0, 3.0))
        time.sleep(away)
        self.back_at = time.monotonic()
        ready = self.cluster.brokers[victim].start()
        return f"killed, away {away:.0f} s, ready in {ready:.0f} ms"

    def aims_met(self) -> bool:
        met = True
        for kind, aim in self.AIMS.items():
            p99 = self.gaps.p99(kind)
            met &= p99 <= aim
            print(f"{kind}: p99 {p99 * 1000:.0f} ms, aim {aim * 1000:.0f} ms: {'met' if p99 <= aim else 'MISSED'}")
        return met or not self.settings.aims


class StopCont(Rounds):
    """SIGSTOP of a random broker for 3 s: it wakes up and believes that it leads."""

    def strike(self, victim: int) -> str:
        self.cluster.brokers[victim].pause()
        time.sleep(3.0)
        self.back_at = time.monotonic()
        self.cluster.brokers[victim].resume()
        return "stopped for 3 s"


class Rolling(Rounds):
    """SIGTERM and restart of one broker after the other."""

    def victim(self, number: int, _leaders: dict[int, int]) -> int:
        return self.cluster.ids[(number - 1) % len(self.cluster.ids)]

    def strike(self, victim: int) -> str:
        began = time.monotonic()
        self.cluster.brokers[victim].stop()
        self.back_at = time.monotonic()
        stopped = (self.back_at - began) * 1000
        ready = self.cluster.brokers[victim].start()
        return f"stopped in {stopped:.0f} ms, ready in {ready:.0f} ms"


class All(Rounds):
    """kill -9 of all at once."""

    def strike(self, victim: int) -> str:
        for broker in self.cluster.brokers.values():
            broker.hit()
        for broker in self.cluster.brokers.values():
            broker.kill()
        self.back_at = time.monotonic()
        order = self.draw.sample(self.cluster.ids, len(self.cluster.ids))
        ready = self.cluster.start(*order, apart=self.draw.choice((0.0, 1.0)))
        return f"all killed, back as {order}, ready in {', '.join(f'{ms:.0f}' for ms in ready.values())} ms"


def clock() -> str:
    """The time of day as brokers log it, so that both can be read together."""
    return time.strftime("%H:%M:%S", time.gmtime()) + f".{int(time.time() * 1000) % 1000:03}"
