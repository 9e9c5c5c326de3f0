# SPDX-License-Identifier: Apache-2.0
"""What a training run keeps on disk beside its bags, so that it can carry on after a crash."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import safetensors
import safetensors.torch

from twinloop.learning.files import replace_file
from twinloop.models import Ensemble, from_tensors

Row = dict[str, float]


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
        replace_file(path, json.dumps(wanted, indent=1).encode())
        return
    found = json.loads(path.read_text())
    if found != wanted:
        different = sorted(k for k in {*found, *wanted} if found.get(k) != wanted.get(k))
        raise CheckpointInvalid(
            f"{path}: the run was started with other settings ({', '.join(different)}); "
            "choose another folder to start anew"
        )


def save_model(folder: Path, name: str, model: Ensemble, row: Row) -> None:
    """Write a model, and the figures of the round that made it, as one file that appears whole."""
    about = {"config": json.dumps(model.config_json()), "row": json.dumps(row)}
    data = safetensors.torch.save(model.state_tensors(), about)
    replace_file(folder / f"{name}.safetensors", data)


def load_model(folder: Path, name: str) -> tuple[Ensemble, Row] | None:
    """Read what `save_model` wrote, None where it was not written yet.

    Raises:
        CheckpointInvalid: the file is damaged.
    """
    path = folder / f"{name}.safetensors"
    if not path.exists():
        return None
    try:
        with safetensors.safe_open(path, framework="pt") as file:
            about = file.metadata()
            tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
        return from_tensors(json.loads(about["config"]), tensors), json.loads(about["row"])
    except (safetensors.SafetensorError, KeyError, TypeError, ValueError) as error:
        raise CheckpointInvalid(f"{path}: {error}; delete it to fit it again") from error


def keep_version(folder: Path, stage: int, version: str) -> None:
    """Note that a stage's model is in the registry under this version."""
    replace_file(folder / f"stage_{stage:02d}.version", version.encode())


def version_of(folder: Path, stage: int) -> str | None:
    """Return the version that a stage's model got, None where it has none yet."""
    path = folder / f"stage_{stage:02d}.version"
    return path.read_text() if path.exists() else None
