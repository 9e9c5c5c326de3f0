# SPDX-License-Identifier: Apache-2.0
"""Buttons and sliders of the page, where it may steer."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Protocol

import viser

from twinloop.web.state import CellState
from twinloop.web.steer import Steering

GOALS = {
    "ccw": "turn counter-clockwise",
    "cw": "turn clockwise",
    "hold": "hold both balls where they are",
    "move": "move ball 1 to a place",
}
"""What goals are called on the page; others by their names."""

READ_ONLY = "Read-only. `web_control:=true` at the start of the cell adds its controls."


class Actions(Steering, Protocol):
    """What can be asked of a cell. Calls return at once and from any thread; what came of them is
    told in `CellState.notice`."""

    def start(self, goal: str) -> None: ...

    def pause(self) -> None: ...

    def reset(self) -> None: ...

    def set_goal(self, goal: str) -> None: ...

    def press_stop(self) -> None: ...

    def release_stop(self) -> None: ...

    def rearm(self) -> None: ...

    def roll_back(self) -> None: ...

    def move_joint(self, name: str, position: float) -> None: ...


class Stop:
    """The emergency stop, which comes first on the page, and its two steps back."""

    def __init__(self, gui: viser.GuiApi, actions: Actions) -> None:
        _button(gui, "EMERGENCY STOP", actions.press_stop, color="red", icon="HAND_STOP")
        _button(gui, "Release emergency stop", actions.release_stop)
        _button(
            gui, "Re-arm", actions.rearm,
            hint="After a release: the robot follows commands again",
        )  # fmt: skip


class Course:
    """Start, pause, reset, and which goal of its task the running planner pursues."""

    def __init__(self, gui: viser.GuiApi, actions: Actions, state: CellState) -> None:
        gui.add_dropdown(
            "Task", (state.task,), hint="The planner's: chosen when the cell is started"
        )
        self._goals = state.goals
        self._goal: Any = gui.add_dropdown(
            "Goal", _labels(state.goals), hint="Also of an episode that is running"
        )

        @self._goal.on_update
        def _(event: Any) -> None:
            if event.client is not None:
                actions.set_goal(self._chosen)

        _button(gui, "Start", lambda: actions.start(self._chosen), icon="PLAYER_PLAY")
        _button(gui, "Pause", actions.pause, icon="PLAYER_PAUSE")
        _button(gui, "Reset the scene", actions.reset, icon="REFRESH")

    @property
    def _chosen(self) -> str:
        """The goal that is chosen; what is none of them is passed on, to be refused by name."""
        label = str(self._goal.value)
        return next((goal for goal in self._goals if goal_label(goal) == label), label)

    def update(self, state: CellState) -> None:
        """Offer what the planner can do, and show the goal that is pursued, whoever chose it."""
        if state.goals != self._goals:
            self._goals, chosen = state.goals, self._chosen
            self._goal.options = _labels(state.goals)
            if chosen in state.goals:
                self._goal.value = goal_label(chosen)
        goal = goal_label(state.episode.goal)
        is_known = state.episode.goal in state.goals
        if state.episode.phase == "running" and is_known and goal != self._goal.value:
            self._goal.value = goal


def goal_label(goal: str) -> str:
    """Return what a goal is called on the page."""
    return GOALS.get(goal, goal)


def _labels(goals: Sequence[str]) -> tuple[str, ...]:
    return tuple(map(goal_label, goals)) or ("",)


class Sliders:
    """One slider a joint; they work while the cell is paused.

    Args:
        limits: of each joint, lower and upper, rad.
    """

    def __init__(
        self, gui: viser.GuiApi, actions: Actions, limits: dict[str, tuple[float, float]]
    ) -> None:
        self._told: dict[str, Any] = {}
        self._folder = gui.add_folder("Joints [rad], while paused", expand_by_default=False)
        self._was_paused = False
        with self._folder:
            for name, (low, high) in limits.items():
                slider = gui.add_slider(name, low, high, 0.005, min(max(0.0, low), high))
                slider.disabled = True
                slider.on_update(self._told_by(name, slider, actions))
                self._told[name] = slider

    def _told_by(self, name: str, slider: Any, actions: Actions) -> Callable[[Any], None]:
        def tell(event: Any) -> None:
            # The page's own changes have no client.
            if event.client is not None and not slider.disabled:
                actions.move_joint(name, slider.value)

        return tell

    def update(self, state: CellState) -> None:
        """Follow the joints until the cell is paused, and then lead them."""
        if state.is_paused != self._was_paused:
            self._was_paused = state.is_paused
            for name, slider in self._told.items():
                slider.disabled = not state.is_paused
                if state.is_paused and name in state.joints:
                    slider.value = float(min(max(state.joints[name], slider.min), slider.max))


def roll_back_button(gui: viser.GuiApi, actions: Actions) -> None:
    """Add the button that lets the model before the running one run again."""
    _button(gui, "Roll back to the model before", actions.roll_back, icon="ARROW_BACK_UP")


def _button(gui: viser.GuiApi, label: str, action: Callable[[], None], **looks: Any) -> None:
    icon = looks.pop("icon", None)
    button = gui.add_button(label, icon=getattr(viser.Icon, icon) if icon else None, **looks)
    button.on_click(lambda _event: action())
