# SPDX-License-Identifier: Apache-2.0
"""The RealSense node over DDS, on a recording."""

from __future__ import annotations

import signal
import sys
from collections import defaultdict
from pathlib import Path
from typing import Any

import numpy as np
from bag_processes import Observer, wait_until
from diagnostic_msgs.msg import DiagnosticStatus
from sensor_msgs.msg import CameraInfo, CompressedImage, Image
from twin_station import start_node
from twinloop.contract import stamp_of
from twinloop.dds import take_domain
from twinloop.nodes import qos
from twinloop.perception.camera_model import pinhole, save_camera
from twinloop.perception.images import from_camera_info, to_array

sys.path.append(str(Path(__file__).parents[1] / "unit"))
from realsense_recording import HEIGHT, WIDTH, record

DOMAIN = take_domain()
TOPICS = {
    "color/image_raw": Image,
    "color/camera_info": CameraInfo,
    "depth/image_raw": Image,
    "depth/image_raw/compressed": CompressedImage,
    "depth/camera_info": CameraInfo,
    "aligned_depth/image_raw": Image,
    "aligned_depth/camera_info": CameraInfo,
}


def test_a_recording_is_published_as_a_camera(tmp_path: Path) -> None:
    path = record(tmp_path / "plain.db3", 60)
    calibration = tmp_path / "color.yaml"
    save_camera(calibration, pinhole("color", (WIDTH, HEIGHT), 50.0))
    # A busy machine does not keep the images' time; what is late is tested with the driver.
    patient = {"jitter_warn_ms": 1e4, "lost_warn": 1.0, "silent_s": 10.0}
    seen: dict[str, list[Any]] = defaultdict(list)
    with Observer(DOMAIN) as observer:
        for topic, kind in TOPICS.items():
            observer.node.create_subscription(kind, topic, seen[topic].append, qos.IMAGE)
        process = start_node(
            "twinloop.nodes.realsense",
            DOMAIN,
            file=path,
            loop=True,
            color_calibration=calibration,
            **patient,
        )
        try:
            wait_until(lambda: all(len(seen[topic]) >= 5 for topic in TOPICS))
            wait_until(lambda: "/realsense" in observer.statuses)
            wait_until(lambda: observer.statuses["/realsense"].level == DiagnosticStatus.OK)
            wait_until(lambda: float(observer.values("/realsense")["rate_hz"]) > 5.0)
        finally:
            process.send_signal(signal.SIGINT)
            assert process.wait(60.0) == 0
    depth = {stamp_of(message): to_array(message) for message in seen["depth/image_raw"]}
    for message in seen["aligned_depth/image_raw"]:
        assert message.encoding == "16UC1"
        assert message.header.frame_id == "camera_color_optical"
        if stamp_of(message) in depth:
            values = set(np.unique(to_array(message)).tolist())
            assert values == {0, int(depth[stamp_of(message)][0, 0])}
    assert to_array(seen["color/image_raw"][0], "rgb8")[0, 0, :2].tolist() == [200, 100]
    assert to_array(seen["depth/image_raw/compressed"][0]).dtype == np.uint16
    calibrated = from_camera_info(seen["color/camera_info"][0])
    assert calibrated.k[0, 0] != 60.0
    assert from_camera_info(seen["depth/camera_info"][0]).k[0, 0] == 60.0
    assert np.array_equal(from_camera_info(seen["aligned_depth/camera_info"][0]).k, calibrated.k)
