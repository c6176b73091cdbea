"""Results of scenarios: how programs in other languages hand them over, and the table at the end."""

from __future__ import annotations

import json
import time
import traceback
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

RESULT_MARK = "RESULT "


@dataclass
class Result:
    """What one scenario of one client showed."""

    scenario: str
    ok: bool
    detail: str = ""
    seconds: float = 0.0
    stored: dict[str, str] = field(default_factory=dict)
    """Topics whose batches must carry this codec (checked by the caller, by raw Fetch)."""

    def line(self) -> str:
        return RESULT_MARK + json.dumps(self.__dict__)


def parse(line: str) -> Result | None:
    """The result in an output line of a client program, if it is one."""
    return Result(**json.loads(line[len(RESULT_MARK) :])) if line.startswith(RESULT_MARK) else None


def attempt(scenario: str, run: Callable[[], dict[str, str] | None]) -> Result:
    """Run one scenario; an exception is its failure."""
    began = time.monotonic()
    try:
        stored = run() or {}
        return Result(scenario, True, seconds=time.monotonic() - began, stored=stored)
    except Exception as error:
        traceback.print_exc()
        detail = f"{type(error).__name__}: {error}".replace("\n", " | ")
        return Result(scenario, False, detail[:400], time.monotonic() - began)


def expect(what: str, got: object, wanted: object) -> None:
    """Fail with both values shown, shortened."""
    if got != wanted:
        raise AssertionError(f"{what}: got {str(got)[:150]}, wanted {str(wanted)[:150]}")


def eventually(what: str, get: Callable[[], object], wanted: object, seconds: float = 10.0) -> None:
    """Like `expect`, for what a broker may show a moment after it answered."""
    deadline = time.monotonic() + seconds
    while (got := get()) != wanted and time.monotonic() < deadline:
        time.sleep(0.05)
    expect(what, got, wanted)


def render(head: tuple[str, ...], rows: Iterable[tuple[object, ...]]) -> str:
    """A table with aligned columns."""
    cells = [head, *(tuple(str(cell) for cell in row) for row in rows)]
    widths = [max(len(row[column]) for row in cells) for column in range(len(head))]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in cells
    )
