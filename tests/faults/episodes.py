# SPDX-License-Identifier: Apache-2.0
"""Episodes that a station has planned, and what it hears of them."""

from __future__ import annotations

import time

import pytest
from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus
from sensor_msgs.msg import Image
from twin_station import Station
from twinloop.nodes import qos

from twinloop_interfaces.msg import PlanStats
from twinloop_interfaces.srv import StartPlanning


class Sensing:
    """What a station hears of cameras and planning, by the steady clock."""

    def __init__(self, station: Station) -> None:
        self.stats: list[tuple[float, PlanStats]] = []
        self.levels: dict[str, bytes] = {}
        self.images: list[float] = []
        node = station.node
        node.create_subscription(PlanStats, "plan_stats", self._take_stats, qos.EVENT)
        node.create_subscription(Image, "stereo/left/image_raw", self._take_image, qos.IMAGE)
        node.create_subscription(
            DiagnosticArray, "/diagnostics", self._take_diagnostics, qos.DIAGNOSTICS
        )

    def level(self, name: str) -> bytes:
        return self.levels.get(name, DiagnosticStatus.STALE)

    def _take_stats(self, message: PlanStats) -> None:
        self.stats.append((time.monotonic(), message))

    def _take_image(self, _message: Image) -> None:
        self.images.append(time.monotonic())

    def _take_diagnostics(self, array: DiagnosticArray) -> None:
        self.levels |= {
            status.name.rpartition("/")[2]: status.level
            for status in array.status
            if any(value.key == "state" and value.value == "active" for value in status.values)
        }


class Episodes:
    """Has the planner plan."""

    def __init__(self, station: Station, sensing: Sensing) -> None:
        self._station = station
        self._sensing = sensing
        self._starter = station.node.create_client(StartPlanning, "start_planning")

    def plan(self) -> None:
        """Begin an episode, and wait until it is under way.

        A busy machine's cameras may be late by themselves: then it begins again.
        """
        station, stats = self._station, self._sensing.stats
        station.spin_until(self._starter.service_is_ready, 120.0)
        for _ in range(10):
            assert station.reset().success
            stats.clear()
            future = self._starter.call_async(StartPlanning.Request(task="baoding", steps=1000))
            station.spin_until(future.done)
            assert future.result().success, future.result().message
            station.spin_until(
                lambda: len(stats) >= 3 or (stats and stats[-1][1].stop_reason), 20.0
            )
            if not stats[-1][1].stop_reason:
                return
        pytest.fail(f"no episode got under way: {stats[-1][1].stop_reason}")
