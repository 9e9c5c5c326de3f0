# SPDX-License-Identifier: Apache-2.0
"""The cell in three dimensions: robot, balls, targets and rollouts."""

from __future__ import annotations

from typing import Any

import numpy as np
import viser
from numpy.typing import NDArray

from twinloop.robots.link_tree import LinkTree
from twinloop.robots.rotations import quaternion_from_matrix
from twinloop.views import colours, segments
from twinloop.web.meshes import Shape, visible_meshes
from twinloop.web.state import CellState

_STILL = 1e-5  # changes of a quaternion or place that nobody sees
_LINE_PX = 3.0
_OPACITY, _STALE_OPACITY = 0.6, 0.25  # the paths of the balls lie inside them
_EYE = "camera_left_optical"


class Scene:
    """Draws what changes of a CellState.

    Args:
        server: whose scene it is.
        urdf: robot description.
        palm: link in whose frame balls and plans are.
        ball_radius_m, target_radius_m: of what is drawn.
    """

    def __init__(
        self,
        server: viser.ViserServer,
        urdf: str,
        palm: str,
        ball_radius_m: float = 0.028,
        target_radius_m: float = 0.006,
    ) -> None:
        self._server = server
        self._tree = LinkTree(urdf)
        self._paths = {self._tree.root: "/robot"}
        self._frames: list[Any] = []
        places, turns = self._tree.relative({})
        self._shown_turns = quaternion_from_matrix(turns)
        self._shown_places = places
        server.scene.set_up_direction("+z")
        server.scene.add_frame("/robot", show_axes=False)
        for link, place, wxyz in zip(self._tree.links, places, self._shown_turns, strict=True):
            path = f"{self._paths[link.parent]}/{link.name}"
            self._paths[link.name] = path
            frame = server.scene.add_frame(path, show_axes=False, position=place, wxyz=wxyz)
            self._frames.append(frame)
        for number, shape in enumerate(visible_meshes(urdf)):
            self._add(f"{self._paths[shape.link]}/shape{number}", shape)
        self._palm = self._paths[palm]
        self._balls: list[Any] = []
        self._targets: list[Any] = []
        self._radius, self._target_radius = ball_radius_m, target_radius_m
        self._lines: dict[str, Any] = {}
        self._plan: NDArray[np.void] | None = None
        self._look(palm)

    def _add(self, path: str, shape: Shape) -> None:
        self._server.scene.add_mesh_simple(
            path, shape.vertices, shape.faces, color=shape.colour, cast_shadow=False
        )

    def _look(self, palm: str) -> None:
        """Let a window begin with the view of the camera, from a little farther."""
        places, _ = self._tree.world({})
        names = self._tree.names
        at = places[names.index(palm)]
        eye = places[names.index(_EYE)] if _EYE in names else at + np.array([0.0, 0.0, 0.5])
        camera = self._server.initial_camera
        camera.look_at = tuple(at)
        camera.position = tuple(at + 1.3 * (eye - at))
        camera.up = (0.0, 1.0, 0.0) if abs((eye - at)[2]) > 0.7 * np.linalg.norm(eye - at) else (
            0.0, 0.0, 1.0
        )  # fmt: skip

    def update(self, state: CellState) -> None:
        """Bring what is drawn up to date."""
        with self._server.atomic():
            self._move(state)
            self._draw_balls(state)
            if state.plan is not self._plan:
                self._plan = state.plan
                self._draw_plan(state.plan)

    def _move(self, state: CellState) -> None:
        if not state.joints:
            return
        places, turns = self._tree.relative(state.joints)
        wxyz = quaternion_from_matrix(turns)
        turned = np.abs(wxyz - self._shown_turns).max(axis=1) > _STILL
        slid = np.abs(places - self._shown_places).max(axis=1) > _STILL
        for index in np.flatnonzero(turned):
            self._frames[index].wxyz = wxyz[index]
        for index in np.flatnonzero(slid):
            self._frames[index].position = places[index]
        self._shown_turns[turned], self._shown_places[slid] = wxyz[turned], places[slid]

    def _draw_balls(self, state: CellState) -> None:
        for index, ball in enumerate(state.balls):
            if index == len(self._balls):
                self._balls.append(
                    self._server.scene.add_icosphere(
                        f"{self._palm}/ball{index}",
                        self._radius,
                        colours.BALLS[index % len(colours.BALLS)],
                        opacity=_OPACITY,
                        cast_shadow=False,
                    )
                )
            handle = self._balls[index]
            if np.abs(handle.position - ball.position).max() > _STILL:
                handle.position = ball.position
            opacity = _STALE_OPACITY if ball.is_stale else _OPACITY
            if handle.opacity != opacity:
                handle.opacity = opacity

    def _draw_plan(self, points: NDArray[np.void] | None) -> None:
        if points is None:
            return
        for name, pieces in (
            ("rollouts", segments.ball_paths(points)),
            ("fingertips", segments.fingertip_paths(points)),
        ):
            shades = np.repeat(pieces.colours[:, None], 2, axis=1)
            handle = self._lines.get(name)
            if handle is None and len(pieces.ends):
                self._lines[name] = self._server.scene.add_line_segments(
                    f"{self._palm}/{name}",
                    pieces.ends,
                    shades,
                    thickness=_LINE_PX,
                    thickness_units="screen",
                )
            elif handle is not None:
                handle.points, handle.colors = pieces.ends, shades
        for index, place in enumerate(segments.targets(points)):
            if index == len(self._targets):
                self._targets.append(
                    self._server.scene.add_icosphere(
                        f"{self._palm}/target{index}",
                        self._target_radius,
                        colours.TARGET,
                        cast_shadow=False,
                    )
                )
            self._targets[index].position = place
