# SPDX-License-Identifier: Apache-2.0
"""Trains the quality network on samples of the twin."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from twinloop.grasping.data import Samples
from twinloop.grasping.network import NetworkConfig, QualityNetwork

_GOOD = 0.5  # a robust quality above counts as good in figures


@dataclass(frozen=True)
class TrainingSettings:
    """How it is trained.

    Attributes:
        epochs: passes over the data.
        batch: samples of a step.
        rate: greatest learning rate; it rises for a twentieth of the steps and falls by a cosine.
        weight_decay: of AdamW (Loshchilov & Hutter 2019).
        most_s: ends the training early, s; 0: never.
    """

    epochs: int = 4
    batch: int = 128
    rate: float = 2e-3
    weight_decay: float = 1e-3
    most_s: float = 0.0


def train(
    samples: Samples,
    settings: TrainingSettings,
    seed: int,
    config: NetworkConfig | None = None,
    say: Callable[[int, int, float], None] = lambda *_: None,
) -> QualityNetwork:
    """Return a network that was trained on samples; equal seeds give equal networks.

    Crops are mirrored along and across the grasp, which changes no grasp's worth, and heights are
    shifted a little. The loss is the cross-entropy to the robust quality.

    Args:
        say: is told the step, how many there are, and the loss.
    """
    torch.manual_seed(seed)
    generator = torch.Generator().manual_seed(seed)
    network = QualityNetwork(config or NetworkConfig()).train()
    optimiser = torch.optim.AdamW(
        network.parameters(), settings.rate, weight_decay=settings.weight_decay
    )
    steps = max(settings.epochs * len(samples) // settings.batch, 1)
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimiser, settings.rate, total_steps=steps + 1, pct_start=0.05
    )
    began_s = time.monotonic()
    loss_of = nn.BCEWithLogitsLoss()
    order = torch.randperm(len(samples), generator=generator)
    place = 0
    for step in range(steps):
        if place + settings.batch > len(order):
            order, place = torch.randperm(len(samples), generator=generator), 0
        chosen = order[place : place + settings.batch]
        place += settings.batch
        crops, numbers = _varied(samples.crops[chosen], samples.numbers[chosen], generator)
        loss = loss_of(network(crops, numbers), samples.labels[chosen])
        optimiser.zero_grad(set_to_none=True)
        loss.backward()
        optimiser.step()
        schedule.step()
        say(step + 1, steps, float(loss.detach()))
        if settings.most_s and time.monotonic() - began_s > settings.most_s:
            break
    return network.eval()


def _varied(crops: Tensor, numbers: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    count = len(crops)
    for axis in (1, 2):
        turned = torch.rand(count, generator=generator) < 0.5
        crops = torch.where(turned[:, None, None], crops.flip(axis), crops)
    # Two steps of 0.6 mm: what a bias of the plane does.
    shift = torch.randint(-2, 3, (count, 1, 1), generator=generator)
    shifted = (crops.int() + shift).clamp(0, 254).to(torch.uint8)
    return torch.where(crops == 255, crops, shifted), numbers


def predict(network: QualityNetwork, samples: Samples, batch: int = 1024) -> NDArray[np.float64]:
    """Return log-odds [N] of samples."""
    found = []
    with torch.inference_mode():
        for first in range(0, len(samples), batch):
            part = slice(first, first + batch)
            found.append(network(samples.crops[part], samples.numbers[part]))
    return torch.cat(found).double().numpy()


def figures(odds: NDArray[np.float64], labels: NDArray[np.float64]) -> dict[str, float]:
    """Return what held-out samples say: cross-entropy, average precision, precision of the best.

    Average precision is that of grasps whose robust quality exceeds a half.
    """
    probability = 1 / (1 + np.exp(-np.clip(odds, -30, 30)))
    probability = np.clip(probability, 1e-6, 1 - 1e-6)
    entropy = -(labels * np.log(probability) + (1 - labels) * np.log(1 - probability)).mean()
    order = np.argsort(-odds)
    good = labels[order] > _GOOD
    precision = np.cumsum(good) / np.arange(1, len(good) + 1)
    best = max(len(good) // 50, 1)
    return {
        "cross_entropy": float(entropy),
        "good_share": float(good.mean()),
        "average_precision": float(precision[good].mean()) if good.any() else 0.0,
        "best_2_percent_good": float(good[:best].mean()),
    }
