# SPDX-License-Identifier: Apache-2.0
"""Other people's policies, ONNX or TorchScript with a contract file, as models of ours."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import numpy as np
import torch
from pydantic import ValidationError

from twinloop.contract import Contract
from twinloop.files import FileRefused, read_bounded
from twinloop.models.base import ModelInvalid
from twinloop.models.exported import MOST_BYTES, Exported, OnnxPolicy, ScriptedPolicy

KINDS = {".onnx": "onnx", ".pt": "torchscript", ".ts": "torchscript"}
_MOST_CONTRACT_BYTES = 2**20


def read_contract(path: Path) -> Contract:
    """Return the contract in a JSON file, as `Contract.to_json` writes it.

    Raises:
        ModelInvalid: it is missing, or is no contract.
    """
    try:
        return Contract.from_json(read_bounded(path, _MOST_CONTRACT_BYTES))
    except (OSError, FileRefused) as error:
        raise ModelInvalid(f"{path}: cannot be read: {error}") from error
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"]) or "the file"
        raise ModelInvalid(f"{path}: {where}: {first['msg']}") from error


def load(
    path: Path,
    contract: Contract,
    *,
    acts: Literal["change", "target"] = "target",
    in_own_units: bool = False,
    chunk: int = 1,
    runs_code: bool = False,
) -> Exported:
    """Return an exported policy as a model.

    Args:
        path: `.onnx`, or `.pt` and `.ts` for TorchScript.
        contract: what it observes and commands.
        acts: its actions are targets, or changes of the command in force.
        in_own_units: its actions are in the contract's unit; else ±1 spans the contract's limits,
            or the largest change in a step.
        chunk: actions ahead that it gives.
        runs_code: a TorchScript file, which is a program, is run once to check its sizes.

    Raises:
        ModelInvalid: the file is of another kind, or not of the contract's sizes.
    """
    kind = KINDS.get(path.suffix.lower())
    if kind is None:
        raise ModelInvalid(f"{path}: ends in {path.suffix!r}, expected one of {sorted(KINDS)}")
    try:
        content = read_bounded(path, MOST_BYTES)
    except (OSError, FileRefused) as error:
        raise ModelInvalid(f"{path}: cannot be read: {error}") from error
    made = OnnxPolicy if kind == "onnx" else ScriptedPolicy
    config = {
        "kind": kind,
        "observation_size": contract.observation_size,
        "action_size": contract.action_size,
        "file_bytes": len(content),
        "chunk": chunk,
        "acts": acts,
        "clips": not in_own_units,
    }
    observed, acted = torch.zeros(contract.observation_size), torch.zeros(contract.action_size)
    middle, half = acted, torch.ones_like(acted)
    if not in_own_units and acts == "target":
        lower, upper = torch.tensor(contract.action.lower), torch.tensor(contract.action.upper)
        middle, half = 0.5 * (upper + lower), 0.5 * (upper - lower)
    elif not in_own_units:
        half = torch.full_like(acted, contract.action.rate * contract.period_s)
    tensors = {
        "observation_mean": observed,
        "observation_scale": torch.ones_like(observed),
        "difference_scale": torch.ones_like(observed),
        "action_mean": middle,
        "action_scale": half,
        "file": torch.from_numpy(np.frombuffer(content, dtype=np.uint8).copy()),
    }
    try:
        policy = made.from_tensors(config, tensors)
        if isinstance(policy, ScriptedPolicy) and runs_code:
            policy.run_code()
    except ModelInvalid as error:
        raise ModelInvalid(f"{path}: {error}") from error
    return policy
