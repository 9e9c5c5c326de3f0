# SPDX-License-Identifier: Apache-2.0
"""What the network shall say of a view, and how wrong it is (Cheng et al. 2020, section 3.2)."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from twinloop.grasping.segmentation.data import Truth
from twinloop.grasping.segmentation.image import HEIGHT, WIDTH, Floats
from twinloop.grasping.segmentation.network import FOLD, OFFSET_SCALE, Maps

_SIGMA = 2.0  # of a centre's heat, cells of the heat-map
_LEAST_CELLS = 24  # of the canvas, for a thing to have a centre
_HEAT_WEIGHT, _OFFSET_WEIGHT = 100.0, 1.0


class Target(NamedTuple):
    """Maps of a view, and where offsets count.

    Attributes:
        foreground: 1 where a thing is [240, 320].
        heat: [120, 160].
        offsets: [2, 120, 160]; see `network.Maps`.
        inside: where there is an offset [120, 160].
    """

    foreground: Floats
    heat: Floats
    offsets: Floats
    inside: NDArray[np.bool_]


def target(labels: Truth) -> Target:
    """Return what the network shall say of a view by its labels [240, 320]."""
    size = (HEIGHT // FOLD, WIDTH // FOLD)
    row, column = np.indices(size).astype(np.float32)
    heat = np.zeros(size, np.float32)
    offsets = np.zeros((2, *size), np.float32)
    inside = np.zeros(size, bool)
    coarse = labels[::FOLD, ::FOLD]
    for label in np.unique(labels[labels > 0]):
        rows, columns = np.nonzero(labels == label)
        if len(rows) < _LEAST_CELLS:
            continue
        middle_row, middle_column = ((np.mean(axis) + 0.5) / FOLD - 0.5 for axis in (rows, columns))
        far = (row - middle_row) ** 2 + (column - middle_column) ** 2
        heat = np.maximum(heat, np.exp(-far / (2 * _SIGMA**2)))
        of_it = coarse == label
        inside |= of_it
        offsets[0][of_it] = (middle_row - row[of_it]) / OFFSET_SCALE
        offsets[1][of_it] = (middle_column - column[of_it]) / OFFSET_SCALE
    return Target((labels > 0).astype(np.float32), heat.astype(np.float32), offsets, inside)


def loss(maps: Maps, wanted: list[Target]) -> Tensor:
    """Return the loss of a batch: cross-entropy of the foreground, squared error of the heat, and
    absolute error of the offsets."""
    foreground, heat, offsets, inside = (
        torch.from_numpy(np.stack(column)) for column in zip(*wanted, strict=True)
    )
    wrong = (maps.offsets - offsets).abs().sum(1)[inside]
    return (
        functional.binary_cross_entropy_with_logits(maps.foreground, foreground)
        + _HEAT_WEIGHT * functional.mse_loss(maps.heat, heat)
        + _OFFSET_WEIGHT * wrong.sum() / max(int(inside.sum()), 1)
    )
