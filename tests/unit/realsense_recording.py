# SPDX-License-Identifier: Apache-2.0
"""Recordings of RealSense cameras that are not there: a software device, recorded to a file."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import numpy as np
from twinloop.drivers.realsense import load_library

WIDTH, HEIGHT, FPS, FOCAL = 64, 48, 30, 60.0
PERIOD_MS = 1e3 / FPS
BASELINE_M = 0.015  # from depth to colour


def record(
    path: Path,
    count: int = 15,
    *,
    color_delays_ms: dict[int, float] | None = None,
    unit_m: float = 0.001,
    coefficients: tuple[float, ...] = (0.0,) * 5,
    color_format: str = "bgr8",
) -> Path:
    """Record framesets: depth is 500 + k units throughout, colour (k, 100, 200), blue first.

    Args:
        path: of the recording, .db3.
        count: how many.
        color_delays_ms: by how much a frameset's colour comes later than its depth.
        unit_m: of depth.
        coefficients: of the lenses' distortion.
        color_format: of the colour stream.
    """
    rs = load_library()
    device = rs.software_device()
    sensors = {name: device.add_sensor(name) for name in ("Depth", "Color")}
    sensors["Depth"].add_read_only_option(rs.option.depth_units, unit_m)
    formats = {"Depth": rs.format.z16, "Color": getattr(rs.format, color_format)}
    profiles = {}
    for uid, (name, sensor) in enumerate(sensors.items()):
        stream = rs.video_stream()
        stream.type = getattr(rs.stream, name.lower())
        stream.index, stream.uid, stream.fps = 0, uid, FPS
        stream.width, stream.height = WIDTH, HEIGHT
        stream.bpp = 2 if name == "Depth" else 3
        stream.fmt = formats[name]
        stream.intrinsics = _intrinsics(rs, coefficients)
        profiles[name] = sensor.add_video_stream(stream)
    pose = rs.extrinsics()
    pose.rotation = [1, 0, 0, 0, 1, 0, 0, 0, 1]
    pose.translation = [BASELINE_M, 0, 0]
    profiles["Depth"].register_extrinsics_to(profiles["Color"], pose)
    recorder = rs.recorder(str(path), device)
    queue = rs.frame_queue(2 * count + 2)
    opened = list(recorder.query_sensors())
    for sensor in opened:
        sensor.open(sensor.get_stream_profiles())
        sensor.start(queue)
    for k in range(count):
        stamp_ms = 1000.0 + k * PERIOD_MS
        depth = np.full((HEIGHT, WIDTH), 500 + k, np.uint16)
        color = np.empty((HEIGHT, WIDTH, 3), np.uint8)
        color[:] = (k, 100, 200)
        delay_ms = (color_delays_ms or {}).get(k, 0.0)
        for name, pixels, stamp in (
            ("Depth", depth, stamp_ms),
            ("Color", color, stamp_ms + delay_ms),
        ):
            frame = rs.software_video_frame()
            frame.pixels, frame.bpp = pixels, pixels.itemsize * (pixels.size // (WIDTH * HEIGHT))
            frame.stride = WIDTH * frame.bpp
            frame.timestamp, frame.domain = stamp, rs.timestamp_domain.hardware_clock
            frame.frame_number = k
            frame.profile = profiles[name].as_video_stream_profile()
            if name == "Depth":
                frame.depth_units = unit_m
            sensors[name].on_video_frame(frame)
        time.sleep(0.002)  # the recorder writes in a thread, and drops what comes too fast
    for sensor in opened:
        sensor.stop()
        sensor.close()
    return path


def _intrinsics(rs: Any, coefficients: tuple[float, ...]) -> Any:
    result = rs.intrinsics()
    result.width, result.height = WIDTH, HEIGHT
    result.fx = result.fy = FOCAL
    result.ppx, result.ppy = (WIDTH - 1) / 2, (HEIGHT - 1) / 2
    result.model = rs.distortion.inverse_brown_conrady
    result.coeffs = list(coefficients)
    return result
