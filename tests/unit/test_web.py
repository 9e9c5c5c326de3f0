# SPDX-License-Identifier: Apache-2.0
"""The page's parts without a browser: what it tells, where it listens, whom it admits."""

from __future__ import annotations

import asyncio
import math
import socket

import numpy as np
import pytest
import viser
import websockets
from builtin_interfaces.msg import Time
from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus, KeyValue
from sensor_msgs.msg import Image
from std_msgs.msg import Header
from twinloop.nodes.point_clouds import to_cloud
from twinloop.nodes.web import GOALS
from twinloop.nodes.web_feed import Feed
from twinloop.robots.description import cell_urdf, hand_urdf
from twinloop.tasks.baoding import Baoding
from twinloop.views.plan_points import BALL, FINGERTIP, POINT, TARGET
from twinloop.web import tables
from twinloop.web.meshes import visible_meshes
from twinloop.web.page import Page
from twinloop.web.server import HOST, LocalServer, PortTaken, free_port, is_own
from twinloop.web.state import Ball, CellState, NodeRow, TopicRow

from twinloop import contract as contracts
from twinloop_interfaces.msg import PlanStats

PROTOCOL = f"viser-v{viser.__version__}"


def test_goals_that_can_be_chosen_are_those_of_the_task() -> None:
    assert Baoding.goals == GOALS


@pytest.mark.parametrize("urdf", [hand_urdf, cell_urdf])
def test_meshes_are_as_large_as_the_shapes_they_stand_for(urdf) -> None:
    shapes = visible_meshes(urdf())
    assert all(len(one.faces) and one.faces.max() < len(one.vertices) for one in shapes)
    assert len({one.colour for one in shapes}) > 2
    palm = next(one for one in shapes if one.link == "rh_palm")
    assert 0.05 < np.ptp(palm.vertices, axis=0).max() < 0.2


def test_an_unknown_shape_is_named() -> None:
    urdf = """<robot name="r"><link name="a"><visual><geometry><mesh filename="x"/></geometry>
      </visual></link></robot>"""
    with pytest.raises(ValueError, match="link a looks like a mesh, expected box, capsule"):
        visible_meshes(urdf)


def test_the_next_port_is_taken_and_the_last_is_told() -> None:
    with socket.socket() as taken:
        taken.bind((HOST, 0))
        taken.listen()
        port = taken.getsockname()[1]
        assert free_port(port) > port
        with pytest.raises(PortTaken, match=f"ports {port} to {port} of 127.0.0.1"):
            free_port(port, tried=1)


@pytest.mark.parametrize(
    ("origin", "host", "expected"),
    [
        ("http://127.0.0.1:8080", "127.0.0.1:8080", True),
        ("http://localhost:8080", "localhost:8080", True),
        (None, "127.0.0.1:8080", True),
        ("http://127.0.0.1:9000", "127.0.0.1:8080", False),
        ("https://example.org", "127.0.0.1:8080", False),
        ("http://example.org:8080", "example.org:8080", False),  # a name that points to loopback
        ("null", "127.0.0.1:8080", False),
        (None, None, False),
    ],
)
def test_only_the_own_page_is_admitted(
    origin: str | None, host: str | None, expected: bool
) -> None:
    assert is_own(origin, host) is expected


def test_pages_of_other_sites_are_shown_the_door_and_no_tunnel_is_opened() -> None:
    server = LocalServer(8500, "test")
    try:
        address = server.address.replace("http", "ws")

        async def closed_with(origin: str) -> int | None:
            async with websockets.connect(
                address, subprotocols=[PROTOCOL], origin=origin
            ) as connection:
                try:
                    await asyncio.wait_for(connection.recv(), 5.0)
                except websockets.ConnectionClosed:
                    return connection.close_code
                return None

        assert asyncio.run(closed_with("https://example.org")) == 1008
        assert asyncio.run(closed_with(server.address)) is None
        assert server.request_share_url() is None
    finally:
        server.stop()


def test_what_comes_from_elsewhere_is_escaped() -> None:
    state = CellState(notice="<script>1</script>", guard_reason="<b>", control="<script>2")
    state.nodes["/x"] = NodeRow("/x", "active", "<img src=//elsewhere>", True, False, 0.0)
    state.faults.append("<i>")
    for text in (tables.status(state), tables.health(state, 0.1)):
        assert "<script" not in text
        assert "<img" not in text
    assert "&lt;img" in tables.health(state, 0.1)


def test_silent_nodes_and_stale_topics_are_marked() -> None:
    state = CellState(topics=[TopicRow("balls", 30.0, 0.4, 0.25), TopicRow("x", 1.0, 0.1, 0.25)])
    state.nodes["/planner"] = NodeRow("/planner", "active", "ok", False, False, beat_s=10.0)
    text = tables.health(state, 13.0)
    assert "silent for 3 s" in text
    assert text.count("stale") == 1
    assert "silent" not in tables.health(state, 10.5)


def test_a_page_nobody_looks_at_draws_nothing() -> None:
    server = LocalServer(8520, "test")
    try:
        state = CellState(balls=[Ball(np.array([0.0, 0.0, 0.1]))])
        page = Page(server, state, hand_urdf(), "rh_palm")
        page.update(0.0)
        assert not page.has_viewers
        assert server.scene.get_handle_by_name("/robot/rh_forearm") is not None
        assert server.scene.get_handle_by_name("/robot/rh_forearm/rh_wrist/rh_palm/ball0") is None
    finally:
        server.stop()


def test_series_keep_their_length_and_know_what_is_missing() -> None:
    state = CellState()
    for step in range(400):
        state.series.add(time_s=float(step), cost=1.0)
    assert len(state.series.time_s) == len(state.series.plan_ms) == 300
    assert math.isnan(state.series.plan_ms[-1])


class Asked:
    """What a page asks of a cell."""

    def __init__(self) -> None:
        self.calls: list[tuple[str, tuple]] = []

    def __getattr__(self, name: str):
        return lambda *arguments: self.calls.append((name, arguments))


def test_a_pilots_page_has_a_button_each_way_for_every_motion() -> None:
    server = LocalServer(8540, "test")
    try:
        asked = Asked()
        state = CellState(control="autonomy commands: <x>", alpha=0.25, is_sharing=True)
        page = Page(
            server, state, hand_urdf(), "rh_palm", asked, {}, (["hand/close", "gripper"], ["j1"])
        )
        steer = page._steer
        steer.update(state)
        assert steer._alpha.value == 0.25
        assert steer._sharing.value
        assert "&lt;x&gt;" in steer._said.content
        assert asked.calls == []  # what the page itself shows is no wish
        plain = Page(LocalServer(8560, "test"), state, hand_urdf(), "rh_palm", asked, {})
        assert plain._steer is None
        plain._server.stop()
    finally:
        server.stop()


def test_goals_are_those_of_the_running_planner_and_chosen_by_name() -> None:
    server = LocalServer(8580, "test")
    try:
        asked = Asked()
        state = CellState(goals=("ccw", "cw"))
        course = Page(server, state, hand_urdf(), "rh_palm", asked, {})._course
        assert course._goal.options == ("turn counter-clockwise", "turn clockwise")
        course._goal.value = "turn clockwise"
        feed = Feed(state, contracts.load("baoding"))
        told = {"state": "active", "task": "baoding", "goals": "ccw, cw, hold, move, juggle"}
        feed.on_diagnostics(heartbeat(told))
        course.update(state)
        assert len(course._goal.options) == 5
        assert course._goal.options[-1] == "juggle"
        assert course._chosen == "cw"
        state.episode.phase, state.episode.goal = "running", "hold"
        course.update(state)
        assert course._chosen == "hold"
        assert asked.calls == []  # what the page itself shows is no wish
        # The planner of another task tells nothing of this one.
        feed.on_diagnostics(heartbeat(told | {"task": "valve", "goals": "turn"}))
        assert "turn" not in state.goals
    finally:
        server.stop()


def heartbeat(values: dict[str, str]) -> DiagnosticArray:
    pairs = [KeyValue(key=key, value=value) for key, value in values.items()]
    return DiagnosticArray(status=[DiagnosticStatus(name="/planner", values=pairs)])


def plan_of_a_step() -> np.ndarray:
    """Points of a plan: two rollouts of two balls, fingertips and targets, of two steps."""
    rows = [
        (0.03 * ball, -0.04, 0.09 + 0.01 * step, 5.0 * rollout, 0.001, rollout, step, BALL, ball)
        for rollout in range(2)
        for ball in range(2)
        for step in range(3)
    ]
    rows += [(0.01 * f, 0.0, 0.01 * step, 0.0, 0.0, 0, step, FINGERTIP, f)
             for f in range(5) for step in range(3)]  # fmt: skip
    rows += [(0.0, -0.04, 0.1, 0.0, 0.0, 0, 0, TARGET, ball) for ball in range(2)]
    return np.array(rows, POINT)


def test_a_plan_its_disagreement_and_the_annotated_image_are_shown() -> None:
    server = LocalServer(8600, "test")
    try:
        state = CellState()
        page = Page(server, state, hand_urdf(), "rh_palm")
        feed = Feed(state, contracts.load("baoding"))
        feed.on_plan(to_cloud(plan_of_a_step(), Time(), "rh_palm"))
        page.scene.update(state)
        # Two steps each of two rollouts of two balls, and of five fingertips.
        assert page.scene._lines["rollouts"].points.shape == (8, 2, 3)
        assert len(np.unique(page.scene._lines["rollouts"].colors.reshape(-1, 3), axis=0)) > 1
        assert page.scene._lines["fingertips"].points.shape == (10, 2, 3)
        assert len(page.scene._targets) == 2
        for step in range(2):
            stamp = Time(sec=step)
            feed.on_stats(PlanStats(header=Header(stamp=stamp), action=[0.0], disagreement=0.25))
        page._plots.update(state)
        [(plot, _)] = [one for one in page._plots._plots if "Disagreement" in one[0].title]
        assert plot.data[1].tolist() == [0.25, 0.25]
        pixels = np.full((4, 6, 3), 200, np.uint8)
        feed.on_image(to_message(pixels, "rgb8"))
        page._draw_image()
        np.testing.assert_array_equal(page._image.image, pixels)
    finally:
        server.stop()


def to_message(pixels: np.ndarray, encoding: str) -> Image:
    height, width, _ = pixels.shape
    return Image(
        height=height, width=width, encoding=encoding, step=3 * width, data=pixels.tobytes()
    )
