# SPDX-License-Identifier: Apache-2.0
"""From the network's log-odds to the probability that a grasp holds, and how well that is met.

A logistic map of two numbers (Platt 1999, "Probabilistic outputs for support vector machines"),
with his targets, which keep it finite where all or none held.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]
BINS = 10
_ITERATIONS = 60
_LEAST_SLOPE = 0.02


def fit(odds: Array, held: NDArray[np.bool_]) -> tuple[float, float]:
    """Return slope and intercept for log-odds [N] and outcomes [N].

    The slope is kept positive: what the network prefers is never told to be worse.

    Raises:
        ValueError: fewer than ten outcomes.
    """
    if len(odds) < 10:
        raise ValueError(f"there are {len(odds)} outcomes to calibrate with, expected at least 10")
    positive, negative = float(held.sum()), float((~held).sum())
    target = np.where(held, (positive + 1) / (positive + 2), 1 / (negative + 2))
    inputs = np.column_stack([odds, np.ones(len(odds))])
    weights = np.array([0.1, 0.0])
    for _ in range(_ITERATIONS):
        probability = 1 / (1 + np.exp(-np.clip(inputs @ weights, -30, 30)))
        gradient = inputs.T @ (probability - target)
        curvature = (inputs * (probability * (1 - probability))[:, None]).T @ inputs
        weights = weights - np.linalg.solve(curvature + 1e-6 * np.eye(2), gradient)
    if weights[0] < _LEAST_SLOPE:
        share = (positive + 1) / (positive + negative + 2)
        middle = float(np.mean(odds))
        return _LEAST_SLOPE, float(np.log(share / (1 - share)) - _LEAST_SLOPE * middle)
    return float(weights[0]), float(weights[1])


def reliability(quality: Array, held: NDArray[np.bool_]) -> dict[str, Any]:
    """Return told and found shares by bin, and their expected difference (ECE, Guo et al. 2017)."""
    place = np.minimum((quality * BINS).astype(int), BINS - 1)
    rows, error = [], 0.0
    for index in range(BINS):
        inside = place == index
        if not inside.any():
            continue
        told, found = float(quality[inside].mean()), float(held[inside].mean())
        rows.append({"told": told, "held": found, "count": int(inside.sum())})
        error += inside.mean() * abs(told - found)
    return {"bins": rows, "expected_calibration_error": float(error)}
