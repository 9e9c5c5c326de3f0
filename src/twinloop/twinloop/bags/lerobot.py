# SPDX-License-Identifier: Apache-2.0
"""Bags as a data set of LeRobot, format v3.0, and back.

    meta/info.json, stats.json          sizes, features, and their statistics
    meta/tasks.parquet                  index of each task, by its text
    meta/episodes/chunk-000/file-000    a row an episode: which rows and files are its own
    data/chunk-000/file-000.parquet     a row a control step
    meta/twinloop.json                  contract and episodes' metadata, for the way back

`observation.state` and `action` are the contract's vectors, element names included;
`next.observation.state` is what each action led to, which an episode's last row needs. Parquet is
what the optional package pyarrow writes and reads.
"""

from __future__ import annotations

import importlib
import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydantic import ValidationError

from twinloop.bags.episodes import episodes as read_episodes
from twinloop.bags.errors import BagError
from twinloop.bags.metadata import EpisodeMetadata, read_metadata
from twinloop.bags.read import bag_folder
from twinloop.bags.rollouts import write_rollout
from twinloop.contract import Contract
from twinloop.files import FileRefused, read_bounded
from twinloop.learning.episode import Episode

VERSION = "v3.0"
STATE, ACTION, NEXT = "observation.state", "action", "next.observation.state"
DATA = "data/chunk-{chunk_index:03d}/file-{file_index:03d}.parquet"
EPISODES = "meta/episodes/chunk-{chunk_index:03d}/file-{file_index:03d}.parquet"
VIDEOS = "videos/{video_key}/chunk-{chunk_index:03d}/file-{file_index:03d}.mp4"
_OURS = "meta/twinloop.json"
_MOST_JSON_BYTES = 64 * 2**20
_QUANTILES = (0.01, 0.1, 0.5, 0.9, 0.99)
_INDICES = ("timestamp", "frame_index", "episode_index", "index", "task_index")

Array = NDArray[Any]


class ParquetMissing(ImportError):
    """pyarrow is not installed."""


class NotADataSet(ValueError):
    """A folder is no data set that can be read back; the message names the file."""


def export(bags: Sequence[Path], folder: Path) -> int:
    """Write bags as one data set; returns how many episodes it has.

    Every unbroken run of control steps becomes an episode. All bags have to be of one contract.

    Args:
        bags: complete ones.
        folder: to make.

    Raises:
        ParquetMissing: see there.
        BagError: a bag is damaged, of another contract than the first, or there is none.
        FileExistsError: the folder holds something already.
    """
    arrow, parquet = _parquet()
    if not bags:
        raise BagError(folder, "is made of no bags, expected at least one")
    contract = _contract_of(bags[0])
    runs = [run for bag in bags for run in read_episodes(bag, contract)]
    if folder.exists() and any(folder.iterdir()):
        raise FileExistsError(f"{folder} is not empty; name a new folder")
    rows = _rows(runs, contract)
    tasks = list(dict.fromkeys(_task_of(run) for run in runs))
    for path in (DATA, EPISODES):
        (folder / path.format(chunk_index=0, file_index=0)).parent.mkdir(parents=True)
    _write_data(arrow, parquet, folder, rows, runs)
    _write_episodes(arrow, parquet, folder, rows, runs, tasks)
    table = arrow.table({"task_index": list(range(len(tasks))), "task": tasks})
    # LeRobot reads the text as the index of a data frame, which pandas finds by what is said of it.
    kinds = {"task_index": ("int64", "int64"), "task": ("unicode", "object")}
    pandas = {
        "index_columns": ["task"],
        "column_indexes": [],
        "columns": [
            {
                "name": name,
                "field_name": name,
                "pandas_type": kind,
                "numpy_type": numpy_type,
                "metadata": None,
            }
            for name, (kind, numpy_type) in kinds.items()
        ],
    }
    table = table.replace_schema_metadata({"pandas": json.dumps(pandas)})
    parquet.write_table(table, folder / "meta/tasks.parquet")
    _write_json(folder / "meta/stats.json", {k: _statistics(v) for k, v in rows.items()})
    _write_json(folder / "meta/info.json", _info(contract, runs, tasks))
    _write_json(
        folder / _OURS,
        {
            "contract": contract.model_dump(mode="json"),
            "episodes": [EpisodeMetadata.model_validate(r.meta).model_dump() for r in runs],
        },
    )
    return len(runs)


def bring_back(folder: Path, out: Path) -> list[Path]:
    """Write a data set that `export` made as bags again; returns their folders.

    Raises:
        ParquetMissing: see there.
        NotADataSet: a file is missing, or does not hold what it should.
        BagError: a bag of that name is there already.
    """
    _, parquet = _parquet()
    info = _read_json(folder / "meta/info.json")
    if info.get("codebase_version") != VERSION:
        raise NotADataSet(
            f"{folder}/meta/info.json: codebase_version is {info.get('codebase_version')!r}, "
            f"expected {VERSION}"
        )
    ours = _read_json(folder / _OURS)
    try:
        contract = Contract.model_validate(ours["contract"])
        about = [EpisodeMetadata.model_validate(one) for one in ours["episodes"]]
    except (KeyError, TypeError, ValidationError) as error:
        raise NotADataSet(f"{folder / _OURS}: {error}") from error
    paths = sorted(folder.glob("data/chunk-*/file-*.parquet"))
    if not paths:
        raise NotADataSet(f"{folder}: holds no data/chunk-*/file-*.parquet")
    names = (STATE, ACTION, NEXT, "episode_index", "frame_index")
    try:
        tables = [parquet.read_table(path, columns=list(names)) for path in paths]
        columns = {
            name: np.array([value for t in tables for value in t.column(name).to_pylist()])
            for name in names
        }
    except Exception as error:  # pyarrow has many errors, and none of them is ours
        raise NotADataSet(f"{paths[0].parent}: {error}") from error
    written = []
    for number, metadata in enumerate(about):
        mine = columns["episode_index"] == number
        order = np.argsort(columns["frame_index"][mine])
        try:
            seen, actions, after = (
                columns[name][mine][order].astype(np.float32) for name in (STATE, ACTION, NEXT)
            )
            episode = Episode(np.concatenate([seen, after[-1:]]), actions)
            name = f"episode_{number:06d}_{metadata.episode_id}"
            written.append(write_rollout(out / name, episode, contract, metadata))
        except (ValueError, IndexError) as error:
            raise NotADataSet(f"{folder}: episode {number}: {error}") from error
    return written


def _rows(runs: Sequence[Episode], contract: Contract) -> dict[str, Array]:
    """Return the columns of all control steps."""
    lengths = [len(run) for run in runs]
    tasks = list(dict.fromkeys(_task_of(run) for run in runs))
    frames = np.concatenate([np.arange(length) for length in lengths])
    return {
        STATE: np.concatenate([run.observations[:-1] for run in runs]),
        ACTION: np.concatenate([run.actions for run in runs]),
        NEXT: np.concatenate([run.observations[1:] for run in runs]),
        "next.done": np.concatenate([np.arange(1, n + 1) == n for n in lengths]),
        "timestamp": (frames * contract.period_s).astype(np.float32),
        "frame_index": frames,
        "episode_index": np.repeat(np.arange(len(runs)), lengths),
        "index": np.arange(sum(lengths)),
        "task_index": np.repeat([tasks.index(_task_of(run)) for run in runs], lengths),
    }


def _write_data(
    arrow: Any, parquet: Any, folder: Path, rows: dict[str, Array], runs: Sequence[Episode]
) -> None:
    columns = {}
    for name, values in rows.items():
        if values.ndim == 2:
            flat = arrow.array(np.ascontiguousarray(values, np.float32).ravel())
            columns[name] = arrow.FixedSizeListArray.from_arrays(flat, values.shape[1])
        else:
            columns[name] = arrow.array(values)
    table = arrow.table(columns)
    path = folder / DATA.format(chunk_index=0, file_index=0)
    start = 0
    with parquet.ParquetWriter(path, table.schema, compression="snappy") as writer:
        for run in runs:  # a row group each, so that one can be read alone
            writer.write_table(table.slice(start, len(run)))
            start += len(run)


def _write_episodes(
    arrow: Any,
    parquet: Any,
    folder: Path,
    rows: dict[str, Array],
    runs: Sequence[Episode],
    tasks: Sequence[str],
) -> None:
    found: list[dict[str, Any]] = []
    start = 0
    for number, run in enumerate(runs):
        mine = slice(start, start + len(run))
        row: dict[str, Any] = {
            "episode_index": number,
            "tasks": [_task_of(run)],
            "length": len(run),
            "data/chunk_index": 0,
            "data/file_index": 0,
            "dataset_from_index": mine.start,
            "dataset_to_index": mine.stop,
            "meta/episodes/chunk_index": 0,
            "meta/episodes/file_index": 0,
        }
        for name, values in rows.items():
            for kind, value in _statistics(values[mine]).items():
                row[f"stats/{name}/{kind}"] = value
        found.append(row)
        start = mine.stop
    table = arrow.Table.from_pylist(found)
    parquet.write_table(table, folder / EPISODES.format(chunk_index=0, file_index=0))


def _info(contract: Contract, runs: Sequence[Episode], tasks: Sequence[str]) -> dict[str, Any]:
    seen = [f"{channel.name}.{e}" for channel in contract.observation for e in channel.elements]
    features: dict[str, Any] = {
        STATE: {"dtype": "float32", "shape": [len(seen)], "names": seen},
        ACTION: {
            "dtype": "float32",
            "shape": [contract.action_size],
            "names": list(contract.action.elements),
        },
        NEXT: {"dtype": "float32", "shape": [len(seen)], "names": seen},
        "next.done": {"dtype": "bool", "shape": [1], "names": None},
    }
    for name in _INDICES:
        kind = "float32" if name == "timestamp" else "int64"
        features[name] = {"dtype": kind, "shape": [1], "names": None}
    fps = 1.0 / contract.period_s
    return {
        "codebase_version": VERSION,
        "robot_type": contract.robot,
        "total_episodes": len(runs),
        "total_frames": sum(map(len, runs)),
        "total_tasks": len(tasks),
        "chunks_size": 1000,
        "data_files_size_in_mb": 100,
        "video_files_size_in_mb": 200,
        "fps": round(fps) if math.isclose(fps, round(fps)) else fps,
        "splits": {"train": f"0:{len(runs)}"},
        "data_path": DATA,
        "video_path": VIDEOS,
        "features": features,
    }


def _statistics(values: Array) -> dict[str, list[float]]:
    """Return what LeRobot normalises by, element by element."""
    numbers = values.reshape(len(values), -1).astype(np.float64)
    found = {
        "min": numbers.min(0),
        "max": numbers.max(0),
        "mean": numbers.mean(0),
        "std": numbers.std(0),
    }
    for share in _QUANTILES:
        found[f"q{round(100 * share):02d}"] = np.quantile(numbers, share, axis=0)
    return {name: value.tolist() for name, value in found.items()} | {"count": [len(numbers)]}


def _task_of(run: Episode) -> str:
    return f"{run.meta['task']} {run.meta.get('goal', '')}".strip()


def _contract_of(bag: Path) -> Contract:
    about = read_metadata(bag_folder(bag)).episode
    if about is None:
        raise BagError(bag, "does not say which episode it is, expected a bag of an episode")
    try:
        return Contract.model_validate(about.contract)
    except ValidationError as error:
        raise BagError(bag, f"holds no contract: {error}") from error


def _write_json(path: Path, content: Any) -> None:
    path.write_text(json.dumps(content, indent=1) + "\n")


def _read_json(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(read_bounded(path, _MOST_JSON_BYTES))
    except (OSError, FileRefused, ValueError) as error:
        raise NotADataSet(f"{path}: cannot be read: {error}") from error
    if not isinstance(content, dict):
        raise NotADataSet(f"{path}: holds {type(content).__name__}, expected an object")
    return content


def _parquet() -> tuple[Any, Any]:
    try:
        arrow, parquet = map(importlib.import_module, ("pyarrow", "pyarrow.parquet"))
    except ImportError as error:
        raise ParquetMissing(
            "LeRobot's data sets are Parquet files, which need the package pyarrow, and it is not "
            "installed; .venv/bin/pip install pyarrow adds it"
        ) from error
    return arrow, parquet
