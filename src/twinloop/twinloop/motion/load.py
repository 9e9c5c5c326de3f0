# SPDX-License-Identifier: Apache-2.0
"""What the outside does to the tool, by the joints' torques alone."""

from __future__ import annotations

from functools import lru_cache

import numpy as np
import pinocchio as pin
from numpy.typing import NDArray

from twinloop.motion.semantics import TOOL
from twinloop.robots.description import arm_cell_urdf
from twinloop.robots.panda import FINGER_JOINTS, FINGER_TRAVEL_M, PANDA

Array = NDArray[np.float64]
GRAVITY_M_S2 = 9.81


class LoadSensor:
    """Finds the force at the tool that explains torques which the arm's own masses do not.

    Least squares of J(q)ᵀ F = τ(q, q̇, q̈) − τ, with τ(q, q̇, q̈) the arm's inverse dynamics (De Luca &
    Mattone 2005, "Sensorless robot collision detection", the static residual). Torques of the
    outside are left out: things are held near the tool.

    Args:
        cell: that the arm stands in, `hand` or `bins`.
    """

    def __init__(self, cell: str = "hand") -> None:
        self._model, self._tool = _arm(cell)
        self._data = self._model.createData()

    def force(self, q: Array, qd: Array, qdd: Array, torque: Array) -> Array:
        """Return the force of the outside on the tool [3], N, world.

        Args:
            q, qd, qdd: of the joints [7], rad, rad/s, rad/s^2.
            torque: that the joints give [7], N m, what bears the arm's own weight included.
        """
        own = pin.rnea(self._model, self._data, q, qd, qdd)
        jacobian = pin.computeFrameJacobian(
            self._model, self._data, q, self._tool, pin.LOCAL_WORLD_ALIGNED
        )[:3]
        found, *_ = np.linalg.lstsq(jacobian.T, own - torque, rcond=None)
        return np.asarray(found, dtype=np.float64)


@lru_cache(maxsize=2)
def _arm(cell: str) -> tuple[pin.Model, int]:
    whole = pin.buildModelFromXML(arm_cell_urdf(cell, capsules=False))
    posture = pin.neutral(whole)
    for name in FINGER_JOINTS:
        posture[whole.joints[whole.getJointId(name)].idx_q] = FINGER_TRAVEL_M / 2
    locked = [
        index
        for index, name in enumerate(whole.names)
        if index > 0 and name not in PANDA.joint_names
    ]
    model = pin.buildReducedModel(whole, locked, posture)
    return model, model.getFrameId(TOOL)
