# SPDX-License-Identifier: Apache-2.0
"""The network that looks at one eye's window: what pixels show, and where their ball's middle is.

Each visible pixel of a ball votes for the middle of the ball's outline, and says how sure it is.
A vote needs to see no outline: fingers in front take votes away and bend none.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor, nn
from torch.nn import functional

CLASSES = ("background", "hand", "ball")
BACKGROUND, HAND, BALL = range(3)
MASK_STRIDE = 2
VOTE_STRIDE = 4
SIZE_MULTIPLE = 8

_OFFSET_PX = 16.0  # a network's output of 1
_RADIUS_PX = 17.0  # apparent radius at an output of 0; an output of 1 is e times that
_CONTRAST_FLOOR = 4.0  # of a window's deviation, 0 to 255: noise in the dark is not blown up
_VOTES = 6  # offset x, y; log of radius; log of scales of x, y, radius


class NetworkConfig(BaseModel):
    """Widths of the layers at strides 2, 4 and 8, and how many convolutions there are at each."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    widths: tuple[int, int, int] = (16, 32, 64)
    depths: tuple[int, int] = Field(default=(2, 4))
    kind: str = "votes/1"

    def model_post_init(self, _: Any) -> None:
        if not all(4 <= width <= 256 for width in self.widths):
            raise ValueError(f"widths are {self.widths}, expected 4 to 256")
        if not all(1 <= depth <= 8 for depth in self.depths):
            raise ValueError(f"depths are {self.depths}, expected 1 to 8")
        if self.kind != "votes/1":
            raise ValueError(f"kind is {self.kind!r}, expected 'votes/1'")


@dataclass(frozen=True)
class Maps:
    """What the network makes of N windows of H x W pixels.

    Attributes:
        logits: of `CLASSES` [N, 3, H/2, W/2].
        offset: from a cell's middle to that of its ball's outline [N, 2, H/4, W/4], pixels (x, y).
        radius: apparent radius, focal length times radius by depth [N, 1, H/4, W/4], pixels.
        log_scale: log of the mean absolute errors of x, y [pixels] and of the radius
            [part of it] that the network expects [N, 3, H/4, W/4].
    """

    logits: Tensor
    offset: Tensor
    radius: Tensor
    log_scale: Tensor


class VoteNetwork(nn.Module):
    """Convolutions at strides 2, 4 and 8 with links between equal strides."""

    def __init__(self, config: NetworkConfig | None = None) -> None:
        super().__init__()
        self.config = config or NetworkConfig()
        fine, middle, coarse = self.config.widths
        at_middle, at_coarse = self.config.depths
        self.fine = _convolution(3 * MASK_STRIDE**2, fine)
        self.middle = nn.Sequential(
            _convolution(fine, middle, 2),
            *[_convolution(middle, middle) for _ in range(at_middle)],
        )
        self.coarse = nn.Sequential(
            _convolution(middle, coarse, 2),
            *[_Residual(coarse, 2 if i % 2 else 1) for i in range(at_coarse)],
        )
        self.coarse_to_middle = nn.Conv2d(coarse, middle, 1)
        self.merged = nn.Sequential(_convolution(middle, middle), _convolution(middle, middle))
        self.votes = nn.Conv2d(middle, _VOTES, 1)
        self.middle_to_fine = nn.Conv2d(middle, fine, 1)
        self.outline = _convolution(fine, fine)
        self.classes = nn.Conv2d(fine, len(CLASSES), 1)

    def forward(self, window: Tensor) -> tuple[Tensor, Tensor]:
        """Return logits [N, 3, H/2, W/2] and raw votes [N, 6, H/4, W/4] of windows [N, 3, H, W]."""
        fine = self.fine(functional.pixel_unshuffle(window, MASK_STRIDE))
        middle = self.middle(fine)
        coarse = self.coarse_to_middle(self.coarse(middle))
        merged = self.merged(middle + _doubled(coarse))
        logits = self.classes(self.outline(fine + _doubled(self.middle_to_fine(merged))))
        return logits, self.votes(merged)


def read(logits: Tensor, votes: Tensor) -> Maps:
    """Give the network's output its units."""
    votes = votes.float()
    return Maps(
        logits.float(),
        _OFFSET_PX * votes[:, 0:2],
        _RADIUS_PX * torch.exp(votes[:, 2:3].clamp(-2.0, 2.0)),
        votes[:, 3:6].clamp(-6.0, 4.0),
    )


def standardised(window: Tensor) -> Tensor:
    """Return bytes [N, 3, H, W] as floats of zero mean and unit deviation a window."""
    values = window.float().contiguous(memory_format=torch.channels_last)
    flat = values.permute(0, 2, 3, 1).flatten(1)
    mean = flat.mean(dim=1)
    deviation = (flat.square().mean(dim=1) - mean.square()).clamp(min=0.0).sqrt()
    scale = 1.0 / (deviation + _CONTRAST_FLOOR)
    return (values - mean[:, None, None, None]) * scale[:, None, None, None]


def folded(network: VoteNetwork) -> VoteNetwork:
    """Return a copy for inference, its normalisations folded into the convolutions."""
    result = VoteNetwork(network.config)
    result.load_state_dict(network.state_dict())
    result.eval()
    for module in result.modules():
        if isinstance(module, _Convolution):
            module.fold()
    return result.to(memory_format=torch.channels_last)  # type: ignore[call-overload]


class _Convolution(nn.Module):
    """3 x 3 convolution, batch normalisation, rectifier."""

    def __init__(self, inputs: int, outputs: int, stride: int = 1, dilation: int = 1) -> None:
        super().__init__()
        self.convolution = nn.Conv2d(
            inputs, outputs, 3, stride, dilation, dilation=dilation, bias=False
        )
        self.norm: nn.Module = nn.BatchNorm2d(outputs)

    def forward(self, x: Tensor) -> Tensor:
        return functional.relu(self.norm(self.convolution(x)), inplace=True)

    def fold(self) -> None:
        assert isinstance(self.norm, nn.BatchNorm2d)
        self.convolution = nn.utils.fusion.fuse_conv_bn_eval(self.convolution, self.norm)
        self.norm = nn.Identity()


class _Residual(nn.Module):
    """A convolution whose input is added to its output."""

    def __init__(self, width: int, dilation: int) -> None:
        super().__init__()
        self.body = _Convolution(width, width, dilation=dilation)

    def forward(self, x: Tensor) -> Tensor:
        result: Tensor = x + self.body(x)
        return result


def _convolution(inputs: int, outputs: int, stride: int = 1) -> nn.Module:
    return _Convolution(inputs, outputs, stride)


def _doubled(x: Tensor) -> Tensor:
    return functional.interpolate(x, scale_factor=2.0, mode="nearest")
