# SPDX-License-Identifier: Apache-2.0
"""Robot state node: description and transforms, where robot_state_publisher is not installed.

`/tf` follows the joint states only while somebody listens to it.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from geometry_msgs.msg import Quaternion, Transform, TransformStamped, Vector3
from sensor_msgs.msg import JointState
from std_msgs.msg import String
from tf2_msgs.msg import TFMessage

from twinloop.contract import stamp_of
from twinloop.nodes import qos
from twinloop.nodes.base import OK, WARN, Health, Node, run
from twinloop.nodes.lazy import WhileWatched
from twinloop.nodes.parameters import ParameterSpec
from twinloop.robots.description import cell_urdf, hand_urdf
from twinloop.robots.link_tree import LinkTree
from twinloop.robots.rotations import quaternion_from_matrix

_URDFS = {"hand": hand_urdf, "cell": cell_urdf}


class RobotStateNode(Node):
    """Wires a LinkTree to joint states and transforms."""

    parameters = (
        ParameterSpec(
            "description", "hand", "What is described: the hand, or the cell about it",
            choices=tuple(_URDFS),
        ),
        ParameterSpec("rate_hz", 30.0, "Transforms in a second, at most", 0.1, 1000.0),
        ParameterSpec(
            "joint_topics", ["joint_states", "arm/joint_states"], "Topics that tell joint positions"
        ),
    )  # fmt: skip

    def __init__(self) -> None:
        super().__init__("robot_state")
        self._tree: LinkTree | None = None
        self._positions: dict[str, float] = {}
        self._last_ns = 0
        self._sent = 0

    def configure(self) -> None:
        make = _URDFS[self.param("description")]
        self._tree = LinkTree(make())
        self._positions.clear()
        self._description = self.create_publisher(String, "robot_description", qos.latched())
        self._static = self.create_publisher(TFMessage, "/tf_static", qos.latched())
        self._moving = self.create_publisher(TFMessage, "/tf", qos.EVENT)
        # Viewers read plain URDF, which knows no capsules.
        self._description.publish(String(data=make(capsules=False)))
        self._publish(self._static, is_fixed=True, stamp=self.get_clock().now().to_msg())
        self._watch = WhileWatched(self, [self._moving], self._subscribe)

    def cleanup(self) -> None:
        self._watch.close()
        for publisher in (self._description, self._static, self._moving):
            self.destroy_publisher(publisher)
        self._tree = None

    def health(self) -> Health:
        if self._tree is None:
            return Health(WARN, "not configured")
        values = {"joints": str(len(self._positions)), "sent": str(self._sent)}
        return Health(OK, "publishing" if self._watch.is_watched else "nobody listens", values)

    def _subscribe(self) -> list[Any]:
        return [
            self.create_subscription(JointState, topic, self.guarded(self._on_joints), qos.SENSOR)
            for topic in self.param("joint_topics")
        ]

    def _on_joints(self, message: JointState) -> None:
        if len(message.position) != len(message.name) or not np.isfinite(message.position).all():
            return
        self._positions.update(zip(message.name, message.position, strict=True))
        stamp_ns = stamp_of(message)
        # A clock that was set back counts as well.
        if self.is_active and not 0 <= stamp_ns - self._last_ns < 0.99e9 / self.param("rate_hz"):
            self._last_ns = stamp_ns
            self._publish(self._moving, is_fixed=False, stamp=message.header.stamp)
            self._sent += 1

    def _publish(self, publisher: Any, *, is_fixed: bool, stamp: Any) -> None:
        assert self._tree is not None
        places, turns = self._tree.relative(self._positions)
        quaternions = quaternion_from_matrix(turns)
        message = TFMessage()
        for index, link in enumerate(self._tree.links):
            if link.is_fixed != is_fixed:
                continue
            x, y, z = places[index].tolist()
            w, i, j, k = quaternions[index].tolist()
            one = TransformStamped(
                child_frame_id=link.name,
                transform=Transform(
                    translation=Vector3(x=x, y=y, z=z), rotation=Quaternion(x=i, y=j, z=k, w=w)
                ),
            )
            one.header.stamp, one.header.frame_id = stamp, link.parent
            message.transforms.append(one)
        publisher.publish(message)


def main() -> None:
    run(RobotStateNode)
