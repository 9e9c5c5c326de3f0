# SPDX-License-Identifier: Apache-2.0
"""A small film of the best, the median and the worst episode, side by side."""

from __future__ import annotations

import io
from collections.abc import Sequence

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image

from twinloop.bags.episodes import episode as read_episode
from twinloop.bags.errors import BagError
from twinloop.contract import Contract
from twinloop.reporting.episodes import EpisodeFigures, progress
from twinloop.reporting.frames import middle, render
from twinloop.reporting.report import unit_of

MOST_BYTES = 5_000_000
_SIDE_PX = 240
_DRAWN_PX = 320
_CAPTION_PX = 40
_MOST_FRAMES = 100
_QUALITIES = (70, 50, 30, 15)
_INK = (43, 45, 51)
_TITLES = ("best", "median", "worst")
Picture = NDArray[np.uint8]


def ranked(episodes: Sequence[EpisodeFigures]) -> list[EpisodeFigures]:
    """Return the episodes with steps, best first: those that kept the balls before the others."""
    shown = [one for one in episodes if one.steps]
    sign = 1.0 if unit_of(shown) == "deg" else -1.0
    return sorted(shown, key=lambda one: (one.dropped, -sign * one.rotation_deg))


def chosen(episodes: Sequence[EpisodeFigures]) -> list[tuple[str, EpisodeFigures]]:
    """Return the best, the median and the worst episode with their titles; of few, fewer."""
    order = ranked(episodes)
    places = (0, len(order) // 2, len(order) - 1)
    picked: dict[str, tuple[str, EpisodeFigures]] = {}
    for title, place in zip(_TITLES, places, strict=True):
        if order:
            picked.setdefault(order[place].id, (title, order[place]))
    return list(picked.values())


def film(episodes: Sequence[EpisodeFigures], contract: Contract) -> bytes | None:
    """Return an animated WebP of at most 5 MB; one frame a control step, at its pace.

    None where no episode can be drawn, or the twin's renderer is not installed.
    """
    columns = []
    for title, one in chosen(episodes):
        column = _column(title, one, contract)
        if column:
            columns.append(column)
    if not columns:
        return None
    length = max(len(column) for column in columns)
    frames = [
        Image.fromarray(np.hstack([column[min(at, len(column) - 1)] for column in columns]))
        for at in range(length)
    ]
    return _encoded(frames, round(1e3 * contract.period_s))


def _column(title: str, one: EpisodeFigures, contract: Contract) -> list[Picture]:
    """Return an episode's frames with their captions; none where it cannot be drawn."""
    if "ball_position" not in contract.slices:
        return []  # the renderer of bags knows the hand and its balls alone
    try:
        observations = read_episode(one.bags[0], contract).observations[:_MOST_FRAMES]
        images = render(observations, contract, _DRAWN_PX)
    except (BagError, ImportError):
        return []
    frames = []
    for step, image in enumerate(images):
        small = cv2.resize(middle(image), (_SIDE_PX, _SIDE_PX), interpolation=cv2.INTER_AREA)
        framed = np.full((_SIDE_PX + _CAPTION_PX, _SIDE_PX, 3), 255, dtype=np.uint8)
        framed[_CAPTION_PX:] = small
        known = min(step, len(one.times_s) - 1)
        told = f"{one.times_s[known]:.1f} s  {round(one.rotations_deg[known])} {one.unit}"
        for row, text in enumerate(
            (f"{title}: episode {one.index + 1}, {progress_text(one)}", told)
        ):
            cv2.putText(
                framed, text, (4, 14 + 18 * row), cv2.FONT_HERSHEY_SIMPLEX, 0.38, _INK, 1,
                cv2.LINE_AA,
            )  # fmt: skip
        frames.append(framed)
    return frames


def progress_text(one: EpisodeFigures) -> str:
    """Return an episode's progress in characters that every font has."""
    return progress(one).replace("°", " deg")


def _encoded(frames: list[Image.Image], period_ms: int) -> bytes:
    """Return the film in the best quality that is small enough, or a fourth of the frames."""
    for quality in _QUALITIES:
        data = _webp(frames, period_ms, quality)
        if len(data) <= MOST_BYTES:
            return data
    return _webp(frames[::4], 4 * period_ms, _QUALITIES[-1])


def _webp(frames: list[Image.Image], period_ms: int, quality: int) -> bytes:
    file = io.BytesIO()
    frames[0].save(
        file, "WEBP", save_all=True, append_images=frames[1:], duration=period_ms, loop=0,
        quality=quality, method=2,
    )  # fmt: skip
    return file.getvalue()
