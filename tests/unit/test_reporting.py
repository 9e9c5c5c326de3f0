# SPDX-License-Identifier: Apache-2.0
"""Figures, reports, plots and the summary of runs, from bags whose content is known."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from rich.console import Console
from turning_bags import CONTRACT, edited, turning, turning_bag
from twinloop.bags.read import complete_bags
from twinloop.learning.gate import GateConfig, judge
from twinloop.learning.model_file import Candidate
from twinloop.learning.registry import Registry
from twinloop.models.ensemble import Ensemble, EnsembleConfig
from twinloop.reporting.episodes import EpisodeFigures, read_run
from twinloop.reporting.frames import best, draw_strip
from twinloop.reporting.models import Models, of_model, of_registry
from twinloop.reporting.plots import draw
from twinloop.reporting.report import Report, Run, build, write
from twinloop.reporting.summary import show
from twinloop.tasks.baoding import Baoding

PNG = b"\x89PNG\r\n\x1a\n"


def only(folder: Path) -> EpisodeFigures:
    (figures,) = read_run(folder, CONTRACT)
    return figures


def report_of(folder: Path, models: Models | None = None) -> Report:
    run = Run("twinloop demo --seed 5", 5, folder, 61.0)
    return build(run, read_run(folder / "bags", CONTRACT), models or Models())


def tiny_model(seed: int = 0) -> Ensemble:
    where = CONTRACT.slices["command"]
    config = EnsembleConfig(
        observation_size=CONTRACT.observation_size,
        action_size=CONTRACT.action_size,
        hidden=(8,),
        known=(where.start, where.stop),
    )
    return Ensemble(config, seed)


def paced(plan_stats: Any, step_ms: list[float]) -> bool:
    plan_stats.lateness_ms = step_ms[plan_stats.step]
    return True


def test_rotation_is_unwrapped_and_counts_in_the_tasks_direction(tmp_path: Path) -> None:
    turning_bag(tmp_path, "far", turning(500.0, steps=40), index=0)
    turning_bag(tmp_path, "other_way", turning(120.0), index=1, goal="cw")
    turning_bag(tmp_path, "clockwise", turning(-150.0), index=2, goal="cw")
    rotations = [one.rotation_deg for one in read_run(tmp_path, CONTRACT)]
    assert rotations == pytest.approx([500.0, -120.0, 150.0], abs=0.01)


def test_rotation_stops_at_the_drop(tmp_path: Path) -> None:
    bag = turning(100.0, steps=20, drop_at=8)
    turning_bag(tmp_path, "one", bag, stop_reason="dropped")
    figures = only(tmp_path)
    assert figures.dropped
    assert figures.rotation_deg == pytest.approx(40.0, abs=0.01)
    assert len(figures.rotations_deg) == len(figures.times_s) == 9


def test_a_drop_that_the_metadata_does_not_tell_is_seen_in_the_data(tmp_path: Path) -> None:
    turning_bag(tmp_path, "one", turning(300.0, drop_at=20), stop_reason="stopped on request")
    assert only(tmp_path).dropped


def test_the_return_is_minus_the_tasks_own_cost(tmp_path: Path) -> None:
    rollout = turning(90.0)
    turning_bag(tmp_path, "one", rollout)
    task, seen = Baoding("ccw"), torch.from_numpy(rollout.observations)
    cost = sum(
        float(task.cost(seen[k + 1], torch.zeros(24), task.targets(seen[k], 1)[0]))
        for k in range(len(rollout))
    )
    assert only(tmp_path).total_return == pytest.approx(-cost, rel=1e-5)


def test_the_last_observation_is_the_one_that_closed_the_episode(tmp_path: Path) -> None:
    whole = turning_bag(tmp_path / "all", "one", turning(100.0, steps=20))

    def close(topic: str, message: Any) -> bool:
        if topic == "/plan_stats" and message.step == 19:
            message.stop_reason = "dropped"
        # Without joint_states after step 18, planned at 1.9 s, only the planner knows.
        return topic != "/joint_states" or message.header.stamp.sec < 2

    edited(whole, tmp_path / "bags" / "one", close)
    figures = only(tmp_path / "bags")
    assert figures.steps == 19
    assert figures.rotation_deg == pytest.approx(95.0, abs=0.01)


def test_late_and_missed_steps_are_counted_where_the_run_kept_a_pace(tmp_path: Path) -> None:
    whole = turning_bag(tmp_path / "all", "one", turning(100.0, steps=20))
    lateness = [0.5] * 18 + [10.5, 30.0]

    def pace(topic: str, message: Any) -> bool:
        if topic != "/plan_stats":
            return True
        return message.step != 5 and paced(message, lateness)

    edited(whole, tmp_path / "bags" / "one", pace)
    report = report_of(tmp_path)
    (figures,) = report.episodes
    assert figures.missed_steps == 1
    assert figures.transitions == 19  # the step before the missed one is closed by its sample
    # Two started late and one never, of 20 that were due.
    assert report.content["summary"]["late_steps_pct"] == pytest.approx(15.0)


def test_what_was_not_measured_is_null(tmp_path: Path) -> None:
    turning_bag(tmp_path / "bags", "one", turning(100.0))
    summary = report_of(tmp_path).content["summary"]
    assert summary["late_steps_pct"] is None
    assert summary["plan_ms"] == {"p50": None, "p99": None}
    names = {target["name"] for target in report_of(tmp_path).content["targets"]}
    assert names == {"rotation_deg_median", "drop_share"}


def test_every_episode_is_counted_also_those_that_a_fault_ended(tmp_path: Path) -> None:
    bags = tmp_path / "bags"
    turning_bag(bags, "a", turning(200.0), index=0)
    turning_bag(bags, "b", turning(100.0), index=1)
    turning_bag(bags, "c", turning(200.0, drop_at=18), index=2, stop_reason="dropped")
    turning_bag(bags, "d", turning(30.0), index=3, stop_reason="planner silent for 3 s")
    broken = turning_bag(bags, "e", turning(200.0), index=4)
    (broken / "metadata.yaml").unlink()
    damaged = turning_bag(bags, "f", turning(200.0), index=5)
    mcap = next(damaged.glob("*.mcap"))
    mcap.write_bytes(mcap.read_bytes()[:2000])
    content = report_of(tmp_path).content
    ends = {one["id"]: one["stop_reason"] for one in content["episodes"]}
    assert len(ends) == 6
    assert ends["d"] == "planner silent for 3 s"
    assert ends["episode_000004_e"] == "unreadable: its recorder did not finish it"
    assert ends["episode_000005_f"].startswith("unreadable: is damaged")
    summary = content["summary"]
    assert summary["episodes"] == 6
    assert summary["drops"] == 1
    assert summary["success_90"] == pytest.approx(2 / 6, abs=1e-3)
    assert summary["success_180"] == pytest.approx(1 / 6, abs=1e-3)
    assert summary["rotation_deg_median"] == pytest.approx((30.0 + 100.0) / 2, abs=0.01)


def test_the_two_bags_of_an_interrupted_recording_are_one_episode(tmp_path: Path) -> None:
    whole = turning_bag(tmp_path / "all", "one", turning(200.0, steps=20))
    first, second = tmp_path / "bags" / "one", tmp_path / "bags" / "one_part2"
    edited(whole, first, lambda _, m: m.header.stamp.sec < 1, stop_reason="recorder was stopped")
    # The goal in force is latched, so that it is in every bag.
    edited(whole, second, lambda t, m: m.header.stamp.sec >= 1 or t == "/applied_command")
    figures = only(tmp_path / "bags")
    assert figures.bags == (first, second)
    assert figures.steps == 20
    assert figures.stop_reason == "complete"
    assert figures.rotation_deg == pytest.approx(200.0, abs=0.01)


def test_an_episode_that_ended_before_its_first_step_is_one(tmp_path: Path) -> None:
    whole = turning_bag(tmp_path / "all", "one", turning(200.0), stop_reason="interrupted")
    edited(whole, tmp_path / "bags" / "one", lambda topic, _: topic != "/plan_stats")
    report = report_of(tmp_path)
    (told,) = report.content["episodes"]
    assert (told["steps"], told["rotation_deg"], told["stop_reason"]) == (0, 0.0, "interrupted")
    assert draw(report) == []


def test_versions_are_named_in_the_order_they_planned(tmp_path: Path) -> None:
    whole = turning_bag(tmp_path / "all", "one", turning(100.0))

    def swap(topic: str, message: Any) -> bool:
        if topic == "/plan_stats" and message.step > 12:
            message.model_version = "v0002"
        return True

    edited(whole, tmp_path / "bags" / "one", swap)
    turning_bag(tmp_path / "bags", "two", turning(1.0), index=1, model_version="v0003")
    content = report_of(tmp_path).content
    assert [one["model"] for one in content["episodes"]] == ["v0001, v0002", "v0003"]
    assert content["summary"]["model_versions"] == ["v0001", "v0002", "v0003"]


def test_the_report_has_the_promised_form_and_is_strict_json(tmp_path: Path) -> None:
    bags = tmp_path / "bags"
    turning_bag(bags, "a", turning(100.0), index=0, plan_ms=20.0)
    turning_bag(bags, "b", turning(10.0), index=1, plan_ms=40.0)
    path = write(report_of(tmp_path))
    assert path == tmp_path / "report.json"
    content = json.loads(path.read_text())
    assert content["command"] == "twinloop demo --seed 5"
    assert content["seed"] == 5
    assert {"versions", "machine", "commit", "targets"} <= content.keys()
    for episode in content["episodes"]:
        assert {"id", "steps", "rotation_deg", "dropped", "return", "model"} <= episode.keys()
    assert list(content["summary"]) == [
        "episodes",
        "rotation_deg_median",
        "success_90",
        "success_180",
        "drops",
        "plan_ms",
        "late_steps_pct",
        "transitions",
        "promotions",
        "rejections",
        "model_versions",
        "unit",
        "progress_median",
        "succeeded",
    ]
    assert content["summary"]["plan_ms"] == {"p50": 30.0, "p99": 40.0}
    assert content["summary"]["transitions"] == 40
    targets = {target["name"]: target for target in content["targets"]}
    assert targets["rotation_deg_median"]["value"] == pytest.approx(55.0, abs=0.01)
    assert targets["rotation_deg_median"]["holds"] is False
    assert targets["drop_share"] == {
        "name": "drop_share",
        "value": 0.0,
        "bound": "<= 0.4",
        "holds": True,
    }


def test_a_run_without_episodes_still_has_a_report(tmp_path: Path) -> None:
    report = report_of(tmp_path)
    write(report)
    assert report.content["summary"]["episodes"] == 0
    assert report.content["targets"] == []
    assert draw(report) == []
    assert draw_strip(report.episodes, CONTRACT, tmp_path / "frames.png") is None


def test_versions_are_scored_on_what_the_learner_held_out(tmp_path: Path) -> None:
    for index in range(3):
        turning_bag(tmp_path / "bags", f"e{index}", turning(100.0, steps=60), index=index)
    figures = read_run(tmp_path / "bags", CONTRACT)
    registry = Registry(tmp_path / "registry", CONTRACT)
    started = registry.add(Candidate(tiny_model(), CONTRACT, status="seed"))
    registry.promote(started)
    candidate = registry.add(Candidate(tiny_model(1), CONTRACT))
    held_out = [turning(100.0, steps=60)]
    held_out[0].meta["episode_id"] = "e1"
    decision = judge(tiny_model(1), tiny_model(), started, held_out, CONTRACT, GateConfig())
    registry.decide(candidate, decision.model_copy(update={"verdict": "rejected"}))
    models = of_registry(registry, figures)
    assert (models.promotions, models.rejections) == (0, 1)
    assert models.scored_on == "1 held-out episode"
    assert [(one.version, one.status) for one in models.errors] == [
        (started, "seed"),
        (candidate, "rejected"),
    ]
    assert models.errors[1].seven_step_mm == pytest.approx(decision.candidate.seven_step_mm)


def test_a_model_without_enough_to_score_it_on_has_no_errors(tmp_path: Path) -> None:
    turning_bag(tmp_path / "bags", "short", turning(10.0, steps=10))
    registry = Registry(tmp_path / "registry", CONTRACT)
    version = registry.add(Candidate(tiny_model(), CONTRACT))
    figures = read_run(tmp_path / "bags", CONTRACT)
    models = of_model(registry.path(version), figures, CONTRACT)
    assert models.errors == ()
    assert "expected at least" in models.scored_on
    (registry.path(version) / "weights.safetensors").unlink()
    assert "is missing" in of_model(registry.path(version), figures, CONTRACT).scored_on


def test_every_plot_is_drawn(tmp_path: Path) -> None:
    turning_bag(tmp_path / "bags", "a", turning(100.0, steps=60), plan_ms=20.0)
    registry = Registry(tmp_path / "registry", CONTRACT)
    registry.add(Candidate(tiny_model(), CONTRACT))
    figures = read_run(tmp_path / "bags", CONTRACT)
    report = report_of(tmp_path, of_registry(registry, figures))
    rows = [
        {"transitions": 100.0, "score_median": 10.0, "success": 0.0, "drop_share": 0.5},
        {"transitions": 200.0, "score_median": 90.0, "success": 0.4, "drop_share": 0.1},
    ]
    report.content["training"] = {"rounds": rows, "unit": "deg"}
    plots = draw(report)
    assert [path.name for path in plots] == [
        "rotation.png",
        "prediction_error.png",
        "plan_time.png",
        "learning.png",
    ]
    assert all(path.read_bytes().startswith(PNG) for path in plots)


def test_the_strip_shows_the_best_episode(tmp_path: Path) -> None:
    turning_bag(tmp_path / "bags", "kept", turning(60.0), index=0)
    turning_bag(
        tmp_path / "bags", "far", turning(300.0, drop_at=19), index=1, stop_reason="dropped"
    )
    figures = read_run(tmp_path / "bags", CONTRACT)
    chosen = best(figures)
    assert chosen is not None
    assert chosen.id == "kept"
    path = draw_strip(figures, CONTRACT, tmp_path / "frames.png")
    assert path is not None
    assert path.read_bytes().startswith(PNG)


@pytest.mark.parametrize("count", [0, 1, 8, 13, 28, 40])
def test_the_summary_fits_a_screen_and_ends_with_the_paths(tmp_path: Path, count: int) -> None:
    figures = [
        EpisodeFigures(
            f"e{index}",
            (tmp_path,),
            "complete" if index % 3 else "channel ball_position is 0.3 s old, at most 0.25 allowed",
            index=index,
            steps=100,
            rotation_deg=20.0 * index,
            models=("v0001", "v0002"),
            plan_ms=np.full(100, 30.0),
        )
        for index in range(count)
    ]
    report = build(Run("twinloop demo", 0, tmp_path, 200.0), figures, Models())
    console = Console(width=80, record=True, file=io.StringIO())
    show(report, console, {"report": Path("r.json"), "bags": Path("b"), "plots": Path("p")})
    lines = console.export_text().rstrip("\n").split("\n")
    assert len(lines) <= 24 - 1  # the prompt needs the last one
    assert max(map(len, lines)) <= 80
    assert [line.split()[0] for line in lines[-3:]] == ["report", "bags", "plots"]


def test_reading_tells_how_far_it_is(tmp_path: Path) -> None:
    for index in range(3):
        turning_bag(tmp_path, f"e{index}", turning(10.0, steps=3), index=index)
    said: list[tuple[int, int]] = []
    read_run(tmp_path, CONTRACT, lambda done, total: said.append((done, total)))
    assert said == [(1, 3), (2, 3), (3, 3)]
    assert len(complete_bags(tmp_path)) == 3
