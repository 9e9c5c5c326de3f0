# SPDX-License-Identifier: Apache-2.0
"""Checks the arm's trajectories in MuJoCo, apart from the engine that planned them."""

from __future__ import annotations

from typing import Any

import mujoco
import numpy as np
from twinloop.motion.planner import Scene
from twinloop.motion.trajectory import Trajectory
from twinloop.robots.description import cell_urdf
from twinloop.robots.hand24 import HAND24
from twinloop.robots.panda import FINGER_JOINTS, PANDA

CLEARANCE_M = 0.001
SEEN_M = 0.010  # distances are measured from this on
STEP_M = 0.001
_GRIPPER = ("panda_hand", "panda_leftfinger", "panda_rightfinger", "panda_link7")
_ARM, _REST = 2, 4


class CellChecker:
    """The cell's URDF in MuJoCo, where only what may not touch makes contacts.

    Args:
        allowed: pairs of links that may touch.
    """

    def __init__(self, allowed: frozenset[frozenset[str]]) -> None:
        spec = mujoco.MjSpec.from_string(cell_urdf())
        spec.compiler.fusestatic = False
        held = spec.body("panda_hand_tcp").add_geom(
            name="held", type=mujoco.mjtGeom.mjGEOM_SPHERE, size=[0.028, 0, 0], mass=0.0
        )
        for geom in spec.geoms:
            # Within this distance a contact is made; its own distance tells how near it is.
            geom.margin = SEEN_M
            is_arm = geom.parent.name.startswith("panda")
            geom.contype, geom.conaffinity = (_ARM, _ARM | _REST) if is_arm else (_REST, 0)
        bodies = {body.name for body in spec.bodies}
        pairs = {*allowed, *(frozenset((link, "panda_hand_tcp")) for link in _GRIPPER)}
        for pair in pairs:
            if pair <= bodies:
                first, second = sorted(pair)
                spec.add_exclude(bodyname1=first, bodyname2=second)
        self.model = spec.compile()
        # Pairs of parent and child are excluded by the SRDF where they are to be.
        self.model.opt.disableflags |= int(mujoco.mjtDisableBit.mjDSBL_FILTERPARENT)
        self.data = mujoco.MjData(self.model)
        self._held = self.model.geom(held.name).id
        every = (*HAND24.joint_names, *PANDA.joint_names, *FINGER_JOINTS)
        self._every = [self.model.joint(name).qposadr[0] for name in every]
        self._arm = [self.model.joint(name).qposadr[0] for name in PANDA.joint_names]

    def tool(self, q: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return position [3] and rotation [3, 3] of the tool."""
        self.data.qpos[self._arm] = q
        mujoco.mj_kinematics(self.model, self.data)
        body = self.data.body("panda_hand_tcp")
        return body.xpos.copy(), body.xmat.reshape(3, 3).copy()

    def check(self, scene: Scene, trajectory: Trajectory) -> dict[str, Any]:
        """Return the samples in collision, the least distance and the greatest share of limits."""
        for name, value in zip(HAND24.joint_names, scene.hand, strict=True):
            self.data.qpos[self.model.joint(name).qposadr[0]] = value
        for name in FINGER_JOINTS:
            self.data.qpos[self.model.joint(name).qposadr[0]] = scene.finger_m
        self.carry(scene.held_radius_m > 0.0)
        times = self._every_millimetre(trajectory)
        found = [self._distance(q) for q in trajectory.at(times)]
        return {
            "samples": len(found),
            "collisions": sum(distance < CLEARANCE_M for distance in found),
            "clearance_mm": min(found) * 1e3,
            "limit_share": limit_share(trajectory),
        }

    def carry(self, carries: bool) -> None:
        """Count a ball between the fingers as part of the arm, or not."""
        self.model.geom_contype[self._held] = _ARM if carries else 0
        self.model.geom_conaffinity[self._held] = (_ARM | _REST) if carries else 0

    def nearest(self, joints: np.ndarray) -> tuple[float, str]:
        """Return the least distance of the arm, m, and the links, for joints [33].

        Joints are those of the hand, the arm, rad, and the fingers, m. Where nothing is near it
        returns `SEEN_M`.
        """
        self.data.qpos[self._every] = joints
        mujoco.mj_kinematics(self.model, self.data)
        mujoco.mj_comPos(self.model, self.data)
        mujoco.mj_collision(self.model, self.data)
        count = self.data.ncon
        if count == 0:
            return SEEN_M, ""
        contact = self.data.contact[int(np.argmin(self.data.contact.dist[:count]))]
        links = [self.model.body(self.model.geom_bodyid[geom]).name for geom in contact.geom]
        return float(contact.dist), " and ".join(sorted(links))

    def _distance(self, q: np.ndarray) -> float:
        """Least distance of all contacts; `SEEN_M` where there are none."""
        self.data.qpos[self._arm] = q
        mujoco.mj_kinematics(self.model, self.data)
        mujoco.mj_comPos(self.model, self.data)
        mujoco.mj_collision(self.model, self.data)
        return min([SEEN_M, *self.data.contact.dist])

    def _every_millimetre(self, trajectory: Trajectory) -> np.ndarray:
        """Times between which no origin of a link, nor the fingertips, move by more than 1 mm."""
        fine = np.linspace(0.0, trajectory.duration, 1 + int(trajectory.duration * 250))
        tips = np.array([[0.0, 0.05, 0.0], [0.0, -0.05, 0.0], [0.05, 0.0, 0.0]])
        places = []
        bodies = [self.model.body(f"panda_link{i}").id for i in range(1, 8)]
        for q in trajectory.at(fine):
            position, rotation = self.tool(q)
            places.append(np.concatenate([self.data.xpos[bodies], position + tips @ rotation.T]))
        moved = np.linalg.norm(np.diff(np.array(places), axis=0), axis=-1).max(axis=-1)
        travelled = np.concatenate([[0.0], np.cumsum(moved)])
        count = 1 + int(np.ceil(travelled[-1] / STEP_M))
        return np.interp(np.linspace(0.0, travelled[-1], count), travelled, fine)


def limit_share(trajectory: Trajectory) -> float:
    """Return the greatest share of a limit that the motion uses, by differences 1 ms apart.

    A position outside its limits counts as infinite.
    """
    h = 0.001
    q = trajectory.at(np.arange(-3, round(trajectory.duration / h) + 4) * h)
    if np.any(q < PANDA.lower - 1e-9) or np.any(q > PANDA.upper + 1e-9):
        return float("inf")
    shares = []
    for order, limit in enumerate((PANDA.velocity, PANDA.acceleration, PANDA.jerk), start=1):
        shares.append(float((np.abs(np.diff(q, n=order, axis=0)) / h**order / limit).max()))
    return max(shares)
