# SPDX-License-Identifier: Apache-2.0
"""Changes what cameras and lamps could have changed: colours, light, sharpness, noise."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

_PAINT_LEVEL, _PAINT_TINT = 0.45, 0.2


def augment(windows: Tensor, labels: Tensor, rng: torch.Generator) -> Tensor:
    """Return changed bytes of windows [2 N, 3, H, W] with labels [2 N, H, W], each pair in its way.

    The eyes of a pair, which follow each other, see the same light through like lenses; their
    noise differs.
    """
    pairs = len(windows) // 2
    x = windows.float() / 255.0

    def uniform(low: float, high: float, *shape: int) -> Tensor:
        drawn = low + (high - low) * torch.rand(pairs, *shape, 1, 1, generator=rng)
        return drawn.repeat_interleave(2, dim=0)

    def normal(deviation: float, *shape: int) -> Tensor:
        drawn = deviation * torch.randn(pairs, *shape, 1, 1, generator=rng)
        return drawn.repeat_interleave(2, dim=0)

    # Hues that were never drawn: channels change places, in one pair of two.
    orders = torch.stack([torch.randperm(3, generator=rng) for _ in range(pairs)])
    kept = torch.rand(pairs, 1, generator=rng) < 0.5
    orders = torch.where(kept, torch.arange(3), orders).repeat_interleave(2, dim=0)
    x = torch.take_along_dim(x, orders[:, :, None, None], dim=1)
    x = _repainted(x, labels, rng)
    # Towards grey, as cameras and light differ in how much colour they leave.
    x = torch.lerp(x.mean(dim=1, keepdim=True), x, uniform(0.4, 1.2, 1))
    x = x.clamp(0.0, 1.0) ** torch.exp(normal(0.25, 1))
    x = x * torch.exp(normal(0.2, 1) + normal(0.1, 3)) + normal(0.04, 1)
    x = _blurred(x, uniform(0.0, 1.0, 1)[:, :, 0, 0])
    level = uniform(0.0, 0.018, 1)
    shot = uniform(0.0, 0.018, 1) * x.clamp(0.0, 1.0).sqrt()
    x = x + (level + shot) * _noise(x.shape, rng)
    return (255.0 * x).round().clamp(0.0, 255.0).byte()


def _repainted(x: Tensor, labels: Tensor, rng: torch.Generator) -> Tensor:
    """Make hand, balls and background darker, brighter or of another tint, each on its own.

    What was drawn dark on bright is then as often bright on dark, or hardly to be told apart.
    """
    pairs = len(x) // 2
    kinds = 4
    level = _PAINT_LEVEL * torch.randn(pairs, kinds, 1, generator=rng)
    tint = _PAINT_TINT * torch.randn(pairs, kinds, 3, generator=rng)
    kept = torch.rand(pairs, 1, 1, generator=rng) < 0.3
    gain = torch.where(kept, torch.ones(()), torch.exp(level + tint)).repeat_interleave(2, dim=0)
    gains = torch.take_along_dim(gain.transpose(1, 2), labels.flatten(1)[:, None].long(), dim=2)
    return x * gains.view_as(x)


def _blurred(x: Tensor, deviation: Tensor) -> Tensor:
    """Blur windows by Gaussians of deviations [N, 1], pixels."""
    count, _, height, width = x.shape
    deviation = deviation.clamp(min=1e-3)
    taps = torch.exp(-0.5 * (torch.arange(-2, 3) / deviation) ** 2)
    taps = (taps / taps.sum(dim=1, keepdim=True)).repeat_interleave(3, dim=0)
    flat = functional.pad(x.reshape(1, 3 * count, height, width), (2, 2, 2, 2), mode="replicate")
    flat = functional.conv2d(flat, taps[:, None, None, :], groups=3 * count)
    flat = functional.conv2d(flat, taps[:, None, :, None], groups=3 * count)
    return flat.reshape(x.shape)


def _noise(shape: torch.Size, rng: torch.Generator) -> Tensor:
    """Return normal numbers, drawn for one window and shifted for each other one."""
    drawn = torch.randn(shape[1:], generator=rng).flatten()
    offsets = torch.randint(len(drawn), (shape[0],), generator=rng)
    return torch.stack([drawn.roll(int(offset)) for offset in offsets]).reshape(shape)
