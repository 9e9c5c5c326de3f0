# SPDX-License-Identifier: Apache-2.0
"""The stereo camera node on a camera that hangs at SIGUSR1 and is unplugged at SIGUSR2.

The next signal of the kind mends it. The `main` is for `start_node` and `Processes.node`.
"""

from __future__ import annotations

import signal
import sys
from pathlib import Path

from twinloop.nodes.base import run
from twinloop.nodes.stereo_camera import StereoCameraNode

sys.path.insert(0, str(Path(__file__).parents[1] / "unit"))
from fake_cameras import FakeCameras

CAMERAS = FakeCameras(size=(56, 18), period_s=1.0 / 30.0)


class FakeStereoCameraNode(StereoCameraNode):
    open_capture = CAMERAS.open


def toggle_hanging(*_: object) -> None:
    if CAMERAS.running.is_set():
        CAMERAS.hang()
    else:
        CAMERAS.go_on()


def toggle_plug(*_: object) -> None:
    CAMERAS.is_plugged = not CAMERAS.is_plugged


def main() -> None:
    signal.signal(signal.SIGUSR1, toggle_hanging)
    signal.signal(signal.SIGUSR2, toggle_plug)
    run(FakeStereoCameraNode)
