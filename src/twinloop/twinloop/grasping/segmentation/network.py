# SPDX-License-Identifier: Apache-2.0
"""The segmentation network: of each cell of a canvas, is it of a thing, and where is its centre.

A small U-Net (Ronneberger et al. 2015) with the outputs of Panoptic-DeepLab (Cheng et al. 2020):
foreground, a heat-map of the things' centres, and each cell's offset from the centre of its thing.
"""

from __future__ import annotations

import itertools
from typing import NamedTuple

import torch
from pydantic import BaseModel, ConfigDict
from torch import Tensor, nn
from torch.nn import functional

from twinloop.grasping.segmentation.image import CHANNELS

FOLD = 2  # canvas cells along each side of one cell of heat and offsets
OFFSET_SCALE = 16.0  # cells


class SegmentNetworkConfig(BaseModel):
    """Sizes of the network: channels at a half, a quarter, an eighth and a sixteenth."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    channels: tuple[int, int, int, int] = (20, 32, 48, 64)


class Maps(NamedTuple):
    """What the network says of N canvases.

    Attributes:
        foreground: log-odds that a cell is of a thing [N, 240, 320].
        heat: how near a centre is [N, 120, 160], 1 at a centre.
        offsets: way to the thing's centre [N, 2, 120, 160], rows and columns, of 16 of their cells.
    """

    foreground: Tensor
    heat: Tensor
    offsets: Tensor


class _Block(nn.Sequential):
    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__(
            nn.Conv2d(inputs, outputs, 3, padding=1, bias=False),
            nn.BatchNorm2d(outputs),
            nn.ReLU(inplace=True),
            nn.Conv2d(outputs, outputs, 3, padding=1, bias=False),
            nn.BatchNorm2d(outputs),
            nn.ReLU(inplace=True),
        )


class SegmentNetwork(nn.Module):
    """Maps of canvases; two by two cells are folded into channels at first, and out at last."""

    def __init__(self, config: SegmentNetworkConfig) -> None:
        super().__init__()
        self.config = config
        widths = config.channels
        inputs = (CHANNELS * FOLD**2, *widths[:-1])
        self.down = nn.ModuleList(_Block(i, o) for i, o in zip(inputs, widths, strict=True))
        self.project = nn.ModuleList(
            nn.Conv2d(deep, wide, 1) for wide, deep in itertools.pairwise(widths)
        )
        self.up = nn.ModuleList(_Block(width, width) for width in widths[:-1])
        self.head = nn.Conv2d(widths[0], FOLD**2 + 1 + 2, 3, padding=1)

    def forward(self, seen: Tensor) -> Maps:
        """Return maps of `image.features` [N, 3, 240, 320]."""
        found = functional.pixel_unshuffle(seen, FOLD)
        # Convolutions of few channels take less time in this layout.
        found = found.contiguous(memory_format=torch.channels_last)
        passed: list[Tensor] = []
        for level, block in enumerate(self.down):
            if level:
                found = functional.max_pool2d(found, 2, ceil_mode=True)
            found = block(found)
            passed.append(found)
        for level in reversed(range(len(self.up))):
            rows, columns = passed[level].shape[2:]
            wide = functional.interpolate(self.project[level](found), scale_factor=2.0)
            found = self.up[level](passed[level] + wide[:, :, :rows, :columns])
        out = self.head(found)
        foreground = functional.pixel_shuffle(out[:, : FOLD**2], FOLD)[:, 0]
        return Maps(foreground, out[:, FOLD**2], out[:, FOLD**2 + 1 :])
