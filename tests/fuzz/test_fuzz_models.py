# SPDX-License-Identifier: Apache-2.0
"""Bad model files: refused by file and field, before anything is allocated for them."""

from __future__ import annotations

import hashlib
import json
import resource
import shutil
import struct
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tally import TALLY, examples
from texts import as_json, spoiled, spoiled_bytes
from twinloop.grasping import weights as grasping
from twinloop.learning import checkpoint
from twinloop.learning.model_file import load_model
from twinloop.learning.registry import Registry, RegistryError
from twinloop.models import ModelInvalid
from twinloop.perception.ball_tracker import weights as tracker

from twinloop import contract

MODELS = Path(__file__).resolve().parents[2] / "models"
CONTRACT = contract.load("valve")
WEIGHTS = "weights.safetensors"
# Beyond what the models themselves need; a declared size of gigabytes shows.
MOST_MEMORY_KIB = 400_000


@dataclass(frozen=True)
class Kind:
    """A folder with a sound model, what reads it, and where its manifest tells of the weights."""

    folder: Path
    manifest: str
    read: Callable[[Path], object]
    told: Callable[[Any], dict[str, Any]]
    inputs: int


KINDS = {
    "dynamics model": Kind(
        MODELS / "valve" / "v0001",
        "model.json",
        lambda folder: load_model(folder, CONTRACT),
        lambda manifest: manifest["weights"],
        200,
    ),
    "ball tracker": Kind(
        MODELS / "ball_tracker", "tracker.json", tracker.load, lambda manifest: manifest, 100
    ),
    "grasp network": Kind(
        MODELS / "grasping", "grasping.json", grasping.load, lambda manifest: manifest, 100
    ),
}


@st.composite
def spoiled_weights(draw: Any, sound: bytes) -> bytes:
    """Other tensors than those there were: in the header, in the data, or no tensors at all."""
    length = struct.unpack("<Q", sound[:8])[0]
    header, data = json.loads(sound[8 : 8 + length]), sound[8 + length :]
    tensors = st.sampled_from(sorted(header.keys() - {"__metadata__"}))
    way = draw(st.integers(0, 6))
    if way == 0:
        return draw(spoiled_bytes(sound))
    if way == 1:
        name = draw(tensors)
        place = header[name]["data_offsets"][0]
        wrong = struct.pack("<f", draw(st.sampled_from([float("nan"), float("inf")])))
        return sound[: 8 + length + place] + wrong + sound[8 + length + place + 4 :]
    if way == 2:
        length = draw(st.integers(0, 2**64 - 1))
        return struct.pack("<Q", length) + sound[8:]
    if way == 3:
        name = draw(tensors)
        header[name]["shape"] = draw(SHAPES)
    elif way == 4:
        name = draw(tensors)
        header[name]["dtype"] = draw(st.sampled_from(["F16", "I64", "F64", "BOOL", "U8", "X", ""]))
    elif way == 5:
        old = draw(tensors)
        header[draw(st.sampled_from(["../../x", "__metadata__", "", "x" * 1000]))] = header.pop(old)
    else:
        header = draw(spoiled(header))
    return packed(header, data)


SHAPES = st.lists(
    st.sampled_from([0, -1, 1, 2**31, 2**40, 2**62, 2**64]) | st.integers(), max_size=5
)


def packed(header: Any, data: bytes) -> bytes:
    text = as_json(header)
    return struct.pack("<Q", len(text)) + text + data


@pytest.mark.parametrize("kind", KINDS)
def test_bad_model_files_are_refused(kind: str, tmp_path: Path) -> None:
    one = KINDS[kind]
    weights, manifest = (one.folder / name for name in (WEIGHTS, one.manifest))
    sound, about = weights.read_bytes(), json.loads(manifest.read_text())
    folder = tmp_path / "v0009"
    shutil.copytree(one.folder, folder)
    one.read(folder)

    @examples(one.inputs)
    @given(data=st.data())
    def try_out(data: st.DataObject) -> None:
        told, content = json.loads(manifest.read_text()), sound
        if data.draw(st.booleans()):
            content = data.draw(spoiled_weights(sound))
            if data.draw(st.integers(0, 4)):  # whoever makes harm can count too
                one.told(told)["bytes"] = len(content)
                one.told(told)["sha256"] = hashlib.sha256(content).hexdigest()
            text = as_json(told)
        else:
            text = data.draw(spoiled(about).map(as_json) | spoiled_bytes(as_json(about)))
        (folder / WEIGHTS).write_bytes(content)
        (folder / one.manifest).write_bytes(text)
        TALLY.read(f"file: {kind}", lambda: one.read(folder), (ModelInvalid,), (str(folder),))

    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    try_out()
    grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
    assert grown < MOST_MEMORY_KIB, f"memory grew by {grown / 1024:.0f} MiB"


@examples(60)
@given(data=st.data())
def test_bad_checkpoints_are_refused(data: st.DataObject, tmp_path: Path) -> None:
    model = load_model(KINDS["dynamics model"].folder).model
    checkpoint.save_model(tmp_path, "one", model, {"loss": 1.0})
    path = tmp_path / "one.safetensors"
    path.write_bytes(data.draw(spoiled_weights(path.read_bytes())))
    TALLY.read(
        "file: checkpoint",
        lambda: checkpoint.load_model(tmp_path, "one"),
        (checkpoint.CheckpointInvalid,),
        (str(path),),
    )


@examples(150)
@given(content=st.binary(max_size=100) | st.sampled_from([b"v0001\n", b"../v0001", b"v0002"]))
def test_a_pointer_that_names_no_version_is_refused(content: bytes, tmp_path: Path) -> None:
    registry = Registry(tmp_path, CONTRACT)
    (registry.folder / "v0001").mkdir(parents=True, exist_ok=True)
    (registry.folder / "current").write_bytes(content)
    (registry.folder / "promotions.jsonl").write_bytes(content)
    TALLY.read("file: registry", registry.current, (RegistryError,), (str(registry.folder),))
    assert registry.promotions() == []


def test_files_that_are_none(tmp_path: Path) -> None:
    for kind, one in KINDS.items():
        folder = tmp_path / one.manifest
        shutil.copytree(one.folder, folder)
        for name in (WEIGHTS, one.manifest):
            (folder / name).unlink()
            for target in ("/dev/zero", str(tmp_path), "/nowhere"):
                (folder / name).symlink_to(target)
                refuse = partial(one.read, folder)
                TALLY.read(f"file: {kind}", refuse, (ModelInvalid,), (str(folder),))
                (folder / name).unlink()
            shutil.copy(one.folder / name, folder)
