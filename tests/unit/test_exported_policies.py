# SPDX-License-Identifier: Apache-2.0
"""Policies of other programs: what ONNX and TorchScript files give, and which are refused."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper
from torch import Tensor, nn
from twinloop.cli.main import main
from twinloop.contract import Contract
from twinloop.contract.spec import Action, Channel
from twinloop.learning import exported_policies
from twinloop.learning.model_file import Candidate, load_model, write_model
from twinloop.models import ModelInvalid
from twinloop.models.exported import CodeRefused
from twinloop.planners.policy import PolicyConfig, PolicyPlanner
from twinloop.planners.space import action_space
from twinloop.tasks.of_contract import ContractTask

torch.set_num_threads(1)
JOINTS = ("one", "two")


def contract(observes_command: bool = True) -> Contract:
    joints: dict[str, Any] = {
        "topic": "joint_states",
        "type": "sensor_msgs/msg/JointState",
        "elements": JOINTS,
        "max_age_s": 0.03,
    }
    channels = [Channel(name="joint_position", field="position", unit="rad", **joints)]
    if observes_command:
        channels.append(
            Channel(
                name="command",
                topic="applied_command",
                type="trajectory_msgs/msg/JointTrajectory",
                field="positions",
                elements=JOINTS,
                unit="rad",
                max_age_s=0.5,
            )
        )
    return Contract(
        name="two_joints",
        robot="pair",
        period_s=0.02,
        trigger="joint_states",
        observation=tuple(channels),
        action=Action(
            topic="command",
            applied_topic="applied_command",
            type="trajectory_msgs/msg/JointTrajectory",
            elements=JOINTS,
            unit="rad",
            lower=(-1.0, 0.0),
            upper=(1.0, 2.0),
            rate=5.0,
            delay_s=0.01,
        ),
    )


WEIGHT = np.array([[0.5, 0.1, 0.0, 0.2], [0.0, -0.3, 0.4, 0.0]], dtype=np.float32)
SEEN = torch.tensor([[0.1, -0.2, 0.3, 0.9], [0.5, 0.5, -0.5, 0.1]])


def wanted(seen: Tensor) -> Tensor:
    return torch.tanh(seen @ torch.from_numpy(WEIGHT).T)


class Network(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(4, 2, bias=False)
        with torch.no_grad():
            self.layer.weight.copy_(torch.from_numpy(WEIGHT))

    def forward(self, seen: Tensor) -> Tensor:
        return torch.tanh(self.layer(seen))


def onnx_model(initializer: TensorProto | None = None) -> onnx.ModelProto:
    nodes = [
        helper.make_node("Gemm", ["seen", "weight"], ["sum"], transB=1),
        helper.make_node("Tanh", ["sum"], ["action"]),
    ]
    graph = helper.make_graph(
        nodes,
        "policy",
        [helper.make_tensor_value_info("seen", TensorProto.FLOAT, ["batch", 4])],
        [helper.make_tensor_value_info("action", TensorProto.FLOAT, ["batch", 2])],
        [initializer or numpy_helper.from_array(WEIGHT, "weight")],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


def exported(folder: Path, kind: str) -> Path:
    path = folder / f"policy.{kind}"
    if kind == "onnx":
        path.write_bytes(onnx_model().SerializeToString())
    else:
        torch.jit.script(Network()).save(path)
    return path


@pytest.mark.parametrize("kind", ["onnx", "pt"])
def test_an_exported_policy_gives_here_what_it_gives_there(tmp_path: Path, kind: str) -> None:
    policy = exported_policies.load(exported(tmp_path, kind), contract(), runs_code=True)
    torch.testing.assert_close(policy.act(SEEN)[:, 0], wanted(SEEN))
    middle, half = torch.tensor([0.0, 1.0]), torch.tensor([1.0, 1.0])
    targets = policy.targets(policy.act(SEEN)[:, 0], SEEN[:, 2:])
    torch.testing.assert_close(targets, middle + half * wanted(SEEN))
    own = exported_policies.load(
        tmp_path / f"policy.{kind}", contract(), in_own_units=True, acts="change", runs_code=True
    )
    targets = own.targets(own.act(SEEN)[:, 0], SEEN[:, 2:])
    torch.testing.assert_close(targets, SEEN[:, 2:] + wanted(SEEN))


def test_it_is_kept_checked_and_read_as_a_model_is(tmp_path: Path) -> None:
    policy = exported_policies.load(exported(tmp_path, "onnx"), contract())
    folder = tmp_path / "v0001"
    folder.mkdir()
    write_model(folder, Candidate(policy, contract()))
    loaded = load_model(folder)
    assert Contract.model_validate(loaded.manifest.contract) == contract()
    torch.testing.assert_close(loaded.model.act(SEEN)[:, 0], wanted(SEEN))
    data = bytearray((folder / "weights.safetensors").read_bytes())
    data[-3] ^= 1
    (folder / "weights.safetensors").write_bytes(bytes(data))
    with pytest.raises(ModelInvalid, match="content is not what"):
        load_model(folder)


def test_a_program_does_not_run_unless_somebody_says_so(tmp_path: Path) -> None:
    policy = exported_policies.load(exported(tmp_path, "pt"), contract())
    with pytest.raises(CodeRefused, match="whose file is a program"):
        policy.act(SEEN)
    folder = tmp_path / "v0001"
    folder.mkdir()
    write_model(folder, Candidate(policy, contract()))
    task = ContractTask(contract())

    def planner(runs_code: bool) -> PolicyPlanner:
        config = PolicyConfig(sampled=False, every=1, blend=0, runs_code=runs_code)
        return PolicyPlanner(load_model(folder).model, task, action_space(task), config, 0)

    with pytest.raises(CodeRefused):
        planner(runs_code=False)
    action, _ = planner(runs_code=True).plan(SEEN[0], torch.zeros(1, 0))
    assert (action - SEEN[0, 2:]).abs().max() <= 5.0 * 0.02 * 1.001


def test_files_that_are_no_policies_of_the_contract_are_refused(tmp_path: Path) -> None:
    def refused(name: str, content: bytes, match: str, **options: Any) -> None:
        path = tmp_path / name
        path.write_bytes(content)
        with pytest.raises(ModelInvalid, match=match):
            exported_policies.load(path, contract(), **options)

    good = exported(tmp_path, "onnx").read_bytes()
    refused("spam.onnx", b"spam", "is no ONNX")
    refused("cut.onnx", good[: len(good) // 2], "is no ONNX")
    refused("policy.pkl", b"x", "ends in '.pkl', expected one of")
    refused("spam.pt", b"spam", "is no TorchScript", runs_code=True)
    refused("chunk.onnx", good, r"gives \[1, 2\].*expected \[1, 3, 2\]", chunk=3)
    outside = numpy_helper.from_array(WEIGHT, "weight")
    outside.ClearField("raw_data")
    outside.data_location = TensorProto.EXTERNAL
    entry = outside.external_data.add()
    entry.key, entry.value = "location", "/etc/passwd"
    refused("outside.onnx", onnx_model(outside).SerializeToString(), "'weight' lies in another")


def test_a_contract_file_is_read_or_refused_by_the_name_of_what_is_wrong(tmp_path: Path) -> None:
    path = tmp_path / "contract.json"
    path.write_text(contract().to_json())
    assert exported_policies.read_contract(path) == contract()
    path.write_text(json.dumps(json.loads(contract().to_json()) | {"period_s": -1.0}))
    with pytest.raises(ModelInvalid, match="period_s"):
        exported_policies.read_contract(path)
    with pytest.raises(ModelInvalid, match="cannot be read"):
        exported_policies.read_contract(tmp_path / "missing.json")


def test_where_no_command_is_observed_changes_are_from_the_last_target(tmp_path: Path) -> None:
    blind = contract(observes_command=False)
    path = tmp_path / "policy.onnx"
    model = onnx_model(numpy_helper.from_array(np.array([[9, 0], [0, 9]], np.float32), "weight"))
    model.graph.input[0].type.tensor_type.shape.dim[1].dim_value = 2
    path.write_bytes(model.SerializeToString())
    task = ContractTask(blind)
    made = PolicyPlanner(
        exported_policies.load(path, blind),
        task,
        action_space(task),
        PolicyConfig(sampled=False, every=1, blend=0),
        0,
    )
    first, _ = made.plan(torch.tensor([1.0, 1.0]), torch.zeros(1, 0))
    torch.testing.assert_close(first, torch.tensor([1.0, 2.0]), atol=1e-3, rtol=0.0)
    second, _ = made.plan(torch.tensor([-1.0, -1.0]), torch.zeros(1, 0))
    torch.testing.assert_close(first - second, torch.tensor([0.1, 0.1]), atol=1e-3, rtol=0.0)
    held, stats = made.plan(torch.tensor([torch.nan, 0.0]), torch.zeros(1, 0))
    assert stats.nan_rollouts == 1
    torch.testing.assert_close(held, second)


def test_the_command_line_brings_a_policy_into_a_registry(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    policy, file = exported(tmp_path, "onnx"), tmp_path / "contract.json"
    file.write_text(contract().to_json())
    words = ["models", "import", str(policy), "--contract", str(file)]
    with pytest.raises(SystemExit) as ended:
        main([*words, "--registry", str(tmp_path / "registry"), "--json"])
    assert ended.value.code == 0
    said = json.loads(capsys.readouterr().out)
    assert said["version"] == "v0001"
    torch.testing.assert_close(load_model(said["path"]).model.act(SEEN)[:, 0], wanted(SEEN))
    words[3:] = ["--contract", "valve", "--registry", str(tmp_path / "other")]
    with pytest.raises(SystemExit) as ended:
        main(words)
    assert ended.value.code == 2
    assert "policy.onnx" in capsys.readouterr().err
