# SPDX-License-Identifier: Apache-2.0
"""The Dynamixel driver against servos that speak Protocol 2.0 on a pseudo-terminal."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pydantic import ValidationError
from twinloop.drivers.dynamixel import DynamixelDriver, DynamixelSettings
from twinloop.drivers.faults import (
    DeviceLost,
    DeviceMissing,
    JointFault,
    SampleLost,
    SettingRefused,
)
from twinloop.robots.dclaw import DCLAW
from twinloop.robots.leap import LEAP

sys.path.insert(0, str(Path(__file__).parents[1] / "peers"))
from dynamixel import Servos

START = 2200
START_RAD = (START - 2048) * 2 * np.pi / 4096
OVERLOAD, OVERHEATING = 0x20, 0x04
DCLAW_IDS = (10, 11, 12, 20, 21, 22, 30, 31, 32)


@pytest.fixture(scope="module")
def leap() -> Iterator[Servos]:
    with Servos(start=START) as servos:
        yield servos


@pytest.fixture
def servos(leap: Servos) -> Servos:
    """Sixteen servos without faults, at the start, without torque."""
    leap.do("silence", ids=[])
    leap.do("damage", corrupt=0, drop=0, partial=0, refuse=0)
    leap.do("restart", ids=list(range(16)))
    leap.do(
        "set",
        position=START,
        goal_position=START,
        temperature=35,
        return_delay=0,
        operating_mode=5,
        model=1240,
        drive_mode=0,
        temperature_limit=80,
        baud_rate=6,
    )
    return leap


@pytest.fixture
def make(servos: Servos) -> Iterator[Callable[..., DynamixelDriver]]:
    drivers: list[DynamixelDriver] = []

    def make(**changes: Any) -> DynamixelDriver:
        settings = DynamixelSettings(**servos.settings(**changes))
        drivers.append(DynamixelDriver(LEAP, settings))
        return drivers[-1]

    yield make
    for driver in drivers:
        driver.close()


@pytest.fixture
def driver(make: Callable[..., DynamixelDriver]) -> DynamixelDriver:
    """Connected and engaged."""
    driver = make()
    driver.connect()
    driver.engage(driver.read().position)
    return driver


def test_to_connect_changes_nothing_that_moves(
    servos: Servos, make: Callable[..., DynamixelDriver]
) -> None:
    servos.do("set", ids=[3], torque=1)
    driver = make()
    driver.connect()
    reading = driver.read()
    np.testing.assert_allclose(reading.position, START_RAD)
    assert servos.do("get", field="torque") == [0] * 3 + [1] + [0] * 12
    assert not reading.faults


def test_to_engage_holds_the_joints_where_they_stand(servos: Servos, driver: Any) -> None:
    assert servos.do("get", field="torque") == [1] * 16
    assert servos.do("get", field="goal_position") == [START] * 16
    assert servos.do("get", field="goal_current") == [350] * 16
    assert servos.do("get", field="watchdog") == [10] * 16
    time.sleep(0.05)
    np.testing.assert_allclose(driver.read().position, START_RAD)


def test_a_goal_that_was_left_from_before_is_not_gone_to(
    servos: Servos, make: Callable[..., DynamixelDriver]
) -> None:
    servos.do("set", goal_position=3000)
    before = servos.do("travel")
    driver = make()
    driver.connect()
    driver.engage(driver.read().position)
    time.sleep(0.05)
    np.testing.assert_allclose(driver.read().position, START_RAD, atol=1e-9)
    assert servos.do("travel") == before


def test_setpoints_are_followed_and_currents_measured(servos: Servos, driver: Any) -> None:
    target = np.linspace(-0.2, 0.6, 16)
    driver.write(target)
    pushing = driver.read()
    assert np.nanmax(np.abs(pushing.effort)) <= 0.35 + 1e-9
    for _ in range(20):
        time.sleep(0.01)
        driver.write(target)
        reading = driver.read()
    np.testing.assert_allclose(reading.position, target, atol=2 * np.pi / 4096)
    assert np.isfinite(reading.velocity).all()


@pytest.mark.parametrize("mode", ["position", "current_limited"])
def test_the_mode_is_set(servos: Servos, make: Callable[..., DynamixelDriver], mode: str) -> None:
    servos.do("set", operating_mode=1)
    make(mode=mode).connect()
    assert servos.do("get", field="operating_mode") == [{"position": 3}.get(mode, 5)] * 16


def test_a_claw_has_its_own_ids_zeros_and_unit_of_current() -> None:
    with Servos(DCLAW_IDS, model=1020, baud_rate=1_000_000, start=1500) as servos:
        settings = DynamixelSettings(
            **servos.settings(baud_rate=1_000_000, current_limit_a=0.269, signs=[1, -1, 1] * 3)
        )
        driver = DynamixelDriver(DCLAW, settings)
        driver.connect()
        position = driver.read().position
        ticks = np.array([1500 - 1024, -(1500 - 2048), 1500 - 2048] * 3)
        np.testing.assert_allclose(position, ticks * 2 * np.pi / 4096)
        driver.engage(position)
        assert servos.do("get", field="goal_current") == [100] * 9
        driver.stop()
        assert servos.do("get", field="torque") == [0] * 9
        driver.close()


def test_sixteen_servos_are_read_and_written_at_100_hz_and_more(driver: Any) -> None:
    best_s = np.inf
    for _ in range(10):  # a busy machine needs some
        begun_s = time.monotonic()
        for step in range(100):
            driver.read()
            driver.write(np.full(16, START_RAD + 0.001 * step))
        best_s = min(best_s, time.monotonic() - begun_s)
        if best_s <= 1.0:
            break
    print(f"\n16 servos, read and written: {100 / best_s:.0f} Hz")
    assert 100 / best_s >= 100.0


@pytest.mark.parametrize(
    ("fields", "complaint"),
    [
        (
            {"return_delay": 250},
            "if_dip (servo 3) waits 500 us before it answers, expected at most",
        ),
        ({"model": 350}, "if_dip (servo 3) is of model 350, expected one of 1020 XM430-W350"),
        ({"drive_mode": 8}, "switches torque on by a goal"),
        ({"temperature_limit": 60}, "switches itself off at 60 °C"),
        ({"status_level": 1}, "its status return level (68) must be 2"),
    ],
)
def test_a_wrong_setting_of_a_servo_is_refused_and_named(
    servos: Servos,
    make: Callable[..., DynamixelDriver],
    fields: dict[str, int],
    complaint: str,
) -> None:
    servos.do("set", ids=[3], **fields)
    with pytest.raises(SettingRefused, match=r"if_dip \(servo 3\)") as refused:
        make().connect()
    assert complaint in str(refused.value)


def test_the_return_delay_is_set_where_that_is_asked_for(
    servos: Servos, make: Callable[..., DynamixelDriver]
) -> None:
    servos.do("set", ids=[3], return_delay=250)
    make(set_return_delay=True).connect()
    assert servos.do("get", field="return_delay") == [0, 0, 0, 10] + [0] * 12


def test_servos_at_another_baud_rate_are_found(
    servos: Servos, make: Callable[..., DynamixelDriver]
) -> None:
    servos.do("set", baud_rate=1)
    with pytest.raises(DeviceMissing, match="servo 0 answers at 57600: set `baud_rate`"):
        make(answer_timeout_s=0.02).connect()


def test_a_port_that_is_not_there_is_named() -> None:
    settings = DynamixelSettings(driver="dynamixel", port="/dev/serial/nowhere")
    with pytest.raises(DeviceMissing, match="/dev/serial/nowhere cannot be opened"):
        DynamixelDriver(LEAP, settings).connect()


@pytest.mark.parametrize("damage", ["corrupt", "partial", "drop"])
def test_row_14_a_damaged_answer_is_discarded_and_asked_for_once_more(
    servos: Servos, make: Callable[..., DynamixelDriver], damage: str
) -> None:
    driver = make(answer_timeout_s=0.1)
    driver.connect()
    before = servos.do("counts")["instructions"]
    servos.do("damage", **{damage: 1})
    np.testing.assert_allclose(driver.read().position, START_RAD)
    # The round, its one repetition, and where no more was understood, those behind it.
    assert servos.do("counts")["instructions"] - before in (2, 3)
    servos.do("damage", **{damage: 17})
    with pytest.raises(SampleLost, match="^if_rot: servo 0 "):
        driver.read()


def test_a_silent_servo_is_named_though_those_behind_it_are_silent_too(
    servos: Servos, make: Callable[..., DynamixelDriver]
) -> None:
    driver = make(answer_timeout_s=0.05)
    driver.connect()
    servos.do("silence", ids=[6])
    with pytest.raises(SampleLost, match="^mf_pip: servo 6 does not answer$"):
        driver.read()


@pytest.mark.parametrize(
    ("bits", "text"), [(OVERLOAD, "overload"), (OVERHEATING | OVERLOAD, "overheating and overload")]
)
def test_row_16_the_alert_bit_names_joint_and_reason_and_a_restart_clears_it(
    servos: Servos, driver: Any, bits: int, text: str
) -> None:
    servos.do("alert", ids=[9], bits=bits)
    reading = driver.read()
    assert reading.faults == {"rf_mcp": text}
    assert np.isfinite(reading.position).all()
    assert servos.do("get", field="torque")[9] == 0
    driver.recover()
    reading = driver.read()
    assert reading.faults == {}
    driver.engage(reading.position)
    assert servos.do("get", field="torque") == [1] * 16


def test_a_hot_joint_loses_its_torque_alone_and_must_cool_down(servos: Servos, driver: Any) -> None:
    servos.do("set", ids=[2], temperature=71)
    for _ in range(16 * 5):
        reading = driver.read()
    assert reading.faults == {"if_pip": "71 °C, limit 65: torque off"}
    assert reading.temperature[2] == 71
    assert servos.do("get", field="torque") == [1, 1, 0] + [1] * 13
    with pytest.raises(JointFault, match="if_pip: 71 °C"):
        driver.recover()
    servos.do("set", ids=[2], temperature=50)
    driver.recover()


@pytest.mark.parametrize(
    ("order", "text"),
    [
        ({"do": "restart"}, "was its power interrupted?"),
        ({"do": "set", "watchdog": 0xFF}, "heard nothing for too long"),
    ],
)
def test_a_servo_that_lost_its_torque_is_noticed(
    servos: Servos, driver: Any, order: dict[str, Any], text: str
) -> None:
    servos.do(order.pop("do"), ids=[4], **order)
    for _ in range(16 * 5):
        reading = driver.read()
    assert text in reading.faults["mf_rot"]


def test_servos_stop_by_themselves_when_the_host_is_gone(servos: Servos, driver: Any) -> None:
    driver.write(np.full(16, 1.5))
    time.sleep(0.3)
    driver.read()
    assert servos.do("get", field="watchdog") == [0xFF] * 16
    first = driver.read().position
    driver.write(np.full(16, 1.5))
    np.testing.assert_array_equal(driver.read().position, first)


def test_to_let_go_of_the_bus_leaves_the_joints_held(servos: Servos, driver: Any) -> None:
    driver.close()
    until_s = time.monotonic() + 0.3
    while servos.do("get", field="watchdog") != [0] * 16:
        assert time.monotonic() < until_s + 5.0
    assert servos.do("get", field="torque") == [1] * 16


def test_a_refused_write_is_a_fault_of_its_joint(
    servos: Servos, make: Callable[..., DynamixelDriver]
) -> None:
    driver = make()
    driver.connect()
    position = driver.read().position
    servos.do("damage", refuse=1)
    with pytest.raises(
        JointFault, match="if_rot: servo 0 refuses 00 at address 98: a value is out"
    ):
        driver.engage(position)


def test_row_17_an_unplugged_port_is_lost_at_once_whatever_is_done(
    servos: Servos, make: Callable[..., DynamixelDriver]
) -> None:
    driver = make()
    driver.connect()
    servos.unplug()
    begun_s = time.monotonic()
    for call in (driver.read, lambda: driver.write(np.zeros(16)), driver.stop):
        with pytest.raises(DeviceLost, match="is gone"):
            call()
    assert time.monotonic() - begun_s < 5.0
    driver.close()
    servos.do("plug")
    driver.connect()
    driver.read()


def test_row_25_no_clock_that_can_be_set_is_asked(
    servos: Servos, make: Callable[..., DynamixelDriver], monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail() -> float:
        raise AssertionError("the wall clock was asked")

    driver = make(answer_timeout_s=0.05)
    driver.connect()
    monkeypatch.setattr(time, "time", fail)
    driver.engage(driver.read().position)
    servos.do("silence", ids=[0])
    with pytest.raises(SampleLost):
        driver.read()


@pytest.mark.parametrize(
    ("changes", "complaint"),
    [
        ({"baud_rate": 123}, "baud_rate is 123, expected one of 9600, 57600"),
        ({"ids": [1, 1]}, "some repeat"),
        ({"ids": [253]}, "less than or equal to 252"),
        ({"signs": [0]}, "Input should be -1 or 1"),
        ({"speed": 1}, "Extra inputs are not permitted"),
    ],
)
def test_wrong_settings_are_refused(changes: dict[str, Any], complaint: str) -> None:
    with pytest.raises(ValidationError, match=complaint):
        DynamixelSettings(driver="dynamixel", port="/dev/ttyUSB0", **changes)


def test_lists_must_have_an_entry_for_each_joint() -> None:
    settings = DynamixelSettings(driver="dynamixel", port="/dev/ttyUSB0", ids=(1, 2))
    with pytest.raises(ValueError, match="ids: 2 entries, expected 16, one for each joint of leap"):
        DynamixelDriver(LEAP, settings)
