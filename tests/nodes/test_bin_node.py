# SPDX-License-Identifier: Apache-2.0
"""The simulated bin over DDS: depth images with their camera, and new heaps."""

from __future__ import annotations

import signal

import numpy as np
import pytest
from bag_processes import Observer, wait_until
from graph import running
from sensor_msgs.msg import CameraInfo, Image
from twin_station import start_node
from twinloop.dds import take_domain
from twinloop.grasping import heights
from twinloop.nodes import qos
from twinloop.nodes.grasp_messages import camera_of, depth_of
from twinloop_sim.nodes.bin import BinNode

DOMAIN = take_domain()


def test_a_bin_shows_its_heap_and_drops_another() -> None:
    process = start_node("twinloop_sim.nodes.bin", DOMAIN, count=2, noise="ideal", rate_hz=5.0)
    with Observer(DOMAIN) as observer:
        images: list[Image] = []
        infos: list[CameraInfo] = []
        node = observer.node
        node.create_subscription(Image, "depth/image_raw", images.append, qos.IMAGE)
        node.create_subscription(CameraInfo, "depth/camera_info", infos.append, qos.IMAGE)
        wait_until(lambda: bool(images and infos))
        depth, camera = depth_of(images[-1]), camera_of(infos[-1])
        assert images[-1].header.frame_id == infos[-1].header.frame_id == "depth_optical"
        scene = heights.build(depth, camera)
        assert 0.01 < scene.heights.max() < 0.2
        assert np.array_equal(depth_of(images[-1]), depth)  # nothing moves, without noise
        answer = observer.call("drop_heap")
        assert (answer.success, answer.message) == (True, "2 objects")
        seen = len(images)
        wait_until(lambda: len(images) > seen + 1)
        assert not np.array_equal(depth_of(images[-1]), depth)
    process.send_signal(signal.SIGINT)
    assert process.wait(60.0) == 0


def test_with_an_arm_images_come_by_its_time() -> None:
    """However long an image takes to draw, a second of the arm's time has as many."""
    with running(BinNode, arm=True, count=1, rate_hz=5.0) as node:
        exposed: list[int] = []
        node._expose = lambda: exposed.append(node._now_ns())
        began_ns = node._now_ns()
        while node._now_ns() < began_ns + 10**9:
            node._tick()
    assert len(exposed) == 5
    assert np.diff(exposed) == pytest.approx(0.2e9, abs=0.02e9)
