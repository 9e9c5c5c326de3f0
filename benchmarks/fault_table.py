# SPDX-License-Identifier: Apache-2.0
"""The matrix of faults: its thirty rows, what tests measured of them, and the table of both."""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterable
from dataclasses import asdict, dataclass, replace
from typing import Any

# Fault, and what is expected of the stack with its bound.
ROWS: dict[int, tuple[str, str]] = {
    1: ("command source freezes", "hold <= 100 ms"),
    2: ("command source killed", "stop by liveliness <= 250 ms"),
    3: ("NaN or infinite at any element", "none reaches the device; counted"),
    4: ("wrong length or joint names", "all refused, no motion"),
    5: ("stamp older than the timeout", "all dropped"),
    6: ("position beyond limit", "clamped; 0 samples outside"),
    7: ("velocity step", "limited to acceleration and jerk"),
    8: ("full speed at a limit", "stops inside it"),
    9: ("15 / 40 ms loop stall", "survives / aborts cleanly"),
    10: ("device silent", "fault <= 100 ms of its own period budget"),
    11: ("reflex on the arm", "no command until an explicit recovery"),
    12: ("emergency stop", "zero within one cycle; latched; release alone never re-enables"),
    13: ("emergency-stop heartbeat lost", "treated as pressed <= 250 ms"),
    14: ("corrupt servo packet", "sample discarded, <= 1 retry"),
    15: ("servo silent", "ERROR <= 500 ms"),
    16: ("servo alert bit", "fault within one cycle, joint named"),
    17: ("port unplugged", "inactive <= 100 ms; backed-off reconnect <= 5 s"),
    18: ("camera stalls", "planner stopped <= 500 ms; sensing resumes by itself"),
    19: ("empty or wrong-size image", "refused"),
    20: ("stereo or depth skew over one period", "pair dropped"),
    21: ("node killed", "restarted <= 5 s, robot held meanwhile"),
    22: ("crash loop", "stops after 3; ERROR diagnostic"),
    23: ("node hangs", "dependants deactivated <= 1 s"),
    24: ("exception in a control step", "only that node is deactivated; robot held in one cycle"),
    25: ("clock steps by an hour", "no spurious stop"),
    26: ("two command sources", "never interleaved"),
    27: ("recorder killed", "loss <= one chunk; bag repaired"),
    28: ("disk full", "recorder errors; control loop unaffected"),
    29: ("NaN, missing or truncated weights", "refused; the running model stays"),
    30: ("goal cancelled", "decelerated hold, begun within one cycle"),
}


@dataclass(frozen=True)
class Figure:
    """What one test measured of a row.

    Attributes:
        entry: on what the fault was injected: twin, Dynamixel bus, ...
        what: the quantity, as "hold after".
        values: one a repetition, in `unit`.
        at_most, at_least: bounds that every value keeps to; None: none.
        void: repetitions left out, as the machine itself stood still during them.
    """

    row: int
    entry: str
    what: str
    values: tuple[float, ...]
    unit: str = ""
    at_most: float | None = None
    at_least: float | None = None
    void: int = 0

    @property
    def holds(self) -> bool:
        """Whether there are values, and all keep to the bounds."""
        return bool(self.values) and all(
            math.isfinite(value)
            and (self.at_most is None or value <= self.at_most)
            and (self.at_least is None or value >= self.at_least)
            for value in self.values
        )

    @property
    def worst(self) -> float:
        if not self.values:
            return math.nan
        return min(self.values) if self.at_least is not None else max(self.values)

    def text(self) -> str:
        """Return the figure as people read it."""
        unit = f" {self.unit}" if self.unit else ""
        told = f"{self.what} {self.worst:.4g}{unit}"
        if len(self.values) > 1:
            median = statistics.median(self.values)
            told = f"{self.what}: worst {self.worst:.4g}, median {median:.4g}{unit}"
        for bound, sense in ((self.at_most, "<="), (self.at_least, ">=")):
            if bound is not None:
                told += f" ({sense} {bound:.4g})"
        return told + (f"; {self.void} void" if self.void else "")


@dataclass(frozen=True)
class Outcome:
    """How a test of a row ended."""

    row: int
    entry: str
    test: str
    passed: bool


@dataclass(frozen=True)
class Line:
    """One line of the table: a row on one thing."""

    row: int
    entry: str
    measured: str
    repetitions: int
    verdict: str

    @property
    def holds(self) -> bool:
        return self.verdict == "pass"


def merged(figures: Iterable[Figure]) -> list[Figure]:
    """Return figures with those of equal quantities as repetitions of one."""
    made: dict[Figure, Figure] = {}
    for one in figures:
        kind = replace(one, values=(), void=0)
        known = made.get(kind, kind)
        made[kind] = replace(known, values=known.values + one.values, void=known.void + one.void)
    return list(made.values())


def lines(figures: Iterable[Figure], outcomes: Iterable[Outcome]) -> list[Line]:
    """Return the table's lines: at least one a row; what no test tried is missing."""
    figures, outcomes = merged(figures), list(outcomes)
    made = []
    for row in ROWS:
        entries = dict.fromkeys(one.entry for one in (*outcomes, *figures) if one.row == row)
        for entry in entries:
            of_it = [one for one in figures if (one.row, one.entry) == (row, entry)]
            ended = [one for one in outcomes if (one.row, one.entry) == (row, entry)]
            passed = (
                bool(of_it and ended)
                and all(one.holds for one in of_it)
                and all(one.passed for one in ended)
            )
            measured = "; ".join(one.text() for one in of_it) or "nothing"
            repetitions = max((len(one.values) for one in of_it), default=0)
            made.append(Line(row, entry, measured, repetitions, "pass" if passed else "FAILED"))
        if not entries:
            made.append(Line(row, "", "nothing", 0, "MISSING"))
    return made


def markdown(table: Iterable[Line]) -> str:
    """Return the table as Markdown."""
    made = ["| # | fault | on | expected | measured | n | |", "|---|---|---|---|---|---|---|"]
    for line in table:
        fault, expected = ROWS[line.row]
        cells = (line.row, fault, line.entry, expected, line.measured, line.repetitions)
        text = " | ".join(str(cell).replace("|", "/") for cell in cells)
        made.append(f"| {text} | {line.verdict} |")
    return "\n".join(made) + "\n"


def dump(figures: Iterable[Figure], outcomes: Iterable[Outcome]) -> dict[str, Any]:
    """Return both as what JSON holds; `load` reads it."""
    return {
        "figures": [asdict(one) for one in figures],
        "outcomes": [asdict(one) for one in outcomes],
    }


def load(found: dict[str, Any]) -> tuple[list[Figure], list[Outcome]]:
    """Return what `dump` was given."""
    return (
        [Figure(**{**one, "values": tuple(one["values"])}) for one in found["figures"]],
        [Outcome(**one) for one in found["outcomes"]],
    )
