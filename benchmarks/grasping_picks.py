# SPDX-License-Identifier: Apache-2.0
"""Bins that are cleared, kept one a line so that an interrupted protocol carries on."""

from __future__ import annotations

import json
import math
from collections import Counter
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from rich.console import Console
from twinloop.grasping.drawing import depth_picture
from twinloop.perception.camera_model import CameraModel
from twinloop_sim.grasping.lifts import End
from twinloop_sim.grasping.picking import Attempt, Kind, Picker, clear_bin
from twinloop_sim.grasping.scene import Scene

_PICTURES_OF_A_CAUSE = 3


def clear_bins(
    folder: Path,
    cell: str,
    pick: Picker,
    kind: Kind,
    noise: str,
    attempts: int,
    console: Console,
) -> dict[str, Any]:
    """Clear bins until there were enough attempts; returns a row of figures.

    Args:
        cell: name of the row; its bins lie in `folder`.
        attempts: at least so many grasps; looks in which none was found are counted apart.
    """
    path = folder / f"picks-{cell.replace(' ', '_').replace(',', '')}.jsonl"
    bins = [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []
    scene = Scene() if attempts else None
    while _row(cell, bins)["attempts"] < attempts:
        index = len(bins)
        assert scene is not None
        found = clear_bin(scene, pick, kind, noise, index)
        for number, attempt in enumerate(found.attempts):
            if attempt.end != End.HELD:
                _keep_picture(folder, cell, f"{index:04d}-{number}", attempt)
        bins.append(
            {
                "ends": [one.end for one in found.attempts],
                "quality": [
                    None if math.isnan(one.quality) else one.quality for one in found.attempts
                ],
                "plan_s": [one.plan_s for one in found.attempts],
                "seconds": [one.seconds for one in found.attempts],
                "objects": found.objects,
                "left": found.left,
            }
        )
        with path.open("a") as file:
            file.write(json.dumps(bins[-1]) + "\n")
        if index % 10 == 9:
            console.print(f"{cell}: {_row(cell, bins)['attempts']} of {attempts} attempts")
    if scene is not None:
        scene.close()
    return _row(cell, bins)


def _row(cell: str, bins: list[dict[str, Any]]) -> dict[str, Any]:
    ends = [end for one in bins for end in one["ends"]]
    seconds = sum(sum(one["seconds"]) for one in bins)
    objects = sum(one["objects"] for one in bins)
    counts = Counter(ends)
    tried = sum(counts[str(end)] for end in End)
    held = counts[str(End.HELD)]
    return {
        "cell": cell,
        "attempts": tried,
        "held": held,
        "success": held / tried if tried else None,
        "objects": objects,
        "cleared": 1 - sum(one["left"] for one in bins) / objects if objects else None,
        "picks_per_simulated_hour": 3600 * held / max(seconds, 1e-9),
        "blocked": counts[str(End.BLOCKED)],
        "missed": counts[str(End.MISSED)],
        "lost": counts[str(End.LOST)],
        "looks_without_a_grasp": len(ends) - tried,
    }


def _keep_picture(folder: Path, cell: str, name: str, attempt: Attempt) -> None:
    cause = attempt.end.replace(" ", "_")
    place = folder / "failures" / cell.replace(" ", "_") / cause
    place.mkdir(parents=True, exist_ok=True)
    if len(list(place.glob("*.png"))) >= _PICTURES_OF_A_CAUSE:
        return
    picture = depth_picture(attempt.depth)
    if attempt.pose is not None and attempt.camera is not None:
        _draw(picture, attempt.camera, *attempt.pose)
    cv2.imwrite(str(place / f"{name}.png"), picture[..., ::-1])


def _draw(
    picture: np.ndarray,
    camera: CameraModel,
    position: np.ndarray,
    closing: np.ndarray,
    width: float,
) -> None:
    ends = np.stack([position - closing * width / 2, position + closing * width / 2])
    (x0, y0), (x1, y1) = np.rint(camera.project(ends)).astype(int).tolist()
    cv2.line(picture, (x0, y0), (x1, y1), (255, 80, 40), 2, cv2.LINE_AA)
