# SPDX-License-Identifier: Apache-2.0
"""How far a ball falls that slips out of the gripper over the hand."""

from __future__ import annotations

from collections.abc import Callable

import mujoco
import numpy as np
import pytest
from numpy.typing import NDArray
from twinloop.motion import make_planner
from twinloop.motion.trajectory import Trajectory
from twinloop.resets.arm_moves import ArmMoves, Surroundings
from twinloop.resets.settings import load_settings
from twinloop.robots.hand24 import HAND24
from twinloop_sim.arm_cell import build_cell_model
from twinloop_sim.settings import mujoco_settings, scene_settings

Array = NDArray[np.float64]

SETTINGS = load_settings()
MOST_M = 0.03
TOUCH_M, BELOW_M = 5e-4, -0.1
STEEP = 0.6  # of a contact's normal upwards: steeper sides of fingers a ball only brushes
# The wrist gives way under the hand's own weight: by so much in the twin.
SAG_RAD = 0.09


def landing(hand: Array) -> Callable[[Array], float]:
    """Return how far a ball falls on the hand from its centre [3], m; nan: beside it."""
    model = build_cell_model(scene_settings(), mujoco_settings())
    data = mujoco.MjData(model)
    for name, angle in zip(HAND24.joint_names, hand, strict=True):
        data.qpos[model.joint(name).qposadr[0]] = angle
    bodies = [model.body(body).name for body in model.geom_bodyid]
    fingers = [
        geom
        for geom, body in enumerate(bodies)
        if body.startswith("rh_") and model.geom_contype[geom] | model.geom_conaffinity[geom]
    ]
    ball = bodies.index("ball0")
    start = model.jnt_qposadr[model.body_jntadr[model.geom_bodyid[ball]]]

    def fall(centre: Array) -> float:
        place, between = centre.copy(), np.zeros(6)
        while place[2] > BELOW_M:
            data.qpos[start : start + 3] = place
            mujoco.mj_kinematics(model, data)
            near = min(fingers, key=lambda one: distance(one, between))
            gap = distance(near, between)
            if gap < TOUCH_M:
                up = place - between[:3]
                is_steep = up[2] < STEEP * np.linalg.norm(up)
                return np.nan if is_steep else float(centre[2] - place[2])
            place[2] -= gap
        return np.nan

    def distance(geom: int, between: Array) -> float:
        return float(mujoco.mj_geomDistance(model, data, geom, ball, 0.5, between))

    return fall


@pytest.mark.parametrize("sag_rad", [0.0, SAG_RAD])
@pytest.mark.parametrize("side", ["left", "right"])
def test_a_ball_is_never_carried_higher_over_the_hand_than_it_may_fall(
    side: str, sag_rad: float
) -> None:
    hand = SETTINGS.hand.receive_posture()
    hand[HAND24.joint_names.index("rh_WRJ1")] -= sag_rad
    moves = ArmMoves(make_planner(), SETTINGS)
    around = Surroundings(hand, SETTINGS.held_width_m, holds=True)
    speed = SETTINGS.place.line_speed
    fall, above = landing(hand), np.array([0.0, 0.0, SETTINGS.grasp.over_centre_m])

    def falls(motion: Trajectory) -> list[float]:
        return [fall(moves.tool(q).position - above) for q in motion.position[::4]]

    to_hand = moves.to(side, moves.over_tray, around)
    lower = moves.line(moves.place(side, hand), to_hand.position[-1], around, speed)
    carried, lowered = falls(to_hand), falls(lower)
    assert np.isnan(carried).all(), "on the way to the hand it is over it"
    assert np.isfinite(lowered).sum() > 10
    highest = np.nanmax(lowered)
    print(f"\n{side}, {sag_rad:g} rad lower: falls by {1e3 * highest:.0f} mm at most")
    assert highest <= MOST_M
    assert 0.0 < lowered[-1] <= 0.012
