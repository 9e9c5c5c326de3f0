# SPDX-License-Identifier: Apache-2.0
"""A network on disk: a manifest in JSON and `weights.safetensors` beside it, checked before use.

Nothing is unpickled. Sizes are compared before anything is allocated.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import safetensors
import safetensors.torch
import torch
from pydantic import BaseModel, ConfigDict, Field, ValidationError
from torch import nn

from twinloop.files import FileRefused, read_bounded
from twinloop.models.base import ModelInvalid, check_tensors

WEIGHTS = "weights.safetensors"
MOST_BYTES = 3 * 2**20
_MOST_MANIFEST_BYTES = 2**20


class NetworkManifest(BaseModel):
    """What every manifest holds; subclasses add their format and the network's architecture.

    Attributes:
        bytes, sha256: of the weights file.
        trained: how: command, data, seed, figures.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)
    bytes: int = Field(gt=0, le=MOST_BYTES)
    sha256: str = Field(pattern=r"^[0-9a-f]{64}$")
    trained: dict[str, Any] = Field(default_factory=dict)


Kind = TypeVar("Kind", bound=NetworkManifest)
Network = TypeVar("Network", bound=nn.Module)


def save(path: Path, kind: type[Kind], network: nn.Module, about: dict[str, Any]) -> Kind:
    """Write manifest and weights into a folder, which is made if need be.

    Args:
        path: of the manifest; the weights lie beside it.
        kind: of the manifest.
        network: whose weights are kept.
        about: what else the manifest holds.

    Raises:
        ModelInvalid: a value is not finite, or the file would be larger than `MOST_BYTES`.
    """
    state = {name: tensor.contiguous() for name, tensor in network.state_dict().items()}
    check_tensors(state, state)
    content = safetensors.torch.save(state)
    if len(content) > MOST_BYTES:
        raise ModelInvalid(f"weights are {len(content)} bytes, expected at most {MOST_BYTES}")
    digest = hashlib.sha256(content).hexdigest()
    manifest = kind(bytes=len(content), sha256=digest, **about)
    path.parent.mkdir(parents=True, exist_ok=True)
    (path.parent / WEIGHTS).write_bytes(content)
    text = json.dumps(manifest.model_dump(mode="json"), indent=1)
    path.write_text(text + "\n", encoding="utf-8")
    return manifest


def load(path: Path, kind: type[Kind], make: Callable[[Kind], Network]) -> tuple[Network, Kind]:
    """Read a network, and what is known of it, after checking all of it.

    Args:
        path: of the manifest.
        kind: of the manifest.
        make: makes the network that a manifest describes.

    Raises:
        ModelInvalid: a file is missing, truncated, changed or too large, a tensor is not that of
            the architecture, or a value is not finite; names the file and what was expected.
    """
    try:
        manifest = kind.model_validate_json(_read(path, _MOST_MANIFEST_BYTES))
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"]) or "the file"
        raise ModelInvalid(f"{path}: {where}: {first['msg']}") from error
    weights = path.parent / WEIGHTS
    content = _read(weights, MOST_BYTES)
    if len(content) != manifest.bytes:
        raise ModelInvalid(f"{weights}: is {len(content)} bytes long, expected {manifest.bytes}")
    digest = hashlib.sha256(content).hexdigest()
    if digest != manifest.sha256:
        raise ModelInvalid(
            f"{weights}: content is not what {path.name} describes: sha256 is {digest[:12]}…, "
            f"expected {manifest.sha256[:12]}…"
        )
    try:
        state = safetensors.torch.load(content)
        # Without memory, and without the time to draw first weights that are replaced anyway.
        with torch.device("meta"):
            network = make(manifest)
        check_tensors(network.state_dict(), state)
    except (ModelInvalid, safetensors.SafetensorError) as error:
        raise ModelInvalid(f"{weights}: {error}") from error
    network.load_state_dict(state, assign=True)
    return network.eval(), manifest


def _read(path: Path, most: int) -> bytes:
    try:
        return read_bounded(path, most)
    except FileNotFoundError as error:
        raise ModelInvalid(f"{path}: is missing") from error
    except FileRefused as error:
        raise ModelInvalid(str(error)) from error
