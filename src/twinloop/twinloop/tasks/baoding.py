# SPDX-License-Identifier: Apache-2.0
"""Turn two Baoding balls about each other in the palm (PDDM, arXiv 1909.11652, section 5).

Everything is in the palm frame `rh_palm`: the palm's outward normal is -y, fingers point to +z,
the thumb side is +x. Balls are seen along the normal, so planar points are (x, z) [m], and an
angle grows from +x to +z, which is counter-clockwise to a viewer in front of the palm.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
import yaml
from numpy.typing import NDArray
from torch import Tensor

from twinloop.contract import load as load_contract
from twinloop.paths import share
from twinloop.robots.hand24 import HAND24

if TYPE_CHECKING:
    from twinloop.learning.episode import Episode

DIRECTIONS = {"ccw": 1.0, "cw": -1.0}


@dataclass(frozen=True)
class BaodingConfig:
    """Numbers of the task; lengths in m, angles in rad unless the name says otherwise."""

    center_m: tuple[float, float]  # ellipse on which the targets run, (x, z)
    radii_m: tuple[float, float]
    lead_deg: float  # how far the first target is ahead of the balls
    period_steps: float  # control steps a turn of the target takes
    safe_lower_m: tuple[float, float, float]  # a ball outside this box has dropped, (x, y, z)
    safe_upper_m: tuple[float, float, float]
    goal_deg: float  # rotation that counts as success
    distance_weight: float  # per m, for each ball
    drop_cost: float  # per step
    spill_weight: float  # per m that a ball is nearer to the edge of the box than the margin
    spill_margin_m: float
    wrist_limit: float  # WRJ1 above this angle costs `wrist_cost`
    wrist_cost: float
    # What a policy earns by a step; a turn of `reward_turn_deg` or more earns 1.
    reward_turn_deg: float
    reward_effort: float  # mean square of the change of the targets, in units of the largest
    reward_edge_m: float
    reward_edge_weight: float  # per m that a ball is nearer to the edge of the box
    reward_drop: float

    def __post_init__(self) -> None:
        for name in ("period_steps", "goal_deg", "reward_turn_deg"):
            if not getattr(self, name) > 0:
                raise ValueError(f"baoding: {name} is {getattr(self, name)}, expected > 0")
        if min(self.radii_m) <= 0:
            raise ValueError(f"baoding: radii_m is {self.radii_m}, expected two lengths > 0")
        if any(lo >= hi for lo, hi in zip(self.safe_lower_m, self.safe_upper_m, strict=True)):
            raise ValueError(
                f"baoding: safe_lower_m {self.safe_lower_m} is not below "
                f"safe_upper_m {self.safe_upper_m}"
            )


def load_config(path: Path | None = None, **changes: Any) -> BaodingConfig:
    """Read the section `task` of `config/task/baoding.yaml` (or of `path`).

    Raises:
        ValueError: a key is missing or unknown; the message names it and the file.
    """
    path = share("config", "task", "baoding.yaml") if path is None else path
    section = yaml.safe_load(path.read_text())
    section = section.get("task") if isinstance(section, dict) else None
    if not isinstance(section, dict):
        raise ValueError(f"{path}: no section 'task', expected a mapping of BaodingConfig's names")
    expected = set(BaodingConfig.__dataclass_fields__)
    values: dict[str, Any] = {**section, **changes}
    if set(values) != expected:
        raise ValueError(
            f"{path}: missing {sorted(expected - set(values))}, "
            f"unknown {sorted(set(values) - expected)}"
        )
    tupled: dict[str, Any] = {k: tuple(v) if isinstance(v, list) else v for k, v in values.items()}
    return BaodingConfig(**tupled)


class Baoding:
    """The task with one goal: to turn the balls `ccw` or `cw`; `ccw` for ""."""

    name = "baoding"
    progress_unit = "deg"
    episode_steps = 100
    goals = tuple(DIRECTIONS)

    def __init__(self, goal: str = "", config: BaodingConfig | None = None) -> None:
        goal = goal or self.goals[0]
        if goal not in self.goals:
            raise ValueError(f"baoding: goal is {goal!r}, expected one of {', '.join(self.goals)}")
        self.goal = goal
        self.config = load_config() if config is None else config
        self._sign = DIRECTIONS[goal]
        self.contract = load_contract("baoding")
        self.observation_size = self.contract.observation_size
        self.action_size = self.contract.action_size
        self.center = HAND24.poses["cup"]
        slices = self.contract.slices
        self.command = slices["command"]
        self.joint_position = slices["joint_position"]
        self._balls = slices["ball_position"]
        first = self._balls.start
        self.target_of: tuple[int, ...] = (first, first + 2, first + 3, first + 5)
        self.symmetry = self._swapped()
        self._wrj1 = slices["joint_position"].start + HAND24.joint_names.index("rh_WRJ1")

    def _swapped(self) -> tuple[int, ...]:
        """Return the index of the same scene with the balls named the other way."""
        index = list(range(self.observation_size))
        for name in ("ball_position", "ball_velocity"):
            where = self.contract.slices[name]
            index[where] = index[where][3:] + index[where][:3]
        size = self.observation_size
        return (*index, size + 2, size + 3, size, size + 1)

    def balls(self, observation: Tensor) -> Tensor:
        """Return ball positions [m], palm frame: [..., O] -> [..., 2, 3]."""
        return observation[..., self._balls].unflatten(-1, (2, 3))

    def angle(self, observation: Tensor) -> Tensor:
        """Return the angle [rad] of the line from ball 2 to ball 1: [..., O] -> [...]."""
        balls = self.balls(observation)
        line = balls[..., 0, :] - balls[..., 1, :]
        return torch.atan2(line[..., 2], line[..., 0])

    def targets(self, observation: Tensor, horizon: int) -> Tensor:
        """Return target points [m] as (x1, z1, x2, z2), running ahead of the balls on the
        ellipse: [..., O] -> [..., H, 4].

        The first is `lead_deg` ahead of where the balls are now, so the targets neither run away
        from a hand that is stuck nor wait for one that is quick.
        """
        c = self.config
        ahead = math.radians(c.lead_deg) + torch.arange(
            horizon, dtype=observation.dtype, device=observation.device
        ) * (2 * math.pi / c.period_steps)
        angle = self.angle(observation)[..., None] + self._sign * ahead
        x, z = c.radii_m[0] * torch.cos(angle), c.radii_m[1] * torch.sin(angle)
        cx, cz = c.center_m
        return torch.stack([cx + x, cz + z, cx - x, cz - z], dim=-1)

    def cost(self, observation: Tensor, action: Tensor, target: Tensor) -> Tensor:
        """Return PDDM's cost: distances to the targets seen along the palm normal, drops, a
        lifted wrist, and a slope before the edge so that a drop is felt before it is predicted."""
        c = self.config
        balls = self.balls(observation)
        aim = target.unflatten(-1, (2, 2))
        distance = torch.linalg.vector_norm(balls[..., ::2] - aim, dim=-1).sum(-1)
        inside = self.clearance(balls)
        spill = (c.spill_margin_m - inside).clamp(min=0.0).sum(-1)
        lifted = observation[..., self._wrj1] > c.wrist_limit
        return (
            c.distance_weight * distance
            + c.spill_weight * spill
            + c.drop_cost * (inside < 0).any(-1)
            + c.wrist_cost * lifted
        )

    def reward(self, before: Tensor, action: Tensor, after: Tensor) -> Tensor:
        """Return the turn, up to a limit, less effort, nearness to the edge, and drops."""
        c = self.config
        change = self.angle(after) - self.angle(before) + math.pi
        turn = self._sign * torch.rad2deg(change.remainder(2 * math.pi) - math.pi)
        inside = self.clearance(self.balls(after)).amin(-1)
        edge = (c.reward_edge_m - inside).clamp(0.0, c.reward_edge_m)
        return (
            turn.clamp(-c.reward_turn_deg, c.reward_turn_deg) / c.reward_turn_deg
            - c.reward_effort * action.square().mean(-1)
            - c.reward_edge_weight * edge
            - c.reward_drop * ~(inside >= 0)
        )

    def failed(self, observation: Tensor) -> Tensor:
        """Return whether a ball has left the safe box: [..., O] -> bool [...].

        NaN counts as failed.
        """
        return ~(self.clearance(self.balls(observation)) >= 0).all(-1)

    def rotation_deg(self, observations: NDArray[np.floating]) -> NDArray[np.float64]:
        """Return the unwrapped rotation since the first row [deg], positive in the goal's
        direction: [T, O] -> [T]."""
        positions = np.asarray(observations, dtype=np.float64)[:, self._balls]
        dx, dz = positions[:, 0] - positions[:, 3], positions[:, 2] - positions[:, 5]
        angle = np.unwrap(np.arctan2(dz, dx))
        return np.degrees(self._sign * (angle - angle[0]))

    def final_rotation_deg(self, observations: NDArray[np.floating]) -> float:
        """Return the rotation at the end of the episode, or at the step of the drop [deg]."""
        failed = self.failed(torch.as_tensor(np.asarray(observations))).numpy()
        end = int(np.argmax(failed)) + 1 if failed.any() else len(observations)
        return float(self.rotation_deg(observations[:end])[-1])

    def score(self, observations: NDArray[np.floating]) -> float:
        """Return the final rotation [deg]."""
        return self.final_rotation_deg(observations)

    def tracker(self) -> RotationTracker:
        """Return a fresh measure of a running episode's rotation."""
        return RotationTracker(self)

    def succeeded(self, episode: Episode) -> bool:
        """Return whether the episode kept both balls and turned them by `goal_deg`."""
        if bool(self.failed(torch.as_tensor(episode.observations)).any()):
            return False
        return self.final_rotation_deg(episode.observations) >= self.config.goal_deg

    def clearance(self, balls: Tensor) -> Tensor:
        """Distance [m] to the nearest face of the safe box, negative outside: [..., 2, 3] ->
        [..., 2]."""
        lower = balls.new_tensor(self.config.safe_lower_m)
        upper = balls.new_tensor(self.config.safe_upper_m)
        return torch.minimum(balls - lower, upper - balls).amin(-1)


class RotationTracker:
    """Unwrapped rotation of one running episode, one observation at a time."""

    def __init__(self, task: Baoding) -> None:
        self._task = task
        self._last: float | None = None
        self.rotation_deg = 0.0

    def update(self, observation: NDArray[np.floating]) -> float:
        """Take the next observation [O] and return the rotation so far [deg]."""
        now = float(self._task.angle(torch.as_tensor(np.asarray(observation))))
        if self._last is not None:
            change = (now - self._last + math.pi) % (2 * math.pi) - math.pi
            self.rotation_deg += math.degrees(change) * DIRECTIONS[self._task.goal]
        self._last = now
        return self.rotation_deg


def make(goal: str) -> Baoding:
    """Make the task with one goal, `ccw` or `cw`; `ccw` for ""."""
    return Baoding(goal)
