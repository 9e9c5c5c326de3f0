# SPDX-License-Identifier: Apache-2.0
import xml.etree.ElementTree as ElementTree

import mujoco
import numpy as np
import pytest
from twinloop.robots.description import cell_urdf, hand_joint_names, hand_urdf
from twinloop.robots.hand24 import HAND24
from twinloop.robots.kinematics import Chain, capsules, fixed_transform
from twinloop.robots.rotations import matrix_from_quaternion, quaternion_from_matrix
from twinloop_sim.bullet_server import connect, load_hand

SIDES = ["right", "left"]
TIPS = ("palm", "ffdistal", "mfdistal", "rfdistal", "lfdistal", "thdistal")
MIRROR = np.diag([-1.0, 1.0, 1.0])


def prefixed(side: str, names: tuple[str, ...]) -> tuple[str, ...]:
    return tuple({"right": "rh_", "left": "lh_"}[side] + name for name in names)


def random_posture(seed: int) -> np.ndarray:
    return np.random.default_rng(seed).uniform(HAND24.lower, HAND24.upper)


@pytest.mark.parametrize("side", SIDES)
def test_joints_and_limits_are_those_of_the_robot(side: str) -> None:
    tree = ElementTree.fromstring(hand_urdf(side))
    moving = [joint for joint in tree.findall("joint") if joint.get("type") == "revolute"]
    assert [joint.get("name") for joint in moving] == list(hand_joint_names(side))
    limits = [joint.find("limit") for joint in moving]
    np.testing.assert_allclose([float(x.get("lower")) for x in limits], HAND24.lower)
    np.testing.assert_allclose([float(x.get("upper")) for x in limits], HAND24.upper)


@pytest.mark.parametrize("side", SIDES)
def test_shapes_are_primitives_and_plain_urdf_on_request(side: str) -> None:
    def shapes(capsules_wanted: bool) -> set[str]:
        tree = ElementTree.fromstring(hand_urdf(side, capsules_wanted))
        return {shape.tag for shape in tree.iterfind(".//geometry/*")}

    assert shapes(True) <= {"box", "sphere", "capsule"}
    assert shapes(False) <= {"box", "sphere", "cylinder"}


def test_phalanges_have_the_lengths_radii_and_masses_of_the_reference_hand() -> None:
    lines = {shape.link: shape for shape in capsules(hand_urdf())}
    tree = ElementTree.fromstring(hand_urdf())
    mass = {link.get("name"): link.find("inertial/mass") for link in tree.findall("link")}
    expected = {
        "ffproximal": (0.045, 0.010, 0.030),
        "mfmiddle": (0.025, 0.00805, 0.017),
        "lfdistal": (0.026, 0.008, 0.013),
        "thproximal": (0.038, 0.013, 0.030),
        "thmiddle": (0.032, 0.011, 0.017),
        "thdistal": (0.027, 0.010, 0.013),
    }
    for name, (length, radius, kilograms) in expected.items():
        line = lines[f"rh_{name}"]
        assert np.linalg.norm(line.end - line.start) == pytest.approx(length)
        assert line.radius == pytest.approx(radius)
        assert float(mass[f"rh_{name}"].get("value")) == pytest.approx(kilograms)


def test_the_left_hand_is_the_mirror_image_of_the_right_one() -> None:
    q = random_posture(1)
    poses = {}
    for side in SIDES:
        chain = Chain(hand_urdf(side), hand_joint_names(side), prefixed(side, TIPS))
        poses[side] = chain.poses(q)
    np.testing.assert_allclose(poses["left"][0], poses["right"][0] @ MIRROR, atol=1e-12)
    np.testing.assert_allclose(poses["left"][1], MIRROR @ poses["right"][1] @ MIRROR, atol=1e-12)


@pytest.mark.parametrize("side", SIDES)
def test_both_engines_and_our_kinematics_put_the_links_in_the_same_places(side: str) -> None:
    q = random_posture(2)
    links = prefixed(side, TIPS)
    position, rotation = Chain(hand_urdf(side), hand_joint_names(side), links).poses(q)

    spec = mujoco.MjSpec.from_string(hand_urdf(side))
    model = spec.compile()
    data = mujoco.MjData(model)
    data.qpos[:] = q
    mujoco.mj_forward(model, data)
    np.testing.assert_allclose([data.body(link).xpos for link in links], position, atol=1e-9)
    found = np.stack([data.body(link).xmat.reshape(3, 3) for link in links])
    np.testing.assert_allclose(found, rotation, atol=1e-9)

    client = connect()
    body, joints = load_hand(client, side)
    for joint, angle in zip(joints, q, strict=True):
        client.resetJointState(body, joint, angle)
    index = {client.getJointInfo(body, i)[12].decode(): i for i in range(client.getNumJoints(body))}
    states = [client.getLinkState(body, index[link], computeForwardKinematics=1) for link in links]
    client.disconnect()
    np.testing.assert_allclose([state[4] for state in states], position, atol=1e-5)


def test_palm_cameras_look_along_the_palm_normal_of_the_cup_pose_from_40_cm() -> None:
    links = ("rh_palm", "camera_left_optical", "camera_right_optical", "camera_left")
    chain = Chain(hand_urdf(), HAND24.joint_names, links)
    q = HAND24.poses["cup"].copy()
    q[0] = 0.0  # the cameras stand on the mount: straight only where WRJ2 is
    (palm, left, right, _), (axes, optical, _, body) = chain.poses(q)
    assert np.linalg.norm(right - left) == pytest.approx(0.12)
    height = ((left + right) / 2 - palm) @ -axes[:, 1]
    assert height == pytest.approx(0.44, abs=0.01)  # 40 cm above the balls' centres
    np.testing.assert_allclose(optical[:, 2], axes[:, 1], atol=1e-9)  # optical z looks
    np.testing.assert_allclose(optical[:, 0], axes[:, 0], atol=1e-9)  # image right: thumb
    np.testing.assert_allclose(body[:, 0], optical[:, 2], atol=1e-9)  # REP-103: x forward
    np.testing.assert_allclose(body[:, 2], -optical[:, 1], atol=1e-9)  # and z up


def test_an_unknown_side_or_link_is_refused_by_name() -> None:
    with pytest.raises(ValueError, match="middle"):
        hand_urdf("middle")
    with pytest.raises(ValueError, match="rh_tail"):
        Chain(hand_urdf(), HAND24.joint_names, ("rh_tail",))
    with pytest.raises(ValueError, match="lh_WRJ1"):
        Chain(hand_urdf(), ("lh_WRJ1",), ("rh_palm",))


def test_quaternions_and_matrices_agree_for_every_rotation() -> None:
    rng = np.random.default_rng(3)
    quaternion = rng.normal(size=(200, 4))
    quaternion[:4] = np.eye(4)
    quaternion /= np.linalg.norm(quaternion, axis=-1, keepdims=True)
    back = quaternion_from_matrix(matrix_from_quaternion(quaternion))
    sign = np.where((quaternion * back).sum(-1, keepdims=True) < 0, -1.0, 1.0)
    np.testing.assert_allclose(sign * back, quaternion, atol=1e-12)


def test_fixed_links_of_the_cell_are_found_though_other_joints_slide() -> None:
    pose = fixed_transform(cell_urdf(), "world", "tray_camera_optical")
    np.testing.assert_allclose(pose[:3, 3], [-0.59, 0.46, 0.24])
    with pytest.raises(ValueError, match=r"panda_finger_joint1.* slide"):
        Chain(cell_urdf(), (), ("panda_leftfinger",))
