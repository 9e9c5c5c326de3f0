# SPDX-License-Identifier: Apache-2.0
"""The mapping between 24 joints, 20 motors and two controllers, without ROS."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from twinloop.drivers.faults import DeviceMissing, JointFault, SampleLost
from twinloop.drivers.hardware import HardwareRefused, make_driver
from twinloop.drivers.shadow_hand import (
    HandSample,
    ShadowHandDriver,
    ShadowHandSettings,
    controllers_of,
    coupled,
)
from twinloop.robots.hand24 import HAND24
from twinloop.robots.shadow_hand import COUPLED, SHADOW_HAND

NAMES = list(SHADOW_HAND.joint_names)
OPEN = SHADOW_HAND.poses["open"]


class RecordedLink:
    """A link that keeps what it is told."""

    name = "a record"

    def __init__(self) -> None:
        self.sent: list[tuple[str, list[str], np.ndarray]] = []
        self.lacking: list[str] = []
        self.given_up: dict[str, str] = {}
        self.joints = dict.fromkeys(NAMES, (0.0, 0.0, 0.0))
        self.age_s = 0.0
        self.cancelled = 0

    def open(self) -> None:
        """Nothing is to be opened."""

    def close(self) -> None:
        """Nor closed."""

    def latest(self) -> HandSample | None:
        return HandSample(time.monotonic() - self.age_s, self.joints)

    def missing(self) -> list[str]:
        return self.lacking

    def faults(self) -> dict[str, str]:
        return self.given_up

    def forget_faults(self) -> None:
        self.given_up = {}

    def send(self, controller: str, names: Sequence[str], targets: Any, reach_s: float) -> None:
        self.sent.append((controller, list(names), targets))

    def cancel(self) -> None:
        self.cancelled += 1


def make(**changes: Any) -> tuple[ShadowHandDriver, RecordedLink]:
    link = RecordedLink()
    settings = ShadowHandSettings(driver="shadow_hand", **changes)
    return ShadowHandDriver(SHADOW_HAND, settings, link), link


@given(st.lists(st.floats(-2.0, 2.0), min_size=24, max_size=24), st.permutations(range(24)))
def test_coupled_joints_keep_their_sum_and_their_order(
    values: list[float], order: list[int]
) -> None:
    names = [NAMES[index] for index in order]
    given_ = dict(zip(names, values, strict=True))
    found = dict(zip(names, coupled(names, np.array(values)), strict=True))
    for tip, middle in COUPLED:
        assert found[tip] <= found[middle]
        assert found[tip] + found[middle] == pytest.approx(given_[tip] + given_[middle])
        if given_[tip] <= given_[middle]:
            assert (found[tip], found[middle]) == (given_[tip], given_[middle])
    rest = set(names) - {name for pair in COUPLED for name in pair}
    assert all(found[name] == given_[name] for name in rest)


def test_what_the_guard_is_to_refuse_is_left_to_it() -> None:
    short = np.ones(23)
    assert coupled(NAMES, short) is short
    assert np.isnan(coupled(NAMES, np.full(24, np.nan))).all()


def test_limits_allow_whatever_is_coupled() -> None:
    for tip, middle in COUPLED:
        pair = [NAMES.index(tip), NAMES.index(middle)]
        assert len(set(SHADOW_HAND.lower[pair])) == len(set(SHADOW_HAND.upper[pair])) == 1
    assert SHADOW_HAND.joint_names == HAND24.joint_names


def test_each_joint_has_one_controller() -> None:
    settings = ShadowHandSettings(driver="shadow_hand")
    split = controllers_of(SHADOW_HAND, settings)
    assert {name: len(joints) for name, joints in split.items()} == {
        "rh_trajectory_controller": 22,
        "rh_wr_trajectory_controller": 2,
    }
    assert sorted(index for joints in split.values() for index in joints) == list(range(24))
    one = controllers_of(SHADOW_HAND, settings.model_copy(update={"wrist_controller": ""}))
    assert one == {"rh_trajectory_controller": list(range(24))}


def test_setpoints_go_to_the_controllers_by_name() -> None:
    driver, link = make()
    driver.connect()
    assert not link.sent
    driver.engage(OPEN)
    driver.write(OPEN + np.arange(24) * 1e-3)
    for controller, names, targets in link.sent[-2:]:
        assert len(names) == (22 if controller == "rh_trajectory_controller" else 2)
        wanted = coupled(NAMES, OPEN + np.arange(24) * 1e-3)
        np.testing.assert_array_equal(targets, [wanted[NAMES.index(name)] for name in names])


def test_goals_are_sent_while_something_changes_and_the_last_at_the_end() -> None:
    driver, link = make(interface="action", goal_period_s=1.0)
    driver.connect()
    driver.engage(OPEN)
    for step in range(5):
        driver.write(OPEN + 0.01 * step)
    assert len(link.sent) == 2
    driver.close()
    assert len(link.sent) == 4
    np.testing.assert_allclose(link.sent[-1][2], 0.04)


def test_old_and_incomplete_joints_are_lost_samples() -> None:
    driver, link = make()
    driver.connect()
    link.age_s = 0.03
    with pytest.raises(SampleLost, match="no joint_states for 0.03"):
        driver.read()
    link.age_s = 0.0
    del link.joints["rh_THJ1"]
    with pytest.raises(SampleLost, match="lacks 'rh_THJ1'"):
        driver.read()
    link.joints["rh_THJ1"] = (float("nan"), 0.0, 0.0)
    with pytest.raises(SampleLost, match="not finite"):
        driver.read()


def test_a_controller_that_is_not_there_is_named() -> None:
    driver, link = make(connect_timeout_s=0.1)
    link.lacking = ["/rh_wr_trajectory_controller/command"]
    with pytest.raises(DeviceMissing, match="nobody serves /rh_wr_trajectory_controller/command"):
        driver.connect()
    with pytest.raises(JointFault, match="/rh_wr_trajectory_controller/command: nobody serves it"):
        driver.recover()


def test_a_stop_gives_up_and_holds_where_the_hand_stands() -> None:
    driver, link = make()
    driver.connect()
    driver.engage(OPEN + 0.1)
    link.joints = dict.fromkeys(NAMES, (0.05, 0.0, 0.0))
    driver.stop()
    assert link.cancelled == 1
    assert all(np.all(targets == 0.05) for _, _, targets in link.sent[-2:])


def test_without_a_node_and_with_another_robot_it_is_refused() -> None:
    settings = ShadowHandSettings(driver="shadow_hand")
    with pytest.raises(HardwareRefused, match="run shadow_hand_node"):
        make_driver("shadow_hand", settings)
    with pytest.raises(HardwareRefused, match="leap: has no joints rh_FFJ1"):
        make_driver("leap", settings, link=RecordedLink())
