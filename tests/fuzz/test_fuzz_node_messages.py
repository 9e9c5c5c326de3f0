# SPDX-License-Identifier: Apache-2.0
"""Bad messages and requests to the nodes that listen: none of them ends a node's work."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus, KeyValue
from graph import activate, ask, hear, running
from hypothesis import given
from hypothesis import strategies as st
from messages import TEXTS, broken
from rclpy.serialization import serialize_message
from tally import TALLY, examples
from twin_station import CUP, NAMES, command
from twinloop.nodes.ball_messages import tracked_balls
from twinloop.nodes.episode import EpisodeNode
from twinloop.nodes.joint_messages import joint_state, time_message
from twinloop.nodes.planner import PlannerNode
from twinloop.nodes.recorder import Recorder
from twinloop.nodes.supervisor import SupervisorNode

from twinloop import contract, tasks
from twinloop_interfaces.msg import (
    EpisodeStatus,
    GuardStatus,
    ModelAnnouncement,
    PlanStats,
    TaskGoal,
)
from twinloop_interfaces.srv import SetGoal, StartPlanning

CONTRACT = contract.load("baoding")
PALM = CONTRACT.observation[3].frame
STAMP_NS = 1_700_000_000 * 10**9


def joints(stamp_ns: int = STAMP_NS) -> Any:
    return joint_state(NAMES, stamp_ns, CUP, np.zeros(24))


def balls(stamp_ns: int = STAMP_NS) -> Any:
    place = np.array([[0.02, -0.03, 0.05], [-0.02, -0.03, 0.05]])
    message = tracked_balls(
        PALM, place, np.zeros((2, 3)), np.zeros((2, 6, 6)), np.ones(2), np.zeros(2, np.bool_)
    )
    message.header.stamp = time_message(stamp_ns)
    return message


def complaint(node: Any, counter: str, before: str) -> str:
    """What a node's heartbeat says of the message, where it counts one more."""
    health = node.health()
    return health.message if health.values[counter] != before else ""


# The planner.

MODEL = ModelAnnouncement(task="baoding", version="v0002", path="/nowhere", status=1)
SAMPLES = {
    "joint_states": joints,
    "balls": balls,
    "applied_command": lambda: command(CUP, STAMP_NS, "guard"),
}


@pytest.fixture
def planner() -> Iterator[PlannerNode]:
    with running(PlannerNode, nice=os.nice(0)) as node:
        yield node


@examples(1000)
@given(data=st.data())
def test_the_planner_refuses_bad_samples(planner: PlannerNode, data: st.DataObject) -> None:
    topic = data.draw(st.sampled_from(sorted(SAMPLES)))
    message = data.draw(broken(SAMPLES[topic]))
    before = planner.health().values["malformed_samples"]

    def reason() -> str:
        hear(planner, topic, message)
        return complaint(planner, "malformed_samples", before)

    TALLY.ask(f"sample on {topic}", reason, (topic,))


@pytest.fixture
def shared_planner() -> Iterator[PlannerNode]:
    with running(PlannerNode, nice=os.nice(0), shared=True) as node:
        yield node


@examples(300)
@given(message=broken(lambda: command(CUP, STAMP_NS, "teleop")))
def test_a_shared_planner_refuses_bad_commands_of_its_pilot(
    shared_planner: PlannerNode, message: Any
) -> None:
    before = shared_planner.health().values["refused_pilot_commands"]

    def reason() -> str:
        hear(shared_planner, "pilot_command", message)
        values = shared_planner.health().values
        is_refused = values["refused_pilot_commands"] != before
        return values["last_refused_pilot_command"] if is_refused else ""

    TALLY.ask("command of a pilot who shares", reason, ("pilot_command",))


@examples(40)
@given(data=st.data())
def test_a_planner_at_work_lives_through_bad_samples(
    planner: PlannerNode, data: st.DataObject
) -> None:
    request = StartPlanning.Request(episode_id="one", task="baoding", goal="ccw")
    ask(planner, "start_planning", request)
    topic = data.draw(st.sampled_from(sorted(SAMPLES)))
    for name, make in SAMPLES.items():
        hear(planner, name, data.draw(broken(make, most=1)) if name == topic else make())


@examples(300)
@given(data=st.data())
def test_the_planner_refuses_bad_requests(planner: PlannerNode, data: st.DataObject) -> None:
    def start() -> Any:
        return StartPlanning.Request(episode_id="one", task="baoding", goal="ccw", steps=3)

    if data.draw(st.booleans()):
        request = data.draw(broken(start))
        answer = TALLY.ask(
            "request to start planning",
            lambda: ask(planner, "start_planning", request).message,
        )
        assert answer or planner._loop.is_running
    else:
        ask(planner, "start_planning", start())
        goal = data.draw(broken(lambda: SetGoal.Request(goal="move", places=[0.02, 0.05])))
        TALLY.ask("goal for the planner", lambda: ask(planner, "set_goal", goal).message)
    planner._loop.stop()


@examples(200)
@given(message=broken(lambda: MODEL), path=TEXTS)
def test_the_planner_refuses_models_that_are_not_there(
    planner: PlannerNode, message: ModelAnnouncement, path: str
) -> None:
    slot, version = planner._slot, planner.health().values["model"]
    message.path = path

    def reason() -> str:
        hear(planner, "model", message)
        end_s = time.monotonic() + (0.5 if message.status == ModelAnnouncement.PROMOTED else 0.0)
        while time.monotonic() < end_s:
            refusal = slot.refusal()
            if refusal is not None:
                return refusal
            time.sleep(0.001)
        return ""

    TALLY.ask("announcement of a model", reason)
    assert slot.take() is None
    assert planner.health().values["model"] == version


# Episodes.


@pytest.fixture
def episode() -> Iterator[EpisodeNode]:
    with running(EpisodeNode) as node:
        yield node


def stats(episode_id: str) -> PlanStats:
    return PlanStats(
        episode_id=episode_id,
        step=1,
        observation=np.zeros(CONTRACT.observation_size, np.float32),
        action=CUP,
        channels=["ball_position"],
        channel_stamps=[time_message(STAMP_NS)],
    )


def task_goal(episode_id: str) -> TaskGoal:
    return TaskGoal(episode_id=episode_id, task="baoding", goal="hold", places=[0.0] * 4)


OBSERVATIONS = st.one_of(
    st.lists(st.floats(width=32), max_size=100),
    st.sampled_from([np.nan, np.inf, -np.inf]).map(
        lambda wrong: [0.0] * (CONTRACT.observation_size - 1) + [wrong]
    ),
)


@examples(400)
@given(data=st.data())
def test_an_episode_goes_on_whatever_it_is_told(episode: EpisodeNode, data: st.DataObject) -> None:
    if episode._running is None:
        begun = episode._begin("baoding", "ccw", 100, 1)
        begun.status.phase = EpisodeStatus.RUNNING
    name = episode._running.status.episode_id
    topic, make = data.draw(
        st.sampled_from(
            [("plan_stats", lambda: stats(name)), ("task_goal", lambda: task_goal(name))]
        )
    )
    message = data.draw(broken(make))
    if topic == "plan_stats" and data.draw(st.integers(0, 4)):
        message.observation = data.draw(OBSERVATIONS)
    before = episode.health().values["malformed"]

    def reason() -> str:
        hear(episode, topic, message)
        return complaint(episode, "malformed", before)

    TALLY.ask(f"message on {topic}", reason, (topic,))
    if episode._running is not None:
        assert np.isfinite(episode._running.status.rotation_deg)


@examples(150)
@given(task=TEXTS | st.just("baoding"), goal=TEXTS, places=st.lists(st.floats(), max_size=6))
def test_there_are_no_tasks_but_those_there_are(task: str, goal: str, places: list[float]) -> None:
    named = (task,) if task != "baoding" else ("baoding",)
    TALLY.read("task", lambda: tasks.make(task, goal, places), (ValueError,), named[:0])


# The recorder.


@pytest.fixture
def recorder(tmp_path: Path) -> Iterator[Recorder]:
    with running(Recorder, record_dir=tmp_path / "bags", min_free_mb=0.0) as node:
        yield node


def status(episode_id: str = "one") -> EpisodeStatus:
    return EpisodeStatus(
        episode_id=episode_id, task="baoding", phase=EpisodeStatus.RUNNING, steps=9
    )


STATUS = serialize_message(status())


@st.composite
def bytes_of(draw: Any, sound: bytes) -> bytes:
    """Serialised bytes cut short, changed, or of something else."""
    way = draw(st.integers(0, 2))
    if way == 0:
        return sound[: draw(st.integers(0, len(sound) - 1))]
    if way == 1:
        changed = bytearray(sound)
        for _ in range(draw(st.integers(1, 4))):
            changed[draw(st.integers(0, len(sound) - 1))] = draw(st.integers(0, 255))
        return bytes(changed)
    return draw(st.binary(max_size=200))


@examples(400)
@given(data=st.data())
def test_the_recorder_goes_on_whatever_it_hears(
    recorder: Recorder, tmp_path: Path, data: st.DataObject
) -> None:
    way = data.draw(st.integers(0, 3))
    before = recorder.health().values["malformed"], recorder.health().values["failures"]

    def reason() -> str:
        if way == 0:
            topic = data.draw(st.sampled_from(["joint_states", "balls", "command", "plan_stats"]))
            hear(recorder, topic, data.draw(st.binary(max_size=100)))
        elif way == 1:
            hear(recorder, "episode_status", serialize_message(data.draw(broken(status))))
        else:
            hear(recorder, "episode_status", data.draw(bytes_of(STATUS)))
        health = recorder.health()
        told = health.values["malformed"], health.values["failures"]
        return health.message if told != before else ""

    TALLY.ask("message to the recorder", reason)
    recorder._stop()
    bags = tmp_path / "bags"
    assert list(tmp_path.iterdir()) == [bags]
    assert all(path.name.startswith("episode_") for path in bags.iterdir())


# The supervisor.


def heartbeat(pid: str = "1") -> DiagnosticArray:
    values = {"state": "active", "pid": pid}
    return DiagnosticArray(
        status=[
            DiagnosticStatus(
                name="/somebody",
                level=DiagnosticStatus.OK,
                hardware_id="host",
                values=[KeyValue(key=key, value=value) for key, value in values.items()],
            )
        ]
    )


@pytest.fixture
def supervisor() -> Iterator[SupervisorNode]:
    with running(SupervisorNode, nodes="['/somebody']", rearm_lost_heartbeat=True) as node:
        yield node


@examples(400)
@given(data=st.data())
def test_the_supervisor_goes_on_whatever_it_hears(
    supervisor: SupervisorNode, data: st.DataObject
) -> None:
    before = supervisor.health().values["malformed"]

    def reason() -> str:
        way = data.draw(st.integers(0, 3))
        if way == 0:
            hear(supervisor, "/diagnostics", data.draw(broken(heartbeat)))
        elif way in (1, 2):
            hear(supervisor, "/diagnostics", heartbeat(data.draw(TEXTS)))
        else:
            hear(supervisor, "guard_status", data.draw(broken(lambda: GuardStatus(state=3))))
        return complaint(supervisor, "malformed", before)

    TALLY.ask("heartbeat", reason, ("/somebody",))


def test_nodes_go_on_after_all_that(supervisor: SupervisorNode) -> None:
    """A node that is made anew is as before: nothing of what was sent is kept anywhere."""
    supervisor.trigger_deactivate()
    supervisor.trigger_cleanup()
    activate(supervisor)
