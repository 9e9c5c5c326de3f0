# SPDX-License-Identifier: Apache-2.0
"""The policy node over DDS: it acts at 50 Hz, is given another policy, and stops with a reason."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import torch
from bag_processes import Observer, Processes, interrupt, wait_until
from std_srvs.srv import Trigger
from trajectory_msgs.msg import JointTrajectory
from twin_station import command, stamp_ns
from twinloop.dds import take_domain
from twinloop.learning.model_file import Candidate, write_model
from twinloop.models.actor import Actor, ActorConfig
from twinloop.nodes import qos
from twinloop.nodes.joint_messages import joint_state

from twinloop_interfaces.msg import ModelAnnouncement, PlanStats

sys.path.append(str(Path(__file__).parents[1] / "unit"))
from test_exported_policies import JOINTS, contract

TICK_NS = 10_000_000
START_NS = 1_700_000_000 * 10**9


def policy(folder: Path, target: float) -> Path:
    """Write a policy that wants all joints at a target between the limits of joint one."""
    made = Actor(ActorConfig(observation_size=4, action_size=2, hidden=(4,), deviation="none"))
    with torch.no_grad():
        made.mean.weight.zero_()
        made.mean.bias.fill_(float(np.arctanh(target)))
    folder.mkdir(parents=True)
    write_model(folder, Candidate(made.requires_grad_(False), contract()))
    return folder


def test_it_acts_swaps_and_stops(tmp_path: Path) -> None:
    domain = take_domain()
    first, second = policy(tmp_path / "v0001", 0.5), policy(tmp_path / "v0002", -0.5)
    commands: list[JointTrajectory] = []
    stats: list[PlanStats] = []
    with Observer(domain) as observer, Processes(domain) as processes:
        node = observer.node
        joints = node.create_publisher(type(joint_state(["a"], 0, np.zeros(1))), "joint_states", 10)
        applied = node.create_publisher(JointTrajectory, "applied_command", qos.EVENT)
        models = node.create_publisher(ModelAnnouncement, "model", qos.latched(10))
        node.create_subscription(JointTrajectory, "command", commands.append, qos.COMMAND)
        node.create_subscription(PlanStats, "plan_stats", stats.append, qos.EVENT)
        start = node.create_client(Trigger, "start_policy")
        process = processes.node("twinloop.nodes.policy", model=first, rtf=0.0, nice=0)
        wait_until(lambda: observer.values("/policy").get("state") == "active", 120.0)
        wait_until(lambda: start.service_is_ready() and joints.get_subscription_count() > 0, 30.0)
        asked = start.call_async(Trigger.Request())
        wait_until(asked.done, 30.0)
        assert asked.result().success
        now_ns, goal = START_NS, np.zeros(2)

        def tell(tick_ns: int) -> None:
            joints.publish(joint_state(list(JOINTS), tick_ns, np.zeros(2), np.zeros(2)))

        def step() -> None:
            """Two ticks of sensors, which give one command; the guard lets it through."""
            nonlocal now_ns, goal
            count = len(commands)
            applied.publish(command(goal, now_ns - TICK_NS, "guard", JOINTS))
            # Best effort: what was lost is said again with the stamp of the tick after.
            for _ in range(50):
                tell(now_ns)
                now_ns += TICK_NS
                try:
                    wait_until(lambda: len(commands) > count, 0.2)
                    break
                except AssertionError:
                    continue
            goal = np.array(commands[-1].points[0].positions)

        for _ in range(12):
            step()
        stamps = np.array([stamp_ns(one) for one in commands])
        assert (np.diff(stamps) % (2 * TICK_NS) == 0).all()  # 50 Hz
        # 0.1 rad a step at most, until the policy's target is reached.
        positions = np.array([one.points[0].positions for one in commands])
        assert np.abs(np.diff(positions, axis=0)).max() <= 0.1 * 1.001
        np.testing.assert_allclose(positions[-1], [0.5, 0.5], atol=1e-3)
        assert {one.model_version for one in stats} == {"v0001"}

        models.publish(
            ModelAnnouncement(task="two_joints", version="v0002", path=str(second), status=1)
        )
        for _ in range(200):
            step()
            if stats[-1].model_version == "v0002":
                break
        assert stats[-1].model_version == "v0002"
        before = goal
        step()
        assert (goal < before).all()

        # The command in force is not told any more: too old after 0.5 s.
        count = len(commands)
        for _ in range(80):
            tell(now_ns)
            now_ns += TICK_NS
            if stats[-1].stop_reason:
                break
            wait_until(lambda: True)
        wait_until(lambda: bool(stats[-1].stop_reason), 30.0)
        assert "s old, at most 0.500 s allowed (topic applied_command)" in stats[-1].stop_reason
        wait_until(lambda: "channel command" in observer.statuses["/policy"].message, 30.0)
        told = len(commands)
        tell(now_ns + TICK_NS)
        assert told >= count
        assert interrupt(process) == 0
        assert len(commands) == told
