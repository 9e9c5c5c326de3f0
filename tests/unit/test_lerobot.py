# SPDX-License-Identifier: Apache-2.0
"""Bags as a data set of LeRobot and back; what is compared with is its format v3.0."""

from __future__ import annotations

import importlib
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from gym_cell import Pendulum
from twinloop.bags import lerobot
from twinloop.bags.episodes import episode as read_episode
from twinloop.bags.errors import BagError
from twinloop.bags.metadata import EpisodeMetadata
from twinloop.bags.rollouts import write_rollout
from twinloop.cli.main import main
from twinloop.learning.episode import Episode

CONTRACT = Pendulum().contract
# Of LeRobot's own data sets: columns that each row has, and columns of each episode.
ROW = {
    "timestamp": "float",
    "frame_index": "int64",
    "episode_index": "int64",
    "index": "int64",
    "task_index": "int64",
}
EPISODE = (
    "episode_index",
    "tasks",
    "length",
    "data/chunk_index",
    "data/file_index",
    "dataset_from_index",
    "dataset_to_index",
)


def bag(folder: Path, number: int, steps: int) -> tuple[Path, Episode]:
    rng = np.random.default_rng(number)
    made = Episode(rng.normal(size=(steps + 1, 3)), rng.uniform(-2, 2, (steps, 1)))
    about = EpisodeMetadata(episode_id=f"one-{number}", task="pendulum", seed=number, goal="up")
    return write_rollout(folder / f"bag_{number}", made, CONTRACT, about), made


def test_without_pyarrow_it_is_refused_by_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def absent(name: str) -> Any:
        raise ImportError(f"no {name}")

    path, _ = bag(tmp_path, 0, 3)
    monkeypatch.setattr(importlib, "import_module", absent)
    with pytest.raises(lerobot.ParquetMissing, match="pip install pyarrow"):
        lerobot.export([path], tmp_path / "set")
    assert not (tmp_path / "set").exists()


def test_bags_come_back_as_they_were(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    parquet = pytest.importorskip("pyarrow.parquet")
    kept = [bag(tmp_path / "bags", number, steps) for number, steps in enumerate((5, 3))]
    folder = tmp_path / "set"
    words = ["bag", "export", str(tmp_path / "bags"), "--format", "lerobot", "--out", str(folder)]
    with pytest.raises(SystemExit) as ended:
        main(words)
    assert ended.value.code == 0
    written = lerobot.bring_back(folder, tmp_path / "again")
    for (_, made), path in zip(kept, written, strict=True):
        found = read_episode(path, CONTRACT)
        np.testing.assert_array_equal(found.observations, made.observations)
        np.testing.assert_array_equal(found.actions, made.actions)
        assert found.meta["goal"] == "up"

    info = json.loads((folder / "meta/info.json").read_text())
    assert info["codebase_version"] == "v3.0"
    assert (info["fps"], info["total_episodes"], info["total_frames"]) == (20, 2, 8)
    table = parquet.read_table(folder / info["data_path"].format(chunk_index=0, file_index=0))
    assert set(table.column_names) == set(info["features"])
    for name, kind in ROW.items():
        assert str(table.schema.field(name).type) == kind
    for name in ("observation.state", "action"):
        length = info["features"][name]["shape"][0]
        assert str(table.schema.field(name).type).startswith("fixed_size_list<")
        assert len(table.column(name)[0]) == length == len(info["features"][name]["names"])
    assert table.column("index").to_pylist() == list(range(8))
    assert table.column("timestamp").to_pylist()[5:] == pytest.approx([0.0, 0.05, 0.1])
    episodes = parquet.read_table(folder / "meta/episodes/chunk-000/file-000.parquet")
    rows = episodes.select(list(EPISODE)).to_pylist()
    assert [(r["dataset_from_index"], r["dataset_to_index"]) for r in rows] == [(0, 5), (5, 8)]
    assert rows[0]["tasks"] == ["pendulum up"]
    stats = json.loads((folder / "meta/stats.json").read_text())
    np.testing.assert_allclose(
        stats["action"]["mean"], np.mean(table.column("action").to_pylist(), axis=0), rtol=1e-6
    )
    tasks = parquet.read_table(folder / "meta/tasks.parquet")
    assert tasks.to_pylist() == [{"task_index": 0, "task": "pendulum up"}]
    # LeRobot's loader looks tasks up by their text, in the index of a data frame.
    about = json.loads(tasks.schema.metadata[b"pandas"])
    assert about["index_columns"] == ["task"]
    assert [one["field_name"] for one in about["columns"]] == tasks.column_names
    with pytest.raises(SystemExit) as ended:
        main(words)
    assert ended.value.code == 2
    assert "is not empty" in capsys.readouterr().err


def test_what_is_no_data_set_is_refused(tmp_path: Path) -> None:
    pytest.importorskip("pyarrow")
    with pytest.raises(lerobot.NotADataSet, match=r"info\.json: cannot be read"):
        lerobot.bring_back(tmp_path, tmp_path / "out")
    path, _ = bag(tmp_path / "bags", 0, 3)
    with pytest.raises(BagError, match="no bags"):
        lerobot.export([], tmp_path / "set")
    lerobot.export([path], tmp_path / "set")
    (tmp_path / "set/data/chunk-000/file-000.parquet").write_bytes(b"PAR1 spam")
    with pytest.raises(lerobot.NotADataSet, match="chunk-000"):
        lerobot.bring_back(tmp_path / "set", tmp_path / "out")
    info = tmp_path / "set/meta/info.json"
    info.write_text(info.read_text().replace("v3.0", "v2.1"))
    with pytest.raises(lerobot.NotADataSet, match=r"'v2\.1', expected v3\.0"):
        lerobot.bring_back(tmp_path / "set", tmp_path / "out")
