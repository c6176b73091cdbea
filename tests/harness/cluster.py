"""A cluster of Ottla brokers, each a process on ports and in a directory of its own."""

from __future__ import annotations

import shutil
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from .brokers import Ottla
from .routes import Routes, View

FIRST_PORT = 20000
CAUGHT_UP_SECONDS = 120.0


class Cluster:
    """Brokers 1 to n. The data and logs lie in `home`, which outlives this object."""

    def __init__(self, home: Path, count: int = 3, port: int = FIRST_PORT, **config: str) -> None:
        """Kafka's ports are `port` + id, those between brokers 100 above. `config` is for each of them."""
        self.home, self.port, self.config = home, port, config
        home.mkdir(parents=True, exist_ok=True)
        self.brokers = {number: self.make(number) for number in range(1, count + 1)}

    def make(self, number: int) -> Ottla:
        """A broker, not started."""
        place = {
            "broker_id": str(number),
            "cluster_listen": f"127.0.0.1:{self.port + 100 + number}",
            "cluster_seeds": self.seeds(),
        }
        broker = Ottla(self.home / f"data-{number}", **(place | self.config))
        broker.port = self.port + number
        broker.log_file = self.home / f"log-{number}"
        return broker

    def seeds(self) -> str:
        return ",".join(f"127.0.0.1:{self.port + 100 + number}" for number in (1, 2, 3))

    @property
    def ids(self) -> list[int]:
        return sorted(self.brokers)

    @property
    def bootstrap(self) -> str:
        return ",".join(broker.bootstrap for broker in self.brokers.values())

    def start(self, *numbers: int, apart: float = 0.0) -> dict[int, float]:
        """Start these brokers in this order (or all), `apart` seconds after each other; milliseconds until each was ready."""
        order = numbers or self.ids
        with ThreadPoolExecutor(len(order)) as pool:
            started = {}
            for number in order:
                started[number] = pool.submit(self.brokers[number].start)
                time.sleep(apart)
            return {number: future.result() for number, future in started.items()}

    def others(self, number: int) -> list[int]:
        return [other for other in self.ids if other != number]

    def view(self, topic: str, at: int | None = None) -> View:
        """What a broker (or any) tells of a topic."""
        with Routes(self.brokers[at].bootstrap if at else self.bootstrap) as routes:
            return routes.view(topic)

    def wait_led(self, topic: str, partitions: int, at: list[int] | None = None, seconds: float = 60.0) -> None:
        """Wait until each of these brokers (or all) tells a leader of every partition, and the same as the others."""
        deadline = time.monotonic() + seconds
        while True:
            told = {number: self.view(topic, number).leaders() for number in at or self.ids}
            first = next(iter(told.values()))
            if len(first) == partitions and all(leaders == first for leaders in told.values()):
                return
            if time.monotonic() > deadline:
                raise TimeoutError(f"no agreed leaders of {partitions} partitions after {seconds:.0f} s: {differences(told, partitions)}")
            time.sleep(0.05)

    def wait_caught_up(self, number: int, topic: str, partitions: int, seconds: float = CAUGHT_UP_SECONDS) -> float:
        """Wait until every broker tells the same leaders, and tells a broker in sync wherever it has a replica; how long it took."""
        began = time.monotonic()
        self.wait_led(topic, partitions, seconds=seconds)
        while True:
            parts = [self.view(topic, other).parts for other in self.ids]
            behind = {at for told in parts for at, part in told.items() if number in part.replicas and number not in part.isr}
            if not behind:
                return time.monotonic() - began
            if time.monotonic() > began + seconds:
                raise TimeoutError(f"broker {number} is not in sync after {seconds:.0f} s, in partitions {sorted(behind)}")
            time.sleep(0.1)

    def wipe(self, number: int) -> None:
        """Take a stopped broker's data away."""
        shutil.rmtree(self.brokers[number].data_dir)

    def remove(self) -> None:
        """Kill what runs; data and logs stay."""
        for broker in self.brokers.values():
            broker.remove()


def differences(told: dict[int, dict[int, int]], partitions: int) -> str:
    """Where brokers tell different leaders, or none."""
    said = {partition: [leaders.get(partition) for leaders in told.values()] for partition in range(partitions)}
    wrong = {partition: leaders for partition, leaders in said.items() if None in leaders or len(set(leaders)) > 1}
    return f"brokers {list(told)} tell {wrong}"
