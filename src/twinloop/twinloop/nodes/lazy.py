# SPDX-License-Identifier: Apache-2.0
"""Work that is done only while somebody looks at what comes of it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from twinloop.nodes.base import Node

_LOOK_S = 0.25


class WhileWatched:
    """Subscribes while one of some publishers has subscribers, and unsubscribes when none has.

    Args:
        node: that all of it belongs to.
        publishers: that are looked at.
        subscribe: makes the subscriptions.
    """

    def __init__(
        self, node: Node, publishers: Sequence[Any], subscribe: Callable[[], list[Any]]
    ) -> None:
        self._node = node
        self._publishers = publishers
        self._subscribe = subscribe
        self._made: list[Any] = []
        self._timer = node.create_timer(_LOOK_S, node.guarded(self._look), clock=node.steady_clock)

    @property
    def is_watched(self) -> bool:
        return bool(self._made)

    def close(self) -> None:
        self._node.destroy_timer(self._timer)
        self._drop()

    def _look(self) -> None:
        is_wanted = any(one.get_subscription_count() > 0 for one in self._publishers)
        if is_wanted and not self._made:
            self._made = self._subscribe()
        elif not is_wanted and self._made:
            self._drop()

    def _drop(self) -> None:
        for one in self._made:
            self._node.destroy_subscription(one)
        self._made = []
