# SPDX-License-Identifier: Apache-2.0
"""Bad requests to the grasp planner: refused by a name, never answered by a grasp of nothing."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import grasp_views
import numpy as np
import pytest
from builtin_interfaces.msg import Time
from geometry_msgs.msg import Point
from graph import ask, running
from hypothesis import given
from hypothesis import strategies as st
from messages import broken
from sensor_msgs.msg import CameraInfo, RegionOfInterest
from tally import TALLY, examples
from twinloop.grasping.refusals import Reason
from twinloop.nodes.grasp_planner import GraspPlannerNode
from twinloop.perception.camera_info import to_camera_info
from twinloop.perception.images import to_message

from twinloop_interfaces.srv import PlanGrasps

STAMP = Time(sec=12)
DEPTH = grasp_views.table([(0.05, -0.03, 0.04, 0.09, 0.05)])
IMAGE = to_message(DEPTH, "32FC1", STAMP, "depth_optical")
TINY = np.full((6, 8), 0.5, np.float32)
NAMES = tuple(reason.value for reason in Reason)


def info(size: tuple[int, int] = (640, 480)) -> CameraInfo:
    return to_camera_info(grasp_views.camera(size=size), STAMP, "depth_optical")


@pytest.fixture
def planner() -> Iterator[GraspPlannerNode]:
    with running(GraspPlannerNode, candidates=20, rounds=0) as node:
        yield node


def tiny() -> PlanGrasps.Request:
    """A request with an image, and a mask, of a few pixels."""
    return PlanGrasps.Request(
        depth=to_message(TINY, "32FC1", STAMP, "depth_optical"),
        camera_info=info((8, 6)),
        mask=to_message(np.full((6, 8), 255, np.uint8), "mono8", STAMP, "depth_optical"),
        avoid=[Point()],
    )


def answer(node: GraspPlannerNode, request: PlanGrasps.Request) -> str:
    """Ask for grasps; returns why there are none. Those that there are have a width."""
    response = ask(node, "plan_grasps", request)
    if not response.success:
        assert response.reason in NAMES
        assert not response.grasps.grasps
        return f"{response.reason}: {response.message}"
    for grasp in response.grasps.grasps:
        assert 0.0 < grasp.width < 0.2
        assert 0.0 <= grasp.quality <= 1.0
    return ""


def test_bad_images_and_masks_are_refused(planner: GraspPlannerNode) -> None:
    @examples(200)
    @given(request=broken(tiny))
    def try_out(request: PlanGrasps.Request) -> None:
        TALLY.ask("request for grasps", lambda: answer(planner, request))

    try_out()


def test_a_good_request_is_answered(planner: GraspPlannerNode) -> None:
    assert answer(planner, PlanGrasps.Request(depth=IMAGE, camera_info=info())) == ""


def test_what_comes_with_a_good_image_is_looked_at_too(planner: GraspPlannerNode) -> None:
    def region() -> RegionOfInterest:
        return RegionOfInterest(x_offset=10, y_offset=10, width=100, height=100)

    @examples(40)
    @given(data=st.data())
    def try_out(data: st.DataObject) -> None:
        given: dict[str, Any] = {"depth": IMAGE, "camera_info": info()}
        part = data.draw(st.sampled_from(["camera_info", "region", "avoid"]))
        if part == "avoid":
            given[part] = [data.draw(broken(Point, most=1))]
        else:
            make: Any = region if part == "region" else info
            given[part] = data.draw(broken(make))
        request = PlanGrasps.Request(**given)
        TALLY.ask("request for grasps", lambda: answer(planner, request))

    try_out()
