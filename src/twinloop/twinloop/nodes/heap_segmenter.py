# SPDX-License-Identifier: Apache-2.0
"""Heap segmenter node: depth images in, an image of labels and a coloured one out."""

from __future__ import annotations

import time
from pathlib import Path

import torch
from sensor_msgs.msg import CameraInfo, Image

from twinloop.grasping.refusals import GraspRefused
from twinloop.grasping.segmentation import Segmenter, shipped, weights
from twinloop.grasping.segmentation.drawing import coloured
from twinloop.nodes import qos
from twinloop.nodes.base import OK, WARN, Health, Node, run
from twinloop.nodes.grasp_messages import camera_of, depth_of
from twinloop.nodes.parameters import ParameterSpec
from twinloop.perception.images import to_message


class HeapSegmenterNode(Node):
    """Wires a `Segmenter` to its topics: the things of each image that somebody wants to know.

    What cannot be segmented gives no labels; diagnostics tell the reason by its name.
    """

    parameters = (
        ParameterSpec("weights", "", "Folder of the network; empty: the shipped one"),
        ParameterSpec("threads", 1, "Threads of the matrix products", 1, 64),
    )

    def __init__(self) -> None:
        super().__init__("heap_segmenter")
        self._segmenter: Segmenter | None = None
        self._info: CameraInfo | None = None
        self._segmented = self._refused = self._things = 0
        self._segment_ms = 0.0
        self._refusal = ""

    def configure(self) -> None:
        torch.set_num_threads(self.param("threads"))
        folder = self.param("weights")
        self._segmenter = Segmenter(weights.load(Path(folder))[0]) if folder else shipped()
        self._info, self._refusal = None, ""
        self._labels = self.create_publisher(Image, "segments/labels", qos.IMAGE)
        self._picture = self.create_publisher(Image, "segments/image_raw", qos.IMAGE)
        self._made = [
            self.create_subscription(
                Image, "depth/image_raw", self.guarded(self._on_depth), qos.IMAGE
            ),
            self.create_subscription(
                CameraInfo, "depth/camera_info", self.guarded(self._on_info), qos.IMAGE
            ),
        ]

    def cleanup(self) -> None:
        for subscription in self._made:
            self.destroy_subscription(subscription)
        for publisher in (self._labels, self._picture):
            self.destroy_publisher(publisher)
        self._segmenter = None

    def health(self) -> Health:
        values = {
            "segmented": str(self._segmented),
            "refused": str(self._refused),
            "things": str(self._things),
            "segment_ms": f"{self._segment_ms:.0f}",
        }
        if not self.is_active:
            return Health(WARN, "not active", values)
        if self._refusal:
            return Health(WARN, self._refusal, values)
        return Health(OK, "segments what is wanted", values)

    def _on_info(self, message: CameraInfo) -> None:
        self._info = message

    def _on_depth(self, message: Image) -> None:
        wants_picture = bool(self._picture.get_subscription_count())
        is_wanted = wants_picture or self._labels.get_subscription_count()
        if self.is_active and self._info is not None and is_wanted:
            try:
                self._segment(message, self._info, wants_picture)
                self._refusal = ""
            except GraspRefused as error:
                self._refused += 1
                told = f"{error.reason}: {error}"
                if told.partition(":")[0] != self._refusal.partition(":")[0]:
                    self.get_logger().warning(told)
                self._refusal = told

    def _segment(self, message: Image, info: CameraInfo, wants_picture: bool) -> None:
        assert self._segmenter is not None
        began_s = time.monotonic()
        depth = depth_of(message)
        found = self._segmenter.segment(depth, camera_of(info))
        stamp, frame = message.header.stamp, message.header.frame_id
        self._labels.publish(to_message(found.labels, "mono16", stamp, frame))
        if wants_picture:
            self._picture.publish(to_message(coloured(depth, found.labels), "rgb8", stamp, frame))
        self._segmented += 1
        self._things = len(found.scores)
        self._segment_ms = 1e3 * (time.monotonic() - began_s)


def main() -> None:
    run(HeapSegmenterNode)
