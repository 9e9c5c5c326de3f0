# SPDX-License-Identifier: Apache-2.0
"""A model on disk: a folder with `model.json` and `weights.safetensors`, checked before use.

Nothing is unpickled, and nothing is allocated before the sizes in the header were compared with
the file's length, with `model.json` and with what the architecture asks for.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal

import safetensors.torch
import torch
from pydantic import BaseModel, ConfigDict, Field, FiniteFloat, ValidationError

from twinloop.contract import Contract
from twinloop.files import FileRefused, read_bounded
from twinloop.learning.files import replace_file, write_synced
from twinloop.learning.gate import Decision
from twinloop.models import KINDS, Ensemble, ModelInvalid, from_tensors

MANIFEST = "model.json"
WEIGHTS = "weights.safetensors"
_MAX_MANIFEST_BYTES = 16 * 2**20
_MAX_HEADER_BYTES = 2**20
_MAX_WEIGHTS_BYTES = 2**29
_DTYPES = {
    "F32": torch.float32,
    "F64": torch.float64,
    "I64": torch.int64,
    "U8": torch.uint8,
    "BOOL": torch.bool,
}

Status = Literal["candidate", "promoted", "rejected", "seed"]


class _Record(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Lineage(_Record):
    """Where a model comes from: enough to train it again."""

    parent: str | None = None  # version it was warm-started from
    episodes: tuple[str, ...] = ()  # ids it was trained on
    held_out: tuple[str, ...] = ()  # ids that were kept from it
    transitions: int = Field(default=0, ge=0)
    total_episodes: int = Field(default=0, ge=0)  # with those of all its ancestors
    total_transitions: int = Field(default=0, ge=0)
    seed: int = 0
    command: str = ""
    created_at: str = ""


class Weights(_Record):
    """What the weights file must be."""

    bytes: int = Field(gt=0, le=_MAX_WEIGHTS_BYTES)
    sha256: str = Field(pattern=r"^[0-9a-f]{64}$")


class Manifest(_Record):
    """The content of `model.json`."""

    format: Literal["twinloop-model/1"] = "twinloop-model/1"
    task: str = Field(min_length=1, max_length=100)
    status: Status = "candidate"
    contract_hash: str
    contract: dict[str, Any]
    architecture: dict[str, Any]
    weights: Weights
    lineage: Lineage = Lineage()
    metrics: dict[str, FiniteFloat | None] = Field(default_factory=dict)
    decision: Decision | None = None


@dataclass(frozen=True)
class Candidate:
    """A trained model on its way into the registry."""

    model: Ensemble
    contract: Contract
    lineage: Lineage = field(default_factory=Lineage)
    metrics: dict[str, float | None] = field(default_factory=dict)
    status: Status = "candidate"


@dataclass(frozen=True)
class LoadedModel:
    """A model that passed every check, and what is known of it."""

    version: str  # name of the folder
    path: Path
    manifest: Manifest
    model: Ensemble


def write_model(folder: Path, candidate: Candidate) -> Manifest:
    """Write both files into an existing, empty folder, and wait for the disk.

    Raises:
        ModelInvalid: the model's tensors are not what its own config asks for, or not finite.
        OSError: the disk refused.
    """
    tensors = candidate.model.state_tensors()
    from_tensors(candidate.model.config_json(), tensors)
    data = safetensors.torch.save(tensors)
    lineage = candidate.lineage
    if not lineage.created_at:
        now = datetime.now(UTC).isoformat(timespec="seconds")
        lineage = lineage.model_copy(update={"created_at": now})
    manifest = Manifest(
        task=candidate.contract.name,
        status=candidate.status,
        contract_hash=candidate.contract.hash(),
        contract=json.loads(candidate.contract.to_json()),
        architecture=candidate.model.config_json(),
        weights=Weights(bytes=len(data), sha256=hashlib.sha256(data).hexdigest()),
        lineage=lineage,
        metrics=candidate.metrics,
    )
    write_synced(folder / WEIGHTS, data)
    write_synced(folder / MANIFEST, _to_bytes(manifest))
    return manifest


def rewrite_manifest(folder: Path, manifest: Manifest) -> None:
    """Replace `model.json` in one step; the weights stay."""
    replace_file(folder / MANIFEST, _to_bytes(manifest))


def read_manifest(folder: Path) -> Manifest:
    """Read and check `model.json`.

    Raises:
        ModelInvalid: it is missing, too long, not JSON, or a field is not as expected.
    """
    path = folder / MANIFEST
    text = _read(path, _MAX_MANIFEST_BYTES)
    try:
        return Manifest.model_validate_json(text)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"]) or "the file"
        raise ModelInvalid(f"{path}: {where}: {first['msg']}") from error


def load_model(folder: Path | str, contract: Contract | None = None) -> LoadedModel:
    """Load a model after checking all of it.

    Raises:
        ModelInvalid: a file is missing, truncated or changed, the model is of another contract
            than `contract`, tensors are not those of its architecture, or a value is not finite.
    """
    folder = Path(folder)
    manifest = read_manifest(folder)
    theirs = _contract_of(folder, manifest)
    if contract is not None:
        _check_contract(folder, theirs, contract)
    path = folder / WEIGHTS
    expected = _expected_tensors(folder, manifest, theirs)
    _check_header(path, manifest.weights, expected)
    data = _read(path, manifest.weights.bytes)
    digest = hashlib.sha256(data).hexdigest()
    if digest != manifest.weights.sha256:
        raise ModelInvalid(
            f"{path}: content is not what {MANIFEST} describes: sha256 is {digest[:12]}…, "
            f"expected {manifest.weights.sha256[:12]}…"
        )
    try:
        tensors = safetensors.torch.load(data)
        model = from_tensors(manifest.architecture, tensors)
    except (ModelInvalid, safetensors.SafetensorError) as error:
        raise ModelInvalid(f"{path}: {error}") from error
    return LoadedModel(folder.name, folder, manifest, model)


def _contract_of(folder: Path, manifest: Manifest) -> Contract:
    """Return the contract that a model says it is of."""
    where = f"{folder / MANIFEST}: contract"
    try:
        contract = Contract.model_validate(manifest.contract)
    except ValidationError as error:
        first = error.errors()[0]
        field = ".".join(str(part) for part in first["loc"]) or "the whole"
        raise ModelInvalid(f"{where}: {field}: {first['msg']}") from error
    if contract.hash() != manifest.contract_hash:
        raise ModelInvalid(
            f"{where}_hash is {manifest.contract_hash!r}, expected {contract.hash()!r} of its "
            "own contract"
        )
    return contract


def _check_contract(folder: Path, theirs_of: Contract, contract: Contract) -> None:
    if theirs_of.hash() == contract.hash():
        return
    theirs = [channel.name for channel in theirs_of.observation]
    ours = [channel.name for channel in contract.observation]
    raise ModelInvalid(
        f"{folder / MANIFEST}: contract_hash is {theirs_of.hash()!r} (channels {theirs}), "
        f"expected {contract.hash()!r} of contract {contract.name} (channels {ours})"
    )


def _expected_tensors(
    folder: Path, manifest: Manifest, contract: Contract
) -> dict[str, tuple[Any, list[int]]]:
    """Return name -> (dtype, shape) that the architecture asks for, without allocating."""
    kind = manifest.architecture.get("kind")
    where = f"{folder / MANIFEST}: architecture"
    if not isinstance(kind, str) or kind not in KINDS:
        raise ModelInvalid(f"{where}: kind is {kind!r}, expected one of {sorted(KINDS)}")
    try:
        config = KINDS[kind].Config.model_validate(manifest.architecture)
        with torch.device("meta"):
            state = KINDS[kind](config).state_dict()
    except (ValueError, IndexError, RuntimeError) as error:
        raise ModelInvalid(f"{where}: {error}") from error
    observation, action = contract.observation_size, contract.action_size
    if (config.observation_size, config.action_size) != (observation, action):
        raise ModelInvalid(
            f"{where}: {config.observation_size} observations and {config.action_size} actions, "
            f"expected {observation} and {action} as in its contract"
        )
    return {name: (tensor.dtype, list(tensor.shape)) for name, tensor in state.items()}


def _check_header(path: Path, weights: Weights, expected: dict[str, tuple[Any, list[int]]]) -> None:
    """Compare length and header of the weights file with what they must be."""
    try:
        size = path.stat().st_size
        if size != weights.bytes:
            raise ModelInvalid(f"{path}: is {size} bytes long, expected {weights.bytes}")
        with path.open("rb") as file:
            length = int.from_bytes(file.read(8), "little")
            if not 2 <= length <= min(_MAX_HEADER_BYTES, size - 8):
                raise ModelInvalid(f"{path}: header length {length} does not fit the file")
            header = json.loads(file.read(length))
    except FileNotFoundError as error:
        raise ModelInvalid(f"{path}: is missing") from error
    except OSError as error:
        raise ModelInvalid(f"{path}: cannot be read: {error.strerror}") from error
    except (ValueError, RecursionError) as error:
        if isinstance(error, ModelInvalid):
            raise
        raise ModelInvalid(f"{path}: header is not JSON: {error}") from error
    found = _tensors_in(path, header, size - 8 - length)
    if found.keys() != expected.keys():
        raise ModelInvalid(
            f"{path}: lacks tensors {sorted(expected.keys() - found.keys())}, "
            f"has unknown ones {sorted(found.keys() - expected.keys())}"
        )
    for name, want in expected.items():
        if found[name] != want:
            raise ModelInvalid(f"{path}: tensor {name} is {found[name]}, expected {want}")


def _tensors_in(path: Path, header: Any, data_bytes: int) -> dict[str, tuple[Any, list[int]]]:
    """Parse a safetensors header: name -> (dtype, shape)."""
    try:
        entries = {name: entry for name, entry in header.items() if name != "__metadata__"}
        result = {
            str(name): (_DTYPES[entry["dtype"]], [int(n) for n in entry["shape"]])
            for name, entry in entries.items()
        }
        end = max((int(entry["data_offsets"][1]) for entry in entries.values()), default=0)
    except (AttributeError, KeyError, TypeError, ValueError, IndexError) as error:
        raise ModelInvalid(f"{path}: header is not that of safetensors: {error!r}") from error
    if end != data_bytes:
        raise ModelInvalid(f"{path}: holds {data_bytes} bytes of data, expected {end}")
    return result


def _read(path: Path, limit: int) -> bytes:
    """Read a regular file of at most `limit` bytes."""
    try:
        return read_bounded(path, limit)
    except FileNotFoundError as error:
        raise ModelInvalid(f"{path}: is missing") from error
    except FileRefused as error:
        raise ModelInvalid(str(error)) from error


def _to_bytes(manifest: Manifest) -> bytes:
    return (json.dumps(manifest.model_dump(mode="json"), indent=1) + "\n").encode()
