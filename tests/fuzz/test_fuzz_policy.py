# SPDX-License-Identifier: Apache-2.0
"""Bad messages to the policy node, and bad files of exported policies."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from graph import ask, hear, running
from hypothesis import given
from hypothesis import strategies as st
from messages import broken
from std_srvs.srv import Trigger
from tally import TALLY, examples
from twin_station import command
from twinloop.learning import exported_policies
from twinloop.learning.model_file import Candidate, write_model
from twinloop.models import ModelInvalid
from twinloop.models.actor import Actor, ActorConfig
from twinloop.nodes.joint_messages import joint_state
from twinloop.nodes.policy import PolicyNode

from twinloop_interfaces.msg import ModelAnnouncement

sys.path.append(str(Path(__file__).parents[1] / "unit"))
from test_exported_policies import JOINTS, contract, onnx_model

STAMP_NS = 1_700_000_000 * 10**9
SAMPLES = {
    "joint_states": lambda: joint_state(list(JOINTS), STAMP_NS, np.zeros(2), np.zeros(2)),
    "applied_command": lambda: command(np.zeros(2), STAMP_NS, "guard", JOINTS),
    "model": lambda: ModelAnnouncement(task="two_joints", version="v2", path="/nowhere", status=1),
}


@pytest.fixture
def policy(tmp_path: Path) -> Iterator[PolicyNode]:
    made = Actor(ActorConfig(observation_size=4, action_size=2, hidden=(4,)))
    write_model(tmp_path, Candidate(made.requires_grad_(False), contract()))
    with running(PolicyNode, model=tmp_path, nice=os.nice(0), rtf=0.0) as node:
        yield node


@examples(150)
@given(data=st.data())
def test_a_policy_at_work_refuses_bad_samples(policy: PolicyNode, data: st.DataObject) -> None:
    ask(policy, "start_policy", Trigger.Request())
    topic = data.draw(st.sampled_from(sorted(SAMPLES)))
    message = data.draw(broken(SAMPLES[topic], most=1))
    before = policy.health().values["malformed_samples"]

    def reason() -> str:
        hear(policy, topic, message)
        now = policy.health().values["malformed_samples"]
        return f"{now} malformed samples" if now != before else ""

    TALLY.ask("sample to a policy", reason)
    for name in ("applied_command", "joint_states"):
        hear(policy, name, SAMPLES[name]())


@examples(60)
@given(data=st.data())
def test_bad_exported_policies_are_refused(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    content = bytearray(onnx_model().SerializeToString())
    for _ in range(data.draw(st.integers(1, 3))):
        place = data.draw(st.integers(0, len(content) - 1))
        content[place] = data.draw(st.integers(0, 255))
    cut = len(content)
    if data.draw(st.booleans()):
        cut = data.draw(st.integers(len(content) // 2, len(content)))
    path = tmp_path_factory.mktemp("exported") / "policy.onnx"
    path.write_bytes(bytes(content[:cut]))

    def read() -> Any:
        return exported_policies.load(path, contract())

    TALLY.read("file: exported policy", read, (ModelInvalid,), (path.name,))
