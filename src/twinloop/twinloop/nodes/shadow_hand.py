# SPDX-License-Identifier: Apache-2.0
"""Shadow Hand node: our topics and guard before the controllers of the hand's packages."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from twinloop.drivers.base import DriverSettings
from twinloop.drivers.hardware import robot_named
from twinloop.drivers.shadow_hand import SILENT_S, ShadowHandSettings, controllers_of
from twinloop.nodes.base import run
from twinloop.nodes.controller_link import RosControllerLink
from twinloop.nodes.joint_driver import JointDriverNode
from twinloop.nodes.parameters import ParameterRefused


class ShadowHandNode(JointDriverNode):
    """Drives a hand that speaks ROS, and nothing else that a hardware file may name."""

    parameters = tuple(
        replace(spec, default=SILENT_S) if spec.name == "silent_s" else spec
        for spec in JointDriverNode.parameters
    )

    def __init__(self) -> None:
        super().__init__("shadow_hand")

    def driver_parts(self, robot: str, settings: DriverSettings) -> dict[str, Any]:
        if not isinstance(settings, ShadowHandSettings):
            raise ParameterRefused(
                f"parameter robot is {robot!r}, whose driver is {settings.driver!r}; expected one "
                "with the driver 'shadow_hand'"
            )
        link = RosControllerLink(
            f"{self.get_name()}_link",
            settings.namespace,
            settings.interface,
            settings.command_topic,
            list(controllers_of(robot_named(robot), settings)),
        )
        ours = self.resolve_topic_name("joint_states")
        if ours == link.joint_states:
            raise ParameterRefused(
                f"this node and the hand both tell joints on {ours}: run the node in a namespace "
                "of its own, with namespace:=cell say"
            )
        return {"link": link}


def main() -> None:
    run(ShadowHandNode)
