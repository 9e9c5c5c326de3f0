# SPDX-License-Identifier: Apache-2.0
"""Both eyes as the tracker has them: ideal parallel cameras of one focal length.

Images of other cameras are resampled to that, window by window: whatever is behind can be made for
one apparent size of the balls, and for a projection without distortion.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import cv2
import numpy as np
from numpy.typing import NDArray

from twinloop.perception.camera_model import CameraModel, StereoModel

Array = NDArray[np.float64]
Image = NDArray[np.uint8]

FOCAL_PX = 140.0 / np.tan(np.radians(30.0))
WINDOW = (144, 128)  # width, height, pixels
BALLS_IN_PALM_M = (0.012, -0.036, 0.093)  # middle of where balls lie, palm frame
_SAME_PX = 0.02  # cameras that differ by less from an ideal one are not resampled


@dataclass(frozen=True)
class Eyes:
    """A stereo pair as two ideal cameras, whose principal points are at (0, 0).

    Points are in the frame of the ideal left camera: that of the left camera, turned by its
    rectifying rotation; a point (x, y, z) projects to FOCAL_PX (x / z, y / z) in the left eye and
    to FOCAL_PX ((x - baseline) / z, y / z) in the right one.
    """

    stereo: StereoModel

    @property
    def baseline_m(self) -> float:
        return self.stereo.baseline_m

    @property
    def rectification(self) -> Array:
        """Turns points of the left optical frame into the frame of the ideal left camera."""
        return self.stereo.left.r

    def project(self, points: Array) -> Array:
        """Return pixels of both eyes [2, ..., 2] of points [..., 3], m."""
        left = FOCAL_PX * points[..., :2] / points[..., 2:]
        right = left.copy()
        right[..., 0] -= FOCAL_PX * self.baseline_m / points[..., 2]
        return np.stack([left, right])

    def corners(self, middle: Array) -> Array:
        """Return the first pixel (x, y) of each eye's window about a point [3]: [2, 2].

        Raises:
            ValueError: the point is not in front of the cameras.
        """
        if not middle[2] > 0.05:
            raise ValueError(
                f"the palm is at {middle.round(3).tolist()} m in the left camera's frame, expected "
                "in front of it: check the mount file and the joint positions"
            )
        wanted = self.project(middle) - (np.array(WINDOW) - 1) / 2
        # Whole pixels of the images, so that ideal cameras' windows are cut and not resampled.
        return np.rint(wanted + self._principal) - self._principal

    def windows(self, left: Image, right: Image, corners: Array) -> tuple[Image, Image]:
        """Cut both windows [h, w, 3] out of raw images; beyond their edges is black."""
        return (
            self._window(0, self.stereo.left, left, corners[0]),
            self._window(1, self.stereo.right, right, corners[1]),
        )

    def _window(self, eye: int, camera: CameraModel, image: Image, corner: Array) -> Image:
        if not self._is_ideal[eye]:
            return self._resampled(camera, image, corner)
        x, y = (int(v) for v in np.rint(corner + self._principal[eye]))
        return cut(image, x, y, *WINDOW)

    def _resampled(self, camera: CameraModel, image: Image, corner: Array) -> Image:
        k = np.array([[FOCAL_PX, 0, -corner[0]], [0, FOCAL_PX, -corner[1]], [0, 0, 1.0]])
        # Where pixels are much finer than the window's, they are averaged first.
        fine = max(int(camera.p[0, 0] / FOCAL_PX + 0.25), 1)
        k[:2] *= fine
        k[:2, 2] += 0.5 * (fine - 1)
        size = (WINDOW[0] * fine, WINDOW[1] * fine)
        maps = cv2.initUndistortRectifyMap(camera.k, camera.d, camera.r, k, size, cv2.CV_16SC2)
        window = cv2.remap(image, maps[0], maps[1], cv2.INTER_LINEAR)
        if fine > 1:
            window = cv2.resize(window, WINDOW, interpolation=cv2.INTER_AREA)
        return np.asarray(window, dtype=np.uint8)

    @cached_property
    def _principal(self) -> Array:
        return np.stack([self.stereo.left.p[:2, 2], self.stereo.right.p[:2, 2]])

    @cached_property
    def _is_ideal(self) -> tuple[bool, bool]:
        return _is_ideal(self.stereo.left), _is_ideal(self.stereo.right)


def _is_ideal(camera: CameraModel) -> bool:
    half = max(camera.size) / 2
    focal = np.array([camera.k[0, 0], camera.k[1, 1], camera.p[0, 0], camera.p[1, 1]])
    return (
        not camera.has_distortion
        and bool(np.abs(focal / FOCAL_PX - 1.0).max() * half < _SAME_PX)
        and bool(np.abs(camera.r - np.eye(3)).max() * FOCAL_PX < _SAME_PX)
        and bool(np.abs(camera.k[:2, 2] - camera.p[:2, 2]).max() < _SAME_PX)
    )


def cut(image: Image, x: int, y: int, width: int, height: int) -> Image:
    """Return a rectangle [height, width, ...] of an image; beyond its edges is black."""
    rows, columns = image.shape[:2]
    if x >= 0 and y >= 0 and x + width <= columns and y + height <= rows:
        return image[y : y + height, x : x + width]
    result = np.zeros((height, width, *image.shape[2:]), dtype=np.uint8)
    top, bottom = max(y, 0), min(y + height, rows)
    first, last = max(x, 0), min(x + width, columns)
    if top < bottom and first < last:
        result[top - y : bottom - y, first - x : last - x] = image[top:bottom, first:last]
    return result
