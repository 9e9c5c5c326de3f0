# SPDX-License-Identifier: Apache-2.0
"""The arm between two bins in PyBullet: it follows, feels, and picks for real."""

from __future__ import annotations

from xml.etree import ElementTree

import numpy as np
import pytest
from twinloop.grasping.bins import Bin, inside
from twinloop.grasping.pick_moves import PickMoves
from twinloop.grasping.pick_settings import load_settings
from twinloop.grasping.picking import PickLoop
from twinloop.motion import make_planner
from twinloop.motion.planner import ArmPlanner, Pose
from twinloop.motion.semantics import arm_limits
from twinloop.resets.faults import Fault
from twinloop.robots.description import bins_urdf
from twinloop_sim.grasping import depth_camera, scene
from twinloop_sim.grasping.bin_cell import TICK_S, BinCell
from twinloop_sim.grasping.clearing import Kind, TopDown, clear_bin
from twinloop_sim.grasping.pick_devices import CellScales, cell_devices

DOWN = np.diag([1.0, -1.0, -1.0])
SETTINGS = load_settings()


@pytest.fixture(scope="module")
def planner() -> ArmPlanner:
    return make_planner("ompl", cell="bins")


@pytest.fixture
def cell():
    made = BinCell()
    yield made
    made.close()
    made.files.close()


def put(cell: BinCell, name: str, at: tuple[float, float], turn: float = 0.0) -> int:
    """Put an object into the bin, and wait until it lies; returns its body."""
    rng = np.random.default_rng(1)
    body = cell.add(name, [*at, 0.06], [0.0, 0.0, np.sin(turn / 2), np.cos(turn / 2)], rng)
    cell.run(0.8)
    return body


def test_bins_stand_where_the_settings_say() -> None:
    links = {link.get("name"): link for link in ElementTree.fromstring(bins_urdf()).findall("link")}
    mounts = {
        joint.find("child").get("link"): joint.find("origin").get("xyz")
        for joint in ElementTree.fromstring(bins_urdf()).findall("joint")
    }
    for name, box in (("first_bin", SETTINGS.source), ("second_bin", SETTINGS.target)):
        assert [float(x) for x in mounts[name].split()[:2]] == list(box.middle)
        walls = links[name].findall("collision")
        inner = []
        for wall in walls:
            place = np.array([float(x) for x in wall.find("origin").get("xyz").split()])
            size = np.array([float(x) for x in wall.find("geometry/box").get("size").split()])
            assert place[2] + size[2] / 2 == pytest.approx(box.height)
            axis = int(np.abs(place[:2]).argmax())
            inner.append((axis, 2 * (abs(place[axis]) - size[axis] / 2)))
        expected = [(0, box.size[0])] * 2 + [(1, box.size[1])] * 2
        np.testing.assert_allclose(sorted(inner), expected, atol=1e-9)
    assert SETTINGS.source.size == scene.BIN_M


def test_a_bin_is_seen_from_its_floor_to_its_rim() -> None:
    camera = depth_camera.look_down(height_m=0.7)
    box = Bin(middle=(0.05, 0.0), size=(0.2, 0.1), height=0.05)
    shown = inside(box, camera.camera, camera.rotation, camera.position, 0.0)
    rows, columns = np.nonzero(shown)
    middle = camera.camera.project(camera.into_camera(np.array([0.05, 0.0, 0.0])))
    assert np.abs([columns.mean(), rows.mean()] - middle).max() < 2.0
    # The floor limits what is seen, as walls rise towards the camera.
    assert np.ptp(columns) == pytest.approx(525.0 * 0.2 / 0.7, abs=3.0)
    assert np.ptp(rows) == pytest.approx(525.0 * 0.1 / 0.7, abs=3.0)


def test_fingers_have_the_friction_they_were_told(cell) -> None:
    client = cell.client
    links = range(client.getNumJoints(cell._body))
    names = {client.getJointInfo(cell._body, link)[12].decode(): link for link in links}
    for name in ("panda_leftfinger", "panda_rightfinger", "first_bin"):
        assert client.getDynamicsInfo(cell._body, names[name])[1] == 1.0


def test_the_arm_follows_within_its_limits_and_weighs_what_it_holds(cell, planner) -> None:
    body = put(cell, "brick/009", (0.0, 0.0))
    top_m = float(cell.pose(body)[0][2])
    scales, limits = CellScales(cell), arm_limits()

    def go(place: Pose, straight: bool) -> None:
        planner.set_start_state(np.clip(cell.arm.q, limits.lower, limits.upper))
        if straight:
            motion = planner.plan_line(place, 0.25, 0.001, 0.4)
        else:
            planner.set_goal_state(pose=place)
            motion = planner.plan(2.0, 0.9, 0.5)
        cell.arm.execute(motion)
        worst_rad = 0.0
        while not cell.arm.motion.is_over:
            cell.tick()
            worst_rad = max(worst_rad, float(np.abs(cell.arm.q - cell.arm.setpoint.position).max()))
            assert (np.abs(cell.arm.qd) < 1.05 * limits.velocity).all()
        assert cell.arm.motion.state == "succeeded", cell.arm.motion.detail
        assert worst_rad < 0.03
        cell.run(0.3)

    above, at = Pose([0.0, 0.0, 0.25], DOWN), Pose([0.0, 0.0, top_m], DOWN)
    go(above, False)
    empty_n = float(scales.force()[2])
    go(at, True)
    cell.arm.grip(0.0, 25.0)
    cell.run(0.6)
    assert cell.arm.grasp.state == "stalled"
    assert 0.03 < cell.arm.width < 0.07
    go(above, True)
    cell.run(0.5)
    assert cell.pose(body)[0][2] > 0.2
    weight_kg = (empty_n - float(scales.force()[2])) / 9.81
    assert weight_kg == pytest.approx(cell.items[body].mass_kg, abs=0.02)


def test_a_thing_is_really_picked_and_put_over(cell, planner) -> None:
    body = put(cell, "brick/009", (0.05, -0.03), 0.5)
    rng = np.random.default_rng(2)
    camera = depth_camera.look_down(height_m=0.65, tilt_rad=(0.1, -0.05), turn_rad=0.7)
    devices = cell_devices(cell, camera, "structured_light", rng)
    loop = PickLoop(devices, PickMoves(planner, SETTINGS), TopDown(SETTINGS))
    outcome = loop.run()
    assert outcome.success, outcome.message
    assert outcome.message == "the bin is empty"
    assert loop.picked == 1
    cell.run(0.5)
    assert cell.is_in_target(body)
    assert loop.attempts[-1].weight_kg == pytest.approx(cell.items[body].mass_kg, abs=0.03)
    assert outcome.seconds < 30.0


def test_the_arm_at_rest_touches_nothing_of_its_mount_and_tells_no_speed(cell) -> None:
    cell.clear(True)
    cell.run(0.5)
    body = cell._body
    assert cell.client.getContactPoints(bodyA=body, bodyB=body) == ()
    assert np.abs(cell.arm.qd).max() < 1e-3


def test_what_arrives_is_credited_to_the_attempt_that_brought_it(cell, planner) -> None:
    """A thing that falls into the other bin as the fingers open is that attempt's."""
    finder = TopDown(SETTINGS)
    found = clear_bin(cell, PickMoves(planner, SETTINGS), finder, Kind.single, "ideal", index=3)
    assert found.objects == found.moved == 1
    assert sum(one.moved for one in found.tries) == 1
    put_over = [one for one in found.tries if one.attempt.fault is None]
    assert [one.end for one in put_over] == ["picked"]


def test_withdrawn_on_the_way_the_arm_brakes_and_stands(cell, planner) -> None:
    put(cell, "brick/009", (0.05, -0.03))
    devices = cell_devices(cell, depth_camera.look_down(), "ideal", np.random.default_rng(3))
    loop = PickLoop(devices, PickMoves(planner, SETTINGS), TopDown(SETTINGS))
    phases: list[str] = []
    began_s: list[float] = []

    def cancelled() -> bool:
        if phases[-1] != "approach":
            return False
        began_s.append(cell.now_s)
        return cell.now_s > began_s[0] + 0.3  # in full motion

    outcome = loop.run(lambda phase, _percent: phases.append(phase), cancelled)
    assert outcome.fault is Fault.CANCELLED
    assert np.abs(cell.arm.qd).max() > 0.05
    cell.run(0.5)
    assert np.abs(cell.arm.qd).max() < 0.01
    assert cell.now_s - began_s[0] < 1.5 + TICK_S
