# SPDX-License-Identifier: Apache-2.0
"""Turn two Baoding balls about each other in the palm (PDDM, arXiv 1909.11652, section 5).

Everything is in the palm frame `rh_palm`: the palm's outward normal is -y, fingers point to +z,
the thumb side is +x. Balls are seen along the normal, so planar points are (x, z) [m], and an
angle grows from +x to +z, which is counter-clockwise to a viewer in front of the palm.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import ConfigDict, TypeAdapter, ValidationError, with_config
from torch import Tensor

from twinloop.contract import load as load_contract
from twinloop.paths import share
from twinloop.robots.hand24 import HAND24
from twinloop.yaml_files import read_yaml

if TYPE_CHECKING:
    from twinloop.learning.episode import Episode

DIRECTIONS = {"ccw": 1.0, "cw": -1.0}
PLACED = ("hold", "move")


@with_config(ConfigDict(allow_inf_nan=False))
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
    # Goals that are places, (x, z) as the targets. Where turning balls run, and both fit:
    reach_center_m: tuple[float, float]
    reach_radii_m: tuple[float, float]
    place_tolerance_m: float
    place_steps: int  # control steps at the end for which a moved ball has to be in its place
    reward_far_m: float  # distance at which a place earns nothing

    def __post_init__(self) -> None:
        for name in ("period_steps", "goal_deg", "reward_turn_deg"):
            if not getattr(self, name) > 0:
                raise ValueError(f"baoding: {name} is {getattr(self, name)}, expected > 0")
        for name in ("radii_m", "reach_radii_m"):
            if min(getattr(self, name)) <= 0:
                raise ValueError(
                    f"baoding: {name} is {getattr(self, name)}, expected two lengths > 0"
                )
        if any(lo >= hi for lo, hi in zip(self.safe_lower_m, self.safe_upper_m, strict=True)):
            raise ValueError(
                f"baoding: safe_lower_m {self.safe_lower_m} is not below "
                f"safe_upper_m {self.safe_upper_m}"
            )


def load_config(path: Path | None = None, **changes: Any) -> BaodingConfig:
    """Read the section `task` of `config/task/baoding.yaml` (or of `path`).

    Raises:
        ValueError: a key is missing or unknown, or a value is none of its kind; the message names
            it and the file.
    """
    path = share("config", "task", "baoding.yaml") if path is None else path
    section = read_yaml(path)
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
    try:
        return TypeAdapter(BaodingConfig).validate_python(values)
    except ValidationError as error:
        raise ValueError(f"{path}: {error}") from error


class Baoding:
    """The task with one goal.

    Goals: to turn the balls `ccw` (the default) or `cw`; to `hold` both where they are; to `move`
    ball 1 to a place while ball 2 keeps out of its way. Those of places know them only once an
    episode has begun, see `begin`; before that they are where the balls are.

    Args:
        goal: one of `goals`, or "".
        config: default: config/task/baoding.yaml.
        places: [m] of `hold` as (x1, z1, x2, z2); of `move` the same, or (x1, z1), and ball 2 is
            to be across. A tensor [N, 4] gives each row of observations [N, O] its own. Empty:
            where the balls are when an episode begins, or a random place.

    Raises:
        ValueError: an unknown goal, places that are none of its, or out of reach.
    """

    name = "baoding"
    episode_steps = 100
    goals = (*DIRECTIONS, *PLACED)

    def __init__(
        self,
        goal: str = "",
        config: BaodingConfig | None = None,
        places: Sequence[float] | Tensor = (),
    ) -> None:
        goal = goal or self.goals[0]
        if goal not in self.goals:
            raise ValueError(f"baoding: goal is {goal!r}, expected one of {', '.join(self.goals)}")
        self.goal = goal
        self.config = load_config() if config is None else config
        self.sign = DIRECTIONS.get(goal, 0.0)
        self.progress_unit = "deg" if self.sign else "mm"
        # To turn, nothing more need be known; places are told to the planner alone.
        self.observes_goal = bool(self.sign)
        self.places = self._checked(places)
        self.goal_values: tuple[float, ...] = ()
        if self.places is not None and self.places.dim() == 1:
            self.goal_values = tuple(self.places.tolist())
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

    def _checked(self, places: Sequence[float] | Tensor) -> Tensor | None:
        """Return places [..., 4], None for none."""
        given = torch.as_tensor(places, dtype=torch.float32)
        if given.numel() == 0:
            return None
        sizes = {"hold": (4,), "move": (2, 4)}.get(self.goal, ())
        if given.shape[-1] not in sizes:
            wanted = " or ".join(str(size) for size in (0, *sizes))
            raise ValueError(
                f"baoding: goal {self.goal} got {given.shape[-1]} numbers for places, "
                f"expected {wanted}"
            )
        if given.shape[-1] == 2:
            across = 2 * torch.tensor(self.config.reach_center_m) - given
            given = torch.cat([given, across], dim=-1)
        points = given.unflatten(-1, (2, 2))
        c = self.config
        lower = torch.tensor(c.safe_lower_m)[::2]
        upper = torch.tensor(c.safe_upper_m)[::2]
        if not bool(((points > lower) & (points < upper)).all()):
            raise ValueError(
                f"baoding: places {given.tolist()} are not all in the palm, expected x in "
                f"{c.safe_lower_m[0]} to {c.safe_upper_m[0]} m and z in {c.safe_lower_m[2]} to "
                f"{c.safe_upper_m[2]} m"
            )
        return given

    def begin(self, observation: Tensor, seed: int) -> Baoding:
        """Return the task of an episode that starts with this observation [O]: with its places.

        `hold` takes them from the balls, `move` draws one from the seed.
        """
        if self.sign or self.places is not None:
            return self
        if self.goal == "hold":
            seen = observation[..., list(self.target_of)]
            return Baoding(self.goal, self.config, seen) if bool(seen.isfinite().all()) else self
        angle = np.random.default_rng([seed, 4]).uniform(-math.pi, math.pi)
        return Baoding(self.goal, self.config, self.place_at(angle))

    def place_at(self, angle: float) -> tuple[float, float]:
        """Return the place [m] on the ellipse within reach at an angle [rad]."""
        (cx, cz), (rx, rz) = self.config.reach_center_m, self.config.reach_radii_m
        return cx + rx * math.cos(angle), cz + rz * math.sin(angle)

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
        """Return target points [m] as (x1, z1, x2, z2): [..., O] -> [..., H, 4].

        Those of turns run ahead of the balls on an ellipse; the first is `lead_deg` ahead of where
        they are now, so the targets neither run away from a hand that is stuck nor wait for one
        that is quick.
        """
        if not self.sign:
            return self.approach(observation, self._places_for(observation), horizon)
        return self.running(observation, self.sign, horizon)

    def running(self, observation: Tensor, sign: float | Tensor, horizon: int) -> Tensor:
        """Return the targets of turns: [..., O], sign(s) [...], 1 for ccw -> [..., H, 4]."""
        c = self.config
        ahead = self._ahead(observation, horizon)
        if isinstance(sign, Tensor):
            sign = sign[..., None]
        angle = self.angle(observation)[..., None] + sign * ahead
        x, z = c.radii_m[0] * torch.cos(angle), c.radii_m[1] * torch.sin(angle)
        cx, cz = c.center_m
        return torch.stack([cx + x, cz + z, cx - x, cz - z], dim=-1)

    def approach(self, observation: Tensor, places: Tensor, horizon: int) -> Tensor:
        """Return the targets on the way to places: [..., O], [..., 4] -> [..., H, 4].

        Balls get past each other by turning only: straight to its place, each would run into the
        other. So the targets run ahead as those of turns, the shorter way, until the places are
        no further away.
        """
        ends = places.unflatten(-1, (2, 2))
        line = ends[..., 0, :] - ends[..., 1, :]
        left = torch.atan2(line[..., 1], line[..., 0]) - self.angle(observation)
        left = (left + math.pi).remainder(2 * math.pi) - math.pi
        is_near = left.abs()[..., None] <= self._ahead(observation, horizon)
        way = self.running(observation, torch.sign(left), horizon)
        return torch.where(is_near[..., None], places[..., None, :], way)

    def _ahead(self, like: Tensor, horizon: int) -> Tensor:
        """Return how far ahead of the balls the targets of turns are [rad], [H]."""
        steps = torch.arange(horizon, dtype=like.dtype, device=like.device)
        c = self.config
        return math.radians(c.lead_deg) + steps * (2 * math.pi / c.period_steps)

    def cost(self, observation: Tensor, action: Tensor, target: Tensor) -> Tensor:
        """Return PDDM's cost: distances to the targets seen along the palm normal, drops, a
        lifted wrist, and a slope before the edge so that a drop is felt before it is predicted."""
        c = self.config
        # Coordinates first, so that what follows runs along memory: rollouts are long rows.
        balls = observation[..., self._balls].movedim(-1, 0).contiguous()  # x, y, z of each ball
        away = [balls[i] - target[..., j] for j, i in enumerate((0, 2, 3, 5))]
        distance = sum(
            # Unlike that of nought, the root has a derivative where a ball is in its place.
            torch.addcmul(x.square(), z, z).clamp(min=1e-18).sqrt()
            for x, z in (away[:2], away[2:])
        )
        inside = self._inside(balls.unflatten(0, (2, 3)).transpose(0, 1))
        spill = (c.spill_margin_m - inside).clamp(min=0.0).sum(0)
        lifted = observation[..., self._wrj1] > c.wrist_limit
        return (
            c.distance_weight * distance
            + c.spill_weight * spill
            + c.drop_cost * (torch.minimum(inside[0], inside[1]) < 0)
            + c.wrist_cost * lifted
        )

    def reward(self, before: Tensor, action: Tensor, after: Tensor) -> Tensor:
        """Return the turn, up to a limit, or how near the places are, less the price of a step."""
        if self.sign:
            gain = self.sign * self.turned(before, after)
        else:
            gain = self.nearness(after, self._places_for(after))
        return gain - self.price(action, after)

    def turned(self, before: Tensor, after: Tensor) -> Tensor:
        """Return the counter-clockwise turn of a step, -1 to 1: [..., O], [..., O] -> [...]."""
        limit = self.config.reward_turn_deg
        change = self.angle(after) - self.angle(before) + math.pi
        turn = torch.rad2deg(change.remainder(2 * math.pi) - math.pi)
        return turn.clamp(-limit, limit) / limit

    def nearness(self, observation: Tensor, places: Tensor) -> Tensor:
        """Return how near both balls are to places, -1 to 1: [..., O], [..., 4] -> [...].

        Far away it is negative: where staying alive earned something in itself, a policy that
        learns other goals beside learns to sit still.
        """
        distance = self.distances(observation, places).mean(-1)
        return (1 - distance / self.config.reward_far_m).clamp(-1.0, 1.0)

    def distances(self, observation: Tensor, places: Tensor) -> Tensor:
        """Return each ball's distance to its place, seen along the palm normal [m]: [..., O],
        [..., 4] -> [..., 2]."""
        balls = self.balls(observation)[..., ::2]
        return torch.linalg.vector_norm(balls - places.unflatten(-1, (2, 2)), dim=-1)

    def _places_for(self, observation: Tensor) -> Tensor:
        """Return the goal's places, or where the balls are: [..., O] -> [..., 4]."""
        if self.places is None:
            return observation[..., list(self.target_of)]
        return self.places.to(observation)

    def price(self, action: Tensor, after: Tensor) -> Tensor:
        """Return what effort, nearness to the edge and drops cost: [..., A], [..., O] -> [...]."""
        c = self.config
        inside = self.clearance(self.balls(after)).amin(-1)
        edge = (c.reward_edge_m - inside).clamp(0.0, c.reward_edge_m)
        return (
            c.reward_effort * action.square().mean(-1)
            + c.reward_edge_weight * edge
            + c.reward_drop * ~(inside >= 0)
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
        return np.degrees((self.sign or 1.0) * (angle - angle[0]))

    def final_rotation_deg(self, observations: NDArray[np.floating]) -> float:
        """Return the rotation at the end of the episode, or at the step of the drop [deg]."""
        failed = self.failed(torch.as_tensor(np.asarray(observations))).numpy()
        end = int(np.argmax(failed)) + 1 if failed.any() else len(observations)
        return float(self.rotation_deg(observations[:end])[-1])

    def score(self, observations: NDArray[np.floating]) -> float:
        """Return what an episode [T, O] is measured by.

        Turns: the rotation at the end, or at the step of the drop [deg]. `hold`: the largest
        distance of a ball from its place [mm]; `move`: the largest one of ball 1 over the last
        steps [mm]. Places that no episode has fixed are those of the first row.
        """
        if self.sign:
            return self.final_rotation_deg(observations)
        seen = torch.as_tensor(np.asarray(observations, dtype=np.float32))
        away = self.distances(seen, self._places_for(seen[0]))
        if self.goal == "move":
            away = away[-self.config.place_steps :, :1]
        return 1e3 * float(away.max())

    def tracker(self) -> RotationTracker | PlaceTracker:
        """Return a fresh measure of a running episode: rotation [deg], or distance [mm]."""
        return RotationTracker(self) if self.sign else PlaceTracker(self)

    def succeeded(self, episode: Episode) -> bool:
        """Return whether the episode kept both balls, and turned them by `goal_deg` or had them
        in their places."""
        if bool(self.failed(torch.as_tensor(episode.observations)).any()):
            return False
        if self.sign:
            return self.final_rotation_deg(episode.observations) >= self.config.goal_deg
        is_long_enough = len(episode) >= self.config.place_steps
        return is_long_enough and (
            self.score(episode.observations) <= 1e3 * self.config.place_tolerance_m
        )

    def clearance(self, balls: Tensor) -> Tensor:
        """Distance [m] to the nearest face of the safe box, negative outside: [..., 2, 3] ->
        [..., 2]."""
        return self._inside(balls.movedim(-1, 0))

    def _inside(self, balls: Tensor) -> Tensor:
        """Return the same with the coordinates first: [3, ...] -> [...]."""
        c = self.config
        to_faces = [
            torch.minimum(where - lower, upper - where)
            for where, lower, upper in zip(balls, c.safe_lower_m, c.safe_upper_m, strict=True)
        ]
        return torch.minimum(torch.minimum(to_faces[0], to_faces[1]), to_faces[2])


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
            self.rotation_deg += math.degrees(change) * self._task.sign
        self._last = now
        return self.rotation_deg


class PlaceTracker:
    """How far the balls of one running episode are from their places, one observation at a time.

    Of `hold` the largest distance so far, of `move` the present one of ball 1.
    """

    def __init__(self, task: Baoding) -> None:
        self._task = task
        self._places: Tensor | None = task.places
        self._largest_mm = 0.0

    def update(self, observation: NDArray[np.floating]) -> float:
        """Take the next observation [O] and return the distance [mm]."""
        seen = torch.as_tensor(np.asarray(observation, dtype=np.float32))
        if self._places is None:
            self._places = seen[list(self._task.target_of)]
        away_mm = 1e3 * self._task.distances(seen, self._places)
        self._largest_mm = max(self._largest_mm, float(away_mm.max()))
        return float(away_mm[0]) if self._task.goal == "move" else self._largest_mm


def make(goal: str, places: Sequence[float] = ()) -> Baoding:
    """Make the task with one of `Baoding.goals`, `ccw` for "", and its places; see `Baoding`."""
    return Baoding(goal, places=places)
