# SPDX-License-Identifier: Apache-2.0
"""Stereo camera node: any pair of cameras that OpenCV reads, or files in their place."""

from __future__ import annotations

from functools import partial

import cv2

from twinloop.drivers.inputs import CaptureSettings, OpenCapture
from twinloop.drivers.stereo_camera import StereoCamera, StereoFrame, StereoSettings
from twinloop.nodes.base import run
from twinloop.nodes.camera_node import CameraNode, reader_parameters
from twinloop.nodes.camera_topics import CameraTopics
from twinloop.nodes.parameters import ParameterRefused, ParameterSpec
from twinloop.perception.camera_model import StereoModel
from twinloop.perception.stereo_pairs import EYES


class StereoCameraNode(CameraNode):
    """Wires a StereoCamera to the topics of its eyes."""

    parameters = (
        ParameterSpec(
            "left", "0", "Camera, video file or folder; of both eyes where there is no `right`"
        ),
        ParameterSpec("right", "", "Likewise, of the right eye; empty: side by side in `left`"),
        ParameterSpec("width", 0, "Width asked of a camera; 0: its own", 0, 16384),
        ParameterSpec("height", 0, "Height asked of a camera; 0: its own", 0, 16384),
        ParameterSpec("fps", 0.0, "Images a second asked of a camera; 0: its own", 0.0, 1000.0),
        ParameterSpec("fourcc", "", "Format asked of a camera, such as MJPG; empty: its own"),
        ParameterSpec("rate", 0.0, "Images a second of a file; 0: its own", 0.0, 1000.0),
        ParameterSpec("loop", False, "Begin a file anew at its end"),
        ParameterSpec("left_calibration", "", "Calibration file; empty: not calibrated"),
        ParameterSpec("right_calibration", "", "Calibration file; empty: not calibrated"),
        ParameterSpec("left_frame", "camera_left_optical", "Optical frame"),
        ParameterSpec("right_frame", "camera_right_optical", "Optical frame"),
        *reader_parameters(hung_s=3.0),
    )

    open_capture: OpenCapture = cv2.VideoCapture

    def __init__(self) -> None:
        super().__init__("stereo_camera")
        self._skew_ms = 0.0

    def configure(self) -> None:
        self.take_hardware("stereo_camera")
        fourcc = self.param("fourcc")
        if len(fourcc) not in (0, 4):
            raise ParameterRefused(f"parameter fourcc is {fourcc!r}, expected four letters")
        cameras = {eye: self.calibration(f"{eye}_calibration") for eye in EYES}
        left, right = cameras["left"], cameras["right"]
        if left is not None and right is not None:
            StereoModel(left, right)  # refuses a pair without a baseline
        settings = StereoSettings(
            left=self.param("left"),
            right=self.param("right"),
            capture=CaptureSettings(
                self.param("width"), self.param("height"), self.param("fps"), fourcc
            ),
            rate_hz=self.param("rate"),
            loop=self.param("loop"),
            sizes={eye: camera.size for eye, camera in cameras.items() if camera is not None},
        )
        names = settings.names()  # refuses files that are not there
        topics = {
            eye: CameraTopics(
                self,
                f"stereo/{eye}",
                self.param(f"{eye}_frame"),
                cameras[eye],
                self.param("jpeg_quality"),
            )
            for eye in EYES
        }
        clock = self.get_clock()
        open_camera = partial(
            StereoCamera, settings, lambda: clock.now().nanoseconds, type(self).open_capture
        )
        device = " and ".join(names)
        self.read_from(
            device, open_camera, self._publish, lambda frame: frame.left_stamp_ns, topics
        )

    def more_values(self) -> dict[str, str]:
        return {"skew_ms": f"{self._skew_ms:.2f}"}

    def _publish(self, frame: StereoFrame) -> None:
        self._skew_ms = (frame.right_stamp_ns - frame.left_stamp_ns) * 1e-6
        self._topics["left"].publish(frame.left, "bgr8", frame.left_stamp_ns)
        self._topics["right"].publish(frame.right, "bgr8", frame.right_stamp_ns)


def main() -> None:
    run(StereoCameraNode)
