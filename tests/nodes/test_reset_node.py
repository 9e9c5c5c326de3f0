# SPDX-License-Identifier: Apache-2.0
"""The reset node over real DDS, on a cell whose balls are in the palm."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest
from builtin_interfaces.msg import Time
from reset_cell import ResetCell
from sensor_msgs.msg import CameraInfo, Image
from twinloop.nodes import qos
from twinloop.perception.camera_info import to_camera_info
from twinloop.perception.images import to_message
from twinloop.robots.hand24 import HAND24
from twinloop_sim.cameras import open_eyes
from twinloop_sim.cell import Cell


class TrayCamera:
    """Publishes the empty tray ten times a second while `is_on`."""

    def __init__(self, cell: ResetCell) -> None:
        eyes, scene = open_eyes(arm=True), Cell(1, arm=True)
        state = scene.state
        eyes.pose(state.joints[0], state.ball_position[0], state.ball_quaternion[0])
        self._picture, self._model = eyes.image("tray"), eyes.cameras["tray"]
        eyes.close()
        self._cell = cell
        self.is_on = True
        node = cell.station.node
        self._image = node.create_publisher(Image, "tray/image_raw", qos.IMAGE)
        self._info = node.create_publisher(CameraInfo, "tray/camera_info", qos.IMAGE)
        node.create_timer(0.1, self._publish)

    def _publish(self) -> None:
        if not self.is_on or not self._cell.station.record.joints:
            return
        sec, nanosec = divmod(self._cell.station.now_ns, 10**9)
        stamp, frame = Time(sec=sec, nanosec=nanosec), "tray_camera_optical"
        self._image.publish(to_message(self._picture, "rgb8", stamp, frame))
        self._info.publish(to_camera_info(self._model, stamp, frame))


@pytest.fixture(scope="module")
def cell() -> Iterator[ResetCell]:
    made = ResetCell(emergency_stop_timeout_s=10.0)
    made.start_reset()
    yield made
    made.close()


@pytest.fixture(scope="module")
def camera(cell: ResetCell) -> TrayCamera:
    return TrayCamera(cell)


def test_a_reset_tells_its_phases_and_leaves_the_hand_to_others(cell, camera) -> None:
    result = cell.result(cell.ask())
    assert result.success, result.message
    assert cell.phases == ["check", "clear", "open", "look", "cup", "confirm"]
    assert 1.0 < result.seconds < 20.0
    assert cell.balls_in_palm == 2
    # The lease has ended: the next source is heard at once.
    cell.station.send(HAND24.poses["cup"])
    before = len(cell.station.record.applied)
    cell.until(lambda: len(cell.station.record.applied) > before)
    assert cell.station.record.applied[-1][1] == "tester"


def test_a_withdrawn_reset_ends_at_once(cell, camera) -> None:
    handle = cell.ask()
    cell.until(lambda: "open" in cell.phases)
    cell.until(handle.cancel_goal_async().done)
    result = cell.result(handle)
    assert not result.success
    assert result.message.startswith("cancelled: ")
    cell.until(lambda: np.abs(cell.arm.arm.velocity).max() < 0.02)


def test_an_emergency_stop_ends_it_by_name(cell, camera) -> None:
    cell.station.press(False)
    handle = cell.ask()
    cell.until(lambda: "open" in cell.phases)
    cell.station.press(True)
    result = cell.result(handle)
    assert result.message.startswith("stopped: ")
    cell.station.press(False)
    cell.until(lambda: cell.station.rearm().success)
    assert cell.result(cell.ask()).success


def test_a_tray_camera_that_is_silent_is_told(cell, camera) -> None:
    camera.is_on = False
    result = cell.result(cell.ask())
    camera.is_on = True
    assert result.message.startswith("tray_unseen: ")
