# SPDX-License-Identifier: Apache-2.0
"""Training data on disk: parts with crops, numbers and labels, as the twin writes them."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from twinloop.grasping.crops import COLUMNS, ROWS
from twinloop.grasping.parts import read_parts


@dataclass(frozen=True)
class Samples:
    """Grasps and their worth.

    Attributes:
        crops: [N, 32, 48] uint8.
        numbers: [N, 2], m.
        labels: robust quality [N], 0 to 1.
    """

    crops: Tensor
    numbers: Tensor
    labels: Tensor

    def __len__(self) -> int:
        return len(self.labels)


def load(folder: Path, split: str) -> Samples:
    """Read all parts of a split.

    Raises:
        ValueError: there are none, or one is damaged; names the file.
    """
    found: list[list[np.ndarray]] = []
    for path, (crops, numbers, labels) in read_parts(folder, split, ("crops", "numbers", "labels")):
        if labels.ndim != 1:
            raise ValueError(f"{path}: labels are {labels.shape}, expected one row of numbers")
        count = len(labels)
        if crops.shape != (count, ROWS, COLUMNS) or numbers.shape != (count, 2):
            raise ValueError(
                f"{path}: crops are {crops.shape} and numbers {numbers.shape}, expected "
                f"({count}, {ROWS}, {COLUMNS}) and ({count}, 2)"
            )
        found.append([crops, numbers, labels])
    crops, numbers, labels = (np.concatenate(column) for column in zip(*found, strict=True))
    return Samples(
        torch.from_numpy(crops.astype(np.uint8)),
        torch.from_numpy(numbers.astype(np.float32)),
        torch.from_numpy(labels.astype(np.float32)),
    )
