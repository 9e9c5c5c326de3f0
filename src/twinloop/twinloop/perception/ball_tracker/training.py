# SPDX-License-Identifier: Apache-2.0
"""Trains the network on labelled windows, on one core, from a seed."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from twinloop.perception.ball_tracker.augment import augment
from twinloop.perception.ball_tracker.data import MARGIN, Samples
from twinloop.perception.ball_tracker.eyes import WINDOW
from twinloop.perception.ball_tracker.network import (
    MASK_STRIDE,
    VOTE_STRIDE,
    Maps,
    NetworkConfig,
    VoteNetwork,
    read,
    standardised,
)

_FIRST_BALL_LABEL = 2
_SHARES = {"classes": 2.0, "votes": 1.0, "centres": 1.0, "disparities": 2.0}  # of the loss
_WARM_UP = 0.05  # share of the training


@dataclass(frozen=True)
class TrainingSettings:
    """How long and how fast the network learns.

    Attributes:
        windows: shown in all, counting repetitions.
        batch: windows a step, of half as many pairs.
        rate: largest learning rate; it warms up and falls along a cosine.
        weight_decay: of AdamW.
        average: share of the past that the average of the weights keeps in a step.
    """

    windows: int = 300_000
    batch: int = 32
    rate: float = 3e-3
    weight_decay: float = 1e-3
    average: float = 0.998

    def __post_init__(self) -> None:
        if self.windows < self.batch or self.batch < 2 or self.batch % 2:
            raise ValueError(
                f"{self.windows} windows in batches of {self.batch}: expected at least one batch "
                "of whole pairs"
            )


@dataclass(frozen=True)
class Targets:
    """What the network should say of N windows.

    Attributes:
        classes: shares of `CLASSES` [N, 3, H/2, W/2].
        share: of each cell that shows each ball [N, 2, H/4, W/4].
        offset: from each cell's middle to that of each ball's outline [N, 2, 2, H/4, W/4], pixels.
        radius: apparent [N, 2], pixels.
    """

    classes: Tensor
    share: Tensor
    offset: Tensor
    radius: Tensor


def targets(labels: Tensor, balls: Tensor) -> Targets:
    """Make targets of labels [N, H, W] and balls (x, y, r) [N, 2, 3] in the same pixels."""
    height, width = labels.shape[1:]
    is_ball = labels >= _FIRST_BALL_LABEL
    planes = torch.stack([labels == 0, labels == 1, is_ball], dim=1).float()
    each = torch.stack([labels == _FIRST_BALL_LABEL, labels == _FIRST_BALL_LABEL + 1], dim=1)
    middle = 0.5 * (VOTE_STRIDE - 1)
    x = torch.arange(0, width, VOTE_STRIDE) + middle
    y = torch.arange(0, height, VOTE_STRIDE) + middle
    cells = torch.stack([x.expand(len(y), -1), y[:, None].expand(-1, len(x))])
    return Targets(
        functional.avg_pool2d(planes, MASK_STRIDE),
        functional.avg_pool2d(each.float(), VOTE_STRIDE),
        balls[:, :, :2, None, None] - cells,
        # A ball that is behind the camera has no cell that counts.
        balls[:, :, 2].clamp(min=1.0),
    )


def loss(maps: Maps, wanted: Targets) -> dict[str, Tensor]:
    """Return the parts of the loss.

    `classes` is the cross entropy. `votes` is the negative log likelihood of every vote under a
    Laplace distribution of the scale that the network tells. `centres` is the same of the weighted
    mean of a ball's votes, which is what the tracker uses, and `disparities` is the mean difference
    of its error along x between the eyes of a pair, which is what depth is made of [pixels].
    """
    log_classes = functional.log_softmax(maps.logits, dim=1)
    classes = -(wanted.classes * log_classes).sum(dim=1).mean()

    error = maps.offset[:, None] - wanted.offset  # [N, 2 balls, 2, h, w]
    ratio = torch.log(maps.radius / wanted.radius[:, :, None, None])[:, :, None]
    error = torch.cat([error, ratio], dim=2)  # [N, 2, 3, h, w]
    log_scale = maps.log_scale[:, None]
    scale = torch.exp(log_scale)
    share = wanted.share[:, :, None]
    total = share.sum().clamp(min=1.0)
    votes = (share * (error.abs() / scale + log_scale)).sum() / total

    weight = share / scale.square()
    weight = weight / weight.sum(dim=(3, 4), keepdim=True).clamp(min=1e-9)
    off = (weight * error).sum(dim=(3, 4))
    expected = (weight * scale).sum(dim=(3, 4))
    area = share.sum(dim=(3, 4))
    counts = (area > 1.0).float()
    centres = counts * (off.abs() / expected.clamp(min=1e-3) + torch.log(expected.clamp(min=1e-3)))
    across = off[:, :, 0].unflatten(0, (-1, 2))
    both = counts[:, :, 0].unflatten(0, (-1, 2)).prod(dim=1)
    disparities = both * (across[:, 0] - across[:, 1]).abs()
    return {
        "classes": classes,
        "votes": votes,
        "centres": centres.sum() / counts.sum().clamp(min=1.0),
        "disparities": disparities.sum() / both.sum().clamp(min=1.0),
    }


def train(
    samples: Samples,
    settings: TrainingSettings,
    seed: int,
    config: NetworkConfig | None = None,
    say: Callable[[int, int, dict[str, float]], None] | None = None,
) -> VoteNetwork:
    """Train a network; equal arguments on one thread give equal weights.

    Args:
        say: told the step, their number and the mean losses since it was told last.

    Raises:
        RuntimeError: the loss is no longer finite.
    """
    torch.manual_seed(seed)
    network = VoteNetwork(config).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    average = torch.optim.swa_utils.AveragedModel(
        network,
        multi_avg_fn=torch.optim.swa_utils.get_ema_multi_avg_fn(settings.average),
        use_buffers=True,
    )
    optimizer = torch.optim.AdamW(
        network.parameters(), lr=settings.rate, weight_decay=settings.weight_decay
    )
    steps = settings.windows // settings.batch
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: _rate(step / steps))
    sums: dict[str, float] = {}
    told, began = 0, time.monotonic()
    for step, (windows, wanted) in enumerate(_batches(samples, settings, steps, seed), start=1):
        with torch.autocast("cpu", dtype=torch.bfloat16):
            logits, votes = network(windows)
        parts = loss(read(logits, votes), wanted)
        total = sum((_SHARES[name] * part for name, part in parts.items()), torch.zeros(()))
        if not torch.isfinite(total):
            raise RuntimeError(f"the loss is {float(total)} at step {step} of {steps}")
        optimizer.zero_grad(set_to_none=True)
        total.backward()
        torch.nn.utils.clip_grad_norm_(network.parameters(), 5.0)
        optimizer.step()
        schedule.step()
        average.update_parameters(network)
        for name, value in parts.items():
            sums[name] = sums.get(name, 0.0) + float(value.detach())
        if say is not None and (step % 100 == 0 or step == steps):
            count = step - told
            means = {name: value / count for name, value in sums.items()}
            say(step, steps, means | {"elapsed_s": time.monotonic() - began})
            sums, told = {}, step
    result = average.module
    assert isinstance(result, VoteNetwork)
    return result.eval()


def _rate(done: float) -> float:
    """Return the learning rate after a share of the training, in units of the largest."""
    return min(done / _WARM_UP + 0.01, 0.5 + 0.5 * math.cos(math.pi * min(done, 1.0)) + 1e-3)


def _batches(
    samples: Samples, settings: TrainingSettings, steps: int, seed: int
) -> Iterator[tuple[Tensor, Targets]]:
    """Yield shifted, changed windows and what is to be said of them."""
    rng = np.random.default_rng([seed, 7])
    noise = torch.Generator().manual_seed(seed)
    order = np.empty(0, dtype=np.int64)
    width, height = WINDOW
    pairs = settings.batch // 2
    for _ in range(steps):
        while len(order) < pairs:
            order = np.concatenate([order, rng.permutation(len(samples))])
        chosen, order = np.sort(order[:pairs]), order[pairs:]
        eyes = np.stack([np.repeat(chosen, 2), np.tile([0, 1], pairs)], axis=-1)
        shift = rng.integers(0, 2 * MARGIN + 1, (2 * pairs, 2))
        cuts = [
            (index, eye, slice(y, y + height), slice(x, x + width))
            for (index, eye), (x, y) in zip(eyes, shift, strict=True)
        ]
        images = np.stack([samples.images[cut] for cut in cuts])
        labels = np.stack([samples.labels[cut] for cut in cuts])
        balls = samples.balls[eyes[:, 0], eyes[:, 1]]
        balls[..., :2] -= shift[:, None]
        seen = torch.from_numpy(labels)
        windows = augment(torch.from_numpy(images).permute(0, 3, 1, 2), seen, noise)
        yield standardised(windows), targets(seen, torch.from_numpy(balls))


def describe(parts: dict[str, float]) -> str:
    """Return a line about the losses, for progress."""
    return ", ".join(f"{name} {parts[name]:.3f}" for name in _SHARES)
