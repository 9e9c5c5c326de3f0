# SPDX-License-Identifier: Apache-2.0
"""The newest command of a pilot who shares a robot with a planner, while it is fresh."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from twinloop.contract import Contract
from twinloop.contract.sources import extract
from twinloop.contract.spec import Channel

TOPIC = "pilot_command"
FRESH_S = 0.1  # a pilot says what he wants twenty times a second or more


class PilotCommand:
    """Joint targets as a pilot's messages give them, in the contract's order.

    Freshness is told by the steady clock at arrival, as that of all watchdogs: a pilot who has let
    go, or whose messages are lost, is not obeyed any longer, whatever simulated time does.
    """

    def __init__(self, contract: Contract) -> None:
        action = contract.action
        self._channel = Channel(
            name="command",
            topic=TOPIC,
            type=action.type,
            field="positions",
            elements=action.elements,
            unit=action.unit,
            max_age_s=FRESH_S,
        )
        self._targets: Tensor | None = None
        self._arrived_s = 0.0

    def feed(self, message: Any, arrived_s: float) -> None:
        """Take a message that arrived at a time of the steady clock.

        Raises:
            MalformedMessage: it has not one point, lacks joints, or a target is not finite; then
                nothing is taken.
        """
        targets = extract(self._channel, message)
        self._targets = torch.from_numpy(targets).float()
        self._arrived_s = arrived_s

    def is_fresh(self, now_s: float) -> bool:
        """Whether somebody commands at a time of the steady clock."""
        return self._targets is not None and now_s - self._arrived_s <= FRESH_S

    def targets(self, now_s: float) -> Tensor | None:
        """Return what is commanded [1, A], None where that is nothing."""
        if self._targets is None or not self.is_fresh(now_s):
            return None
        return self._targets[None]
