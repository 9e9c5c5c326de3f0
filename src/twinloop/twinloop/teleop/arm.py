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

from twinloop.motion.following import Motion, Path
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
_SHARES = (1.0, 0.7, 0.5, 0.35, 0.2, 0.1)  # of the speed that is wanted, tried from the fastest


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
        self._path: Path | None = None
        self._began_s = 0.0
        self.chosen = 0
        self.clearance_m = float("nan")
        self.share = 1.0

    @property
    def chosen_joint(self) -> str:
        return PANDA.joint_names[self.chosen]

    def choose(self, by: int) -> None:
        """Choose the joint `by` further on, round and round."""
        self.chosen = (self.chosen + by) % len(PANDA.joint_names)

    def forget(self) -> None:
        """The arm does not follow the chain any more: the next link starts from rest."""
        self._path = None

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

        Args:
            motions: what is wanted.
            q: where the arm was measured [7], rad: what the chain begins from.
            now_s: time of the robot: on it the trajectory sent before goes on.
        """
        now = self._present(q, now_s)
        wanted = self.velocity(motions, now.position) if any(motions.values()) else np.zeros(7)
        if not wanted.any() and np.abs(now.velocity).max() < _REST:
            self._path = None
            return None
        made = self._link(now, self._slowed(now, wanted))
        first = np.zeros(1)
        self._path = Path(
            Trajectory(
                made.joint_names,
                np.concatenate([first, made.time]),
                np.concatenate([now.position[None], made.position]),
                np.concatenate([now.velocity[None], made.velocity]),
                np.concatenate([now.acceleration[None], made.acceleration]),
            )
        )
        self._began_s = now_s
        return made

    def _present(self, q: Array, now_s: float) -> Motion:
        """Where the chain is told to be now; where the arm is, while there is none."""
        if self._path is None:
            zero = np.zeros(7)
            return Motion(np.clip(q, self._limits.lower, self._limits.upper), zero, zero, zero)
        return self._path.at(max(0.0, now_s - self._began_s))

    def _solved(self, twist: Array, q: Array) -> Array:
        pose = self._world.pose(q)
        _, jacobian = self._world.tool_error(q, pin.SE3(pose.rotation, pose.position))
        if self._settings.frame == "base":
            turn = pose.rotation.T @ self._world.pose(q, BASE).rotation
            twist = np.concatenate([turn @ twist[:3], turn @ twist[3:]])
        square = jacobian @ jacobian.T + _DAMPING**2 * np.eye(6)
        solved: Array = jacobian.T @ np.linalg.solve(square, twist)
        return solved

    def _slowed(self, now: Motion, wanted: Array) -> Array:
        """Return velocities [7] that leave room to brake before limits and things.

        The share of the speed grows with the distance at which the arm would come to rest; what
        leads away from things is not slowed.
        """
        settings = self._settings
        wanted = self._kept_inside(now.position, wanted)
        self.clearance_m = self._world.clearance(now.position)
        room_m = settings.slow_at_m - settings.stop_at_m
        for share in _SHARES:
            moved = share * wanted
            distance = self._world.clearance(self._rest(now, moved).position)
            if distance >= settings.stop_at_m + share * room_m or distance > self.clearance_m:
                self.share = share
                return moved
        self.share = 0.0
        return np.zeros(7)

    def _kept_inside(self, q: Array, wanted: Array) -> Array:
        """Slow joints down towards their limits: v^2 = 2 a d."""
        room = np.where(wanted > 0.0, self._limits.upper - q, q - self._limits.lower)
        room = np.maximum(room - _LIMIT_MARGIN_RAD - np.abs(wanted) * self._settings.cruise_s, 0.0)
        fastest = np.sqrt(self._settings.acceleration * room)
        kept: Array = np.clip(wanted, -fastest, fastest)
        return kept

    def _reached(self, now: Motion, wanted: Array) -> Array:
        """Velocities [7] at the end of the cruise, within the acceleration."""
        change = wanted - now.velocity
        most = self._settings.acceleration * self._settings.cruise_s
        reached: Array = now.velocity + change * min(1.0, most / max(np.abs(change).max(), 1e-12))
        return reached

    def _rest(self, now: Motion, wanted: Array) -> Motion:
        """Where the arm would stand after the next link."""
        made = self._link(now, wanted)
        zero = np.zeros(7)
        return Motion(made.position[-1], zero, zero, zero)

    def _link(self, now: Motion, wanted: Array) -> Trajectory:
        """From the present to the wanted velocities as far as the cruise goes, and to rest."""
        cruise_s = self._settings.cruise_s
        reached = self._reached(now, wanted)
        cruised = now.position + 0.5 * (now.velocity + reached) * cruise_s
        # With no acceleration at both ends the peak is half as much again as the mean.
        brake_s = max(0.05, 1.5 * float(np.abs(reached).max()) / self._settings.acceleration)
        rest = cruised + 0.5 * reached * brake_s
        position = np.clip([cruised, rest], self._limits.lower, self._limits.upper)
        zero = np.zeros((2, 7))
        velocity = np.stack([reached, np.zeros(7)])
        time = np.array([cruise_s, cruise_s + brake_s])
        return Trajectory(PANDA.joint_names, time, position, velocity, zero)
