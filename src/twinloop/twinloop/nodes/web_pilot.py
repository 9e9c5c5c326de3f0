# SPDX-License-Identifier: Apache-2.0
"""The page as a pilot's device: buttons that are held move, and say so while they are."""

from __future__ import annotations

import queue
import threading
import time

from rclpy.lifecycle import LifecycleNode

from twinloop.nodes import qos
from twinloop.nodes.pilot_messages import pilot_input
from twinloop.teleop.keys import HeldKeys
from twinloop.teleop.pilot import Wish
from twinloop.teleop.settings import TeleopSettings
from twinloop_interfaces.msg import PilotInput

SOURCE = "page"
_PERIOD_S = 0.02
_SETTLED_S = 0.5  # for which a release is said again: sensor messages may be lost


class WebPilot:
    """Says on `pilot_input` what buttons are held, from the first press until they are let go.

    In a thread of its own: what takes the page long to draw must not look as if the pilot were
    gone. How long a button moves without the browser's word is told by `keyboard` of the settings.

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
        self._ends = threading.Event()
        self._thread = threading.Thread(target=self._speak, name="pilot", daemon=True)
        self._thread.start()

    def press(self, name: str, value: float) -> None:
        """A button is held; from any thread, as often as the page says so."""
        self._asked.put((name, value, time.monotonic()))

    def close(self) -> None:
        """Fall silent."""
        self._ends.set()
        self._thread.join()

    def _speak(self) -> None:
        while not self._ends.wait(_PERIOD_S):
            try:
                self._say()
            except Exception:
                if self._node.context.ok():
                    raise
                return  # the process is being ended

    def _say(self) -> None:
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
