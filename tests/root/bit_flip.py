"""A bit that changed on the disk: reported, never served, never cut, and nothing else suffers."""

from __future__ import annotations

import random
import subprocess
import time
from pathlib import Path

from context import Context

from harness.brokers import Ottla, ottla_binary
from harness.wire import CORRUPT_MESSAGE, LATEST, Wire, batch_of, batches

TOPIC, RECORDS, SEGMENT_BYTES = "flipped", 100, 1 << 20
VALUE_BYTES = 50_000
SEALED, ACTIVE = 30, 97
"""Offsets of the records that are damaged: far behind the last roll, and after it but not the last."""
MARK_SECONDS = 3.0
"""By then an idle broker has recorded how far it has synced."""


def content(offset: int) -> bytes:
    return random.Random(offset).randbytes(VALUE_BYTES)


def flip(data: Path, offset: int) -> tuple[Path, int]:
    """Change one bit in the middle of a record, wherever it is stored; the file and the position."""
    sought = content(offset)[VALUE_BYTES // 2 : VALUE_BYTES // 2 + 64]
    for file in sorted(path for path in (data / "topics").rglob("*") if path.is_file()):
        at = file.read_bytes().find(sought)
        if at >= 0:
            with open(file, "r+b") as opened:
                opened.seek(at)
                opened.write(bytes([sought[0] ^ 4]))
            return file, at
    raise AssertionError(f"record {offset} is in no file below {data}/topics")


def write_all(broker: Ottla) -> None:
    with Wire(broker.bootstrap) as wire:
        assert wire.create_topic(TOPIC, 1, segment_bytes=str(SEGMENT_BYTES), retention_ms="-1") == 0
        for offset in range(RECORDS):
            got = wire.produce(TOPIC, 0, batch_of([content(offset)], 1_600_000_000_000 + offset))
            assert got == (0, offset), f"produce answers {got}, not offset {offset}"


def read_all(broker: Ottla, damaged: int) -> None:
    """Every record but the damaged one is served whole; that one gives CORRUPT_MESSAGE and no bytes of it leave."""
    wrong = []
    with Wire(broker.bootstrap) as wire:
        assert wire.offset(TOPIC, 0, LATEST) == RECORDS, "the log was cut"
        for offset in range(RECORDS):
            code, _, data = wire.fetch(TOPIC, 0, offset, max_bytes=1)
            served = list(batches(data))
            if offset == damaged:
                if code != CORRUPT_MESSAGE or served:
                    wrong.append(f"the damaged offset {offset} answers {code} with {len(data)} bytes")
            elif code or not served or served[0].base_offset != offset or content(offset) not in served[0].raw:
                wrong.append(f"offset {offset} answers {code} with {len(data)} bytes")
        for offset in range(0, RECORDS, 7):
            _, _, data = wire.fetch(TOPIC, 0, offset)
            wrong += [f"damaged bytes served from {offset} on" for b in batches(data) if b.base_offset == damaged]
    assert not wrong, f"{len(wrong)} wrong answers: {'; '.join(wrong[:4])}"


def require_reported(broker: Ottla, said: int, file: Path) -> None:
    log = broker.log()[said:]
    told = any(word in log.lower() for word in ("corrupt", "damage", "checksum", "crc"))
    assert told and file.name in log, f"the log does not report the damage in {file.name}:\n{log[-1500:]}"


def repair(data: Path, code: int, *more: str) -> str:
    command = [str(ottla_binary()), "repair", "--data-dir", str(data), *more]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    print(f"ottla repair {' '.join(more)} ended with {done.returncode}: {(done.stdout + done.stderr).strip()[:400]}")
    assert done.returncode == code, f"ottla repair ended with {done.returncode} instead of {code}"
    return done.stdout + done.stderr


def repair_takes_the_range_out(broker: Ottla, data: Path, file: Path, damaged: int) -> None:
    """Without --apply nothing changes; with it, all but the damaged record can be read."""
    before = file.read_bytes()
    said = repair(data, 1)
    assert file.name in said and f"{damaged}..{damaged + 1}" in said, "repair does not name the damage"
    assert file.read_bytes() == before, "repair without --apply changed the file"
    repair(data, 0, "--topic", TOPIC, "--partition", "0", "--apply")
    kept = [path for path in file.parent.iterdir() if path.name.endswith(".damaged")]
    assert len(kept) == 1 and kept[0].read_bytes() in before, "the damaged bytes are not kept"
    repair(data, 0)
    broker.start()
    repair(data, 1)
    offset, read = 0, []
    with Wire(broker.bootstrap) as wire:
        while offset < RECORDS:
            code, _, data_read = wire.fetch(TOPIC, 0, offset)
            assert code == 0, f"after the repair, offset {offset} answers {code}"
            for batch in batches(data_read):
                read.append(batch.base_offset)
                offset = batch.next_offset
    expected = [n for n in range(RECORDS) if n != damaged]
    assert read == expected, f"after the repair {len(read)} records can be read, not {len(expected)}"


def one_case(context: Context, name: str, damaged: int, killed: bool, drop_caches: bool, repaired: bool) -> None:
    data = context.home / name.replace(", ", "-").replace(" ", "-")
    broker = context.ottla(data)
    broker.start()
    write_all(broker)
    if killed:
        time.sleep(MARK_SECONDS)
        broker.kill()
    else:
        broker.stop()
    file, position = flip(data, damaged)
    if drop_caches:
        subprocess.run(["sync"], check=True)
        Path("/proc/sys/vm/drop_caches").write_text("3\n")
    said = len(broker.log())
    broker.start()
    read_all(broker, damaged)
    require_reported(broker, said, file)
    broker.stop()
    if repaired:
        repair_takes_the_range_out(broker, data, file, damaged)
        broker.stop()
    print(f"{name}: {file.name} at {position}: as it must be", flush=True)


def a_flipped_bit_is_reported_and_never_served(context: Context) -> None:
    failures = []
    for name, damaged, killed, drop_caches, repaired in (
        ("sealed", SEALED, False, False, False),
        ("sealed, caches dropped", SEALED, False, True, True),
        ("active", ACTIVE, False, False, False),
        ("active, caches dropped", ACTIVE, False, True, True),
        ("active, killed", ACTIVE, True, True, False),
    ):
        try:
            one_case(context, name, damaged, killed, drop_caches, repaired)
        except Exception as failure:
            print(f"{name}: FAILED: {failure}", flush=True)
            failures.append(name)
    assert not failures, f"failed: {'; '.join(failures)}"
