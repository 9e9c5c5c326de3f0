# SPDX-License-Identifier: Apache-2.0
"""Fault rows 18 to 20 in the drivers of cameras, as their nodes read them."""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from rows import Row
from twinloop.drivers.frame_reader import FrameReader, ReaderSettings
from twinloop.drivers.realsense import RealSenseCamera, RealSenseSettings
from twinloop.drivers.stereo_camera import StereoCamera, StereoSettings

sys.path.append(str(Path(__file__).parents[1] / "unit"))
from fake_cameras import FakeCameras, until
from realsense_recording import PERIOD_MS, record

TOLD_MS = 500.0
SKEWED = range(4, 9)


class Reading:
    """A reader of a camera, and what came."""

    def __init__(self, open_source: Callable[[], Any], stamp_of: Callable[[Any], int]) -> None:
        self.frames: list[Any] = []
        self.reader = FrameReader(open_source, self.frames.append, stamp_of, ReaderSettings())
        self.reader.start()

    @property
    def state(self) -> str:
        return self.reader.status().state

    def stall(self, begin: Callable[[], None], end: Callable[[], None]) -> float:
        """From a stall until it is told, ms; then it resumes by itself."""
        until(lambda: len(self.frames) >= 10 and self.state == "reading", 30.0)
        begin()
        begun_s = time.monotonic()
        until(lambda: self.state == "silent", 30.0)
        told_ms = 1e3 * (time.monotonic() - begun_s)
        seen = len(self.frames)
        end()
        until(lambda: len(self.frames) > seen and self.state == "reading", 30.0)
        return told_ms


@pytest.fixture
def read() -> Iterator[Callable[..., Reading]]:
    made: list[Reading] = []

    def begin(open_source: Callable[[], Any], stamp_of: Callable[[Any], int]) -> Reading:
        made.append(Reading(open_source, stamp_of))
        return made[-1]

    yield begin
    for each in made:
        each.reader.stop(5.0)


def open_uvc(cameras: FakeCameras, **changes: Any) -> StereoCamera:
    return StereoCamera(StereoSettings("0", **changes), open_capture=cameras.open)


@pytest.mark.fault(18, "UVC driver")
def test_row_18_a_uvc_camera_that_stalls(row: Row, read: Callable[..., Reading]) -> None:
    cameras = FakeCameras(size=(56, 18), period_s=1.0 / 30.0)
    reading = read(lambda: open_uvc(cameras), lambda frame: frame.left_stamp_ns)
    try:
        row.measure(
            "told after", lambda: reading.stall(cameras.hang, cameras.go_on), "ms", TOLD_MS, most=5
        )
    finally:
        cameras.go_on()


@pytest.mark.fault(18, "RealSense driver")
def test_row_18_a_realsense_that_stalls(
    row: Row, read: Callable[..., Reading], tmp_path: Path
) -> None:
    path = record(tmp_path / "plain.db3", 60)
    flows = threading.Event()
    flows.set()

    class Stalling(RealSenseCamera):
        def _wait(self) -> Any:
            flows.wait()
            return super()._wait()

    settings = RealSenseSettings(file=str(path), loop=True)
    reading = read(lambda: Stalling(settings), lambda frame: frame.depth_stamp_ns)
    try:
        row.measure(
            "told after", lambda: reading.stall(flows.clear, flows.set), "ms", TOLD_MS, most=5
        )
    finally:
        flows.set()


@pytest.mark.fault(19, "UVC driver")
def test_row_19_empty_and_wrong_images_of_a_uvc_camera(
    row: Row, read: Callable[..., Reading]
) -> None:
    cameras = FakeCameras(size=(56, 18), period_s=0.002)
    wrong = read(
        lambda: open_uvc(cameras, sizes={"left": (280, 180)}), lambda frame: frame.left_stamp_ns
    )
    until(lambda: wrong.reader.status().refused >= 50, 30.0)
    wrong.reader.stop(5.0)
    assert not wrong.frames

    cameras.is_empty = True
    empty = read(lambda: open_uvc(cameras), lambda frame: frame.left_stamp_ns)
    until(lambda: empty.reader.status().refused >= 50, 30.0)
    assert not empty.frames
    refused = [each.reader.status().refused for each in (wrong, empty)]
    row.measured(
        "of the wrong size, and empty: fewest refused, none taken", min(refused), at_least=50
    )


@pytest.mark.fault(19, "RealSense driver")
def test_row_19_wrong_images_of_a_realsense(
    row: Row, read: Callable[..., Reading], tmp_path: Path
) -> None:
    path = record(tmp_path / "plain.db3", 20)
    settings = RealSenseSettings(file=str(path), loop=True, sizes={"depth": (640, 480)})
    reading = read(lambda: RealSenseCamera(settings), lambda frame: frame.depth_stamp_ns)
    until(lambda: reading.reader.status().refused >= 10, 30.0)
    assert not reading.frames
    row.measured("of the wrong size: refused, none taken", 10, at_least=10)


@pytest.mark.fault(20, "RealSense driver")
def test_row_20_skewed_framesets_of_a_realsense(
    row: Row, read: Callable[..., Reading], tmp_path: Path
) -> None:
    late = dict.fromkeys(SKEWED, 1.2 * PERIOD_MS)
    path = record(tmp_path / "skewed.db3", 15, color_delays_ms=late)
    settings = RealSenseSettings(file=str(path), loop=True)
    reading = read(lambda: RealSenseCamera(settings), lambda frame: frame.depth_stamp_ns)
    until(lambda: reading.reader.status().refused >= 5 and len(reading.frames) >= 5, 30.0)
    apart = [abs(int(each.depth[0, 0]) - 500 - int(each.color[0, 0, 2])) for each in reading.frames]
    row.measured("frames of other moments among those taken", sum(a > 1 for a in apart), at_most=0)
