# SPDX-License-Identifier: Apache-2.0
"""What a training run keeps on disk, round by round, so that it can carry on after a crash."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import safetensors.torch
import torch

from twinloop.learning.episode import Episode
from twinloop.models import Ensemble, from_tensors


class CheckpointInvalid(ValueError):
    """A run's folder does not hold what its own files say; the message names the file."""


def start_run(folder: Path, settings: dict[str, Any]) -> None:
    """Make the run's folder, or check that it holds a run with the same settings.

    Raises:
        CheckpointInvalid: the folder holds a run with other settings.
    """
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "run.json"
    wanted = json.loads(json.dumps(settings))
    if not path.exists():
        _write(path, json.dumps(wanted, indent=1).encode())
        return
    found = json.loads(path.read_text())
    if found != wanted:
        different = sorted(k for k in {*found, *wanted} if found.get(k) != wanted.get(k))
        raise CheckpointInvalid(
            f"{path}: the run was started with other settings ({', '.join(different)}); "
            "choose another folder to start anew"
        )


def save_episodes(folder: Path, name: str, episodes: Sequence[Episode]) -> None:
    """Write episodes as one file that appears whole."""
    tensors = {}
    for index, episode in enumerate(episodes):
        tensors[f"{index:05d}.observations"] = torch.from_numpy(episode.observations).contiguous()
        tensors[f"{index:05d}.actions"] = torch.from_numpy(episode.actions).contiguous()
    meta = {"meta": json.dumps([episode.meta for episode in episodes])}
    _write(folder / f"{name}.safetensors", safetensors.torch.save(tensors, meta))


def load_episodes(folder: Path, name: str) -> list[Episode] | None:
    """Read what `save_episodes` wrote, None where it was not written yet.

    Raises:
        CheckpointInvalid: the file is damaged.
    """
    path = folder / f"{name}.safetensors"
    if not path.exists():
        return None
    try:
        with safetensors.safe_open(path, framework="pt") as file:
            metas = json.loads(file.metadata()["meta"])
            return [
                Episode(
                    file.get_tensor(f"{index:05d}.observations").numpy(),
                    file.get_tensor(f"{index:05d}.actions").numpy(),
                    meta,
                )
                for index, meta in enumerate(metas)
            ]
    except (safetensors.SafetensorError, KeyError, TypeError, ValueError) as error:
        raise CheckpointInvalid(f"{path}: {error}; delete it to collect it again") from error


def save_model(folder: Path, name: str, model: Ensemble) -> None:
    """Write a model as one file that appears whole."""
    config = {"config": json.dumps(model.config_json())}
    _write(folder / f"{name}.safetensors", safetensors.torch.save(model.state_tensors(), config))


def load_model(folder: Path, name: str) -> Ensemble | None:
    """Read what `save_model` wrote, None where it was not written yet.

    Raises:
        CheckpointInvalid: the file is damaged.
    """
    path = folder / f"{name}.safetensors"
    if not path.exists():
        return None
    try:
        with safetensors.safe_open(path, framework="pt") as file:
            config = json.loads(file.metadata()["config"])
            tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
        return from_tensors(config, tensors)
    except (safetensors.SafetensorError, KeyError, TypeError, ValueError) as error:
        raise CheckpointInvalid(f"{path}: {error}; delete it to fit it again") from error


def _write(path: Path, data: bytes) -> None:
    """Write a file that is either not there or whole, also after a crash."""
    temporary = path.with_suffix(".part")
    with temporary.open("wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
    temporary.replace(path)
