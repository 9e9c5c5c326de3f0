# SPDX-License-Identifier: Apache-2.0
"""Bad files of settings and calibrations, and bad parameters: refused by file and field."""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import twinloop.nodes
import twinloop_sim.nodes
import yaml
from hypothesis import given
from hypothesis import strategies as st
from messages import FLOATS, TEXTS
from tally import TALLY, examples
from texts import SCALARS, as_json, as_yaml, spoiled, spoiled_bytes
from twinloop.contract import Contract
from twinloop.drivers.hardware import load_hardware
from twinloop.motion.semantics import read_limits
from twinloop.nodes.parameters import ParameterRefused, ParameterSpec
from twinloop.perception.camera_model import load_camera
from twinloop.perception.mount import load_mount
from twinloop.safety.supervision_policy import parse_dependencies
from twinloop.safety.verdict import GuardSettings
from twinloop.tasks import baoding
from twinloop.yaml_files import read_yaml

from twinloop import contract

ROOT = Path(__file__).resolve().parents[2]
CONFIG = ROOT / "config"


@dataclass(frozen=True)
class Kind:
    """A file that is sound, and what reads it."""

    file: Path
    read: Callable[[Path], object]
    inputs: int = 200


KINDS = {
    "hardware file": Kind(CONFIG / "hardware" / "example.yaml", load_hardware, 400),
    "calibration": Kind(CONFIG / "cameras" / "twin" / "left.yaml", load_camera, 400),
    "camera mount": Kind(CONFIG / "cameras" / "twin" / "mount.yaml", load_mount, 400),
    "joint limits": Kind(CONFIG / "moveit" / "joint_limits.yaml", read_limits),
    "task": Kind(CONFIG / "task" / "baoding.yaml", baoding.load_config),
    "plain YAML": Kind(CONFIG / "twin" / "scene.yaml", read_yaml, 150),
}


@pytest.mark.parametrize("kind", KINDS)
def test_sound_files_are_read(kind: str) -> None:
    KINDS[kind].read(KINDS[kind].file)


@pytest.mark.parametrize("kind", KINDS)
def test_bad_files_are_refused_with_their_names(kind: str, tmp_path: Path) -> None:
    one = KINDS[kind]
    sound = one.file.read_bytes()
    values = st.one_of(spoiled(yaml.safe_load(sound)).map(as_yaml), spoiled_bytes(sound))
    path = tmp_path / f"{kind.replace(' ', '_')}.yaml"

    @examples(one.inputs)
    @given(content=values)
    def try_out(content: bytes) -> None:
        path.write_bytes(content)
        TALLY.read(f"file: {kind}", lambda: one.read(path), (ValueError,), (str(path),))

    try_out()


def test_files_that_are_no_files(tmp_path: Path) -> None:
    huge = tmp_path / "huge.yaml"
    with huge.open("wb") as file:
        file.truncate(2**33)
    for kind, one in KINDS.items():
        for path in (tmp_path, tmp_path / "none.yaml", huge, Path("/dev/zero")):
            TALLY.read(f"file: {kind}", lambda: one.read(path), (ValueError, OSError), (str(path),))  # noqa: B023


@examples(400)
@given(data=st.data())
def test_bad_contracts_are_refused_by_field(data: st.DataObject) -> None:
    sound = contract.load(data.draw(st.sampled_from(contract.available()))).model_dump(mode="json")
    text = data.draw(st.one_of(spoiled(sound).map(as_json), spoiled_bytes(as_json(sound))))
    TALLY.read("contract", lambda: Contract.from_json(text), (ValueError,), ("Contract",))


def _specs() -> list[tuple[str, ParameterSpec]]:
    """Every parameter of every node."""
    found = []
    for package in (twinloop.nodes, twinloop_sim.nodes):
        for module in pkgutil.iter_modules(package.__path__):
            loaded = importlib.import_module(f"{package.__name__}.{module.name}")
            for value in vars(loaded).values():
                specs = getattr(value, "parameters", ())
                if isinstance(value, type) and value.__module__ == loaded.__name__:
                    found += [(value.__name__, spec) for spec in specs]
    return found


SPECS = _specs()


@examples(1500)
@given(spec=st.sampled_from(SPECS), value=SCALARS | FLOATS | TEXTS)
def test_bad_parameters_are_refused_by_name(spec: tuple[str, ParameterSpec], value: Any) -> None:
    node, one = spec
    found: list[Any] = []
    TALLY.read(
        "parameter",
        lambda: found.append(one.check(value)),
        (ParameterRefused,),
        (one.name, "expected"),
    )
    for accepted in found:
        assert type(accepted) is type(one.default), (node, one.name)


def test_every_node_has_parameters() -> None:
    assert len({node for node, _ in SPECS}) >= 10


@examples(200)
@given(entries=st.lists(TEXTS | st.sampled_from(["a: b", "a:", ":b", "a"]), min_size=1, max_size=4))
def test_bad_dependencies_are_refused(entries: list[str]) -> None:
    TALLY.read("dependency", lambda: parse_dependencies(entries), (ValueError,), ("dependenc",))


@examples(200)
@given(name=st.sampled_from(sorted(GuardSettings.__dataclass_fields__)), value=FLOATS)
def test_bad_guard_settings_are_refused_by_name(name: str, value: float) -> None:
    if isinstance(getattr(GuardSettings(), name), bool):
        return
    TALLY.read(
        "guard setting", lambda: GuardSettings(**{name: value}), (ValueError,), ("guard setting",)
    )
