# SPDX-License-Identifier: Apache-2.0
"""Corners of a chessboard to a few hundredths of a pixel, beside markers too.

About a corner the picture is modelled as two blurred edges that cross: a + b tanh(l1/s) tanh(l2/s),
with l the signed distances of a pixel from the edges and s the blur. It is fitted to those pixels
alone that show the four squares at the corner: not the next edges, not the markers in the white
ones. (`cv2.cornerSubPix` takes all of a square window, which must be tiny beside a marker.)
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]
Image = NDArray[np.uint8]
_MOST_HALF = 9  # half the side of the window, pixels
_REACH = 0.75  # of the squares' sides that is looked at
_BLURRED = 1.3  # pixels next to other edges that are left alone
_LEAST_PIXELS = 14
_STEPS = 12
_LARGEST_STEP = np.array([0.5, 0.5, 0.2, 0.2, 0.3, 50.0, 50.0])  # of the parameters of `_fit`
_MOST_SHIFT = 0.15  # of a side, from where a corner was expected; and a pixel
_LEAST_CONTRAST = 12.0  # grey values between black and white
_MOST_REST = 0.2  # what the model leaves unexplained, by the contrast


class Saddles(NamedTuple):
    """Refined corners: pixels [N, 2], and which of them are corners at all [N]."""

    pixels: Array
    are_corners: NDArray[np.bool_]


def refine(grey: Image, places: Array, sides: Array, clear_share: float) -> Saddles:
    """Refine corners.

    Args:
        grey: picture [H, W].
        places: about where corners are [N, 2], pixels.
        sides: of a square across and down at each, as columns [N, 2, 2], pixels.
        clear_share: distance of a marker from the sides of its white square, in sides; 1 without.
    """
    if len(places) == 0:
        return Saddles(np.zeros((0, 2)), np.zeros(0, dtype=bool))
    half = int(np.clip(np.ceil(_REACH * np.abs(sides).sum(axis=2).max()), 2, _MOST_HALF))
    whole = np.rint(places).astype(int)
    height, width = grey.shape
    is_inside = ((whole >= half) & (whole < np.array([width, height]) - half)).all(axis=1)
    whole = np.clip(whole, half, np.array([width, height]) - half - 1)
    v, u = np.mgrid[-half : half + 1, -half : half + 1].reshape(2, -1)
    x = whole[:, :1] + u  # [N, P]
    y = whole[:, 1:] + v
    values = grey[y, x].astype(np.float64)
    offset = np.stack([x, y], axis=-1) - places[:, None]  # [N, P, 2]
    in_squares = offset @ np.swapaxes(np.linalg.inv(sides), 1, 2)  # in sides of a square
    lengths = np.linalg.norm(sides, axis=1)[:, None]  # [N, 1, 2]
    white, low, high = _white_quadrants(values, in_squares, clear_share)
    weight = _mask(in_squares, lengths, white, clear_share)
    is_seen = is_inside & (weight.sum(axis=1) >= _LEAST_PIXELS) & (high - low >= _LEAST_CONTRAST)
    found, rest = _fit(values, offset, weight, sides, white, low, high)
    shift = np.abs(found).max(axis=1)
    limit = 1.0 + _MOST_SHIFT * lengths.min(axis=(1, 2))
    is_good = is_seen & (shift <= limit) & (rest <= _MOST_REST)
    return Saddles(places + np.where(is_good[:, None], found, 0.0), is_good)


def _white_quadrants(
    values: Array, in_squares: Array, clear_share: float
) -> tuple[Array, Array, Array]:
    """Return +1 where the squares with coordinates of equal sign are the white ones [N], else -1,
    with the grey values of black and white [N]."""
    near = np.abs(in_squares).max(axis=-1) < max(min(clear_share, 0.5), 0.2)
    equal = in_squares[..., 0] * in_squares[..., 1] > 0.0
    one = _mean(values, near & equal)
    other = _mean(values, near & ~equal)
    return np.where(one >= other, 1.0, -1.0), np.minimum(one, other), np.maximum(one, other)


def _mean(values: Array, chosen: NDArray[np.bool_]) -> Array:
    return (values * chosen).sum(axis=1) / np.maximum(chosen.sum(axis=1), 1)


def _mask(in_squares: Array, lengths: Array, white: Array, clear_share: float) -> Array:
    """Return 1 for the pixels that show the four squares and nothing else, else 0 [N, P]."""
    reach = np.abs(in_squares)
    blurred = _BLURRED / lengths  # in sides of a square
    mask = (reach <= np.minimum(_REACH, 1.0 - blurred)).all(axis=-1)
    if clear_share < 1.0:
        is_white = in_squares[..., 0] * in_squares[..., 1] * white[:, None] > 0.0
        is_marker = (reach > clear_share - blurred).all(axis=-1)
        mask &= ~(is_white & is_marker)
    return np.where(mask, 1.0, 0.0)


def _fit(
    values: Array,
    offset: Array,
    weight: Array,
    sides: Array,
    white: Array,
    low: Array,
    high: Array,
) -> tuple[Array, Array]:
    """Fit the model by damped Gauss-Newton steps; returns shifts [N, 2] and what is left [N]."""
    angles = np.arctan2(sides[:, 1], sides[:, 0])  # of the edges, across and down [N, 2]
    # x, y, angle of the edge across, angle of the edge down, blur, a, b
    guess = np.zeros((len(values), 7))
    guess[:, 2:4], guess[:, 4] = angles, 1.2
    guess[:, 5], guess[:, 6] = (high + low) / 2, white * (high - low) / 2
    turn = np.sign(np.linalg.det(sides))[:, None]
    for _ in range(_STEPS):
        model, slopes = _model(guess, offset, turn)
        residual = (values - model) * weight
        slopes = slopes * weight[..., None]
        matrix = np.swapaxes(slopes, 1, 2) @ slopes
        matrix += 1e-3 * np.eye(7) * np.einsum("nii->ni", matrix)[:, None] + 1e-9 * np.eye(7)
        step = np.linalg.solve(matrix, np.einsum("npk,np->nk", slopes, residual)[..., None])[..., 0]
        guess += np.clip(step, -_LARGEST_STEP, _LARGEST_STEP)
        guess[:, 4] = np.clip(guess[:, 4], 0.3, 5.0)
    model, _ = _model(guess, offset, turn)
    rest = np.sqrt(((values - model) ** 2 * weight).sum(axis=1) / np.maximum(weight.sum(axis=1), 1))
    return guess[:, :2], rest / np.maximum(high - low, 1.0)


def _model(guess: Array, offset: Array, turn: Array) -> tuple[Array, Array]:
    """Return grey values [N, P] and their slopes by the parameters [N, P, 7]."""
    x = offset[..., 0] - guess[:, :1]
    y = offset[..., 1] - guess[:, 1:2]
    cosine, sine = np.cos(guess[:, 2:4]), np.sin(guess[:, 2:4])
    blur, mean, half = guess[:, 4:5], guess[:, 5:6], guess[:, 6:7]
    # Signed distances: from the edge across, positive on the side of +down; and the other.
    across = turn * (-sine[:, :1] * x + cosine[:, :1] * y)
    down = -turn * (-sine[:, 1:] * x + cosine[:, 1:] * y)
    t1, t2 = np.tanh(across / blur), np.tanh(down / blur)
    s1, s2 = (1.0 - t1**2) / blur, (1.0 - t2**2) / blur
    by_across, by_down = half * s1 * t2, half * t1 * s2
    along_across = cosine[:, :1] * x + sine[:, :1] * y
    along_down = cosine[:, 1:] * x + sine[:, 1:] * y
    slopes = np.stack(
        [
            by_across * turn * sine[:, :1] - by_down * turn * sine[:, 1:],
            -by_across * turn * cosine[:, :1] + by_down * turn * cosine[:, 1:],
            -by_across * turn * along_across,
            by_down * turn * along_down,
            -(by_across * across + by_down * down) / blur,
            np.ones_like(t1),
            t1 * t2,
        ],
        axis=-1,
    )
    return mean + half * t1 * t2, slopes
