# SPDX-License-Identifier: Apache-2.0
"""Jogging of the arm: short trajectories that come to rest by themselves, slower near things.

A jog is a chain of trajectories through the arm's one action. Each moves on for a moment and then
brakes, so an arm whose pilot is gone, or whose teleop node has died, stands soon after.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pinocchio as pin
from numpy.typing import NDArray

from twinloop.motion.semantics import BASE, Limits
from twinloop.motion.trajectory import Trajectory
from twinloop.motion.world import World
from twinloop.robots.panda import PANDA
from twinloop.teleop.settings import ARM_CHOSEN, JOINT, TWIST, ArmSettings

Array = NDArray[np.float64]

# Of the least squares: near singularities the tool is slow rather than the arm fast.
_DAMPING = 0.05
_LIMIT_MARGIN_RAD = 0.02
_REST = 2e-3  # rad/s: as good as none
_AWAY_M = 1e-4
_BRAKE_S = 0.05
_SHARES = np.linspace(1.0, 0.05, 20).tolist()  # of the speed that is wanted


class ArmJog:
    """Joint velocities of what a pilot wants, and the next trajectory of the chain.

    Args:
        world: arm and surroundings.
        settings: speeds and distances.
        limits: of the joints.

    Attributes:
        chosen: number of the joint that `arm/chosen` moves.
        clearance_m: least distance to what may not be touched, when it was last looked at.
        share: of the wanted speed that was left at the last look: less than 1 near things.
    """

    def __init__(self, world: World, settings: ArmSettings, limits: Limits) -> None:
        self._world = world
        self._settings = settings
        self._limits = limits
        self.chosen = 0
        self.clearance_m = float("nan")
        self.share = 1.0
        self._velocity, self._reached = np.zeros(7), np.zeros(7)
        self._sent_s = 0.0

    @property
    def chosen_joint(self) -> str:
        return PANDA.joint_names[self.chosen]

    def choose(self, by: int) -> None:
        """Choose the joint `by` further on, round and round."""
        self.chosen = (self.chosen + by) % len(PANDA.joint_names)

    def velocity(self, motions: Mapping[str, float], q: Array) -> Array:
        """Return the joint velocities [7], rad/s, that are wanted at positions [7], rad.

        The tool's twist by damped least squares (Nakamura and Hanafusa, "Inverse kinematic
        solutions with singularity robustness", 1986, eq. 12), scaled as a whole to the speed of
        the fastest joint; single joints are added.
        """
        settings = self._settings
        twist = np.array([motions.get(name, 0.0) for name in TWIST])
        twist *= np.repeat([settings.linear_speed, settings.angular_speed], 3)
        joints = np.array([motions.get(JOINT + name, 0.0) for name in PANDA.joint_names])
        joints[self.chosen] += motions.get(ARM_CHOSEN, 0.0)
        wanted = settings.joint_speed * np.clip(joints, -1.0, 1.0)
        if twist.any():
            wanted += self._solved(twist, q)
        fastest = np.abs(wanted).max() / settings.joint_speed
        return wanted / max(1.0, fastest)

    def next(self, motions: Mapping[str, float], q: Array, now_s: float) -> Trajectory | None:
        """Return the trajectory to send now; None where the arm stands and shall.

        How fast the arm is told to move is the jog's own reckoning. Were it measured, what a
        trajectory loses on its way to the arm would come back as a wish.

        Args:
            motions: what is wanted.
            q: where the arm is told to be now [7], rad.
            now_s: time of the robot, s.
        """
        share = (now_s - self._sent_s) / self._settings.cruise_s
        self._velocity += (self._reached - self._velocity) * min(1.0, max(0.0, share))
        wanted = self.velocity(motions, q) if any(motions.values()) else np.zeros(7)
        if not wanted.any() and np.abs(self._velocity).max() < _REST:
            self.forget()
            return None
        made = self._link(q, self._slowed(q, wanted))
        self._reached, self._sent_s = made.velocity[0].copy(), now_s
        return made

    def forget(self) -> None:
        """Begin anew from rest: the arm does not follow the chain any more."""
        self._velocity, self._reached, self._sent_s = np.zeros(7), np.zeros(7), 0.0
        self.share = 1.0

    def _solved(self, twist: Array, q: Array) -> Array:
        pose = self._world.pose(q)
        _, jacobian = self._world.tool_error(q, pin.SE3(pose.rotation, pose.position))
        if self._settings.frame == "base":
            turn = pose.rotation.T @ self._world.pose(q, BASE).rotation
            twist = np.concatenate([turn @ twist[:3], turn @ twist[3:]])
        square = jacobian @ jacobian.T + _DAMPING**2 * np.eye(6)
        solved: Array = jacobian.T @ np.linalg.solve(square, twist)
        return solved

    def _slowed(self, q: Array, wanted: Array) -> Array:
        """Return velocities [7] that leave room to brake before limits and things.

        The share of the speed grows with the distance at which the arm would come to rest; what
        leads away from things is not slowed.
        """
        settings = self._settings
        wanted = self._kept_inside(q, wanted)
        room_m = settings.slow_at_m - settings.stop_at_m
        self.clearance_m = self._world.clearance(q)
        for share in _SHARES:
            rest = self._link(q, share * wanted).position[-1]
            margin_m = settings.stop_at_m + share * room_m
            if self._world.is_free(rest, margin_m) or self._leads_away(q, rest):
                self.share = share
                return share * wanted
        self.share = 0.0
        return np.zeros(7)

    def _leads_away(self, q: Array, rest: Array) -> bool:
        if self.clearance_m >= self._settings.slow_at_m:
            return False
        return self._world.clearance(rest) > self.clearance_m + _AWAY_M

    def _kept_inside(self, q: Array, wanted: Array) -> Array:
        """Slow joints down towards their limits: v^2 = 2 a d."""
        room = np.where(wanted > 0.0, self._limits.upper - q, q - self._limits.lower)
        room = np.maximum(room - _LIMIT_MARGIN_RAD - np.abs(wanted) * self._settings.cruise_s, 0.0)
        fastest = np.sqrt(self._settings.acceleration * room)
        kept: Array = np.clip(wanted, -fastest, fastest)
        return kept

    def _link(self, q: Array, wanted: Array) -> Trajectory:
        """From the present to the wanted velocities as far as the cruise goes, and to rest."""
        settings, qd = self._settings, self._velocity
        change, most = wanted - qd, settings.acceleration * settings.cruise_s
        reached = qd + change * min(1.0, most / max(np.abs(change).max(), 1e-12))
        cruised = q + 0.5 * (qd + reached) * settings.cruise_s
        # With no acceleration at both ends the peak is half as much again as the mean.
        brake_s = max(_BRAKE_S, 1.5 * float(np.abs(reached).max()) / settings.acceleration)
        rest = cruised + 0.5 * reached * brake_s
        position = np.clip([cruised, rest], self._limits.lower, self._limits.upper)
        velocity = np.stack([reached, np.zeros(7)])
        time = np.array([settings.cruise_s, settings.cruise_s + brake_s])
        return Trajectory(PANDA.joint_names, time, position, velocity, np.zeros((2, 7)))
