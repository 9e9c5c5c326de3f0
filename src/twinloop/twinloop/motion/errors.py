# SPDX-License-Identifier: Apache-2.0
"""Why there is no motion: one class a reason, all of them `MotionError`."""

from __future__ import annotations


class MotionError(Exception):
    """A motion cannot be planned or carried out."""


class Unreachable(MotionError):
    """No joint position within limits puts the tool at the pose."""


class OutOfLimits(MotionError):
    """A joint position that was asked for lies outside its limits, or is not finite."""


class StartInCollision(MotionError):
    """The arm touches something where it stands."""


class GoalInCollision(MotionError):
    """The pose or joint position that was asked for touches something."""


class NoPath(MotionError):
    """No path free of collision was found in the time allowed."""


class ExecutionFailed(MotionError):
    """The controller did not bring a motion to its end."""
