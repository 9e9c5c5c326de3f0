# SPDX-License-Identifier: Apache-2.0
"""A strip of pictures of the best episode, drawn from what the bag says the sensors saw."""

from __future__ import annotations

import ctypes
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from numpy.typing import NDArray

from twinloop.bags.episodes import episode as read_episode
from twinloop.bags.errors import BagError
from twinloop.contract import Contract
from twinloop.reporting.episodes import EpisodeFigures, progress
from twinloop.reporting.plots import INK, save
from twinloop.reporting.report import unit_of

FRAMES = 8
_CAMERA = "overview"
_SIDE_IN = 1.45
_SHOWN = 0.95  # share of the camera's height that is kept, about the middle


def best(episodes: Sequence[EpisodeFigures]) -> EpisodeFigures | None:
    """Return the episode that turned the balls farthest, or came nearest to its places; one
    without a drop if there is one."""
    shown = [one for one in episodes if one.steps]
    sign = 1.0 if unit_of(shown) == "deg" else -1.0
    return max(shown, key=lambda one: (not one.dropped, sign * one.rotation_deg), default=None)


def draw_strip(episodes: Sequence[EpisodeFigures], contract: Contract, path: Path) -> Path | None:
    """Draw the best episode as a row of frames, evenly spaced in time.

    Returns:
        the file; None where no episode can be drawn, or the twin's renderer is not installed.
    """
    chosen = best(episodes)
    if chosen is None or "ball_position" not in contract.slices:
        return None  # the renderer of bags knows the hand and its balls alone
    try:
        observations = read_episode(chosen.bags[0], contract).observations
        rows = np.linspace(0, len(observations) - 1, min(FRAMES, len(observations))).astype(int)
        images = render(observations[rows], contract)
    except (BagError, ImportError):
        return None
    figure = Figure(figsize=(_SIDE_IN * len(rows), _SIDE_IN + 0.5), layout="constrained")
    FigureCanvasAgg(figure)
    figure.get_layout_engine().set(w_pad=0.01, wspace=0.01)  # type: ignore[union-attr,call-arg]
    kept = "dropped" if chosen.dropped else "both balls kept"
    figure.suptitle(
        f"Episode {chosen.index + 1}, {chosen.goal}: {progress(chosen)} in "
        f"{chosen.times_s[-1]:.1f} s, {kept}",
        x=0.01,
        ha="left",
        fontsize=10,
        color=INK,
    )
    for column, (row, image) in enumerate(zip(rows, images, strict=True)):
        axes = figure.add_subplot(1, len(rows), column + 1)
        axes.imshow(middle(image), interpolation="lanczos")
        axes.set_axis_off()
        known = min(int(row), len(chosen.times_s) - 1)
        caption = f"{chosen.times_s[known]:.1f} s   {round(chosen.rotations_deg[known])}°"
        axes.set_title(caption, fontsize=8, color=INK, y=-0.16)
    return save(figure, path)


def render(
    observations: NDArray[np.float32], contract: Contract, height_px: int | None = None
) -> list[NDArray[np.uint8]]:
    """Draw observations [N, O] of the hand with its tracked balls; returns RGB images [H, W, 3].

    Args:
        height_px: of the images, which are drawn quickly then; None: as large and fine as usual.

    Raises:
        ImportError: the package twinloop_sim or its renderer is not installed.
    """
    with _silenced():
        import pybullet  # noqa: F401
    from twinloop_sim.render import renderer
    from twinloop_sim.settings import scene_settings
    from twinloop_sim.twin import State

    from twinloop.robots.kinematics import palm_chain

    scene = scene_settings()
    if height_px is not None:
        camera = scene.cameras[_CAMERA]
        width, height = camera.size
        small = camera.model_copy(
            update={"size": (round(width * height_px / height), height_px), "oversample": 1}
        )
        scene = scene.model_copy(update={"cameras": {**scene.cameras, _CAMERA: small}})
    pencil = renderer(scene)
    q = observations[:, contract.slices["joint_position"]].astype(np.float64)
    balls = observations[:, contract.slices["ball_position"]].astype(np.float64).reshape(-1, 2, 3)
    # The wrist's two joints come first and place the palm, in whose frame balls are tracked.
    position, rotation = palm_chain(scene.side).poses(q[:, :2])
    in_world = position[:, 0, None] + balls @ rotation[:, 0].swapaxes(-1, -2)
    unturned = np.array([1.0, 0.0, 0.0, 0.0])
    return [
        pencil.draw(
            State(
                time=np.zeros(()),
                q=joints,
                qd=np.zeros_like(joints),
                ball_position=places,
                ball_quaternion=np.tile(unturned, (2, 1)),
                ball_velocity=np.zeros((2, 3)),
                palm_position=np.zeros(3),
                palm_quaternion=unturned,
                arm=np.zeros(0),
            )
        )
        for joints, places in zip(q, in_world, strict=True)
    ]


@contextmanager
def _silenced() -> Iterator[None]:
    """Keep from the screen what a C library prints, as PyBullet does when it is imported."""
    streams = (1, 2)
    kept = [os.dup(stream) for stream in streams]
    try:
        with open(os.devnull, "w") as nowhere:
            for stream in streams:
                os.dup2(nowhere.fileno(), stream)
        yield
    finally:
        # What is not on its way yet would come out at the end of the program.
        ctypes.CDLL(None).fflush(None)
        for copy, stream in zip(kept, streams, strict=True):
            os.dup2(copy, stream)
            os.close(copy)


def middle(image: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Return the square about the middle of an image."""
    height, width = image.shape[:2]
    half = int(_SHOWN * height) // 2
    return image[height // 2 - half : height // 2 + half, width // 2 - half : width // 2 + half]
