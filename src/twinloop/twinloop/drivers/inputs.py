# SPDX-License-Identifier: Apache-2.0
"""Where pictures come from, by name: a camera, a video file or a folder of images."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import cv2
import numpy as np
from numpy.typing import NDArray

from twinloop.drivers.faults import DeviceLost, DeviceMissing, EndOfStream
from twinloop.perception.image_files import ImageRefused, check_size, decode_file

Pixels = NDArray[Any]
OpenCapture = Callable[..., Any]
IMAGE_SUFFIXES = (".png", ".jpg", ".jpeg")
_FOLDER_RATE_HZ = 30.0
# A folder or file without a rate of its own, or one that no camera has.
_LIKELY_RATE_HZ = (0.1, 1000.0)


@dataclass(frozen=True)
class CaptureSettings:
    """What a camera is asked for; 0 or empty leaves it to the camera.

    Attributes:
        width: of what the device delivers, pixels; both eyes of a side-by-side one.
        height: likewise.
        fps: images a second.
        fourcc: format on the wire, such as MJPG.
    """

    width: int = 0
    height: int = 0
    fps: float = 0.0
    fourcc: str = ""


class Input(Protocol):
    """One stream of pictures."""

    name: str
    rate_hz: float
    """Nominal; 0 where it is not known."""

    def grab(self) -> None:
        """Take the next picture; raises DeviceLost or EndOfStream."""

    def retrieve(self) -> Pixels:
        """Return the picture that was taken, blue first [H, W, 3]; raises ImageRefused."""

    def close(self) -> None:
        """Let go of it."""


def is_device(name: str) -> bool:
    """Tell a camera (0, /dev/video0) from a file or folder."""
    return name.isdigit() or name.startswith("/dev/")


def check_name(name: str) -> None:
    """Refuse a file or folder that is not there; a camera may be plugged in later.

    Raises:
        DeviceMissing: naming it.
    """
    if not name or not (is_device(name) or Path(name).expanduser().exists()):
        raise DeviceMissing(
            f"{name or 'the empty name'}: no such file or folder, expected one, or a camera such "
            "as 0 or /dev/video0"
        )


def open_input(
    name: str, settings: CaptureSettings, open_capture: OpenCapture = cv2.VideoCapture
) -> Input:
    """Open a camera, a video file or a folder.

    Raises:
        DeviceMissing: it is not there or cannot be read.
    """
    check_name(name)
    if is_device(name):
        return CaptureInput(name, settings, open_capture)
    path = Path(name).expanduser()
    return FolderInput(path) if path.is_dir() else CaptureInput(str(path), settings, open_capture)


class CaptureInput:
    """A camera or video file that OpenCV reads."""

    def __init__(self, name: str, settings: CaptureSettings, open_capture: OpenCapture) -> None:
        self.name = name
        self._is_device = is_device(name)
        if self._is_device:
            # By number the drivers of other systems are found too.
            self._capture = open_capture(int(name) if name.isdigit() else name)
        else:
            self._capture = open_capture(name)
        if not self._capture.isOpened():
            self._capture.release()
            raise DeviceMissing(
                f"camera {name} cannot be opened: is it plugged in, and not in use?"
                if self._is_device
                else f"{name} cannot be read as a video"
            )
        if self._is_device:
            try:
                self._ask_for(settings)
            except DeviceMissing:
                self.close()
                raise
        reported = float(self._capture.get(cv2.CAP_PROP_FPS))
        low, high = _LIKELY_RATE_HZ
        self.rate_hz = reported if low <= reported <= high else 0.0

    def grab(self) -> None:
        if self._capture.grab():
            return
        if self._is_device:
            raise DeviceLost(f"camera {self.name} gives no images any more")
        raise EndOfStream(self.name)

    def retrieve(self) -> Pixels:
        is_there, pixels = self._capture.retrieve()
        if not is_there or pixels is None:
            raise ImageRefused(f"{self.name}: an empty image")
        return _as_colour(pixels, self.name)

    def close(self) -> None:
        self._capture.release()

    def _ask_for(self, settings: CaptureSettings) -> None:
        if settings.fourcc:
            code = cv2.VideoWriter.fourcc(*settings.fourcc)
            self._capture.set(cv2.CAP_PROP_FOURCC, code)
        for prop, value in (
            (cv2.CAP_PROP_FRAME_WIDTH, settings.width),
            (cv2.CAP_PROP_FRAME_HEIGHT, settings.height),
            (cv2.CAP_PROP_FPS, settings.fps),
        ):
            if value:
                self._capture.set(prop, value)
        # Old images would be stamped as new ones.
        self._capture.set(cv2.CAP_PROP_BUFFERSIZE, 1)
        given = [
            round(self._capture.get(prop))
            for prop in (cv2.CAP_PROP_FRAME_WIDTH, cv2.CAP_PROP_FRAME_HEIGHT)
        ]
        asked = [settings.width or given[0], settings.height or given[1]]
        if given != asked:
            raise DeviceMissing(
                f"camera {self.name} gives {given[0]}x{given[1]} pixels, asked for "
                f"{asked[0]}x{asked[1]}"
            )


class FolderInput:
    """The images of a folder, in the order of the numbers in their names."""

    rate_hz = _FOLDER_RATE_HZ

    def __init__(self, folder: Path) -> None:
        self.name = str(folder)
        self.paths = image_paths(folder)
        if not self.paths:
            raise DeviceMissing(f"{folder} holds no images, expected {', '.join(IMAGE_SUFFIXES)}")
        self._next = 0

    def grab(self) -> None:
        if self._next >= len(self.paths):
            raise EndOfStream(self.name)
        self._next += 1

    def retrieve(self) -> Pixels:
        path = self.paths[self._next - 1]
        try:
            return _as_colour(decode_file(np.fromfile(path, np.uint8)), str(path))
        except (OSError, ImageRefused) as error:
            raise ImageRefused(f"{path}: {error}") from error

    def close(self) -> None:
        """Nothing is held."""


def image_paths(folder: Path) -> list[Path]:
    """Return the images directly in a folder; image 2 comes before image 10."""
    found = [path for path in folder.iterdir() if path.suffix.lower() in IMAGE_SUFFIXES]
    return sorted(found, key=_natural_order)


def _natural_order(path: Path) -> list[tuple[int, str]]:
    return [
        (int(part), "") if part.isdigit() else (-1, part)
        for part in re.split(r"(\d+)", path.name)
        if part
    ]


def _as_colour(pixels: Pixels, name: str) -> Pixels:
    if pixels.dtype != np.uint8 or pixels.ndim not in (2, 3):
        raise ImageRefused(
            f"{name}: image is {pixels.dtype} {list(pixels.shape)}, expected 8 bits a channel"
        )
    check_size(pixels.shape[1], pixels.shape[0])
    return cv2.cvtColor(pixels, cv2.COLOR_GRAY2BGR) if pixels.ndim == 2 else pixels
