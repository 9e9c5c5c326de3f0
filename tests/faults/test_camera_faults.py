# SPDX-License-Identifier: Apache-2.0
"""Fault rows 18 to 20: cameras that stall, and images that are wrong or do not belong together."""

from __future__ import annotations

import signal
import time
from collections.abc import Iterator

import numpy as np
import pytest
from diagnostic_msgs.msg import DiagnosticStatus
from episodes import Episodes, Sensing
from rows import Row
from sensor_msgs.msg import Image
from twin_station import Station
from twinloop.perception.image_files import ImageRefused
from twinloop.perception.images import to_array, to_message
from twinloop.perception.stereo_pairs import StereoPairs

STOP_MS = 500.0
SOONEST_MS = 50.0
SILENCE_MS = 800.0  # the camera's patience, and a heartbeat or two


@pytest.fixture(scope="module")
def station() -> Iterator[Station]:
    made = Station(tracker=False)  # `balls` come from the ball tracker alone
    yield made
    made.close()


@pytest.fixture(scope="module")
def sensing(station: Station) -> Sensing:
    return Sensing(station)


@pytest.mark.fault(18, "twin's cameras")
def test_row_18_the_planner_stops_when_its_cameras_freeze_and_the_tracker_sees_again_after(
    row: Row, station: Station, sensing: Sensing
) -> None:
    """Twin, cameras, ball tracker and planner, as the launch file wires them."""
    nodes = {
        "cameras": station.start("twinloop_sim.nodes.twin_cameras", shadows=False),
        "tracker": station.start("twinloop.nodes.ball_tracker", nice=0),
        "planner": station.start("twinloop.nodes.planner", planner="knots", nice=0),
    }
    cameras = nodes["cameras"]
    episodes = Episodes(station, sensing)

    def freeze() -> float:
        """From the stall until the planner said it stopped, ms."""
        stopped_ms = 0.0
        # Balls may be 250 ms old: a planner that stopped sooner was not stopped by the stall.
        while stopped_ms < SOONEST_MS:
            episodes.plan()
            stalled_s = time.monotonic()
            cameras.send_signal(signal.SIGSTOP)
            try:
                station.spin_until(lambda: sensing.stats[-1][1].stop_reason)
            finally:
                cameras.send_signal(signal.SIGCONT)
            stopped_ms = 1e3 * (sensing.stats[-1][0] - stalled_s)
        return stopped_ms

    try:
        for name in ("twin_cameras", "tracker", "planner"):
            station.spin_until(lambda name=name: sensing.level(name) == DiagnosticStatus.OK, 120.0)
        row.measure("planner stopped after", freeze, "ms", at_most=STOP_MS, most=5)
        seen = len(station.record.balls)
        station.spin_until(lambda: len(station.record.balls) >= seen + 5)
        assert not any(ball.stale for ball in station.record.balls[-1][1].balls)
    finally:
        for process in nodes.values():
            process.kill()
            process.wait()


@pytest.mark.fault(18, "UVC cameras")
def test_row_18_a_stalled_camera_is_told_and_resumes_by_itself(
    row: Row, station: Station, sensing: Sensing
) -> None:
    camera = station.start("fake_stereo_camera")

    def stall() -> float:
        station.spin_until(lambda: sensing.level("stereo_camera") == DiagnosticStatus.OK, 120.0)
        camera.send_signal(signal.SIGUSR1)
        stalled_s = time.monotonic()
        station.spin_until(lambda: sensing.level("stereo_camera") == DiagnosticStatus.ERROR)
        told_ms = 1e3 * (time.monotonic() - stalled_s)
        sensing.images.clear()
        camera.send_signal(signal.SIGUSR1)
        mended_s = time.monotonic()
        station.spin_until(lambda: sensing.images)
        resumed_ms.append(1e3 * (sensing.images[0] - mended_s))
        return told_ms

    resumed_ms: list[float] = []
    try:
        station.spin_until(lambda: sensing.images, 120.0)
        row.measure("ERROR after", stall, "ms", at_most=SILENCE_MS)
    finally:
        camera.kill()
        camera.wait()
    row.measured("images after the stall's end", min(resumed_ms), "ms")


@pytest.mark.fault(19, "images")
def test_row_19_empty_and_wrong_images_are_refused(row: Row) -> None:
    pairs = StereoPairs(1 / 30, {"left": (28, 18), "right": (28, 18)})
    good = np.zeros((18, 28, 3), np.uint8)
    stamp = Image().header.stamp
    offered = refused = 0
    for name, value in (
        ("width", 0),
        ("height", 0),
        ("width", 2**31),
        ("step", 1),
        ("data", b""),
        ("encoding", "yuv422"),
    ):
        message = to_message(good, "rgb8", stamp, "")
        setattr(message, name, value)
        offered += 1
        with pytest.raises(ImageRefused):
            to_array(message)
        refused += 1
    for image in (good[:9], good[:, :0], good[..., 0][:0]):
        offered += 1
        with pytest.raises(ImageRefused):
            pairs.feed("left", 0, image)
    refused += pairs.counts.refused
    row.measured("refused, of 9", refused, at_least=9)
    assert refused == offered == 9


@pytest.mark.fault(20, "pairs")
def test_row_20_skewed_pairs_are_dropped(row: Row) -> None:
    period_ns = 33_000_000
    good = np.zeros((18, 28, 3), np.uint8)
    dropped = {}
    for names in (("left", "right"), ("depth", "color")):
        pairs = StereoPairs(period_ns * 1e-9, names=names)
        for number in range(101):
            stamp_ns = 10 * number * period_ns
            skew_ns = round(1.1 * period_ns) if number % 2 else 0
            first = pairs.feed(names[0], stamp_ns, good)
            second = pairs.feed(names[1], stamp_ns + skew_ns, good)
            assert first is None
            assert (second is None) == bool(skew_ns)
        assert pairs.counts.paired == 51
        dropped["/".join(names)] = pairs.counts.skewed // 2
    for kind, count in dropped.items():
        row.measured(f"{kind}: dropped, of 50 skewed", count, at_least=50)
