# SPDX-License-Identifier: Apache-2.0
"""What ROS viewers are given by a running cell, and that nothing is made for nobody."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import yaml
from bag_processes import Observer, Processes, wait_until
from rclpy.qos import DurabilityPolicy, QoSProfile, ReliabilityPolicy
from sensor_msgs.msg import JointState, PointCloud2
from std_msgs.msg import String
from tf2_msgs.msg import TFMessage
from twinloop.dds import take_domain
from twinloop.nodes import qos
from twinloop.nodes.point_clouds import from_cloud
from twinloop.paths import share
from twinloop.robots.description import hand_urdf
from twinloop.robots.link_tree import LinkTree
from twinloop.robots.rotations import matrix_from_quaternion
from twinloop.views.plan_points import BALL, POINT
from visualization_msgs.msg import Marker, MarkerArray

DOMAIN = take_domain()
NAMES = ("/twin", "/tracker", "/planner", "/robot_state", "/markers", "/episode")
# What rviz's displays subscribe to.
KINDS = {
    "MarkerArray": "visualization_msgs/msg/MarkerArray",
    "Image": "sensor_msgs/msg/Image",
    "PointCloud2": "sensor_msgs/msg/PointCloud2",
    "RobotModel": "std_msgs/msg/String",
}


@pytest.fixture(scope="module")
def observer() -> Iterator[Observer]:
    """A cell that turns its balls without end, and somebody who looks."""
    with Processes(DOMAIN) as processes, Observer(DOMAIN) as looking:
        processes.node("twinloop_sim.nodes.twin", lockstep=True, rtf=1.0)
        processes.node("twinloop.nodes.ball_tracker", nice=0)
        processes.node("twinloop.nodes.planner", rtf=1.0, nice=0)
        processes.node("twinloop.nodes.robot_state")
        processes.node("twinloop.nodes.markers")
        processes.node("twinloop.nodes.episode", episodes=50, steps=100, lockstep=True)
        for name in NAMES:
            wait_until(lambda name=name: looking.values(name).get("state") == "active", 90.0)
        yield looking


def listen(observer: Observer, kind: Any, topic: str, profile: QoSProfile) -> list[Any]:
    """Return a list that grows with the messages of a topic."""
    heard: list[Any] = []
    observer.node.create_subscription(kind, topic, heard.append, profile)
    return heard


def test_nothing_is_made_while_nobody_looks(observer: Observer) -> None:
    before = observer.statuses["/markers"], observer.statuses["/robot_state"]
    for name in ("/markers", "/robot_state"):
        wait_until(lambda name=name: observer.statuses[name] not in before)
        assert observer.values(name)["sent"] == "0"
    assert observer.statuses["/markers"].message == "nobody looks"
    assert observer.node.count_subscribers("plan_rollouts") == 0


def test_description_and_transforms_place_every_link(observer: Observer) -> None:
    latched = qos.latched()
    described = listen(observer, String, "robot_description", latched)
    static = listen(observer, TFMessage, "/tf_static", latched)
    # As tf2's listeners ask for them.
    moving = listen(observer, TFMessage, "/tf", QoSProfile(depth=100))
    joints = listen(observer, JointState, "joint_states", qos.SENSOR)
    wait_until(lambda: described and static and len(moving) > 3)
    tree = LinkTree(hand_urdf())
    assert "<capsule" not in described[0].data
    assert set(LinkTree(described[0].data).names) == set(tree.names)
    one = moving[-1]
    stamp = one.transforms[0].header.stamp
    wait_until(lambda: any(joint.header.stamp == stamp for joint in joints))
    (sample,) = [joint for joint in joints if joint.header.stamp == stamp]
    places, turns = tree.relative(dict(zip(sample.name, sample.position, strict=True)))
    told = {each.child_frame_id: each for each in [*static[0].transforms, *one.transforms]}
    assert set(told) == {link.name for link in tree.links}
    for index, link in enumerate(tree.links):
        each = told[link.name]
        assert each.header.frame_id == link.parent
        at, turn = each.transform.translation, each.transform.rotation
        assert [at.x, at.y, at.z] == pytest.approx(places[index], abs=1e-9)
        matrix = matrix_from_quaternion(np.array([turn.w, turn.x, turn.y, turn.z]))
        assert matrix == pytest.approx(turns[index], abs=1e-6)


def test_balls_targets_and_rollouts_become_markers(observer: Observer) -> None:
    heard = {
        name: listen(observer, MarkerArray, f"markers/{name}", qos.EVENT)
        for name in ("balls", "targets", "plan", "disagreement")
    }
    clouds = listen(observer, PointCloud2, "plan_rollouts", qos.SENSOR)
    wait_until(lambda: all(heard.values()) and clouds)
    balls = heard["balls"][-1].markers
    assert [one.type for one in balls] == [Marker.SPHERE] * 2
    assert balls[0].header.frame_id == "rh_palm"
    assert balls[0].scale.x == pytest.approx(0.056)
    rollouts, fingertips = heard["plan"][-1].markers
    assert rollouts.type == fingertips.type == Marker.LINE_LIST
    stamps = [cloud.header.stamp for cloud in clouds]
    wait_until(lambda: clouds[-1].header.stamp != stamps[-1])
    points = from_cloud(clouds[-1], POINT)
    steps = points["step"].max()
    assert len(fingertips.points) == 5 * steps * 2
    assert len(rollouts.points) == 16 * 2 * steps * 2
    assert len(rollouts.colors) == len(rollouts.points)
    assert len({(one.r, one.g, one.b) for one in rollouts.colors}) > 3  # by cost
    shown = points[points["kind"] == BALL]
    assert np.isfinite(shown["cost"]).all()
    assert len(heard["targets"][-1].markers) == len(heard["disagreement"][-1].markers) == 2


@pytest.mark.parametrize("name", ["baoding", "cell"])
def test_rviz_subscribes_to_topics_that_are_there(observer: Observer, name: str) -> None:
    manager = yaml.safe_load(share("rviz", f"{name}.rviz").read_text())["Visualization Manager"]
    for display in manager["Displays"]:
        kind = display["Class"].rpartition("/")[2]
        about = display.get("Topic") or display.get("Description Topic")
        if kind not in KINDS:
            assert about is None, f"the test does not know what {kind} subscribes to"
            continue
        publishers = observer.node.get_publishers_info_by_topic(about["Value"])
        assert publishers, f"{display['Name']}: nobody publishes {about['Value']}"
        for publisher in publishers:
            assert publisher.topic_type == KINDS[kind], display["Name"]
            is_reliable = publisher.qos_profile.reliability is ReliabilityPolicy.RELIABLE
            assert about["Reliability Policy"] == "Best Effort" or is_reliable, display["Name"]
            is_latched = publisher.qos_profile.durability is DurabilityPolicy.TRANSIENT_LOCAL
            assert about["Durability Policy"] == "Volatile" or is_latched, display["Name"]
