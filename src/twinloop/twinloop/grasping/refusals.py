# SPDX-License-Identifier: Apache-2.0
"""Why no grasp is planned: each reason has a name that clients can branch on."""

from __future__ import annotations

import enum


class Reason(enum.StrEnum):
    """Names of refusals, as services and actions tell them."""

    NO_IMAGE = "no_image"
    NO_INTRINSICS = "no_intrinsics"
    WRONG_INTRINSICS = "wrong_intrinsics"
    WRONG_ENCODING = "wrong_encoding"
    BAD_IMAGE = "bad_image"
    BAD_MASK = "bad_mask"
    ALL_HOLES = "all_holes"
    NO_SUPPORT = "no_support"
    EMPTY_SCENE = "empty_scene"
    NO_GRASP = "no_grasp"


class GraspRefused(ValueError):
    """No grasp is planned; `reason` names why, the message says what was found and expected."""

    def __init__(self, reason: Reason, message: str) -> None:
        super().__init__(message)
        self.reason = reason
