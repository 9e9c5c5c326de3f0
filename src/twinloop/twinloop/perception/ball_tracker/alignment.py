# SPDX-License-Identifier: Apache-2.0
"""Finds how far the rig is off its calibrated place, from where the hand's outline is seen.

The joints tell where the outline should be, the network's mask where it is. The difference, taken
along the outline's normals, is linear in a small motion of the rig (Harris, "Tracking with rigid
models", 1992); a filter with the calibration's uncertainty as its prior gathers it over frames.
"""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

from twinloop.perception.ball_tracker.detector import Masks
from twinloop.perception.ball_tracker.eyes import FOCAL_PX
from twinloop.perception.ball_tracker.network import MASK_STRIDE
from twinloop.perception.ball_tracker.outline import HandShape, Outline

Array = NDArray[np.float64]

_REACH_PX = 4  # outlines are looked for this far to both sides
_CLEAR = 0.25  # probability that is as good as 0 or, from 1, as 1
_RESIDUAL_PX = 0.7  # standard deviation of a difference
_ALIKE = 12.0  # neighbouring differences err together: that many count as one
_LEAST_POINTS = 25
_ROUNDS = 3
# Of the calibration, per axis: 0.3 degrees and 2 mm in all.
_ROTATION_STD, _PLACE_STD_M = np.radians(0.3) / np.sqrt(3.0), 0.002 / np.sqrt(3.0)
_WIDTH_STD_PX = 0.5  # by which masks may be too wide or too narrow everywhere
_MEMORY_S = 60.0  # a rig that is pushed is found again within this time


class RigAlignment:
    """Small motion of the rig against its calibration, known better from frame to frame.

    Args:
        side: of the hand.
        baseline_m: between the eyes.
    """

    def __init__(self, side: str, baseline_m: float) -> None:
        self._hand = HandShape(side)
        self._baseline_m = baseline_m
        deviations = [_ROTATION_STD] * 3 + [_PLACE_STD_M] * 3 + [_WIDTH_STD_PX]
        self._prior = np.diag(np.array(deviations) ** -2.0)
        self._information = self._prior.copy()
        self._motion = np.zeros(7)
        self._stamp_s: float | None = None
        self.points = 0  # of the outline that were used last

    @property
    def correction(self) -> Array:
        """Turns points as the calibration has them into what the eyes see [4, 4], left eye."""
        result = np.eye(4)
        result[:3, :3] = cv2.Rodrigues(self._motion[:3])[0]
        result[:3, 3] = self._motion[3:6]
        return result

    @property
    def covariance(self) -> Array:
        """Covariance of the motion [6, 6]: rotation [rad], translation [m]."""
        return np.asarray(np.linalg.inv(self._information)[:6, :6])

    def update(
        self,
        stamp_s: float,
        q: Array,
        ideal_from_root: Array,
        eye: int,
        masks: Masks,
        corner: Array,
    ) -> None:
        """Take in where one eye sees the hand.

        Args:
            stamp_s: of the exposure, s.
            q: joint positions [24], rad.
            ideal_from_root: the calibrated pose of the root link in the left eye [4, 4].
            eye: 0 left, 1 right.
            masks: of this eye.
            corner: first pixel of its window [2].
        """
        ends, boxes = self._hand.pose(q)
        transform = self.correction @ ideal_from_root
        turn, shift = transform[:3, :3], transform[:3, 3]
        offset = np.array([eye * self._baseline_m, 0.0, 0.0])
        shift = shift - offset
        outline = self._hand.outline(ends @ turn.T + shift, boxes @ turn.T + shift)
        found = _differences(outline, masks, corner)
        used = np.isfinite(found)
        design, residual = _jacobian(outline, offset)[used], found[used]
        self.points = len(residual)
        self._forget(stamp_s)
        if self.points < _LEAST_POINTS:
            return
        # Differences are to the motion that is assumed; the width is not in the outline yet.
        residual = residual - design[:, 6] * self._motion[6]
        left = residual
        for _ in range(_ROUNDS):
            # Cauchy's weights: fingers that are not where the joints say do not pull.
            weight = 1.0 / (1.0 + (left / _RESIDUAL_PX) ** 2) / (_RESIDUAL_PX**2 * _ALIKE)
            gathered = self._information + (design * weight[:, None]).T @ design
            step = np.linalg.solve(gathered, (design * weight[:, None]).T @ residual)
            left = residual - design @ step
        self._motion = self._motion + step
        self._information = gathered

    def _forget(self, stamp_s: float) -> None:
        """Let what was known fade towards the prior."""
        if self._stamp_s is not None and stamp_s > self._stamp_s:
            keep = np.exp(-(stamp_s - self._stamp_s) / _MEMORY_S)
            fresh = keep * self._information + (1.0 - keep) * self._prior
            self._motion = np.linalg.solve(fresh, keep * self._information @ self._motion)
            self._information = fresh
        self._stamp_s = stamp_s


def _differences(outline: Outline, masks: Masks, corner: Array) -> Array:
    """Return how far outside of the expected outline the seen one is [N], pixels; NaN if unclear.

    Along each normal the mask should fall from 1 to 0. Its sum tells where, finer than its cells.
    """
    steps = np.arange(-_REACH_PX, _REACH_PX + 1, dtype=np.float64)
    places = outline.pixels[:, None] + steps[:, None] * outline.normals[:, None]
    # Cell i of a mask is centred between its pixels.
    cells = ((places - corner - 0.5 * (MASK_STRIDE - 1)) / MASK_STRIDE).astype(np.float32)
    x, y = cells[..., 0], cells[..., 1]
    height, width = masks.hand.shape
    inside = ((x >= 0) & (x <= width - 1) & (y >= 0) & (y <= height - 1)).all(axis=1)
    seen, hiding = (
        cv2.remap(mask, x, y, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
        for mask in (masks.hand, masks.ball)
    )
    clear = (
        inside
        & (hiding.max(axis=1) < _CLEAR)
        & (seen[:, 0] > 1.0 - _CLEAR)
        & (seen[:, -1] < _CLEAR)
    )
    return np.where(clear, seen.sum(axis=1) - (_REACH_PX + 0.5), np.nan)


def _jacobian(outline: Outline, offset: Array) -> Array:
    """Return how the outline moves along its normals [N, 7] with the rig's motion and the width.

    Args:
        offset: of the eye from the left one [3], m.
    """
    x, y, z = outline.points.T
    a, b = outline.normals.T
    # The normal times the derivative of the projection: a direction in space.
    direction = FOCAL_PX / z[:, None] * np.stack([a, b, -(a * x + b * y) / z], axis=-1)
    turning = np.cross(outline.points + offset, direction)
    return np.concatenate([turning, direction, np.ones((len(x), 1))], axis=1)
