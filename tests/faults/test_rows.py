# SPDX-License-Identifier: Apache-2.0
"""What counts as a row's figure: one attempt of a few, or the worst of all repetitions."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
from fault_table import Figure
from rows import Row
from stalls import StallProbe


class Machine(StallProbe):
    """Stood still in the attempts that a test says."""

    def __init__(self, stalls: list[bool]) -> None:
        self._of_attempt = iter(stalls)

    def stalled_since(self, start_s: float) -> bool:
        return next(self._of_attempt)


def attempts(*figures: float) -> Callable[[], float]:
    return iter(figures).__next__


def row(repetitions: int = 0, stalls: list[bool] | None = None) -> tuple[Row, list[Figure]]:
    kept: list[Figure] = []
    machine = None if stalls is None else Machine(stalls)
    return Row(10, "twin", kept.append, repetitions, machine), kept


def test_a_run_of_all_tests_looks_for_one_attempt_within_the_bound() -> None:
    one, kept = row()
    assert one.measure("fault after", attempts(140.0, math.nan, 90.0), "ms", at_most=100.0) == [90]
    assert kept[0].values == (90.0,)
    with pytest.raises(AssertionError, match="fault row 10, twin: fault after 120 ms"):
        one.measure("fault after", attempts(*[140.0] * 4, 120.0), "ms", at_most=100.0)


def test_every_repetition_counts_where_figures_are_kept() -> None:
    one, kept = row(3, [False])
    with pytest.raises(AssertionError, match="worst 110"):
        one.measure("fault after", attempts(90.0, 110.0, 80.0), "ms", at_most=100.0)
    assert kept[0].values == (90.0, 110.0, 80.0)


def test_late_repetitions_of_a_machine_that_stood_still_are_void_and_counted() -> None:
    one, kept = row(3, [True])
    one.measure("fault after", attempts(90.0, 500.0, math.nan, 70.0, 80.0), "ms", at_most=100.0)
    assert kept[0].values == (90.0, 70.0, 80.0)
    assert kept[0].void == 2


def test_what_goes_wrong_while_the_machine_stands_still_is_void_and_else_a_failure() -> None:
    outcomes = iter([AssertionError("no answer"), 90.0, AssertionError("it moved")])

    def attempt() -> float:
        outcome = next(outcomes)
        if isinstance(outcome, AssertionError):
            raise outcome
        return outcome

    one, kept = row(1, [True, False])
    one.measure("fault after", attempt, "ms", at_most=100.0)
    assert (kept[0].values, kept[0].void) == ((90.0,), 1)
    with pytest.raises(AssertionError, match="it moved"):
        one.measure("fault after", attempt, "ms", at_most=100.0)


def test_a_machine_that_never_rests_gives_no_figure_and_no_pass() -> None:
    one, kept = row(2, [True] * 10)
    with pytest.raises(AssertionError):
        one.measure("fault after", lambda: 500.0, "ms", at_most=100.0)
    assert kept[0].values == ()
    assert kept[0].void == 5


def test_a_time_is_bounded_where_figures_are_kept_alone() -> None:
    row()[0].timed("active again after", 9.0, "s", at_most=5.0)
    with pytest.raises(AssertionError):
        row(3)[0].timed("active again after", 9.0, "s", at_most=5.0)


def test_the_probe_tells_of_naps_that_lasted_too_long() -> None:
    with StallProbe(cores=1) as probe:
        start_s = probe.now()
        probe._stalls.append(start_s + 1e-3)
        assert probe.stalled_since(start_s)
        assert not probe.stalled_since(probe.now() + 3600.0)
