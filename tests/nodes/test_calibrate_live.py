# SPDX-License-Identifier: Apache-2.0
"""`twinloop calibrate` on live topics: a person before the camera, who does as the command says."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
import rclpy
from board_sessions import (
    MOUNT,
    PALM,
    TWIN,
    Room,
    draw_board_on_palm,
    draw_mount,
    draw_pair,
    draw_wrist,
    record,
)
from sensor_msgs.msg import JointState
from twin_station import free_domain
from twinloop.nodes import qos
from twinloop.perception.calibration.boards import parse_board
from twinloop.perception.calibration.collecting import Shot
from twinloop.perception.calibration.link import Link
from twinloop.perception.camera_model import StereoModel, load_camera, save_camera
from twinloop.perception.images import compress, to_message
from twinloop.perception.mount import load_mount
from twinloop.robots.description import hand_urdf

BOARD = "charuco:8x5:34:25"
HAND_BOARD = "charuco:6x4:30:22"
PATIENCE_S = 1.0  # with a view that is not taken
LIMIT_S = 150.0


class Person:
    """Shows shots to the command, each until it was taken or patience ends."""

    def __init__(self, domain: int, compressed: bool = False) -> None:
        from sensor_msgs.msg import CompressedImage, Image

        self._compressed = compressed
        self._context = rclpy.Context()
        rclpy.init(context=self._context, domain_id=domain)
        self._node = rclpy.create_node(f"person_{domain}", context=self._context)
        suffix, kind = ("/compressed", CompressedImage) if compressed else ("", Image)
        self._eyes = [
            self._node.create_publisher(kind, f"stereo/{eye}/image_raw{suffix}", qos.IMAGE)
            for eye in ("left", "right")
        ]
        self._joints = self._node.create_publisher(JointState, "joint_states", qos.SENSOR)

    def show(self, shots: list[Shot], command: subprocess.Popen, said: list[str]) -> None:
        """Show shots again and again until the command ends."""
        end_s = time.monotonic() + LIMIT_S
        index = 0
        while command.poll() is None and time.monotonic() < end_s:
            shot, before = shots[index % len(shots)], len(said)
            until_s = time.monotonic() + PATIENCE_S
            while command.poll() is None and time.monotonic() < until_s:
                self._publish(shot)
                time.sleep(0.05)
                if any("taken" in line for line in said[before:]):
                    break
            index += 1

    def _publish(self, shot: Shot) -> None:
        stamp = self._node.get_clock().now().to_msg()
        if shot.joints is not None:
            state = JointState(name=["rh_WRJ2", "rh_WRJ1"], position=shot.joints.tolist())
            state.header.stamp = stamp
            self._joints.publish(state)
        make = compress if self._compressed else to_message
        for publisher, image in zip(self._eyes, shot.images, strict=True):
            publisher.publish(make(image, "mono8", stamp, "camera_left_optical"))

    def close(self) -> None:
        self._node.destroy_node()
        rclpy.shutdown(context=self._context)


@contextmanager
def calibrating(domain: int, folder: Path, *words: str) -> Iterator[tuple[subprocess.Popen, list]]:
    """Run the command; yields it with the lines that it says."""
    code = "from twinloop.cli.main import main; main()"
    command = subprocess.Popen(
        [sys.executable, "-c", code, "calibrate", *words],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        cwd=folder,
        env={
            **os.environ,
            "ROS_DOMAIN_ID": str(domain),
            "ROS_AUTOMATIC_DISCOVERY_RANGE": "LOCALHOST",
            "OMP_NUM_THREADS": "1",
            "PYTHONUNBUFFERED": "1",
            "COLUMNS": "200",
        },
    )
    said: list[str] = []
    reader = threading.Thread(target=lambda: said.extend(command.stdout or ()))
    reader.start()
    try:
        yield command, said
    finally:
        if command.poll() is None:
            command.kill()
        command.wait()
        reader.join()


def run(domain: int, folder: Path, shots: list[Shot], *words: str, compressed=False) -> list[str]:
    person = Person(domain, compressed)
    try:
        with calibrating(domain, folder, *words) as (command, said):
            person.show(shots, command, said)
            assert command.wait(60.0) == 0, "".join(said)
    finally:
        person.close()
    return said


def test_a_pair_is_calibrated_live_until_nothing_is_missing(tmp_path: Path) -> None:
    recorded = record(parse_board(BOARD))
    words = ("stereo", "--board", BOARD, "--out", "cal", "--views", "12", "--compressed")
    said = run(free_domain(), tmp_path, recorded.shots, *words, compressed=True)
    eyes = [load_camera(tmp_path / "cal" / f"{eye}.yaml") for eye in ("left", "right")]
    assert StereoModel(*eyes).baseline_m == pytest.approx(recorded.truth.baseline_m, abs=5e-4)
    assert any("view 12 taken" in line for line in said)


def test_a_board_on_the_palm_is_calibrated_live_with_the_joints_of_each_view(
    tmp_path: Path,
) -> None:
    rng = np.random.default_rng(5)
    board, mount, link = parse_board(HAND_BOARD), draw_mount(rng), Link(hand_urdf(), MOUNT, PALM)
    truth, place = draw_pair(TWIN, rng), draw_board_on_palm(board, rng)
    room = Room(truth, board, TWIN)
    shots = []
    for _ in range(20):
        wrist = draw_wrist(rng)
        images = room.take(np.linalg.inv(mount) @ link.pose(wrist) @ place, rng)
        shots.append(Shot("", images, wrist))
    (tmp_path / "cal").mkdir()
    save_camera(tmp_path / "cal" / "left.yaml", truth.left)
    save_camera(tmp_path / "cal" / "right.yaml", truth.right)
    words = ("--board", HAND_BOARD, "--board-on", PALM, "--out", "cal", "--views", "10")
    run(free_domain(), tmp_path, shots, "hand-camera", *words)
    found = load_mount(tmp_path / "cal" / "mount.yaml").transform
    assert np.linalg.norm(found[:3, 3] - mount[:3, 3]) < 0.002


def test_without_a_camera_the_command_says_where_it_looked(tmp_path: Path) -> None:
    words = ("stereo", "--board", "chessboard:9x6:25", "--timeout", "1")
    with calibrating(free_domain(), tmp_path, *words) as (command, said):
        assert command.wait(60.0) == 1
    text = "".join(said)
    assert "no pictures on /stereo/left/image_raw and /stereo/right/image_raw" in text
    assert not (tmp_path / "calibration").exists()
