# SPDX-License-Identifier: Apache-2.0
"""Markers node: balls, targets and plans as standard markers, for whoever shows them.

It listens only while somebody looks, so that without a viewer nothing is paid for.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from geometry_msgs.msg import Point, Pose, Quaternion, Vector3
from numpy.typing import NDArray
from sensor_msgs.msg import PointCloud2
from std_msgs.msg import ColorRGBA
from visualization_msgs.msg import Marker, MarkerArray

from twinloop.nodes import qos
from twinloop.nodes.base import OK, WARN, Health, Node, run
from twinloop.nodes.lazy import WhileWatched
from twinloop.nodes.parameters import ParameterSpec
from twinloop.nodes.point_clouds import from_cloud
from twinloop.views import colours, segments
from twinloop.views.plan_points import POINT
from twinloop.views.segments import Segments
from twinloop_interfaces.msg import TrackedBallArray

_LINE_M = 0.0008
_ALPHA, _STALE_ALPHA = 0.6, 0.25  # the paths of the balls lie inside them


class MarkersNode(Node):
    """Turns tracked balls and rollouts into MarkerArrays in their own frames."""

    parameters = (
        ParameterSpec("ball_radius_m", 0.028, "Radius of the balls that are drawn [m]", 1e-3, 1.0),
        ParameterSpec("target_radius_m", 0.006, "Radius of a target's marker [m]", 1e-4, 1.0),
    )

    def __init__(self) -> None:
        super().__init__("markers")
        self._watches: list[WhileWatched] = []
        self._made: dict[str, Any] = {}
        self._sent = 0

    def configure(self) -> None:
        self._made = {
            name: self.create_publisher(MarkerArray, f"markers/{name}", qos.EVENT)
            for name in ("balls", "targets", "plan", "disagreement")
        }
        balls = [self._made["balls"]]
        plans = [self._made[name] for name in ("targets", "plan", "disagreement")]
        self._watches = [
            WhileWatched(self, balls, self._listen_to_balls),
            WhileWatched(self, plans, self._listen_to_plans),
        ]

    def cleanup(self) -> None:
        for watch in self._watches:
            watch.close()
        for publisher in self._made.values():
            self.destroy_publisher(publisher)
        self._watches, self._made = [], {}

    def health(self) -> Health:
        if not self._watches:
            return Health(WARN, "not configured")
        is_watched = any(watch.is_watched for watch in self._watches)
        return Health(OK, "publishing" if is_watched else "nobody looks", {"sent": str(self._sent)})

    def _listen_to_balls(self) -> list[Any]:
        callback = self.guarded(self._on_balls)
        return [self.create_subscription(TrackedBallArray, "balls", callback, qos.SENSOR)]

    def _listen_to_plans(self) -> list[Any]:
        callback = self.guarded(self._on_plan)
        return [self.create_subscription(PointCloud2, "plan_rollouts", callback, qos.SENSOR)]

    def _on_balls(self, message: TrackedBallArray) -> None:
        size = 2.0 * self.param("ball_radius_m")
        markers = [
            _sphere(
                message.header, ball.id, ball.position, size,
                colours.BALLS[ball.id % len(colours.BALLS)],
                _STALE_ALPHA if ball.stale else _ALPHA,
            )
            for ball in message.balls
        ]  # fmt: skip
        self._send("balls", markers)

    def _on_plan(self, message: PointCloud2) -> None:
        points = from_cloud(message, POINT)
        header = message.header
        size = 2.0 * self.param("target_radius_m")
        self._send(
            "targets",
            [
                _sphere(header, index, _point(place), size, colours.TARGET, 1.0)
                for index, place in enumerate(segments.targets(points))
            ],
        )
        self._send(
            "plan",
            [
                _lines(header, 0, "rollouts", segments.ball_paths(points)),
                _lines(header, 1, "fingertips", segments.fingertip_paths(points)),
            ],
        )
        places, spread = segments.ball_spread(points)
        self._send(
            "disagreement",
            [
                _sphere(
                    header, index, _point(place), 2.0 * max(float(apart), 1e-4),
                    colours.BALLS[index % len(colours.BALLS)], 0.4,
                )
                for index, (place, apart) in enumerate(zip(places, spread, strict=True))
            ],
        )  # fmt: skip

    def _send(self, name: str, markers: list[Marker]) -> None:
        publisher = self._made[name]
        if publisher.get_subscription_count():
            publisher.publish(MarkerArray(markers=markers))
            self._sent += 1


def _sphere(
    header: Any, index: int, at: Point, size: float, colour: tuple[int, int, int], alpha: float
) -> Marker:
    return Marker(
        header=header,
        ns="spheres",
        id=index,
        type=Marker.SPHERE,
        pose=Pose(position=at, orientation=Quaternion(w=1.0)),
        scale=Vector3(x=size, y=size, z=size),
        color=_colour(colour, alpha),
    )


def _lines(header: Any, index: int, name: str, pieces: Segments) -> Marker:
    shades = [_colour(tuple(one)) for one in pieces.colours.tolist()]
    return Marker(
        header=header,
        ns=name,
        id=index,
        type=Marker.LINE_LIST,
        pose=Pose(orientation=Quaternion(w=1.0)),
        scale=Vector3(x=_LINE_M),
        color=ColorRGBA(a=1.0),
        points=[_point(end) for piece in pieces.ends for end in piece],
        colors=[shade for shade in shades for _ in range(2)],
    )


def _point(place: NDArray[np.float32]) -> Point:
    x, y, z = place.tolist()
    return Point(x=x, y=y, z=z)


def _colour(colour: tuple[int, ...], alpha: float = 1.0) -> ColorRGBA:
    red, green, blue = (part / 255.0 for part in colour)
    return ColorRGBA(r=red, g=green, b=blue, a=alpha)


def main() -> None:
    run(MarkersNode)
