# SPDX-License-Identifier: Apache-2.0
"""RealSense node: colour, depth, and depth seen from the colour camera."""

from __future__ import annotations

from functools import partial

from twinloop.drivers.realsense import STREAMS, DepthFrame, RealSenseCamera, RealSenseSettings
from twinloop.nodes.base import run
from twinloop.nodes.camera_node import CameraNode, reader_parameters
from twinloop.nodes.camera_topics import CameraTopics
from twinloop.nodes.parameters import ParameterSpec

_ALIGNED = "aligned_depth"


class RealSenseNode(CameraNode):
    """Wires a RealSenseCamera to its topics: color, depth and aligned_depth."""

    parameters = (
        ParameterSpec("serial", "", "Serial number of the camera; empty: any"),
        ParameterSpec("file", "", "Recording to play in its place"),
        ParameterSpec("loop", False, "Begin a recording anew at its end"),
        ParameterSpec("width", 640, "Width of the images", 1, 16384),
        ParameterSpec("height", 480, "Height of the images", 1, 16384),
        ParameterSpec("fps", 30, "Images a second", 1, 300),
        ParameterSpec("color_calibration", "", "Calibration file; empty: what the camera says"),
        ParameterSpec("depth_calibration", "", "Calibration file; empty: what the camera says"),
        ParameterSpec("color_frame", "camera_color_optical", "Optical frame"),
        ParameterSpec("depth_frame", "camera_depth_optical", "Optical frame"),
        # Until a camera that was just plugged in gives its first image, seconds go by.
        *reader_parameters(hung_s=10.0),
    )

    def __init__(self) -> None:
        super().__init__("realsense")

    def configure(self) -> None:
        self.take_hardware("realsense")
        self._calibrated = {
            name: camera
            for name in STREAMS
            if (camera := self.calibration(f"{name}_calibration")) is not None
        }
        settings = RealSenseSettings(
            serial=self.param("serial"),
            file=self.param("file"),
            loop=self.param("loop"),
            width=self.param("width"),
            height=self.param("height"),
            fps=self.param("fps"),
            sizes={name: camera.size for name, camera in self._calibrated.items()},
        )
        settings.check()
        topics = {
            name: CameraTopics(
                self, name, self.param(f"{stream}_frame"), None, self.param("jpeg_quality")
            )
            for name, stream in (("color", "color"), ("depth", "depth"), (_ALIGNED, "color"))
        }
        clock = self.get_clock()
        open_camera = partial(
            RealSenseCamera,
            settings,
            lambda: clock.now().nanoseconds,
            lambda: topics[_ALIGNED].has_listeners,
        )
        self.read_from(
            settings.name, open_camera, self._publish, lambda frame: frame.depth_stamp_ns, topics
        )

    def _publish(self, frame: DepthFrame) -> None:
        self.temperature_c = frame.temperature_c
        cameras = {**frame.cameras, **self._calibrated}
        for name, stream, pixels, encoding, stamp_ns in (
            ("color", "color", frame.color, "rgb8", frame.color_stamp_ns),
            ("depth", "depth", frame.depth, "16UC1", frame.depth_stamp_ns),
            (_ALIGNED, "color", frame.aligned, "16UC1", frame.depth_stamp_ns),
        ):
            if pixels is not None:
                self._topics[name].camera = cameras.get(stream)
                self._topics[name].publish(pixels, encoding, stamp_ns)


def main() -> None:
    run(RealSenseNode)
