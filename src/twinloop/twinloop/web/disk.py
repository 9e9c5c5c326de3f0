# SPDX-License-Identifier: Apache-2.0
"""What the page tells of the disk: bags, models, room. Without torch, and each file read once."""

from __future__ import annotations

import json
import math
import shutil
from pathlib import Path
from typing import Any

import psutil

from twinloop.bags.errors import BagError
from twinloop.bags.read import complete_bags, is_being_written, metadata, unfinished_bags
from twinloop.web.state import BagRow, CellState, EpisodeRow, ModelRow

_KEPT = 200
_GB = 1e9


class Disk:
    """Reads folders into a CellState.

    Args:
        record_dir: folder of bags.
        registry: folder of the task's model versions, `<registry>/<task>`.
    """

    def __init__(self, record_dir: Path, registry: Path) -> None:
        self._record_dir, self._registry = record_dir, registry
        self._bags: dict[Path, tuple[BagRow, EpisodeRow | None]] = {}
        self._models: dict[Path, tuple[float, ModelRow]] = {}

    def read(self, state: CellState) -> None:
        """Bring bags, episodes, models and room up to date."""
        done = complete_bags(self._record_dir)[-_KEPT:]
        for path in done:
            if path not in self._bags:
                self._bags[path] = _bag(path)
        rows = [self._bags[path] for path in done]
        unfinished = [
            BagRow(path.name, 0.0, 0, _megabytes(path), "unfinished")
            for path in unfinished_bags(self._record_dir)
        ]
        state.bags = [row for row, _ in rows] + unfinished + self._growing(set(done))
        state.episodes = [episode for _, episode in rows if episode is not None]
        for path in sorted(self._registry.glob("v*/model.json")):
            changed = path.stat().st_mtime
            if self._models.get(path, (0.0, None))[0] != changed:
                row = _model(path)
                if row is not None:
                    self._models[path] = changed, row
        state.models |= {row.version: row for _, row in self._models.values()}
        room = self._record_dir if self._record_dir.exists() else Path.cwd()
        state.disk_free_gb = shutil.disk_usage(room).free / _GB
        state.memory_free_gb = psutil.virtual_memory().available / _GB

    def _growing(self, done: set[Path]) -> list[BagRow]:
        if not self._record_dir.is_dir():
            return []
        return [
            BagRow(path.name, 0.0, 0, _megabytes(path), "being written")
            for path in sorted(self._record_dir.iterdir())
            if path.is_dir() and path not in done and is_being_written(path)
        ]


def _bag(path: Path) -> tuple[BagRow, EpisodeRow | None]:
    try:
        about = metadata(path)
    except BagError as error:
        return BagRow(path.name, 0.0, 0, _megabytes(path), error.problem), None
    seconds = about.duration_ns / 1e9
    row = BagRow(path.name, seconds, about.message_count, _megabytes(path), "complete")
    one = about.episode
    if one is None:
        return row, None
    return row, EpisodeRow(
        one.episode_id,
        one.goal,
        one.steps or 0,
        one.rotation_deg or 0.0,
        one.model_version,
        one.stop_reason or "",
    )


def _megabytes(path: Path) -> float:
    return sum(file.stat().st_size for file in path.glob("*") if file.is_file()) / 1e6


def _model(path: Path) -> ModelRow | None:
    """Return what a version's manifest tells; None where it cannot be read now."""
    try:
        about = json.loads(path.read_text())
    except (OSError, ValueError):
        return None
    if not isinstance(about, dict):
        return None
    lineage, decision = about.get("lineage") or {}, about.get("decision") or {}
    score = decision.get("candidate") or {}
    return ModelRow(
        path.parent.name,
        str(about.get("status", "")),
        int(lineage.get("total_transitions") or lineage.get("transitions") or 0),
        _figure(score.get("one_step_mm")),
        _figure(score.get("seven_step_mm")),
        str(decision.get("reason", "")),
    )


def _figure(value: Any) -> float:
    return float(value) if isinstance(value, int | float) else math.nan
