# SPDX-License-Identifier: Apache-2.0
"""The heap segmenter node over DDS: depth images in, labels out, and bad images named."""

from __future__ import annotations

import signal
from collections.abc import Callable

import grasp_views
import numpy as np
import torch
from bag_processes import Observer, wait_until
from builtin_interfaces.msg import Time
from diagnostic_msgs.msg import DiagnosticArray
from sensor_msgs.msg import CameraInfo, Image
from twin_station import start_node
from twinloop.dds import take_domain
from twinloop.grasping.segmentation import weights
from twinloop.grasping.segmentation.network import SegmentNetwork, SegmentNetworkConfig
from twinloop.nodes import qos
from twinloop.perception.camera_info import to_camera_info
from twinloop.perception.images import to_array, to_message

DOMAIN = take_domain()
STAMP = Time(sec=12, nanosec=34)
FRAME = "depth_optical"
DEPTH = grasp_views.table([(-0.08, 0.0, 0.05, 0.05, 0.04), (0.06, 0.02, 0.04, 0.08, 0.06)])
INFO = to_camera_info(grasp_views.camera(), STAMP, FRAME)


def test_labels_and_a_picture_follow_a_depth_image_and_bad_ones_are_named(tmp_path) -> None:
    torch.manual_seed(0)
    network = SegmentNetwork(SegmentNetworkConfig(channels=(4, 4, 4, 4)))
    with torch.no_grad():
        network.head.weight.zero_()
        network.head.bias[:] = 5.0  # everything is foreground, and as hot as can be
    weights.save(tmp_path, network, {})
    labels: list[Image] = []
    pictures: list[Image] = []
    told: list[DiagnosticArray] = []
    process = start_node("twinloop.nodes.heap_segmenter", DOMAIN, weights=tmp_path, threads=1)
    with Observer(DOMAIN) as observer:
        node = observer.node
        for kind, topic, kept, quality in (
            (Image, "segments/labels", labels, qos.IMAGE),
            (Image, "segments/image_raw", pictures, qos.IMAGE),
            (DiagnosticArray, "/diagnostics", told, qos.DIAGNOSTICS),
        ):
            node.create_subscription(kind, topic, kept.append, quality)
        depth = node.create_publisher(Image, "depth/image_raw", qos.IMAGE)
        info = node.create_publisher(CameraInfo, "depth/camera_info", qos.IMAGE)

        def until(
            done: Callable[[], bool],
            pixels: np.ndarray,
            encoding: str = "32FC1",
            timeout_s: float = 60.0,
        ) -> None:
            def sent() -> bool:
                info.publish(INFO)
                depth.publish(to_message(pixels, encoding, STAMP, FRAME))
                return done()

            wait_until(sent, timeout_s)

        until(lambda: bool(labels and pictures), DEPTH, timeout_s=180.0)  # it starts first
        found = labels[-1]
        assert (found.encoding, found.header.frame_id) == ("mono16", FRAME)
        assert found.header.stamp == STAMP
        assert (to_array(found) > 0).all()
        picture = to_array(pictures[-1], "rgb8")
        assert picture.shape == (480, 640, 3)
        assert np.ptp(picture.astype(int), axis=2).max() > 60

        def is_told(words: str) -> bool:
            return any(words in one.message for array in told[-20:] for one in array.status)

        until(lambda: is_told("all_holes: "), np.zeros_like(DEPTH))
        until(lambda: is_told("wrong_encoding: "), np.zeros((480, 640), np.uint8), "mono8")
        until(lambda: is_told("wrong_intrinsics: "), DEPTH[::2])
        labels.clear()
        until(lambda: bool(labels), DEPTH)
    process.send_signal(signal.SIGINT)
    assert process.wait(60.0) == 0
