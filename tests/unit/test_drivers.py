# SPDX-License-Identifier: Apache-2.0
"""What every driver of joints must do, tried on all that are in the folder.

A driver is found by its `DRIVER`; what it speaks to by its name in `tests/peers/`, a file with

    ROBOT   the robot that is there
    PEER    a context manager with `settings()`, what a hardware file would say of it,
            `unplug()`, after which it is gone, and, where the driver needs them, `parts()` that
            its node would bring
    SKIP    optional, not empty: why it cannot be had here
"""

from __future__ import annotations

import importlib.util
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fake_cameras import until
from twinloop.drivers.faults import DriverFault
from twinloop.drivers.hardware import driver_module, driver_names, make_driver
from twinloop.drivers.loop import DriverLoop, LoopSettings
from twinloop.safety.verdict import GuardSettings, GuardState, Refusal

ROOT = Path(__file__).resolve().parents[2]
PEERS = ROOT / "tests" / "peers"
PAGES = "".join((ROOT / "docs" / name).read_text() for name in ("drivers.md", "cameras.md"))
NAMES = [name for name in driver_names() if hasattr(driver_module(name), "DRIVER")]


def load_peer(name: str) -> Any:
    path = PEERS / f"{name}.py"
    assert path.exists(), f"driver {name} has no {path.relative_to(ROOT)}: see docs/drivers.md"
    spec = importlib.util.spec_from_file_location(f"peer_{name}", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(params=NAMES)
def name(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def peer(name: str) -> Iterator[Any]:
    module = load_peer(name)
    if getattr(module, "SKIP", ""):
        pytest.skip(module.SKIP)
    with module.PEER() as peer:
        peer.robot = module.ROBOT
        yield peer


def make(name: str, peer: Any) -> Any:
    settings = driver_module(name).SETTINGS.model_validate(peer.settings())
    parts = peer.parts() if hasattr(peer, "parts") else {}
    return make_driver(peer.robot.name, settings, **parts)


@pytest.fixture
def loop(name: str, peer: Any) -> Iterator[DriverLoop]:
    # A busy machine's stalls and pauses are not what is tried here.
    loop = DriverLoop(
        make(name, peer),
        GuardSettings(command_timeout_s=60.0, lease_s=60.0, max_age_s=5.0),
        time.time_ns,
        LoopSettings(stall_limit_s=60.0, silent_s=2.0),
    )
    loop.start()
    yield loop
    loop.halt()


def running(loop: DriverLoop) -> np.ndarray:
    """Wait until it runs; where the joints stand."""
    until(lambda: loop.status().state == "running", 20.0)
    return position(loop)


def position(loop: DriverLoop) -> np.ndarray:
    reading = loop.status().reading
    assert reading is not None
    return reading.position


def cycles(loop: DriverLoop, count: int) -> None:
    readings: list[Any] = []

    def is_done() -> bool:
        if not readings or loop.status().reading is not readings[-1]:
            readings.append(loop.status().reading)
        return len(readings) > count

    until(is_done, 20.0)


# Drivers of cameras and joysticks too.


@pytest.mark.parametrize("name", driver_names())
def test_a_driver_is_told_of_and_has_settings_of_its_own_name(name: str) -> None:
    assert f"`{name}`" in PAGES, "docs/drivers.md does not name it, nor docs/cameras.md"
    field = driver_module(name).SETTINGS.model_fields["driver"]
    assert field.annotation.__args__ == (name,)


@pytest.mark.parametrize("name", driver_names())
def test_an_unknown_setting_is_refused(name: str) -> None:
    with pytest.raises(ValueError, match="no_such_setting"):
        driver_module(name).SETTINGS.model_validate({"driver": name, "no_such_setting": 1})


# Those of joints.


def test_a_device_that_is_not_there_is_named_within_seconds(name: str, peer: Any) -> None:
    driver = make(name, peer)
    peer.unplug()
    begun_s = time.monotonic()
    with pytest.raises(DriverFault) as missing:
        driver.connect()
    assert time.monotonic() - begun_s < 10.0
    assert any(str(value) in str(missing.value) for value in peer.settings().values())
    driver.close()
    driver.close()


def test_nothing_moves_without_a_command(loop: DriverLoop) -> None:
    start = running(loop)
    cycles(loop, 20)
    np.testing.assert_allclose(position(loop), start, atol=2e-3)


def test_commands_are_followed_within_the_limits(loop: DriverLoop) -> None:
    start, robot = running(loop), loop.driver.robot
    names = list(robot.joint_names)
    goal = np.clip(start + 0.1, robot.lower, robot.upper)
    for targets, refusal in ((goal * np.nan, Refusal.NON_FINITE), (goal[1:], Refusal.LENGTH)):
        assert loop.submit(names, targets, time.time_ns(), "test").refusal is refusal
    assert loop.submit(names, goal, time.time_ns(), "test").is_accepted
    until(lambda: np.abs(position(loop) - goal).max() < 5e-3, 20.0)


def test_a_stop_latches_until_recovery(loop: DriverLoop) -> None:
    running(loop)
    done, text = loop.stop(20.0)
    assert done, text
    now_ns = time.time_ns()
    refused = loop.submit(list(loop.driver.robot.joint_names), position(loop), now_ns, "test")
    assert refused.refusal is Refusal.STOPPED
    assert not loop.rearm()[0]
    done, text = loop.recover(20.0)
    assert done, text
    start = running(loop)
    cycles(loop, 10)
    np.testing.assert_allclose(position(loop), start, atol=5e-3)


def test_a_device_that_is_lost_stops_the_guard(loop: DriverLoop, peer: Any) -> None:
    running(loop)
    peer.unplug()
    guard = loop.guard
    assert guard is not None
    until(lambda: guard.state is GuardState.STOPPED, 20.0)
    assert loop.status().state in ("connecting", "fault")
