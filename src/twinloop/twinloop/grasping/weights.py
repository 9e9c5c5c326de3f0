# SPDX-License-Identifier: Apache-2.0
"""The network on disk: a folder with `grasping.json` and `weights.safetensors`, checked before use.

Nothing is unpickled. Sizes are compared before anything is allocated.
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any, Literal

import safetensors
import safetensors.torch
import torch
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from twinloop.files import FileRefused, read_bounded
from twinloop.grasping.network import NetworkConfig, QualityNetwork
from twinloop.models.base import ModelInvalid, check_tensors

MANIFEST = "grasping.json"
WEIGHTS = "weights.safetensors"
MOST_BYTES = 3 * 2**20
_MOST_MANIFEST_BYTES = 2**20


class Manifest(BaseModel):
    """The content of `grasping.json`.

    Attributes:
        network: its architecture.
        calibration: slope and intercept from log-odds to the probability that a grasp holds.
        bytes, sha256: of the weights file.
        trained: how: command, data, seed, figures.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)
    format: Literal["twinloop-grasping/1"] = "twinloop-grasping/1"
    network: NetworkConfig
    calibration: tuple[float, float] = (1.0, 0.0)
    bytes: int = Field(gt=0, le=MOST_BYTES)
    sha256: str = Field(pattern=r"^[0-9a-f]{64}$")
    trained: dict[str, Any] = Field(default_factory=dict)


def save(
    folder: Path,
    network: QualityNetwork,
    trained: dict[str, Any],
    calibration: tuple[float, float] = (1.0, 0.0),
) -> Manifest:
    """Write both files into a folder, which is made if need be.

    Raises:
        ModelInvalid: a value is not finite, or the file would be larger than `MOST_BYTES`.
    """
    state = {name: tensor.contiguous() for name, tensor in network.state_dict().items()}
    check_tensors(state, state)
    content = safetensors.torch.save(state)
    if len(content) > MOST_BYTES:
        raise ModelInvalid(f"weights are {len(content)} bytes, expected at most {MOST_BYTES}")
    manifest = Manifest(
        network=network.config,
        calibration=calibration,
        bytes=len(content),
        sha256=hashlib.sha256(content).hexdigest(),
        trained=trained,
    )
    folder.mkdir(parents=True, exist_ok=True)
    (folder / WEIGHTS).write_bytes(content)
    text = json.dumps(manifest.model_dump(mode="json"), indent=1)
    (folder / MANIFEST).write_text(text + "\n", encoding="utf-8")
    return manifest


def load(folder: Path | str) -> tuple[QualityNetwork, Manifest]:
    """Read a network, and what is known of it, after checking all of it.

    Raises:
        ModelInvalid: a file is missing, truncated, changed or too large, a tensor is not that of
            the architecture, or a value is not finite; names the file and what was expected.
    """
    folder = Path(folder)
    path = folder / MANIFEST
    try:
        manifest = Manifest.model_validate_json(_read(path, _MOST_MANIFEST_BYTES))
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"]) or "the file"
        raise ModelInvalid(f"{path}: {where}: {first['msg']}") from error
    path = folder / WEIGHTS
    content = _read(path, MOST_BYTES)
    if len(content) != manifest.bytes:
        raise ModelInvalid(f"{path}: is {len(content)} bytes long, expected {manifest.bytes}")
    digest = hashlib.sha256(content).hexdigest()
    if digest != manifest.sha256:
        raise ModelInvalid(
            f"{path}: content is not what {MANIFEST} describes: sha256 is {digest[:12]}…, "
            f"expected {manifest.sha256[:12]}…"
        )
    try:
        state = safetensors.torch.load(content)
        # Without memory, and without the time to draw first weights that are replaced anyway.
        with torch.device("meta"):
            network = QualityNetwork(manifest.network)
        check_tensors(network.state_dict(), state)
    except (ModelInvalid, safetensors.SafetensorError) as error:
        raise ModelInvalid(f"{path}: {error}") from error
    network.load_state_dict(state, assign=True)
    return network.eval(), manifest


def _read(path: Path, most: int) -> bytes:
    try:
        return read_bounded(path, most)
    except FileNotFoundError as error:
        raise ModelInvalid(f"{path}: is missing") from error
    except FileRefused as error:
        raise ModelInvalid(str(error)) from error
