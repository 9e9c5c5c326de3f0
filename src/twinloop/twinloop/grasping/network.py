# SPDX-License-Identifier: Apache-2.0
"""The grasp quality network: a crop and two numbers in, log-odds that the grasp holds out.

In the spirit of GQ-CNN (Mahler et al. 2017, 2019), smaller, on crops of a fixed scale.
"""

from __future__ import annotations

import torch
from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor, nn

from twinloop.grasping.crops import COLUMNS, ROWS, network_input
from twinloop.grasping.gripper import FRANKA_HAND, Gripper

_NUMBER_SCALE = (0.05, 0.08)  # m


class NetworkConfig(BaseModel):
    """Sizes of the network: channels of the three stages, width of the last layers."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    channels: tuple[int, int, int] = (12, 20, 32)
    hidden: int = Field(default=48, ge=8, le=1024)


class QualityNetwork(nn.Module):
    """Log-odds that grasps hold."""

    def __init__(self, config: NetworkConfig, gripper: Gripper = FRANKA_HAND) -> None:
        super().__init__()
        self.config = config
        self.gripper = gripper
        first, second, third = config.channels
        self.features = nn.Sequential(
            nn.Conv2d(3, first, 5, stride=2, padding=2),
            nn.ReLU(),
            nn.Conv2d(first, first, 3, padding=1),
            nn.ReLU(),
            nn.Conv2d(first, second, 3, stride=2, padding=1),
            nn.ReLU(),
            nn.Conv2d(second, second, 3, padding=1),
            nn.ReLU(),
            nn.Conv2d(second, third, 3, stride=2, padding=1),
            nn.ReLU(),
            nn.Flatten(),
        )
        cells = (ROWS // 8) * (COLUMNS // 8)
        self.head = nn.Sequential(
            nn.Linear(third * cells + 2, config.hidden),
            nn.ReLU(),
            nn.Linear(config.hidden, config.hidden // 2),
            nn.ReLU(),
            nn.Linear(config.hidden // 2, 1),
        )

    def forward(self, stored: Tensor, numbers: Tensor) -> Tensor:
        """Return log-odds [N] for crops [N, 32, 48] and numbers [N, 2] of `crops`."""
        seen = network_input(stored, numbers, self.gripper)
        # Convolutions of few channels take a third less time in this layout.
        features = self.features(seen.contiguous(memory_format=torch.channels_last))
        scaled = numbers / numbers.new_tensor(_NUMBER_SCALE)
        return self.head(torch.cat([features, scaled], 1))[:, 0]
