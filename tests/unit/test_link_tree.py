# SPDX-License-Identifier: Apache-2.0
"""Every link is where the kinematics of planners and engines have it."""

from __future__ import annotations

import mujoco
import numpy as np
import pytest
from twinloop.robots.description import cell_urdf, hand_urdf
from twinloop.robots.hand24 import HAND24
from twinloop.robots.kinematics import Chain
from twinloop.robots.link_tree import LinkTree

RNG = np.random.default_rng(0)


def test_hand_is_where_the_models_have_it() -> None:
    tree = LinkTree(hand_urdf())
    assert set(tree.joint_names) == set(HAND24.joint_names)
    q = RNG.uniform(HAND24.lower, HAND24.upper)
    links = ("rh_palm", "rh_ffdistal", "rh_thdistal", "camera_left_optical")
    place, turn = Chain(hand_urdf(), HAND24.joint_names, links).poses(q)
    places, turns = tree.world(dict(zip(HAND24.joint_names, q, strict=True)))
    for index, link in enumerate(links):
        at = tree.names.index(link)
        assert places[at] == pytest.approx(place[index], abs=1e-12)
        assert turns[at] == pytest.approx(turn[index], abs=1e-12)


def test_arm_and_its_sliding_fingers_are_where_mujoco_has_them() -> None:
    urdf = cell_urdf()
    tree = LinkTree(urdf)
    # MuJoCo melts links together that do not move; those that do keep their names.
    model = mujoco.MjModel.from_xml_string(urdf)
    data = mujoco.MjData(model)
    positions = {}
    for joint in range(model.njnt):
        name, (low, high) = model.joint(joint).name, model.jnt_range[joint]
        positions[name] = float(RNG.uniform(low, high))
    positions["panda_finger_joint2"] = positions["panda_finger_joint1"]
    for joint in range(model.njnt):
        data.qpos[model.jnt_qposadr[joint]] = positions[model.joint(joint).name]
    mujoco.mj_kinematics(model, data)
    places, turns = tree.world(positions)
    moving = [link.name for link in tree.links if not link.is_fixed]
    assert {"panda_leftfinger", "panda_rightfinger", "panda_link7"} <= set(moving)
    for name in moving:
        body = data.body(name)
        at = tree.names.index(name)
        assert places[at] == pytest.approx(body.xpos, abs=1e-9), name
        assert turns[at].ravel() == pytest.approx(body.xmat, abs=1e-9), name


def test_a_joint_of_another_kind_is_named() -> None:
    urdf = """<robot name="r"><link name="a"/><link name="b"/>
      <joint name="free" type="floating"><parent link="a"/><child link="b"/></joint></robot>"""
    with pytest.raises(ValueError, match="joint free is floating, expected fixed, revolute"):
        LinkTree(urdf)
