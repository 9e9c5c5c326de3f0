# SPDX-License-Identifier: Apache-2.0
"""What a camera's lens and chip make of an ideal image."""

from __future__ import annotations

from dataclasses import dataclass, fields
from functools import lru_cache

import cv2
import numpy as np
from numpy.typing import NDArray

_NOISE = 1 << 21


@lru_cache(maxsize=1)
def _noise() -> NDArray[np.float32]:
    """Standard normal numbers, of which each image takes a stretch: drawing them anew takes
    longer than drawing the image."""
    return np.random.default_rng(20).standard_normal(_NOISE, dtype=np.float32)


@dataclass(frozen=True)
class Sensor:
    """A lens and a chip.

    Attributes:
        noise: standard deviation in the dark, shares of full scale.
        shot_noise: added standard deviation at full scale; grows with the root of the signal.
        exposure: factor on the light; what exceeds full scale is cut off.
        blur_px: standard deviation of the lens' Gaussian blur, pixels.
        depth_noise: standard deviation of a depth at 1 m, m; grows with the square of it.

    Raises:
        ValueError: a value that is negative or not finite, or an exposure of zero.
    """

    noise: float = 0.008
    shot_noise: float = 0.012
    exposure: float = 1.0
    blur_px: float = 0.5
    depth_noise: float = 0.002

    def __post_init__(self) -> None:
        for field in fields(self):
            value = getattr(self, field.name)
            if not (np.isfinite(value) and value >= 0.0):
                raise ValueError(f"sensor: {field.name} is {value}, expected at least 0")
        if self.exposure == 0.0:
            raise ValueError("sensor: exposure is 0, expected more")

    def expose(self, image: NDArray[np.uint8], rng: np.random.Generator) -> NDArray[np.uint8]:
        """Return the image that the chip gives [H, W, 3] for an ideal one."""
        seen = cv2.GaussianBlur(image, (0, 0), self.blur_px) if self.blur_px > 0.0 else image
        level = self.exposure * np.arange(256, dtype=np.float32)
        if self.noise == 0.0 and self.shot_noise == 0.0:
            return np.asarray(cv2.LUT(seen, np.clip(level + 0.5, 0.0, 255.0).astype(np.uint8)))
        light = np.minimum(level / 255.0, 1.0)
        spread = 255.0 * np.sqrt(self.noise**2 + self.shot_noise**2 * light)
        begin = int(rng.integers(max(_NOISE - image.size, 1)))
        stretch = _noise()[begin : begin + image.size]
        noise = np.resize(stretch, image.shape)  # repeats where the image is larger than all
        added = cv2.multiply(cv2.LUT(seen, spread.astype(np.float32)), noise)
        # Rounds, and cuts off what is beyond 0 to 255.
        return np.asarray(cv2.add(cv2.LUT(seen, level), added, dtype=cv2.CV_8U))

    def sense_depth(
        self, depth: NDArray[np.float32], rng: np.random.Generator
    ) -> NDArray[np.uint16]:
        """Return depths in millimetres [H, W] for true ones, m; 0 where nothing is seen."""
        noise = self.depth_noise * depth**2 * rng.standard_normal(depth.shape, dtype=np.float32)
        millimetres = np.nan_to_num(1000.0 * (depth + noise), nan=0.0)
        return np.clip(millimetres + 0.5, 0.0, 65535.0).astype(np.uint16)
