# SPDX-License-Identifier: Apache-2.0
"""Files for Gazebo: what can be said of them without it.

`check_urdf` and `ign sdf` (Debian: liburdfdom-tools, ignition-tools and libsdformat-dev) judge them
where they are installed.
"""

from __future__ import annotations

import shutil
import subprocess
import xml.etree.ElementTree as ElementTree
from pathlib import Path

import numpy as np
import pytest
import xacro
import yaml
from twinloop.motion.semantics import semantics
from twinloop.paths import share
from twinloop.robots.hand24 import HAND24
from twinloop.robots.panda import FINGER_JOINTS, PANDA
from twinloop_sim.settings import scene_settings

WORLD = share("config", "gazebo", "cell.sdf")
SDF_TOOL = next((tool for tool in ("gz", "ign") if shutil.which(tool)), None)


def description(name: str) -> str:
    path = share("urdf", f"{name}.urdf.xacro")
    return str(xacro.process_file(str(path), mappings={"capsules": "false"}).toprettyxml(" "))


@pytest.mark.skipif(shutil.which("check_urdf") is None, reason="check_urdf is not installed")
@pytest.mark.parametrize("name", ["hand", "dclaw", "panda", "cell", "cell.gazebo"])
def test_check_urdf_takes_the_descriptions(name: str, tmp_path: Path) -> None:
    path = tmp_path / "robot.urdf"
    path.write_text(description(name))
    done = subprocess.run(["check_urdf", path], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    assert "Successfully Parsed XML" in done.stdout


@pytest.mark.skipif(SDF_TOOL is None, reason="neither gz nor ign is installed")
def test_sdformat_takes_the_world_and_the_cell(tmp_path: Path) -> None:
    def run(*arguments: str) -> str:
        command = [str(SDF_TOOL), "sdf", *arguments]
        done = subprocess.run(command, capture_output=True, text=True, timeout=60)
        assert done.returncode == 0, done.stderr
        return done.stdout

    assert "Valid." in run("--check", str(WORLD))
    urdf, sdf = tmp_path / "cell.urdf", tmp_path / "cell.sdf"
    urdf.write_text(description("cell.gazebo"))
    sdf.write_text(run("-p", str(urdf)))
    assert "Valid." in run("--check", str(sdf))
    assert len(list(ElementTree.parse(sdf).iter("sensor"))) == 3


def test_gazebo_drives_every_joint_from_the_poses_in_which_the_twin_starts() -> None:
    tree = ElementTree.fromstring(description("cell.gazebo"))
    starts = {
        joint.attrib["name"]: float(value.text or "nan")
        for joint in tree.iterfind("ros2_control/joint")
        for value in joint.iterfind("state_interface/param[@name='initial_value']")
    }
    hand = [starts[name] for name in HAND24.joint_names]
    np.testing.assert_allclose(hand, HAND24.poses["cup"])
    arm = [starts[name] for name in PANDA.joint_names]
    np.testing.assert_allclose(arm, semantics().states["rest"])
    moving = {joint.get("name") for joint in tree.iterfind("joint") if joint.get("type") != "fixed"}
    assert {joint.get("name") for joint in tree.iterfind("ros2_control/joint")} == moving


def test_controllers_are_of_the_robots_joints_and_moveit_knows_them() -> None:
    table = yaml.safe_load(share("config", "gazebo", "controllers.yaml").read_text())
    hand = table["rh_trajectory_controller"]["ros__parameters"]
    arm = table["panda_arm_controller"]["ros__parameters"]
    gripper = table["panda_gripper_controller"]["ros__parameters"]
    assert hand["joints"] == list(HAND24.joint_names)
    assert arm["joints"] == list(PANDA.joint_names)
    assert gripper["joint"] == FINGER_JOINTS[0]
    moveit = yaml.safe_load(share("config", "moveit", "moveit_controllers.yaml").read_text())
    names = moveit["moveit_simple_controller_manager"]["controller_names"]
    assert set(names) <= set(table["controller_manager"]["ros__parameters"])


def test_the_balls_of_the_world_are_those_of_the_twin() -> None:
    balls = scene_settings().balls
    models = list(ElementTree.parse(WORLD).iter("model"))
    places = [[float(x) for x in str(model.findtext("pose")).split()[:3]] for model in models]
    np.testing.assert_allclose(places, balls.start_m)
    for model in models:
        assert float(str(model.findtext("link/inertial/mass"))) == balls.mass_kg
        radii = {float(str(radius.text)) for radius in model.iter("radius")}
        assert radii == {balls.radius_m}
        inertia = 0.4 * balls.mass_kg * balls.radius_m**2
        found = float(str(model.findtext("link/inertial/inertia/ixx")))
        assert found == pytest.approx(inertia, rel=1e-3)


def test_every_camera_is_bridged() -> None:
    tree = ElementTree.fromstring(description("cell.gazebo"))
    seen = {str(sensor.findtext("topic")) for sensor in tree.iter("sensor")}
    seen |= {str(sensor.findtext("camera/camera_info_topic")) for sensor in tree.iter("sensor")}
    bridge = yaml.safe_load(share("config", "gazebo", "bridge.yaml").read_text())
    assert {row["gz_topic_name"] for row in bridge} == {*seen, "/clock"}
