# SPDX-License-Identifier: Apache-2.0
"""A table or bin in PyBullet, with one object or a heap that was dropped there.

World frame: z up, the origin on the table or the bin's floor, in its middle.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pybullet as bullet
from numpy.typing import NDArray

from twinloop_sim.bullet_server import connect
from twinloop_sim.grasping.objects import ObjectFiles, Shape

Array = NDArray[np.float64]

STEP_S = 1.0 / 240.0
BIN_M = (0.36, 0.28)  # inside
WALL_M, WALL_HEIGHT_M = 0.012, 0.05
MEAN_COUNT, MOST_OBJECTS = 5.0, 10
_DROP_HEIGHT_M = 0.16
_BETWEEN_DROPS_S = 0.25
_SETTLE_S, _STILL_M_S = 2.5, 0.01
_DENSITY = (200.0, 900.0)  # kg/m³, drawn
_MASS_KG = (0.02, 0.4)
_FRICTION = (0.35, 0.8)  # of objects, drawn; pads and table have 1, and the product counts


def heap_count(rng: np.random.Generator) -> int:
    """Return how many objects are dropped: Poisson of mean 5, from 1 to 10."""
    return int(np.clip(rng.poisson(MEAN_COUNT), 1, MOST_OBJECTS))


@dataclass
class Item:
    """An object in the scene."""

    body: int
    shape: Shape
    friction: float
    mass_kg: float


class Scene:
    """A physics server with a table, or a bin on it, and objects."""

    def __init__(self, files: ObjectFiles | None = None) -> None:
        self.files = files or ObjectFiles()
        self.client = connect()
        self.items: dict[int, Item] = {}
        self.has_bin = False
        self._fixed: list[int] = []

    def close(self) -> None:
        self.client.disconnect()

    def clear(self, has_bin: bool) -> None:
        """Begin anew, without objects."""
        self._begin(has_bin)
        self._fixed = [self._block((0.8, 0.8, 0.05), (0.0, 0.0, -0.05))]
        if has_bin:
            x, y = BIN_M[0] / 2 + WALL_M / 2, BIN_M[1] / 2 + WALL_M / 2
            half, z = WALL_M / 2, WALL_HEIGHT_M / 2
            for side in (-1, 1):
                self._fixed.append(self._block((half, y + half, z), (side * x, 0.0, z)))
                self._fixed.append(self._block((x + half, half, z), (0.0, side * y, z)))

    def _begin(self, has_bin: bool) -> None:
        """Make the world empty."""
        client = self.client
        client.resetSimulation()
        client.setGravity(0.0, 0.0, -9.81)
        client.setTimeStep(STEP_S)
        client.setPhysicsEngineParameter(numSolverIterations=60, deterministicOverlappingPairs=1)
        self.items, self.has_bin = {}, has_bin

    def drop(self, names: Sequence[str], rng: np.random.Generator, spread: float = 0.5) -> None:
        """Drop objects one after the other, and wait until they lie still.

        What ends outside the bin, or 18 cm from the table's middle, is taken away.

        Args:
            names: of `objects.names`.
            rng: draws places, turns, masses and friction.
            spread: share of half the bin's size in which they are dropped.
        """
        for name in names:
            at = rng.uniform(-1, 1, 2) * spread * np.array(BIN_M) / 2
            self.add(name, [*at, _DROP_HEIGHT_M], bullet.getQuaternionFromEuler(
                rng.uniform(-np.pi, np.pi, 3).tolist()), rng)  # fmt: skip
            self.run(_BETWEEN_DROPS_S)
        for _ in range(int(_SETTLE_S / 0.1)):
            self.run(0.1)
            if all(self._speed(body) < _STILL_M_S for body in self.items):
                break
        for body in [b for b in self.items if not self.is_inside(b)]:
            self.remove(body)

    def add(
        self,
        name: str,
        at: Sequence[float],
        turn: Sequence[float],
        rng: np.random.Generator,
    ) -> int:
        """Put an object somewhere; returns its body."""
        shape, path = self.files.get(name)
        client = self.client
        collision = client.createCollisionShape(bullet.GEOM_MESH, fileName=str(path))
        volume = 0.5 * (2 * shape.size_m) ** 3 * 0.3  # nearly enough for a mass within bounds
        mass = float(np.clip(rng.uniform(*_DENSITY) * volume, *_MASS_KG))
        body = client.createMultiBody(mass, collision, -1, at, turn)
        friction = float(rng.uniform(*_FRICTION))
        client.changeDynamics(
            body, -1, lateralFriction=friction, spinningFriction=0.002, rollingFriction=1e-4,
            linearDamping=0.04, angularDamping=0.1,
        )  # fmt: skip
        self.items[body] = Item(body, shape, friction, mass)
        return int(body)

    def remove(self, body: int) -> None:
        self.client.removeBody(body)
        del self.items[body]

    def run(self, seconds: float) -> None:
        for _ in range(round(seconds / STEP_S)):
            self.client.stepSimulation()

    def pose(self, body: int) -> tuple[Array, Array]:
        """Return an object's place [3] and rotation [3, 3]."""
        at, turn = self.client.getBasePositionAndOrientation(body)
        return np.array(at), np.array(bullet.getMatrixFromQuaternion(turn)).reshape(3, 3)

    def is_inside(self, body: int) -> bool:
        """Return whether an object lies in the bin, or near the table's middle."""
        x, y, z = self.pose(body)[0]
        if self.has_bin:
            return bool(abs(x) < BIN_M[0] / 2 and abs(y) < BIN_M[1] / 2 and z > -0.01)
        return bool(np.hypot(x, y) < 0.18 and z > -0.01)

    def _speed(self, body: int) -> float:
        linear, angular = self.client.getBaseVelocity(body)
        return float(np.linalg.norm(linear) + 0.03 * np.linalg.norm(angular))

    def _block(self, half: tuple[float, float, float], at: tuple[float, float, float]) -> int:
        shape = self.client.createCollisionShape(bullet.GEOM_BOX, halfExtents=half)
        body = self.client.createMultiBody(0.0, shape, -1, at)
        self.client.changeDynamics(body, -1, lateralFriction=1.0)
        return int(body)
