# SPDX-License-Identifier: Apache-2.0
"""The stereo camera node over DDS: what it publishes, what it refuses, and cameras that fail."""

from __future__ import annotations

import json
import signal
import subprocess
import time
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from bag_processes import Observer, Processes, wait_until
from diagnostic_msgs.msg import DiagnosticStatus
from sensor_msgs.msg import CameraInfo, CompressedImage, Image
from twin_station import start_node
from twinloop.contract import stamp_of
from twinloop.dds import take_domain
from twinloop.nodes import qos
from twinloop.perception.camera_model import pinhole, save_camera
from twinloop.perception.images import from_camera_info, to_array

DOMAIN = take_domain()
NAME = "/stereo_camera"
SIZE = (28, 18)


class Viewer:
    """Keeps what the eyes publish."""

    def __init__(self, observer: Observer) -> None:
        self.seen: dict[str, list[Any]] = defaultdict(list)
        self._observer = observer
        for eye in ("left", "right"):
            for name, kind in (
                ("image_raw", Image),
                ("image_raw/compressed", CompressedImage),
                ("camera_info", CameraInfo),
            ):
                self.watch(f"stereo/{eye}/{name}", kind)

    def watch(self, topic: str, kind: type) -> None:
        self._observer.node.create_subscription(kind, topic, self.seen[topic].append, qos.IMAGE)

    @property
    def level(self) -> bytes:
        status = self._observer.statuses.get(NAME)
        return status.level if status else DiagnosticStatus.STALE

    @property
    def text(self) -> str:
        status = self._observer.statuses.get(NAME)
        return status.message if status else ""


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("stereo")
    for eye, values in (("left", (50, 100, 150)), ("right", (60, 110, 160))):
        (folder / eye).mkdir()
        for value in values:
            cv2.imwrite(
                str(folder / eye / f"{value}.png"), np.full((*SIZE[::-1], 3), value, np.uint8)
            )
    save_camera(folder / "left.yaml", pinhole("left", SIZE, 60.0))
    save_camera(folder / "right.yaml", pinhole("right", SIZE, 60.0, baseline_m=0.12))
    save_camera(folder / "large.yaml", pinhole("right", (280, 180), 60.0, baseline_m=0.12))
    return folder


@pytest.fixture
def observer() -> Iterator[Observer]:
    with Observer(DOMAIN) as made:
        yield made


@pytest.fixture
def start(observer: Observer) -> Iterator[Any]:
    running: list[subprocess.Popen[bytes]] = []

    def make(module: str = "twinloop.nodes.stereo_camera", **parameters: Any) -> subprocess.Popen:
        # A busy machine does not keep the images' time.
        patient = {"jitter_warn_ms": 1e4, "lost_warn": 1.0}
        running.append(start_node(module, DOMAIN, **{**patient, **parameters}))
        return running[-1]

    yield make
    for process in running:
        process.send_signal(signal.SIGINT)
        assert process.wait(60.0) == 0


def check_eye(viewer: Viewer, eye: str, brighter: int, began_ns: int) -> None:
    """Assert what one eye publishes of pictures that are `brighter` than the files' names."""
    pictures = viewer.seen[f"stereo/{eye}/image_raw"]
    infos = viewer.seen[f"stereo/{eye}/camera_info"]
    smalls = viewer.seen[f"stereo/{eye}/image_raw/compressed"]

    def values(images: list[Any], encoding: str = "") -> set[int]:
        return {int(to_array(one, encoding)[0, 0, 0]) - brighter for one in list(images)}

    # A busy machine loses some of each: not all of an exposure arrives, but of some exposures.
    wait_until(lambda: len(pictures) >= 10 and values(pictures) >= {50, 100, 150})
    wait_until(lambda: {stamp_of(one) for one in pictures} & {stamp_of(one) for one in infos})
    wait_until(lambda: smalls)
    assert values(pictures) == {50, 100, 150}
    assert {one.header.frame_id for one in pictures} == {f"camera_{eye}_optical"}
    stamps = [stamp_of(one) for one in pictures]
    assert began_ns < stamps[0] < time.time_ns()
    assert stamps == sorted(set(stamps))
    camera = from_camera_info(next(one for one in infos if stamp_of(one) in stamps), eye)
    assert camera.size == SIZE
    assert camera.p[0, 3] == pytest.approx(-0.12 * camera.p[0, 0] * (eye == "right"))
    assert values(smalls, "bgr8") <= {50, 100, 150}


def test_files_are_published_as_a_camera(observer: Observer, start: Any, files: Path) -> None:
    viewer = Viewer(observer)
    began_ns = time.time_ns()
    calibration = {f"{eye}_calibration": files / f"{eye}.yaml" for eye in ("left", "right")}
    start(left=files, rate=50.0, loop=True, **calibration)
    check_eye(viewer, "left", 0, began_ns)
    check_eye(viewer, "right", 10, began_ns)
    wait_until(lambda: int(observer.values(NAME).get("frames", 0)) >= 5)
    assert observer.values(NAME)["refused"] == "0"
    wait_until(lambda: viewer.level == DiagnosticStatus.OK)


def test_images_without_a_calibration_come_with_their_size_alone(
    observer: Observer, start: Any, files: Path
) -> None:
    viewer = Viewer(observer)
    infos = viewer.seen["stereo/left/camera_info"]
    start(left=files, rate=50.0, loop=True)
    wait_until(lambda: infos)
    info = infos[0]
    assert (info.width, info.height) == SIZE
    with pytest.raises(ValueError, match="it is not calibrated"):
        from_camera_info(info)


def test_a_camera_of_the_hardware_file_is_stopped_and_recovered(
    observer: Observer, start: Any, files: Path, tmp_path: Path
) -> None:
    hardware = tmp_path / "lab.yaml"
    entry = {"driver": "stereo_camera", "left": str(files), "rate": 50.0, "loop": True}
    hardware.write_text(
        json.dumps({"eyes": entry, "joystick": {"driver": "joystick", "device": "x"}})
    )
    viewer = Viewer(observer)
    pictures = viewer.seen["stereo/left/image_raw"]
    start(hardware=hardware, device="eyes", jitter_warn_ms=0.0)
    wait_until(lambda: pictures and observer.values(NAME).get("driver") == "reading")
    wait_until(lambda: viewer.text.startswith("the images' jitter is"))
    assert viewer.level == DiagnosticStatus.WARN
    values = observer.values(NAME)
    assert values["device"] == f"{files / 'left'} and {files / 'right'}"
    assert {"cycle_ms", "jitter_ms", "longest_ms", "lost", "connects"} <= values.keys()

    assert observer.call(f"{NAME}/recover").message == "was not at fault"
    assert observer.call(f"{NAME}/stop").message == "stopped"
    wait_until(lambda: viewer.text == "stopped on request: recover to go on")
    assert viewer.level == DiagnosticStatus.WARN
    assert observer.values(NAME)["driver"] == "stopped"
    pictures.clear()
    assert observer.call(f"{NAME}/recover").success
    wait_until(lambda: pictures)


def test_row_19_a_calibration_of_another_size_is_refused(
    observer: Observer, start: Any, files: Path
) -> None:
    viewer = Viewer(observer)
    start(left=files, rate=50.0, loop=True, right_calibration=files / "large.yaml")
    wait_until(lambda: viewer.level == DiagnosticStatus.ERROR)
    assert "right image is 28x18 pixels, expected 280x180 as its calibration says" in viewer.text
    assert not any(viewer.seen.values())
    assert int(observer.values(NAME)["refused"]) > 0


@pytest.mark.parametrize(
    ("parameters", "complaint"),
    [
        ({"left": "/nowhere/film.mp4"}, "/nowhere/film.mp4: no such file or folder"),
        ({"left": "0", "left_calibration": "/nowhere/left.yaml"}, "/nowhere/left.yaml"),
        ({"left": "0", "fourcc": "MJPEG"}, "fourcc is 'MJPEG', expected four letters"),
    ],
)
def test_a_wrong_parameter_keeps_the_node_from_starting(
    parameters: dict[str, Any], complaint: str
) -> None:
    with Processes(DOMAIN) as processes:
        process = processes.node("twinloop.nodes.stereo_camera", **parameters)
        process.wait(timeout=120)
        said = processes.said(process)
    assert process.returncode == 2
    assert complaint in said


def test_row_18_a_camera_that_stalls_or_is_unplugged_is_told_and_comes_back(
    observer: Observer, start: Any
) -> None:
    viewer = Viewer(observer)
    process = start("fake_stereo_camera")
    pictures = viewer.seen["stereo/left/image_raw"]
    for fault, complaint in (
        (signal.SIGUSR1, "no images for"),
        (signal.SIGUSR2, "camera 0 cannot be opened"),
    ):
        wait_until(lambda: pictures and viewer.level == DiagnosticStatus.OK)
        process.send_signal(fault)
        wait_until(lambda text=complaint: text in viewer.text)
        assert viewer.level == DiagnosticStatus.ERROR
        assert observer.values(NAME)["state"] == "active"
        # The heart beats on: what the camera does keeps the node from nothing.
        beats = {id(observer.statuses[NAME])}
        wait_until(lambda seen=beats: seen.add(id(observer.statuses[NAME])) or len(seen) > 3)
        pictures.clear()
        process.send_signal(fault)
        wait_until(lambda: len(pictures) >= 5)
