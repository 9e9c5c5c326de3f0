# SPDX-License-Identifier: Apache-2.0
"""Motions of the arm: planned free of collision, timed within limits, without ROS."""

from __future__ import annotations

from typing import Any

from twinloop.motion.planner import ArmPlanner

PLANNERS = ("ompl", "moveit")


def make_planner(name: str = "ompl", **settings: Any) -> ArmPlanner:
    """Return a planner: `ompl`, or `moveit` where moveit_py is installed.

    Args:
        settings: handed to the planner's class.

    Raises:
        ValueError: an unknown name.
        ImportError: moveit_py is not installed.
    """
    if name == "ompl":
        from twinloop.motion.ompl_planner import OmplPlanner

        return OmplPlanner(**settings)
    if name == "moveit":
        from twinloop.motion.moveit_planner import MoveItPlanner

        return MoveItPlanner(**settings)
    raise ValueError(f"arm planner must be one of {PLANNERS}, got {name!r}")
