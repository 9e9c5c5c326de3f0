# SPDX-License-Identifier: Apache-2.0
"""Bins that the arm clears, kept one a line so that an interrupted protocol carries on."""

from __future__ import annotations

import json
import math
import time
from collections import Counter
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from rich.console import Console
from timed_planner import TimedPlanner
from twinloop.grasping.drawing import depth_picture
from twinloop.grasping.finding import BinFinder, shipped_segment
from twinloop.grasping.pick_devices import Finder, View, WorldGrasp
from twinloop.grasping.pick_moves import PickMoves
from twinloop.grasping.pick_settings import load_settings
from twinloop.grasping.planner import GraspPlanner
from twinloop_sim.grasping.bin_cell import BinCell
from twinloop_sim.grasping.clearing import Antipodal, Cleared, Kind, TopDown, Try, clear_bin

# Images merged into a sight, as config/grasping/picking.yaml advises for such cameras.
IMAGES = {"structured_light": 1, "d435": 3}
_PICTURES_OF_A_CAUSE = 3
_SAVE_EVERY = 10  # bins, between two lines of progress


class TimedFinder:
    """Counts the core's time that a finder takes."""

    def __init__(self, finder: Finder) -> None:
        self._finder = finder
        self.spent_s = 0.0

    def __call__(self, view: View, avoid: list[np.ndarray]) -> list[WorldGrasp]:
        began_s = time.process_time()
        try:
            return self._finder(view, avoid)
        finally:
            self.spent_s += time.process_time() - began_s


class Bins:
    """One cell with its arm, and those who clear it.

    Args:
        planner: of grasps.
        images: merged into a sight; None: as many as the camera needs.
    """

    def __init__(self, planner: GraspPlanner, images: int | None = None) -> None:
        self._settings = load_settings()
        self._images = images
        self._planner = planner
        self._cell: BinCell | None = None

    def clear(self, who: str, kind: Kind, noise: str, index: int) -> tuple[Cleared, dict[str, Any]]:
        """Clear a bin; returns what became of it, and the line that is kept of it."""
        if self._cell is None:
            self._cell, self._arm = BinCell(settings=self._settings), TimedPlanner(cell="bins")
            self._moves = PickMoves(self._arm, self._settings)
        look = self._settings.look.model_copy(update={"images": self._images or IMAGES[noise]})
        self._moves.settings = self._settings.model_copy(update={"look": look})
        finder = TimedFinder(self._finder(who))
        self._arm.spent_s = 0.0
        began_s = time.process_time()
        found = clear_bin(self._cell, self._moves, finder, kind, noise, index)
        line = {
            "ends": [one.end for one in found.tries],
            "told": [str(one.attempt.fault or "picked") for one in found.tries],
            "quality": [_plain(one.attempt.grasp.quality) for one in found.tries],
            "objects": found.objects,
            "moved": found.moved,
            "outside": found.outside,
            "fault": None if found.outcome.fault is None else str(found.outcome.fault),
            "robot_s": found.outcome.seconds,
            "planning_s": finder.spent_s + self._arm.spent_s,
            "core_s": time.process_time() - began_s,
        }
        return found, line

    def _finder(self, who: str) -> Finder:
        if who == "network":
            return BinFinder(self._planner, self._settings, shipped_segment())
        return TopDown(self._settings) if who == "top-down" else Antipodal(self._settings)


def clear_bins(
    folder: Path,
    bins: Bins,
    row: tuple[str, Kind, str],
    attempts: int,
    console: Console,
) -> dict[str, Any]:
    """Clear bins until there were enough attempts; returns a row of figures.

    Args:
        row: who picks what, seen through which noise; its bins lie in `folder`.
    """
    cell = ", ".join(row)
    path = folder / f"picks-{cell.replace(' ', '_').replace(',', '')}.jsonl"
    lines = [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []
    while sum(len(one["ends"]) for one in lines) < attempts:
        found, line = bins.clear(*row, len(lines))
        for number, one in enumerate(found.tries):
            if not one.moved:
                _keep_picture(folder, cell, f"{len(lines):04d}-{number}", one)
        lines.append(line)
        with path.open("a") as file:
            file.write(json.dumps(line) + "\n")
        if len(lines) % _SAVE_EVERY == 0:
            figures = _figures(cell, lines)
            console.print(
                f"{cell}: {figures['picked']} of {figures['attempts']} attempts, "
                f"{figures['core_s_of_an_attempt']:.1f} s of the core each"
            )
    return _figures(cell, lines)


def causes(folder: Path, rows: list[dict[str, Any]]) -> Path | None:
    """Lay one picture of each cause of failure beside each other; returns where, if any is."""
    counts: Counter[str] = Counter()
    for row in rows:
        counts.update(row["causes"])
    found = []
    for cause, count in counts.most_common(6):
        pictures = sorted((folder / "failures").glob(f"network*/{cause.replace(' ', '_')}/*.png"))
        for path in pictures[:1]:
            picture = np.asarray(cv2.resize(cv2.imread(str(path)), (480, 360)))
            text = f"{cause}: {count} in all rows"
            cv2.putText(picture, text, (8, 20), 0, 0.6, (60, 220, 255), 1, cv2.LINE_AA)
            found.append(picture)
    if not found:
        return None
    found += [np.zeros_like(found[0])] * (-len(found) % 3)
    sheet = np.concatenate(
        [np.concatenate(found[first : first + 3], axis=1) for first in range(0, len(found), 3)]
    )
    place = folder / "failures.png"
    cv2.imwrite(str(place), sheet)
    return place


def _figures(cell: str, lines: list[dict[str, Any]]) -> dict[str, Any]:
    ends = Counter(end for one in lines for end in one["ends"])
    tried, picked = sum(ends.values()), ends.pop("picked", 0)
    objects = sum(one["objects"] for one in lines)
    moved = sum(one["moved"] for one in lines)
    seconds = sum(one["robot_s"] + one["planning_s"] for one in lines)
    return {
        "cell": cell,
        "bins": len(lines),
        "attempts": tried,
        "picked": picked,
        "success": picked / tried if tried else None,
        "objects": objects,
        "cleared": moved / objects if objects else None,
        "picks_per_simulated_hour": 3600 * picked / seconds if seconds else None,
        "causes": dict(ends.most_common()),
        "given_up": dict(Counter(one["fault"] for one in lines if one["fault"]).most_common()),
        "outside": sum(one["outside"] for one in lines),
        "planning_s_of_an_attempt": sum(one["planning_s"] for one in lines) / max(tried, 1),
        "core_s_of_an_attempt": sum(one["core_s"] for one in lines) / max(tried, 1),
    }


def _keep_picture(folder: Path, cell: str, name: str, one: Try) -> None:
    place = folder / "failures" / cell.replace(" ", "_") / one.end.replace(" ", "_")
    place.mkdir(parents=True, exist_ok=True)
    if len(list(place.glob("*.png"))) >= _PICTURES_OF_A_CAUSE:
        return
    picture = depth_picture(one.view.depth)
    grasp = one.attempt.grasp
    half = grasp.tips.rotation[:, 1] * grasp.width_m / 2
    ends = one.view.into_camera(np.stack([grasp.tips.position - half, grasp.tips.position + half]))
    (x0, y0), (x1, y1) = np.rint(one.view.camera.project(ends)).astype(int).tolist()
    cv2.line(picture, (x0, y0), (x1, y1), (255, 80, 40), 2, cv2.LINE_AA)
    cv2.imwrite(str(place / f"{name}.png"), picture[..., ::-1])


def _plain(value: float) -> float | None:
    return None if math.isnan(value) else value
