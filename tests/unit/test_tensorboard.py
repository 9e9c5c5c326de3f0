# SPDX-License-Identifier: Apache-2.0
"""TensorBoard logs, and what is said where that package is missing."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import pytest
from twinloop.learning.tensorboard import Board, TensorBoardMissing

HAS_TENSORBOARD = importlib.util.find_spec("tensorboard") is not None


@pytest.mark.skipif(HAS_TENSORBOARD, reason="tensorboard is installed")
def test_a_missing_package_is_named(tmp_path: Path) -> None:
    with pytest.raises(TensorBoardMissing, match="pip install tensorboard"):
        Board(tmp_path / "logs")
    assert not (tmp_path / "logs").exists()


@pytest.mark.skipif(not HAS_TENSORBOARD, reason="tensorboard is not installed")
def test_a_run_that_is_carried_on_writes_its_curves_once(tmp_path: Path) -> None:
    reading = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    for process in range(2):
        board = Board(tmp_path)
        for transitions in (100.0, 200.0)[: process + 1]:
            board.write({"success": transitions / 400, "not_measured": None}, transitions)
        board.close()
    events = reading.EventAccumulator(str(tmp_path))
    events.Reload()
    assert events.Tags()["scalars"] == ["success"]
    assert [(e.step, e.value) for e in events.Scalars("success")] == [(100, 0.25), (200, 0.5)]
