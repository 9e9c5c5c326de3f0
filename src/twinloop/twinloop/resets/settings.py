# SPDX-License-Identifier: Apache-2.0
"""Numbers of the reset of the Baoding cell, read from config/reset/baoding.yaml."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Self

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from twinloop.paths import share
from twinloop.robots.hand24 import HAND24
from twinloop.robots.panda import FINGER_TRAVEL_M
from twinloop.yaml_files import read_yaml

Array = NDArray[np.float64]
Positive = Annotated[float, Field(gt=0.0)]
Share = Annotated[float, Field(gt=0.0, le=1.0)]
Vector3 = tuple[float, float, float]


class _Section(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class HandSettings(_Section):
    """Postures of the hand.

    Attributes:
        receive, spill: joints that differ from the cup, rad: balls rest in the one posture, and
            leave the other.
        speed: of the joints, rad/s.
        still_rad, still_s: joints that move by no more in that time stand.
        blocked_rad: off their goal, from which on joints that stand are blocked.
        same_rad: off a posture, up to which motions planned for it are used.
        timeout_s: for a change of posture.
    """

    receive: dict[str, float]
    spill: dict[str, float]
    speed: Positive
    still_rad: Positive
    still_s: Positive
    blocked_rad: Positive
    same_rad: Positive
    timeout_s: Positive

    @model_validator(mode="after")
    def _has_the_joints(self) -> Self:
        for name, changes in (("receive", self.receive), ("spill", self.spill)):
            self._posture(name, changes)
        return self

    def _posture(self, what: str, changes: dict[str, float]) -> Array:
        posture = HAND24.poses["cup"].copy()
        for name, value in changes.items():
            if name not in HAND24.joint_names:
                raise ValueError(f"{what}: no joint {name!r} in {HAND24.name}")
            joint = HAND24.joint_names.index(name)
            low, high = HAND24.lower[joint], HAND24.upper[joint]
            if not low <= value <= high:
                raise ValueError(f"{what}: {name} is {value}, expected {low} to {high}")
            posture[joint] = value
        return posture

    def receive_posture(self) -> Array:
        """Return joints [24], rad: open for balls that are put in, and keeps them."""
        return self._posture("receive", self.receive)

    def spill_posture(self) -> Array:
        """Return joints [24], rad, in which no ball stays."""
        return self._posture("spill", self.spill)


class GraspSettings(_Section):
    """How balls are grasped.

    Attributes:
        above_m: height over the tray from which the gripper goes straight down.
        over_centre_m: of the tool over a ball's centre.
        close_to_m: width that the fingers are told to go to; the ball stops them.
        effort_n: force that they press with.
        width_tolerance_m: of the width with a ball between.
        line_speed: straight up and down, m/s.
        line_acceleration: share of the arm's, without a ball.
        first_m: distance from the place at the end board from which on a ball cannot be grasped.
    """

    above_m: Positive
    over_centre_m: float
    close_to_m: Positive
    effort_n: Positive
    width_tolerance_m: Positive
    line_speed: Positive
    line_acceleration: Share
    first_m: Positive


class PlaceSettings(_Section):
    """How balls are put into the palm.

    Attributes:
        left, right: where a ball's centre is when it is let go, m, world, with the palm where it is
            in the receiving posture; towards the little finger and the thumb of a right hand.
        above_m: height over these to which the gripper goes straight up again, without a ball.
        above_held_m: the same with one, where a reset begins so.
        beside_left, beside_right: off these [3], m, world: next to the hand, from where a ball is
            carried in on a straight line that is low over the fingers.
        hand_lower, hand_upper: rectangle that holds the hand [2], m, world: no ball is carried over
            it on the way to these.
        open_m: width that lets a ball go, with room beside the other one.
        line_speed: in and down to there, m/s.
    """

    left: Vector3
    right: Vector3
    above_m: Positive
    above_held_m: Positive
    beside_left: Vector3
    beside_right: Vector3
    hand_lower: tuple[float, float]
    hand_upper: tuple[float, float]
    open_m: Annotated[float, Field(gt=0.0, le=2 * FINGER_TRAVEL_M)]
    line_speed: Positive


class MoveSettings(_Section):
    """Shares of the arm's velocity and acceleration, with a ball and without."""

    velocity: Share
    acceleration: Share
    carry_velocity: Share
    carry_acceleration: Share
    line_acceleration: Share
    plan_timeout_s: Positive
    overtime_s: Positive  # beyond a motion's duration


class LookSettings(_Section):
    """When sights count.

    Attributes:
        palm_lower, palm_upper: box in which a ball is in the palm, m, palm frame.
        rest_speed: below which a ball in the palm is at rest, m/s.
        palm_samples: in a row, that agree.
        tray_apart_s: between two looks into the tray that agree.
        tray_moved_m: by which a ball at rest seems to move at most.
        settle_s: for balls to come to rest and be seen.
        arm_aside_m: where the tool waits meanwhile [3], m, world: in no camera's way.
        unseen_s: without any sight before that is a fault.
    """

    palm_lower: Vector3
    palm_upper: Vector3
    rest_speed: Positive
    palm_samples: Annotated[int, Field(ge=1, le=100)]
    tray_apart_s: Positive
    tray_moved_m: Positive
    settle_s: Positive
    arm_aside_m: Vector3
    unseen_s: Positive


class ResetSettings(_Section):
    """All of config/reset/baoding.yaml."""

    balls: Annotated[int, Field(ge=1, le=2)]
    radius_m: Positive
    poll_s: Positive
    hand: HandSettings
    grasp: GraspSettings
    place: PlaceSettings
    move: MoveSettings
    look: LookSettings
    retries: dict[str, Annotated[int, Field(ge=0)]]

    @property
    def held_width_m(self) -> float:
        """Width of the gripper with a ball between its fingers, m."""
        return float(2.0 * np.sqrt(self.radius_m**2 - self.grasp.over_centre_m**2))


def load_settings(path: Path | None = None) -> ResetSettings:
    """Read config/reset/baoding.yaml, or another file; raises ValueError naming file and field."""
    path = path or share("config", "reset", "baoding.yaml")
    try:
        return ResetSettings.model_validate(read_yaml(path))
    except ValidationError as error:
        raise ValueError(f"{path}: {error}") from error
