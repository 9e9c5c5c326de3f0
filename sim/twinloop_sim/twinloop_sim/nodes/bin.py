# SPDX-License-Identifier: Apache-2.0
"""Bin node: depth images of a simulated heap, a new heap on request, and an arm, if wanted."""

from __future__ import annotations

from typing import Any

import numpy as np
from geometry_msgs.msg import Quaternion, TransformStamped, Vector3
from numpy.typing import NDArray
from sensor_msgs.msg import CameraInfo, Image
from std_srvs.srv import Trigger
from tf2_msgs.msg import TFMessage
from twinloop.nodes import qos
from twinloop.nodes.base import OK, WARN, Health, Node, run
from twinloop.nodes.joint_messages import time_message
from twinloop.nodes.parameters import ParameterSpec
from twinloop.perception.camera_info import to_camera_info
from twinloop.perception.images import to_message
from twinloop.robots.rotations import quaternion_from_matrix

from twinloop_sim.grasping import depth_camera, objects, views
from twinloop_sim.grasping.bin_cell import TICK_S, BinCell
from twinloop_sim.grasping.depth_noise import NOISES
from twinloop_sim.grasping.scene import MOST_OBJECTS, Scene, heap_count
from twinloop_sim.nodes.bin_arm import BinArm

FRAME, WORLD = "depth_optical", "world"
TICKS = 2  # of the cell with an arm, in one go


class BinNode(Node):
    """Plays a depth camera over a bin.

    Without an arm nothing in the bin moves between two heaps. With one, time goes on by ticks of
    the cell, as near to real time as the machine is able to, and stamps and images are by that
    time: a slow machine has no more images to draw for a second of it than a fast one.
    """

    parameters = (
        ParameterSpec("split", "test", "Whose objects lie in the bin", choices=objects.SPLITS),
        ParameterSpec("count", 0, "Objects of a heap; 0: a Poisson number", 0, MOST_OBJECTS),
        ParameterSpec("camera", "vga", "Model of the camera", choices=tuple(depth_camera.MODELS)),
        ParameterSpec("noise", "structured_light", "Noise of the depths", choices=tuple(NOISES)),
        ParameterSpec(
            "rate_hz", 2.0, "Images a second, with an arm of its time, while seen", 0.1, 10.0
        ),
        ParameterSpec("arm", False, "Put an arm and another bin beside it"),
        ParameterSpec("seed", 0, "Of the first heap; heaps count up", 0, 2**31 - 1),
    )

    def __init__(self) -> None:
        super().__init__("bin")
        self._scene: Scene | None = None
        self._arm: BinArm | None = None
        self._heaps = 0

    def configure(self) -> None:
        self._heaps = 0
        self._frames = self.create_publisher(TFMessage, "/tf_static", qos.latched())
        self._started_ns = self.get_clock().now().nanoseconds
        self._scene = BinCell() if self.param("arm") else Scene()
        if isinstance(self._scene, BinCell):
            self._arm = BinArm(self, self._scene, self._now_ns)
        self._images = self.create_publisher(Image, "depth/image_raw", qos.IMAGE)
        self._infos = self.create_publisher(CameraInfo, "depth/camera_info", qos.IMAGE)
        self._service = self.create_service(Trigger, "drop_heap", self._on_drop)
        self._exposed_s = 0.0
        if self._arm is None:
            self._timer = self.create_timer(1.0 / self.param("rate_hz"), self.guarded(self._expose))
        else:
            self._timer = self.create_timer(TICKS * TICK_S, self.guarded(self._tick))
        self._drop()

    def cleanup(self) -> None:
        self.destroy_timer(self._timer)
        if self._arm is not None:
            self._arm.close()
            self._arm = None
        self.destroy_publisher(self._frames)
        self.destroy_service(self._service)
        self.destroy_publisher(self._images)
        self.destroy_publisher(self._infos)
        if self._scene is not None:
            self._scene.close()
            self._scene.files.close()
        self._scene = None

    def health(self) -> Health:
        if self._scene is None:
            return Health(WARN, "not configured")
        return Health(OK, f"{len(self._scene.items)} objects", {"heaps": str(self._heaps)})

    def _on_drop(self, _request: Any, response: Trigger.Response) -> Trigger.Response:
        self._drop()
        assert self._scene is not None
        response.success = True
        response.message = f"{len(self._scene.items)} objects"
        return response

    def _drop(self) -> None:
        assert self._scene is not None
        scene = self._scene
        self._rng = np.random.default_rng([self.param("seed"), self._heaps])
        self._heaps += 1
        scene.items.clear()
        count = self.param("count") or heap_count(self._rng)
        views.fill(scene, self.param("split"), count, True, self._rng)
        self._camera = depth_camera.draw_camera(self._rng, self.param("camera"))
        self._ideal: tuple[NDArray[np.float32], NDArray[np.int32]] = depth_camera.render(
            scene, self._camera
        )
        self._tell_frame()

    def _now_ns(self) -> int:
        """Return the time of what is simulated; without an arm, that of the node."""
        if isinstance(self._scene, BinCell):
            return self._started_ns + round(self._scene.now_s * 1e9)
        return int(self.get_clock().now().nanoseconds)

    def _tick(self) -> None:
        assert isinstance(self._scene, BinCell)
        assert self._arm is not None
        for _ in range(TICKS):
            self._scene.tick()
            self._arm.publish()
        if self._scene.now_s - self._exposed_s >= 1.0 / self.param("rate_hz"):
            self._exposed_s = self._scene.now_s
            self._expose()

    def _tell_frame(self) -> None:
        """Publish where the camera is, as its calibration would."""
        x, y, z = self._camera.position.tolist()
        w, i, j, k = quaternion_from_matrix(self._camera.rotation).tolist()
        frame = TransformStamped(child_frame_id=FRAME)
        frame.header.frame_id, frame.header.stamp = WORLD, time_message(self._now_ns())
        frame.transform.translation = Vector3(x=x, y=y, z=z)
        frame.transform.rotation = Quaternion(w=w, x=i, y=j, z=k)
        self._frames.publish(TFMessage(transforms=[frame]))

    def _expose(self) -> None:
        is_watched = self._images.get_subscription_count() + self._infos.get_subscription_count()
        if not self.is_active or not is_watched:
            return
        assert self._scene is not None
        if self._arm is not None:
            self._ideal = depth_camera.render(self._scene, self._camera)
        depth, bodies = self._ideal
        things = np.where(np.isin(bodies, list(self._scene.items)), bodies, -1)
        focal = float(self._camera.camera.k[0, 0])
        seen = NOISES[self.param("noise")](depth, things, focal, self._rng)
        stamp = time_message(self._now_ns())
        self._infos.publish(to_camera_info(self._camera.camera, stamp, FRAME))
        self._images.publish(to_message(seen, "32FC1", stamp, FRAME))


def main() -> None:
    run(BinNode)
