# SPDX-License-Identifier: Apache-2.0
"""Symmetries of tasks: maps from what happened to what would as well have happened."""

from __future__ import annotations

from typing import NamedTuple, Protocol, runtime_checkable

from torch import Tensor


class Equivalent(NamedTuple):
    """A symmetry: observations and actions times these are as likely, and earn as much."""

    observation: Tensor  # [O, O], applied to columns
    action: Tensor  # [A, A]


@runtime_checkable
class HasEquivalents(Protocol):
    """A task that names its symmetries, the identity included."""

    equivalents: tuple[Equivalent, ...]
