"""Power cuts for real in a cluster: each broker's data lies on a filesystem of its own, which is cut with the others' or alone."""

from __future__ import annotations

import random
import time

from cluster.records import Rounds, Settings
from context import Context
from device import BootId, Filesystem
from power_cut import CUTS_TRIED, stopped

from harness import check
from harness.brokers import Ottla
from harness.cluster import Cluster
from harness.load import Load
from harness.routes import Routes

PARTITIONS, ACKED_A_SECOND = 16, 2_000
IMAGE_MIB = 2048
LOST_AFTER = 20_000
"""Acknowledged records that page-cache brokers have when all are cut: some of them are not synced yet."""


class Machines(Cluster):
    """Brokers whose power can be cut."""

    def __init__(self, context: Context, **config: str) -> None:
        self.context = context
        self.filesystems: dict[int, Filesystem] = {}
        # One for all: whoever is not cut does not look at it.
        self.boot_id = BootId(context.home / "boot-id")
        context.after.callback(self.boot_id.remove)
        super().__init__(context.home, **config)
        context.after.callback(self.remove)

    def make(self, number: int) -> Ottla:
        image, place = self.home / f"image-{number}", self.home / f"data-{number}"
        filesystem = Filesystem(image, place, IMAGE_MIB).mount()
        self.filesystems[number] = filesystem
        self.context.after.callback(filesystem.unmount)
        broker = super().make(number)
        broker.data_dir = place / "data"
        return broker

    def cut(self, *numbers: int) -> None:
        """Stop these machines at one moment; they go on from what their disks held then. Their brokers are down afterwards."""
        copies = {number: self.home / f"copy-{number}" for number in numbers}
        for _ in range(CUTS_TRIED):
            for number in numbers:
                self.brokers[number].pause()
            while not all(stopped(self.brokers[number].pid) for number in numbers):
                time.sleep(0.001)
            if all(self.filesystems[number].copy_if_still(copies[number]) for number in numbers):
                break
            for number in numbers:
                self.brokers[number].resume()
            time.sleep(0.1)
        else:
            raise AssertionError(f"the devices never stood still in {CUTS_TRIED} attempts")
        for number in numbers:
            self.brokers[number].kill()
            self.filesystems[number].replace_image(copies[number])
        self.boot_id.change()


class Cuts(Rounds):
    """All machines are cut at once, and one, by turns."""

    gap_limit = 90.0
    """A machine stands still while its disk is copied."""
    cluster: Machines

    def strike(self, victim: int) -> str:
        numbers = self.cluster.ids if len(self.rows) % 2 == 0 else [victim]
        began = time.monotonic()
        self.cluster.cut(*numbers)
        self.back_at = time.monotonic()
        order = self.draw.sample(numbers, len(numbers))
        ready = self.cluster.start(*order, apart=self.draw.choice((0.0, 1.0)))
        took = f"{self.back_at - began:.1f} s"
        return f"power of {numbers} cut ({took}), ready in {', '.join(f'{ms:.0f}' for ms in ready.values())} ms"


def nothing_acknowledged_is_lost(context: Context) -> None:
    """Cuts under load of all brokers at once, and of one: twice as many rounds as are asked for."""
    seed = random.randrange(1 << 32)
    print(f"seed {seed}", flush=True)
    settings = Settings(2 * context.rounds, PARTITIONS, ACKED_A_SECOND, random.Random(seed), aims=False)
    rounds = Cuts(Machines(context), settings)
    try:
        rounds.start()
        for number in range(1, settings.rounds + 1):
            rounds.round(number)
    except Exception:
        rounds.explain()
        raise
    if not rounds.finish():
        raise AssertionError("see above")


def page_cache_loses(context: Context) -> None:
    """The same cut of all brokers without syncs must lose records: otherwise the test above shows nothing."""
    machines = Machines(context, broker_durability="page-cache")
    machines.start()
    with Routes(machines.bootstrap) as routes:
        routes.create_topic("cut", PARTITIONS, len(machines.ids), retention_ms="-1")
    machines.wait_led("cut", PARTITIONS)
    for filesystem in machines.filesystems.values():
        filesystem.sync()
    load = Load(machines.bootstrap, "cut", PARTITIONS).start()
    load.wait_acked(LOST_AFTER, 180)
    machines.cut(*machines.ids)
    ledger = load.abandon()
    machines.start()
    machines.wait_led("cut", PARTITIONS)
    verdict = check.judge(ledger, check.scan(machines.bootstrap, "cut", PARTITIONS))
    print(verdict)
    if not verdict.broken.get("lost-write"):
        raise AssertionError("a power cut of all without any sync lost nothing: this harness does not cut the power")
