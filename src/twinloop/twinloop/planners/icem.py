# SPDX-License-Identifier: Apache-2.0
"""The sample-efficient cross-entropy method, iCEM (Pinneri et al., arXiv 2008.06389).

Each call refines a Gaussian about the last plan in a few iterations: noise that is coloured over
time, elites that are kept between iterations and, shifted, between calls, fewer samples in each
iteration, and momentum. The best sequence that was tried is executed.
"""

from __future__ import annotations

import torch
from pydantic import Field, model_validator
from torch import Tensor

from twinloop.planners.sampling import Rate, SamplingPlanner, Scores
from twinloop.planners.settings import SamplingConfig


class ICEMConfig(SamplingConfig):
    """Settings of the sampler; `samples` are those drawn in the first iteration."""

    iterations: int = Field(ge=1, le=20)
    elites: int = Field(ge=2)
    keep_share: float = Field(ge=0, le=1)  # of the elites, into the next iteration and call
    decay: float = Field(ge=1)  # by which the samples of every next iteration are divided
    colour: float = Field(ge=0)  # exponent of the noise's power spectrum, f^-colour; 0: white
    momentum: float = Field(ge=0, lt=1)  # share of the former mean and deviation

    @model_validator(mode="after")
    def _elites_fit(self) -> ICEMConfig:
        if self.elites > self.samples:
            raise ValueError(f"{self.elites} elites of {self.samples} samples")
        return self


class ICEM(SamplingPlanner[ICEMConfig]):
    """The planner; about a proposal it starts from what is proposed and a small deviation."""

    Config = ICEMConfig

    def _set_up(self) -> None:
        c = self.config
        # Never fewer than twice the elites (section 3.2), nor more than are drawn at first.
        least = min(2 * c.elites, c.samples)
        self._drawn = [max(int(c.samples / c.decay**i), least) for i in range(c.iterations)]
        self._kept = round(c.keep_share * c.elites)
        self._colour = colouring(c.horizon, c.colour).to(self.device)

    @property
    def samples(self) -> int:
        # Beside what is drawn, each iteration tries what was kept and the mean itself.
        return sum(self._drawn) + self.config.iterations * (self._kept + 1)

    @property
    def _noise_shape(self) -> tuple[int, ...]:
        return self.horizon, sum(self._drawn), self.task.action_size

    def _carried(self, batch: int) -> dict[str, Tensor]:
        carried = super()._carried(batch)
        shape = (self.horizon, batch, self._kept, self.task.action_size)
        return carried | {"elites": torch.zeros(shape, device=self.device)}

    def _improve(
        self, previous: Tensor, nominal: Tensor, rate: Rate
    ) -> tuple[Tensor, Tensor, Scores]:
        c = self.config
        noise = torch.einsum("hf,bfna->hbna", self._colour, self._noise)
        mean = nominal
        deviation = (self.sigma * self._scale).expand_as(nominal)
        kept = torch.where(self._is_fresh[:, None, None], nominal, self._carry["elites"])
        tried, scored = [], []
        for fresh in noise.split(self._drawn, dim=2):
            wishes = torch.cat([mean, kept, mean + deviation * fresh], dim=2)
            tried.append(self._reachable(previous, wishes))
            scored.append(rate(tried[-1]))
            top = scored[-1].value.topk(c.elites, dim=1)
            elites = _taken(tried[-1], top.indices)
            mean, deviation = _refined(
                mean, deviation, elites, torch.isfinite(top.values), c.momentum
            )
            kept = elites[:, :, : self._kept]
        scores = Scores(
            torch.cat([s.value for s in scored], dim=1),
            torch.cat([s.spread for s in scored], dim=1),
        )
        best = _taken(torch.cat(tried, dim=2), scores.value.argmax(1, keepdim=True))
        self._carry["elites"].copy_(torch.cat([kept[1:], kept[-1:]]))
        return best[0, :, 0], mean[:, :, 0], scores


def _taken(candidates: Tensor, index: Tensor) -> Tensor:
    """Return chosen candidates: [H, B, N, A], [B, K] -> [H, B, K, A]."""
    horizon, action = candidates.shape[0], candidates.shape[3]
    return candidates.gather(2, index[None, :, :, None].expand(horizon, -1, -1, action))


def _refined(
    mean: Tensor, deviation: Tensor, elites: Tensor, is_finite: Tensor, momentum: float
) -> tuple[Tensor, Tensor]:
    """Move mean and deviation [H, B, 1, A] towards those of the finite elites [H, B, K, A].

    Where no elite is finite they stay.
    """
    count = is_finite.sum(1)[:, None, None]
    weight = is_finite[:, :, None] / count.clamp(min=1)
    center = (weight * elites).sum(2, keepdim=True)
    width = (weight * (elites - center).square()).sum(2, keepdim=True).sqrt()
    share = torch.where(count > 0, 1.0 - momentum, 0.0)
    return torch.lerp(mean, center, share), torch.lerp(deviation, width, share)


def colouring(horizon: int, exponent: float) -> Tensor:
    """Return the map [H, H] from white noise to noise of unit deviation with power f^-exponent.

    The spectrum is flat below the lowest frequency of the horizon, as in the authors' generator.
    """
    frequency = torch.fft.rfftfreq(horizon, dtype=torch.float64)
    frequency = frequency.clamp(min=1.0 / horizon)
    spectrum = torch.fft.rfft(torch.eye(horizon, dtype=torch.float64), dim=0)
    shaped = torch.fft.irfft(frequency[:, None] ** (-exponent / 2) * spectrum, n=horizon, dim=0)
    return (shaped / torch.linalg.vector_norm(shaped, dim=1, keepdim=True)).float()


PLANNER = ICEM
