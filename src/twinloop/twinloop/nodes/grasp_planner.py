# SPDX-License-Identifier: Apache-2.0
"""Grasp planner node: a depth image in, ranked grasps out, as a service and as an action."""

from __future__ import annotations

import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from rclpy.action import ActionServer, GoalResponse
from rclpy.action.server import ServerGoalHandle
from sensor_msgs.msg import CameraInfo, Image
from visualization_msgs.msg import MarkerArray

from twinloop.grasping import weights
from twinloop.grasping.drawing import annotate
from twinloop.grasping.gripper import Grasp
from twinloop.grasping.planner import GraspPlanner, PlannerSettings
from twinloop.grasping.refusals import GraspRefused, Reason
from twinloop.nodes import qos
from twinloop.nodes.base import OK, WARN, Health, Node, run
from twinloop.nodes.grasp_messages import camera_of, depth_of, grasp_array, grasp_markers, mask_of
from twinloop.nodes.parameters import ParameterSpec
from twinloop.paths import share
from twinloop.perception.images import to_message
from twinloop_interfaces.action import PlanGrasps as PlanGraspsAction
from twinloop_interfaces.msg import GraspArray
from twinloop_interfaces.srv import PlanGrasps


class GraspPlannerNode(Node):
    """Wires a `GraspPlanner` to its topics.

    A plan takes a few tenths of a second, in which nothing else is done: whoever supervises this
    node waits that long for a heartbeat.
    """

    parameters = (
        ParameterSpec("weights", "", "Folder of the quality network; empty: the shipped one"),
        ParameterSpec("most", 20, "Grasps that are told at most", 1, 200),
        ParameterSpec("candidates", 240, "Grasps that are judged at first", 20, 5000),
        ParameterSpec("rounds", PlannerSettings().rounds, "Rounds of refinement", 0, 10),
        ParameterSpec(
            "fresh_s", 1.0, "Age at which a heard image is no longer used [s]", 0.05, 60.0
        ),
        ParameterSpec("avoid_m", 0.02, "Distance kept from places that failed [m]", 0.0, 1.0),
        ParameterSpec("seed", 0, "Of the search; equal images give equal grasps", 0, 2**31 - 1),
        ParameterSpec("threads", 1, "Threads of the matrix products", 1, 64),
    )

    def __init__(self) -> None:
        super().__init__("grasp_planner")
        self._planner: GraspPlanner | None = None
        self._depth: Image | None = None
        self._heard_s = -np.inf
        self._info: CameraInfo | None = None
        self._plans = self._refused = 0
        self._plan_ms = 0.0
        self._last = ""

    def configure(self) -> None:
        torch.set_num_threads(self.param("threads"))
        folder = self.param("weights")
        network, manifest = weights.load(Path(folder) if folder else share("models", "grasping"))
        settings = PlannerSettings(
            first=self.param("candidates"), rounds=self.param("rounds"), told=self.param("most")
        )
        self._planner = GraspPlanner(network, manifest.calibration, settings=settings)
        self._depth, self._info = None, None
        self._grasps = self.create_publisher(GraspArray, "grasps", qos.EVENT)
        self._markers = self.create_publisher(MarkerArray, "markers/grasps", qos.EVENT)
        self._picture = self.create_publisher(Image, "grasps/image_raw", qos.IMAGE)
        self._made = [
            self.create_subscription(
                Image, "depth/image_raw", self.guarded(self._on_depth), qos.IMAGE
            ),
            self.create_subscription(
                CameraInfo, "depth/camera_info", self.guarded(self._on_info), qos.IMAGE
            ),
        ]
        self._service = self.create_service(PlanGrasps, "plan_grasps", self._on_request)
        self._action = ActionServer(
            self,
            PlanGraspsAction,
            "plan_grasps",
            self._execute,
            goal_callback=self._on_goal,
        )

    def cleanup(self) -> None:
        self._action.destroy()
        self.destroy_service(self._service)
        for subscription in self._made:
            self.destroy_subscription(subscription)
        for publisher in (self._grasps, self._markers, self._picture):
            self.destroy_publisher(publisher)
        self._planner = None

    def health(self) -> Health:
        values = {
            "plans": str(self._plans),
            "refused": str(self._refused),
            "plan_ms": f"{self._plan_ms:.0f}",
            "last": self._last,
        }
        return (
            Health(OK, "planning on request", values)
            if self.is_active
            else Health(WARN, "not active", values)
        )

    def _on_depth(self, message: Image) -> None:
        self._depth, self._heard_s = message, time.monotonic()

    def _on_info(self, message: CameraInfo) -> None:
        self._info = message

    def _on_goal(self, _goal: Any) -> GoalResponse:
        return GoalResponse.ACCEPT if self.is_active else GoalResponse.REJECT

    def _on_request(
        self, request: PlanGrasps.Request, response: PlanGrasps.Response
    ) -> PlanGrasps.Response:
        self._answer(request, response)
        return response

    async def _execute(self, handle: ServerGoalHandle) -> PlanGraspsAction.Result:
        handle.publish_feedback(PlanGraspsAction.Feedback(phase="planning"))
        result = PlanGraspsAction.Result()
        self._answer(handle.request, result)
        if result.success:
            handle.succeed()
        else:
            handle.abort()
        return result

    def _answer(self, request: Any, response: Any) -> None:
        """Fill in an answer; whatever is wrong with the request is told there."""
        began_s = time.monotonic()
        try:
            if not self.is_active:
                raise GraspRefused(Reason.NO_IMAGE, "the node is not active")
            response.grasps = self._plan(request)
            response.success = True
            self._plans += 1
            best = response.grasps.grasps[0].quality
            self._last = f"{len(response.grasps.grasps)} grasps, the best of quality {best:.2f}"
        except GraspRefused as error:
            self._refused += 1
            response.reason, response.message = str(error.reason), str(error)
            self._last = f"{error.reason}: {error}"
            self.get_logger().warning(self._last)
        response.seconds = time.monotonic() - began_s
        self._plan_ms = 1e3 * response.seconds

    def _plan(self, request: Any) -> GraspArray:
        assert self._planner is not None
        image, info = self._given(request)
        depth, camera = depth_of(image), camera_of(info)
        mask = mask_of(request.mask, request.region, (depth.shape[1], depth.shape[0]))
        avoid = [np.array([place.x, place.y, place.z]) for place in request.avoid]
        if not np.isfinite(avoid).all():
            raise GraspRefused(Reason.BAD_MASK, "places to avoid are not finite")
        planner = self._planner
        if request.most:
            planner = GraspPlanner(
                planner.network,
                planner.calibration,
                planner.gripper,
                replace(planner.settings, told=min(int(request.most), 1000)),
            )
        grasps = planner.plan(depth, camera, mask, self.param("seed"), avoid, self.param("avoid_m"))
        message = grasp_array(image.header, grasps)
        self._grasps.publish(message)
        self._show(image, depth, camera, grasps)
        return message

    def _given(self, request: Any) -> tuple[Image, CameraInfo]:
        """Return the image and camera of a request, or the newest that were heard."""
        if request.depth.width or request.depth.height or len(request.depth.data):
            return request.depth, request.camera_info
        age_s = time.monotonic() - self._heard_s
        if self._depth is None or age_s > self.param("fresh_s"):
            raise GraspRefused(
                Reason.NO_IMAGE,
                "no image was given, and none was heard on depth/image_raw"
                + (f" for {age_s:.1f} s" if self._depth is not None else ""),
            )
        if self._info is None:
            raise GraspRefused(Reason.NO_INTRINSICS, "nothing was heard on depth/camera_info")
        return self._depth, self._info

    def _show(self, image: Image, depth: Any, camera: Any, grasps: list[Grasp]) -> None:
        assert self._planner is not None
        if self._markers.get_subscription_count():
            self._markers.publish(grasp_markers(image.header, grasps, self._planner.gripper))
        if self._picture.get_subscription_count():
            picture = annotate(depth, camera, grasps)
            header = image.header
            self._picture.publish(to_message(picture, "rgb8", header.stamp, header.frame_id))


def main() -> None:
    run(GraspPlannerNode)
