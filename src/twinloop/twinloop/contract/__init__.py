# SPDX-License-Identifier: Apache-2.0
"""Vectors <-> topics, with names and units. `load("baoding")` gives a task's contract.

A contract is one module beside this one, named after its task, with a function `contract()`.
"""

from __future__ import annotations

import importlib
import pkgutil

from twinloop.contract.assemble import Assembler, Observation, ObservationUnavailable
from twinloop.contract.sources import MalformedMessage, stamp_of
from twinloop.contract.spec import Action, Channel, Contract

__all__ = [
    "Action",
    "Assembler",
    "Channel",
    "Contract",
    "MalformedMessage",
    "Observation",
    "ObservationUnavailable",
    "available",
    "load",
    "stamp_of",
]

_MACHINERY = {"arm_cell", "assemble", "hand_cell", "poses", "sources", "spec"}


def available() -> list[str]:
    """Names of the contracts in this folder."""
    return sorted(m.name for m in pkgutil.iter_modules(__path__) if m.name not in _MACHINERY)


def load(name: str) -> Contract:
    """Return the contract of a task.

    Raises:
        ValueError: there is none of that name.
    """
    if name not in available():
        raise ValueError(f"no contract {name!r}; there are {available()}")
    result = importlib.import_module(f"{__name__}.{name}").contract()
    assert isinstance(result, Contract)
    return result
