# SPDX-License-Identifier: Apache-2.0
"""Ferrari-Canny quality of two-fingered grasps with soft contacts.

The largest ball about the origin in the convex hull of the contact wrenches (Ferrari & Canny 1992,
"Planning optimal grasps", for forces whose sum is bounded): the least, over unit directions u, of
the greatest w·u among the wrenches w. Contacts are soft (torsion about the normal) and friction
cones have eight edges, as in Dex-Net 2.0 (Mahler et al. 2017, section III).
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]
CONE_EDGES = 8
PATCH_M = 0.004  # radius of a contact's patch: torsion is at most friction times it
_DIRECTIONS = 384
_STARTS = 4
_STEPS = 40


def wrenches(
    contacts: Array, normals: Array, centre: Array, friction: Array, length_m: Array
) -> Array:
    """Return the wrenches that contacts can exert, of unit normal force [N, 2 * 10, 6].

    Args:
        contacts: [N, 2, 3], m.
        normals: [N, 2, 3], into the object, of unit length.
        centre: what torques are about, the centre of mass [N, 3], m.
        friction: coefficient [N].
        length_m: that torques are divided by, the object's size [N], m.
    """
    helper = np.where(np.abs(normals[..., :1]) < 0.9, [1.0, 0.0, 0.0], [0.0, 1.0, 0.0])
    first = np.cross(normals, helper)
    first /= np.linalg.norm(first, axis=-1, keepdims=True)
    second = np.cross(normals, first)
    turn = 2 * np.pi * np.arange(CONE_EDGES) / CONE_EDGES
    sideways = (
        np.cos(turn)[:, None] * first[:, :, None] + np.sin(turn)[:, None] * second[:, :, None]
    )
    force = normals[:, :, None] + friction[:, None, None, None] * sideways
    arm = (contacts - centre[:, None])[:, :, None]
    torque = np.cross(np.broadcast_to(arm, force.shape), force)
    # A soft contact turns about its normal while it presses.
    press = np.repeat(normals[:, :, None], 2, axis=2)
    turning = friction[:, None, None, None] * PATCH_M * np.array([1.0, -1.0])[:, None] * press
    turning = turning + np.cross(np.broadcast_to(arm, press.shape), press)
    force = np.concatenate([force, press], axis=2)
    torque = np.concatenate([torque, turning], axis=2) / length_m[:, None, None, None]
    return np.concatenate([force, torque], axis=-1).reshape(len(contacts), -1, 6)


def ferrari_canny(hull: Array) -> Array:
    """Return the quality of wrenches [N, W, 6]: [N], 0 where the origin is not inside their hull.

    Minimised from the worst of fixed directions by subgradients, so what is returned is an upper
    bound, most often within a fifth; tests hold it against all facets.
    """
    directions = _directions()
    support = (hull @ directions.T).max(1)
    starts = np.argsort(support, axis=1)[:, :_STARTS]
    best = np.take_along_axis(support, starts[:, :1], 1)[:, 0]
    u = directions[starts]
    for step in range(_STEPS):
        values = u @ hull.transpose(0, 2, 1)
        active = values.argmax(-1)
        best = np.minimum(best, values.max(-1).min(1))
        worst = np.take_along_axis(hull, active[..., None], 1)
        sideways = worst - (worst * u).sum(-1, keepdims=True) * u
        length = np.linalg.norm(sideways, axis=-1, keepdims=True)
        u = u - (0.5 * 0.88**step) * sideways / np.maximum(length, 1e-9)
        u /= np.linalg.norm(u, axis=-1, keepdims=True)
    return np.maximum(best, 0.0)


@lru_cache(maxsize=1)
def _directions() -> Array:
    drawn = np.random.default_rng(6).standard_normal((_DIRECTIONS, 6))
    axes = np.concatenate([np.eye(6), -np.eye(6)])
    found = np.concatenate([axes, drawn])
    return found / np.linalg.norm(found, axis=1, keepdims=True)
