"""A Python client's member of a group: what `groups.py` wants to hear of it, and when it must leave."""

from __future__ import annotations

import sys
import threading
from collections.abc import Iterable
from dataclasses import dataclass, field

SESSION_MS = 10_000
STATIC_SESSION_MS = 30_000
HEARTBEAT_MS = 500


@dataclass(frozen=True)
class Membership:
    """What the command line says about a member."""

    bootstrap: str
    group: str
    topic: str
    assignor: str
    instance: str

    @property
    def session_ms(self) -> int:
        return STATIC_SESSION_MS if self.instance else SESSION_MS


@dataclass
class Seat:
    """A member's partitions, and the records that it has shown and not committed yet."""

    partitions: set[int] = field(default_factory=set)
    uncommitted: dict[int, int] = field(default_factory=dict)
    """For a partition the offset behind the last record shown."""
    leaving: threading.Event = field(default_factory=threading.Event)

    def __post_init__(self) -> None:
        threading.Thread(target=self.wait_for_the_end, daemon=True).start()

    def wait_for_the_end(self) -> None:
        sys.stdin.read()
        self.leaving.set()

    def given(self, partitions: Iterable[int]) -> None:
        self.partitions.update(partitions)
        self.show()

    def taken(self, partitions: Iterable[int]) -> None:
        self.partitions.difference_update(partitions)
        self.show()

    def show(self) -> None:
        print("ASSIGNED", *sorted(self.partitions), flush=True)

    def read(self, partition: int, offset: int, value: bytes) -> None:
        print("READ", partition, offset, value.decode(), flush=True)
        self.uncommitted[partition] = offset + 1
