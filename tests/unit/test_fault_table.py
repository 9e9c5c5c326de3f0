# SPDX-License-Identifier: Apache-2.0
"""The table of the fault matrix: what holds, what failed, what nobody tried."""

from __future__ import annotations

import json
import math

import pytest
from fault_table import ROWS, Figure, Outcome, dump, lines, load, markdown


def figure(row: int = 1, value: float = 90.0, **changes) -> Figure:
    return Figure(row, "twin", "hold after", (70.0, value), "ms", at_most=100.0, **changes)


def ended(row: int = 1, passed: bool = True, entry: str = "twin") -> Outcome:
    return Outcome(row, entry, "test_it", passed)


def line_of(row: int, figures: list[Figure], outcomes: list[Outcome]):
    (found,) = (one for one in lines(figures, outcomes) if one.row == row)
    return found


def test_a_row_shows_its_worst_and_median_figure() -> None:
    found = line_of(1, [figure(void=2)], [ended()])
    assert found.measured == "hold after: worst 90, median 80 ms (<= 100); 2 void"
    assert (found.repetitions, found.verdict) == (2, "pass")


@pytest.mark.parametrize("value", [100.1, math.nan, math.inf])
def test_a_row_fails_with_its_figure(value: float) -> None:
    found = line_of(1, [figure(value=value)], [ended()])
    assert found.verdict == "FAILED"
    assert f"{value:.4g}" in found.measured


def test_a_row_fails_with_its_test_and_without_a_figure() -> None:
    assert line_of(1, [figure()], [ended(), ended(passed=False)]).verdict == "FAILED"
    assert line_of(1, [], [ended()]).verdict == "FAILED"
    assert line_of(1, [Figure(1, "twin", "hold after", ())], [ended()]).verdict == "FAILED"


def test_a_row_that_nothing_tried_is_missing() -> None:
    table = lines([figure()], [ended()])
    assert [one.row for one in table] == list(ROWS)
    assert {one.verdict for one in table if one.row != 1} == {"MISSING"}
    assert not any(one.holds for one in table if one.row != 1)


def test_entries_of_a_row_stand_for_themselves() -> None:
    table = lines([figure()], [ended(), ended(passed=False, entry="arm")])
    assert [(one.entry, one.holds) for one in table if one.row == 1] == [
        ("twin", True),
        ("arm", False),
    ]
    text = markdown(table)
    assert "| 1 | command source freezes | twin | hold <= 100 ms |" in text
    assert len(text.splitlines()) == 2 + len(ROWS) + 1


def test_figures_survive_their_file() -> None:
    kept = json.loads(json.dumps(dump([figure()], [ended()])))
    assert load(kept) == ([figure()], [ended()])
