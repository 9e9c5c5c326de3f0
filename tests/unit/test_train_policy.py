# SPDX-License-Identifier: Apache-2.0
"""`twinloop train TASK --algorithm ...`: a policy in the registry, measured, from twin or bags."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from twinloop.bags.read import complete_bags
from twinloop.cli.main import main
from twinloop.contract import load as load_contract
from twinloop.learning import policy_training
from twinloop.learning.off_policy import OffPolicySettings
from twinloop.learning.registry import Registry
from twinloop.models.actor import Actor


def run(*words: object) -> int:
    with pytest.raises(SystemExit) as ended:
        main(["train", *map(str, words)])
    return int(ended.value.code or 0)


def test_a_policy_is_trained_in_a_twin_and_then_from_its_bags(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    online, offline = tmp_path / "online", tmp_path / "offline"
    common = ["valve", "--evaluate", 1, "--json"]
    assert run(*common, "--algorithm", "sac", "--transitions", 200, "--out", online) == 0
    report = json.loads(capsys.readouterr().out)
    assert report["policy_training"]["transitions"] == 200
    assert len(complete_bags(online / "bags")) == 4
    again = [*common, "--algorithm", "iql", "--updates", 20, "--from-bags", online]
    assert run(*again, "--out", offline) == 0
    report = json.loads(capsys.readouterr().out)
    assert report["policy_training"] == {"algorithm": "iql", "transitions": 200, "updates": 20.0}
    registry = Registry(offline, load_contract("valve"))
    version = registry.current()
    assert version is not None
    loaded = registry.load(version)
    assert isinstance(loaded.model, Actor)
    assert len(loaded.manifest.lineage.episodes) == 4
    assert len(complete_bags(offline / "bags" / "evaluation")) == 1


def test_what_cannot_be_trained_is_refused_by_name(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "run"
    assert run("valve", "--algorithm", "bc", "--out", out) == 2
    assert "needs --from-bags" in capsys.readouterr().err
    assert run("baoding", "--goal", "hold", "--algorithm", "sac", "--out", out) == 2
    assert "goal hold of task baoding is not in its observation" in capsys.readouterr().err
    empty = tmp_path / "empty"
    empty.mkdir()
    assert run("valve", "--algorithm", "iql", "--from-bags", empty, "--out", out) == 2
    assert "no complete bag" in capsys.readouterr().err


def test_settings_of_a_task_come_from_its_file(monkeypatch: pytest.MonkeyPatch) -> None:
    assert policy_training.online_settings("valve").steps == 3
    assert policy_training.online_settings("pushing") == OffPolicySettings()
    assert policy_training.offline_settings("valve", "bear", updates=7).updates == 7
    monkeypatch.setattr(policy_training, "read_yaml", lambda _: {"sac": {"stepz": 3}})
    with pytest.raises(ValueError, match=r"unknown settings \['stepz'\]"):
        policy_training.online_settings("valve")
    monkeypatch.setattr(policy_training, "read_yaml", lambda _: {"sac": {"steps": "x"}})
    with pytest.raises(ValueError, match=r"valve\.yaml: sac: .*"):
        policy_training.online_settings("valve")
