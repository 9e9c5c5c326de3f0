# SPDX-License-Identifier: Apache-2.0
"""Fault rows 10 and 16 in the drivers of a Shadow Hand and a Unitree robot, behind their guards."""

from __future__ import annotations

import importlib.util
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from rows import Row
from twinloop.drivers.hardware import driver_module, make_driver
from twinloop.drivers.loop import DriverLoop, LoopSettings
from twinloop.drivers.shadow_hand import SILENT_S
from twinloop.safety.verdict import GuardSettings, GuardState

sys.path.append(str(Path(__file__).parents[1] / "unit"))
from fake_cameras import until

PEERS = Path(__file__).parents[1] / "peers"
FAULT_MS = 100.0
# As their nodes set them.
LOOPS = {"shadow_hand": LoopSettings(silent_s=SILENT_S)}


class Lab:
    """A driver's loop on its peer, with the patience that a robot gets."""

    def __init__(self, name: str, peer: Any, patience: dict[str, float]) -> None:
        self.peer = peer
        settings = driver_module(name).SETTINGS.model_validate(peer.settings(**patience))
        parts = peer.parts(**patience) if hasattr(peer, "parts") else {}
        driver = make_driver(name_of(peer), settings, **parts)
        self.loop = DriverLoop(driver, GuardSettings(), time.time_ns, LOOPS.get(name))
        self.loop.start()

    def run(self) -> None:
        """Have it run, however often a busy machine stops it."""

        def is_running() -> bool:
            return self.loop.status().state == "running" or self.loop.recover(2.0)[0]

        until(is_running, 60.0)
        time.sleep(0.1)
        until(is_running, 60.0)

    def stopped_after(self, inject: Callable[[], None]) -> float:
        """From a fault's injection to the stop of the guard, ms."""
        self.run()
        guard = self.loop.guard
        assert guard is not None
        begun_s = time.monotonic()
        inject()
        until(lambda: guard.state is GuardState.STOPPED, 10.0)
        return 1e3 * (time.monotonic() - begun_s)


def name_of(peer: Any) -> str:
    return str(peer.robot.name)


@pytest.fixture
def lab(request: pytest.FixtureRequest) -> Iterator[Lab]:
    name, patience = request.param
    spec = importlib.util.spec_from_file_location(f"peer_{name}", PEERS / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    if getattr(module, "SKIP", ""):
        pytest.skip(module.SKIP)
    with module.PEER() as peer:
        peer.robot = module.ROBOT
        lab = Lab(name, peer, patience)
        yield lab
        lab.loop.halt()


def silence(lab: Lab) -> float:
    try:
        return lab.stopped_after(lambda: setattr(lab.peer, "is_silent", True))
    finally:
        lab.peer.is_silent = False


@pytest.mark.load_sensitive
@pytest.mark.fault(10, "Shadow Hand")
@pytest.mark.parametrize("lab", [("shadow_hand", {"stale_s": 0.024})], indirect=True)
def test_row_10_a_hand_that_falls_silent(row: Row, lab: Lab) -> None:
    row.measure("fault after", lambda: silence(lab), "ms", at_most=FAULT_MS)


@pytest.mark.load_sensitive
@pytest.mark.fault(10, "Unitree robot")
@pytest.mark.parametrize("lab", [("unitree", {"answer_timeout_s": 0.004})], indirect=True)
def test_row_10_a_legged_robot_that_falls_silent(row: Row, lab: Lab) -> None:
    row.measure("fault after", lambda: silence(lab), "ms", at_most=FAULT_MS)


@pytest.mark.fault(16, "Unitree robot")
@pytest.mark.parametrize("lab", [("unitree", {})], indirect=True)
def test_row_16_a_hot_motor_is_named(row: Row, lab: Lab) -> None:
    def heat() -> float:
        def begin() -> None:
            lab.peer.temperature[4] = 85

        try:
            stopped_ms = lab.stopped_after(begin)
            assert lab.loop.status().text == "FL_thigh_joint: 85 °C, limit 80"
            return stopped_ms
        finally:
            lab.peer.temperature[4] = 35

    row.measure("joint named and stopped after", heat, "ms", at_most=FAULT_MS)
