# SPDX-License-Identifier: Apache-2.0
"""Supervision: order, silence, restarts and giving up, played through on a clock of its own."""

from __future__ import annotations

import itertools
from dataclasses import dataclass, field

import pytest
from twinloop.safety.supervision import (
    Heartbeat,
    Kill,
    Phase,
    Supervision,
    Transition,
)
from twinloop.safety.supervision_policy import Policy, parse_dependencies

STEP_S = 0.05
BEAT_EVERY = 4  # steps: 5 Hz
RESULT = {"configure": "inactive", "activate": "active", "deactivate": "inactive"}


@dataclass
class FakeNode:
    """A node as the supervisor meets it: it beats, and answers one step after it was asked."""

    pid: int
    state: str = "unconfigured"
    fault: str = ""
    is_running: bool = True
    refuses: set[str] = field(default_factory=set)
    asked: list[str] = field(default_factory=list)


class World:
    """Fake nodes under supervision, and a clock."""

    def __init__(self, *names: str, dependencies: dict | None = None, **policy: float) -> None:
        self.now_s = 100.0
        self.steps = 0
        self.nodes = {name: FakeNode(pid=10 + i) for i, name in enumerate(names)}
        self.supervision = Supervision(names, dependencies or {}, Policy(**policy), self.now_s)
        self.log: list[tuple[float, object]] = []

    def run(self, seconds: float) -> None:
        for _ in range(round(seconds / STEP_S)):
            self.step()

    def run_until_asked(self) -> None:
        while not self.log:
            self.step()

    def step(self) -> None:
        self.now_s += STEP_S
        self.steps += 1
        for name, node in self.nodes.items():
            if not node.is_running:
                continue
            for kind in node.asked:
                succeeded = kind not in node.refuses
                node.state = RESULT[kind] if succeeded else node.state
                self.supervision.transition_ended(name, kind, succeeded, self.now_s)
            node.asked.clear()
            if self.steps % BEAT_EVERY == 0:
                self.beat(name)
        for action in self.supervision.tick(self.now_s):
            self.log.append((self.now_s, action))
            if isinstance(action, Transition) and self.nodes[action.node].is_running:
                self.nodes[action.node].asked.append(action.kind)

    def beat(self, name: str) -> None:
        node = self.nodes[name]
        self.supervision.heartbeat(
            Heartbeat(name, "here", node.pid, node.state, node.fault), self.now_s
        )

    def kill(self, name: str) -> None:
        self.nodes[name].is_running = False

    def respawn(self, name: str) -> None:
        self.nodes[name] = FakeNode(pid=self.nodes[name].pid + 100)

    def phase(self, name: str) -> Phase:
        return self.supervision.phases[name]

    def transitions(self) -> list[tuple[str, str]]:
        return [(a.node, a.kind) for _, a in self.log if isinstance(a, Transition)]


def test_nodes_come_up_in_order():
    world = World("twin", "planner", "episode")
    world.run(3.0)
    assert world.transitions() == [
        (name, kind)
        for name in ("twin", "planner", "episode")
        for kind in ("configure", "activate")
    ]
    assert set(world.supervision.phases.values()) == {Phase.ACTIVE}


def test_a_node_that_starts_by_itself_is_left_alone():
    world = World("twin")
    world.nodes["twin"].state = "active"
    world.run(3.0)
    assert world.phase("twin") is Phase.ACTIVE
    assert world.transitions() == []


def test_a_late_node_keeps_those_after_it_waiting():
    world = World("twin", "planner")
    world.kill("twin")
    world.run(5.0)
    assert world.transitions() == []
    world.nodes["twin"].is_running = True
    world.run(2.0)
    assert world.phase("planner") is Phase.ACTIVE


def test_silence_deactivates_dependants_within_a_second_and_nobody_else():
    world = World("twin", "planner", "learner", dependencies={"learner": ()})
    world.run(3.0)
    world.kill("twin")
    hung_at = world.now_s
    world.log.clear()
    world.run(1.0)
    assert world.transitions() == [("planner", "deactivate")]
    assert world.log[0][0] - hung_at <= 0.8
    assert world.phase("twin") is Phase.ABSENT
    assert world.phase("learner") is Phase.ACTIVE


def test_a_killed_node_is_brought_up_again_and_its_dependants_with_it():
    world = World("twin", "planner")
    world.run(3.0)
    world.kill("twin")
    world.run(1.0)
    world.respawn("twin")
    world.log.clear()
    world.run(2.0)
    assert world.transitions() == [
        ("twin", "configure"),
        ("twin", "activate"),
        ("planner", "activate"),
    ]
    assert world.supervision.restarts["twin"] == 1


def test_a_process_replaced_within_the_timeout_is_noticed():
    world = World("twin", "planner")
    world.run(3.0)
    world.respawn("twin")
    world.log.clear()
    world.run(2.0)
    assert ("twin", "activate") in world.transitions()
    assert ("planner", "deactivate") in world.transitions()
    assert world.phase("planner") is Phase.ACTIVE


def test_a_node_that_answers_again_is_no_restart_and_is_not_killed():
    world = World("twin", "planner")
    world.run(3.0)
    world.kill("twin")
    world.run(1.5)
    world.nodes["twin"].is_running = True
    world.run(1.5)
    assert world.phase("planner") is Phase.ACTIVE
    assert world.supervision.restarts["twin"] == 0
    assert not any(isinstance(action, Kill) for _, action in world.log)


def test_a_hung_process_is_killed_once():
    world = World("twin", kill_after_s=2.0)
    world.run(3.0)
    pid = world.nodes["twin"].pid
    world.kill("twin")
    world.run(10.0)
    assert [a for _, a in world.log if isinstance(a, Kill)] == [Kill("twin", "here", pid)]


def test_the_fourth_loss_within_the_window_is_the_last():
    world = World("twin", "planner", restart_window_s=60.0)
    for losses in range(4):
        world.run(3.0)
        assert world.phase("twin") is Phase.ACTIVE, losses
        world.kill("twin")
        world.run(1.0)
        world.respawn("twin")
    world.log.clear()
    world.run(5.0)
    assert world.phase("twin") is Phase.FAILED
    assert "after 3 restarts in 60 s" in world.supervision.failures["twin"]
    assert world.transitions() == []
    assert world.phase("planner") is Phase.INACTIVE


def test_losses_far_apart_are_never_too_many():
    world = World("twin", restart_window_s=20.0)
    for _ in range(8):
        world.run(10.0)
        assert world.phase("twin") is Phase.ACTIVE
        world.kill("twin")
        world.run(1.0)
        world.respawn("twin")


def test_a_node_that_never_starts_is_given_up():
    world = World("twin", start_timeout_s=5.0)
    world.kill("twin")
    world.run(6.0)
    assert "no heartbeat within 5 s" in world.supervision.failures["twin"]


def test_a_node_that_is_given_up_and_active_is_stopped():
    world = World("twin", start_timeout_s=1.0)
    world.kill("twin")
    world.run(2.0)
    world.respawn("twin")
    world.nodes["twin"].state = "active"
    world.run(1.0)
    assert world.transitions() == [("twin", "deactivate")]
    assert world.nodes["twin"].state == "inactive"
    assert world.phase("twin") is Phase.FAILED


def test_a_refused_transition_is_tried_again_then_given_up():
    world = World("planner")
    world.nodes["planner"].refuses.add("configure")
    world.run(10.0)
    assert world.transitions() == [("planner", "configure")] * 4
    assert world.phase("planner") is Phase.FAILED
    times = [time for time, _ in world.log]
    assert min(b - a for a, b in itertools.pairwise(times)) >= 1.0


def test_a_node_that_refuses_to_stop_is_killed():
    world = World("twin", "planner")
    world.run(3.0)
    world.nodes["planner"].refuses.add("deactivate")
    world.kill("twin")
    world.run(1.0)
    assert Kill("planner", "here", world.nodes["planner"].pid) in [a for _, a in world.log]


def test_a_node_that_stopped_itself_on_a_fault_is_activated_again_and_no_other_is_touched():
    world = World("planner", "episode")
    world.run(3.0)
    world.nodes["planner"].state, world.nodes["planner"].fault = "inactive", "ValueError: x"
    world.log.clear()
    world.run(0.5)
    assert world.transitions() == []
    world.run(1.5)
    assert world.transitions() == [("planner", "activate")]
    assert world.phase("episode") is Phase.ACTIVE


def test_a_node_that_an_operator_deactivated_stays_so_until_he_activates_it():
    world = World("planner")
    world.run(3.0)
    world.nodes["planner"].state = "inactive"
    world.log.clear()
    world.run(5.0)
    assert world.transitions() == []
    assert world.phase("planner") is Phase.INACTIVE
    world.nodes["planner"].state = "active"
    world.run(1.0)
    world.kill("planner")
    world.run(1.0)
    world.respawn("planner")
    world.run(1.0)
    assert world.phase("planner") is Phase.ACTIVE


def test_a_long_transition_is_no_hang_but_an_endless_one_is():
    world = World("planner", transition_timeout_s=5.0)
    world.run_until_asked()
    world.kill("planner")  # busy configuring: it does not beat
    world.run(4.0)
    assert world.phase("planner") is Phase.INACTIVE
    world.run(2.0)
    assert world.phase("planner") is Phase.ABSENT


def test_a_lost_request_is_sent_again():
    world = World("planner")
    world.run_until_asked()
    assert world.transitions() == [("planner", "configure")]
    world.nodes["planner"].asked.clear()
    world.run(6.0)
    assert world.transitions()[:2] == [("planner", "configure")] * 2
    assert world.phase("planner") is Phase.ACTIVE


def test_a_lost_answer_is_read_from_the_heartbeat():
    world = World("planner")
    world.run_until_asked()
    world.nodes["planner"].asked.clear()
    world.nodes["planner"].state = "inactive"
    world.run(1.0)
    assert world.transitions() == [("planner", "configure"), ("planner", "activate")]


def test_a_transition_that_could_not_be_sent_is_tried_at_the_next_tick():
    world = World("planner")
    world.run_until_asked()
    world.nodes["planner"].asked.clear()
    world.supervision.transition_not_sent("planner")
    world.step()
    assert world.transitions() == [("planner", "configure")] * 2


def test_a_stall_of_the_supervisor_itself_condemns_nobody():
    world = World("twin", "planner")
    world.run(3.0)
    world.log.clear()
    world.now_s += 2.0
    world.run(3.0)
    assert world.log == []


def test_a_node_that_says_it_ends_is_lost_at_once_and_killed_if_it_stays():
    world = World("twin", "planner", kill_after_s=2.0)
    world.run(3.0)
    pid = world.nodes["twin"].pid
    world.nodes["twin"].state = "finalized"
    world.log.clear()
    world.run(0.3)
    assert world.transitions() == [("planner", "deactivate")]
    world.run(3.0)
    assert Kill("twin", "here", pid) in [action for _, action in world.log]


def test_heartbeats_of_others_are_ignored():
    world = World("planner")
    world.supervision.heartbeat(Heartbeat("stranger", "here", 1, "active"), world.now_s)
    assert world.supervision.phases == {"planner": Phase.ABSENT}


@pytest.mark.parametrize(
    ("nodes", "dependencies", "complaint"),
    [
        (["a", "a"], {}, "named twice"),
        (["a"], {"b": ()}, "'b', which is not among"),
        (["a", "b"], {"a": ("b",)}, "'a' depends on 'b', which does not stand before it"),
        (["a"], {"a": ("a",)}, "does not stand before it"),
    ],
)
def test_contradictory_nodes_are_refused(nodes, dependencies, complaint):
    with pytest.raises(ValueError, match=complaint):
        Supervision(nodes, dependencies, Policy(), 0.0)


def test_dependencies_are_parsed():
    assert parse_dependencies(["a: b, c", "d:"]) == {"a": ("b", "c"), "d": ()}
    for entry in (["a b"], [": b"], ["a: b", "a: c"]):
        with pytest.raises(ValueError, match="depend"):
            parse_dependencies(entry)
