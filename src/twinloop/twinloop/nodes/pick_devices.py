# SPDX-License-Identifier: Apache-2.0
"""The devices of the pick loop as topics and actions: see `twinloop.grasping.pick_devices`.

Callbacks run in the thread of the node's executor, the loop in one of its own, which waits here.
"""

from __future__ import annotations

import threading
import time

import numpy as np
from numpy.typing import NDArray
from rclpy.lifecycle import LifecycleNode
from sensor_msgs.msg import CameraInfo, Image
from tf2_msgs.msg import TFMessage

from twinloop.contract import stamp_of
from twinloop.grasping.pick_devices import View
from twinloop.grasping.refusals import GraspRefused
from twinloop.motion.load import LoadSensor
from twinloop.nodes import qos
from twinloop.nodes.arm_client import ArmClient
from twinloop.nodes.grasp_messages import camera_of, depth_of
from twinloop.resets.faults import Fault, StepFailed
from twinloop.robots.rotations import matrix_from_quaternion

Array = NDArray[np.float64]
Placement = tuple[Array, Array]  # rotation [3, 3] and position [3], m
_LOOK_S = 0.005


class ArmClock:
    """Robot time: that of the arm's joints.

    Args:
        client: hears them.
        patience_s: steady time of silence after which a wait fails.
        withdrawn: once set, nothing is waited for.
    """

    def __init__(self, client: ArmClient, patience_s: float, withdrawn: threading.Event) -> None:
        self._client = client
        self._patience_s = patience_s
        self._withdrawn = withdrawn

    def now_s(self) -> float:
        return self._client.stamp_s

    def wait(self, seconds: float) -> None:
        """Let robot time pass.

        Raises:
            StepFailed: the joints are silent.
        """
        began_s = self.now_s()
        # Time that was set back is no reason to wait for ever.
        while began_s <= self.now_s() < began_s + seconds and not self._withdrawn.is_set():
            if self._client.silent_s > self._patience_s:
                raise StepFailed(
                    Fault.STOPPED, f"arm/joint_states are silent for {self._patience_s:g} s"
                )
            time.sleep(_LOOK_S)


class ArmScales:
    """What the joints' torques tell of the outside; nothing where none are told."""

    def __init__(self, client: ArmClient) -> None:
        self._client = client
        self._sensor = LoadSensor("bins")

    def force(self) -> Array:
        client = self._client
        if not np.isfinite(client.torque).all():
            raise StepFailed(Fault.ARM_FAILED, "arm/joint_states tell no efforts")
        return self._sensor.force(client.position, client.velocity, np.zeros(7), client.torque)


class DepthEyes:
    """The newest depth image, placed by the fixed frames of /tf_static.

    Args:
        node: whose executor is spun.
        world: frame of the arm's world.
    """

    def __init__(self, node: LifecycleNode, world: str) -> None:
        self._node = node
        self._world = world
        self._image: Image | None = None
        self._info: CameraInfo | None = None
        self._parents: dict[str, tuple[str, Placement]] = {}
        self.complaint = ""
        self._made = [
            node.create_subscription(Image, "depth/image_raw", self._on_image, qos.IMAGE),
            node.create_subscription(CameraInfo, "depth/camera_info", self._on_info, qos.IMAGE),
            node.create_subscription(TFMessage, "/tf_static", self._on_frames, qos.latched(100)),
        ]

    def close(self) -> None:
        for subscription in self._made:
            self._node.destroy_subscription(subscription)

    def look(self, after_s: float) -> View | None:
        image, info = self._image, self._info
        if image is None or info is None:
            self.complaint = "no depth/image_raw with its depth/camera_info"
            return None
        stamp_s = stamp_of(image) * 1e-9
        if stamp_s <= after_s:
            return None
        try:
            depth, camera = depth_of(image), camera_of(info)
        except GraspRefused as error:
            self.complaint = f"{error.reason}: {error}"
            return None
        placement = self._placed(image.header.frame_id)
        if placement is None:
            self.complaint = (
                f"/tf_static does not lead from {self._world!r} to {image.header.frame_id!r}"
            )
            return None
        self.complaint = ""
        return View(stamp_s, depth, camera, *placement)

    def _placed(self, frame: str) -> Placement | None:
        rotation, position = np.eye(3), np.zeros(3)
        for _ in range(len(self._parents) + 1):
            if frame == self._world:
                return rotation, position
            if frame not in self._parents:
                return None
            frame, (turn, shift) = self._parents[frame]
            rotation, position = turn @ rotation, turn @ position + shift
        return None  # they lead in a circle

    def _on_image(self, message: Image) -> None:
        self._image = message

    def _on_info(self, message: CameraInfo) -> None:
        self._info = message

    def _on_frames(self, message: TFMessage) -> None:
        for one in message.transforms:
            q, t = one.transform.rotation, one.transform.translation
            quaternion, shift = np.array([q.w, q.x, q.y, q.z]), np.array([t.x, t.y, t.z])
            if not (np.isfinite(shift).all() and abs(np.linalg.norm(quaternion) - 1.0) < 1e-3):
                self._node.get_logger().warning(f"/tf_static: {one.child_frame_id} has no place")
                continue
            turn = matrix_from_quaternion(quaternion)
            self._parents[one.child_frame_id] = (one.header.frame_id, (turn, shift))
