# SPDX-License-Identifier: Apache-2.0
"""What a grasp is truly worth: contacts and collisions by rays through the true scene, and the
Ferrari-Canny quality of the contacts, under errors of pose and friction.

A grasp's robust quality is the share of errors under which fingers come down freely, both meet the
same object first, and the quality there exceeds a threshold (Mahler et al. 2017, section III).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from twinloop.grasping.force_closure import ferrari_canny, wrenches
from twinloop.grasping.gripper import Gripper

from twinloop_sim.grasping.scene import Scene

Array = NDArray[np.float64]

# Standard deviations of the errors: across, closing and approach [m], turn [rad], friction.
POSITION_M, ANGLE_RAD, FRICTION = (0.002, 0.002, 0.001), 0.03, 0.1
DRAWS = 6
THRESHOLD = 0.002  # of the quality, as in Dex-Net 2.0
_ABOVE_M = 0.3
_RAYS_AT_ONCE = 16_000
_TOLERANCE_M = 0.0005
_PAD_ACROSS = (-0.4, 0.0, 0.4)  # of the finger's width
_PAD_UP = (0.1, 0.45, 0.9)  # of the pad's height, above the tips


@dataclass(frozen=True)
class WorldGrasps:
    """Grasps in the world.

    Attributes:
        position: of the middle between the tips [N, 3], m.
        rotation: [N, 3, 3]; columns across, closing and approach.
        width: opening [N], m.
    """

    position: Array
    rotation: Array
    width: Array

    def __len__(self) -> int:
        return len(self.width)

    def some(self, which: NDArray[np.int64]) -> WorldGrasps:
        """Return the grasps with these indices."""
        return WorldGrasps(self.position[which], self.rotation[which], self.width[which])

    def disturbed(self, rng: np.random.Generator) -> WorldGrasps:
        """Return grasps as an arm with errors would take them."""
        shift = rng.normal(0, POSITION_M, self.position.shape)
        moved = self.position + np.einsum("nij,nj->ni", self.rotation, shift)
        turn = rng.normal(0, ANGLE_RAD, len(self))
        cosine, sine = np.cos(turn)[:, None], np.sin(turn)[:, None]
        across, closing, approach = (self.rotation[:, :, k] for k in range(3))
        turned = np.stack(
            [cosine * across + sine * closing, cosine * closing - sine * across, approach], axis=2
        )
        return WorldGrasps(moved, turned, self.width)


@dataclass(frozen=True)
class Contacts:
    """What closing pads meet first.

    Attributes:
        body: that both meet [N], -1 where they do not.
        points, normals: [N, 2, 3]; normals point out of the object.
    """

    body: NDArray[np.int64]
    points: Array
    normals: Array


def robust_quality(
    scene: Scene, grasps: WorldGrasps, gripper: Gripper, rng: np.random.Generator
) -> Array:
    """Return the robust quality of grasps [N], 0 to 1.

    What fails as it is meant and with the first errors counts as 0 without further draws.
    """
    held = np.zeros(len(grasps))
    for draw in range(DRAWS):
        which = np.flatnonzero(held > 0) if draw > 1 else np.arange(len(grasps))
        if len(which):
            some = grasps.some(which)
            held[which] += _holds(scene, some.disturbed(rng) if draw else some, gripper, rng)
    return held / DRAWS


def _holds(
    scene: Scene, grasps: WorldGrasps, gripper: Gripper, rng: np.random.Generator
) -> NDArray[np.bool_]:
    """Return whether grasps [N] come down freely and their contacts exceed the threshold."""
    holds = clear_of(scene, grasps, gripper)
    free = np.flatnonzero(holds)
    if not len(free):
        return holds
    found = contacts(scene, grasps.some(free), gripper)
    good = np.flatnonzero(found.body >= 0)
    holds[free] = False
    if len(good):
        holds[free[good]] = contact_quality(scene, found, good, rng) > THRESHOLD
    return holds


def contact_quality(
    scene: Scene, found: Contacts, which: NDArray[np.int64], rng: np.random.Generator
) -> Array:
    """Return the Ferrari-Canny quality of some contacts [len(which)], with drawn friction."""
    items = [scene.items[int(body)] for body in found.body[which]]
    places = {body: scene.pose(body)[0] for body in scene.items}
    centre = np.array([places[one.body] for one in items])
    friction = np.array([one.friction for one in items])
    friction = np.maximum(friction + rng.normal(0, FRICTION, len(which)), 0.05)
    length = np.array([one.shape.size_m for one in items])
    hull = wrenches(found.points[which], -found.normals[which], centre, friction, length)
    return ferrari_canny(hull)


def contacts(scene: Scene, grasps: WorldGrasps, gripper: Gripper) -> Contacts:
    """Return what the pads of grasps meet when they close."""
    across, closing, approach = (grasps.rotation[:, None, :, k] for k in range(3))
    grid = np.array([[a, u] for a in _PAD_ACROSS for u in _PAD_UP])
    pads = (
        grasps.position[:, None]
        + grid[None, :, :1] * gripper.finger_width_m * across
        - grid[None, :, 1:] * gripper.pad_height_m * approach
    )
    reach = grasps.width[:, None, None] / 2 * closing
    bodies, points, normals, places = [], [], [], []
    for sign in (1.0, -1.0):
        body, share, normal = cast(scene, pads - sign * reach, pads + sign * reach)
        first = np.where(body >= 0, share, np.inf).argmin(1)
        pick = (np.arange(len(grasps)), first)
        bodies.append(np.where((body >= 0).any(1), body[pick], -1))
        points.append((pads - sign * reach + 2 * sign * reach * share[..., None])[pick])
        normals.append(normal[pick])
        places.append(share[pick])
    is_object = np.isin(bodies[0], list(scene.items)) & (bodies[0] == bodies[1])
    # Pads that meet beyond one another closed on nothing between them.
    is_object &= places[0] + places[1] < 1.0 + 1e-6
    return Contacts(np.where(is_object, bodies[0], -1), np.stack(points, 1), np.stack(normals, 1))


def clear_of(scene: Scene, grasps: WorldGrasps, gripper: Gripper) -> NDArray[np.bool_]:
    """Return whether fingers and palm come down freely [N]."""
    across, closing, approach = (grasps.rotation[:, None, :, k] for k in range(3))
    thick = gripper.finger_thickness_m
    free = np.ones(len(grasps), bool)
    grid = np.array([[s, t] for s in (0.05, 0.5, 0.95) for t in (-0.45, 0.0, 0.45)])
    for sign in (-1.0, 1.0):
        beside = grasps.width[:, None, None] / 2 + grid[None, :, :1] * thick
        ends = grasps.position[:, None] + sign * beside * closing
        ends = ends + grid[None, :, 1:] * gripper.finger_width_m * across
        ends = ends - _TOLERANCE_M * approach
        free &= (cast(scene, ends - _ABOVE_M * approach, ends)[0] < 0).all(1)
    grid = np.array([[s, t] for s in np.linspace(-0.5, 0.5, 6) for t in (-0.5, 0.5)])
    ends = grasps.position[:, None] - gripper.finger_length_m * approach
    ends = ends + grid[None, :, :1] * gripper.palm_m[0] * closing
    ends = ends + grid[None, :, 1:] * gripper.palm_m[1] * across
    return free & (cast(scene, ends - _ABOVE_M * approach, ends)[0] < 0).all(1)


def cast(scene: Scene, starts: Array, ends: Array) -> tuple[NDArray[np.int64], Array, Array]:
    """Cast rays [..., 3]; returns body [...], -1 for none, share of the way and normal there."""
    shape = starts.shape[:-1]
    starts, ends = (np.broadcast_to(p, (*shape, 3)).reshape(-1, 3) for p in (starts, ends))
    body = np.empty(len(starts), np.int64)
    share, normal = np.empty(len(starts)), np.empty((len(starts), 3))
    for first in range(0, len(starts), _RAYS_AT_ONCE):
        part = slice(first, first + _RAYS_AT_ONCE)
        hits = scene.client.rayTestBatch(starts[part].tolist(), ends[part].tolist())
        body[part] = [hit[0] for hit in hits]
        share[part] = [hit[2] for hit in hits]
        normal[part] = [hit[4] for hit in hits]
    return body.reshape(shape), share.reshape(shape), normal.reshape(*shape, 3)
