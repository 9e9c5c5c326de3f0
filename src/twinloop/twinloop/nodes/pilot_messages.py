# SPDX-License-Identifier: Apache-2.0
"""What a keyboard or the page says of a pilot's hands, as a message."""

from __future__ import annotations

from rclpy.node import Node

from twinloop.teleop.pilot import Wish
from twinloop_interfaces.msg import PilotInput


def pilot_input(node: Node, source: str, wish: Wish) -> PilotInput:
    """Return a message, stamped now, of a source's wish."""
    message = PilotInput(
        source=source,
        dead_man=wish.dead_man,
        names=list(wish.motions),
        values=[float(value) for value in wish.motions.values()],
    )
    message.header.stamp = node.get_clock().now().to_msg()
    return message
