# SPDX-License-Identifier: Apache-2.0
"""Hands in MuJoCo with ramp, tray, stands and arm about them: see `twinloop_sim.arm_cell`."""

from __future__ import annotations

from copy import copy
from dataclasses import dataclass

import mujoco
import numpy as np
from numpy.typing import ArrayLike, NDArray
from twinloop.motion.semantics import semantics
from twinloop.robots.panda import FINGER_JOINTS, FINGER_TRAVEL_M, PANDA

from twinloop_sim.arm_cell import FINGERS, build_cell_model
from twinloop_sim.mujoco_twin import MujocoBatch
from twinloop_sim.settings import MujocoSettings, SceneSettings
from twinloop_sim.twin import JOINTS, Array, State

ARM_JOINTS = (*PANDA.joint_names, *FINGER_JOINTS)
_ARM, _FINGERS = len(PANDA.joint_names), len(FINGER_JOINTS)
_PRESSES_M = 0.002  # both fingers together, beyond what they are told: something is between
_FINER = 4


@dataclass(frozen=True)
class ArmState:
    """True state of the arms [...].

    Attributes:
        q: joints [..., 7], rad.
        qd: [..., 7], rad/s.
        fingers: how far each one is out [..., 2], m.
        fingers_speed: [..., 2], m/s.
    """

    q: Array
    qd: Array
    fingers: Array
    fingers_speed: Array

    @property
    def width(self) -> Array:
        """Between the fingers [...], m."""
        total: Array = self.fingers.sum(axis=-1)
        return total


class ArmBatch(MujocoBatch):
    """N cells. What a `MujocoBatch` does it does alike; arms are told targets beside.

    A reset puts the arm into the SRDF's state `rest`, the gripper open.

    Attributes:
        arm_targets: what the servos of arm and fingers are told [N, 9], rad and m, from the next
            tick on until they are told otherwise.
    """

    def __init__(
        self,
        hands: int,
        threads: int = 1,
        scene: SceneSettings | None = None,
        settings: MujocoSettings | None = None,
    ) -> None:
        side = "right" if scene is None else scene.side
        fingers = np.full(_FINGERS, FINGER_TRAVEL_M)
        self._rest = np.concatenate([semantics(side).states["rest"], fingers])
        self.arm_targets = np.tile(self._rest, (hands, 1))
        # Of hands that ever gripped: the model, and the same with a firm grip.
        self._firm: dict[int, tuple[mujoco.MjModel, mujoco.MjModel]] = {}
        super().__init__(hands, threads, scene, settings)

    def _compile(self, settings: MujocoSettings) -> mujoco.MjModel:
        model = build_cell_model(self.scene, settings)
        actuators = [model.actuator(index).name for index in range(JOINTS, model.nu)]
        joints = [model.joint(index).name for index in range(JOINTS, JOINTS + len(ARM_JOINTS))]
        if actuators != list(ARM_JOINTS) or joints != list(ARM_JOINTS):
            raise ValueError(f"cell: actuators {actuators} of joints {joints}")
        return model

    def _start(self, seed: int) -> Array:
        physics = super()._start(seed)
        physics[1 + JOINTS :][: len(ARM_JOINTS)] = self._rest
        return physics

    def reset(self, seeds: ArrayLike, hands: ArrayLike | None = None) -> State:
        chosen = self.select(seeds, hands)
        self.arm_targets = self.arm_targets.copy()
        self.arm_targets[chosen] = self._rest
        return super().reset(seeds, hands)

    def advance(
        self, physics: Array, ctrl: Array, hands: NDArray[np.integer] | None = None
    ) -> Array:
        arms = self.arm_targets if hands is None else self.arm_targets[hands]
        whole = np.empty((*ctrl.shape[:2], self.model.nu))
        whole[..., :JOINTS] = ctrl
        whole[..., JOINTS:] = arms[:, None]
        rows = np.arange(self.hands) if hands is None else np.asarray(hands)
        fingers = physics[:, 1 + JOINTS + _ARM :][:, :_FINGERS]
        presses = (fingers - arms[:, _ARM:]).sum(axis=1) > _PRESSES_M
        if not presses.any():
            return super().advance(physics, whole, hands)
        states = np.empty((*ctrl.shape[:2], self.state_size))
        firm, free = np.flatnonzero(presses), np.flatnonzero(~presses)
        states[firm] = self._advance_finely(physics[firm], whole[firm], rows[firm])
        if free.size:
            states[free] = super().advance(physics[free], whole[free], rows[free])
        return states

    def _advance_finely(self, physics: Array, ctrl: Array, rows: NDArray[np.integer]) -> Array:
        """Advance cells whose grippers press as `advance` does, in shorter steps."""
        models = []
        for row in rows.tolist():
            model = self.model if self._models is None else self._models[row]
            if self._firm.get(row, (None, None))[0] is not model:
                self._firm[row] = (model, _firm(model))
            models.append(self._firm[row][1])
        count = _FINER * self.substeps
        states, _ = self._pool.rollout(models, self._data, physics, np.repeat(ctrl, count, axis=1))
        return np.asarray(states[:, count - 1 :: count])

    def arm_state(self) -> ArmState:
        """Return where the arms are [N]."""
        q = self.physics[:, 1 + JOINTS :]
        qd = self.physics[:, 1 + self.model.nq + JOINTS :]
        end = _ARM + _FINGERS
        return ArmState(q[:, :_ARM], qd[:, :_ARM], q[:, _ARM:end], qd[:, _ARM:end])

    def get_state(self) -> list[bytes]:
        physics = super().get_state()
        return [p + row.tobytes() for p, row in zip(physics, self.arm_targets, strict=True)]

    def set_state(self, states: list[bytes], hands: ArrayLike | None = None) -> State:
        chosen = self.select(None, hands)
        size = self.arm_targets.itemsize * len(ARM_JOINTS)
        state = super().set_state([s[:-size] for s in states], hands)
        self.arm_targets = self.arm_targets.copy()
        self.arm_targets[chosen] = [np.frombuffer(s[-size:]) for s in states]
        return state


def _firm(model: mujoco.MjModel) -> mujoco.MjModel:
    """Return a copy of a model in which the gripper holds on to balls.

    MuJoCo's friction has no memory of where a ball was held. It lets a ball creep at a speed that
    goes with the contact's time constant, which is at least two steps: 6 mm of a carried one slip
    with steps of 10 ms, 1 mm with a quarter of that.
    """
    firm = copy(model)
    firm.opt.timestep /= _FINER
    firm.opt.noslip_iterations = 3  # against what is left of it, which is gravity's
    for geom in range(model.ngeom):
        if model.body(model.geom_bodyid[geom]).name in FINGERS:
            firm.geom_solref[geom] = (2.0 * firm.opt.timestep, 1.0)
    return firm
