# SPDX-License-Identifier: Apache-2.0
"""The Go1's driver against its low-level protocol: what is sent, and what comes back damaged."""

from __future__ import annotations

import importlib
import socket
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from twinloop.drivers.faults import DeviceMissing, DriverFault, JointFault, SampleLost
from twinloop.drivers.hardware import HardwareRefused, make_driver
from twinloop.drivers.unitree import UnitreeDriver, UnitreeSettings
from twinloop.robots.go1 import GO1

sys.path.insert(0, str(Path(__file__).parents[1] / "peers"))
import unitree as peers

needs_sdk = pytest.mark.skipif(bool(peers.SKIP), reason=peers.SKIP)


@pytest.fixture
def peer() -> Iterator[peers.Go1]:
    with peers.Go1() as peer:
        yield peer


def driver_of(peer: peers.Go1, **changes: Any) -> UnitreeDriver:
    return UnitreeDriver(GO1, UnitreeSettings.model_validate(peer.settings(**changes)))


@pytest.fixture
def driver(peer: peers.Go1) -> Iterator[UnitreeDriver]:
    driver = driver_of(peer)
    driver.connect()
    yield driver
    driver.close()


@needs_sdk
def test_connecting_asks_for_a_state_and_makes_nothing_stiff(
    driver: UnitreeDriver, peer: peers.Go1
) -> None:
    assert peer.heard == 1
    assert not peer.stiffness.any()
    assert not peer.damping.any()
    reading = driver.read()
    np.testing.assert_allclose(reading.position, GO1.poses["stand"], atol=1e-6)
    np.testing.assert_array_equal(reading.effort, np.ones(12))
    np.testing.assert_array_equal(reading.temperature, np.full(12, 35.0))
    assert not reading.faults
    assert (driver.battery, peer.refused) == (77.0, 0)


@needs_sdk
def test_joints_are_held_where_they_stand_and_stopped_damped(
    driver: UnitreeDriver, peer: peers.Go1
) -> None:
    at = driver.read().position
    driver.engage(at)
    np.testing.assert_allclose(peer.position, at, atol=1e-6)
    np.testing.assert_array_equal(peer.stiffness, np.full(12, 40.0))
    target = at + np.linspace(-0.05, 0.05, 12)
    driver.write(target)
    np.testing.assert_allclose(driver.read().position, target, atol=1e-6)
    driver.stop()
    driver.read()
    assert not peer.stiffness.any()
    np.testing.assert_array_equal(peer.damping, np.full(12, 2.0))
    np.testing.assert_allclose(peer.position, target, atol=1e-6)


@needs_sdk
def test_every_state_is_a_new_one(driver: UnitreeDriver, peer: peers.Go1) -> None:
    for offset in (0.1, 0.2, 0.3):
        peer.position = GO1.poses["stand"] + offset
        np.testing.assert_allclose(driver.read().position, peer.position, atol=1e-6)


@needs_sdk
def test_damaged_and_missing_answers_are_lost_samples(peer: peers.Go1) -> None:
    driver = driver_of(peer, answer_timeout_s=0.02)
    driver.connect()
    peer.is_damaging = True
    with pytest.raises(SampleLost, match="only damaged answers"):
        driver.read()
    peer.is_damaging, peer.is_silent = False, True
    with pytest.raises(SampleLost, match="no answer within 0.02 s"):
        driver.read()
    with pytest.raises(JointFault, match="FR_hip_joint: no answer"):
        driver.engage(GO1.poses["stand"])
    peer.is_silent = False
    driver.read()
    driver.close()


@needs_sdk
def test_a_hot_motor_is_named_until_it_is_cool(driver: UnitreeDriver, peer: peers.Go1) -> None:
    peer.temperature[4] = 81
    assert driver.read().faults == {"FL_thigh_joint": "81 °C, limit 80"}
    with pytest.raises(JointFault, match="FL_thigh_joint: 81 °C, limit 80"):
        driver.recover()
    peer.temperature[4] = 60
    driver.recover()


@needs_sdk
def test_a_local_port_that_is_taken_is_named(peer: peers.Go1) -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as other:
        other.bind(("", 0))
        port = other.getsockname()[1]
        with pytest.raises(DeviceMissing, match=f"local_port {port} cannot be had"):
            driver_of(peer, local_port=port).connect()


def test_without_the_sdk_it_says_what_to_install(
    peer: peers.Go1, monkeypatch: pytest.MonkeyPatch
) -> None:
    def missing(name: str) -> Any:
        raise ImportError(f"No module named {name!r}")

    monkeypatch.setattr(importlib, "import_module", missing)
    with pytest.raises(DriverFault, match="pip install --no-deps unitree-legged-sdk"):
        driver_of(peer).connect()


def test_another_robot_is_refused() -> None:
    settings = UnitreeSettings(driver="unitree")
    with pytest.raises(HardwareRefused, match="dclaw: has 9 joints, expected the 12 of legs"):
        make_driver("dclaw", settings)
