# SPDX-License-Identifier: Apache-2.0
"""Makes trajectories as slow as the arm needs them: towards its ends its limits shrink."""

from __future__ import annotations

import numpy as np

from twinloop.drivers.franka_arm.limits import LIMITS
from twinloop.motion.admission import TrajectoryRefused
from twinloop.motion.following import Path
from twinloop.motion.trajectory import Trajectory
from twinloop.robots.base import Robot

_MARGIN = 1.005
_SLOWEST = 5.0
_NOTHING = 1e-6  # rad/s


def slowed(trajectory: Trajectory, robot: Robot) -> tuple[Trajectory, float]:
    """Return a trajectory over the same path inside the arm's limits, and how many times as long.

    Args:
        trajectory: of the robot's joints in its order, finite.
        robot: `limits.bounded`.

    Raises:
        TrajectoryRefused: it would have to be more than five times slower; says why.
    """
    if len(trajectory.time) < 2:
        return trajectory, 1.0
    _, motion = Path(trajectory).dense()
    low, high = LIMITS.velocities(motion.position)
    allowed = np.where(motion.velocity > 0.0, high, -low)
    speed = np.abs(motion.velocity)
    with np.errstate(divide="ignore", invalid="ignore"):
        ratio = np.where(speed > _NOTHING, speed / np.minimum(allowed, robot.velocity), 0.0)
    ratios = {
        "velocity": ratio,
        "acceleration": np.sqrt(np.abs(motion.acceleration) / robot.acceleration),
        "jerk": np.cbrt(np.abs(motion.jerk) / robot.jerk),
    }
    which = max(ratios, key=lambda name: float(ratios[name].max()))
    factor = float(ratios[which].max())
    if factor > _SLOWEST:
        at, joint = np.unravel_index(ratios[which].argmax(), ratios[which].shape)
        raise TrajectoryRefused(
            f"its {which} of {trajectory.joint_names[joint]} at "
            f"{motion.position[at, joint]:.3f} rad asks for {factor:.1f} times as long, more than "
            f"{_SLOWEST:g}"
        )
    factor = factor * _MARGIN if factor > 1.0 else 1.0
    return (
        Trajectory(
            trajectory.joint_names,
            trajectory.time * factor,
            trajectory.position,
            trajectory.velocity / factor,
            trajectory.acceleration / factor**2,
        ),
        factor,
    )
