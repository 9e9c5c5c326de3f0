# SPDX-License-Identifier: Apache-2.0
"""Bad answers of devices that speak UDP or ROS, bad scenes to draw, bad wishes of the page."""

from __future__ import annotations

import sys
import time
from array import array
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from geometry_msgs.msg import Point, Pose
from graph import hear, running
from hypothesis import given
from hypothesis import strategies as st
from messages import FLOATS, TEXTS, broken
from sensor_msgs.msg import Image, JointState
from tally import TALLY, examples
from twinloop.contract import load as load_contract
from twinloop.drivers.faults import DriverFault
from twinloop.drivers.shadow_hand import ShadowHandDriver, ShadowHandSettings
from twinloop.drivers.unitree import UnitreeDriver, UnitreeSettings
from twinloop.nodes import qos
from twinloop.nodes.controller_link import RosControllerLink
from twinloop.nodes.joint_messages import time_message
from twinloop.nodes.web import WebNode
from twinloop.robots.go1 import GO1
from twinloop.robots.hand24 import HAND24
from twinloop.robots.shadow_hand import SHADOW_HAND
from twinloop_sim.nodes.twin_cameras import TwinCamerasNode

from twinloop_interfaces.msg import SceneState

sys.path.insert(0, str(Path(__file__).parents[1] / "peers"))
import unitree as peers

# Shadow Hand: what its controllers tell of its joints.


def hand_joints() -> JointState:
    count = len(SHADOW_HAND.joint_names)
    zeros = [0.0] * count
    return JointState(
        name=list(SHADOW_HAND.joint_names), position=zeros, velocity=zeros, effort=zeros
    )


class HeardLink(RosControllerLink):
    """A link that is told by hand, without a node."""

    def missing(self) -> list[str]:
        return []

    def take(self, message: JointState) -> None:
        self._sample = None
        self._take(message)


@examples(250)
@given(message=broken(hand_joints))
def test_a_hand_that_tells_nonsense_is_not_believed(message: JointState) -> None:
    settings = ShadowHandSettings(driver="shadow_hand", stale_s=1.0)
    link = HeardLink("hand", "/", "topic", "command", ["rh_trajectory_controller"])
    driver = ShadowHandDriver(SHADOW_HAND, settings, link)
    link.take(message)
    TALLY.read("joints of a Shadow Hand", driver.read, (DriverFault,), ("joint_states",))
    if link.latest() is not None:
        values = np.array(list(link.latest().joints.values()))  # type: ignore[union-attr]
        assert values.shape == (len(link.latest().joints), 3)  # type: ignore[union-attr]


# Unitree: bytes over UDP.


class Liar(peers.Go1):
    """A controller that answers with what it is told to."""

    answer = b""

    def state(self) -> bytes:
        return self.answer


@pytest.mark.skipif(bool(peers.SKIP), reason=peers.SKIP)
def test_a_robot_that_answers_nonsense_is_not_believed() -> None:
    with Liar() as peer:
        peer.answer = sound = peers.Go1.state(peer)
        given_settings = peer.settings(answer_timeout_s=0.005)
        driver = UnitreeDriver(GO1, UnitreeSettings.model_validate(given_settings))
        patient = UnitreeSettings.model_validate(peer.settings())
        driver._settings = patient.model_copy(update={"local_port": driver._settings.local_port})
        driver.connect()
        driver._settings = driver._settings.model_copy(update={"answer_timeout_s": 0.005})

        @examples(100)
        @given(data=st.data())
        def try_out(data: st.DataObject) -> None:
            packet = bytearray(sound)
            for _ in range(data.draw(st.integers(1, 5))):
                packet[data.draw(st.integers(0, len(packet) - 1))] ^= data.draw(st.integers(1, 255))
            if data.draw(st.booleans()):
                # Whole on its way, and wrong all the same.
                packet[-4:] = peers.checksum(bytes(packet)).to_bytes(4, "little")
            if data.draw(st.integers(0, 3)) == 0:
                packet = packet[: data.draw(st.integers(0, len(packet)))]
            peer.answer = bytes(packet)
            seen: list[Any] = []

            def read() -> None:
                seen.append(driver.read())

            TALLY.read("answer of a Unitree robot", read, (DriverFault,))
            for reading in seen:
                assert np.isfinite(reading.position).all()
                assert np.isfinite(reading.velocity).all()

        try_out()
        peer.answer = sound
        for _ in range(100):  # answers to what was asked before may still come
            try:
                position = driver.read().position
                break
            except DriverFault:
                time.sleep(0.01)
        np.testing.assert_allclose(position, GO1.poses["stand"], atol=1e-6)
        assert not peer.stiffness.any(), "it was moved"
        driver.close()


# Scenes that the twin's cameras are to draw.


def scene() -> SceneState:
    message = SceneState(joint_position=array("d", HAND24.poses["cup"].tobytes()))
    message.header.stamp = time_message(1_700_000_000 * 10**9)
    for x in (-0.02, 0.02):
        pose = Pose(position=Point(x=x, y=0.0, z=0.2))
        pose.orientation.w = 1.0
        message.objects.append(pose)
    return message


@pytest.fixture
def cameras() -> Iterator[TwinCamerasNode]:
    with running(TwinCamerasNode, shadows=False) as node:
        # Somebody who looks: without one, scenes are not even read.
        for topic in ("stereo/left/image_raw", "depth/image_raw"):
            node.create_subscription(Image, topic, lambda _message: None, qos.IMAGE)
        end_s = time.monotonic() + 10.0
        while not all(node._topics[name].has_listeners for name in ("left", "depth")):
            assert time.monotonic() < end_s
            time.sleep(0.01)
        yield node


def test_the_cameras_refuse_bad_scenes(cameras: TwinCamerasNode) -> None:
    stamp_ns = 1_700_000_000 * 10**9

    @examples(120)
    @given(message=broken(scene))
    def try_out(message: SceneState) -> None:
        nonlocal stamp_ns
        before = cameras.health().values["refused"]
        if message.header.stamp == scene().header.stamp:
            stamp_ns += 100_000_000
            message.header.stamp = time_message(stamp_ns)

        def reason() -> str:
            hear(cameras, "scene", message)
            health = cameras.health()
            return health.message if health.values["refused"] != before else ""

        TALLY.ask("scene to draw", reason, ("scene refused",))

    try_out()
    assert int(cameras.health().values["refused"]) > 0


# The page: whoever speaks its protocol can say what no slider would.

CONTRACT = load_contract("baoding")
PORT = 18_080
WISHES = ("joint", "set_goal", "start")


@pytest.fixture
def page() -> Iterator[WebNode]:
    with running(WebNode, control=True, port=PORT) as node:
        yield node


def test_the_page_refuses_what_it_does_not_offer(page: WebNode) -> None:
    actions, state, joints = page._actions, page._state, CONTRACT.action.elements
    assert actions is not None
    state.joints = dict.fromkeys(joints, 0.0)
    wrong = st.one_of(FLOATS, TEXTS, st.none(), st.booleans(), st.lists(FLOATS, max_size=2))
    names = st.one_of(st.sampled_from(joints), TEXTS)

    @examples(150)
    @given(name=names, value=wrong, is_paused=st.booleans(), way=st.sampled_from(WISHES))
    def try_out(name: str, value: Any, is_paused: bool, way: str) -> None:
        state.is_paused, state.notice = is_paused, ""

        def reason() -> str:
            if way == "joint":
                actions.move_joint(name, value)
            else:
                getattr(actions, way)(value)
            actions.work()
            is_refused = "stays" in state.notice or "refused" in state.notice
            return state.notice if is_refused else ""

        TALLY.ask("wish of the page", reason)
        for joint, target in actions._targets.items():
            low, high = actions._limits[joint]
            assert low <= target <= high

    try_out()
