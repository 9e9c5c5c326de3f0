# SPDX-License-Identifier: Apache-2.0
"""What depth cameras make of ideal depths: structured light, and active stereo like a D435's.

Both measure a disparity f·B/z, quantise it, and see nothing where one of their two eyes is
shadowed. Axial noise of structured light after Nguyen, Izadi & Lovell 2012 ("Modeling Kinect sensor
noise"); of stereo, z²·s/(f·B) for a subpixel error s, as Keselman et al. 2017 ("Intel RealSense
stereoscopic depth cameras") give it.
"""

from __future__ import annotations

from collections.abc import Callable

import cv2
import numpy as np
from numpy.typing import NDArray

Depth = NDArray[np.float32]
Bodies = NDArray[np.int32]


def ideal(depth: Depth, bodies: Bodies, focal_px: float, rng: np.random.Generator) -> Depth:
    """Return the image as it is."""
    return depth.copy()


def structured_light(
    depth: Depth, bodies: Bodies, focal_px: float, rng: np.random.Generator
) -> Depth:
    """Return what a structured-light camera with a baseline of 75 mm gives; 0 is a hole.

    Args:
        depth: ideal [H, W], m.
        bodies: what each pixel shows [H, W]; some are dark or shiny.
        focal_px: focal length, pixels.
        rng: draws the noise.
    """
    seen = _jittered(depth, 0.7, rng)
    sigma = 0.0012 + 0.0019 * (seen - 0.4) ** 2  # Nguyen et al. 2012, equation 3
    seen = seen + 0.6 * sigma * _smooth_noise(seen.shape, 0.8, rng)
    seen = _bent(seen, 0.001, rng)
    seen = _quantised(seen, focal_px * 0.075, 1 / 8, rng)
    holes = _shadow(depth, focal_px * 0.075, 1)
    holes |= _grazing(depth, focal_px, 0.18, rng)
    holes |= _dark(bodies, rng, 0.12)
    seen[holes] = 0.0
    return seen.astype(np.float32)


def structured_light_filled(
    depth: Depth, bodies: Bodies, focal_px: float, rng: np.random.Generator
) -> Depth:
    """Return the same with its holes filled from around them, as many drivers do."""
    seen = structured_light(depth, bodies, focal_px, rng)
    for sigma_px in (3.0, 12.0, 48.0):
        known = (seen > 0.0).astype(np.float32)
        weight = cv2.GaussianBlur(known, (0, 0), sigma_px)
        total = cv2.GaussianBlur(seen * known, (0, 0), sigma_px)
        gap = (known == 0.0) & (weight > 0.05)
        seen[gap] = total[gap] / weight[gap]
    return seen


def stereo(depth: Depth, bodies: Bodies, focal_px: float, rng: np.random.Generator) -> Depth:
    """Return what a D435-like stereo camera with a baseline of 50 mm gives; see the other."""
    # Matching windows round edges off.
    window = np.asarray(cv2.GaussianBlur(depth, (0, 0), 1.6), np.float32)
    seen = _jittered(window, 1.2, rng)
    sigma = seen**2 * rng.uniform(0.06, 0.12) / (focal_px * 0.05)
    seen = seen + sigma * (_smooth_noise(seen.shape, 3.0, rng) + 0.3 * _smooth_noise(
        seen.shape, 0.0, rng))  # fmt: skip
    seen = _bent(seen, 0.003, rng)
    seen = _quantised(seen, focal_px * 0.05, 1 / 32, rng)
    holes = _shadow(depth, focal_px * 0.05, -1)
    holes |= _grazing(depth, focal_px, 0.12, rng)
    holes |= _dark(bodies, rng, 0.06)
    seen = _speckled(seen, rng)
    seen[holes] = 0.0
    return seen.astype(np.float32)


NOISES: dict[str, Callable[[Depth, Bodies, float, np.random.Generator], Depth]] = {
    "ideal": ideal,
    "structured_light": structured_light,
    "structured_light_filled": structured_light_filled,
    "d435": stereo,
}


def _smooth_noise(
    shape: tuple[int, ...], sigma_px: float, rng: np.random.Generator
) -> NDArray[np.float32]:
    """Return noise of unit variance that is alike within some pixels."""
    noise = rng.standard_normal(shape, dtype=np.float32)
    if sigma_px == 0.0:
        return noise
    noise = np.asarray(cv2.GaussianBlur(noise, (0, 0), sigma_px))
    return np.asarray(noise / noise.std(), np.float32)


def _jittered(depth: Depth, sigma_px: float, rng: np.random.Generator) -> Depth:
    """Return an image whose pixels look some pixels aside, which frays edges."""
    height, width = depth.shape
    u, v = np.meshgrid(np.arange(width, dtype=np.float32), np.arange(height, dtype=np.float32))
    for axis in (u, v):
        axis += sigma_px * _smooth_noise(depth.shape, 1.5, rng)
    return np.asarray(cv2.remap(depth, u, v, cv2.INTER_NEAREST, borderMode=cv2.BORDER_REPLICATE))


def _bent(depth: Depth, most_m: float, rng: np.random.Generator) -> Depth:
    """Return an image with a bias that is a plane and a bowl over it, at most `most_m` each."""
    height, width = depth.shape
    u, v = np.linspace(-1, 1, width)[None], np.linspace(-1, 1, height)[:, None]
    a, b, c = rng.uniform(-most_m, most_m, 3)
    return (depth + a * u + b * v + c * (u**2 + v**2 - 0.67)).astype(np.float32)


def _quantised(depth: Depth, scale: float, step_px: float, rng: np.random.Generator) -> Depth:
    offset = rng.uniform(0, step_px)
    disparity = np.rint((scale / depth - offset) / step_px) * step_px + offset
    return np.asarray(scale / np.maximum(disparity, step_px), np.float32)


def _shadow(depth: Depth, scale: float, side: int) -> NDArray[np.bool_]:
    """Return pixels that the projector or the other eye, `side` of this one, does not see."""
    disparity = (scale / depth)[:, ::-side]
    width = disparity.shape[1]
    # Where the ray lands in the other view; nearer ones to the side come before it.
    landing = np.arange(width)[None] + disparity
    reach = np.maximum.accumulate(landing, axis=1)
    return np.asarray((reach > landing + 1.5)[:, ::-side])


def _grazing(
    depth: Depth, focal_px: float, limit: float, rng: np.random.Generator
) -> NDArray[np.bool_]:
    """Return pixels of surfaces seen at a grazing angle, most of which give nothing."""
    smooth = cv2.GaussianBlur(depth, (0, 0), 1.0)
    slope = np.hypot(
        cv2.Sobel(smooth, cv2.CV_32F, 1, 0, scale=1 / 8),
        cv2.Sobel(smooth, cv2.CV_32F, 0, 1, scale=1 / 8),
    )
    cosine = 1.0 / np.hypot(1.0, slope * focal_px / depth)
    return np.asarray((cosine < limit) & (rng.random(depth.shape) < 0.7))


def _dark(bodies: Bodies, rng: np.random.Generator, share: float) -> NDArray[np.bool_]:
    """Return patches on a share of the objects that reflect nothing to the camera."""
    holes = np.zeros(bodies.shape, bool)
    for body in np.unique(bodies[bodies >= 0]):
        if rng.random() < share:
            patches = _smooth_noise(bodies.shape, rng.uniform(4, 9), rng) > rng.uniform(0.8, 1.6)
            holes |= (bodies == body) & patches
    return holes


def _speckled(depth: Depth, rng: np.random.Generator) -> Depth:
    """Return an image with a few blobs of wrong depth, as false matches give."""
    found = depth.copy()
    height, width = depth.shape
    for _ in range(rng.poisson(4)):
        row, column = int(rng.integers(height)), int(rng.integers(width))
        blob = np.zeros(depth.shape, np.uint8)
        size = (int(rng.integers(1, 5)), int(rng.integers(1, 5)))
        cv2.ellipse(blob, (column, row), size, 0, 0, 360, 1, -1)
        found[blob > 0] += np.float32(rng.choice([-1, 1]) * rng.uniform(0.01, 0.05))
    return found
