# SPDX-License-Identifier: Apache-2.0
"""Candidates of LQR-FLM from recorded episodes: the next policy after the one that made them.

An iteration of `policy_search` on the episodes of one version. Older ones say how things move
elsewhere, and go into the prior of the dynamics alone.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from twinloop.learning.episode import Episode
from twinloop.learning.linear_actor import begun, cost_of, rollouts_of
from twinloop.learning.policy_search import Iteration, PolicySearch, SearchSettings, Transitions
from twinloop.models.base import DynamicsModel
from twinloop.models.linear_latent import LinearLatent
from twinloop.planners.linear_quadratic.encoding import encoding_of
from twinloop.planners.lqr_flm import LQRFLMConfig, first_policy
from twinloop.planners.settings import load
from twinloop.tasks.base import Task

PLANNER = "lqr_flm"
LEAST = 3  # rollouts of a policy, to fit its dynamics


class TooFewRollouts(ValueError):
    """There are not enough whole episodes of the running policy yet."""


@dataclass(frozen=True)
class Found:
    """The next model, and figures of the iteration that made it."""

    model: LinearLatent
    iteration: Iteration
    rollouts: int

    @property
    def metrics(self) -> dict[str, float | None]:
        """Return the figures that go with the model's version."""
        return {
            "rollouts": float(self.rollouts),
            "cost": self.iteration.cost,
            "predicted_cost": self.iteration.predicted,
            "divergence": self.iteration.divergence,
            "deviation": self.iteration.deviation,
        }


def on_policy(episodes: Sequence[Episode], version: str | None) -> list[Episode]:
    """Return the episodes that a version planned from their first step on; None: any version."""
    return [
        episode
        for episode in episodes
        if (version is None or episode.meta.get("model_version") == version)
        and int(episode.meta.get("first_step", 0)) == 0
    ]


def next_model(
    task: Task,
    running: DynamicsModel | None,
    version: str | None,
    episodes: Sequence[Episode],
    settings: SearchSettings,
    seed: int,
) -> Found:
    """Return the model that follows the running one.

    Args:
        task: whose cost is lowered.
        running: what planned; where it has no policy, the episodes are of the planner's first one.
        version: of the running model.
        episodes: of all versions; those of the running one are learned from.
        seed: of the prior's fit.

    Raises:
        TooFewRollouts: there are fewer than three whole episodes of the running policy.
        ValueError: the cost is not finite somewhere, or no policy keeps to the bound.
    """
    is_first = not isinstance(running, LinearLatent)
    if isinstance(running, LinearLatent):
        encoding, last = running.encoding, running.policy
    else:
        encoding = encoding_of(task)
        last = first_policy(task, encoding, load(LQRFLMConfig, PLANNER, task.name).first_deviation)
    whole = [e for e in on_policy(episodes, None) if len(e) >= last.steps]
    own = whole if is_first else on_policy(whole, version)
    if len(own) < LEAST:
        raise TooFewRollouts(
            f"{len(own)} episodes of {last.steps} steps by {version or 'the first policy'}, "
            f"expected at least {LEAST}"
        )
    transitions = Transitions(settings, seed)
    older = [episode for episode in whole if all(episode is not one for one in own)]
    for group in (older, own):
        if group:
            transitions.add(*rollouts_of([begun(e, last.steps) for e in group], encoding))
    search = PolicySearch(cost_of(task, encoding), last, settings)
    states, actions = rollouts_of([begun(e, last.steps) for e in own], encoding)
    iteration = search.learn(states, actions, transitions.prior())
    assert search.dynamics is not None
    return Found(LinearLatent.of(search.dynamics, search.policy, encoding), iteration, len(own))
