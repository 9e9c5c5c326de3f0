# SPDX-License-Identifier: Apache-2.0
"""A plan as points: where balls and fingertips would go, and where the balls should be.

Points rather than messages of our own, so that any viewer of point clouds shows them as they come.
"""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from twinloop.contract import Contract
from twinloop.robots.description import hand_urdf
from twinloop.robots.kinematics import Chain, capsules

if TYPE_CHECKING:  # viewers do without torch
    from twinloop.planners.rollouts import Rollouts

BALL, FINGERTIP, TARGET = range(3)
POINT = np.dtype(
    [
        ("x", "<f4"),  # [m]
        ("y", "<f4"),
        ("z", "<f4"),
        ("cost", "<f4"),  # of the rollout
        ("spread", "<f4"),  # deviation of the place over the ensemble's members [m]
        ("rollout", "<u2"),  # 0: the cheapest
        ("step", "<u2"),  # 0: now
        ("kind", "u1"),
        ("body", "u1"),  # which ball or finger
    ]
)
FINGERS = ("ff", "mf", "rf", "lf", "th")
Array = NDArray[np.floating]


class PlanPoints:
    """Makes points of plans for the tasks of one contract.

    Args:
        contract: says where joints and balls lie in an observation.
    """

    def __init__(self, contract: Contract) -> None:
        self._balls = contract.slices.get("ball_position")
        self._joints = contract.slices.get("joint_position")
        self._has_hand = contract.robot == "hand24"

    def of(
        self,
        observation: Array,
        rollouts: Rollouts,
        targets: Array,
        target_of: tuple[int, ...],
    ) -> NDArray[np.void]:
        """Return the points of a plan [P], in the frame of the balls.

        Args:
            observation: that was planned from [O].
            targets: [H, T].
            target_of: elements of the observation that the targets are about.
        """
        parts = []
        if self._balls is not None:
            parts += [self._ball_paths(observation, rollouts, self._balls)]
            parts += [self._targets(observation, targets, target_of, self._balls)]
        if self._has_hand and self._joints is not None and len(rollouts.cost):
            joints = np.concatenate([observation[None], rollouts.predicted[0]])[:, self._joints]
            tips = fingertips(joints.astype(np.float64))
            parts.append(_points(FINGERTIP, tips[None], rollouts.cost[:1]))
        return np.concatenate(parts) if parts else np.zeros(0, POINT)

    def _ball_paths(self, now: Array, rollouts: Rollouts, where: slice) -> NDArray[np.void]:
        count = len(rollouts.cost)
        first = np.broadcast_to(now[where], (count, 1, where.stop - where.start))
        places = np.concatenate([first, rollouts.predicted[:, :, where]], axis=1)
        spread = np.concatenate([np.zeros_like(first), rollouts.spread[:, :, where]], axis=1)
        shape = (*places.shape[:2], -1, 3)
        apart = np.linalg.norm(spread.reshape(shape), axis=-1)
        return _points(BALL, places.reshape(shape), rollouts.cost, apart)

    def _targets(
        self, now: Array, targets: Array, target_of: tuple[int, ...], where: slice
    ) -> NDArray[np.void]:
        # What a target leaves open, such as the height above the palm, is where the ball is.
        full = np.repeat(now[None], len(targets), axis=0)
        if target_of:
            full[:, list(target_of)] = targets[:, : len(target_of)]
        places = full[:, where].reshape(1, len(targets), -1, 3)
        return _points(TARGET, places, np.zeros(1)) if target_of else np.zeros(0, POINT)


def fingertips(joints: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the ends of the five fingers in the palm's frame, m: [..., 24] rad -> [..., 5, 3]."""
    chain, ends = _finger_chain()
    position, rotation = chain.poses(joints)
    tips = position[..., 1:, :] + (rotation[..., 1:, :, :] @ ends[:, :, None])[..., 0]
    palm, turn = position[..., :1, :], rotation[..., :1, :, :]
    return (turn.swapaxes(-1, -2) @ (tips - palm)[..., None])[..., 0]


@lru_cache(maxsize=1)
def _finger_chain() -> tuple[Chain, NDArray[np.float64]]:
    from twinloop.robots.hand24 import HAND24

    links = tuple(f"rh_{finger}distal" for finger in FINGERS)
    ends = {one.link: one.end for one in capsules(hand_urdf()) if one.link in links}
    chain = Chain(hand_urdf(), HAND24.joint_names, ("rh_palm", *links))
    return chain, np.stack([ends[link] for link in links])


def _points(kind: int, places: Array, cost: Array, spread: Array | float = 0.0) -> NDArray[np.void]:
    """Return places [K, H, B, 3] with the cost of each of the K rollouts as points [K * H * B]."""
    points = np.zeros(places.shape[:-1], POINT)
    points["x"], points["y"], points["z"] = np.moveaxis(places, -1, 0)
    points["cost"], points["spread"] = np.reshape(cost, (-1, 1, 1)), spread
    for name, axis in (("rollout", 0), ("step", 1), ("body", 2)):
        shape = [-1 if place == axis else 1 for place in range(3)]
        points[name] = np.arange(points.shape[axis]).reshape(shape)
    points["kind"] = kind
    return points.ravel()
