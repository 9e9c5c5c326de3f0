# SPDX-License-Identifier: Apache-2.0
"""Plans on a device: the same code as on the CPU, and nothing in it that waits for the host.

The meta device stands for the accelerator where none is at hand: it refuses to give values, and
every operation is looked at, so a copy from the host or a question to the device is seen.
"""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from twinloop.models.proposal import Proposal, ProposalConfig
from twinloop.planners.sampling import SamplingPlanner

from twinloop import models, planners, tasks

torch.set_num_threads(1)
WAITS = {"aten::_local_scalar_dense", "aten::nonzero", "aten::is_nonzero", "aten::masked_select"}
SMALL = {"samples": 20, "horizon": 3}
KINDS = [(task, name) for task in tasks.available() for name in planners.samplers()]


class Watch(TorchDispatchMode):
    """Collects operations that would make the host wait for the device, or copy to it."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        tensors = [t for t in tree_leaves((args, kwargs, result)) if isinstance(t, Tensor)]
        # A number that came along with a tensor has no dimension, and goes as an argument.
        places = {t.device.type for t in tensors if t.dim() > 0}
        if func._schema.name in WAITS or len(places) > 1:
            self.found.append(f"{func} on {sorted(places)}")
        return result


class WatchConstants(TorchFunctionMode):
    """Collects tensors that are made from numbers on the host."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func in (torch.tensor, torch.as_tensor, Tensor.new_tensor):
            self.found.append(f"{func.__name__} of {args[-1]}")
        return func(*args, **(kwargs or {}))


def make(task_name: str, planner: str, device: str) -> SamplingPlanner:
    task = tasks.make(task_name)
    model = models.new_model(task_name, 0, members=2, hidden=(8, 8))
    layout = {
        "observation_size": task.observation_size,
        "action_size": task.action_size,
        "command": (task.command.start, task.command.stop),
        "joint_position": (task.joint_position.start, task.joint_position.stop),
        "target_of": task.target_of,
        "symmetry": task.symmetry,
        "max_change": 0.1,
    }
    proposal = Proposal(ProposalConfig(**layout))
    return planners.make(planner, model.with_proposal(proposal), task, 0, device=device, **SMALL)


def start(planner: SamplingPlanner) -> tuple[Tensor, Tensor]:
    observation = torch.zeros(1, planner.task.observation_size)
    return observation, planner.task.targets(observation, planner.horizon)


@pytest.mark.parametrize(("task", "name"), KINDS)
def test_a_plan_never_waits_for_the_host_nor_copies_from_it(task: str, name: str) -> None:
    planner = make(task, name, "meta")
    observation, target = (value.to("meta") for value in start(planner))
    with torch.no_grad():
        planner._solve(observation, target)  # what is kept for a device is made here
        with Watch() as watch, WatchConstants() as made:
            planner._solve(observation, target)
    assert watch.found + made.found == []


def test_the_watch_sees_questions_and_copies() -> None:
    row, index = torch.zeros(3, device="meta"), torch.tensor([0, 1])
    with Watch() as watch, WatchConstants() as made:
        row[index]
        torch.ones(3).to("meta")
        row.new_tensor([1.0, 2.0, 3.0])
        with pytest.raises(RuntimeError):
            float(row.sum())
    assert len(watch.found) >= 2
    assert len(made.found) == 1


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
@pytest.mark.parametrize(("task", "name"), KINDS)
def test_captured_plans_agree_with_those_of_the_cpu(task: str, name: str) -> None:
    here, there = make(task, name, "cpu"), make(task, name, "cuda")
    noise = here._noise

    def same_numbers() -> None:
        there._noise.copy_(noise)

    there._draw = same_numbers
    observation, target = start(here)
    for _ in range(3):
        expected, stats = here.plan_batch(observation, target)
        found, captured = there.plan_batch(observation, target)
        assert torch.allclose(found, expected, atol=1e-3)
        assert captured[0].best_return == pytest.approx(stats[0].best_return, rel=1e-3, abs=1e-2)
        observation[:, here.task.command] = expected
