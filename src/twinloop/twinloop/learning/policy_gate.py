# SPDX-License-Identifier: Apache-2.0
"""The gate of policies that learn while they act: nothing says beforehand how good one is.

A policy predicts nothing, so there is no error to hold it to. What can be asked of a new one is
that it is finite where the robot has been; it is then tried. Once it has acted for some whole
episodes, what these earned is compared with what the episodes of the policy before earned, and it
is taken back where it is worse by more than chance explains.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime

import numpy as np
import torch
from numpy.typing import NDArray

from twinloop.learning.action_units import units_of
from twinloop.learning.episode import Episode
from twinloop.learning.gate import Decision, GateConfig, Returns
from twinloop.models.actor import Actor
from twinloop.planners.control import ENDS
from twinloop.tasks.base import Task

_DRAWS = 20_000


def whole_episodes(episodes: Sequence[Episode], version: str) -> list[Episode]:
    """Return the episodes that a version alone planned, from their first step to their own end."""
    return [
        episode
        for episode in episodes
        if episode.meta.get("planned_by") == [version]
        and episode.meta.get("first_step") == 0
        and episode.meta.get("stop_reason") in ENDS
        and not episode.meta.get("piloted")
    ]


def returns_of(task: Task, episodes: Sequence[Episode]) -> NDArray[np.float64]:
    """Return what each episode earned: its summed rewards [N]."""
    units = units_of(task)
    found = []
    for episode in episodes:
        seen = torch.from_numpy(episode.observations)
        earned = task.reward(seen[:-1], torch.from_numpy(units.of(episode)), seen[1:])
        found.append(float(earned.sum()))
    return np.array(found)


def chance_of_less(new: NDArray[np.float64], old: NDArray[np.float64], seed: int = 0) -> float:
    """Return how often a mean as far below would come by chance if both were of one kind: a
    permutation test of the difference of means, one-sided, with 20,000 draws (Phipson & Smyth
    2010, equation 2).

    Args:
        new, old: returns [N], [M].
    """
    together = np.concatenate([new, old])
    shuffled = np.random.default_rng(seed).permuted(np.tile(together, (_DRAWS, 1)), axis=1)
    means = shuffled[:, : len(new)].mean(1) - shuffled[:, len(new) :].mean(1)
    # The same numbers summed in another order may differ by rounding.
    as_low = means <= new.mean() - old.mean() + 1e-9
    return float((1 + as_low.sum()) / (1 + _DRAWS))


def judge_new(
    candidate: Actor,
    running_version: str | None,
    episodes: Sequence[Episode],
    config: GateConfig,
) -> Decision:
    """Return whether a new policy may be tried: its weights, and what it does where the robot was
    in its newest episodes, are finite."""
    seen = np.concatenate([episode.observations for episode in episodes])[-config.limit :]
    weights_finite = all(bool(torch.isfinite(t).all()) for t in candidate.state_dict().values())
    is_finite = weights_finite and bool(torch.isfinite(candidate.act(torch.from_numpy(seen))).all())
    what = f"on {len(seen)} recorded observations"
    return Decision(
        verdict="promoted" if is_finite else "rejected",
        reason=f"its actions are finite {what}; what it earns is not known yet"
        if is_finite
        else f"its actions are NaN or infinite {what}",
        compared_with=running_version,
        candidate=None,
        running=None,
        still=None,
        held_out=(),
        margins=config,
        decided_at=_now(),
    )


def judge_returns(
    task: Task, running: str, former: str, episodes: Sequence[Episode], config: GateConfig
) -> Decision | None:
    """Return why the running policy is taken back, None where it is not, or where too few episodes
    say anything.

    Args:
        running, former: versions, the second of which ran before.
        episodes: of both, among others.
    """
    own = whole_episodes(episodes, running)
    before = whole_episodes(episodes, former)
    if min(len(own), len(before)) < config.returns_episodes:
        return None
    new, old = returns_of(task, own), returns_of(task, before)
    chance = chance_of_less(new, old)
    if chance > config.returns_level:
        return None
    return Decision(
        verdict="rejected",
        reason=f"{len(new)} episodes earned {new.mean():.2f} in the mean, {len(old)} of {former} "
        f"{old.mean():.2f}: by chance with p = {chance:.4f}, expected above {config.returns_level}",
        compared_with=former,
        candidate=None,
        running=None,
        still=None,
        returns=Returns(
            episodes=len(new),
            mean=float(new.mean()),
            former_episodes=len(old),
            former_mean=float(old.mean()),
            chance=chance,
        ),
        held_out=tuple(str(episode.meta.get("episode_id", "")) for episode in own),
        margins=config,
        decided_at=_now(),
    )


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")
