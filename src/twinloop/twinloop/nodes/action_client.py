# SPDX-License-Identifier: Apache-2.0
"""A client of actions whose goals may be sent from any thread."""

from __future__ import annotations

import threading
from typing import Any

from rclpy.action import ActionClient


class AnyThreadActionClient(ActionClient):
    """An `ActionClient` that loses no answer to a goal of another thread than the executor's.

    rclpy writes down which goal it has sent after it has sent it. A server on the same machine may
    have answered by then, and the executor's thread drops an answer to what is not written down:
    whoever sent the goal would wait for ever.
    """

    def __init__(self, *args: Any, **settings: Any) -> None:
        self._sending = threading.Lock()
        super().__init__(*args, **settings)

    def send_goal_async(self, *args: Any, **settings: Any) -> Any:
        """As the base class does."""
        with self._sending:
            return super().send_goal_async(*args, **settings)

    async def execute(self, taken_data: Any) -> None:
        """Take an answer, after whatever is just being sent was written down."""
        with self._sending:
            pass
        await super().execute(taken_data)
