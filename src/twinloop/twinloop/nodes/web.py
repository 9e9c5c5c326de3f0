# SPDX-License-Identifier: Apache-2.0
"""Web node: a page on this machine that shows the cell, and steers it where that is allowed.

A process of its own, at low priority. What costs the others something, such as drawing tracks into
images, is asked for only while a window is open.
"""

from __future__ import annotations

import contextlib
import os
import time
import xml.etree.ElementTree as ElementTree
from collections.abc import Callable
from pathlib import Path
from typing import Any

from diagnostic_msgs.msg import DiagnosticArray
from sensor_msgs.msg import Image, JointState, PointCloud2
from std_msgs.msg import Bool

from twinloop import contract as contracts
from twinloop.contract.baoding import PALM_FRAME
from twinloop.nodes import qos
from twinloop.nodes.base import OK, WARN, Health, Node, run
from twinloop.nodes.parameters import ParameterSpec
from twinloop.nodes.web_actions import WebActions
from twinloop.nodes.web_feed import Feed
from twinloop.nodes.web_pilot import WebPilot
from twinloop.robots.description import cell_urdf, hand_urdf
from twinloop.robots.hand24 import HAND24
from twinloop.robots.panda import PANDA
from twinloop.teleop.settings import GRIPPER, TWIST, TeleopSettings, load_settings
from twinloop.web.disk import Disk
from twinloop.web.page import Page
from twinloop.web.server import LocalServer
from twinloop.web.state import CellState
from twinloop_interfaces.msg import (
    ControlStatus,
    EpisodeStatus,
    GuardStatus,
    ModelAnnouncement,
    PlanStats,
    TrackedBallArray,
)

_URDFS = {"hand": hand_urdf, "cell": cell_urdf}
_NICENESS = 10
_DISK_S = 2.0
_MEASURE_S = 1.0
GOALS = ("ccw", "cw", "hold", "move")


class WebNode(Node):
    """Wires a Page to the topics of a cell."""

    parameters = (
        ParameterSpec("task", "baoding", "Task, and contract, that is shown"),
        ParameterSpec("goals", list(GOALS), "Goals to choose from, until a planner tells its own"),
        ParameterSpec("description", "hand", "What is drawn", choices=tuple(_URDFS)),
        ParameterSpec("port", 8080, "Of the page; the next free one where it is taken", 1, 65535),
        ParameterSpec("control", False, "Let the page steer; without, it only shows"),
        ParameterSpec("teleop", False, "With control: the page is a pilot's device too"),
        ParameterSpec("arm", False, "With teleop: of the arm and its gripper too"),
        ParameterSpec("teleop_config", "", "File of motions and speeds; empty: the cell's own"),
        ParameterSpec("rate_hz", 20.0, "How often the scene is drawn anew", 1.0, 60.0),
        ParameterSpec("steps", 100, "Control steps of an episode that the page starts", 1, 10**6),
        ParameterSpec("record_dir", "runs/baoding/bags", "Folder of the bags that are listed"),
        ParameterSpec("registry", "runs/baoding/registry", "Folder of the models that are listed"),
        ParameterSpec(
            "joint_topics", ["joint_states", "arm/joint_states"], "Topics that tell joint positions"
        ),
    )

    def __init__(self) -> None:
        super().__init__("web")
        self._server: LocalServer | None = None
        self._page: Page | None = None
        self._actions: WebActions | None = None
        self._pilot: WebPilot | None = None
        self._watching: list[Any] = []
        self._watched: list[str] = []
        self._due_s = {"disk": 0.0, "measure": 0.0}

    def configure(self) -> None:
        contract = contracts.load(self.param("task"))
        urdf = _URDFS[self.param("description")]()
        self._state = CellState(task=self.param("task"), goals=tuple(self.param("goals")))
        self._feed = Feed(self._state, contract)
        self._disk = Disk(
            Path(self.param("record_dir")), Path(self.param("registry")) / contract.name
        )
        limits = _limits(urdf, contract.action.elements)
        if self.param("control"):
            self._actions = WebActions(self, self._state, contract, self.param("steps"), limits)
        settings = None
        if self._actions is not None and self.param("teleop"):
            settings = load_settings(self.param("teleop_config") or None)
            self._pilot = WebPilot(self, settings)
            self._actions.steer_by(self._pilot)
        wanted = self.param("port")
        self._server = LocalServer(wanted, f"twinloop {contract.name}")
        self._page = Page(
            self._server,
            self._state,
            urdf,
            PALM_FRAME,
            self._actions,
            limits,
            None if settings is None else _steered(settings, self.param("arm")),
        )
        for kind, topic, callback, profile in (
            (EpisodeStatus, "episode_status", self._feed.on_episode, qos.latched()),
            (PlanStats, "plan_stats", self._feed.on_stats, qos.EVENT),
            (ModelAnnouncement, "model", self._feed.on_model, qos.latched(10)),
            (GuardStatus, "guard_status", self._feed.on_guard, qos.latched()),
            (ControlStatus, "control_status", self._feed.on_control, qos.latched()),
            (DiagnosticArray, "/diagnostics", self._feed.on_diagnostics, qos.DIAGNOSTICS),
        ):
            self._subscribe(kind, topic, callback, profile)
        period_s = 1.0 / self.param("rate_hz")
        self.create_timer(period_s, self.guarded(self._tick), clock=self.steady_clock)
        moved = "" if self._server.get_port() == wanted else f"; port {wanted} is in use"
        told = f"page at {self._server.address}{moved}"
        if moved:
            self.get_logger().warning(told)
        else:
            self.get_logger().info(told)

    def close(self) -> None:
        if self._pilot is not None:
            self._pilot.close()
        if self._server is not None:
            self._server.stop()

    def health(self) -> Health:
        if self._server is None or self._page is None:
            return Health(WARN, "not configured")
        viewers = self._server.viewers
        steers = "steers" if self._actions is not None else "shows only"
        values = {"address": self._server.address, "viewers": str(viewers)}
        return Health(OK, f"{steers}, {viewers} viewers", values)

    def _subscribe(
        self, kind: Any, topic: str, callback: Callable[[Any], None], profile: Any
    ) -> Any:
        def take(message: Any) -> None:
            self._feed.arrived(topic)
            callback(message)

        return self.create_subscription(kind, topic, self.guarded(take), profile)

    def _tick(self) -> None:
        assert self._page is not None
        if self._actions is not None:
            self._actions.work()
        self._look()
        now_s = time.monotonic()
        if not self._page.has_viewers:
            return
        if now_s >= self._due_s["disk"]:
            self._due_s["disk"] = now_s + _DISK_S
            self._disk.read(self._state)
        if now_s >= self._due_s["measure"]:
            self._due_s["measure"] = now_s + _MEASURE_S
            self._feed.measure()
        self._page.update(now_s)

    def _look(self) -> None:
        """Listen to what is quick or dear while somebody looks."""
        assert self._page is not None
        if self._page.has_viewers and not self._watching:
            feed = self._feed
            topics: list[tuple[Any, str, Callable[[Any], None], Any]] = [
                *(
                    (JointState, topic, feed.on_joints, qos.SENSOR)
                    for topic in self.param("joint_topics")
                ),
                (TrackedBallArray, "balls", feed.on_balls, qos.SENSOR),
                (PointCloud2, "plan_rollouts", feed.on_plan, qos.SENSOR),
                (Image, "tracker/image_raw", feed.on_image, qos.IMAGE),
                (Bool, "emergency_stop", feed.on_stop, qos.HEARTBEAT),
            ]
            self._watching = [self._subscribe(*one) for one in topics]
            self._watched = [topic for _, topic, *_ in topics]
        elif not self._page.has_viewers and self._watching:
            for subscription in self._watching:
                self.destroy_subscription(subscription)
            self._watching = []
            self._feed.forget(self._watched)


def _limits(urdf: str, joints: tuple[str, ...]) -> dict[str, tuple[float, float]]:
    """Return lower and upper limits [rad] of joints that have some."""
    found = {}
    for joint in ElementTree.fromstring(urdf).findall("joint"):
        limit = joint.find("limit")
        if joint.attrib["name"] in joints and limit is not None:
            found[joint.attrib["name"]] = float(limit.attrib["lower"]), float(limit.attrib["upper"])
    return found


def _steered(settings: TeleopSettings, with_arm: bool) -> tuple[list[str], list[str]]:
    """Return the motions and the joints that a pilot has on the page."""
    motions = [f"hand/{name}" for name in settings.hand.synergies]
    joints = list(HAND24.joint_names)
    if with_arm:
        motions += [*TWIST, GRIPPER]
        joints += PANDA.joint_names
    return motions, joints


def main() -> None:
    with contextlib.suppress(PermissionError):
        # Before the middleware starts: its threads inherit this.
        os.nice(_NICENESS)
    run(WebNode)
