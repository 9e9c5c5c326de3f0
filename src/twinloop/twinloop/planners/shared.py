# SPDX-License-Identifier: Apache-2.0
"""MPPI that shares a robot with a pilot: what he commands is done as nearly as a cost bound allows.

After "Shared Autonomy via Deep Reinforcement Learning" (arXiv 1802.01744). There, learned values
tell what an act is worth if the best follows; here, rollouts of the dynamics model tell what an
action is worth if the rest of a plan follows. Each step:

1. MPPI plans as it would alone, and would execute a*, worth V*.
2. It samples about the pilot's command p, each sample followed by the rest of that plan; their mean
   with MPPI's weights is m.
3. Executed is the action nearest to p that is worth V* - (1 - α) / (α κ) or more, among points on
   the lines from p to m and from p to a*.

1 / κ, with MPPI's sharpness κ, is the loss at which MPPI itself gives a rollout a third of the best
one's weight. The paper's bound is the share α of the way from the worst act's value to the best's.
With continuous actions some way there always is, so that a pilot would be held back where nothing
is at stake, and let go where all he can do is bad. Here α = 0 executes p, α = 1/2 lets him lose
1 / κ in a step, and α = 1 executes a*, each end exactly. (The paper's α is what the pilot is left,
this one what autonomy has.)
"""

from __future__ import annotations

import time
from dataclasses import replace

import torch
from torch import Tensor

from twinloop.models.base import DynamicsModel
from twinloop.planners.base import PlanStats
from twinloop.planners.mppi import MPPI, MPPIConfig
from twinloop.planners.sampling import Scores, weighted_plan
from twinloop.planners.settings import load
from twinloop.planners.space import ActionSpace, action_space
from twinloop.tasks.base import Task

BASE = "mppi"  # the planner that it shares with a pilot
_TRIED = 24  # samples about the pilot's command, at most
_TO_AUTONOMY = 10  # steps from the pilot's command to autonomy's action
_TO_MEAN = 5  # and to what MPPI makes of the pilot's command


class SharedMPPI(MPPI):
    """The planner.

    A robot without a pilot's command is planned for as MPPI plans; at α = 0, where nobody else may
    move it, its last command is held.

    Attributes:
        pilot: what the pilot commands for the next step [B, A], rad; a row of NaN or None: nothing.
        alpha: see above.
    """

    pilot: Tensor | None = None
    _alpha = 0.0

    @property
    def alpha(self) -> float:
        return self._alpha

    @alpha.setter
    def alpha(self, alpha: float) -> None:
        if not 0.0 <= alpha <= 1.0:
            raise ValueError(f"alpha is {alpha}, expected 0 (the pilot alone) to 1 (autonomy)")
        self._alpha = alpha

    @torch.no_grad()
    def plan_batch(self, observation: Tensor, target: Tensor) -> tuple[Tensor, list[PlanStats]]:
        """Return the next joint targets [rad] of B robots, see `SamplingPlanner.plan_batch`.

        The pilot's command is brought within limits and within reach of a step first. The
        statistics are those of MPPI's own plan, with `pilot_share`.

        Raises:
            ValueError: another number of observations than of seeds, or of pilots' commands.
        """
        started = time.perf_counter()
        autonomy, stats = super().plan_batch(observation, target)
        previous = observation[:, self.task.command]
        if self.pilot is None:
            return (previous.clone() if self.alpha == 0.0 else autonomy), stats
        if self.pilot.shape != autonomy.shape:
            raise ValueError(
                f"the pilot's command is {list(self.pilot.shape)}, expected {list(autonomy.shape)}"
            )
        is_given = self.pilot.isfinite().all(1)[:, None]
        wanted = torch.where(is_given, self._within_reach(previous, self.pilot), previous)
        if self.alpha == 0.0:
            return wanted, _with_share(stats, is_given, wanted, wanted, autonomy, started)
        action = autonomy
        if self.alpha < 1.0 and bool(is_given.any()):
            shown = list(self._tried)
            shared = self._shared(observation, target, wanted, autonomy)
            self._tried[:] = shown  # viewers are shown what autonomy thought of
            action = torch.where(is_given, shared, autonomy)
        return action, _with_share(stats, is_given, action, wanted, autonomy, started)

    def _within_reach(self, previous: Tensor, wish: Tensor) -> Tensor:
        """Return the nearest commands that are allowed; one that is allowed stays bit for bit."""
        lower = torch.maximum(self._lower.cpu(), previous - self.largest_change)
        upper = torch.minimum(self._upper.cpu(), previous + self.largest_change)
        return torch.minimum(torch.maximum(wish, lower), upper)

    def _shared(
        self, observation: Tensor, target: Tensor, wanted: Tensor, autonomy: Tensor
    ) -> Tensor:
        """Return the nearest actions to the wanted ones that are worth enough [B, A]."""
        seen, aims = observation.to(self.device), target.to(self.device)
        pilot, best = wanted.to(self.device), autonomy.to(self.device)
        previous = seen[:, None, self.task.command]
        rest = self._carry["plan"][:-1]  # of autonomy's plan: it was carried on by a step

        def rate(first: Tensor) -> Scores:
            following = rest[:, :, None].expand(-1, -1, first.shape[1], -1)
            plans = torch.cat([first[None], following])
            return self._rate(seen, aims, self._reachable(previous, plans))

        noise = self._noise[:, 0, :_TRIED] * (self.sigma * self._deviation[:_TRIED])
        tried = self._reachable(previous, (pilot[:, None] + noise)[None])
        ways = _line(pilot, best, _TO_AUTONOMY)
        # Together: a rollout costs little by the number of its rows.
        scores = rate(torch.cat([tried[0], ways], 1))
        count = tried.shape[2]
        loss = (1.0 - self.alpha) / (self.alpha * self.config.kappa)
        bound = scores.value[:, -1:] - loss
        value = scores.value[:, count:]
        if not bool((value[:, 0] >= bound[:, 0]).all()):  # else all pilots have their way
            about = Scores(scores.value[:, :count], scores.spread[:, :count])
            mean = weighted_plan(about, tried, self.config.kappa)[0]
            to_mean = _line(pilot, mean, _TO_MEAN)[:, 1:]
            ways = torch.cat([ways[:, :1], to_mean, ways[:, 1:]], 1)
            value = torch.cat([value[:, :1], rate(to_mean).value, value[:, 1:]], 1)
        away = torch.linalg.vector_norm(ways - pilot[:, None], dim=-1)
        # Where autonomy's value is not finite nothing can be compared with it, and it is done.
        is_worthy = (value >= bound) & bound.isfinite()
        is_worthy[:, -1] = True
        index = torch.where(is_worthy, away, torch.inf).argmin(1)
        return ways[torch.arange(len(ways), device=ways.device), index].cpu()


def _line(start: Tensor, end: Tensor, count: int) -> Tensor:
    """Return points from one action to another, the ends exactly: [B, A], [B, A] -> [B, N, A]."""
    share = torch.linspace(0.0, 1.0, count + 1, device=start.device)[:-1, None]
    between = torch.lerp(start[:, None], end[:, None], share)
    return torch.cat([between, end[:, None]], 1)


def _with_share(
    stats: list[PlanStats],
    is_given: Tensor,
    action: Tensor,
    wanted: Tensor,
    autonomy: Tensor,
    started: float,
) -> list[PlanStats]:
    """Return the statistics with how much of the pilots' commands survived."""
    elapsed_ms = 1e3 * (time.perf_counter() - started)
    share = pilot_share(action, wanted, autonomy).tolist()
    return [
        replace(one, plan_ms=elapsed_ms, pilot_share=share[row] if bool(is_given[row]) else None)
        for row, one in enumerate(stats)
    ]


def pilot_share(action: Tensor, wanted: Tensor, autonomy: Tensor) -> Tensor:
    """Return how much of the pilot's command survived, 1 all and 0 none: [..., A] x 3 -> [...].

    It is one less how far the action is from it, as a share of how far autonomy's is.
    """
    moved = torch.linalg.vector_norm(action - wanted, dim=-1)
    apart = torch.linalg.vector_norm(autonomy - wanted, dim=-1)
    return torch.where(moved > 0, 1.0 - moved / apart.clamp(min=1e-12), 1.0).clamp(0.0, 1.0)


def make(
    model: DynamicsModel,
    task: Task,
    seed: int,
    alpha: float,
    *,
    space: ActionSpace | None = None,
    device: str = "cpu",
) -> SharedMPPI:
    """Make the planner with the settings that MPPI has for the task.

    Raises:
        ValueError: as `planners.make`, or alpha is not within 0 to 1.
    """
    config = load(MPPIConfig, BASE, task.name)
    planner = SharedMPPI(model, task, space or action_space(task), config, seed, device)
    planner.alpha = alpha
    return planner
