# SPDX-License-Identifier: Apache-2.0
"""Plans on the twin's own dynamics from its true state: a bound for planning, and demonstrations.

The planner and the task are the usual ones; only the model is exchanged for the simulator. What is
recorded are the observations that a learned model would have had, with the tracker's errors.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from twinloop.contract import load
from twinloop.learning.episode import Episode
from twinloop.planners.base import Planner
from twinloop.robots.hand24 import HAND24
from twinloop.tasks.baoding import Baoding

from twinloop import planners
from twinloop_sim.cell import Cell
from twinloop_sim.mujoco_twin import MujocoBatch
from twinloop_sim.tracker_standin import into_palm
from twinloop_sim.twin import JOINTS, Array, State
from twinloop_sim.variation import delayed


class TrueDynamics:
    """The twin of a cell as a dynamics model of one member, started from the cell's true state.

    Raises:
        ValueError: the cell runs on another engine than MuJoCo.
    """

    members = 1
    proposal = None

    def __init__(self, cell: Cell) -> None:
        if not isinstance(cell.twin, MujocoBatch):
            raise ValueError(f"planning on true dynamics needs mujoco, not {cell.twin.name}")
        self.cell = cell
        self._twin = cell.twin
        self.observation_size = cell.contract.observation_size
        self.action_size = cell.contract.action_size
        self.difference_scale = torch.ones(self.observation_size)
        self.predicted = torch.ones(self.observation_size, dtype=torch.bool)

    def observe(self) -> NDArray[np.float32]:
        """Return what the hands would observe if the tracker were perfect [B, O]."""
        return self._pack(self.cell.state, self.cell.command, np.arange(self.cell.hands))

    def predict(self, observation: Tensor, action: Tensor) -> Tensor:
        """Return the observations a step later: [1, N, O], [1, N, A] (or [N, A]) -> [1, N, O]."""
        return self.rollout(observation, action.reshape(1, -1, self.action_size))[0]

    def rollout(self, observation: Tensor, actions: Tensor) -> Tensor:
        """Advance copies of the cell's hands: [1, B * N, O], [H, B * N, A] -> [H, 1, B * N, O].

        The rows are N copies of each of the cell's B hands, one hand after the other. They start
        from the cell's state, of which `observation` is only a part; it is not read.

        Raises:
            ValueError: the number of rows is no multiple of the number of hands.
        """
        cell = self.cell
        commands = actions.numpy().astype(np.float64)
        horizon, rows = commands.shape[:2]
        copies, rest = divmod(rows, cell.hands)
        if rest:
            raise ValueError(f"{rows} rows for {cell.hands} hands, expected a multiple")
        ramp = cell.make_ramp(rows)
        ramp.set_state(np.repeat(cell.ramp.state(), copies, axis=1))
        goal = np.repeat(cell.command, copies, axis=0)
        ctrl = np.empty((rows, horizon, cell.period_ticks, JOINTS))
        for step in range(horizon):
            for tick in range(cell.period_ticks):
                if tick == cell.delay_ticks:
                    goal = commands[step]
                ctrl[:, step, tick] = ramp.step(goal)
        hands = np.repeat(np.arange(cell.hands), copies)
        differences = self._twin.differences
        arriving, _ = delayed(
            cell.waiting[hands], ctrl.reshape(rows, -1, JOINTS), differences.delay[hands]
        )
        arriving -= differences.joint_offset[hands, None]
        physics = self._twin.advance(self._twin.physics[hands], arriving, hands)
        physics = physics[:, cell.period_ticks - 1 :: cell.period_ticks]
        states = self._twin.decode(physics.swapaxes(0, 1))
        return torch.from_numpy(self._pack(states, commands, hands))[:, None]

    def config_json(self) -> dict[str, Any]:
        return {"kind": "true_dynamics"}

    def state_tensors(self) -> dict[str, Tensor]:
        return {}

    def _pack(
        self, states: State, command: Array, hands: NDArray[np.integer]
    ) -> NDArray[np.float32]:
        """Return observations of states [..., N] of these hands [N]."""
        position, velocity = into_palm(states)
        lead = states.q.shape[:-1]
        return self.cell.contract.pack(
            {
                "joint_position": states.q + self._twin.differences.joint_offset[hands],
                "joint_velocity": states.qd,
                "command": command,
                "ball_position": position.reshape(*lead, 6),
                "ball_velocity": velocity.reshape(*lead, 6),
            }
        )


@dataclass(frozen=True)
class OracleSettings:
    """How demonstrations are planned.

    Attributes:
        samples: action sequences tried in a step.
        horizon: control steps looked ahead.
        joint_speed: rad/s.
        noise: standard deviation of the wandering disturbance added to the planned targets, as a
            share of the largest change in a step.
    """

    samples: int = 60
    horizon: int = 6
    joint_speed: float = 1.5
    noise: float = 0.0


def make_planner(cell: Cell, task: Baoding, settings: OracleSettings) -> Planner:
    """Return the usual planner on true dynamics."""
    space = replace(
        planners.action_space(task),
        largest_change=settings.joint_speed * cell.contract.period_s,
    )
    return planners.make(
        planners.DEFAULT,
        TrueDynamics(cell),
        task,
        seed=0,
        space=space,
        samples=settings.samples,
        horizon=settings.horizon,
    )


def demonstrate(
    cell: Cell, task: Baoding, seeds: list[int], steps: int, settings: OracleSettings | None = None
) -> list[Episode]:
    """Plan an episode on each hand of a cell, on true dynamics, side by side.

    Args:
        cell: B hands in MuJoCo; its `joint_speed` should not be below that of the settings.
        seeds: one a hand [B]; sets the start, the tracker's noise, samples and disturbance.
        steps: control steps; an episode ends earlier when the tracked balls have dropped.

    Returns:
        One episode a hand, with tracked observations and applied actions.
    """
    settings = settings or OracleSettings()
    planner = make_planner(cell, task, settings)
    model = planner.model
    assert isinstance(model, TrueDynamics)
    rngs = [np.random.default_rng([seed, 1]) for seed in seeds]
    observed = [cell.reset(seeds)]
    applied: list[Array] = []
    planner.reset_batch(seeds)
    wander = np.zeros((cell.hands, JOINTS))
    ended = np.full(cell.hands, steps)
    for step in range(steps):
        truth = torch.from_numpy(model.observe())
        action, _ = planner.plan_batch(truth, task.targets(truth, settings.horizon))
        kick = np.stack([rng.standard_normal(JOINTS) for rng in rngs])
        wander = 0.7 * wander + np.sqrt(1.0 - 0.7**2) * kick
        disturbance = settings.noise * settings.joint_speed * cell.contract.period_s * wander
        observed.append(cell.step(action.numpy() + disturbance))
        applied.append(cell.command.copy())
        failed = task.failed(torch.from_numpy(observed[-1])).numpy()
        ended = np.where(failed & (ended == steps), step + 1, ended)
        if (ended <= step + 1).all():
            break
    return [
        _episode(task, seed, settings, observed, applied, hand, int(ended[hand]))
        for hand, seed in enumerate(seeds)
    ]


def _episode(
    task: Baoding,
    seed: int,
    settings: OracleSettings,
    observed: list[NDArray[np.float32]],
    applied: list[Array],
    hand: int,
    length: int,
) -> Episode:
    observations = np.stack([row[hand] for row in observed[: length + 1]])
    meta = {
        "episode_id": f"oracle_{task.goal}_{seed:06d}",
        "task": task.name,
        "goal": task.goal,
        "seed": seed,
        "model": "true_dynamics",
        "robot": HAND24.name,
        "contract_hash": load(task.name).hash(),
        "dropped": bool(task.failed(torch.from_numpy(observations)).any()),
        "rotation_deg": task.final_rotation_deg(observations),
        "noise": settings.noise,
        "source": "oracle",
    }
    actions = np.stack([row[hand] for row in applied[:length]]).astype(np.float32)
    return Episode(observations, actions, meta)
