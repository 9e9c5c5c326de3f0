# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import json
import multiprocessing
import os
import signal
import threading
from collections.abc import Callable
from pathlib import Path

import orbiting_balls as orbit
import pytest
import safetensors.torch
import torch
from twinloop.learning import model_file
from twinloop.learning.gate import judge
from twinloop.learning.model_file import Candidate, Lineage, load_model
from twinloop.learning.registry import Registry, RegistryError
from twinloop.models import ModelInvalid

CONTRACT = orbit.contract()
FORK = multiprocessing.get_context("fork")


def candidate(seed: int = 0, **kwargs) -> Candidate:
    return Candidate(orbit.new_model(seed), CONTRACT, **kwargs)


@pytest.fixture
def registry(tmp_path: Path) -> Registry:
    return Registry(tmp_path, CONTRACT)


def contents(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


def decision(better: bool):
    ours, theirs = (0.0, 0.001) if better else (0.001, 0.0)
    return judge(
        orbit.Known(offset_m=ours),
        orbit.Known(offset_m=theirs),
        "v0001",
        [orbit.episode(0)],
        CONTRACT,
    )


def test_a_model_comes_back_as_it_went_in(registry: Registry):
    lineage = Lineage(episodes=("a", "b"), held_out=("c",), transitions=200, seed=3)
    given = candidate(lineage=lineage, metrics={"loss": 0.25, "failed": None})
    version = registry.add(given)
    assert version == "v0001"
    loaded = registry.load(version)
    assert loaded.version == version
    assert loaded.manifest.status == "candidate"
    assert loaded.manifest.lineage.episodes == ("a", "b")
    assert loaded.manifest.lineage.created_at
    assert loaded.manifest.metrics == {"loss": 0.25, "failed": None}
    assert loaded.manifest.contract_hash == CONTRACT.hash()
    x, a = torch.randn(2, 5, 7), torch.randn(5, 1)
    assert torch.equal(loaded.model.predict(x, a), given.model.predict(x, a))


def test_nothing_runs_until_something_is_promoted(registry: Registry):
    assert registry.current() is None
    assert registry.versions() == []
    registry.add(candidate())
    assert registry.current() is None
    registry.promote("v0001")
    assert registry.current() == "v0001"


def test_versions_count_on_and_past_four_digits(registry: Registry):
    registry.add(candidate())
    (registry.folder / "v0001").rename(registry.folder / "v9999")
    assert registry.add(candidate(1)) == "v10000"
    assert registry.versions() == ["v9999", "v10000"]


def test_rollback_goes_back_through_what_ran_before(registry: Registry):
    for seed in range(3):
        registry.promote(registry.add(candidate(seed)))
    assert registry.rollback() == "v0002"
    assert registry.current() == "v0002"
    assert registry.rollback() == "v0001"
    with pytest.raises(RegistryError, match="nothing to roll back to from v0001"):
        registry.rollback()
    registry.promote("v0003")
    assert registry.rollback() == "v0001"


def test_rollback_passes_over_what_cannot_be_loaded(registry: Registry):
    for seed in range(3):
        registry.promote(registry.add(candidate(seed)))
    (registry.folder / "v0002" / "weights.safetensors").unlink()
    assert registry.rollback() == "v0001"
    registry.promote("v0003")
    (registry.folder / "v0001" / "weights.safetensors").unlink()
    with pytest.raises(RegistryError, match=r"nothing to roll back to from v0003; .*is missing"):
        registry.rollback()
    assert registry.current() == "v0003"


def test_the_decision_is_kept_and_carried_out(registry: Registry):
    registry.promote(registry.add(candidate()))
    accepted, refused = registry.add(candidate(1)), registry.add(candidate(2))
    registry.decide(accepted, decision(better=True))
    assert registry.current() == accepted
    registry.decide(refused, decision(better=False))
    assert registry.current() == accepted
    assert registry.manifest(accepted).status == "promoted"
    kept = registry.manifest(refused)
    assert kept.status == "rejected"
    assert kept.decision is not None
    assert kept.decision.candidate.one_step_mm > kept.decision.running.one_step_mm


def test_weights_of_old_rejected_versions_are_pruned_and_their_records_stay(registry: Registry):
    registry.promote(registry.add(candidate()))
    for seed in range(1, 5):
        registry.decide(registry.add(candidate(seed)), decision(better=False))
    assert registry.prune(keep_rejected=2) == ["v0002", "v0003"]
    assert registry.prune(keep_rejected=2) == []
    assert registry.manifest("v0002").status == "rejected"
    with pytest.raises(ModelInvalid, match="weights.safetensors: is missing"):
        registry.load("v0002")
    registry.load("v0004")
    assert registry.add(candidate(9)) == "v0006"


def test_a_shipped_model_seeds_an_empty_registry_once(registry: Registry, tmp_path: Path):
    shipped = tmp_path / "shipped"
    shipped.mkdir()
    model_file.write_model(shipped, candidate(lineage=Lineage(transitions=9, command="train")))
    for path in (*shipped.iterdir(), shipped):
        path.chmod(0o555 if path.is_dir() else 0o444)
    assert registry.seed_from(shipped) == "v0001"
    assert registry.seed_from(shipped) == "v0001"
    assert registry.versions() == ["v0001"]
    assert registry.current() == "v0001"
    assert registry.manifest("v0001").status == "seed"
    assert registry.manifest("v0001").lineage.command == "train"
    registry.promote(registry.add(candidate(5)))
    registry.seed_from(shipped)
    assert registry.current() == "v0002"


def test_a_pointer_that_names_nothing_is_an_error_that_promote_mends(registry: Registry):
    registry.add(candidate())
    (registry.folder / "current").write_text("v00")
    with pytest.raises(RegistryError, match=r"current: is 'v00', expected one of \['v0001'\]"):
        registry.current()
    registry.promote("v0001")
    assert registry.current() == "v0001"


@pytest.mark.parametrize("version", ["v0007", "../v0001", "current", ""])
def test_an_unknown_version_is_refused(registry: Registry, version: str):
    registry.add(candidate())
    with pytest.raises(RegistryError, match="no version"):
        registry.load(version)


def test_a_candidate_of_another_contract_is_refused(registry: Registry):
    with pytest.raises(RegistryError, match="candidate of contract"):
        registry.add(Candidate(orbit.new_model(), orbit.contract("other")))


def test_a_candidate_with_nan_weights_is_refused_and_leaves_nothing(registry: Registry):
    bad = candidate()
    bad.model.network.layers[0].weight.data[0, 0, 0] = float("nan")
    with pytest.raises(ModelInvalid, match="NaN"):
        registry.add(bad)
    assert contents(registry.folder) <= {".lock"}


def rewrite(folder: Path, change: Callable[[dict], None]) -> None:
    content = json.loads((folder / "model.json").read_text())
    change(content)
    (folder / "model.json").write_text(json.dumps(content))


def with_weights(folder: Path, data: bytes) -> None:
    """Replace the weights, with a manifest that agrees, so that only the content is wrong."""
    import hashlib

    (folder / "weights.safetensors").write_bytes(data)
    rewrite(
        folder,
        lambda c: c.update(
            weights={"bytes": len(data), "sha256": hashlib.sha256(data).hexdigest()}
        ),
    )


def with_tensors(folder: Path, change: Callable[[dict[str, torch.Tensor]], None]) -> None:
    tensors = orbit.new_model().state_tensors()
    change(tensors)
    with_weights(folder, safetensors.torch.save(tensors))


def put_nan(tensors: dict[str, torch.Tensor]) -> None:
    tensors["network.layers.1.weight"][1, 3, 2] = float("inf")


def flip_byte(folder: Path) -> None:
    path = folder / "weights.safetensors"
    data = bytearray(path.read_bytes())
    data[-5] ^= 0x10
    path.write_bytes(data)


def truncate(folder: Path) -> None:
    path = folder / "weights.safetensors"
    os.truncate(path, path.stat().st_size - 100)


BROKEN: dict[str, tuple[Callable[[Path], object], str]] = {
    "no manifest": (lambda f: (f / "model.json").unlink(), "model.json: is missing"),
    "no weights": (lambda f: (f / "weights.safetensors").unlink(), "safetensors: is missing"),
    "empty manifest": (lambda f: (f / "model.json").write_text(""), "model.json: the file"),
    "half a manifest": (lambda f: os.truncate(f / "model.json", 300), "Invalid JSON"),
    "unknown format": (lambda f: rewrite(f, lambda c: c.update(format="pickle")), "format: "),
    "unknown key": (lambda f: rewrite(f, lambda c: c.update(code="rm -r")), "code: Extra"),
    "infinite metric": (
        lambda f: rewrite(f, lambda c: c.update(metrics={"loss": float("inf")})),
        "metrics.loss",
    ),
    "no contract hash": (lambda f: rewrite(f, lambda c: c.pop("contract_hash")), "contract_hash"),
    "other contract": (
        lambda f: rewrite(f, lambda c: c.update(contract_hash="0" * 16)),
        "contract_hash is '0000000000000000'.*, expected",
    ),
    "unknown kind": (
        lambda f: rewrite(f, lambda c: c["architecture"].update(kind="os.system")),
        "kind is 'os.system', expected one of",
    ),
    "other width": (
        lambda f: rewrite(f, lambda c: c["architecture"].update(hidden=[25])),
        "tensor network.layers.0.weight is .*24.*expected.*25",
    ),
    "huge width": (
        lambda f: rewrite(f, lambda c: c["architecture"].update(hidden=[8192] * 40, members=64)),
        "(?s)architecture: .*expected at most 16 widths",
    ),
    "other sizes": (
        lambda f: rewrite(f, lambda c: c["architecture"].update(observation_size=8)),
        "8 observations and 1 actions, expected 7 and 1",
    ),
    "huge file claimed": (
        lambda f: rewrite(f, lambda c: c["weights"].update(bytes=2**40)),
        "weights.bytes",
    ),
    "truncated weights": (truncate, r"is \d+ bytes long, expected \d+"),
    "empty weights": (
        lambda f: (f / "weights.safetensors").write_bytes(b""),
        "is 0 bytes long, expected",
    ),
    "a flipped bit": (flip_byte, "sha256"),
    "no safetensors": (lambda f: with_weights(f, b"\x80\x04pickled" * 30), "header length"),
    "header of another kind": (
        lambda f: with_weights(f, (2).to_bytes(8, "little") + b"[]"),
        "header is not that of safetensors",
    ),
    "header that lies": (
        lambda f: with_weights(
            f,
            (68).to_bytes(8, "little")
            + b'{"a":{"dtype":"F32","shape":[1000000],"data_offsets":[0,4000000]}}'.ljust(68),
        ),
        "holds 0 bytes of data, expected 4000000",
    ),
    "NaN or infinite": (
        lambda f: with_tensors(f, put_nan),
        "network.layers.1.weight has 1 values that are NaN or infinite",
    ),
    "missing tensor": (
        lambda f: with_tensors(f, lambda t: t.pop("action_mean")),
        r"lacks tensors \['action_mean'\]",
    ),
    "extra tensor": (
        lambda f: with_tensors(f, lambda t: t.update(extra=torch.zeros(3))),
        r"unknown ones \['extra'\]",
    ),
    "wrong shape": (
        lambda f: with_tensors(f, lambda t: t.update(action_mean=torch.zeros(2))),
        r"tensor action_mean is .*\[2\].*expected.*\[1\]",
    ),
    "wrong dtype": (
        lambda f: with_tensors(f, lambda t: t.update(action_mean=torch.zeros(1).double())),
        r"tensor action_mean is .*float64.*expected.*float32",
    ),
    "scale of zero": (
        lambda f: with_tensors(f, lambda t: t.update(action_scale=torch.zeros(1))),
        "action_scale has values <= 0",
    ),
}


@pytest.mark.parametrize("name", BROKEN)
def test_a_broken_model_is_refused_by_name_and_never_promoted(registry: Registry, name: str):
    registry.promote(registry.add(candidate(1)))
    version = registry.add(candidate())
    damage, message = BROKEN[name]
    damage(registry.folder / version)
    with pytest.raises(ModelInvalid, match=message) as refused:
        registry.load(version)
    assert str(registry.folder / version) in str(refused.value)
    with pytest.raises(ModelInvalid):
        registry.promote(version)
    assert registry.current() == "v0001"


def add_and_die(root: str, owner: object, name: str) -> None:
    setattr(owner, name, lambda *_: os.kill(os.getpid(), signal.SIGKILL))
    registry = Registry(root, CONTRACT)
    registry.promote(registry.add(candidate(9)))


def killed_while_adding(root: Path, owner: object, name: str) -> None:
    """Add and promote a model in a process that is killed where it calls `owner.name`."""
    writer = FORK.Process(target=add_and_die, args=(str(root), owner, name))
    writer.start()
    writer.join(60)
    assert writer.exitcode == -signal.SIGKILL


@pytest.mark.parametrize(("owner", "name"), [(model_file, "_to_bytes"), (Path, "rename")])
def test_a_writer_that_dies_leaves_nothing_half(
    registry: Registry, tmp_path: Path, owner: object, name: str
):
    registry.promote(registry.add(candidate()))
    killed_while_adding(tmp_path, owner, name)
    assert registry.versions() == ["v0001"]
    assert registry.current() == "v0001"
    assert any(path.name.startswith(".adding-") for path in registry.folder.iterdir())
    assert registry.add(candidate(2)) == "v0002"
    registry.load("v0002")
    assert not any(path.name.startswith(".adding-") for path in registry.folder.iterdir())


def test_a_promotion_is_in_the_history_though_its_writer_died(registry: Registry, tmp_path: Path):
    registry.promote(registry.add(candidate()))
    killed_while_adding(tmp_path, Registry, "_log")
    assert registry.current() == "v0002"
    registry.promote(registry.add(candidate(3)))
    assert registry.rollback() == "v0002"


def test_recover_carries_out_a_promotion_that_was_decided(
    registry: Registry, monkeypatch: pytest.MonkeyPatch
):
    registry.promote(registry.add(candidate()))
    version, undecided = registry.add(candidate(1)), registry.add(candidate(2))
    with monkeypatch.context() as patch:

        def crash(*_: object) -> None:
            raise KeyboardInterrupt

        patch.setattr(Registry, "_point_to", crash)
        with pytest.raises(KeyboardInterrupt):
            registry.decide(version, decision(better=True))
    assert registry.current() == "v0001"
    assert registry.recover() == [undecided]
    assert registry.current() == version
    registry.rollback()
    registry.recover()
    assert registry.current() == "v0001"


def test_a_line_cut_short_does_not_spoil_the_history(registry: Registry):
    registry.promote(registry.add(candidate()))
    with (registry.folder / "promotions.jsonl").open("a") as file:
        file.write('{"version": "v00')
    registry.promote(registry.add(candidate(1)))
    assert [p.version for p in registry.promotions()] == ["v0001", "v0002"]


def add_many(root: str, count: int) -> None:
    registry = Registry(root, CONTRACT)
    for seed in range(count):
        registry.promote(registry.add(candidate(seed)))


def test_readers_and_writers_at_once_never_see_a_broken_model(registry: Registry, tmp_path: Path):
    registry.promote(registry.add(candidate()))
    writers = [FORK.Process(target=add_many, args=(str(tmp_path), 5)) for _ in range(2)]
    for writer in writers:
        writer.start()
    errors: list[Exception] = []

    def read() -> None:
        while any(writer.is_alive() for writer in writers):
            try:
                current = registry.current()
                assert current is not None
                load_model(registry.folder / current, CONTRACT)
            except Exception as error:
                errors.append(error)
                return

    readers = [threading.Thread(target=read) for _ in range(2)]
    for reader in readers:
        reader.start()
    for worker in (*readers, *writers):
        worker.join(60)
    assert not errors
    assert len(registry.versions()) == 11
    assert len(registry.promotions()) == 11
