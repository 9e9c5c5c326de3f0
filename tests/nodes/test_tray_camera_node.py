# SPDX-License-Identifier: Apache-2.0
"""The camera of the tray over real DDS: drawn as the twin tells it, while someone looks."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from arm_station import REST, ArmStation, move
from sensor_msgs.msg import CameraInfo, Image
from twin_station import DEEP, PERIOD_NS, stamp_ns
from twinloop.perception.camera_info import from_camera_info
from twinloop.perception.images import to_array
from twinloop.perception.tray import TrayFinder, TrayOutcome
from twinloop_sim.cameras import open_eyes
from twinloop_sim.nodes.messages import true_poses

from twinloop_interfaces.msg import SceneState

PLAIN = {"noise": 0.0, "shot_noise": 0.0, "blur_px": 0.0, "exposure": 1.0}


@pytest.fixture(scope="module")
def cell() -> Iterator[ArmStation]:
    cell = ArmStation(tracker=False, seed=3)
    cameras = cell.station.start(
        "twinloop_sim.nodes.twin_cameras", use_sim_time=True, arm=True, **PLAIN
    )
    yield cell
    cameras.send_signal(signal.SIGINT)
    assert cameras.wait(60.0) == 0
    cell.close()


def listen(cell: ArmStation, topic: str, kind: type) -> list[Any]:
    heard: list[Any] = []
    cell.station.node.create_subscription(kind, topic, heard.append, DEEP)
    return heard


def test_the_tray_is_seen_as_it_is(cell: ArmStation) -> None:
    images = listen(cell, "tray/image_raw", Image)
    infos = listen(cell, "tray/camera_info", CameraInfo)
    scenes = listen(cell, "scene", SceneState)
    goal = cell.ended(cell.arm.execute(move(0.1, start=REST)))
    assert goal.succeeded, goal.why
    images.clear()
    cell.until(lambda: len(images) >= 5 and infos, 60.0)
    image, info = images[-1], infos[-1]
    assert image.header.frame_id == "tray_camera_optical"
    # Once a control step, and no more.
    steps = {stamp_ns(one) // PERIOD_NS for one in images}
    assert len(steps) == len(images)
    camera = from_camera_info(info, "tray")
    sight = TrayFinder(camera).find(to_array(image))
    assert sight.outcome is TrayOutcome.EMPTY
    assert sight.visible > 0.7
    # The same as drawn here, with the arm where the twin says.
    cell.until(lambda: any(stamp_ns(one) == stamp_ns(image) for one in scenes))
    scene = next(one for one in scenes if stamp_ns(one) == stamp_ns(image))
    q, place, turn = true_poses(scene)
    np.testing.assert_allclose(q[24:31], REST + 0.1, atol=0.01)
    eyes = open_eyes(arm=True)
    eyes.pose(q, place, turn)
    # Shadows are drawn by maps that no two contexts make quite alike.
    assert np.mean(np.abs(eyes.image("tray").astype(int) - to_array(image)) > 8) < 0.02
    eyes.close()
