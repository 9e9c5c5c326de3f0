# SPDX-License-Identifier: Apache-2.0
"""The sets that objects of the grasping twin are in, as commands name them."""

from __future__ import annotations

import enum


class Split(enum.StrEnum):
    """Objects, apart from each other."""

    train = "train"
    val = "val"
    test = "test"
    adversarial = "adversarial"
