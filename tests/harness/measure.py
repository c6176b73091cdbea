"""What measurements share: the load generator's results, and what the kernel says of a process."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path

from .brokers import Broker, ottla_binary

TICKS = os.sysconf("SC_CLK_TCK")
Result = dict


def run_ottla(*arguments: str) -> str:
    """What `ottla ARGUMENTS` prints; raises with the end of its stderr if it fails."""
    command = [str(ottla_binary()), *arguments]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode != 0:
        raise RuntimeError(f"{' '.join(command)}: {done.stderr[-2000:]}")
    return done.stdout


def bench(broker: Broker, load: str, *options: str, warmup: float, seconds: float) -> Result:
    """One run of `ottla bench`, as its JSON."""
    command = ["bench", *load.split(), "--format", "json", "--quiet"]
    command += ["--warmup", f"{warmup:.0f}s", "--seconds", f"{seconds:.0f}s", *options]
    if load != "echo":
        command += ["--brokers", broker.bootstrap, "--broker-pid", str(broker.pid), "--timeout", "60"]
    return json.loads(run_ottla(*command))


def anonymous_mb(pid: int) -> float:
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("RssAnon")) * 1024 / 1e6


def cpu_seconds(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / TICKS
