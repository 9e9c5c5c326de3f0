# SPDX-License-Identifier: Apache-2.0
"""How well things are found: average precision and recall over overlaps, as COCO counts them.

After Lin et al. 2014 ("Microsoft COCO"): a thing that is told is right if its overlap with a true
one (intersection by union of their cells) exceeds a bound, each true one once, the surest first.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from twinloop.grasping.segmentation.image import Mask

BOUNDS = np.arange(50, 96, 5) / 100
_LEAST_CELLS = 40  # of a true thing, of the canvas; what shows less is counted neither way
_RECALLS = np.linspace(0.0, 1.0, 101)

Numbers = NDArray[np.float64]


@dataclass
class Accuracy:
    """Gathers what was told of many views."""

    truths: int = 0
    views: int = 0
    _scores: list[Numbers] = field(default_factory=list)
    _right: list[NDArray[np.bool_]] = field(default_factory=list)

    def add(
        self,
        truth: NDArray[np.integer],
        labels: NDArray[np.integer],
        scores: Numbers,
        counted: Mask,
    ) -> None:
        """Add a view.

        Args:
            truth: things, 0 for none [H, W].
            labels: as they were told, 1 to K, 0 for none [H, W].
            scores: of the labels [K], falling.
            counted: cells that count [H, W].
        """
        overlaps = _overlaps(np.where(counted, truth, 0), np.where(counted, labels, 0), len(scores))
        right = np.zeros((len(overlaps.T), len(BOUNDS)), bool)
        for place, bound in enumerate(BOUNDS):
            left = overlaps.copy()
            for told in range(left.shape[1]):
                best = int(left[:, told].argmax()) if len(left) else 0
                if len(left) and left[best, told] >= bound - 1e-9:
                    right[told, place] = True
                    left[best] = 0.0
        self.truths += len(overlaps)
        self.views += 1
        self._scores.append(np.asarray(scores, np.float64))
        self._right.append(right)

    def figures(self) -> dict[str, float]:
        """Return average precision (mean over overlaps of 0.5 to 0.95, and at 0.5) and recall
        likewise, precision at 0.5, and what they were counted from."""
        scores = np.concatenate([*self._scores, np.zeros(0)])
        right = np.concatenate([*self._right, np.zeros((0, len(BOUNDS)), bool)])
        precisions = [_average_precision(scores, column, self.truths) for column in right.T]
        recalls = right.sum(0) / max(self.truths, 1)
        return {
            "ap": float(np.mean(precisions)),
            "ap50": float(precisions[0]),
            "recall": float(np.mean(recalls)),
            "recall50": float(recalls[0]),
            "precision50": float(right[:, 0].mean()) if len(right) else 0.0,
            "views": self.views,
            "things": self.truths,
            "told": len(scores),
        }


def _overlaps(truth: NDArray[np.integer], labels: NDArray[np.integer], told: int) -> Numbers:
    """Return intersection by union of true with told things [N, K].

    Cells of true things that hardly show are nobody's.
    """
    sizes = np.bincount(truth.ravel().astype(np.int64))
    shows = sizes >= _LEAST_CELLS
    shows[0] = True
    numbers = np.cumsum(shows) - 1
    counted = shows[truth]
    both = numbers[truth[counted]] * (told + 1) + labels[counted].astype(np.int64)
    table = np.bincount(both, minlength=(numbers[-1] + 1) * (told + 1)).astype(np.float64)
    table = table.reshape(-1, told + 1)
    union = table.sum(1)[1:, None] + table.sum(0)[None, 1:] - table[1:, 1:]
    return np.asarray(table[1:, 1:] / np.maximum(union, 1.0))


def _average_precision(scores: Numbers, right: NDArray[np.bool_], truths: int) -> float:
    """Return the mean of the best precision at 101 recalls; equal scores come at once."""
    if not len(scores) or not truths:
        return 0.0
    order = np.argsort(-scores, kind="stable")
    hits = np.cumsum(right[order])
    last = np.append(np.diff(scores[order]) != 0, True)
    precision = (hits / np.arange(1, len(hits) + 1))[last]
    recall = (hits / truths)[last]
    best = np.maximum.accumulate(precision[::-1])[::-1]
    place = np.searchsorted(recall, _RECALLS - 1e-9, "left")
    return float(np.mean(np.append(best, 0.0)[place]))
