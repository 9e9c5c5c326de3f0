# SPDX-License-Identifier: Apache-2.0
"""Runs the sum of all inputs last, and shows the table of them."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
from tally import TALLY

_HERE = Path(__file__).parent
_SUM = "test_fuzz_sum.py"
for _name in ("", "unit", "nodes"):
    sys.path.insert(0, str(_HERE.parent / _name))


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    items.sort(key=lambda item: item.path == _HERE / _SUM)


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    if TALLY.refused:
        terminalreporter.section("bad input")
        terminalreporter.write_line(TALLY.table())
