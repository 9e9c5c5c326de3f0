# SPDX-License-Identifier: Apache-2.0
"""RealSense depth cameras through `pyrealsense2`, or a recording of one in their place.

Colour and depth of a frameset come together; depth seen from the colour camera (aligned) is made
only while somebody wants it.
"""

from __future__ import annotations

import ctypes
import importlib
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from twinloop.drivers.base import DriverSettings
from twinloop.drivers.faults import DeviceLost, DeviceMissing, EndOfStream
from twinloop.perception.camera_model import CameraModel
from twinloop.perception.image_files import ImageRefused

# Colour and depth are exposed up to half a period apart; a whole one is another image.
MAX_SKEW = 0.75
_MM = 0.001  # [m]
_MAX_AGE_NS = 10**9
_TIMEOUT_MS = 1000
_TEMPERATURE_EVERY = 30  # frames
STREAMS = ("color", "depth")


class RealSenseEntry(DriverSettings):
    """What a hardware file says of a RealSense; names and ranges are those of its node."""

    driver: Literal["realsense"]
    serial: str = ""
    file: str = ""
    loop: bool = False
    width: int = Field(640, ge=1, le=16384)
    height: int = Field(480, ge=1, le=16384)
    fps: int = Field(30, ge=1, le=300)
    color_calibration: str = ""
    depth_calibration: str = ""


class DepthFrame(NamedTuple):
    """What a depth camera saw.

    color is uint8 [H, W, 3], red first; depth and aligned are uint16 [H, W], mm, 0 where there is
    none; aligned has the colour image's pixels, and is None unless asked for.
    """

    color: NDArray[np.uint8]
    depth: NDArray[np.uint16]
    aligned: NDArray[np.uint16] | None
    color_stamp_ns: int
    depth_stamp_ns: int
    cameras: Mapping[str, CameraModel]
    """As the device knows itself, by stream; one whose lens is of another model is missing."""
    temperature_c: float = float("nan")
    """Of the camera's electronics; NaN where it does not tell."""


@dataclass(frozen=True)
class RealSenseSettings:
    """Which camera, and what it delivers.

    Attributes:
        serial: number of the camera; empty for any.
        file: recording to play in its place.
        loop: begin a recording anew at its end.
        width: of both images, pixels; a recording has its own.
        height: likewise.
        fps: images a second; a recording has its own.
        sizes: width and height that each stream's images must have; none for any.
    """

    serial: str = ""
    file: str = ""
    loop: bool = False
    width: int = 640
    height: int = 480
    fps: int = 30
    sizes: Mapping[str, tuple[int, int]] | None = None

    @property
    def name(self) -> str:
        return self.file or f"RealSense {self.serial or 'camera'}"

    def check(self) -> None:
        """Refuse a recording that is not there, or a machine without the library.

        Raises:
            DeviceMissing: says which.
        """
        if self.file and not Path(self.file).is_file():
            raise DeviceMissing(f"{self.file}: no such file, expected a recording of a RealSense")
        load_library()


def load_library() -> Any:
    """Import `pyrealsense2`.

    Raises:
        DeviceMissing: it is not installed, or lacks libusb; says what to install.
    """
    try:
        return importlib.import_module("pyrealsense2")
    except ImportError:
        pass
    try:
        # Its wheel needs Debian's libusb-1.0-0, or this package's where that is not installed.
        library = importlib.import_module("libusb_package").get_library_path()
        ctypes.CDLL(library, ctypes.RTLD_GLOBAL)
    except (ImportError, OSError, TypeError):
        pass
    try:
        return importlib.import_module("pyrealsense2")
    except ImportError as error:
        raise DeviceMissing(
            f"RealSense cameras need pyrealsense2 and libusb: {error}; install them with "
            "'pip install pyrealsense2 libusb-package'"
        ) from error


class RealSenseCamera:
    """An open RealSense camera, or recording.

    Args:
        settings: which one.
        now_ns: the clock of the stamps.
        wants_aligned: tells whether a frame's depth shall be aligned too.

    Raises:
        DeviceMissing: it is not there, or does not deliver what it is asked for.
    """

    def __init__(
        self,
        settings: RealSenseSettings,
        now_ns: Callable[[], int] = time.time_ns,
        wants_aligned: Callable[[], bool] = lambda: False,
    ) -> None:
        settings.check()
        self._rs = rs = load_library()
        self._settings = settings
        self._now_ns = now_ns
        self._wants_aligned = wants_aligned
        self._pipeline = rs.pipeline()
        try:
            profile = self._pipeline.start(self._configuration())
        except RuntimeError as error:
            raise DeviceMissing(f"{settings.name} cannot be started: {error}") from error
        self._playback = profile.get_device().as_playback() if settings.file else None
        streams = {
            name: profile.get_stream(getattr(rs.stream, name)).as_video_stream_profile()
            for name in STREAMS
        }
        self._is_red_first = streams["color"].format() == rs.format.rgb8
        if streams["color"].format() not in (rs.format.rgb8, rs.format.bgr8):
            self.close()
            raise DeviceMissing(
                f"{settings.name}: colour is {streams['color'].format()}, expected rgb8 or bgr8"
            )
        self.rate_hz = float(streams["depth"].fps())
        self.cameras = _cameras(rs, streams)
        self._align = rs.align(rs.stream.color)
        self._sensors = profile.get_device().query_sensors()
        self._temperature_c = float("nan")
        self._reads = 0

    def read(self) -> DepthFrame:
        """Return the next frame; blocks until it is there.

        Raises:
            DeviceLost: the camera gives nothing any more.
            EndOfStream: a recording is at its end.
            ImageRefused: colour or depth is missing, of the wrong size, or of another moment.
        """
        frameset = self._wait()
        color, depth = frameset.get_color_frame(), frameset.get_depth_frame()
        if not color or not depth:
            raise ImageRefused(f"{self._settings.name}: no {'depth' if color else 'colour'}")
        self._check_skew(color, depth)
        for name, frame in (("color", color), ("depth", depth)):
            self._check_size(name, (frame.get_width(), frame.get_height()))
        pixels = np.array(color.get_data())
        return DepthFrame(
            pixels if self._is_red_first else np.ascontiguousarray(pixels[..., ::-1]),
            _millimetres(depth),
            self._aligned(frameset) if self._wants_aligned() else None,
            self._stamp_ns(color),
            self._stamp_ns(depth),
            self.cameras,
            self._look_at_temperature(),
        )

    def close(self) -> None:
        # A recording is read by a thread of its own, and what that thread holds must be neither
        # stopped nor freed while it does: the library frees it twice. To pause waits until the
        # thread has done what it was told: before the stop, and what the stop itself told it.
        try:
            self._pause()
        finally:
            self._pipeline.stop()
        self._pause()

    def _pause(self) -> None:
        if self._playback is not None:
            self._playback.pause()

    def _look_at_temperature(self) -> float:
        """Ask for it now and then; recordings and some cameras do not tell."""
        if self._reads % _TEMPERATURE_EVERY == 0:
            option = self._rs.option.asic_temperature
            told = [sensor for sensor in self._sensors if sensor.supports(option)]
            try:
                self._temperature_c = told[0].get_option(option) if told else float("nan")
            except RuntimeError:
                self._temperature_c = float("nan")
        self._reads += 1
        return self._temperature_c

    def _configuration(self) -> Any:
        rs, settings = self._rs, self._settings
        configuration = rs.config()
        if settings.file:
            configuration.enable_device_from_file(settings.file, settings.loop)
            for name in STREAMS:
                configuration.enable_stream(getattr(rs.stream, name))
            return configuration
        if settings.serial:
            configuration.enable_device(settings.serial)
        shape = (settings.width, settings.height)
        configuration.enable_stream(rs.stream.color, *shape, rs.format.rgb8, settings.fps)
        configuration.enable_stream(rs.stream.depth, *shape, rs.format.z16, settings.fps)
        return configuration

    def _wait(self) -> Any:
        try:
            return self._pipeline.wait_for_frames(_TIMEOUT_MS)
        except RuntimeError as error:
            playback = self._playback
            if (
                playback is not None
                and playback.current_status() == self._rs.playback_status.stopped
            ):
                raise EndOfStream(self._settings.name) from error
            raise DeviceLost(f"{self._settings.name}: {error}") from error

    def _check_skew(self, color: Any, depth: Any) -> None:
        if color.get_frame_timestamp_domain() != depth.get_frame_timestamp_domain():
            return
        skew_ms = abs(color.get_timestamp() - depth.get_timestamp())
        period_ms = 1e3 / self.rate_hz
        if skew_ms > MAX_SKEW * period_ms:
            raise ImageRefused(
                f"{self._settings.name}: depth and colour are {skew_ms:.1f} ms apart, expected at "
                f"most {MAX_SKEW * period_ms:.1f}"
            )

    def _check_size(self, name: str, found: tuple[int, int]) -> None:
        expected = (self._settings.sizes or {}).get(name, found)
        if found != expected:
            raise ImageRefused(
                f"{name} image is {found[0]}x{found[1]} pixels, expected "
                f"{expected[0]}x{expected[1]} as its calibration says"
            )

    def _aligned(self, frameset: Any) -> NDArray[np.uint16]:
        try:
            return _millimetres(self._align.process(frameset).get_depth_frame())
        except RuntimeError as error:
            raise ImageRefused(f"{self._settings.name}: depth is not aligned: {error}") from error

    def _stamp_ns(self, frame: Any) -> int:
        """Return when a frame was exposed, on the stamps' clock.

        A camera's own clock says nothing here, nor does the time of a recording: then it is now.
        """
        now_ns = self._now_ns()
        if frame.get_frame_timestamp_domain() == self._rs.timestamp_domain.hardware_clock:
            return now_ns
        age_ns = time.time_ns() - round(frame.get_timestamp() * 1e6)
        return now_ns - age_ns if 0 <= age_ns < _MAX_AGE_NS else now_ns


def _cameras(rs: Any, streams: Mapping[str, Any]) -> dict[str, CameraModel]:
    found = {}
    for name, profile in streams.items():
        intrinsics = profile.get_intrinsics()
        coefficients = np.array(intrinsics.coeffs, dtype=np.float64)
        # The inverse model is another one, but the same where nothing is distorted.
        if intrinsics.model != rs.distortion.brown_conrady and coefficients.any():
            continue
        k = np.array(
            [
                [intrinsics.fx, 0.0, intrinsics.ppx],
                [0.0, intrinsics.fy, intrinsics.ppy],
                [0.0, 0.0, 1.0],
            ]
        )
        size = (intrinsics.width, intrinsics.height)
        p = np.hstack([k, np.zeros((3, 1))])
        found[name] = CameraModel(name, size, k, coefficients, np.eye(3), p)
    return found


def _millimetres(frame: Any) -> NDArray[np.uint16]:
    depth = np.array(frame.get_data())
    unit_m = frame.get_units()
    if abs(unit_m - _MM) < 1e-6 * _MM:
        return depth
    scaled = np.rint(depth * (unit_m / _MM))
    # What is out of range is unknown, not near.
    return np.where(scaled <= np.iinfo(np.uint16).max, scaled, 0).astype(np.uint16)


SETTINGS = RealSenseEntry
