# SPDX-License-Identifier: Apache-2.0
"""Path integral control on a few knots over the horizon, with interpolation between them.

Noise at three or four knots makes plans that are smooth and spans fewer dimensions than noise at
every step. The idea is that of predictive sampling in MJPC (arXiv 2212.00541) and judo (arXiv
2506.17184), with splines, and of kernel-interpolated MPPI in pytorch_mppi, with kernels.
"""

from __future__ import annotations

from typing import Literal

import torch
from pydantic import Field, model_validator
from torch import Tensor

from twinloop.planners.sampling import Rate, SamplingPlanner, Scores, weighted_plan
from twinloop.planners.settings import SamplingConfig


class KnotsConfig(SamplingConfig):
    """Settings of the sampler."""

    kappa: float = Field(gt=0)  # sharpness of the weights, per unit of return
    knots: int = Field(ge=2, le=50)
    interpolation: Literal["linear", "kernel"]

    @model_validator(mode="after")
    def _knots_fit(self) -> KnotsConfig:
        if self.knots > self.horizon:
            raise ValueError(f"{self.knots} knots, expected at most the horizon, {self.horizon}")
        return self


class Knots(SamplingPlanner[KnotsConfig]):
    """Smooth noise about the last plan, or about a proposal, and a mean weighted by return."""

    Config = KnotsConfig

    def _set_up(self) -> None:
        c = self.config
        self._basis = basis(c.horizon, c.knots, c.interpolation).to(self.device)
        self._deviation = self._scale.repeat(c.samples, 1)  # [N, A]
        self._deviation[0] = 0.0  # the plan itself is always among the candidates

    @property
    def _noise_shape(self) -> tuple[int, ...]:
        return self.config.knots, self.config.samples, self.task.action_size

    def _improve(
        self, previous: Tensor, nominal: Tensor, rate: Rate
    ) -> tuple[Tensor, Tensor, Scores]:
        at_knots = self._noise * (self.sigma * self._deviation)  # [B, K, N, A]
        noise = torch.einsum("hk,bkna->hbna", self._basis, at_knots)
        candidates = self._reachable(previous, nominal + noise)
        scores = rate(candidates)
        plan = weighted_plan(scores, candidates, self.config.kappa)
        return plan[0], plan, scores


def basis(horizon: int, knots: int, interpolation: str) -> Tensor:
    """Return the weights of evenly spread knots at every step [H, K].

    `kernel` is the posterior mean of a Gaussian process with a squared-exponential kernel as wide
    as the knots are apart.
    """
    step = torch.arange(horizon, dtype=torch.float64)
    at = torch.linspace(0, horizon - 1, knots, dtype=torch.float64)
    apart = (step[:, None] - at) * (knots - 1) / max(horizon - 1, 1)
    if interpolation == "linear":
        return (1 - apart.abs()).clamp(min=0).float()
    between = torch.arange(knots, dtype=torch.float64)
    gram = torch.exp(-0.5 * (between[:, None] - between).square())
    return torch.linalg.solve(gram, torch.exp(-0.5 * apart.square()), left=False).float()


PLANNER = Knots
