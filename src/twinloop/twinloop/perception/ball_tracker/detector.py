# SPDX-License-Identifier: Apache-2.0
"""Finds balls in both eyes' windows with the network."""

from __future__ import annotations

import threading
from dataclasses import dataclass
from typing import Protocol

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch.nn import functional

from twinloop.perception.ball_tracker.network import (
    BALL,
    HAND,
    MASK_STRIDE,
    VOTE_STRIDE,
    VoteNetwork,
    folded,
    read,
    standardised,
)
from twinloop.perception.ball_tracker.votes import Blob, find_blobs, gather

Array = NDArray[np.float64]
Image = NDArray[np.uint8]


@dataclass(frozen=True)
class Masks:
    """What one eye's pixels show.

    Attributes:
        hand, ball: probability of each [h, w], at `MASK_STRIDE`.
    """

    hand: NDArray[np.float32]
    ball: NDArray[np.float32]


@dataclass(frozen=True)
class Detection:
    """What was found in one eye's window.

    Attributes:
        blobs: balls, the best supported first.
        masks: None from a detector without.
    """

    blobs: list[Blob]
    masks: Masks | None = None


class Detector(Protocol):
    """Finds balls in both windows."""

    def detect(self, windows: tuple[Image, Image], corners: Array) -> tuple[Detection, Detection]:
        """Look at windows [H, W, 3] whose first pixels are at `corners` [2, 2] (x, y)."""
        ...


class LearnedDetector:
    """The network and its votes.

    Args:
        network: trained.
        least_area: of a ball that counts, pixels.
    """

    def __init__(self, network: VoteNetwork, least_area: float) -> None:
        self._network = folded(network)
        self._least_area = least_area
        self._lock = threading.Lock()

    def detect(self, windows: tuple[Image, Image], corners: Array) -> tuple[Detection, Detection]:
        pair = torch.from_numpy(np.stack(windows)).permute(0, 3, 1, 2)
        with self._lock, torch.inference_mode(), _one_thread():
            logits, votes = self._network(standardised(pair))
            maps = read(logits, votes)
            classes = functional.softmax(maps.logits, dim=1)
            cells = functional.avg_pool2d(classes[:, BALL], VOTE_STRIDE // MASK_STRIDE)
            fields = [t.numpy() for t in (classes, cells, maps.offset, maps.radius, maps.log_scale)]
        found = []
        for eye in range(2):
            probability, ball, offset, radius, log_scale = (one[eye] for one in fields)
            votes_here = gather(
                ball.astype(np.float64),
                offset.astype(np.float64),
                radius[0].astype(np.float64),
                log_scale.astype(np.float64),
                np.asarray(cv2.blur(windows[eye], (3, 3)), dtype=np.uint8),
                VOTE_STRIDE,
                corners[eye],
            )
            blobs = find_blobs(votes_here, self._least_area)
            found.append(Detection(blobs, Masks(probability[HAND], probability[BALL])))
        return found[0], found[1]


class _one_thread:
    """Runs torch on the caller's core: more threads cost more than they bring for one pair."""

    def __enter__(self) -> None:
        self._before = torch.get_num_threads()
        if self._before != 1:
            torch.set_num_threads(1)

    def __exit__(self, *_: object) -> None:
        if self._before != 1:
            torch.set_num_threads(self._before)
