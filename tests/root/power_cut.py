"""A power cut for real: what a broker acknowledged must be on the device, whatever the page cache held."""

from __future__ import annotations

import os
import random
import signal
import time
from pathlib import Path

from context import Context
from device import BootId, Filesystem

from harness import check
from harness.brokers import Broker
from harness.load import Load
from harness.table import render
from harness.wire import Wire

PARTITIONS, ACKED_A_ROUND, SEGMENT_BYTES = 8, 10_000, 1 << 20
IMAGE_MIB = 3072
CUTS_TRIED = 50
NOTICED = ("boot id", "boot_id", "forgotten", "forgot", "incarnation")


def stopped(pid: int) -> bool:
    """Whether every thread of the process stands still: a sync that had begun may end first."""
    states = [
        Path(f"/proc/{pid}/task/{task}/stat").read_text().rsplit(")", 1)[1].split()[0]
        for task in os.listdir(f"/proc/{pid}/task")
    ]
    return set(states) <= {"T", "t"}


class Machine:
    """A broker on a filesystem whose power can be cut."""

    def __init__(self, context: Context, durable: bool) -> None:
        self.filesystem = Filesystem(context.home / "image", context.home / "mount", IMAGE_MIB).mount()
        context.after.callback(self.filesystem.unmount)
        self.boot_id = BootId(context.home / "boot-id")
        context.after.callback(self.boot_id.remove)
        self.copy = context.home / "copy"
        self.broker: Broker = context.broker(self.filesystem.mount_point, durable)
        self.broker.start()
        self.repeated = 0

    def cut(self) -> None:
        """Stop the machine at one moment and go on from what its disk held then; the broker is down afterwards."""
        for _ in range(CUTS_TRIED):
            self.broker.pause()
            while not stopped(self.broker.pid):
                time.sleep(0.001)
            if self.filesystem.copy_if_still(self.copy):
                self.broker.kill()
                self.filesystem.replace_image(self.copy)
                self.boot_id.change()
                return
            self.repeated += 1
            os.kill(self.broker.pid, signal.SIGCONT)
            time.sleep(0.1)
        raise AssertionError(f"the device never stood still in {CUTS_TRIED} attempts")

    def create(self, topic: str) -> None:
        with Wire(self.broker.bootstrap) as wire:
            code = wire.create_topic(topic, PARTITIONS, segment_bytes=str(SEGMENT_BYTES), retention_ms="-1")
        assert code == 0, f"CreateTopics answers {code}"


def nothing_acknowledged_is_lost(context: Context) -> None:
    """Cuts under load: the producers go on, a reader records everything, and at the end all of it is there once."""
    machine = Machine(context, durable=True)
    machine.filesystem.sync()
    machine.create("cut")
    bootstrap = machine.broker.bootstrap
    load, tail = Load(bootstrap, "cut", PARTITIONS).start(), check.Tail(bootstrap, "cut", PARTITIONS)
    rows: list[tuple[object, ...]] = []
    for number in range(1, context.rounds + 1):
        before = load.ledger.acked
        load.wait_acked(before + ACKED_A_ROUND, 180)
        time.sleep(random.uniform(0, 0.3))
        machine.cut()
        acked = load.ledger.acked - before
        rows.append((number, acked, f"{machine.broker.start():.0f}", machine.repeated))
        print(f"cut {number}: {acked} acked, ready again in {rows[-1][2]} ms", flush=True)
    load.wait_acked(load.ledger.acked + ACKED_A_ROUND, 180)
    ledger = load.finish()
    seen = tail.finish(check.ends(bootstrap, "cut", PARTITIONS))
    verdict = check.judge(ledger, check.scan(bootstrap, "cut", PARTITIONS), seen)
    print(render(("cut", "acked", "ready ms", "repeated so far"), rows))
    print(verdict)
    if verdict.broken or ledger.refused:
        raise AssertionError(f"{verdict.broken}, refused {ledger.refused[:3]}")


def page_cache_loses(context: Context) -> None:
    """The same cuts without syncs must lose records: otherwise the test above shows nothing. They are noticed."""
    machine = Machine(context, durable=False)
    lost = acked = 0
    for number in range(1, context.rounds + 1):
        topic = f"cut-{number}"
        machine.create(topic)
        machine.filesystem.sync()
        load = Load(machine.broker.bootstrap, topic, PARTITIONS).start()
        load.wait_acked(ACKED_A_ROUND, 180)
        machine.cut()
        ledger = load.abandon()
        said = len(machine.broker.log())
        machine.broker.start()
        verdict = check.judge(ledger, check.scan(machine.broker.bootstrap, topic, PARTITIONS))
        lost, acked = lost + verdict.broken.get("lost-write", 0), acked + verdict.acked
        print(f"cut {number}: {verdict}", flush=True)
        if not context.of_kafka:
            require_noticed(machine.broker.log()[said:])
    print(f"lost {lost} of {acked} acknowledged records in {context.rounds} cuts")
    if lost == 0:
        raise AssertionError("a power cut without any sync lost nothing: this harness does not cut the power")


def require_noticed(log: str) -> None:
    if not any(word in log.lower() for word in NOTICED):
        raise AssertionError(f"the log says nothing about a changed boot id:\n{log[-1500:]}")


def changed_boot_id_is_noticed(context: Context) -> None:
    """A page-cache partition has forgotten after a reboot without a clean stop, and only then."""
    boot_id = BootId(context.home / "boot-id")
    context.after.callback(boot_id.remove)
    broker = context.ottla(context.home / "data", broker_durability="page-cache")
    broker.start()
    with Wire(broker.bootstrap) as wire:
        assert wire.create_topic("relaxed", 1) == 0
    load = Load(broker.bootstrap, "relaxed", 1).start()
    load.wait_acked(2000, 60)
    ledger = load.finish()
    ways = (("kill", broker.kill, False), ("stop, reboot", broker.stop, True), ("kill, reboot", broker.kill, True))
    for name, end, reboot in ways:
        end()
        if reboot:
            boot_id.change()
        said = len(broker.log())
        broker.start()
        log = broker.log()[said:].lower()
        noticed = any(word in log for word in NOTICED)
        if noticed != (name == "kill, reboot"):
            raise AssertionError(
                f"after {name} the log {'speaks' if noticed else 'does not speak'} of it:\n{log[-1500:]}"
            )
        verdict = check.judge(ledger, check.scan(broker.bootstrap, "relaxed", 1))
        print(f"{name}: noticed {noticed}; {verdict}")
        if verdict.broken:
            raise AssertionError(f"after {name}: {verdict.broken}")
