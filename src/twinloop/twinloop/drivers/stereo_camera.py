# SPDX-License-Identifier: Apache-2.0
"""Any stereo camera that OpenCV can read: two devices, or one that delivers both eyes in a picture.

Video files and folders of images stand in for the devices, at a rate of their own.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, NamedTuple

import cv2
from numpy.typing import NDArray
from pydantic import Field

from twinloop.drivers.base import DriverSettings
from twinloop.drivers.faults import DeviceMissing, EndOfStream
from twinloop.drivers.inputs import (
    CaptureSettings,
    FolderInput,
    Input,
    OpenCapture,
    check_name,
    is_device,
    open_input,
)
from twinloop.perception.image_files import ImageRefused
from twinloop.perception.stereo_pairs import EYES


class StereoCameraEntry(DriverSettings):
    """What a hardware file says of a stereo camera; names and ranges are those of its node."""

    driver: Literal["stereo_camera"]
    left: str = Field(min_length=1)
    right: str = ""
    width: int = Field(0, ge=0, le=16384)
    height: int = Field(0, ge=0, le=16384)
    fps: float = Field(0.0, ge=0.0, le=1000.0)
    fourcc: str = Field("", pattern=r"^(.{4})?$")
    rate: float = Field(0.0, ge=0.0, le=1000.0)
    loop: bool = False
    left_calibration: str = ""
    right_calibration: str = ""


class StereoFrame(NamedTuple):
    """What both eyes saw; images are uint8 [H, W, 3], blue first."""

    left: NDArray[Any]
    right: NDArray[Any]
    left_stamp_ns: int
    right_stamp_ns: int


@dataclass(frozen=True)
class StereoSettings:
    """Which camera, and how it is read.

    Attributes:
        left: camera (0, /dev/video0), video file or folder; without `right` it delivers both
            eyes, side by side, or is a folder with folders left and right.
        right: likewise of the right eye; empty where `left` has both.
        capture: what cameras are asked for.
        rate_hz: of files and folders; 0 for their own.
        loop: begin a file or folder anew at its end.
        sizes: width and height that each eye's images must have; none for any.
    """

    left: str
    right: str = ""
    capture: CaptureSettings = field(default_factory=CaptureSettings)
    rate_hz: float = 0.0
    loop: bool = False
    sizes: Mapping[str, tuple[int, int]] | None = None

    def names(self) -> tuple[str, ...]:
        """Return the inputs: one for each eye, or one for both.

        Raises:
            DeviceMissing: a file or folder is not there, or a device is paired with a file.
        """
        check_name(self.left)
        if self.right:
            check_name(self.right)
            if is_device(self.left) != is_device(self.right):
                raise DeviceMissing(
                    f"{self.left} and {self.right}: expected two cameras, or two files or folders"
                )
            return self.left, self.right
        halves = [Path(self.left).expanduser() / eye for eye in EYES]
        if not is_device(self.left) and all(half.is_dir() for half in halves):
            return str(halves[0]), str(halves[1])
        return (self.left,)


class StereoCamera:
    """An open stereo camera.

    Args:
        settings: which one.
        now_ns: the clock of the stamps.
        open_capture: what opens cameras and videos; `cv2.VideoCapture` or a stand-in.
        sleep: waits some seconds, between a file's images.

    Raises:
        DeviceMissing: an input cannot be opened, or folders hold different numbers of images.
    """

    def __init__(
        self,
        settings: StereoSettings,
        now_ns: Callable[[], int] = time.time_ns,
        open_capture: OpenCapture = cv2.VideoCapture,
        sleep: Callable[[float], Any] = time.sleep,
    ) -> None:
        self._settings = settings
        self._now_ns = now_ns
        self._open_capture = open_capture
        self._sleep = sleep
        self._is_live = is_device(settings.left)
        self._inputs: list[Input] = []
        self._delivered = 0
        self._open()
        own_hz = self._inputs[0].rate_hz
        self.rate_hz = own_hz if self._is_live else settings.rate_hz or own_hz
        self._due_s = time.monotonic()

    def read(self) -> StereoFrame:
        """Return the next images; blocks until they are there.

        Both are taken before either is decoded, and stamped as they are taken.

        Raises:
            DeviceLost: a camera gives nothing any more.
            EndOfStream: a file is at its end.
            ImageRefused: an image is empty or of the wrong size; the next may be good.
        """
        if not self._is_live:
            self._wait_for_turn()
        try:
            stamps_ns = self._grab()
        except EndOfStream:
            if not self._settings.loop or not self._delivered:
                raise
            self.close()
            self._open()
            stamps_ns = self._grab()
        pictures = [each.retrieve() for each in self._inputs]
        if len(pictures) == 1:
            pictures, stamps_ns = self._halves(pictures[0]), stamps_ns * 2
        for eye, picture in zip(EYES, pictures, strict=True):
            self._check_size(eye, (picture.shape[1], picture.shape[0]))
        self._delivered += 1
        return StereoFrame(pictures[0], pictures[1], stamps_ns[0], stamps_ns[1])

    def close(self) -> None:
        for each in self._inputs:
            each.close()
        self._inputs.clear()

    def _open(self) -> None:
        try:
            for name in self._settings.names():
                opened = open_input(name, self._settings.capture, self._open_capture)
                self._inputs.append(opened)
            counts = {e.name: len(e.paths) for e in self._inputs if isinstance(e, FolderInput)}
            if len(set(counts.values())) > 1:
                found = " and ".join(f"{name} {count}" for name, count in counts.items())
                raise DeviceMissing(f"folders hold different numbers of images: {found}")
        except DeviceMissing:
            self.close()
            raise

    def _grab(self) -> list[int]:
        stamps_ns = []
        for each in self._inputs:
            each.grab()
            stamps_ns.append(self._now_ns())
        return stamps_ns

    def _halves(self, picture: NDArray[Any]) -> list[NDArray[Any]]:
        width = picture.shape[1]
        if width % 2:
            raise ImageRefused(
                f"{self._inputs[0].name}: image is {width} pixels wide, expected an even number "
                "for two eyes side by side"
            )
        return [picture[:, : width // 2], picture[:, width // 2 :]]

    def _check_size(self, eye: str, found: tuple[int, int]) -> None:
        expected = (self._settings.sizes or {}).get(eye, found)
        if found != expected:
            raise ImageRefused(
                f"{eye} image is {found[0]}x{found[1]} pixels, expected "
                f"{expected[0]}x{expected[1]} as its calibration says"
            )

    def _wait_for_turn(self) -> None:
        if self.rate_hz <= 0.0:
            return
        ahead_s = self._due_s - time.monotonic()
        if ahead_s > 0.0:
            self._sleep(ahead_s)
        # After a delay the rate is kept, not the schedule: no burst of old images.
        self._due_s = max(self._due_s, time.monotonic() - 1.0 / self.rate_hz) + 1.0 / self.rate_hz


SETTINGS = StereoCameraEntry
