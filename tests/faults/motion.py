# SPDX-License-Identifier: Apache-2.0
"""Figures of a recorded motion."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise

import numpy as np

Samples = list[tuple[int, np.ndarray]]
TICK_NS = 10_000_000
TICK_S = 0.01


def since(samples: Samples, stamp_ns: int) -> np.ndarray:
    """Positions [T, J] after a stamp."""
    return np.array([position for stamp, position in samples if stamp > stamp_ns])


def last_motion_ns(samples: Samples, after_ns: int) -> int:
    """Stamp of the last sample after `after_ns` that differs from the one before it."""
    moving = after_ns
    for (_, before), (stamp, position) in pairwise(samples):
        if stamp > after_ns and (position != before).any():
            moving = stamp
    return moving


def peak_rates(samples: Samples) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Greatest velocity, acceleration and jerk per joint [J], where no sample is missing."""
    peaks = [np.zeros(samples[0][1].size) for _ in range(3)]
    for run in _unbroken(samples):
        for order, peak in enumerate(peaks, start=1):
            if len(run) > order:
                rate = np.abs(np.diff(run, order, axis=0)).max(axis=0) / TICK_S**order
                np.maximum(peak, rate, out=peak)
    return peaks[0], peaks[1], peaks[2]


def _unbroken(samples: Samples) -> Iterator[np.ndarray]:
    run: Samples = []
    for sample in samples:
        if run and sample[0] - run[-1][0] != TICK_NS:
            yield np.array([position for _, position in run])
            run = []
        run.append(sample)
    yield np.array([position for _, position in run])
