# SPDX-License-Identifier: Apache-2.0
"""Dynamixel node: the joint driver node under the name of its bus."""

from __future__ import annotations

from twinloop.drivers.base import JointDriver
from twinloop.nodes.base import run
from twinloop.nodes.joint_driver import JointDriverNode
from twinloop.nodes.parameters import ParameterRefused


class DynamixelNode(JointDriverNode):
    """Drives servos, and nothing else that a hardware file may name."""

    def __init__(self) -> None:
        super().__init__("dynamixel")

    def make_driver(self) -> JointDriver:
        driver = super().make_driver()
        if type(driver).__module__ != "twinloop.drivers.dynamixel":
            raise ParameterRefused(
                f"parameter robot is {driver.robot.name!r}, which is driven as {driver.name}; "
                "expected one on a Dynamixel bus"
            )
        return driver


def main() -> None:
    run(DynamixelNode)
