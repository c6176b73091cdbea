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
        """Wait until a broker holds as many bytes of each partition as its leader held when this was called; how long it took."""
        began = time.monotonic()
        self.wait_led(topic, partitions)
        leaders = self.view(topic).leaders()
        sizes = {of: self.sizes(of, topic) for of in sorted(set(leaders.values()))}
        wanted = {partition: sizes[leader].get(partition, 0) for partition, leader in leaders.items()}
        while True:
            held = self.sizes(number, topic)
            behind = {at: (held.get(at, 0), size) for at, size in wanted.items() if held.get(at, 0) < size}
            if not behind:
                return time.monotonic() - began
            if time.monotonic() > began + seconds:
                raise TimeoutError(f"broker {number} has not caught up after {seconds:.0f} s: {behind} (bytes held, wanted)")
            time.sleep(0.1)

    def sizes(self, number: int, topic: str) -> dict[int, int]:
        with Routes(self.brokers[number].bootstrap) as routes:
            return routes.sizes(topic)

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
