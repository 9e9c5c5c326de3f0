# SPDX-License-Identifier: Apache-2.0
"""What a tracker told beside what was true, and the figures that come of it."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from tracker_frames import Frame
from twinloop.perception.ball_tracker import BallTracker
from twinloop.tasks.baoding import load_config

Array = NDArray[np.float64]

CLEAR = 0.98  # visible fraction from which a ball counts as not occluded
_UNSEEN = 0.02  # visible fraction below which there is no evidence
_EVIDENCE_S = 0.1


@dataclass
class Record:
    """Frames of all episodes, one after the other; lists become arrays [T, ...]."""

    columns: dict[str, list[Any]] = field(default_factory=dict)

    def add(self, tracker: BallTracker, frame: Frame, episode: int) -> None:
        """Let a tracker see a frame, and keep what it tells and how long that took."""
        wall, core = time.perf_counter(), time.thread_time()
        told = tracker.update(frame.left, frame.right, frame.stamp_s, frame.q)
        row = {
            "core_ms": 1e3 * (time.thread_time() - core),
            "wall_ms": 1e3 * (time.perf_counter() - wall),
            "episode": episode,
            "stamp": frame.stamp_s,
            "blind": frame.is_blind,
            "true": frame.position,
            "told": told.position,
            "velocity_error": told.velocity - frame.velocity,
            "fraction": frame.fraction,
            "told_fraction": told.visible_fraction,
            "stale": told.stale,
            "deviation": np.sqrt(np.diagonal(told.covariance, axis1=-2, axis2=-1)),
        }
        for name, value in row.items():
            self.columns.setdefault(name, []).append(value)

    def arrays(self) -> dict[str, NDArray[Any]]:
        return {name: np.array(values) for name, values in self.columns.items()}


def save(path: Path, arrays: dict[str, NDArray[Any]]) -> None:
    """Write what was recorded, in one step."""
    part = path.with_suffix(".part.npz")
    np.savez_compressed(part, **arrays)
    part.replace(path)


def load(path: Path) -> dict[str, NDArray[Any]]:
    with np.load(path, allow_pickle=False) as content:
        return dict(content)


def figures(r: dict[str, NDArray[Any]]) -> dict[str, float]:
    """Return the promised figures; lengths in mm, speeds in mm/s, times in ms.

    Every position that is told counts, those of falling balls too, which are also listed apart.
    What is stale is not told: see `told_share`, of balls in the task's box of which both eyes see
    a quarter.
    """
    config = load_config()
    seeing = ~r["blind"]
    true, fraction = r["true"][seeing], r["fraction"][seeing]
    told = ~r["stale"][seeing]
    inside = ((true > config.safe_lower_m) & (true < config.safe_upper_m)).all(axis=-1)
    error = 1e3 * np.linalg.norm(r["told"][seeing] - true, axis=-1)
    speed = 1e3 * np.linalg.norm(r["velocity_error"][seeing], axis=-1)
    swapped = told & (np.linalg.norm(r["told"][seeing] - true[:, ::-1], axis=-1) < 1e-3 * error)
    clear, half = told & (fraction >= CLEAR), told & (fraction >= 0.5)
    hidden = told & (fraction < 0.5)
    return {
        "frames": int(seeing.sum()),
        "median_clear_mm": _quantile(error[clear], 0.5),
        "median_mm": _quantile(error[told], 0.5),
        "p95_mm": _quantile(error[told], 0.95),
        "p95_to_half_occluded_mm": _quantile(error[half], 0.95),
        "median_over_half_occluded_mm": _quantile(error[hidden], 0.5),
        "median_fallen_mm": _quantile(error[told & ~inside], 0.5),
        "velocity_median_mm_s": _quantile(speed[told], 0.5),
        "velocity_p95_mm_s": _quantile(speed[told], 0.95),
        "swapped_frames_in_10000": 1e4 * float(swapped.any(axis=1).mean()),
        "told_share": float(told[inside & (fraction >= 0.25)].mean()),
        "core_ms_median": _quantile(r["core_ms"], 0.5),
        "core_ms_p95": _quantile(r["core_ms"], 0.95),
        "wall_ms_median": _quantile(r["wall_ms"], 0.5),
        **_blindness(r),
    }


def _blindness(r: dict[str, NDArray[Any]]) -> dict[str, float]:
    """Return how long after the last evidence balls were called stale at the latest [ms], and how
    many positions were told later than that without evidence."""
    latest, ghosts, last_seen = 0.0, 0, np.full(2, -np.inf)
    episode = -1
    for index in range(len(r["stamp"])):
        if r["episode"][index] != episode:
            episode, last_seen = r["episode"][index], np.full(2, -np.inf)
            calm = np.zeros(2, dtype=bool)
        stamp = r["stamp"][index]
        seen = r["fraction"][index] >= _UNSEEN
        last_seen[seen] = stamp
        calm[seen] = False
        late = ~seen & (stamp - last_seen >= _EVIDENCE_S - 1e-6)
        ghosts += int((late & ~r["stale"][index]).sum())
        newly = r["stale"][index] & ~seen & ~calm & np.isfinite(last_seen)
        if newly.any():
            latest = max(latest, float((stamp - last_seen[newly]).max()))
            calm |= newly
    return {"blind_to_stale_ms": 1e3 * latest, "told_without_evidence": ghosts}


def by_occlusion(r: dict[str, NDArray[Any]], edges: Array) -> list[dict[str, float]]:
    """Return median and 95th percentile of the error in bands of the hidden part of a disc."""
    told = ~r["stale"] & ~r["blind"][:, None]
    error = 1e3 * np.linalg.norm(r["told"] - r["true"], axis=-1)
    hidden = 1.0 - np.minimum(r["fraction"], 1.0)
    rows = []
    for low, high in pairwise(edges):
        here = (hidden >= low) & (hidden < high) & ~r["blind"][:, None]
        used = here & told
        rows.append(
            {
                "hidden_from": float(low),
                "hidden_to": float(high),
                "balls": int(here.sum()),
                "told_share": float(told[here].mean()) if here.any() else float("nan"),
                "median_mm": _quantile(error[used], 0.5),
                "p95_mm": _quantile(error[used], 0.95),
            }
        )
    return rows


def _quantile(values: Array, share: float) -> float:
    return float(np.quantile(values, share)) if len(values) else float("nan")
