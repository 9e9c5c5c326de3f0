# SPDX-License-Identifier: Apache-2.0
"""N copies of a scene, observed and commanded as its contract says, control step by control step.

The observation of step k is assembled at T_k from what is known by then; the command that answers
it takes effect `delay_s` later: until then the ticks of the step go on ramping to the command
before, as in the Baoding cell and in a live node.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray
from twinloop.safety.limits import limit_goal
from twinloop.safety.ramp import Ramp

from twinloop_sim.cells.pose_tracker import Pose, PoseTracker, TrackerState
from twinloop_sim.cells.scene import Array, Physics, Scene, Start, rng_of


@dataclass(frozen=True)
class ObjectCellState:
    """Everything that K hands carry from one control step to the next; first axes are hands."""

    physics: Array
    ramp: Array
    command: Array
    tracker: TrackerState
    goal: Array
    steps: NDArray[np.int64]


class ObjectCell:
    """N robots of a scene side by side; deterministic for their seeds.

    Args:
        scene: what stands in the cell.
        hands: how many.
        threads: threads that share the physics.
        joint_speed: largest speed that a command may ask for, rad/s; default: the contract's.

    Raises:
        ValueError: fewer than one hand, or a joint speed that is not positive.
    """

    def __init__(
        self, scene: Scene, hands: int, threads: int = 1, joint_speed: float | None = None
    ) -> None:
        if hands < 1:
            raise ValueError(f"a cell needs at least 1 hand, got {hands}")
        self.scene = scene
        self.contract = scene.contract
        self.hands = hands
        self.tick_s = scene.tick_s
        self.joint_speed = self.contract.action.rate if joint_speed is None else joint_speed
        if not 0.0 < self.joint_speed < np.inf:
            raise ValueError(f"joint_speed is {joint_speed}, expected more than 0 rad/s")
        self.period_ticks = round(self.contract.period_s / self.tick_s)
        self.delay_ticks = round(self.contract.action.delay_s / self.tick_s)
        self.joints = len(scene.robot.joint_names)
        self.physics = Physics(scene.model, scene.substeps, min(threads, hands))
        self.states = np.zeros((hands, self.physics.size))
        self.ramp = self.make_ramp(hands)
        self.command = np.zeros((hands, self.joints))
        self._tracker = PoseTracker(hands, scene.tracker, self.tick_s)
        self.goal = np.zeros((hands, len(scene.start(rng_of(0)).goal)))
        self.steps = np.zeros(hands, dtype=np.int64)
        self.reset(np.zeros(hands, dtype=int))

    def make_ramp(self, rows: int) -> Ramp:
        """Return a ramp like that of the cell's guard, for `rows` hands."""
        robot = self.scene.robot
        return Ramp(robot.velocity, robot.acceleration, robot.jerk, self.tick_s, (rows,))

    def reset(
        self,
        seeds: ArrayLike,
        start: ObjectCellState | None = None,
        hands: ArrayLike | None = None,
    ) -> NDArray[np.float32]:
        """Start episodes anew; returns observations of all hands [N, O].

        Args:
            seeds: one a hand that is reset; a seed sets start, goal and the tracker's errors.
            start: from there instead, but with the tracker's errors of the seeds.
            hands: which hands are reset [K]; default all.

        Raises:
            ValueError: another number of seeds than of hands, or no such hand.
        """
        chosen = self._select(seeds, hands)
        starts = [self.scene.start(rng_of(seed)) for seed in np.atleast_1d(seeds)]
        if start is None:
            self._begin(starts, chosen)
        else:
            self.set_state(start, chosen)
        qpos = self.physics.qpos(self.states[chosen])
        self._tracker.reset(seeds, self.scene.pose(qpos), chosen)
        if start is None:
            # Who commands a goal knows of the object what the tracker tells.
            self.goal = self.goal.copy()
            goals = np.stack([begun.goal for begun in starts])
            self.goal[chosen] = self.scene.aim(goals, self._tracker.seen[chosen])
        return self.observe()

    def _begin(self, starts: list[Start], chosen: list[int]) -> None:
        states = np.stack([self.physics.at(start.qpos) for start in starts])
        command = np.stack([start.command for start in starts])
        ticks = round(self.scene.settle_s / self.tick_s)
        if ticks:
            states = self.physics.advance(states, np.repeat(command[:, None], ticks, 1))[:, -1]
            states[:, 0] = 0.0
        self._replace(chosen, states, command)
        self.ramp.reset(command, chosen)
        self.steps[chosen] = 0

    def step(self, action: ArrayLike) -> NDArray[np.float32]:
        """Advance one control step under joint targets [N, A], rad; returns the next observations.

        Targets are clamped as a guard does; `command` then holds what was applied.

        Raises:
            ValueError: another shape or a value that is not finite.
        """
        before = self.command
        self.command = self.limit(action, before)
        targets = np.empty((self.hands, self.period_ticks, self.joints))
        for tick in range(self.period_ticks):
            goal = before if tick < self.delay_ticks else self.command
            targets[:, tick] = self.ramp.step(goal)
        rolled = self.physics.advance(self.states, targets)
        passed = np.concatenate([self.states[:, None], rolled[:, :-1]], axis=1)
        self._tracker.follow(self.scene.pose(self.physics.qpos(passed)))
        self.states = rolled[:, -1].copy()
        self.steps += 1
        return self.observe()

    def limit(self, action: ArrayLike, previous: Array) -> Array:
        """Return the goal [..., A] that a guard makes of requested targets [..., A], rad.

        Raises:
            ValueError: another shape than `previous` or a value that is not finite.
        """
        targets = np.asarray(action, dtype=np.float64)
        if targets.shape != previous.shape or not np.isfinite(targets).all():
            raise ValueError(
                f"an action must be finite joint targets {previous.shape}, got {targets.shape}"
            )
        limits = self.contract.action
        change = self.joint_speed * self.contract.period_s
        return limit_goal(targets, previous, limits.lower, limits.upper, change)[0]

    def observe(self) -> NDArray[np.float32]:
        """Return observations [N, O] from what is known now, laid out by the contract."""
        return self.contract.pack(
            {
                "joint_position": self.physics.qpos(self.states)[:, : self.joints],
                "joint_velocity": self.physics.qvel(self.states)[:, : self.joints],
                "command": self.command,
                **self.scene.channels(self._tracker.seen, self.goal, self.steps),
            }
        )

    @property
    def is_observable(self) -> NDArray[np.bool_]:
        """Whether the observations are young enough for the contract [N]: nothing hides here."""
        return np.ones(self.hands, dtype=bool)

    def truth(self) -> Pose:
        """Return where the objects truly are [N]. Nothing that plans or learns may look."""
        return self.scene.pose(self.physics.qpos(self.states))

    def get_state(self, hands: ArrayLike | None = None) -> ObjectCellState:
        """Return all that some hands carry along."""
        chosen = self._select(None, hands)
        return ObjectCellState(
            self.states[chosen],
            np.moveaxis(self.ramp.state(), 0, 1)[chosen],
            self.command[chosen],
            self._tracker.state(chosen),
            self.goal[chosen],
            self.steps[chosen],
        )

    def set_state(
        self, state: ObjectCellState, hands: ArrayLike | None = None
    ) -> NDArray[np.float32]:
        """Carry on from what `get_state` gave; returns observations of all hands [N, O].

        Raises:
            ValueError: a state of another number of hands.
        """
        chosen = self._select(None, hands)
        if len(state.physics) != len(chosen):
            raise ValueError(f"a state of {len(state.physics)} hands for {len(chosen)}")
        self._replace(chosen, state.physics, state.command)
        ramp = np.moveaxis(self.ramp.state(), 0, 1)
        ramp[chosen] = state.ramp
        self.ramp.set_state(np.moveaxis(ramp, 1, 0))
        self._tracker.set_state(state.tracker, chosen)
        self.goal = self.goal.copy()
        self.goal[chosen] = state.goal
        self.steps[chosen] = state.steps
        return self.observe()

    def close(self) -> None:
        """Free what the engine holds."""
        self.physics.close()

    def _replace(self, chosen: list[int], states: Array, command: Array) -> None:
        # Callers keep what they were given: it must stay as it was.
        self.states, self.command = self.states.copy(), self.command.copy()
        self.states[chosen] = states
        self.command[chosen] = command

    def _select(self, seeds: ArrayLike | None, hands: ArrayLike | None) -> list[int]:
        chosen = list(range(self.hands)) if hands is None else np.atleast_1d(hands).tolist()
        if any(not 0 <= hand < self.hands for hand in chosen):
            raise ValueError(f"hands {chosen}, expected 0 to {self.hands - 1}")
        if seeds is not None and np.atleast_1d(seeds).shape != (len(chosen),):
            raise ValueError(f"{len(chosen)} hands need {len(chosen)} seeds, got {seeds!r}")
        return chosen
