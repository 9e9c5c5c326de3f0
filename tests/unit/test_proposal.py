# SPDX-License-Identifier: Apache-2.0
"""Proposal policies: balls in their places are left alone, and noise falls while training ends."""

from __future__ import annotations

import math

import pytest
import torch
from turning_bags import turning
from twinloop.learning.policy import new_proposal
from twinloop.learning.ppo import ActorCritic, PPOConfig
from twinloop.models.proposal import Proposal, ProposalConfig

from twinloop import tasks

TASK = tasks.make("baoding")
ROW = torch.from_numpy(turning(90.0, steps=2).observations)[0]
HERE = ROW[list(TASK.target_of)]


def made(rest: tuple[float, float] | None) -> Proposal:
    torch.manual_seed(0)
    return new_proposal(TASK, 0.15, hidden=(8,), squashed=False, rest=rest)


@pytest.mark.parametrize(("away_m", "share"), [(0.003, 0.0), (0.008, 0.5), (0.020, 1.0)])
def test_the_nearer_the_target_the_less_is_moved(away_m: float, share: float) -> None:
    target = HERE + torch.tensor([0.0, 0.0, -away_m, 0.0])
    command = ROW[TASK.command]
    whole = made(None)(ROW, target) - command
    moved = made((0.004, 0.012))(ROW, target) - command
    assert whole.abs().max() > 0.01
    assert torch.allclose(moved, share * whole, atol=1e-6)


def test_what_turns_is_never_at_rest() -> None:
    resting = made((0.004, 0.012))
    for goal in ("ccw", "cw"):
        target = tasks.make("baoding", goal).targets(ROW, 1)[0]
        assert torch.equal(resting.urgency(ROW, target), torch.ones(1))


@pytest.mark.parametrize("rest", [(-0.001, 0.01), (0.01, 0.01)])
def test_distances_of_rest_have_an_order(rest: tuple[float, float]) -> None:
    config = made(None).config.model_dump() | {"rest": rest}
    with pytest.raises(ValueError, match="rest is"):
        ProposalConfig.model_validate(config)


@pytest.mark.parametrize(("progress", "largest"), [(0.2, 1.0), (0.75, 0.2), (1.0, 0.1)])
def test_the_largest_noise_falls_in_the_second_half(progress: float, largest: float) -> None:
    config = PPOConfig(deviation=(0.05, 0.4, 1.0), last_deviation=0.1, critic_hidden=(4,))
    policy = ActorCritic(made(None), 12, config)
    with torch.no_grad():
        policy.log_deviation.fill_(math.log(3.0))
    policy.limit_deviation(progress)
    assert torch.allclose(policy.log_deviation.exp(), torch.full((TASK.action_size,), largest))
