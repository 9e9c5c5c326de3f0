# SPDX-License-Identifier: Apache-2.0
"""Goals that are changed while an episode runs: asked for, followed, shown and recorded."""

from __future__ import annotations

from pathlib import Path

import pytest
from bag_processes import Observer, Processes, interrupt, wait_until
from twinloop.bags import complete_bags, metadata, read_messages
from twinloop.dds import take_domain
from twinloop.nodes import qos
from twinloop.reporting.episodes import read_run

from twinloop import contract
from twinloop_interfaces.msg import EpisodeStatus
from twinloop_interfaces.srv import SetGoal

DOMAIN = take_domain()
PLACE = [0.011, 0.129]


class Cell:
    """What a user of the running cell sees of it, and may ask of it."""

    def __init__(self, observer: Observer) -> None:
        self.status = EpisodeStatus()
        self._client = observer.node.create_client(SetGoal, "set_goal")
        observer.node.create_subscription(
            EpisodeStatus, "episode_status", self._take, qos.latched()
        )

    def _take(self, status: EpisodeStatus) -> None:
        self.status = status

    def ask(self, goal: str, places: list[float] | None = None) -> SetGoal.Response:
        wait_until(self._client.service_is_ready)
        future = self._client.call_async(SetGoal.Request(goal=goal, places=places or []))
        wait_until(future.done)
        return future.result()


def test_a_goal_is_changed_amid_an_episode(tmp_path: Path) -> None:
    bags = tmp_path / "bags"
    with Processes(DOMAIN) as processes, Observer(DOMAIN) as observer:
        cell = Cell(observer)
        nodes = [
            processes.node("twinloop_sim.nodes.twin", lockstep=True, rtf=1.0),
            processes.recorder(bags, use_sim_time=True, source="mujoco"),
            processes.node("twinloop.nodes.planner", rtf=1.0, nice=0),
        ]
        for name in ("/twin", "/recorder", "/planner"):
            wait_until(lambda name=name: observer.values(name).get("state") == "active", 120.0)
        idle = cell.ask("hold")
        assert not idle.accepted
        assert idle.message == "no episode is being planned"
        episodes = processes.node(
            "twinloop.nodes.episode", episodes=1, steps=80, lockstep=True, use_sim_time=True
        )
        wait_until(lambda: cell.status.step >= 5, 120.0)
        assert cell.status.goal == "ccw"
        for goal, places, message in (
            ("juggle", [], "goal is 'juggle', expected one of ccw, cw, hold, move"),
            ("move", [1.0, 1.0], "not all in the palm"),
            ("cw", PLACE, "goal cw got 2 numbers"),
        ):
            refused = cell.ask(goal, places)
            assert not refused.accepted
            assert message in refused.message
        assert cell.ask("move", PLACE).accepted
        wait_until(lambda: cell.status.goal == "move")
        # Progress is a distance [mm] from now on.
        wait_until(lambda: cell.status.rotation_deg > 10.0)
        assert episodes.wait(timeout=120) == 0
        for node in nodes:
            assert interrupt(node) == 0
    (bag,) = complete_bags(bags)
    about = metadata(bag).episode
    assert about is not None
    assert about.goal == "ccw"
    said = [message.decode() for message in read_messages(bag, ["/task_goal"])]
    assert [one.goal for one in said] == ["ccw", "move"]
    assert list(said[1].places[:2]) == pytest.approx(PLACE)
    (figures,) = read_run(bags, contract.load("baoding"))
    assert figures.goal == "move"
    assert figures.unit == "mm"
    # Figures count from the change: before it there is nothing.
    assert figures.rotations_deg[3] == 0.0
    assert figures.rotations_deg.max() > 10.0
