# SPDX-License-Identifier: Apache-2.0
"""A twin node with its arm, and a client beside it that moves the arm and records what it does."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from sensor_msgs.msg import JointState
from twin_station import DEEP, Station, stamp_ns
from twinloop.motion.semantics import arm_limits, semantics
from twinloop.motion.timing import assemble, straight_leg
from twinloop.motion.trajectory import Trajectory
from twinloop.nodes.arm_client import ArmClient, Goal
from twinloop.robots.panda import PANDA

LIMITS = arm_limits()
REST = semantics().states["rest"]


def move(
    delta: float | np.ndarray, start: np.ndarray = REST, velocity: float = 0.4, share: float = 0.3
) -> Trajectory:
    """Every joint goes this far, rad, at shares of its limits."""
    way = np.broadcast_to(np.asarray(delta, dtype=np.float64), 7)
    return assemble(
        PANDA.joint_names, start, [straight_leg(0, way, LIMITS.scaled(velocity, share))]
    )


class ArmStation:
    """See `Station`; its twin has an arm.

    Attributes:
        station: the twin, its clock, its services.
        arm: a client of the arm.
        told: stamps, ns, and what the arm's servos were told [7], rad.
        measured: stamps, ns, positions [7], rad, and velocities [7], rad/s.
    """

    def __init__(self, **parameters: Any) -> None:
        self.station = Station(arm=True, **parameters)
        self.told: list[tuple[int, np.ndarray]] = []
        self.measured: list[tuple[int, np.ndarray, np.ndarray]] = []
        node = self.station.node
        node.create_subscription(
            JointState,
            "arm/setpoint",
            lambda m: self.told.append((stamp_ns(m), np.array(m.position))),
            DEEP,
        )
        node.create_subscription(
            JointState,
            "arm/joint_states",
            lambda m: self.measured.append(
                (stamp_ns(m), np.array(m.position[:7]), np.array(m.velocity[:7]))
            ),
            DEEP,
        )
        self.arm = ArmClient(node)
        try:
            self.until(lambda: not self.arm.missing and self.told, 20.0)
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        self.station.close()

    def until(self, is_true: Callable[[], Any], timeout_s: float = 20.0) -> None:
        self.station.spin_until(is_true, timeout_s)

    def reset(self) -> None:
        """Put the arm to rest, where `move` starts from."""
        assert self.station.reset().success
        self.until(lambda: np.abs(self.arm.position - REST).max() < 1e-3)

    def begin(self, trajectory: Trajectory) -> Goal:
        """Send a motion and wait until it is under way."""
        goal = self.arm.execute(trajectory)
        self.until(lambda: np.abs(self.arm.velocity).max() > 0.1 or goal.is_over)
        assert not goal.is_over, goal.why
        return goal

    def ended(self, goal: Goal, timeout_s: float = 60.0) -> Goal:
        self.until(lambda: goal.is_over, timeout_s)
        return goal
