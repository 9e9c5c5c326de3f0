# SPDX-License-Identifier: Apache-2.0
"""An arm planner that tells what its plans cost."""

from __future__ import annotations

import time

from twinloop.motion.ompl_planner import OmplPlanner
from twinloop.motion.planner import Pose
from twinloop.motion.trajectory import Trajectory


class TimedPlanner(OmplPlanner):
    """Counts the core's time that plans take."""

    spent_s = 0.0

    def plan(
        self,
        timeout_s: float = 2.0,
        velocity_scaling: float = 1.0,
        acceleration_scaling: float = 1.0,
    ) -> Trajectory:
        began_s = time.process_time()
        try:
            return super().plan(timeout_s, velocity_scaling, acceleration_scaling)
        finally:
            self.spent_s += time.process_time() - began_s

    def plan_line(
        self, goal: Pose, speed: float = 0.15, margin_m: float = 0.002, acceleration: float = 0.3
    ) -> Trajectory:
        began_s = time.process_time()
        try:
            return super().plan_line(goal, speed, margin_m, acceleration)
        finally:
            self.spent_s += time.process_time() - began_s
