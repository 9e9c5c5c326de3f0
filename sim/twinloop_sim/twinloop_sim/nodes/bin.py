# SPDX-License-Identifier: Apache-2.0
"""Bin node: depth images of a simulated heap, and a new heap on request."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from sensor_msgs.msg import CameraInfo, Image
from std_srvs.srv import Trigger
from twinloop.nodes import qos
from twinloop.nodes.base import OK, WARN, Health, Node, run
from twinloop.nodes.parameters import ParameterSpec
from twinloop.perception.camera_info import to_camera_info
from twinloop.perception.images import to_message

from twinloop_sim.grasping import depth_camera, objects, views
from twinloop_sim.grasping.depth_noise import NOISES
from twinloop_sim.grasping.scene import MOST_OBJECTS, Scene, heap_count

FRAME = "depth_optical"


class BinNode(Node):
    """Plays a depth camera over a bin; nothing in the bin moves between two heaps."""

    parameters = (
        ParameterSpec("split", "test", "Whose objects lie in the bin", choices=objects.SPLITS),
        ParameterSpec("count", 0, "Objects of a heap; 0: a Poisson number", 0, MOST_OBJECTS),
        ParameterSpec("camera", "vga", "Model of the camera", choices=tuple(depth_camera.MODELS)),
        ParameterSpec("noise", "structured_light", "Noise of the depths", choices=tuple(NOISES)),
        ParameterSpec("rate_hz", 2.0, "Images a second, while somebody looks", 0.1, 10.0),
        ParameterSpec("seed", 0, "Of the first heap; heaps count up", 0, 2**31 - 1),
    )

    def __init__(self) -> None:
        super().__init__("bin")
        self._scene: Scene | None = None
        self._heaps = 0

    def configure(self) -> None:
        self._scene = Scene()
        self._heaps = 0
        self._images = self.create_publisher(Image, "depth/image_raw", qos.IMAGE)
        self._infos = self.create_publisher(CameraInfo, "depth/camera_info", qos.IMAGE)
        self._service = self.create_service(Trigger, "drop_heap", self._on_drop)
        self._timer = self.create_timer(1.0 / self.param("rate_hz"), self.guarded(self._expose))
        self._drop()

    def cleanup(self) -> None:
        self.destroy_timer(self._timer)
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

    def _expose(self) -> None:
        is_watched = self._images.get_subscription_count() + self._infos.get_subscription_count()
        if not self.is_active or not is_watched:
            return
        depth, bodies = self._ideal
        focal = float(self._camera.camera.k[0, 0])
        seen = NOISES[self.param("noise")](depth, bodies, focal, self._rng)
        stamp = self.get_clock().now().to_msg()
        self._infos.publish(to_camera_info(self._camera.camera, stamp, FRAME))
        self._images.publish(to_message(seen, "32FC1", stamp, FRAME))


def main() -> None:
    run(BinNode)
