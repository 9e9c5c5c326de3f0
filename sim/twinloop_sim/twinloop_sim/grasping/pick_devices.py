# SPDX-License-Identifier: Apache-2.0
"""The devices of the pick loop on an in-process cell: noisy depth images, joints and torques.

Time passes in `clock.wait` alone: planning takes none of it.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from twinloop.grasping.pick_devices import PickDevices, View
from twinloop.motion.load import LoadSensor

from twinloop_sim.grasping import depth_camera
from twinloop_sim.grasping.bin_cell import TICK_S, BinCell
from twinloop_sim.grasping.depth_camera import DepthCamera
from twinloop_sim.grasping.depth_noise import NOISES
from twinloop_sim.reset_devices import CellArm, CellGripper, NeverStopped

Array = NDArray[np.float64]

# Standard deviations of what the calibration of a camera's place is off: m and rad, each axis.
OFF_M, OFF_RAD = 0.0015, 0.003


class CellClock:
    """Advances the cell."""

    def __init__(self, cell: BinCell) -> None:
        self._cell = cell

    def now_s(self) -> float:
        return self._cell.now_s

    def wait(self, seconds: float) -> None:
        for _ in range(max(1, round(seconds / TICK_S))):
            self._cell.tick()


class CellEyes:
    """A depth camera whose place is known as well as a calibration tells it.

    Args:
        cell: what it sees.
        camera: where it truly is.
        noise: a key of `depth_noise.NOISES`.
        rng: draws its noise, and what its calibration is off.
    """

    complaint = ""

    def __init__(
        self, cell: BinCell, camera: DepthCamera, noise: str, rng: np.random.Generator
    ) -> None:
        self._cell = cell
        self._camera = camera
        self._noise = NOISES[noise]
        self._rng = rng
        self._position = camera.position + rng.normal(0.0, OFF_M, 3)
        self._rotation = _turned(rng.normal(0.0, OFF_RAD, 3)) @ camera.rotation

    def look(self, after_s: float) -> View | None:
        if self._cell.now_s <= after_s:
            return None
        ideal, bodies = depth_camera.render(self._cell, self._camera)
        model = self._camera.camera
        things = np.where(np.isin(bodies, list(self._cell.items)), bodies, -1)
        depth = self._noise(ideal, things, float(model.k[0, 0]), self._rng)
        return View(self._cell.now_s, depth, model, self._rotation, self._position)


class CellScales:
    """What the joints' torques tell of the outside."""

    def __init__(self, cell: BinCell) -> None:
        self._cell = cell
        self._sensor = LoadSensor("bins")

    def force(self) -> Array:
        found = [self._sensor.force(*strain) for strain in self._cell.strains]
        return np.asarray(np.mean(found, axis=0)) if found else np.zeros(3)


def cell_devices(
    cell: BinCell, camera: DepthCamera, noise: str, rng: np.random.Generator
) -> PickDevices:
    """Return the devices of a cell; arguments as of `CellEyes`."""
    return PickDevices(
        CellClock(cell),
        CellArm(cell),
        CellGripper(cell),
        CellEyes(cell, camera, noise, rng),
        CellScales(cell),
        NeverStopped(),
    )


def _turned(angles: Array) -> Array:
    """Return the rotation matrix [3, 3] of a small rotation vector [3], rad."""
    angle = float(np.linalg.norm(angles))
    x, y, z = angles / max(angle, 1e-12)
    skew = np.array([[0.0, -z, y], [z, 0.0, -x], [-y, x, 0.0]])
    turn: Array = np.eye(3) + np.sin(angle) * skew + (1.0 - np.cos(angle)) * skew @ skew
    return turn
