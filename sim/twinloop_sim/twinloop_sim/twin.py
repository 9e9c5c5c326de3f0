# SPDX-License-Identifier: Apache-2.0
"""What every twin of the Baoding cell offers, whichever engine runs it.

World frame: z up, metres. Quaternions are w, x, y, z. Joints are in the order of
`twinloop.robots.hand24`.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from twinloop.robots.hand24 import HAND24

from twinloop_sim.settings import SceneSettings, scene_settings
from twinloop_sim.variation import JOINTS, Array, Differences, Variation


@dataclass(frozen=True)
class State:
    """True state of a scene, or of a batch of scenes under leading dimensions [...].

    Attributes:
        time: since the reset [...], s.
        q: joint positions [..., 24], rad.
        qd: joint velocities [..., 24], rad/s.
        ball_position: ball centres [..., 2, 3], m, world.
        ball_quaternion: ball orientations [..., 2, 4].
        ball_velocity: velocities of the centres [..., 2, 3], m/s, world.
        palm_position: origin of the palm frame [..., 3], m, world.
        palm_quaternion: orientation of the palm frame [..., 4].
        arm: joints of the arm, rad, and of its fingers, m [..., 9]; [..., 0] where there is none.
    """

    time: Array
    q: Array
    qd: Array
    ball_position: Array
    ball_quaternion: Array
    ball_velocity: Array
    palm_position: Array
    palm_quaternion: Array
    arm: Array

    def __getitem__(self, index: Any) -> State:
        """Select along the leading dimensions, for instance `state[0]` or `states[:, -1]`."""
        return State(*(getattr(self, field.name)[index] for field in fields(self)))

    @property
    def joints(self) -> Array:
        """Joint positions of hand, arm and fingers [..., 24] or [..., 33], rad and m."""
        return np.concatenate([self.q, self.arm], axis=-1)


class BatchTwin(ABC):
    """N hands with two balls each, advanced together, tick by tick.

    Deterministic: equal seeds and controls give bit-equal states, and the state after T ticks
    does not depend on how they were cut into calls nor on the number of hands beside.
    """

    name: str
    hands: int

    def __init__(self, hands: int, scene: SceneSettings | None = None) -> None:
        if hands < 1:
            raise ValueError(f"a twin needs at least 1 hand, got {hands}")
        self.hands = hands
        self.scene = scene or scene_settings()
        self.tick_s = self.scene.tick_s
        # Joint targets [N, 24], rad, with which the hands stand still after their reset.
        self.rest = np.tile(HAND24.poses["cup"], (hands, 1))
        self.differences = Differences(hands)

    def vary(self, hands: ArrayLike | None, variations: Sequence[Variation]) -> None:
        """Let hands differ from the nominal one, from their next reset on.

        Args:
            hands: which [K]; None for all.
            variations: one a hand.

        Raises:
            ValueError: another number of variations than of hands, or an engine that cannot.
        """
        raise ValueError(f"{self.name} twin: hands cannot be varied, only those of mujoco can")

    @abstractmethod
    def reset(self, seeds: ArrayLike, hands: ArrayLike | None = None) -> State:
        """Put the hands into the cup pose and the balls into the cup, at rest, at time zero.

        Args:
            seeds: one a hand to reset [K]; a seed shifts the balls and joints a little.
            hands: which hands [K]; default all.

        Returns:
            The states of all hands [N].
        """

    @abstractmethod
    def step(self, ctrl: ArrayLike) -> State:
        """Advance T ticks with these joint targets [N, T, 24], rad; returns states [N, T]."""

    @abstractmethod
    def state(self) -> State:
        """The present states [N]."""

    @abstractmethod
    def get_state(self) -> list[bytes]:
        """Everything the engine needs to carry on bit-exactly, one string a hand [N]."""

    @abstractmethod
    def set_state(self, states: list[bytes], hands: ArrayLike | None = None) -> State:
        """Carry on from what `get_state` gave (in this or another process); returns states [N].

        Raises:
            ValueError: a string that this engine did not make.
        """

    def close(self) -> None:  # noqa: B027 - most engines hold nothing to give back
        """Free what the engine holds outside of Python."""

    def check_ctrl(self, ctrl: ArrayLike) -> Array:
        """Return joint targets as an array [N, T, 24].

        Raises:
            ValueError: another shape or a value that is not finite.
        """
        targets = np.asarray(ctrl, dtype=np.float64)
        if targets.ndim != 3 or targets.shape[0] != self.hands or targets.shape[2] != JOINTS:
            raise ValueError(
                f"{self.name} twin: joint targets must have shape ({self.hands}, ticks, {JOINTS}),"
                f" got {targets.shape}"
            )
        if targets.shape[1] == 0:
            raise ValueError(f"{self.name} twin: at least one tick of joint targets is needed")
        if not np.isfinite(targets).all():
            raise ValueError(f"{self.name} twin: joint targets hold values that are not finite")
        return targets

    def select(self, seeds: ArrayLike | None, hands: ArrayLike | None) -> list[int]:
        """Return hand indices; `hands` None means all.

        Raises:
            ValueError: an index out of range, or another number of seeds than of hands.
        """
        chosen = list(range(self.hands)) if hands is None else np.atleast_1d(hands).tolist()
        if any(not 0 <= hand < self.hands for hand in chosen):
            raise ValueError(f"{self.name} twin: hands {chosen}, expected 0 to {self.hands - 1}")
        if seeds is not None and np.atleast_1d(seeds).shape != (len(chosen),):
            raise ValueError(
                f"{self.name} twin: {len(chosen)} hands need {len(chosen)} seeds, got {seeds!r}"
            )
        return chosen


class Twin:
    """One hand: the plain interface over a batch of one."""

    def __init__(self, batch: BatchTwin) -> None:
        if batch.hands != 1:
            raise ValueError(f"a Twin is one hand, the batch has {batch.hands}")
        self.batch = batch
        self.name = batch.name
        self.dt = batch.tick_s

    def reset(self, seed: int) -> State:
        """Start anew; returns the state at time zero."""
        return self.batch.reset([seed])[0]

    def step(self, ctrl: ArrayLike) -> State:
        """Advance as many ticks as `ctrl` [T, 24] has rows; returns the last state."""
        return self.batch.step(np.asarray(ctrl, dtype=np.float64)[None])[0, -1]

    def state(self) -> State:
        return self.batch.state()[0]

    def render(self, camera: str = "overview") -> NDArray[np.uint8]:
        """Draw what a camera of config/twin/scene.yaml sees, [H, W, 3] RGB.

        Raises:
            ValueError: there is no such camera.
        """
        from twinloop_sim.render import renderer

        return renderer(self.batch.scene).draw(self.state(), camera)

    def get_state(self) -> bytes:
        return self.batch.get_state()[0]

    def set_state(self, state: bytes) -> State:
        return self.batch.set_state([state])[0]

    def close(self) -> None:
        self.batch.close()


def start_state(scene: SceneSettings, seed: int) -> tuple[Array, Array]:
    """Return joint positions [24] and ball places [2, 3] from which a seed's reset settles."""
    if seed < 0:
        raise ValueError(f"a seed must not be negative, got {seed}")
    rng = np.random.default_rng(seed)
    balls = np.asarray(scene.balls.start_m) + rng.normal(0.0, scene.reset.ball_spread_m, (2, 3))
    shift = rng.normal(0.0, scene.reset.joint_spread_rad, JOINTS)
    q = np.clip(HAND24.poses["cup"] + shift, HAND24.lower, HAND24.upper)
    return q, balls


ENGINES = ("mujoco", "pybullet")


def make_batch(
    engine: str,
    hands: int,
    threads: int = 1,
    scene: SceneSettings | None = None,
    arm: bool = False,
) -> BatchTwin:
    """Build N hands on an engine, each with ramp, tray and arm where `arm` is true.

    Raises:
        ValueError: an unknown engine, or one that has no arm.
    """
    if arm and engine != "mujoco":
        raise ValueError(f"the cell with the arm runs on mujoco, got {engine!r}")
    if arm:
        from twinloop_sim.arm_twin import ArmBatch

        return ArmBatch(hands, threads=threads, scene=scene)
    if engine == "mujoco":
        from twinloop_sim.mujoco_twin import MujocoBatch

        return MujocoBatch(hands, threads=threads, scene=scene)
    if engine == "pybullet":
        from twinloop_sim.pybullet_twin import BulletBatch

        return BulletBatch(hands, scene=scene)
    raise ValueError(f"twin engine must be one of {ENGINES}, got {engine!r}")


def make_twin(engine: str, scene: SceneSettings | None = None) -> Twin:
    """Build one hand on an engine.

    Raises:
        ValueError: an unknown engine.
    """
    return Twin(make_batch(engine, 1, scene=scene))
