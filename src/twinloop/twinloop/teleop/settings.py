# SPDX-License-Identifier: Apache-2.0
"""How a cell is steered by hand: one file under config/teleop."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal, Self

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from twinloop.paths import share
from twinloop.robots.hand24 import HAND24
from twinloop.robots.panda import PANDA
from twinloop.yaml_files import read_yaml

Array = NDArray[np.float64]
Positive = Annotated[float, Field(gt=0.0)]
Share = Annotated[float, Field(ge=-1.0, le=1.0)]

TWIST = ("arm/x", "arm/y", "arm/z", "arm/roll", "arm/pitch", "arm/yaw")
HAND_CHOSEN, ARM_CHOSEN, GRIPPER = "hand/chosen", "arm/chosen", "gripper"
JOINT = "joint/"
ORDERS = (
    *("mode/next", "hand/next", "hand/previous", "arm/next", "arm/previous"),
    *("alpha/up", "alpha/down", "share", "stop", "resume"),
)


class _Section(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class HandSettings(_Section):
    """Of the hand.

    Attributes:
        joint_speed: greatest, rad/s; the planner's own is 1.5.
        acceleration: of a target, rad/s^2.
        lead_rad: how far a target may be ahead of what is applied.
        synergies: joints that move together; 1 is the joint's greatest speed.
    """

    joint_speed: Positive
    acceleration: Positive
    lead_rad: Positive
    synergies: dict[str, dict[str, Share]]

    @model_validator(mode="after")
    def _joints_are_there(self) -> Self:
        for name, joints in self.synergies.items():
            for joint in joints:
                if joint not in HAND24.joint_names:
                    raise ValueError(f"synergy {name}: no joint {joint!r} in {HAND24.name}")
        return self

    def directions(self) -> dict[str, Array]:
        """Return the motions by name: [24] each, shares of the greatest speed."""
        found = {}
        for name, joints in self.synergies.items():
            found[f"hand/{name}"] = np.array([joints.get(j, 0.0) for j in HAND24.joint_names])
        return found


class ArmSettings(_Section):
    """Of the arm.

    Attributes:
        frame: that `arm/x` to `arm/yaw` are along: the arm's base, or the tool.
        linear_speed, angular_speed: of the tool, m/s, rad/s.
        joint_speed, acceleration: of each joint at most, rad/s, rad/s^2.
        slow_at_m, stop_at_m: distance to what may not be touched from which on the arm moves more
            slowly towards it, and where it stands.
        renew_s: between two trajectories; each comes to rest by itself.
        cruise_s: for how long a trajectory moves on before it does.
    """

    frame: Literal["base", "tool"]
    linear_speed: Positive
    angular_speed: Positive
    joint_speed: Positive
    acceleration: Positive
    slow_at_m: Positive
    stop_at_m: Positive
    renew_s: Positive
    cruise_s: Annotated[float, Field(gt=0.0, le=0.1)]

    @model_validator(mode="after")
    def _distances_are_in_order(self) -> Self:
        if self.stop_at_m >= self.slow_at_m:
            raise ValueError(
                f"stop_at_m is {self.stop_at_m}, expected less than slow_at_m, {self.slow_at_m}"
            )
        return self


class GripperSettings(_Section):
    """Of the gripper: width between the fingers when open and closed, m, and its force, N."""

    open_m: Positive
    closed_m: Annotated[float, Field(ge=0.0)]
    effort_n: Positive


class ModeSettings(_Section):
    """What the axes and buttons of a joystick do in a mode: motions and orders by number."""

    axes: dict[int, dict[str, Share]] = {}
    buttons: dict[int, dict[str, Share]] = {}


class JoystickSettings(_Section):
    """Of a joystick.

    Attributes:
        dead_man: number of its button.
        buttons: orders that work in each mode.
        modes: by name, in the order in which `mode/next` goes through them.
    """

    dead_man: Annotated[int, Field(ge=0, lt=64)]
    buttons: dict[int, str]
    modes: Annotated[dict[str, ModeSettings], Field(min_length=1)]


class KeyboardSettings(_Section):
    """Of a keyboard, or of the page's buttons.

    Attributes:
        pulse_s: how long a key moves without being repeated.
        linger_s: how long the dead-man counts as held after the last key: between the first press
            and its repetition, or two keys.
        keys: the motion or order of each key, `-` before it for the other way.
    """

    pulse_s: Positive
    linger_s: Positive
    keys: dict[str, str]


class TeleopSettings(_Section):
    """All of it; `rate_hz` of the pilot's commands, `timeout_s` of a device's silence."""

    rate_hz: Annotated[float, Field(ge=20.0, le=200.0)]
    timeout_s: Annotated[float, Field(ge=0.02, le=0.1)]
    alpha_step: Annotated[float, Field(gt=0.0, le=1.0)]
    hand: HandSettings
    arm: ArmSettings
    gripper: GripperSettings
    joystick: JoystickSettings
    keyboard: KeyboardSettings

    @model_validator(mode="after")
    def _names_are_known(self) -> Self:
        known = self.names()
        told = [name.removeprefix("-") for name in self.keyboard.keys.values()]
        told += self.joystick.buttons.values()
        for mode in self.joystick.modes.values():
            for table in (mode.axes, mode.buttons):
                told += [name for motions in table.values() for name in motions]
        unknown = sorted(set(told) - known)
        if unknown:
            raise ValueError(f"no motion or order {unknown[0]!r}; there are {sorted(known)}")
        return self

    def names(self) -> set[str]:
        """Return every motion and order that there is."""
        joints = (*HAND24.joint_names, *PANDA.joint_names)
        return {
            *(f"hand/{name}" for name in self.hand.synergies),
            *(JOINT + name for name in joints),
            *TWIST,
            *ORDERS,
            *(HAND_CHOSEN, ARM_CHOSEN, GRIPPER),
        }


def load_settings(path: Path | str | None = None) -> TeleopSettings:
    """Read a file; default: config/teleop/cell.yaml.

    Raises:
        ValueError: it is not as it should be; names the file, what is wrong and what was expected.
        OSError: it cannot be read.
    """
    path = share("config", "teleop", "cell.yaml") if path is None else Path(path).expanduser()
    try:
        return TeleopSettings.model_validate(read_yaml(path))
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"])) or "it"
        raise ValueError(f"{path}: {where}: {first['msg']}") from error
