# SPDX-License-Identifier: Apache-2.0
"""The page as a pilot's device: buttons that are held move, and say so while they are."""

from __future__ import annotations

import queue
import time

from rclpy.lifecycle import LifecycleNode

from twinloop.nodes import qos
from twinloop.nodes.pilot_messages import pilot_input
from twinloop.teleop.keys import HeldKeys
from twinloop.teleop.pilot import Wish
from twinloop.teleop.settings import TeleopSettings
from twinloop_interfaces.msg import PilotInput

SOURCE = "page"
_SETTLED_S = 0.5  # for which a release is said again: sensor messages may be lost


class WebPilot:
    """Says on `pilot_input` what buttons are held, from the first press until they are let go.

    Args:
        node: that the publisher belongs to.
        settings: times of held buttons.
    """

    def __init__(self, node: LifecycleNode, settings: TeleopSettings) -> None:
        self._node = node
        self._held = HeldKeys(settings.keyboard)
        self._asked: queue.SimpleQueue[tuple[str, float, float]] = queue.SimpleQueue()
        self._is_known = False  # the device has said that it was released before
        self._quiet_s = 0.0
        self._publisher = node.create_publisher(PilotInput, "pilot_input", qos.SENSOR)

    def press(self, name: str, value: float) -> None:
        """A button is held; from any thread, as often as the page says so."""
        self._asked.put((name, value, time.monotonic()))

    def work(self) -> None:
        """Say what is held; to be called 40 times a second, in the node's thread."""
        while not self._asked.empty():
            self._held.press(*self._asked.get())
        now_s = time.monotonic()
        if not self._held.is_idle:
            self._quiet_s = now_s + _SETTLED_S
        elif now_s > self._quiet_s:
            self._is_known = False
            return
        wish = self._held.wish(now_s)
        if not self._is_known:
            # A dead-man counts from its press on: the first word is that it was released.
            self._is_known, wish = True, Wish(False)
        self._publisher.publish(pilot_input(self._node, SOURCE, wish))
