# SPDX-License-Identifier: Apache-2.0
"""The grasp planner node over DDS: images in, grasps out, and what it makes of bad requests."""

from __future__ import annotations

import signal
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import grasp_views
import numpy as np
import pytest
import torch
from bag_processes import Observer, wait_until
from builtin_interfaces.msg import Time
from rclpy.action import ActionClient
from sensor_msgs.msg import CameraInfo, Image, RegionOfInterest
from twin_station import start_node
from twinloop.dds import take_domain
from twinloop.grasping import weights
from twinloop.grasping.network import NetworkConfig, QualityNetwork
from twinloop.nodes import qos
from twinloop.perception.camera_info import to_camera_info, uncalibrated_info
from twinloop.perception.images import to_array, to_message
from visualization_msgs.msg import MarkerArray

from twinloop_interfaces.action import PlanGrasps as PlanGraspsAction
from twinloop_interfaces.msg import GraspArray
from twinloop_interfaces.srv import PlanGrasps

DOMAIN = take_domain()
STAMP = Time(sec=12, nanosec=34)
FRAME = "depth_optical"
BOX = (0.05, -0.03, 0.04, 0.09, 0.05)
DEPTH = grasp_views.table([BOX])
INFO = to_camera_info(grasp_views.camera(), STAMP, FRAME)


def image(pixels: np.ndarray = DEPTH, encoding: str = "32FC1") -> Image:
    return to_message(pixels, encoding, STAMP, FRAME)


@dataclass
class Client:
    """Asks the node, and keeps what it publishes."""

    observer: Observer
    grasps: list[GraspArray] = field(default_factory=list)
    markers: list[MarkerArray] = field(default_factory=list)
    pictures: list[Image] = field(default_factory=list)

    def __post_init__(self) -> None:
        node = self.observer.node
        for kind, topic, kept, quality in (
            (GraspArray, "grasps", self.grasps, qos.EVENT),
            (MarkerArray, "markers/grasps", self.markers, qos.EVENT),
            (Image, "grasps/image_raw", self.pictures, qos.IMAGE),
        ):
            node.create_subscription(kind, topic, kept.append, quality)
        self.depth = node.create_publisher(Image, "depth/image_raw", qos.IMAGE)
        self.info = node.create_publisher(CameraInfo, "depth/camera_info", qos.IMAGE)
        self._service = node.create_client(PlanGrasps, "plan_grasps")
        self._action = ActionClient(node, PlanGraspsAction, "plan_grasps")

    def ask(self, **request: Any) -> PlanGrasps.Response:
        assert self._service.wait_for_service(60.0)
        future = self._service.call_async(PlanGrasps.Request(**request))
        wait_until(future.done)
        return future.result()

    def act(self, **goal: Any) -> Any:
        assert self._action.wait_for_server(60.0)
        sent = self._action.send_goal_async(PlanGraspsAction.Goal(**goal))
        wait_until(sent.done)
        assert sent.result().accepted
        ended = sent.result().get_result_async()
        wait_until(ended.done)
        return ended.result().result


@pytest.fixture(scope="module")
def client(tmp_path_factory) -> Iterator[Client]:
    torch.manual_seed(0)
    folder = tmp_path_factory.mktemp("grasping")
    weights.save(folder, QualityNetwork(NetworkConfig(channels=(4, 4, 4), hidden=8)), {})
    process = start_node(
        "twinloop.nodes.grasp_planner", DOMAIN, weights=folder, candidates=60, rounds=1, threads=1
    )
    with Observer(DOMAIN) as observer:
        yield Client(observer)
    process.send_signal(signal.SIGINT)
    assert process.wait(60.0) == 0


def test_grasps_are_planned_on_a_given_image_by_service_and_action(client: Client) -> None:
    for found in (
        client.ask(depth=image(), camera_info=INFO),
        client.act(depth=image(), camera_info=INFO),
        client.ask(depth=image((1000 * DEPTH).astype(np.uint16), "16UC1"), camera_info=INFO),
    ):
        assert found.success, found.message
        assert (found.grasps.header.frame_id, found.grasps.header.stamp) == (FRAME, STAMP)
        assert found.seconds > 0.0
        qualities = [one.quality for one in found.grasps.grasps]
        assert qualities == sorted(qualities, reverse=True)
        for one in found.grasps.grasps:
            assert 0.01 <= one.width <= 0.08
            assert 0.0 <= one.quality <= 1.0
            assert abs(one.pose.position.x - BOX[0]) < 0.04
            x, y, z, w = (getattr(one.pose.orientation, axis) for axis in "xyzw")
            # The approach, the gripper's z axis, goes away from the camera.
            assert 1 - 2 * (x * x + y * y) == pytest.approx(1.0, abs=0.02)
            assert x * x + y * y + z * z + w * w == pytest.approx(1.0)


def test_grasps_are_planned_on_the_newest_image_that_was_heard(client: Client) -> None:
    refused = client.ask()
    assert (refused.success, refused.reason) == (False, "no_image")
    deadline = time.monotonic() + 60.0
    found = refused
    while not found.success and time.monotonic() < deadline:
        client.depth.publish(image())
        client.info.publish(INFO)
        time.sleep(0.1)
        found = client.ask(most=3)
        assert found.reason in ("", "no_image", "no_intrinsics")
    assert found.success
    assert 1 <= len(found.grasps.grasps) <= 3


def test_grasps_are_shown(client: Client) -> None:
    def shown() -> bool:
        client.ask(depth=image(), camera_info=INFO)
        return bool(client.grasps and client.markers and client.pictures)

    wait_until(shown)
    marker = client.markers[-1].markers[0]
    assert marker.header.frame_id == FRAME
    assert len(marker.points) == len(marker.colors) == 8 * len(client.grasps[-1].grasps)
    picture = to_array(client.pictures[-1], "rgb8")
    assert picture.shape == (480, 640, 3)
    assert (np.ptp(picture.astype(int), axis=2) > 60).sum() > 50  # lines have colours


def test_a_region_keeps_grasps_inside(client: Client) -> None:
    depth = image(grasp_views.table([BOX, (-0.08, 0.0, 0.03, 0.03, 0.04)]))
    region = RegionOfInterest(x_offset=0, y_offset=0, width=310, height=480)
    found = client.ask(depth=depth, camera_info=INFO, region=region)
    assert found.success, found.message
    assert all(one.pose.position.x < 0.0 for one in found.grasps.grasps)


@pytest.mark.parametrize(
    ("request_", "reason"),
    [
        ({"depth": image()}, "no_intrinsics"),
        ({"depth": image(), "camera_info": uncalibrated_info((640, 480), STAMP, FRAME)},
         "no_intrinsics"),
        ({"depth": image(DEPTH[::2]), "camera_info": INFO}, "wrong_intrinsics"),
        ({"depth": image((DEPTH * 100).astype(np.uint8), "mono8"), "camera_info": INFO},
         "wrong_encoding"),
        ({"depth": Image(width=640, height=480, step=2560, encoding="32FC1"), "camera_info": INFO},
         "bad_image"),
        ({"depth": image(np.zeros_like(DEPTH)), "camera_info": INFO}, "all_holes"),
        ({"depth": image(grasp_views.table([])), "camera_info": INFO}, "empty_scene"),
        ({"depth": image(), "camera_info": INFO,
          "mask": image(np.zeros((48, 64), np.uint8), "mono8")}, "bad_mask"),
        ({"depth": image(), "camera_info": INFO,
          "region": RegionOfInterest(x_offset=600, width=100, height=10)}, "bad_mask"),
    ],
)  # fmt: skip
def test_a_bad_request_is_refused_by_name(client: Client, request_: Any, reason: str) -> None:
    found = client.ask(**request_)
    assert (found.success, found.reason) == (False, reason)
    assert found.message
    assert not found.grasps.grasps
    assert client.ask(depth=image(), camera_info=INFO).success


def test_missing_weights_end_the_node(tmp_path) -> None:
    process = start_node("twinloop.nodes.grasp_planner", DOMAIN, weights=tmp_path)
    assert process.wait(60.0) == 2
