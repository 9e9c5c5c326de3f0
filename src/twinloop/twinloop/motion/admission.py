# SPDX-License-Identifier: Apache-2.0
"""Which trajectories a controller takes on, and how it gets to their first point."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

from twinloop.motion.errors import MotionError
from twinloop.motion.following import SLACK, Motion, Path, overshoot
from twinloop.motion.semantics import Limits
from twinloop.motion.trajectory import Trajectory

Array = NDArray[np.float64]
State = tuple[Array, Array, Array]  # position, velocity, acceleration, [J] each

_REST = 1e-3  # rad/s, rad/s^2: as good as none
_POSITION_SLACK = 1e-4  # rad, beyond a limit: what is within is led back to it
_LEAD_SHARE = 0.95  # of the limits: between the samples that are looked at it is a little more
_LONGEST_LEAD_S = 1.0


class TrajectoryRefused(MotionError):
    """A trajectory cannot be followed.

    Attributes:
        is_of_other_joints: whether that is for the joints' names.
    """

    def __init__(self, why: str, is_of_other_joints: bool = False) -> None:
        super().__init__(why)
        self.is_of_other_joints = is_of_other_joints


def filled(
    joint_names: tuple[str, ...],
    time: ArrayLike,
    position: ArrayLike,
    velocity: ArrayLike | None = None,
    acceleration: ArrayLike | None = None,
) -> Trajectory:
    """Return a trajectory, with velocities and accelerations made up where there are none.

    Ends are at rest; in between, a derivative is that of the parabola through a point and its two
    neighbours.

    Args:
        time: [T], s.
        position: [T, J], rad.
        velocity: [T, J], rad/s.
        acceleration: [T, J], rad/s^2.

    Raises:
        TrajectoryRefused: lengths that do not fit, or times that do not increase.
    """
    t, x = np.asarray(time, dtype=np.float64), np.asarray(position, dtype=np.float64)
    shape = (len(t), len(joint_names))
    if not shape[0]:
        raise TrajectoryRefused("it has no point")
    given = {"positions": x}
    if velocity is not None:
        given["velocities"] = np.asarray(velocity, dtype=np.float64)
    if acceleration is not None:
        given["accelerations"] = np.asarray(acceleration, dtype=np.float64)
    for name, value in given.items():
        if value.shape != shape:
            raise TrajectoryRefused(
                f"its {name} have shape {value.shape}, expected {shape}: points by joints"
            )
    if not np.isfinite(t).all() or (np.diff(t) <= 0.0).any() or t[0] < 0.0:
        raise TrajectoryRefused(
            f"its points' times do not increase from 0 s or later on: {np.round(t, 4).tolist()[:9]}"
        )
    v = given["velocities"] if "velocities" in given else _slopes(t, x)
    a = given["accelerations"] if "accelerations" in given else _slopes(t, v)
    return Trajectory(joint_names, t, x, v, a)


def admitted(trajectory: Trajectory, joint_names: tuple[str, ...], limits: Limits) -> Trajectory:
    """Return a trajectory with its joints in this order.

    Raises:
        TrajectoryRefused: wrong joints, values that are not finite, times that do not increase, an
            end that is not at rest, or a limit that is exceeded, on the way too.
    """
    names = trajectory.joint_names
    if sorted(names) != sorted(joint_names):
        raise TrajectoryRefused(
            f"it is of joints {list(names)}, expected {list(joint_names)}", is_of_other_joints=True
        )
    order = [names.index(name) for name in joint_names]
    made = filled(
        joint_names,
        trajectory.time,
        trajectory.position[:, order],
        trajectory.velocity[:, order],
        trajectory.acceleration[:, order],
    )
    for what in ("position", "velocity", "acceleration"):
        broken = ~np.isfinite(getattr(made, what)).all(axis=0)
        if broken.any():
            bad = [name for name, is_bad in zip(joint_names, broken, strict=True) if is_bad]
            raise TrajectoryRefused(f"its {what} of {', '.join(bad)} is not finite")
    for which, end in (("first", 0), ("last", -1)):
        if which == "first" and made.time[0] > 0.0:
            continue
        speed = np.abs(made.velocity[end])
        if speed.max() > _REST:
            name = joint_names[int(speed.argmax())]
            raise TrajectoryRefused(
                f"its {which} point is not at rest: {name} has {speed.max():.4f} rad/s"
            )
    # What rounding left of rest would be a step where a controller joins or ends it.
    made.velocity[-1] = made.acceleration[-1] = 0.0
    if made.time[0] == 0.0:
        made.velocity[0] = made.acceleration[0] = 0.0
    _check_limits(made, limits, "it")
    return made


def joined(
    trajectory: Trajectory, start: State, limits: Limits, start_tolerance: float
) -> Trajectory:
    """Return a trajectory that begins where the arm is, with at least two points.

    Args:
        trajectory: what `admitted` returned.
        start: where the arm is told to be; at rest where the trajectory's first point is at 0 s.
        start_tolerance: how far from there such a trajectory may begin, rad.

    Raises:
        TrajectoryRefused: it begins too far from there, or the way there exceeds a limit.
    """
    lead_s = float(trajectory.time[0])
    if lead_s > 0.0:
        whole = _led_in(trajectory, start, lead_s, 0.0)
        _check_limits(whole, limits, f"the way to its first point in {lead_s:.3f} s")
        return whole
    gap = np.abs(trajectory.position[0] - start[0])
    if gap.max() > start_tolerance:
        joint = int(gap.argmax())
        raise TrajectoryRefused(
            f"it begins too far from where the arm is: {trajectory.joint_names[joint]} at "
            f"{trajectory.position[0, joint]:.4f} rad, {start[0][joint]:.4f} expected within "
            f"{start_tolerance} rad"
        )
    if gap.max() < 1e-9 and len(trajectory.time) > 1:
        return trajectory
    lead_s = 0.02
    while lead_s < _LONGEST_LEAD_S:
        whole = _led_in(trajectory, start, lead_s, lead_s)
        if overshoot(Path(_head(whole)).dense()[1], limits)[0] <= _LEAD_SHARE:
            return whole
        lead_s *= 1.3
    raise TrajectoryRefused(f"no way of {_LONGEST_LEAD_S} s to its first point keeps the limits")


def _led_in(trajectory: Trajectory, start: State, lead_s: float, shift_s: float) -> Trajectory:
    """Put the arm's state before a trajectory, which begins `shift_s` later."""
    return Trajectory(
        trajectory.joint_names,
        np.concatenate([[0.0], trajectory.time + shift_s]),
        np.concatenate([start[0][None], trajectory.position]),
        np.concatenate([start[1][None], trajectory.velocity]),
        np.concatenate([start[2][None], trajectory.acceleration]),
    )


def _head(trajectory: Trajectory) -> Trajectory:
    """Return the first two points of a trajectory."""
    return Trajectory(
        trajectory.joint_names,
        trajectory.time[:2],
        trajectory.position[:2],
        trajectory.velocity[:2],
        trajectory.acceleration[:2],
    )


def _check_limits(trajectory: Trajectory, limits: Limits, what: str) -> None:
    names = trajectory.joint_names
    # Of finite points too far apart the way between is not finite, and no bound refuses NaN.
    with np.errstate(over="ignore", invalid="ignore"):
        if len(trajectory.time) > 1:
            times, motion = Path(trajectory).dense()
        else:
            times, motion = trajectory.time, _still(trajectory)
    finite = np.isfinite([motion.position, motion.velocity, motion.acceleration, motion.jerk])
    if not finite.all():
        joint = int(np.argmin(finite.all(axis=(0, 1))))
        raise TrajectoryRefused(
            f"{what} exceeds a limit: the way of {names[joint]} is beyond all numbers"
        )
    low = (limits.lower - motion.position).max(axis=0)
    high = (motion.position - limits.upper).max(axis=0)
    outside = np.maximum(low, high)
    if outside.max() > _POSITION_SLACK:
        joint = int(outside.argmax())
        extreme = motion.position[:, joint]
        found = extreme.min() if low[joint] > high[joint] else extreme.max()
        raise TrajectoryRefused(
            f"{what} exceeds a limit: {names[joint]} comes to {found:.4f} rad, not in "
            f"{limits.lower[joint]} to {limits.upper[joint]}"
        )
    ratio, which, at, joint = overshoot(motion, limits)
    if ratio > 1.0 + SLACK:
        raise TrajectoryRefused(
            f"{what} exceeds a limit: {which} of {names[joint]} is {ratio:.2f} times what is "
            f"allowed after {times[at]:.3f} s"
        )


def _still(trajectory: Trajectory) -> Motion:
    zero = np.zeros_like(trajectory.position)
    return Motion(trajectory.position, trajectory.velocity, trajectory.acceleration, zero)


def _slopes(t: Array, x: Array) -> Array:
    """Derivatives [T, J]: zero at the ends, those of parabolas through three points inside."""
    slopes = np.zeros_like(x)
    if len(t) > 2:
        h = np.diff(t)[:, None]
        rise = np.diff(x, axis=0) / h
        slopes[1:-1] = (rise[:-1] * h[1:] + rise[1:] * h[:-1]) / (h[:-1] + h[1:])
    return slopes
