# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import orbiting_bags as orbit
import pytest
from twinloop.cli.errors import CommandError
from twinloop.cli.models import app
from twinloop.learning.gate import GateConfig, judge
from twinloop.learning.model_file import Candidate, Lineage
from twinloop.learning.policy_gate import judge_new
from twinloop.learning.registry import Registry
from twinloop.models.actor import Actor, ActorConfig
from typer.testing import CliRunner


@pytest.fixture
def registry(tmp_path: Path) -> Registry:
    registry = Registry(tmp_path, orbit.CONTRACT)
    first = orbit.untrained_model(0)
    registry.promote(registry.add(Candidate(first, orbit.CONTRACT)))
    second = orbit.untrained_model(1)
    lineage = Lineage(parent="v0001", episodes=("a", "b"), transitions=120)
    version = registry.add(Candidate(second, orbit.CONTRACT, lineage, {"loss_last": 0.5}))
    episode = orbit.episode("held-out", 3)
    anything = GateConfig(improvement=0.0, overall_tolerance=9, one_step_tolerance=9)
    registry.decide(version, judge(second, first, "v0001", [episode], orbit.CONTRACT, anything))
    return registry


def call(registry: Registry, *words: str) -> str:
    given = [*words, "--registry", str(registry.folder.parent)]
    result = CliRunner().invoke(app, given, env={"COLUMNS": "200"})
    if isinstance(result.exception, CommandError):
        raise result.exception
    assert result.exit_code == 0, result.output
    return result.output


def call_json(registry: Registry, *words: str) -> Any:
    return json.loads(call(registry, *words, "--json"))


def test_list_shows_versions_errors_and_the_one_that_runs(registry: Registry):
    os.truncate(registry.path("v0001") / "model.json", 10)
    listed = call_json(registry, "list")
    assert listed["current"] == registry.current()
    broken, whole = listed["versions"]
    assert "model.json" in broken["error"]
    assert whole["version"] == "v0002"
    assert whole["lineage"]["episodes"] == 2
    assert whole["decision"]["candidate"]["one_step_mm"] > 0
    text = call(registry, "list")
    assert "v0002" in text
    assert "unreadable" in text


def test_show_gives_lineage_and_every_figure_of_the_decision(registry: Registry):
    text = call(registry, "show", "v0002")
    for part in ("v0001", "120", "loss last", "after seven steps, mean over bands", "60-90 deg"):
        assert part in text
    shown = call_json(registry, "show", "current")
    assert shown["version"] == registry.current()
    assert shown["usable"] == "yes"


def test_policies_are_shown_with_their_reason_for_they_have_no_errors(registry: Registry):
    policy = Actor(
        ActorConfig(
            observation_size=orbit.CONTRACT.observation_size,
            action_size=orbit.CONTRACT.action_size,
            hidden=(4,),
        )
    )
    version = registry.add(Candidate(policy, orbit.CONTRACT))
    registry.decide(version, judge_new(policy, None, [orbit.episode("one", 0)], GateConfig()))
    text = call(registry, "show", version)
    assert "promoted: its actions are finite on 61 recorded observations" in text
    assert "seven steps" not in text
    assert version in call(registry, "list")


def test_show_says_why_a_version_cannot_be_used(registry: Registry):
    os.truncate(registry.path("v0002") / "weights.safetensors", 10)
    assert "is 10 bytes long" in call_json(registry, "show", "v0002")["usable"]


def test_promote_and_rollback_move_the_pointer(registry: Registry):
    before = registry.current()
    other = "v0001" if before == "v0002" else "v0002"
    assert call_json(registry, "promote", other) == {"before": before, "current": other}
    assert registry.current() == other
    assert call_json(registry, "rollback") == {"before": other, "current": before}


def test_a_broken_pointer_is_mended_by_promote(registry: Registry):
    (registry.folder / "current").write_text("?")
    with pytest.raises(CommandError, match="current: is '\\?'"):
        call(registry, "list")
    call(registry, "promote", "v0001")
    assert registry.current() == "v0001"


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("show", "v0009"), "no version 'v0009'; has \\['v0001', 'v0002'\\]"),
        (("promote", "../v0001"), "no version"),
        (("list", "--task", "juggling"), "no contract 'juggling'"),
    ],
)
def test_mistakes_end_with_one_clear_line(registry: Registry, words: tuple[str, ...], message: str):
    with pytest.raises(CommandError, match=message):
        call(registry, *words)


def test_an_empty_folder_is_named(tmp_path: Path):
    with pytest.raises(CommandError, match="holds no models"):
        call(Registry(tmp_path / "nothing", orbit.CONTRACT), "list")
