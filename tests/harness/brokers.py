"""Starts, kills and restarts brokers: Ottla, or Apache Kafka as the peer that shows what a test can see."""

from __future__ import annotations

import contextlib
import json
import os
import re
import signal
import socket
import subprocess
import tempfile
import threading
import time
import urllib.request
from abc import ABC, abstractmethod
from collections.abc import Iterator
from pathlib import Path
from typing import IO

from . import programs

ROOT = programs.TESTS.parent
READY_SECONDS = 120.0
STOP_SECONDS = 60.0
READY = re.compile(r"^ottla \S+ ready (?P<fields>.*)$")


class BrokerFailed(Exception):
    """A broker that did not come up, or did not stop; the message holds the end of its log."""


def free_port() -> int:
    """A port that nobody listens on now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def ottla_binary() -> Path:
    """The release binary, built if it is not there. OTTLA_BIN names another one."""
    if "OTTLA_BIN" in os.environ:
        return Path(os.environ["OTTLA_BIN"])
    binary = Path(os.environ.get("CARGO_TARGET_DIR", ROOT / "target")) / "release" / "ottla"
    if not binary.exists():
        subprocess.run(["cargo", "build", "--release", "--locked"], check=True, cwd=ROOT)
    return binary


class Broker(ABC):
    """One broker on a fixed port whose data outlives its process."""

    port: int

    @property
    @abstractmethod
    def pid(self) -> int:
        """The process that runs now, or ran last."""

    @property
    def bootstrap(self) -> str:
        return f"127.0.0.1:{self.port}"

    @abstractmethod
    def start(self) -> float:
        """Start on the data that is there; milliseconds until it was ready."""

    @abstractmethod
    def kill(self) -> None:
        """kill -9, and wait for the end."""

    @abstractmethod
    def stop(self) -> None:
        """Graceful stop."""

    @abstractmethod
    def remove(self) -> None:
        """Kill if running, and remove what this object made (never a data directory that it was given)."""

    @abstractmethod
    def log(self) -> str:
        """What it has logged so far, over all starts."""

    def metric(self, name: str) -> float:
        """The sum over all labels of a metric; 0 for a broker without metrics."""
        return 0.0

    def pause(self) -> None:
        os.kill(self.pid, signal.SIGSTOP)

    def resume(self) -> None:
        os.kill(self.pid, signal.SIGCONT)


class Ottla(Broker):
    """`ottla serve`, configured by environment variables (OTTLA_<SECTION>_<KEY>)."""

    def __init__(self, data_dir: Path, prefix: tuple[str, ...] = (), **config: str) -> None:
        self.data_dir = data_dir
        self.prefix = prefix
        self.settings: dict[str, str] = {}
        self.configure(**config)
        self.home = tempfile.TemporaryDirectory(prefix="ottla-broker-")
        self.log_file = Path(self.home.name) / "log"
        self.process: subprocess.Popen[str] | None = None
        self.port = 0
        self.admin = ""

    def configure(self, **config: str) -> None:
        """Set these keys, from the next start on."""
        self.settings |= config

    @property
    def pid(self) -> int:
        return self.process.pid if self.process else 0

    def start(self, patience: float = READY_SECONDS) -> float:
        began = time.monotonic()
        command = [*self.prefix, str(ottla_binary()), "serve"]
        command += ["--data-dir", str(self.data_dir), "--listen", f"127.0.0.1:{self.port}"]
        keys = {f"OTTLA_{key.upper()}": value for key, value in self.settings.items()}
        environment = {**os.environ, "OTTLA_ADMIN_LISTEN": "127.0.0.1:0", **keys}
        with open(self.log_file, "a") as log:
            self.process = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=log, text=True, env=environment
            )
        ready = self.ready_line(began + patience)
        self.port = int(ready["kafka"].rsplit(":", 1)[1])
        self.admin = ready.get("admin", "")
        return (time.monotonic() - began) * 1000

    def ready_line(self, deadline: float) -> dict[str, str]:
        """Wait for the line that says ready; what follows on stdout joins the log."""
        found: dict[str, str] = {}
        seen = threading.Event()
        assert self.process is not None and self.process.stdout is not None
        threading.Thread(target=self.drain, args=(self.process.stdout, found, seen), daemon=True).start()
        if not seen.wait(max(0.0, deadline - time.monotonic())) or not found:
            code = self.process.poll() if self.process else None
            self.kill()
            raise BrokerFailed(f"not ready (exit code {code}); the end of its log:\n{self.log()[-3000:]}")
        return found

    def drain(self, output: IO[str], found: dict[str, str], seen: threading.Event) -> None:
        with open(self.log_file, "a") as log:
            for line in output:
                matched = READY.match(line)
                if matched:
                    pairs = (field.partition("=") for field in matched["fields"].split())
                    found.update((key, value) for key, _, value in pairs)
                    seen.set()
                log.write(line)
                log.flush()
        seen.set()

    def signalled(self, sig: signal.Signals) -> int:
        process = self.process
        if process is None:
            return 0
        if process.poll() is None:
            process.send_signal(sig)
        try:
            return process.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
            raise BrokerFailed(f"still there {STOP_SECONDS} s after {sig.name}:\n{self.log()[-3000:]}") from None

    def hit(self) -> None:
        """kill -9, without waiting."""
        if self.process and self.process.poll() is None:
            self.process.kill()

    def kill(self) -> None:
        self.signalled(signal.SIGKILL)

    def stop(self) -> None:
        code = self.signalled(signal.SIGTERM)
        if code != 0:
            raise BrokerFailed(f"a graceful stop ended with exit code {code}:\n{self.log()[-3000:]}")

    def exit_code(self, seconds: float) -> int | None:
        """The exit code once the process has ended by itself, None if it runs on."""
        try:
            return self.process.wait(seconds) if self.process else None
        except subprocess.TimeoutExpired:
            return None

    def remove(self) -> None:
        self.kill()
        self.home.cleanup()

    def log(self) -> str:
        return self.log_file.read_text(errors="replace") if self.log_file.exists() else ""

    def metric(self, name: str) -> float:
        with urllib.request.urlopen(f"http://{self.admin}/metrics", timeout=10) as answer:
            text = answer.read().decode()
        lines = [line for line in text.splitlines() if re.match(rf"{name}(_total)?[ {{]", line)]
        return sum(float(line.rsplit(" ", 1)[1]) for line in lines)


class Kafka(Broker):
    """Apache Kafka through benches/kafka."""

    def __init__(self, data_dir: Path | None = None, fsync: bool = False, heap: str = "512m", **config: str) -> None:
        self.port = free_port()
        self.options = ["--heap", heap]
        self.options += ["--fsync"] if fsync else []
        self.options += ["--data-dir", str(data_dir)] if data_dir else []
        self.options += [
            part for key, value in config.items() for part in ("--set", f"{key.replace('_', '.')}={value}")
        ]
        self.state: dict[str, list] = {}

    @property
    def pid(self) -> int:
        return self.state["pids"][0]

    def run(self, command: str, *options: str) -> str:
        run = [programs.KAFKA, command, "--port", str(self.port), *options]
        done = subprocess.run(run, capture_output=True, text=True)
        if done.returncode != 0:
            raise BrokerFailed(done.stderr)
        return done.stdout

    def start(self) -> float:
        began = time.monotonic()
        self.state = json.loads(self.run("start") if self.state else self.run("up", *self.options))
        return (time.monotonic() - began) * 1000

    def kill(self) -> None:
        self.run("kill")

    def stop(self) -> None:
        self.run("stop")

    def remove(self) -> None:
        self.run("down")

    def log(self) -> str:
        return Path(self.state["logs"][0]).read_text(errors="replace")


@contextlib.contextmanager
def given_or_own(bootstrap: str | None, **config: str) -> Iterator[str]:
    """The address given, or that of an Ottla broker started for the caller, configured so, on its own directory."""
    if bootstrap:
        yield bootstrap
        return
    with tempfile.TemporaryDirectory(prefix="ottla-data-") as data:
        broker = Ottla(Path(data) / "data", **config)
        try:
            broker.start()
            yield broker.bootstrap
            broker.stop()
        finally:
            broker.remove()
