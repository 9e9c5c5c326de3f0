# SPDX-License-Identifier: Apache-2.0
"""Dynamics models: one file per architecture, found by the `kind` in a model's config."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor

from twinloop.models.base import DynamicsModel, ModelInvalid
from twinloop.models.claw_valve import ClawValve
from twinloop.models.ensemble import Ensemble
from twinloop.models.hand_balls import HandBalls

KINDS: dict[str, type[Ensemble]] = {
    "ensemble": Ensemble,
    "hand_balls": HandBalls,
    "claw_valve": ClawValve,
}

__all__ = ["KINDS", "DynamicsModel", "Ensemble", "HandBalls", "ModelInvalid", "from_tensors"]


def from_tensors(config: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> Ensemble:
    """Build a model of any kind from its config and tensors.

    Raises:
        ModelInvalid: the kind is unknown, or config and tensors do not make a usable model.
    """
    kind = config.get("kind")
    if kind not in KINDS:
        raise ModelInvalid(f"model kind is {kind!r}, expected one of {sorted(KINDS)}")
    return KINDS[kind].from_tensors(config, tensors)
