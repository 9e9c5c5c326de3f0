# SPDX-License-Identifier: Apache-2.0
"""`twinloop bag`: what it prints and the codes it ends with."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from bag_samples import rollout_bag
from twinloop.bags import complete_bags
from twinloop.cli.bag import app
from typer.testing import CliRunner, Result


def run(*arguments: object) -> Result:
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name in ("a", "b"):
        rollout_bag(tmp_path / name, steps=30)
    return tmp_path


def cut(bag: Path) -> None:
    path = next(bag.glob("*.mcap"))
    path.write_bytes(path.read_bytes()[:80_000])


def test_info_shows_one_bag_or_a_folder_of_them(folder: Path) -> None:
    one = run("info", folder / "a")
    assert one.exit_code == 0
    assert "joint_states" in one.stdout
    assert "hand24" in one.stdout
    (a, b) = json.loads(run("info", "--json", folder).stdout)
    assert [Path(a["path"]).name, Path(b["path"]).name] == ["a", "b"]
    assert a["episode"]["steps"] == 30
    assert a["topics"]["/plan_stats"] == 30


def test_info_of_nothing_is_an_error(tmp_path: Path) -> None:
    assert run("info", tmp_path / "nowhere").exit_code == 2
    assert "nowhere" in run("info", tmp_path / "nowhere").stderr
    assert "no bags in" in run("info", tmp_path).stderr


def test_check_ends_with_1_only_for_errors(folder: Path) -> None:
    assert run("check", folder).exit_code == 0
    cut(folder / "b")
    result = run("check", folder)
    assert result.exit_code == 1
    assert "a: sound" in result.stdout
    assert "b: not sound" in result.stdout
    reports = json.loads(run("check", "--json", folder).stdout)
    assert [report["is_sound"] for report in reports] == [True, False]
    assert reports[1]["findings"][0]["what"] == "damage"


def test_repair_mends_unfinished_bags_of_a_folder(folder: Path) -> None:
    assert "nothing to repair" in run("repair", folder).stdout
    cut(folder / "b")
    (folder / "b" / "metadata.yaml").unlink()
    (report,) = json.loads(run("repair", "--json", folder).stdout)
    assert report["messages_kept"] > 0
    assert Path(report["original"]).name == "b.broken"
    assert [bag.name for bag in complete_bags(folder)] == ["a", "b"]
    assert run("check", folder).exit_code == 0


def test_repair_can_write_elsewhere(folder: Path) -> None:
    cut(folder / "b")
    assert run("repair", folder / "b", "--output", folder / "c").exit_code == 0
    assert run("check", folder / "c").exit_code == 0
    assert run("check", folder / "b").exit_code == 1
    both = run("repair", folder / "a", folder / "b", "--output", folder / "d")
    assert both.exit_code == 2
    assert "--output takes one bag" in both.stderr
