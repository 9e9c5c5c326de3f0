# SPDX-License-Identifier: Apache-2.0
"""The gripper's controller: reached, stalled on something, cancelled, refused."""

from __future__ import annotations

import math
from itertools import pairwise

import pytest
from twinloop.motion.gripper_controller import (
    PANDA_GRIPPER,
    Grip,
    GripperController,
    GripperRefused,
)

TICK_S = 0.01


class Fingers:
    """Fingers that follow at once, but for something of a width that is between them."""

    def __init__(self, width_m: float = 0.08, between_m: float = 0.0) -> None:
        self.gripper = GripperController(PANDA_GRIPPER, width_m)
        self.width_m, self.between_m = width_m, between_m
        self.now_s = 5.0

    def run(self, seconds: float) -> list[float]:
        widths = []
        for _ in range(round(seconds / TICK_S)):
            self.now_s += TICK_S
            target = self.gripper.step(self.now_s, self.width_m)
            self.width_m = max(target.width_m, self.between_m)
            widths.append(self.width_m)
        return widths


def test_a_width_is_reached_at_the_speed_that_was_asked_for() -> None:
    fingers = Fingers()
    fingers.gripper.start(0.04, speed=0.1)
    widths = fingers.run(0.3)
    assert max(a - b for a, b in pairwise(widths)) <= 0.1 * TICK_S + 1e-12
    assert fingers.gripper.status.state is Grip.MOVING
    fingers.run(0.2)
    assert fingers.gripper.status.state is Grip.REACHED
    assert fingers.width_m == pytest.approx(0.04, abs=0.001)


def test_something_between_the_fingers_is_told_and_goes_on_being_pressed() -> None:
    fingers = Fingers(between_m=0.056)
    fingers.gripper.start(0.03, max_effort_n=20.0)
    fingers.run(0.6)
    status = fingers.gripper.status
    assert status.state is Grip.STALLED
    assert status.width_m == pytest.approx(0.056)
    assert fingers.gripper.target.width_m == pytest.approx(0.03)
    assert fingers.gripper.target.max_effort_n == 20.0


def test_a_firmer_grip_does_not_let_go_in_between() -> None:
    fingers = Fingers(between_m=0.056)
    fingers.gripper.start(0.04)
    fingers.run(0.6)
    fingers.gripper.start(0.02)
    fingers.now_s += TICK_S
    assert fingers.gripper.step(fingers.now_s, fingers.width_m).width_m <= 0.04


def test_opening_starts_from_where_the_fingers_are() -> None:
    fingers = Fingers(between_m=0.056)
    fingers.gripper.start(0.0)
    fingers.run(0.8)
    fingers.gripper.start(0.08)
    assert fingers.run(0.02)[-1] == pytest.approx(0.056 + 0.2 * 2 * TICK_S)


@pytest.mark.parametrize(("how", "state"), [("cancel", Grip.CANCELLED), ("stop", Grip.STOPPED)])
def test_a_command_that_is_given_up_stands_still(how: str, state: Grip) -> None:
    fingers = Fingers()
    fingers.gripper.start(0.0)
    fingers.run(0.1)
    getattr(fingers.gripper, how)("enough")
    width_m = fingers.width_m
    fingers.run(0.2)
    assert fingers.gripper.status.state is state
    assert fingers.gripper.status.detail == "enough"
    assert fingers.width_m == pytest.approx(width_m)


def test_what_is_held_stays_held_when_the_robot_stops() -> None:
    fingers = Fingers(between_m=0.056)
    fingers.gripper.start(0.03)
    fingers.run(0.6)
    target = fingers.gripper.target
    fingers.gripper.stop("emergency stop pressed")
    fingers.run(0.1)
    assert fingers.gripper.target == target
    assert fingers.gripper.status.state is Grip.STALLED


def test_a_newer_command_takes_over() -> None:
    fingers = Fingers()
    fingers.gripper.start(0.0)
    fingers.run(0.1)
    assert fingers.gripper.start(0.07) == 2
    fingers.run(0.3)
    assert fingers.gripper.status.state is Grip.REACHED


@pytest.mark.parametrize(
    ("command", "why"),
    [
        ({"width_m": 0.09}, "width is 0.09, expected 0 to 0.08"),
        ({"width_m": math.nan}, "width is nan"),
        ({"width_m": 0.02, "max_effort_n": 71.0}, "max_effort is 71.0, expected 0 to 70"),
        ({"width_m": 0.02, "max_effort_n": math.nan}, "max_effort is nan"),
        ({"width_m": 0.02, "speed": 0.0}, "speed is 0.0"),
    ],
)
def test_a_bad_command_is_refused_by_name(command: dict, why: str) -> None:
    fingers = Fingers()
    with pytest.raises(GripperRefused) as refusal:
        fingers.gripper.start(**command)
    assert why in str(refusal.value)
    assert fingers.gripper.status.state is Grip.IDLE
