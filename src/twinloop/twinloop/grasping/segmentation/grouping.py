# SPDX-License-Identifier: Apache-2.0
"""From the network's maps to things: centres are peaks of the heat, cells go where they point.

After Panoptic-DeepLab (Cheng et al. 2020, section 3.3). A thing's score is the heat of its centre
times the mean probability of its cells.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch.nn import functional

from twinloop.grasping.segmentation.image import HEIGHT, WIDTH, Mask
from twinloop.grasping.segmentation.network import FOLD, OFFSET_SCALE, Maps

_TRIED = 4  # peaks, for each centre that there may be

Labels = NDArray[np.uint16]
Scores = NDArray[np.float64]


@dataclass(frozen=True)
class GroupingSettings:
    """Numbers of the grouping.

    Attributes:
        least_foreground: probability above which a cell is of a thing.
        least_heat: of a centre.
        apart: side of the square in which a centre is the hottest, cells of the heat-map; odd.
        most: centres of an image.
        least_cells: of a thing, of the canvas.
    """

    least_foreground: float = 0.5
    least_heat: float = 0.15
    apart: int = 7
    most: int = 64
    least_cells: int = 40


def group(
    maps: Maps, allowed: Mask, settings: GroupingSettings | None = None
) -> tuple[Labels, Scores]:
    """Return labels [240, 320], 0 for no thing, and scores [K], the greatest first.

    Args:
        maps: of one canvas.
        allowed: cells that may be of a thing [240, 320].
    """
    settings = settings or GroupingSettings()
    labels = np.zeros((HEIGHT, WIDTH), np.uint16)
    probability = torch.sigmoid(maps.foreground[0]).numpy()
    rows, columns = np.nonzero((probability > settings.least_foreground) & allowed)
    centres, heat = _peaks(maps, settings)
    if not len(rows) or not len(centres):
        return labels, np.zeros(0)
    offsets = OFFSET_SCALE * maps.offsets[0].numpy()[:, rows // FOLD, columns // FOLD]
    # Middles of canvas cells in cells of the maps.
    target = (np.stack([rows, columns]) + 0.5) / FOLD - 0.5 + offsets
    # Squared distances less what is common to all centres.
    far = (centres**2).sum(1)[:, None] - 2.0 * (centres @ target)
    nearest = far.argmin(0)
    counts = np.bincount(nearest, minlength=len(centres))
    sums = np.bincount(nearest, probability[rows, columns], minlength=len(centres))
    scores = heat * sums / np.maximum(counts, 1)
    kept = np.flatnonzero(counts >= settings.least_cells)
    kept = kept[np.argsort(-scores[kept], kind="stable")]
    number = np.zeros(len(centres), np.uint16)
    number[kept] = np.arange(1, len(kept) + 1)
    labels[rows, columns] = number[nearest]
    return labels, scores[kept]


def _peaks(maps: Maps, settings: GroupingSettings) -> tuple[NDArray[np.float64], Scores]:
    """Return rows and columns [K, 2] of centres in cells of the heat-map, and their heat [K]."""
    heat = maps.heat
    hottest = functional.max_pool2d(heat[None], settings.apart, 1, settings.apart // 2)[0]
    found = heat[0].numpy()
    rows, columns = np.nonzero((hottest == heat)[0].numpy() & (found > settings.least_heat))
    order = np.argsort(-found[rows, columns], kind="stable")[: _TRIED * settings.most]
    kept: list[tuple[int, int]] = []
    for row, column in zip(rows[order].tolist(), columns[order].tolist(), strict=True):
        # Neighbours that are equally hot are one centre.
        if all(max(abs(row - r), abs(column - c)) > settings.apart // 2 for r, c in kept):
            kept.append((row, column))
        if len(kept) == settings.most:
            break
    centres = np.array(kept, np.int64).reshape(-1, 2)
    heats = np.clip(found[centres[:, 0], centres[:, 1]], 0.0, 1.0).astype(np.float64)
    return centres.astype(np.float64), heats
