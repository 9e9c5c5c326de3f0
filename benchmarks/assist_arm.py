# SPDX-License-Identifier: Apache-2.0
"""Sharing the arm: a pilot reaches for one of four balls, and the copilot is not told which.

It plans with a model that was learned from random motions, and on the expected cost over the balls
(Javdani et al., arXiv 1503.07619), each as probable as the pilot's commands make it.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache, partial
from pathlib import Path
from typing import Any

import mujoco
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from twinloop.contract.arm_cell import arm_contract
from twinloop.learning.fit import FitConfig, fit
from twinloop.learning.rollout import RandomActor, roll_out
from twinloop.models.ensemble import Ensemble, EnsembleConfig
from twinloop.planners.mppi import MPPIConfig
from twinloop.planners.settings import load
from twinloop.planners.shared import SharedMPPI
from twinloop.planners.space import action_space
from twinloop.robots.panda import PANDA
from twinloop.tasks.panda_tool import tool
from twinloop_sim.cells.arm_scene import JOINTS, arm_spec, reach
from twinloop_sim.cells.object_cell import ObjectCell
from twinloop_sim.cells.pose_tracker import Pose, Tracked, TrackerSettings
from twinloop_sim.cells.scene import Scene, Start

ALPHAS = (0.0, 0.1, 0.3, 0.5, 0.7, 0.9, 1.0)
PILOTS = ("laggy", "noisy")
STEPS = 60  # of an episode
TOLERANCE_M = 0.015  # of the tool from its place over the ball
_DATA_STEPS = 100  # of an episode to learn from
STAYS = 10  # steps that it has to stay there
LAG, NOISE = 0.8, 0.3  # probabilities
_FIRST_SEED = 60_000_000
_JOINT_SPEED = 0.5  # rad/s
_RADIUS_M = 0.028
_OVER_M = 0.06  # of the place over a ball's middle
_BALLS_M = np.array([[0.42, -0.20], [0.42, 0.20], [0.58, -0.10], [0.58, 0.10]])
_SPREAD_M = 0.02
_CERTAINTY = 100.0  # how much a metre of the pilot's way to a ball makes it more probable, log
_NEARNESS = 20.0  # how much a metre of distance to a ball makes it less probable, log
_MEMORY = 0.95  # share of that which is left after a step
_LEAP_M = 0.03  # of the tool in a step, as proposed
_DAMPING = 1e-3
_NUDGE = 1e-3  # rad, for differences
_CONTRACT = arm_contract("reaching", _JOINT_SPEED, ())
_LARGEST = _JOINT_SPEED * _CONTRACT.period_s  # rad, of a target in a step

Array = NDArray[np.float64]


class ReachingScene(Scene):
    """The arm over a table with four balls; an episode's goal [13] is their places, and which."""

    task = "reaching"
    robot = PANDA
    tracker = TrackerSettings(0.0005, 0.0, 0.002, 0.0)
    substeps = 4

    def __init__(self) -> None:
        self.contract = _CONTRACT
        self.model = self.build()

    def build(self) -> mujoco.MjModel:
        spec = arm_spec(self.substeps, 0.035)
        for ball, place in enumerate(_BALLS_M):
            body = spec.worldbody.add_body(name=f"ball{ball}", pos=[*place, _RADIUS_M])
            body.add_geom(
                type=mujoco.mjtGeom.mjGEOM_SPHERE,
                size=[_RADIUS_M, 0, 0],
                contype=0,
                conaffinity=0,
            )
        return spec.compile()

    def start(self, rng: np.random.Generator) -> Start:
        joints = PANDA.poses["ready"] + rng.normal(0.0, 0.02, JOINTS)
        places = _BALLS_M + rng.uniform(-_SPREAD_M, _SPREAD_M, _BALLS_M.shape)
        high = np.full((len(places), 1), _RADIUS_M + _OVER_M)
        goal = np.hstack([places, high]).ravel()
        return Start(joints, joints, np.append(goal, rng.integers(len(places))))

    def pose(self, qpos: Array) -> Pose:
        shape = qpos.shape[:-1]
        return Pose(np.zeros((*shape, 3)), np.broadcast_to(np.eye(3), (*shape, 3, 3)))

    def channels(self, seen: Tracked, goal: Array, steps: NDArray[np.int64]) -> dict[str, Array]:
        return {}


class Reaching:
    """The copilot's task: what it expects the way to the pilot's ball to cost.

    Its target [16] holds the places of the four balls, and how probable each is.
    """

    name = "reaching"
    goal = "unknown"
    goals = ("unknown",)
    goal_values: tuple[float, ...] = ()
    observes_goal = False
    progress_unit = "m"
    episode_steps = STEPS
    target_of: tuple[int, ...] = ()
    symmetry: tuple[int, ...] = ()
    contract = _CONTRACT
    observation_size = _CONTRACT.observation_size
    action_size = _CONTRACT.action_size
    center = PANDA.poses["ready"]
    command = _CONTRACT.slices["command"]
    joint_position = _CONTRACT.slices["joint_position"]
    _velocity = _CONTRACT.slices["joint_velocity"]

    def begin(self, observation: Tensor, seed: int) -> Reaching:
        return self

    def targets(self, observation: Tensor, horizon: int) -> Tensor:
        return observation.new_zeros(*observation.shape[:-1], horizon, 16)

    def cost(self, observation: Tensor, action: Tensor, target: Tensor) -> Tensor:
        place, direction = tool(observation[..., self.joint_position])
        balls = target[..., :12].unflatten(-1, (4, 3))
        square = (place[..., None, :] - balls).square().sum(-1)
        far = (torch.sqrt(square + 1e-4) * target[..., 12:]).sum(-1)
        speed = observation[..., self._velocity].square().sum(-1)
        ahead = (action - observation[..., self.joint_position]).square().sum(-1)
        return 5.0 * far + direction[..., :2].square().sum(-1) + 0.01 * speed + 0.05 * ahead

    def failed(self, observation: Tensor) -> Tensor:
        return ~torch.isfinite(observation).all(-1)

    def score(self, observations: NDArray[np.floating]) -> float:
        return 0.0

    def succeeded(self, episode: Any) -> bool:
        return False


class Pilot:
    """Drives one arm's tool to its ball, and knows which; laggy or noisy.

    `laggy` makes the change of the targets before again with p = .8; `noisy` makes any change with
    p = .3.
    """

    def __init__(self, kind: str, goal: Array, seed: int) -> None:
        self.kind = kind
        self._rng = np.random.default_rng([seed, 7])
        place = goal[:12].reshape(4, 3)[int(goal[12])]
        self._joints = reach(place)
        self._change = np.zeros(JOINTS)

    def wish(self, command: Array) -> Array:
        """Return the targets that he commands, given those in force [7], rad."""
        left = self._joints - command
        straight = left * min(1.0, _LARGEST / max(np.abs(left).max(), 1e-9))
        if self.kind == "noisy" and self._rng.random() < NOISE:
            straight = self._rng.uniform(-_LARGEST, _LARGEST, JOINTS)
        if self.kind != "laggy" or self._rng.random() >= LAG:
            self._change = straight
        return command + self._change


class Towards(nn.Module):
    """Proposes to move the tool straight towards where the pilot's ball is expected, by damped
    least squares; MPPI samples about that."""

    def forward(self, observation: Tensor, target: Tensor) -> Tensor:
        """Return joint targets [rad]: [..., O], [..., 16] -> [..., 7]."""
        command = observation[..., Reaching.command]
        place = tool(command)[0]
        balls = target[..., :12].unflatten(-1, (4, 3))
        way = (balls * target[..., 12:, None]).sum(-2) - place
        way = way * (_LEAP_M / way.norm(dim=-1, keepdim=True).clamp(min=1e-6)).clamp(max=1.0)
        nudged = command[..., None, :] + _NUDGE * torch.eye(JOINTS)
        jacobian = ((tool(nudged)[0] - place[..., None, :]) / _NUDGE).transpose(-1, -2)
        square = jacobian @ jacobian.transpose(-1, -2) + _DAMPING * torch.eye(3)
        change = jacobian.transpose(-1, -2) @ torch.linalg.solve(square, way[..., None])
        return command + change[..., 0].clamp(-_LARGEST, _LARGEST)


class Belief:
    """How probable it is that pilots reach for each of their four balls [B, 4].

    What a command brings the tool nearer to a ball speaks for it, and is forgotten by and by; so
    does how near it is.
    """

    def __init__(self, places: Tensor) -> None:
        self._places = places  # [B, 4, 3]
        self._log = torch.zeros(places.shape[:2])

    def update(self, command: Tensor, wanted: Tensor) -> Tensor:
        """Take what pilots command beside the targets in force: [B, 7], [B, 7] -> [B, 4]."""
        before, after = tool(command)[0][:, None], tool(wanted)[0][:, None]
        gain = (before - self._places).norm(dim=-1) - (after - self._places).norm(dim=-1)
        self._log = _MEMORY * self._log + _CERTAINTY * gain
        away = (before - self._places).norm(dim=-1)
        return (self._log - _NEARNESS * away).softmax(-1)


@cache
def learned_model(folder: Path, quick: bool) -> Ensemble:
    """Return a model of the arm, learned from random motions about the places over the balls."""
    from safetensors.torch import load_file, save_file

    where = Reaching.command
    config = EnsembleConfig(
        observation_size=Reaching.observation_size,
        action_size=Reaching.action_size,
        hidden=(128, 128),
        known=(where.start, where.stop),
    )
    model = Ensemble(config, 0)
    path = folder / "arm-model.safetensors"
    if path.exists():
        model.load_state_dict(load_file(path))
        return model
    hands = 8 if quick else 40
    cell = ObjectCell(ReachingScene(), hands)
    spread = np.array([0.4, 0.3, 0.2, 0.4, 0.2, 0.3, 0.2])
    actor = RandomActor(PANDA.poses["ready"], spread, where, 0.05, hands)
    task: Any = Reaching()
    records = roll_out(cell, actor, task, list(range(hands)), _DATA_STEPS)
    episodes = [record.episode for record in records]
    fit(model, episodes, FitConfig(steps=4, epochs=4 if quick else 60), 0)
    save_file(model.state_dict(), path)
    return model


def episodes(pilot: str, alpha: float, count: int, folder: Path, quick: bool) -> dict[str, Any]:
    """Return how one episode for each seed went, all side by side; α = 0 is the pilot alone."""
    torch.set_num_threads(1)
    cell = ObjectCell(ReachingScene(), count)
    seeds = list(range(_FIRST_SEED, _FIRST_SEED + count))
    seen = torch.from_numpy(cell.reset(seeds))
    pilots = [Pilot(pilot, goal, seed) for goal, seed in zip(cell.goal, seeds, strict=True)]
    places = torch.from_numpy(cell.goal[:, :12]).float().unflatten(-1, (4, 3))
    wanted_ball = cell.goal[:, 12].astype(int)
    goal = places[torch.arange(count), torch.from_numpy(wanted_ball)]
    belief = Belief(places)
    planner = None
    if alpha > 0.0:
        task: Any = Reaching()
        config = load(MPPIConfig, "mppi", "", proposal_sigma=0.01, horizon=8)
        model = learned_model(folder, quick)
        model.proposal = Towards()
        planner = SharedMPPI(model, task, action_space(task), config, 0)
        planner.alpha = alpha
        planner.reset_batch(seeds)
    stayed = np.zeros(count, dtype=int)
    reached = np.full(count, -1)
    shares: list[list[float]] = [[] for _ in range(count)]
    right = []
    for step in range(STEPS):
        command = seen[:, Reaching.command]
        wishes = [one.wish(row) for one, row in zip(pilots, command.double().numpy(), strict=True)]
        wish = torch.from_numpy(np.array(wishes)).float()
        probable = belief.update(command, wish)
        right.append((probable.argmax(1).numpy() == wanted_ball).mean())
        action = wish
        if planner is not None:
            target = torch.cat([places.flatten(1), probable], 1)[:, None]
            planner.pilot = wish
            action, stats = planner.plan_batch(seen, target.expand(-1, planner.horizon, -1))
            for row in np.flatnonzero(reached < 0):
                shares[row].append(float(stats[row].pilot_share or 0.0))
        seen = torch.from_numpy(cell.step(action.double().numpy()))
        away = (tool(seen[:, Reaching.joint_position])[0] - goal).norm(dim=-1).numpy()
        stayed = np.where(away <= TOLERANCE_M, stayed + 1, 0)
        reached = np.where((stayed >= STAYS) & (reached < 0), step + 1, reached)
    cell.close()
    arrived = reached[reached >= 0] * _CONTRACT.period_s
    return {
        "pilot": pilot,
        "alpha": alpha,
        "episodes": count,
        "success": float((reached >= 0).mean()),
        "time_to_goal_s": float(np.median(arrived)) if len(arrived) else None,
        "pilot_share": float(np.mean([np.mean(one) for one in shares if one])) if planner else 1.0,
        "ball_guessed_right": float(np.mean(right)),
    }


def jobs(folder: Path, full: bool) -> dict[str, Callable[[], dict[str, Any]]]:
    """Return the protocol's parts by name: each pilot at each α."""
    alphas = ALPHAS if full else (0.0, 0.5, 1.0)
    count = 50 if full else 4
    return {
        f"arm-{pilot}-{alpha:g}": partial(episodes, pilot, alpha, count, folder, not full)
        for pilot in PILOTS
        for alpha in alphas
    }


def summary(done: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return the rows as they are."""
    return done
