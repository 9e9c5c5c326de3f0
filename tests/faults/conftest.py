# SPDX-License-Identifier: Apache-2.0
"""What tests of the fault matrix share: the row that they measure, and the figures at the end.

    @pytest.mark.fault(10, "Dynamixel bus")
    def test_a_silent_bus_is_at_fault(row, station):
        row.measure("fault after", lambda: silence(station), "ms", at_most=100.0)

`row.measured` states and asserts one figure, `row.measure` measures it several times. A test that
takes `repetition` is run as often by itself.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[1] / "nodes"))

from fault_table import ROWS, Figure, Outcome, dump, merged
from rows import Row
from stalls import StallProbe

FIGURES: list[Figure] = []
OUTCOMES: list[Outcome] = []


@pytest.fixture(scope="session")
def is_kept(request: pytest.FixtureRequest) -> bool:
    """Whether figures are to be kept, so that all is set as on a robot; else a patient setting."""
    return bool(request.config.getoption("--fault-repetitions") > 0)


@pytest.fixture(scope="session")
def machine(request: pytest.FixtureRequest) -> Iterator[StallProbe | None]:
    """Watch for stalls of the machine itself, where figures are to be kept."""
    if not request.config.getoption("--fault-repetitions"):
        yield None
        return
    with StallProbe() as probe:
        yield probe


@pytest.fixture
def row(request: pytest.FixtureRequest, machine: StallProbe | None) -> Row:
    """The row that the test's `fault` marker names."""
    number, entry = _row_of(request.node)
    repetitions = request.config.getoption("--fault-repetitions")
    return Row(number, entry, FIGURES.append, repetitions, machine)


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if "repetition" in metafunc.fixturenames:
        times = metafunc.config.getoption("--fault-repetitions") or 1
        metafunc.parametrize("repetition", range(min(times, 5)), scope="module")


def _row_of(item: pytest.Item) -> tuple[int, str]:
    marker = item.get_closest_marker("fault")
    assert marker is not None, f"{item.nodeid} takes a row and names none: mark it with fault(...)"
    number, entry = marker.args
    assert number in ROWS, f"{item.nodeid}: fault row is {number}, expected 1 to {len(ROWS)}"
    return number, entry


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Iterator[None]:
    report = yield
    if item.get_closest_marker("fault") and (report.when == "call" or not report.passed):
        OUTCOMES.append(Outcome(*_row_of(item), item.nodeid, report.passed))
    return report


def pytest_sessionfinish(session: pytest.Session) -> None:
    path = session.config.getoption("--fault-figures")
    if path:
        Path(path).write_text(json.dumps(dump(FIGURES, OUTCOMES)), encoding="utf-8")


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    if not FIGURES:
        return
    terminalreporter.section("fault matrix")
    for figure in sorted(merged(FIGURES), key=lambda one: one.row):
        verdict = "" if figure.holds else "  FAILED"
        terminalreporter.line(f"{figure.row:2} {figure.entry}: {figure.text()}{verdict}")
