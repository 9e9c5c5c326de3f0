# SPDX-License-Identifier: Apache-2.0
"""The pilot's part in a planner node that shares a robot: what he commands, and what survived."""

from __future__ import annotations

import time

from trajectory_msgs.msg import JointTrajectory

from twinloop.contract import Contract, MalformedMessage
from twinloop.nodes import qos
from twinloop.nodes.base import Node
from twinloop.planners.base import PlanStats
from twinloop.planners.pilot import TOPIC, PilotCommand
from twinloop.planners.shared import SharedMPPI


class Sharing:
    """Hears a pilot on `pilot_command` for a planner; bad messages count as none."""

    def __init__(self, node: Node, contract: Contract, planner: SharedMPPI) -> None:
        self._planner = planner
        self._pilot = PilotCommand(contract)
        self._share: float | None = None
        self._refused = 0
        self._refusal = ""
        node.create_subscription(JointTrajectory, TOPIC, node.guarded(self._take), qos.HEARTBEAT)

    def hear(self) -> None:
        """Give the step that may be due now what the pilot commands."""
        self._planner.pilot = self._pilot.targets(time.monotonic())

    def planned(self, stats: PlanStats) -> None:
        """Remember what a step left of the pilot's command."""
        self._share = stats.pilot_share

    @property
    def alpha(self) -> float:
        return self._planner.alpha

    @alpha.setter
    def alpha(self, alpha: float) -> None:
        self._planner.alpha = alpha

    def values(self) -> dict[str, str]:
        """Return what the node's health tells of it."""
        is_heard = self._pilot.is_fresh(time.monotonic())
        values = {
            "alpha": f"{self.alpha:g}",
            "pilot": "commands" if is_heard else "absent",
            "refused_pilot_commands": str(self._refused),
        }
        if is_heard and self._share is not None:
            values["pilot_share"] = f"{self._share:.2f}"
        if self._refusal:
            values["last_refused_pilot_command"] = self._refusal
        return values

    def _take(self, message: JointTrajectory) -> None:
        try:
            self._pilot.feed(message, time.monotonic())
        except MalformedMessage as error:
            self._refused += 1
            self._refusal = str(error)
