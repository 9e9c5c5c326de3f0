# SPDX-License-Identifier: Apache-2.0
"""Numbers of the pick loop, read from config/grasping/picking.yaml."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from twinloop.grasping.bins import Bin, Positive
from twinloop.paths import share
from twinloop.yaml_files import read_yaml

Share = Annotated[float, Field(gt=0.0, le=1.0)]
Count = Annotated[int, Field(ge=1)]


class _Section(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class LookSettings(_Section):
    """When sights count.

    Attributes:
        unseen_s: without an image before that is a fault.
        inset_m: of the bin's walls, which are not grasped.
        least_m2: area, seen from above, of the largest thing in a bin that is not empty.
        blank_s: that things still move after the arm has gone.
        images: that are merged into one sight; stereo cameras see things that are not there in a
            single one.
    """

    unseen_s: Positive
    inset_m: Annotated[float, Field(ge=0.0)]
    least_m2: Positive
    blank_s: Annotated[float, Field(ge=0.0)]
    images: Annotated[int, Field(ge=1, le=15)] = 1


class GraspSettings(_Section):
    """How things are grasped.

    Attributes:
        beyond_tool_m: how far the finger tips reach beyond the tool centre point.
        lowest_tip_m: over the table.
        above_m: height of the tool over the table from which it goes straight down.
        effort_n: force that the fingers press with.
        close_s: after which fingers that still creep hold something, or lose it.
        avoid_m: distance kept from places that failed.
        candidates: of the planned grasps, whose ways are tried.
        down_speed, up_speed: straight, m/s.
        line_acceleration: share of the arm's.
        touch_n: force from below that ends the way down.
        touch_m: over its end, from where on a touch still lets the fingers close.
    """

    beyond_tool_m: float
    lowest_tip_m: Positive
    above_m: Positive
    effort_n: Positive
    close_s: Positive
    avoid_m: Positive
    candidates: Count
    down_speed: Positive
    up_speed: Positive
    line_acceleration: Share
    touch_n: Positive
    touch_m: Positive


class CheckSettings(_Section):
    """What tells that something is held.

    Attributes:
        least_width_m: between the fingers.
        least_weight_kg: more than the empty gripper weighed at the same height.
        settle_s, weigh_s: before and for each of the two weighings.
    """

    least_width_m: Positive
    least_weight_kg: Positive
    settle_s: Annotated[float, Field(ge=0.0)]
    weigh_s: Positive


class MoveSettings(_Section):
    """Shares of the arm's velocity and acceleration, and what is kept free.

    Attributes:
        carried_radius_m: about the tool, for what is carried.
        margin_m: to everything, on straight lines.
        overtime_s: beyond a motion's duration.
    """

    velocity: Share
    acceleration: Share
    carry_velocity: Share
    carry_acceleration: Share
    carried_radius_m: Positive
    margin_m: Positive
    plan_timeout_s: Positive
    overtime_s: Positive


class PickSettings(_Section):
    """All of config/grasping/picking.yaml.

    Attributes:
        poll_s: between two looks at what is waited for.
        tries: grasps in a row that fail, after which a bin is given up.
        source, target: the bin that is cleared, and the other one.
    """

    poll_s: Positive
    tries: Count
    source: Bin
    target: Bin
    look: LookSettings
    grasp: GraspSettings
    check: CheckSettings
    move: MoveSettings
    retries: dict[str, Annotated[int, Field(ge=0)]]


def load_settings(path: Path | None = None) -> PickSettings:
    """Read config/grasping/picking.yaml, or another file; raises ValueError naming the field."""
    path = path or share("config", "grasping", "picking.yaml")
    try:
        return PickSettings.model_validate(read_yaml(path))
    except ValidationError as error:
        raise ValueError(f"{path}: {error}") from error
