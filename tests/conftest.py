# SPDX-License-Identifier: Apache-2.0
"""What all tests share: loopback alone, options of the fault matrix, which of its rows run when."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

# What starts processes or talks to devices is tried once more where it fails, and the summary lists
# it: a machine that stands still for seconds makes one of hundreds of such tests fail.
LIVE = {Path(__file__).parent / folder for folder in ("nodes", "system", "faults", "unit")}

# Nodes that tests start, and those in their own process, meet nobody on the network.
os.environ["ROS_AUTOMATIC_DISCOVERY_RANGE"] = "LOCALHOST"


def pytest_addoption(parser: pytest.Parser) -> None:
    group = parser.getgroup("fault matrix")
    group.addoption(
        "--fault-repetitions",
        type=int,
        default=0,
        help="Measure each row so often, rows that are sensitive to load included; `make faults`.",
    )
    group.addoption("--fault-figures", help="JSON file for what was measured.")
    group.addoption("--fault-rows", default="", help="Tests of these rows alone, such as 9,10.")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leave tests that a busy machine may fail to `make faults`, and other rows than asked for."""
    rows = {int(row) for row in config.getoption("--fault-rows").split(",") if row}
    is_kept = config.getoption("--fault-repetitions") > 0

    def is_wanted(item: pytest.Item) -> bool:
        fault = item.get_closest_marker("fault")
        if rows and not (fault and fault.args[0] in rows):
            return False
        return is_kept or item.get_closest_marker("load_sensitive") is None

    for item in items:
        if item.path.parent in LIVE and not is_kept:
            item.add_marker(pytest.mark.flaky(reruns=1, reruns_delay=2))
    left_out = [item for item in items if not is_wanted(item)]
    if left_out:
        config.hook.pytest_deselected(items=left_out)
        items[:] = [item for item in items if item not in left_out]
