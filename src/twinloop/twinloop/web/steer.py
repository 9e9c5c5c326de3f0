# SPDX-License-Identifier: Apache-2.0
"""What a pilot has on the page: buttons that move while they are held, and how much is shared."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import partial
from html import escape
from typing import Any, Protocol

import viser

from twinloop.web.state import CellState

HOLD_HZ = 30.0
_WAYS = (("+", 1.0), ("-", -1.0))
_HINT = "Moves while it is held"


class Steering(Protocol):
    """What can be asked; calls return at once and from any thread."""

    def hold(self, motion: str, value: float) -> None:
        """Move on; to be called all the while a button is held."""

    def set_alpha(self, alpha: float) -> None: ...

    def set_sharing(self, is_shared: bool) -> None: ...

    def resume_autonomy(self) -> None: ...


class Steer:
    """Motions of hand, arm and gripper, the joint that is moved singly, and sharing.

    Args:
        motions: by name, such as hand/close.
        joints: that can be moved singly.
    """

    def __init__(
        self, gui: viser.GuiApi, steering: Steering, motions: Sequence[str], joints: Sequence[str]
    ) -> None:
        self._said = gui.add_html("")
        self._text = ""
        self._alpha: Any = gui.add_slider(
            "alpha: pilot 0, autonomy 1", 0.0, 1.0, 0.01, 0.5, hint="How much autonomy counts"
        )
        self._sharing: Any = gui.add_checkbox("Share with the planner", False)
        _told(self._alpha, steering.set_alpha)
        _told(self._sharing, steering.set_sharing)
        resume = gui.add_button("Autonomy goes on", hint="After the pilot was lost")
        resume.on_click(lambda _event: steering.resume_autonomy())
        with gui.add_folder("One joint"):
            chosen: Any = gui.add_dropdown("Joint", tuple(joints))
            for sign, way in _WAYS:
                _held(gui, f"joint {sign}", steering, lambda: f"joint/{chosen.value}", way)
        with gui.add_folder("Together"):
            for name in motions:
                label = name.partition("/")[2] or name
                for sign, way in _WAYS:
                    _held(gui, f"{label} {sign}", steering, partial(str, name), way)

    def update(self, state: CellState) -> None:
        """Show who commands, and follow what others have set."""
        text = f"<div class='tl-state' data-twinloop='pilot'>{escape(state.control)}</div>"
        if text != self._text:
            self._text = self._said.content = text
        if not math.isnan(state.alpha) and abs(state.alpha - self._alpha.value) > 1e-6:
            self._alpha.value = min(max(state.alpha, 0.0), 1.0)
        if state.is_sharing != self._sharing.value:
            self._sharing.value = state.is_sharing


def _held(
    gui: viser.GuiApi, label: str, steering: Steering, motion: Callable[[], str], way: float
) -> None:
    button = gui.add_button(label, hint=_HINT)
    button.on_hold(lambda _event: steering.hold(motion(), way), callback_hz=HOLD_HZ)


def _told(handle: Any, action: Callable[[Any], None]) -> None:
    def tell(event: Any) -> None:
        # The page's own changes have no client.
        if event.client is not None:
            action(handle.value)

    handle.on_update(tell)
