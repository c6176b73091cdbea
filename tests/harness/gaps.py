"""How long clients waited: gaps between the acknowledgements of each partition."""

from __future__ import annotations

import bisect
import math
from array import array
from dataclasses import dataclass, field
from itertools import pairwise


@dataclass(frozen=True)
class Gap:
    """The longest time that one partition acknowledged nothing, within a span."""

    partition: int
    seconds: float
    since: float
    """When it began, after the span's begin; below zero: before."""

    def __str__(self) -> str:
        return f"{self.partition}: {self.seconds * 1000:.0f} ms from {self.since:+.2f} s"


def longest(times: array, partition: int, begin: float, end: float) -> Gap:
    """The longest gap that touches the span from `begin` to `end`."""
    moments = sorted(times)
    first = max(0, bisect.bisect_left(moments, begin) - 1)
    last = bisect.bisect_right(moments, end) + 1
    within = moments[first:last]
    if not within or within[-1] < end:
        within.append(end)
    if within[0] > begin:
        within.insert(0, begin)
    before, after = max(pairwise(within), key=lambda pair: pair[1] - pair[0], default=(begin, end))
    return Gap(partition, after - before, before - begin)


def percentile(values: list[float], part: float) -> float:
    """The smallest value that so large a part of them does not exceed."""
    ordered = sorted(values)
    return ordered[max(0, math.ceil(part * len(ordered)) - 1)]


@dataclass
class Gaps:
    """The longest gap of each partition in each span, in kinds."""

    kinds: dict[str, list[Gap]] = field(default_factory=dict)

    def add(self, kind: str, gap: Gap) -> None:
        self.kinds.setdefault(kind, []).append(gap)

    HEAD = ("longest gap between acks, ms", "count", "p50", "p99", "max")

    def rows(self) -> list[tuple[object, ...]]:
        rows: list[tuple[object, ...]] = []
        for kind, gaps in self.kinds.items():
            millis = [gap.seconds * 1000 for gap in gaps]
            rows.append((kind, len(millis), *(f"{percentile(millis, part):.0f}" for part in (0.5, 0.99, 1.0))))
        return rows

    def p99(self, kind: str) -> float:
        """Seconds; 0 for a kind that never was."""
        return percentile([gap.seconds for gap in self.kinds[kind]], 0.99) if kind in self.kinds else 0.0

    def worst(self, kind: str, count: int = 3) -> list[Gap]:
        return sorted(self.kinds.get(kind, ()), key=lambda gap: -gap.seconds)[:count]
