# SPDX-License-Identifier: Apache-2.0
"""A command guard on clocks that tests turn."""

from __future__ import annotations

import dataclasses

import numpy as np
from twinloop.robots.hand24 import HAND24, JOINT_NAMES
from twinloop.safety.guard import CommandGuard
from twinloop.safety.verdict import GuardSettings, Verdict

TICK_NS = 10_000_000
STEP_NS = 10 * TICK_NS
HOUR_NS = 3600 * 10**9
NAMES = list(JOINT_NAMES)
CUP = HAND24.poses["cup"]
MIDDLE = (HAND24.lower + HAND24.upper) / 2
STEP_RAD = 0.15


class Bench:
    """A guard with a hand on its clocks: ROS time and steady time advance tick by tick."""

    def __init__(self, position: np.ndarray = MIDDLE, **changes: object) -> None:
        self.now_ns = 50 * 10**9
        self.steady_s = 7.0
        self.beats: bool | None = None
        self.guard = CommandGuard(
            HAND24,
            dataclasses.replace(GuardSettings(), **changes),
            position,  # type: ignore[arg-type]
        )

    def send(self, targets: np.ndarray, source: str = "planner", **changes: object) -> Verdict:
        command = {"names": NAMES, "positions": targets, "stamp_ns": self.now_ns} | changes
        return self.guard.submit(
            source=source,
            now_ns=self.now_ns,
            steady_s=self.steady_s,
            **command,  # type: ignore[arg-type]
        )

    def tick(self, ticks: int = 1, rtf: float = 1.0) -> np.ndarray:
        """Applied positions [ticks, J], rad."""
        applied = []
        for _ in range(ticks):
            if self.beats is not None:
                self.guard.emergency_stop(self.beats, self.now_ns, self.steady_s)
            applied.append(self.guard.tick(self.now_ns, self.steady_s))
            self.now_ns += TICK_NS
            for _ in range(max(1, round(0.5 / rtf))):
                self.steady_s += min(0.02, 0.01 / rtf)
                self.guard.watch(self.now_ns, self.steady_s)
        return np.array(applied)


def moved(value: float, joint: int = 3) -> np.ndarray:
    targets = MIDDLE.copy()
    targets[joint] += value
    return targets
