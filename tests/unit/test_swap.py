# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import hashlib
import json
import os
import shutil
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TypeVar

import orbiting_balls as orbit
import pytest
import torch
from twinloop.learning import swap
from twinloop.learning.model_file import Candidate
from twinloop.learning.registry import Registry
from twinloop.learning.swap import ModelSlot
from twinloop.models import ModelInvalid

CONTRACT = orbit.contract()
Found = TypeVar("Found")


@pytest.fixture
def registry(tmp_path: Path) -> Registry:
    registry = Registry(tmp_path, CONTRACT)
    for seed in range(3):
        registry.add(Candidate(orbit.new_model(seed), CONTRACT))
    return registry


@pytest.fixture
def slot() -> Iterator[ModelSlot]:
    slot = ModelSlot(CONTRACT)
    yield slot
    slot.close()


def eventually(look: Callable[[], Found | None]) -> Found:
    deadline = time.monotonic() + 30
    while time.monotonic() < deadline:
        found = look()
        if found is not None:
            return found
        time.sleep(0.002)
    raise AssertionError("nothing came within 30 s")


def test_an_offered_model_is_taken_once_and_whole(slot: ModelSlot, registry: Registry):
    assert slot.take() is None
    slot.offer(registry.path("v0002"), "v0002")
    model, version = eventually(slot.take)
    assert version == "v0002"
    assert slot.take() is None
    expected = registry.load("v0002").model
    x, a = torch.randn(2, 4, 7), torch.randn(4, 1)
    assert torch.equal(model.predict(x, a), expected.predict(x, a))


def test_the_model_to_start_with_is_loaded_at_once(slot: ModelSlot, registry: Registry):
    model, version = slot.load(registry.path("v0001"))
    assert version == "v0001"
    assert model.observation_size == 7
    with pytest.raises(ModelInvalid, match="is missing"):
        slot.load(registry.folder / "v0099")


def fill_with_nan(weights: Path) -> None:
    """Overwrite the last values, with a manifest that agrees."""
    data = weights.read_bytes()[:-400] + b"\xff" * 400
    weights.write_bytes(data)
    manifest = weights.with_name("model.json")
    content = json.loads(manifest.read_text())
    content["weights"]["sha256"] = hashlib.sha256(data).hexdigest()
    manifest.write_text(json.dumps(content))


BROKEN: dict[str, Callable[[Path], None]] = {
    "missing": Path.unlink,
    "truncated": lambda weights: os.truncate(weights, weights.stat().st_size // 2),
    "NaN": fill_with_nan,
}


@pytest.mark.parametrize("name", BROKEN)
def test_an_invalid_model_is_refused_with_its_reason_and_the_next_good_one_is_taken(
    slot: ModelSlot, registry: Registry, tmp_path: Path, name: str
):
    weights = registry.path("v0002") / "weights.safetensors"
    shutil.copytree(registry.path("v0002"), tmp_path / "good")
    BROKEN[name](weights)
    slot.offer(registry.path("v0002"), "v0002")
    refusal = eventually(slot.refusal)
    assert refusal.startswith("v0002: ")
    assert str(weights) in refusal
    assert slot.take() is None
    assert slot.refusal() is None
    slot.offer(registry.path("v0003"), "v0003")
    assert eventually(slot.take)[1] == "v0003"
    shutil.copytree(tmp_path / "good", registry.path("v0002"), dirs_exist_ok=True)
    slot.offer(registry.path("v0002"), "v0002")
    assert eventually(slot.take)[1] == "v0002"


def test_a_model_that_overflows_is_refused_though_its_weights_are_finite(
    slot: ModelSlot, registry: Registry
):
    model = orbit.new_model(7)
    model.network.layers[1].bias.data.fill_(3e38)
    model.difference_scale.fill_(1e10)
    version = registry.add(Candidate(model, CONTRACT))
    slot.offer(registry.path(version))
    assert "predicts NaN or infinite values" in eventually(slot.refusal)
    assert slot.take() is None


def test_a_model_of_another_contract_is_refused(registry: Registry):
    slot = ModelSlot(orbit.contract("other"))
    slot.offer(registry.path("v0001"))
    assert "contract_hash" in eventually(slot.refusal)
    slot.close()


def test_of_offers_that_wait_the_newest_is_taken(
    slot: ModelSlot, registry: Registry, monkeypatch: pytest.MonkeyPatch
):
    reading, go_on = threading.Event(), threading.Event()
    load = swap.load_model

    def slow(*arguments):
        reading.set()
        assert go_on.wait(30)
        return load(*arguments)

    monkeypatch.setattr(swap, "load_model", slow)
    slot.offer(registry.path("v0001"))
    assert reading.wait(30)
    slot.offer(registry.path("v0002"))
    slot.offer(registry.path("v0003"))
    go_on.set()
    seen = []
    while "v0003" not in seen:
        seen.append(eventually(slot.take)[1])
    assert "v0002" not in seen


def test_the_same_announcement_twice_swaps_once(slot: ModelSlot, registry: Registry):
    for _ in range(2):
        slot.offer(registry.path("v0001"), "v0001")
    assert eventually(slot.take)[1] == "v0001"
    slot.offer(registry.path("v0001"), "v0001")
    slot.offer(registry.path("v0002"), "v0002")
    assert eventually(slot.take)[1] == "v0002"


def test_nothing_waits_after_close(registry: Registry):
    slot = ModelSlot(CONTRACT)
    slot.close()
    slot.offer(registry.path("v0001"))
    assert slot.take() is None
    slot.close()
