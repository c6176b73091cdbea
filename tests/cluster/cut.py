"""Brokers that do not hear each other, while clients reach all of them."""

from __future__ import annotations

import time

from harness.cluster import Cluster
from harness.proxy import Link, Links

from .records import Rounds, Settings

CUT_SECONDS = (2.0, 5.0)


class Cut(Rounds):
    """A leader is cut off from its peers (or hears them, or they hear it), not from clients; or two of three from each other."""

    def __init__(self, cluster: Cluster, settings: Settings) -> None:
        self.links = Links({number: (cluster.port + 200 + number, cluster.port + 100 + number) for number in cluster.ids})
        for number, broker in cluster.brokers.items():
            seeds = ",".join(f"127.0.0.1:{cluster.port + 200 + other}" for other in cluster.ids)
            broker.configure(cluster_advertise=f"127.0.0.1:{cluster.port + 200 + number}", cluster_seeds=seeds)
        super().__init__(cluster, settings)

    def strike(self, victim: int) -> str:
        others = self.cluster.others(victim)
        away: list[Link] = [(victim, other) for other in others]
        back: list[Link] = [(other, victim) for other in others]
        one = self.draw.choice(others)
        what, cut = self.draw.choice(
            [
                ("cut off", away + back),
                ("cut off", away + back),
                ("not heard by others", away),
                ("does not hear others", back),
                (f"cut from {one}", [(victim, one), (one, victim)]),
            ]
        )
        self.links.know({number: broker.pid for number, broker in self.cluster.brokers.items()})
        seconds = self.draw.uniform(*CUT_SECONDS)
        self.links.cut_off(cut)
        time.sleep(seconds)
        self.back_at = time.monotonic()
        self.links.cut_off([])
        return f"{what} for {seconds:.1f} s"

    def remove(self) -> None:
        self.links.remove()
