"""What the kernel was asked to do for one produce request, and in which order."""

from __future__ import annotations

import re
import signal
import subprocess
import time
from dataclasses import dataclass
from pathlib import Path

from context import Context

from harness import programs
from harness.wire import Wire, batch_of

WRITES = ("pwritev", "pwritev2", "pwrite64", "writev", "write", "io_uring_enter")
SYNCS = ("fdatasync", "fsync")
SENDS = ("sendto", "sendmsg", "writev", "write")
TRACED = ",".join(sorted({*WRITES, *SYNCS, *SENDS}))
LINE = re.compile(r"^(?P<thread>\d+) +(?P<time>\d+\.\d+) (?P<rest>.*)$")
BEGUN = re.compile(r"^(?P<name>\w+)\((?P<args>.*?)(?P<unfinished> <unfinished \.\.\.>)?$")
RESUMED = re.compile(r"^<\.\.\. (?P<name>\w+) resumed>(?P<args>.*)$")
ENDED = re.compile(r" = (?P<result>-?\d+).*<(?P<took>\d+\.\d+)>$")


@dataclass(frozen=True)
class Call:
    name: str
    target: str
    """What the first argument's file descriptor stands for."""
    began: float
    ended: float
    result: int


def calls(trace: str) -> list[Call]:
    """The finished calls of a trace of all threads, with the parts of interrupted lines joined."""
    found, open_calls = [], {}
    for line in trace.splitlines():
        matched = LINE.match(line)
        if not matched:
            continue
        thread, at, rest = matched["thread"], float(matched["time"]), matched["rest"]
        resumed, begun = RESUMED.match(rest), BEGUN.match(rest)
        if resumed and thread in open_calls:
            name, args, began = open_calls.pop(thread)
            end = at
        elif begun and begun["unfinished"]:
            open_calls[thread] = begun["name"], begun["args"], at
            continue
        elif begun:
            name, args, began, end = begun["name"], begun["args"], at, -1.0
        else:
            continue
        outcome = ENDED.search(rest)
        if outcome:
            end = end if end >= 0 else at + float(outcome["took"])
            target = re.match(r"\d+<(.*?)>(?:,|\)|$)", args)
            found.append(Call(name, target[1] if target else "", began, end, int(outcome["result"])))
    return found


def trace_one_produce(pid: int, bootstrap: str, output: Path) -> tuple[list[Call], int]:
    """Trace a broker while one record is written with acks=all; the calls, and the client's port."""
    strace = programs.apt("strace", "strace")
    command = [
        strace,
        "-f",
        "-p",
        str(pid),
        "-yy",
        "-ttt",
        "-T",
        "-s",
        "16",
        "-e",
        f"trace={TRACED}",
        "-o",
        str(output),
    ]
    tracer = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    try:
        while "attached" not in (tracer.stderr.readline() if tracer.stderr else "attached"):
            assert tracer.poll() is None, "strace ended at once"
        time.sleep(1)
        with Wire(bootstrap) as wire:
            port = wire.socket.getsockname()[1]
            code, _ = wire.produce("traced", 0, batch_of([b"x" * 3000], 1_600_000_000_000))
            assert code == 0, f"produce answers {code}"
            time.sleep(0.2)
    finally:
        tracer.send_signal(signal.SIGINT)
        tracer.wait(30)
    return calls(output.read_text()), port


def the_sync_returns_before_the_reply(context: Context) -> None:
    """write, then fdatasync of that very file, then the reply: in this order, each ended before the next begins."""
    data = context.home / "data"
    broker = context.broker(data)
    broker.start()
    with Wire(broker.bootstrap) as wire:
        assert wire.create_topic("traced", 1) == 0
        assert wire.produce("traced", 0, batch_of([b"first"], 1_600_000_000_000))[0] == 0
    found, port = trace_one_produce(broker.pid, broker.bootstrap, context.home / "trace")
    held = "/traced-0/" if context.of_kafka else "/topics/"
    in_topic = [call for call in found if str(data) in call.target and held in call.target]
    writes = [call for call in in_topic if call.name in WRITES and call.result >= 3000]
    replies = [call for call in found if call.name in SENDS and f":{port}]" in call.target and call.result > 0]
    assert writes, f"no write of the record was seen among {len(found)} calls"
    assert replies, f"no reply to port {port} was seen among {len(found)} calls"
    write, reply = writes[0], replies[0]
    syncs = [call for call in in_topic if call.name in SYNCS and call.target == write.target and call.result == 0]
    between = [call for call in syncs if write.ended <= call.began and call.ended <= reply.began]
    for call in (write, *syncs[:3], reply):
        print(f"{call.name:<10} {call.target[-60:]:<60} {(call.began - write.began) * 1e6:8.0f} to "
              f"{(call.ended - write.began) * 1e6:8.0f} us")  # fmt: skip
    assert between, "the reply began before a sync of the written file had returned"
