# SPDX-License-Identifier: Apache-2.0
"""Training data on disk: parts with heights and the thing each cell shows, as the twin writes them.

Views that are turned, mirrored and scaled are views that another camera could have had.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from twinloop.grasping.parts import read_parts
from twinloop.grasping.segmentation.image import HEIGHT, STEP_M, UNSEEN, WIDTH, Floats, Mask

Heights = NDArray[np.int16]
Truth = NDArray[np.uint8]

_MOST_ZOOM, _MOST_SHIFT_PX, _MOST_LIFT = 1.2, 30.0, 10


@dataclass(frozen=True)
class Heaps:
    """Views of heaps.

    Attributes:
        heights: [N, 240, 320], 0.1 mm; `image.UNSEEN` where nothing was seen.
        labels: the thing that each cell truly shows [N, 240, 320], 0 for none.
        digest: of the files' content, to tell data sets apart.
    """

    heights: Heights
    labels: Truth
    digest: str

    def __len__(self) -> int:
        return len(self.labels)

    def view(self, index: int) -> tuple[Floats, Mask]:
        """Return heights [240, 320], m, and which cells are seen, of one view."""
        return metres(self.heights[index])


def metres(stored: Heights) -> tuple[Floats, Mask]:
    """Return stored heights [240, 320] in m, 0 where unseen, and which cells are seen."""
    is_seen = stored != UNSEEN
    return np.where(is_seen, stored * np.float32(STEP_M), np.float32(0.0)), is_seen


def load(folder: Path, split: str) -> Heaps:
    """Read all parts of a split.

    Raises:
        ValueError: there are none, or one is damaged; names the file.
    """
    digest = hashlib.sha256()
    found: list[tuple[Heights, Truth]] = []
    for path, (heights, labels) in read_parts(folder, split, ("heights", "labels")):
        if labels.ndim != 3:
            raise ValueError(f"{path}: labels are {labels.shape}, expected views of cells")
        size = (len(labels), HEIGHT, WIDTH)
        if (heights.shape, heights.dtype, labels.shape) != (size, np.dtype(np.int16), size):
            raise ValueError(
                f"{path}: heights are {heights.dtype} {heights.shape} and labels {labels.shape}, "
                f"expected int16 and {size}"
            )
        found.append((heights, labels.astype(np.uint8)))
        digest.update(np.ascontiguousarray(heights).data)
    heights, labels = (np.concatenate(column) for column in zip(*found, strict=True))
    return Heaps(heights, labels, digest.hexdigest())


def varied(heights: Heights, labels: Truth, rng: np.random.Generator) -> tuple[Heights, Truth]:
    """Return a view [240, 320] that is turned, mirrored, scaled, moved and lifted by up to 1 mm."""
    turn, zoom = rng.uniform(0, 360), _MOST_ZOOM ** rng.uniform(-1, 1)
    middle = ((WIDTH - 1) / 2, (HEIGHT - 1) / 2)
    matrix = np.asarray(cv2.getRotationMatrix2D(middle, turn, zoom), np.float64)
    matrix[:, 2] += rng.uniform(-_MOST_SHIFT_PX, _MOST_SHIFT_PX, 2)
    if rng.random() < 0.5:
        matrix[0] = -matrix[0]
        matrix[0, 2] += WIDTH - 1
    size, nearest = (WIDTH, HEIGHT), cv2.INTER_NEAREST
    moved = np.asarray(
        cv2.warpAffine(heights, matrix, size, flags=nearest, borderValue=float(UNSEEN)), np.int16
    )
    lifted = moved + np.int16(rng.integers(-_MOST_LIFT, _MOST_LIFT + 1))
    return (
        np.where(moved == UNSEEN, np.int16(UNSEEN), lifted),
        np.asarray(cv2.warpAffine(labels, matrix, size, flags=nearest, borderValue=0.0), np.uint8),
    )
