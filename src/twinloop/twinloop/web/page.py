# SPDX-License-Identifier: Apache-2.0
"""The page: the scene beside tabs, drawn from a CellState at a few rates."""

from __future__ import annotations

from typing import Any

from twinloop.web import tables
from twinloop.web.controls import READ_ONLY, Actions, Course, Sliders, Stop, roll_back_button
from twinloop.web.plots import Plots
from twinloop.web.scene import Scene
from twinloop.web.server import LocalServer
from twinloop.web.state import CellState
from twinloop.web.steer import Steer

_IMAGE_S, _PLOTS_S, _TEXT_S, _TABLES_S = 0.2, 0.5, 0.25, 1.0
_JPEG = 70


class Page:
    """Draws a cell for all windows alike: what a window shows is kept by the server.

    Args:
        server: that serves the page.
        state: what is shown.
        urdf: robot description.
        palm: link in whose frame balls and plans are.
        actions: what the page may ask of the cell; None: it only shows.
        limits: of the joints that have a slider, lower and upper, rad.
        steered: motions and joints that a pilot has on the page; None: he has none.
    """

    def __init__(
        self,
        server: LocalServer,
        state: CellState,
        urdf: str,
        palm: str,
        actions: Actions | None = None,
        limits: dict[str, tuple[float, float]] | None = None,
        steered: tuple[list[str], list[str]] | None = None,
    ) -> None:
        self._server = server
        self._state = state
        self._due_s: dict[str, float] = {}
        self._texts: dict[str, tuple[Any, str]] = {}
        self._image: Any = None
        self._shown_image: Any = None
        gui = server.gui
        gui.configure_theme(
            control_layout="fixed", control_width="large", show_logo=False, show_share_button=False
        )
        self.scene = Scene(server, urdf, palm)
        self._add_text("status")
        self._course: Course | None = None
        self._sliders: Sliders | None = None
        if actions is not None:
            Stop(gui, actions)
        else:
            gui.add_markdown(READ_ONLY)
        tabs = gui.add_tab_group()
        with tabs.add_tab("Cell"):
            self._camera_tab = gui.add_folder("Camera with tracks")
            if actions is not None:
                self._course = Course(gui, actions, state)
                self._sliders = Sliders(gui, actions, limits or {})
        self._steer: Steer | None = None
        if actions is not None and steered is not None:
            with tabs.add_tab("Steer"):
                self._steer = Steer(gui, actions, *steered)
        with tabs.add_tab("Plots"):
            self._plots = Plots(server)
        with tabs.add_tab("Health"):
            self._add_text("health")
        with tabs.add_tab("Episodes"):
            self._add_text("episodes")
            self._add_text("bags")
        with tabs.add_tab("Models"):
            if actions is not None:
                roll_back_button(gui, actions)
            self._add_text("models")

    @property
    def has_viewers(self) -> bool:
        return self._server.viewers > 0

    def update(self, now_s: float) -> None:
        """Draw what is due, if anybody looks. Call it as often as the scene is to change.

        Args:
            now_s: steady time.
        """
        if not self.has_viewers:
            return
        state = self._state
        self.scene.update(state)
        if self._is_due("image", _IMAGE_S, now_s):
            self._draw_image()
        if self._is_due("plots", _PLOTS_S, now_s):
            self._plots.update(state)
        if self._is_due("text", _TEXT_S, now_s):
            self._write("status", tables.status(state))
            for part in (self._course, self._sliders, self._steer):
                if part is not None:
                    part.update(state)
        if self._is_due("tables", _TABLES_S, now_s):
            self._write("health", tables.health(state, now_s))
            for name, make in (
                ("episodes", tables.episodes),
                ("bags", tables.bags),
                ("models", tables.models),
            ):
                self._write(name, make(state))

    def _is_due(self, name: str, period_s: float, now_s: float) -> bool:
        if now_s < self._due_s.get(name, now_s):
            return False
        self._due_s[name] = now_s + period_s
        return True

    def _draw_image(self) -> None:
        image = self._state.image
        if image is None or image is self._shown_image:
            return
        self._shown_image = image
        if self._image is None:
            with self._camera_tab:
                self._image = self._server.gui.add_image(image, format="jpeg", jpeg_quality=_JPEG)
        else:
            self._image.image = image

    def _add_text(self, name: str) -> None:
        self._texts[name] = (self._server.gui.add_html(""), "")

    def _write(self, name: str, text: str) -> None:
        handle, shown = self._texts[name]
        if text != shown:
            handle.content = text
            self._texts[name] = (handle, text)
