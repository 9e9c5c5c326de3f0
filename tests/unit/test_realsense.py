# SPDX-License-Identifier: Apache-2.0
"""The RealSense driver on recordings of a software device."""

from __future__ import annotations

import importlib
import itertools
import time
from pathlib import Path
from typing import Any

import pytest
from realsense_recording import BASELINE_M, FOCAL, HEIGHT, PERIOD_MS, WIDTH, record
from twinloop.drivers import realsense
from twinloop.drivers.faults import DeviceMissing, EndOfStream
from twinloop.drivers.realsense import DepthFrame, RealSenseCamera, RealSenseSettings
from twinloop.perception.image_files import ImageRefused


@pytest.fixture(scope="module")
def recording(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return record(tmp_path_factory.mktemp("realsense") / "plain.db3")


def read_all(camera: RealSenseCamera, count: int = 30) -> tuple[list[DepthFrame], list[str]]:
    """Frames and refusals until the end, or until so many.

    A recording is played at its pace: a busy machine misses some.
    """
    frames, refusals = [], []
    for _ in range(count):
        try:
            frames.append(camera.read())
        except ImageRefused as refusal:
            refusals.append(str(refusal))
        except EndOfStream:
            break
    camera.close()
    return frames, refusals


def test_colour_depth_and_aligned_depth_are_read(recording: Path) -> None:
    clock = itertools.count(10**9)
    camera = RealSenseCamera(
        RealSenseSettings(file=str(recording)), lambda: next(clock), lambda: True
    )
    assert camera.rate_hz == 30.0
    frames, _ = read_all(camera)
    assert len(frames) >= 2
    numbers = [int(frame.color[0, 0, 2]) for frame in frames]
    assert numbers == sorted(set(numbers))
    for number, frame in zip(numbers, frames, strict=True):
        assert frame.color.shape == (HEIGHT, WIDTH, 3)
        assert frame.color[5, 5].tolist() == [200, 100, number]
        assert frame.depth.shape == (HEIGHT, WIDTH)
        assert (frame.depth == 500 + number).all()
        assert frame.aligned is not None
        assert frame.aligned.shape == (HEIGHT, WIDTH)
        # The colour camera is to the left, so that the scene's left edge is out of depth's sight.
        seen = frame.aligned == 500 + number
        shift = FOCAL * BASELINE_M / (0.5 + 0.001 * number)
        assert abs((~seen).sum() / HEIGHT - shift) <= 2
    assert frames[0].color_stamp_ns >= 10**9


def test_depth_is_not_aligned_for_nobody(recording: Path) -> None:
    frames, _ = read_all(RealSenseCamera(RealSenseSettings(file=str(recording))))
    assert all(frame.aligned is None for frame in frames)


def test_the_camera_knows_its_lenses(recording: Path) -> None:
    camera = RealSenseCamera(RealSenseSettings(file=str(recording)))
    camera.close()
    model = camera.cameras["depth"]
    assert model.size == (WIDTH, HEIGHT)
    assert model.k.tolist() == [[60.0, 0.0, 31.5], [0.0, 60.0, 23.5], [0.0, 0.0, 1.0]]
    assert not model.has_distortion


def test_a_lens_of_an_unknown_model_is_left_to_a_calibration(tmp_path: Path) -> None:
    path = record(tmp_path / "lens.db3", 3, coefficients=(0.1, 0.0, 0.0, 0.0, 0.0))
    camera = RealSenseCamera(RealSenseSettings(file=str(path)))
    camera.close()
    assert camera.cameras == {}


def test_other_units_of_depth_are_converted_to_mm(tmp_path: Path) -> None:
    path = record(tmp_path / "fine.db3", 6, unit_m=0.00025)
    frames, _ = read_all(RealSenseCamera(RealSenseSettings(file=str(path))))
    for frame in frames:
        number = int(frame.color[0, 0, 2])
        assert (frame.depth == round((500 + number) / 4)).all()


def test_row_20_depth_and_colour_over_a_period_apart_are_dropped(tmp_path: Path) -> None:
    late = dict.fromkeys((4, 5, 6), 1.2 * PERIOD_MS)
    path = record(tmp_path / "skewed.db3", color_delays_ms=late)
    settings = RealSenseSettings(file=str(path), loop=True)
    frames, refusals = read_all(RealSenseCamera(settings), 60)
    assert frames
    for frame in frames:
        assert abs(int(frame.depth[0, 0]) - 500 - int(frame.color[0, 0, 2])) <= 1
    assert any("depth and colour are" in text and "ms apart, expected" in text for text in refusals)


def test_row_19_a_calibration_of_another_size_is_refused(recording: Path) -> None:
    settings = RealSenseSettings(file=str(recording), sizes={"depth": (640, 480)})
    frames, refusals = read_all(RealSenseCamera(settings))
    assert not frames
    assert any("depth image is 64x48 pixels, expected 640x480" in text for text in refusals)


def test_a_recording_can_be_begun_anew(tmp_path: Path) -> None:
    path = record(tmp_path / "short.db3", 5)
    frames, _ = read_all(RealSenseCamera(RealSenseSettings(file=str(path), loop=True)))
    numbers = [int(frame.color[0, 0, 2]) for frame in frames]
    assert any(after < before for before, after in itertools.pairwise(numbers))


@pytest.mark.parametrize("text", [None, "not a recording"])
def test_a_file_that_is_no_recording_is_refused(tmp_path: Path, text: str | None) -> None:
    path = tmp_path / "none.db3"
    if text is not None:
        path.write_text(text)
    complaint = "no such file" if text is None else "cannot be started"
    with pytest.raises(DeviceMissing, match=f"none.db3.*{complaint}"):
        RealSenseCamera(RealSenseSettings(file=str(path)))


def test_colour_in_an_unknown_format_is_refused(tmp_path: Path) -> None:
    path = record(tmp_path / "rgba.db3", 3, color_format="raw8")
    with pytest.raises(DeviceMissing, match="colour is format.raw8, expected rgb8 or bgr8"):
        RealSenseCamera(RealSenseSettings(file=str(path)))


def test_without_the_library_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(name: str) -> Any:
        raise ImportError(f"No module named {name!r}")

    monkeypatch.setattr(importlib, "import_module", missing)
    with pytest.raises(DeviceMissing, match="pip install pyrealsense2 libusb-package"):
        realsense.load_library()


def test_a_frame_is_stamped_when_it_was_exposed() -> None:
    """On the host's clock where the camera tells by that; else when it arrives."""
    rs = realsense.load_library()

    class Frame:
        def __init__(self, domain: Any, stamp_ms: float) -> None:
            self.get_frame_timestamp_domain = lambda: domain
            self.get_timestamp = lambda: stamp_ms

    camera = RealSenseCamera.__new__(RealSenseCamera)
    camera._rs, camera._now_ns = rs, lambda: 10**12
    host_ms = time.time_ns() * 1e-6
    ago = camera._stamp_ns(Frame(rs.timestamp_domain.global_time, host_ms - 20.0))
    assert 20e6 <= 10**12 - ago < 1e9
    hardware = Frame(rs.timestamp_domain.hardware_clock, host_ms - 20.0)
    recorded = Frame(rs.timestamp_domain.system_time, host_ms - 1e9)
    assert camera._stamp_ns(hardware) == camera._stamp_ns(recorded) == 10**12


def test_a_recording_rests_before_it_is_stopped_and_before_it_is_freed() -> None:
    calls: list[str] = []

    class Playback:
        def pause(self) -> None:
            calls.append("pause")

    class Pipeline:
        def stop(self) -> None:
            calls.append("stop")

    camera = RealSenseCamera.__new__(RealSenseCamera)
    camera._pipeline, camera._playback = Pipeline(), Playback()
    camera.close()
    assert calls == ["pause", "stop", "pause"]
    calls.clear()
    camera._playback = None  # a camera that is there
    camera.close()
    assert calls == ["stop"]
