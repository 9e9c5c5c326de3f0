# SPDX-License-Identifier: Apache-2.0
"""Policies that act: their chunks, limits and noise, and those of Stable-Baselines3."""

from __future__ import annotations

import json
import time
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from twinloop.contract import load as load_contract
from twinloop.learning import stable_baselines
from twinloop.learning.model_file import Candidate, load_model, write_model
from twinloop.models import ModelInvalid, new_model
from twinloop.models.actor import Actor, ActorConfig

from twinloop import planners, tasks

torch.set_num_threads(1)
TASK: Any = tasks.make("valve")
CHECKPOINTS = Path(__file__).parent / "checkpoints"
EXPECTED = json.loads((CHECKPOINTS / "expected.json").read_text())


def actor(seed: int = 0, **sizes: Any) -> Actor:
    made = Actor(
        ActorConfig(
            observation_size=TASK.observation_size,
            action_size=TASK.action_size,
            **{"hidden": (8, 8), "acts": "change"} | sizes,
        ),
        seed,
    )
    made.action_scale.fill_(0.05)
    return made.requires_grad_(False)


def seen(value: float = 0.0) -> Tensor:
    observation = torch.full((TASK.observation_size,), value)
    observation[TASK.command] = torch.tensor(TASK.center, dtype=torch.float32)
    return observation


def planned(made: Any, observation: Tensor) -> Tensor:
    return made.plan(observation, TASK.targets(observation, 1))[0]


def test_targets_are_changes_of_the_command_within_its_speed() -> None:
    model = actor()
    made = planners.make("policy", model, TASK, 0)
    change = planned(made, seen(0.3)) - torch.tensor(TASK.center, dtype=torch.float32)
    wanted = 0.05 * model.act(seen(0.3)[None])[0, 0]
    torch.testing.assert_close(change, wanted, atol=1e-6, rtol=1e-5)
    model.action_scale.fill_(100.0)
    assert (planned(made, seen(0.3)) - seen()[TASK.command]).abs().max() <= made.largest_change * (
        1 + 1e-5
    )


def test_a_chunk_is_followed_and_fades_into_the_next() -> None:
    model = actor(chunk=6)
    made = planners.make("policy", model, TASK, 0, every=4, blend=2)
    first, second = (model.act(seen(value)[None])[0] for value in (0.0, 1.0))
    done = [planned(made, seen(0.0 if step < 4 else 1.0)) for step in range(8)]
    changes = torch.stack(done) - seen()[TASK.command]
    wanted = [
        *first[:4],
        torch.lerp(first[4], second[0], 1 / 3),
        torch.lerp(first[5], second[1], 2 / 3),
        *second[2:4],
    ]
    torch.testing.assert_close(changes, 0.05 * torch.stack(wanted), atol=1e-6, rtol=1e-5)


def test_smoothed_actions_keep_a_share_of_the_one_before() -> None:
    model = actor()
    made = planners.make("policy", model, TASK, 0, smoothing=0.75)
    values = (0.0, 1.0, -1.0)
    done = [planned(made, seen(value)) - seen()[TASK.command] for value in values]
    first, second, third = (0.05 * model.act(seen(value)[None])[0, 0] for value in values)
    torch.testing.assert_close(done[0], first, atol=1e-6, rtol=1e-5)
    torch.testing.assert_close(done[1], 0.75 * first + 0.25 * second, atol=1e-6, rtol=1e-5)
    torch.testing.assert_close(done[2], 0.75 * done[1] + 0.25 * third, atol=1e-6, rtol=1e-5)
    made.reset(0)
    assert torch.equal(planned(made, seen(1.0)), planned(planners.make("policy", model, TASK, 0),
                                                         seen(1.0)))  # fmt: skip


def test_noise_is_the_seed_s_and_only_there_when_asked_for() -> None:
    still = planners.make("policy", actor(), TASK, 1)
    assert torch.equal(planned(still, seen()), planned(still, seen()))
    noisy = planners.make("policy", actor(), TASK, 1, sampled=True)
    first = [planned(noisy, seen()) for _ in range(2)]
    noisy.reset(1)
    again = [planned(noisy, seen()) for _ in range(2)]
    assert torch.equal(torch.stack(first), torch.stack(again))
    assert not torch.equal(first[0], first[1])


def test_another_policy_takes_over_between_two_steps_within_its_chunk() -> None:
    made = planners.make("policy", actor(chunk=6), TASK, 0, every=5)
    planned(made, seen())
    other = actor(seed=7, chunk=6)
    made.model = other
    wanted = seen()[TASK.command] + 0.05 * other.act(seen()[None])[0, 0]
    torch.testing.assert_close(planned(made, seen()), wanted, atol=1e-6, rtol=1e-5)


def test_what_is_no_policy_or_gives_nonsense_has_no_effect() -> None:
    made = planners.make("policy", actor(), TASK, 0)
    kept = made.model
    with pytest.raises(ValueError, match="kind 'claw_valve', expected a policy"):
        made.model = new_model("valve", 0, hidden=(4,))
    with pytest.raises(ValueError, match="a chunk has 3 actions"):
        planners.make("policy", actor(chunk=3), TASK, 0, every=3, blend=1)
    assert made.model is kept
    action, stats = made.plan(seen(float("nan")), torch.zeros(1, 0))
    torch.testing.assert_close(action, seen()[TASK.command])
    assert stats.nan_rollouts == 1


def test_before_there_is_a_policy_to_sample_from_it_moves_at_random() -> None:
    made = planners.make("policy", new_model("valve", 0, hidden=(4,)), TASK, 0, sampled=True)
    largest = made.largest_change
    changes = torch.stack([planned(made, seen()) - seen()[TASK.command] for _ in range(300)])
    assert changes.abs().max() <= largest * (1 + 1e-5)
    # Evenly drawn: a quarter of all are in each quarter of the range.
    share = torch.histc(changes / largest, bins=4, min=-1.0, max=1.0) / changes.numel()
    torch.testing.assert_close(share, torch.full((4,), 0.25), atol=0.03, rtol=0.0)
    made.model = new_model("valve", 1, hidden=(4,))  # nor is this one a policy
    made.model = actor(deviation="none")
    assert torch.equal(planned(made, seen()), planned(made, seen()))
    with pytest.raises(ValueError, match="kind 'claw_valve', expected a policy"):
        made.model = new_model("valve", 0, hidden=(4,))


@pytest.mark.parametrize("deviation", ["state", "fixed", "none"])
def test_policies_are_written_and_read_as_models_are(tmp_path, deviation: Any) -> None:
    made = actor(deviation=deviation, activation="tanh")
    write_model(tmp_path, Candidate(made, load_contract("valve")))
    found = load_model(tmp_path).model
    assert isinstance(found, Actor)
    assert torch.equal(found.act(seen(0.2)[None]), made.act(seen(0.2)[None]))


@pytest.mark.parametrize("name", ["sac", "td3", "ppo"])
def test_a_checkpoint_of_stable_baselines_acts_as_it_does_there(name: str) -> None:
    limit = torch.tensor([2.0])
    found = stable_baselines.load(CHECKPOINTS / f"{name}.zip", lower=-limit, upper=limit)
    observations = torch.tensor(EXPECTED["observations"])
    actions = found.targets(found.act(observations)[:, 0], torch.zeros(len(observations), 1))
    np.testing.assert_allclose(actions, EXPECTED["actions"][name], atol=1e-5)


def test_files_that_are_no_checkpoints_are_refused(tmp_path) -> None:
    with pytest.raises(ModelInvalid, match="expected 32 and 9 as in valve"):
        stable_baselines.load(CHECKPOINTS / "sac.zip", load_contract("valve"))
    broken = tmp_path / "broken.zip"
    broken.write_bytes(b"PK nothing")
    with pytest.raises(ModelInvalid, match="no checkpoint"):
        stable_baselines.load(broken)
    other = tmp_path / "other.zip"
    with zipfile.ZipFile(other, "w") as archive:
        torch.save({"spam": torch.ones(1)}, tmp_path / "policy.pth")
        archive.write(tmp_path / "policy.pth", "policy.pth")
    with pytest.raises(ModelInvalid, match="no policy of SAC"):
        stable_baselines.load(other)


def test_a_step_of_two_layers_of_256_takes_less_than_five_milliseconds_of_a_core() -> None:
    made = planners.make("policy", actor(hidden=(256, 256)), TASK, 0)
    spent = []
    for _ in range(200):
        began = time.thread_time()
        planned(made, seen())
        spent.append(time.thread_time() - began)
    assert np.quantile(spent, 0.99) < 5e-3
