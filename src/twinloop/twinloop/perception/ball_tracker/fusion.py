# SPDX-License-Identifier: Apache-2.0
"""Makes points of what both eyes see: which sights belong together, and where their ball is."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from twinloop.perception.ball_tracker.eyes import FOCAL_PX
from twinloop.perception.ball_tracker.votes import Blob

Array = NDArray[np.float64]

_DEPTHS_M = (0.22, 0.75)  # of balls in and about the palm
_ROW_GATE_PX = 4.0  # parallel eyes see a ball on equal rows
_RADIUS_GATE = 0.25  # of its logarithm: apparent sizes that belong to a depth


@dataclass(frozen=True)
class Sight:
    """A ball as one or both eyes place it, in the ideal left camera's frame.

    Attributes:
        position: [3], m.
        covariance: [3, 3], m^2.
        visible_fraction: the smaller of both eyes', 0 to 1.
        best_fraction: the larger of both eyes'.
        color: [3].
        is_stereo: whether both eyes see it.
    """

    position: Array
    covariance: Array
    visible_fraction: float
    best_fraction: float
    color: Array
    is_stereo: bool


def calibrated(blob: Blob, scale: float, floor_px: float) -> Blob:
    """Return a blob with `scale` times its deviations, and `floor_px` added to them in squares."""
    return replace(
        blob,
        deviation=np.hypot(scale * blob.deviation, floor_px),
        radius_deviation=float(np.hypot(scale * blob.radius_deviation, floor_px)),
    )


def match(
    left: Sequence[Blob], right: Sequence[Blob], radius_m: float, baseline_m: float
) -> list[Sight]:
    """Pair what the eyes see, each blob once, the likeliest pairs first; the rest stays alone.

    Args:
        radius_m: of the balls.
        baseline_m: between the eyes.
    """
    pairs = []
    for i, a in enumerate(left):
        for j, b in enumerate(right):
            cost = _mismatch(a, b, radius_m, baseline_m)
            if cost is not None:
                pairs.append((cost, i, j))
    sights, used_left, used_right = [], set(), set()
    for _, i, j in sorted(pairs):
        if i in used_left or j in used_right:
            continue
        used_left.add(i)
        used_right.add(j)
        sights.append(_place(left[i], right[j], radius_m, baseline_m))
    sights += [
        _place(blob, None, radius_m, baseline_m)
        for i, blob in enumerate(left)
        if i not in used_left
    ]
    sights += [
        _place(None, blob, radius_m, baseline_m)
        for j, blob in enumerate(right)
        if j not in used_right
    ]
    return sights


def _mismatch(a: Blob, b: Blob, radius_m: float, baseline_m: float) -> float | None:
    """Return how badly two blobs fit together as one ball, None where they cannot be one."""
    rows = abs(a.centre[1] - b.centre[1]) / (1.0 + a.deviation[1] + b.deviation[1])
    disparity = a.centre[0] - b.centre[0]
    if rows > _ROW_GATE_PX or disparity <= 0.0:
        return None
    depth = FOCAL_PX * baseline_m / disparity
    if not _DEPTHS_M[0] < depth < _DEPTHS_M[1]:
        return None
    expected = FOCAL_PX * radius_m / depth
    sizes = max(
        abs(np.log(blob.radius / expected)) - 2.0 * blob.radius_deviation / blob.radius
        for blob in (a, b)
    )
    if sizes > _RADIUS_GATE:
        return None
    return float(rows + max(sizes, 0.0) / _RADIUS_GATE)


def _place(a: Blob | None, b: Blob | None, radius_m: float, baseline_m: float) -> Sight:
    """Least squares over centres and apparent radii of the eyes that see the ball."""
    rows, values, deviations = [], [], []
    for blob, shift in ((a, 0.0), (b, baseline_m)):
        if blob is None:
            continue
        # (u, v, r) = f (X / z - shift / z, Y / z, R / z): linear in (X / z, Y / z, 1 / z).
        rows += [
            [FOCAL_PX, 0.0, -FOCAL_PX * shift],
            [0.0, FOCAL_PX, 0.0],
            [0.0, 0.0, FOCAL_PX * radius_m],
        ]
        values += [*blob.centre, blob.radius]
        deviations += [*blob.deviation, blob.radius_deviation]
    design, weight = np.array(rows), 1.0 / np.array(deviations)
    normal = (design * weight[:, None] ** 2).T @ design
    covariance = np.linalg.inv(normal)
    x, y, inverse = covariance @ ((design * weight[:, None] ** 2).T @ np.array(values))
    depth = 1.0 / max(inverse, 1e-3)
    position = np.array([x * depth, y * depth, depth])
    # d(x z, y z, z) / d(x, y, 1 / z)
    jacobian = depth * np.array(
        [[1.0, 0.0, -x * depth], [0.0, 1.0, -y * depth], [0.0, 0.0, -depth]]
    )
    seen = [blob for blob in (a, b) if blob is not None]
    fractions = [blob.visible_fraction for blob in seen]
    areas = np.array([blob.area for blob in seen])
    return Sight(
        position,
        jacobian @ covariance @ jacobian.T,
        min(fractions) if len(seen) == 2 else 0.0,
        max(fractions),
        np.average([blob.color for blob in seen], axis=0, weights=areas),
        len(seen) == 2,
    )
