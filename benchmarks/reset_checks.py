# SPDX-License-Identifier: Apache-2.0
"""Checks a reset by what truly happened, tick by tick, apart from what planned and ran it."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import mujoco
import numpy as np
from cell_checker import CellChecker
from numpy.typing import NDArray
from twinloop.motion.semantics import semantics
from twinloop.motion.world import REACH
from twinloop.robots.hand24 import HAND24
from twinloop.robots.panda import PANDA
from twinloop_sim.cell import Cell

Array = NDArray[np.float64]

_STEP_M = 0.004  # that a point of the arm moves at most between two samples
_SLACK = 1.0 + 1e-6
_BALLS = ("ball0", "ball1")


@dataclass
class Trace:
    """What happened in one reset, a row a tick; `note` is called after each.

    Attributes:
        joints: measured, of hand, arm and fingers [33], rad and m.
        hand_targets: [24], rad.
        setpoints: of the arm: position, velocity, acceleration [3, 7].
        balls: centres [2, 3], m, world.
        contacts: what each ball touches: names of bodies.
    """

    cell: Cell
    joints: list[Array] = field(default_factory=list)
    hand_targets: list[Array] = field(default_factory=list)
    setpoints: list[Array] = field(default_factory=list)
    balls: list[Array] = field(default_factory=list)
    contacts: list[tuple[set[str], set[str]]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._model = self.cell.twin.model  # type: ignore[attr-defined]
        self._data = mujoco.MjData(self._model)

    def clear(self) -> None:
        for rows in (self.joints, self.hand_targets, self.setpoints, self.balls, self.contacts):
            rows.clear()

    def note(self, hand_targets: Array) -> None:
        """Take down the cell as it is now."""
        state, arm = self.cell.state, self.cell.arms[0]
        self.joints.append(state.joints[0].copy())
        self.hand_targets.append(hand_targets.copy())
        told = arm.setpoint
        self.setpoints.append(np.stack([told.position, told.velocity, told.acceleration]))
        self.balls.append(state.ball_position[0].copy())
        self.contacts.append(self._touching())

    def _touching(self) -> tuple[set[str], set[str]]:
        physics = self.cell.twin.physics[0]  # type: ignore[attr-defined]
        self._data.qpos[:] = physics[1 : 1 + self._model.nq]
        mujoco.mj_kinematics(self._model, self._data)
        mujoco.mj_comPos(self._model, self._data)
        mujoco.mj_collision(self._model, self._data)
        found: tuple[set[str], set[str]] = (set(), set())
        for contact in self._data.contact[: self._data.ncon]:
            names = [self._model.body(self._model.geom_bodyid[geom]).name for geom in contact.geom]
            for ball, other in (names, names[::-1]):
                if ball in _BALLS:
                    found[_BALLS.index(ball)].add(other)
        return found


class ResetChecker:
    """Judges traces."""

    def __init__(self) -> None:
        self._cell = CellChecker(semantics().allowed)
        self._cell.carry(False)

    def judge(self, trace: Trace) -> dict[str, Any]:
        """Return collisions, violations of limits and heights that balls fell from."""
        distance, pair = self._clearance(np.array(trace.joints))
        return {
            "clearance_mm": distance * 1e3,
            "nearest": pair,
            "collides": distance < 0.0,
            "hand_violations": _hand_violations(np.array(trace.hand_targets)),
            "arm_violations": _arm_violations(np.array(trace.setpoints), np.array(trace.joints)),
            "fall_mm": [1e3 * fall for fall in falls(trace)],
        }

    def _clearance(self, joints: Array) -> tuple[float, str]:
        """Return the least distance of the arm from everything, m, and what is so near."""
        least, pair = np.inf, ""
        before = joints[0]
        for now in joints:
            moved = float(np.abs(now[24:31] - before[24:31]) @ REACH)
            moved = max(moved, 0.15 * float(np.abs(now[:24] - before[:24]).max()))
            count = 1 + int(moved / _STEP_M)
            for share in (np.arange(count) + 1.0) / count:
                found, names = self._cell.nearest(before + share * (now - before))
                if found < least:
                    least, pair = found, names
            before = now
        return least, pair


def falls(trace: Trace) -> list[float]:
    """Return heights from which balls fell on the hand after the gripper let them go, m.

    From where fingers last touched a ball to where it first touched the hand, nothing in between.
    """
    found = []
    for ball in range(2):
        let_go: float | None = None
        for place, contacts in zip(trace.balls, trace.contacts, strict=True):
            touching = contacts[ball]
            height = float(place[ball, 2])
            if any(name.startswith("panda") for name in touching):
                let_go = height
            elif any(name.startswith("rh_") for name in touching) and let_go is not None:
                found.append(let_go - height)
                let_go = None
            elif touching:
                let_go = None
    return found


def _hand_violations(targets: Array) -> list[str]:
    """Name the limits of the hand that what its servos were told exceeds, and by how much."""
    found = []
    if (targets < HAND24.lower - 1e-9).any() or (targets > HAND24.upper + 1e-9).any():
        found.append("position")
    tick_s = 0.01
    limits = {"velocity": HAND24.velocity, "acceleration": HAND24.acceleration, "jerk": HAND24.jerk}
    for order, (name, limit) in enumerate(limits.items(), start=1):
        share = np.abs(np.diff(targets, n=order, axis=0)) / tick_s**order / limit
        if share.size and share.max() > _SLACK:
            tick, joint = np.unravel_index(int(share.argmax()), share.shape)
            found.append(f"{name} x {share.max():.3f} of joint {joint} at tick {tick}")
    return found


def _arm_violations(setpoints: Array, joints: Array) -> list[str]:
    """Name the limits of the arm that it was told to exceed, or that it exceeded."""
    found = []
    position, velocity, acceleration = np.moveaxis(setpoints, 1, 0)
    measured = joints[:, 24:31]
    for what, values in (("position", position), ("measured position", measured)):
        if (values < PANDA.lower - 1e-4).any() or (values > PANDA.upper + 1e-4).any():
            found.append(what)
    jerk = np.diff(acceleration, axis=0) / 0.01
    rates = {
        "velocity": (velocity, PANDA.velocity),
        "acceleration": (acceleration, PANDA.acceleration),
        "jerk": (jerk, PANDA.jerk),
        "measured velocity": (np.diff(measured, axis=0) / 0.01, PANDA.velocity),
    }
    for name, (values, limit) in rates.items():
        # Setpoints keep limits to a thousandth, which rounding may take.
        if (np.abs(values) > limit * 1.002).any():
            found.append(name)
    return found
