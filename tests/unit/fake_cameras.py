# SPDX-License-Identifier: Apache-2.0
"""Cameras that can be unplugged and hang, in the place of `cv2.VideoCapture`."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Any

import cv2
import numpy as np


class FakeCameras:
    """What is plugged in, and everything that was done with it.

    Args:
        size: width and height of what each camera delivers, pixels.
        period_s: between two images.
    """

    def __init__(self, size: tuple[int, int] = (28, 18), period_s: float = 0.005) -> None:
        self.size = size
        self.period_s = period_s
        self.is_plugged = True
        self.is_empty = False
        self.calls: list[tuple[str, Any]] = []
        self.running = threading.Event()
        self.running.set()

    def open(self, name: str | int) -> FakeCapture:
        """Stand in for `cv2.VideoCapture`."""
        self.calls.append(("open", name))
        return FakeCapture(self, name)

    def hang(self) -> None:
        """From now on no camera returns from a grab."""
        self.running.clear()

    def go_on(self) -> None:
        self.running.set()

    def count(self, call: str) -> int:
        return sum(each == call for each, _ in self.calls)


class FakeCapture:
    """One opened camera."""

    def __init__(self, cameras: FakeCameras, name: str | int) -> None:
        self._cameras = cameras
        self._name = name
        self._taken = 0

    def isOpened(self) -> bool:
        return self._cameras.is_plugged

    def set(self, prop: int, value: float) -> bool:
        self._cameras.calls.append(("set", (prop, value)))
        return True

    def get(self, prop: int) -> float:
        width, height = self._cameras.size
        known = {
            cv2.CAP_PROP_FRAME_WIDTH: width,
            cv2.CAP_PROP_FRAME_HEIGHT: height,
            cv2.CAP_PROP_FPS: 1.0 / self._cameras.period_s,
        }
        return float(known.get(prop, 0.0))

    def grab(self) -> bool:
        time.sleep(self._cameras.period_s)
        self._cameras.running.wait()
        self._cameras.calls.append(("grab", self._name))
        self._taken += 1
        return self._cameras.is_plugged

    def retrieve(self) -> tuple[bool, np.ndarray | None]:
        self._cameras.calls.append(("retrieve", self._name))
        if self._cameras.is_empty:
            return False, None
        width, height = self._cameras.size
        return True, np.full((height, width, 3), self._taken % 256, np.uint8)

    def release(self) -> None:
        self._cameras.calls.append(("release", self._name))


def until(is_true: Callable[[], Any], timeout_s: float = 10.0) -> None:
    """Wait until something is true; fails where it never becomes so."""
    end_s = time.monotonic() + timeout_s
    while not is_true():
        assert time.monotonic() < end_s, "it never came true"
        time.sleep(0.002)
