# SPDX-License-Identifier: Apache-2.0
"""Model-predictive path integral control as in PDDM (arXiv 1909.11652, section 4.2).

Each call samples noisy action sequences about the last plan, smooths them over time, rolls them
out through every ensemble member, and averages them with weights exp(kappa * return).
"""

from __future__ import annotations

import torch
from pydantic import Field
from torch import Tensor

from twinloop.planners.sampling import Rate, SamplingPlanner, Scores, weighted_plan
from twinloop.planners.settings import SamplingConfig


class MPPIConfig(SamplingConfig):
    """Settings of the sampler."""

    kappa: float = Field(gt=0)  # sharpness of the weights, per unit of return
    beta: float = Field(gt=0, le=1)  # share of the new value in the smoothing over time
    fine_share: float = Field(ge=0, le=1)  # share of samples with `fine_scale` of the noise
    fine_scale: float = Field(gt=0, le=1)


class MPPI(SamplingPlanner[MPPIConfig]):
    """The planner of PDDM."""

    Config = MPPIConfig

    def _set_up(self) -> None:
        c = self.config
        spread = torch.ones(c.samples, 1, device=self.device)
        spread[c.samples - round(c.fine_share * c.samples) :] = c.fine_scale
        spread[0] = 0.0  # the plan itself is always among the candidates
        self._deviation = spread * self._scale  # [N, A]
        # Smoothing would bend the plan itself.
        self._share = torch.full((c.samples, 1), c.beta, device=self.device)
        self._share[0] = 1.0

    @property
    def _noise_shape(self) -> tuple[int, ...]:
        return self.horizon, self.config.samples, self.task.action_size

    def _improve(
        self, previous: Tensor, nominal: Tensor, rate: Rate
    ) -> tuple[Tensor, Tensor, Scores]:
        candidates = self._reachable(previous, self._wishes(previous, nominal))
        scores = rate(candidates)
        plan = weighted_plan(scores, candidates, self.config.kappa)
        return plan[0], plan, scores

    def _wishes(self, previous: Tensor, nominal: Tensor) -> Tensor:
        """Return smoothed noisy plans: [B, 1, A], [H, B, 1, A] -> [H, B, N, A]."""
        noise, deviation = self._noise.transpose(0, 1), self.sigma * self._deviation
        if self.model.proposal is None:
            wish = torch.addcmul(nominal, noise, deviation)
            smooth = previous.expand_as(wish[0])
        else:
            wish = noise * deviation
            smooth = torch.zeros_like(wish[0])  # noise alone is smoothed, not what is proposed
        for step in wish:
            smooth = torch.lerp(smooth, step, self._share, out=step)
        return wish if self.model.proposal is None else wish.add_(nominal)


PLANNER = MPPI
