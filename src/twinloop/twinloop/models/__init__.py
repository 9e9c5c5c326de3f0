# SPDX-License-Identifier: Apache-2.0
"""Dynamics models: one file per architecture, found by the `kind` in a model's config."""

from __future__ import annotations

import importlib
import importlib.util
from collections.abc import Mapping
from typing import Any

from torch import Tensor

from twinloop.contract import load as load_contract
from twinloop.models.actor import Actor
from twinloop.models.base import DynamicsModel, ModelInvalid
from twinloop.models.claw_valve import ClawValve
from twinloop.models.ensemble import Ensemble, EnsembleConfig
from twinloop.models.exported import OnnxPolicy, ScriptedPolicy
from twinloop.models.hand_balls import HandBalls
from twinloop.models.hand_object import HandObject
from twinloop.models.linear_latent import LinearLatent

KINDS: dict[str, type[Ensemble]] = {
    "ensemble": Ensemble,
    "hand_balls": HandBalls,
    "claw_valve": ClawValve,
    "hand_object": HandObject,
    "linear_latent": LinearLatent,
    "actor": Actor,
    "onnx": OnnxPolicy,
    "torchscript": ScriptedPolicy,
}

__all__ = [
    "KINDS",
    "DynamicsModel",
    "Ensemble",
    "HandBalls",
    "ModelInvalid",
    "from_tensors",
    "new_model",
]


def from_tensors(config: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> Ensemble:
    """Build a model of any kind from its config and tensors.

    Raises:
        ModelInvalid: the kind is unknown, or config and tensors do not make a usable model.
    """
    kind = config.get("kind")
    if not isinstance(kind, str) or kind not in KINDS:
        raise ModelInvalid(f"model kind is {kind!r}, expected one of {sorted(KINDS)}")
    return KINDS[kind].from_tensors(config, tensors)


def new_model(task: str, seed: int, **sizes: Any) -> Ensemble:
    """Return an untrained model of a task: what `new_model` of the module of the task's name makes,
    or else a plain ensemble that knows the command and keeps the goal.

    Args:
        sizes: such as `members` and `hidden`.

    Raises:
        ValueError: there is no such task.
    """
    if importlib.util.find_spec(f"{__name__}.{task}") is not None:
        model: Ensemble = importlib.import_module(f"{__name__}.{task}").new_model(seed, **sizes)
        return model
    contract = load_contract(task)
    ranges = {name: (where.start, where.stop) for name, where in contract.slices.items()}
    config = EnsembleConfig(
        observation_size=contract.observation_size,
        action_size=contract.action_size,
        known=ranges.get("command"),
        constant=ranges.get("goal"),
        **sizes,
    )
    return Ensemble(config, seed)
