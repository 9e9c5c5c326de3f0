# SPDX-License-Identifier: Apache-2.0
"""Inverse kinematics: damped least squares from many starts."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pinocchio as pin
from numpy.typing import NDArray

from twinloop.motion.planner import Pose
from twinloop.motion.semantics import Limits
from twinloop.motion.world import World

Array = NDArray[np.float64]

POSITION_M, ANGLE_RAD = 1e-5, 1e-4  # a solution is this near
_ITERATIONS = 40
_DAMPING = 1e-3
_STEP_RAD = 0.5


def solve(world: World, pose: Pose, seed: Array, limits: Limits) -> Array | None:
    """Return joint positions [7], rad, near a seed that put the tool at the pose, or None.

    Levenberg-Marquardt on the tool's twist, damping in proportion to the squared error (Sugihara,
    "Solvability-unconcerned inverse kinematics by the Levenberg-Marquardt method", IEEE T-RO 27(5),
    2011); positions stay inside the limits.
    """
    wanted = pin.SE3(pose.rotation, pose.position)
    q = np.clip(seed, limits.lower, limits.upper)
    for _ in range(_ITERATIONS):
        error, jacobian = world.tool_error(q, wanted)
        if np.linalg.norm(error[:3]) < POSITION_M and np.linalg.norm(error[3:]) < ANGLE_RAD:
            return q
        damped = jacobian @ jacobian.T
        damped[np.diag_indices(6)] += 0.5 * float(error @ error) * 1e-1 + _DAMPING**2
        step = jacobian.T @ np.linalg.solve(damped, error)
        step *= min(1.0, _STEP_RAD / max(float(np.abs(step).max()), 1e-9))
        q = np.clip(q + step, limits.lower, limits.upper)
    return None


def solutions(
    world: World,
    pose: Pose,
    seed: Array,
    limits: Limits,
    rng: np.random.Generator,
    starts: int,
) -> Iterator[Array]:
    """Yield different solutions, first from the seed, then from random starts."""
    found: list[Array] = []
    for attempt in range(starts):
        start = seed if attempt == 0 else rng.uniform(limits.lower, limits.upper)
        q = solve(world, pose, start, limits)
        if q is not None and all(np.abs(q - other).max() > 0.1 for other in found):
            found.append(q)
            yield q
