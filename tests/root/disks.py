"""Disks that fill up and disks that fail."""

from __future__ import annotations

import time

from context import Context
from device import Filesystem, fill

from harness import check
from harness.brokers import Broker
from harness.load import Load
from harness.wire import KAFKA_STORAGE_ERROR, Wire, batch_of

PARTITIONS, SEGMENT_BYTES = 2, 1 << 20
SMALL_MIB = 64
FILLER_BATCH = batch_of([bytes(250_000)], 1_600_000_000_000)
FULL_SECONDS, ROOM_SECONDS, EXIT_SECONDS = 120.0, 180.0, 60.0
STALLED_SECONDS = 3.0
EXIT_OF_A_FAILED_DEVICE = 74


def a_full_disk_refuses_and_recovers(context: Context) -> None:
    """KAFKA_STORAGE_ERROR to producers, fetch goes on, retention makes room, produce resumes, nothing is lost."""
    filesystem = Filesystem(context.home / "image", context.home / "mount", SMALL_MIB).mount()
    context.after.callback(filesystem.unmount)
    broker = context.ottla(filesystem.mount_point / "data")
    broker.start()
    pid = broker.pid
    with Wire(broker.bootstrap) as wire:
        assert wire.create_topic("kept", PARTITIONS, segment_bytes=str(SEGMENT_BYTES), retention_ms="-1") == 0
        assert wire.create_topic("filler", 1, segment_bytes=str(SEGMENT_BYTES), retention_ms="-1") == 0
    load = Load(broker.bootstrap, "kept", PARTITIONS, producers=1, a_second=400).start()
    load.wait_acked(500, 60)
    fill_up(broker, load)
    acked = load.ledger.acked
    held = sum(len(records) for records in check.scan(broker.bootstrap, "kept", PARTITIONS))
    assert held >= acked, f"while full, fetch gives {held} of {acked} acknowledged records"
    with Wire(broker.bootstrap) as wire:
        code = wire.set_topic_config("filler", "retention.bytes", str(4 * SEGMENT_BYTES))
    assert code == 0, f"while full, retention.bytes cannot be set: {code}"
    began = time.monotonic()
    load.wait_acked(acked + 1000, ROOM_SECONDS)
    print(f"produce resumed by itself, {time.monotonic() - began:.1f} s after retention was allowed to make room")
    verdict = check.judge(load.finish(), check.scan(broker.bootstrap, "kept", PARTITIONS))
    print(verdict)
    assert broker.pid == pid and broker.exit_code(0.01) is None, "the broker did not live through it"
    assert not verdict.broken, str(verdict.broken)
    broker.stop()
    broker.start()
    after = check.judge(load.ledger, check.scan(broker.bootstrap, "kept", PARTITIONS))
    assert not after.broken, f"after a restart: {after.broken}"


def fill_up(broker: Broker, load: Load) -> None:
    """Write until the broker refuses for want of space, and until the load stands still too."""
    deadline = time.monotonic() + FULL_SECONDS
    codes: dict[int, int] = {}
    last, since = load.ledger.acked, time.monotonic()
    with Wire(broker.bootstrap) as wire:
        while time.monotonic() < deadline:
            code, _ = wire.produce("filler", 0, FILLER_BATCH)
            codes[code] = codes.get(code, 0) + 1
            if code not in (0, KAFKA_STORAGE_ERROR):
                raise AssertionError(f"a full disk answers {code}, not {KAFKA_STORAGE_ERROR}")
            if load.ledger.acked != last or code == 0:
                last, since = load.ledger.acked, time.monotonic()
            elif time.monotonic() - since > STALLED_SECONDS:
                print(f"full: answers to the filler by error code {codes}, {last} records of the load acked")
                return
            time.sleep(0.05 if code else 0)
    raise AssertionError(f"the disk never was full: {codes}, {load.ledger.acked} acked")


def a_failing_device_ends_the_broker(context: Context) -> None:
    """A sync that fails is never repeated: the broker ends with code 74, and a restart recovers what was acked."""
    outer = Filesystem(context.home / "outer", context.home / "outer-mount", 256).mount()
    context.after.callback(outer.unmount)
    inner = Filesystem(outer.mount_point / "inner", context.home / "inner-mount", 1024, direct=True)
    inner.reserve_metadata().mount()
    context.after.callback(inner.unmount)
    broker = context.ottla(inner.mount_point / "data")
    broker.start()
    with Wire(broker.bootstrap) as wire:
        assert wire.create_topic("failing", PARTITIONS, segment_bytes=str(SEGMENT_BYTES), retention_ms="-1") == 0
    load = Load(broker.bootstrap, "failing", PARTITIONS, producers=1, a_second=5000).start()
    load.wait_acked(10_000, 60)
    inner.sync()
    filler = fill(outer.mount_point)
    code = broker.exit_code(EXIT_SECONDS)
    print(f"exit code {code} after {load.ledger.acked} records were acknowledged")
    assert code == EXIT_OF_A_FAILED_DEVICE, f"a failed sync ends the broker with {code}:\n{broker.log()[-1500:]}"
    acked = load.ledger.acked
    inner.unmount()
    filler.unlink()
    inner.check()
    inner.mount()
    ready = broker.start()
    load.wait_acked(acked + 5000, 60)
    verdict = check.judge(load.finish(), check.scan(broker.bootstrap, "failing", PARTITIONS))
    print(f"ready again in {ready:.0f} ms; {verdict}")
    assert not verdict.broken, str(verdict.broken)
