# SPDX-License-Identifier: Apache-2.0
"""What benchmarks share: targets, reports, and the page of results made from them."""

from __future__ import annotations

import json
from pathlib import Path

import harness
import numpy as np
import pytest
import results
from harness import Target

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def elsewhere(tmp_path, monkeypatch) -> Path:
    (tmp_path / "docs").mkdir()
    monkeypatch.setattr(harness, "ROOT", tmp_path)
    monkeypatch.setattr(harness, "RUNS", tmp_path / "runs")
    monkeypatch.setattr(harness, "RESULTS", tmp_path / "benchmarks" / "results")
    monkeypatch.setattr(harness.sys, "argv", ["benchmarks/gap.py", "--full"])
    return tmp_path


@pytest.mark.parametrize(
    ("value", "sense", "holds"),
    [
        (0.5, ">=", True),
        (0.5, "<=", True),
        (0.4, ">=", False),
        (0.6, "<=", False),
        (None, ">=", False),
        (float("nan"), "<=", False),
        (float("inf"), ">=", False),
    ],
)
def test_a_target_holds_at_its_bound_and_never_without_a_figure(value, sense, holds) -> None:
    assert Target("share", value, 0.5, sense).holds is holds


def test_a_sense_that_compares_nothing_is_refused() -> None:
    with pytest.raises(ValueError, match="expected >= or <="):
        Target("share", 0.5, 0.5, "==")  # type: ignore[arg-type]


def test_a_quick_run_leaves_a_report_and_no_result(elsewhere) -> None:
    folder = harness.start("gap", False)
    assert folder.parent == elsewhere / "runs"
    harness.finish("gap", folder, {"rate": np.float32(2.0)}, [Target("a", 1.0, 2.0, ">=")], False)
    report = json.loads((folder / "report.json").read_text())
    assert report["figures"] == {"rate": 2.0}
    assert report["targets"] == [{"name": "a", "value": 1.0, "bound": ">= 2", "holds": False}]
    assert {"machine", "commit", "command"} <= set(report)
    assert not (elsewhere / "benchmarks").exists()


def test_a_full_run_replaces_the_result_its_plots_and_the_page(elsewhere) -> None:
    for name in ("old", "new"):
        folder = elsewhere / name
        folder.mkdir()
        (folder / "bench.json").write_text(json.dumps({"commit": f"{name} code"}))
        plot = folder / f"{name}.png"
        plot.write_bytes(name.encode())
        rows = [{"seed": 0, "success": 0.25}, {"seed": 1, "success": float("nan")}]
        figures = {"rows": rows, "cut": "out of time"}
        harness.finish("gap", folder, figures, [Target("share", 0.25, 0.5, ">=")], True, [plot])
    kept = elsewhere / "benchmarks" / "results"
    assert sorted(path.name for path in kept.iterdir()) == ["gap-new.png", "gap.json"]
    assert json.loads((kept / "gap.json").read_text())["commit"] == "new code"
    page = (elsewhere / "docs" / "results.md").read_text()
    assert "| share | 0.25 | >= 0.5 | missed |" in page
    assert "| 1 | not measured |" in page
    assert "**Cut short:** out of time" in page
    assert "(../benchmarks/results/gap-new.png)" in page


def test_a_target_that_stands_twice_is_refused(elsewhere) -> None:
    folder = harness.start("gap", False)
    twice = [Target("a", 1.0, 2.0, ">="), Target("a", 3.0, 2.0, ">=")]
    with pytest.raises(ValueError, match="stand twice"):
        harness.finish("gap", folder, {}, twice, False)


def test_a_run_is_carried_on_with_as_what_it_was_begun(elsewhere) -> None:
    folder = harness.start("gap", True)
    assert harness.start("gap", True, folder) == folder
    with pytest.raises(ValueError, match="cannot be carried on"):
        harness.start("gap", False, folder)


def test_the_page_of_results_is_what_the_reports_make_of_it() -> None:
    page = ROOT / "docs" / "results.md"
    made = results.render(ROOT / "benchmarks" / "results", page)
    assert page.read_text(encoding="utf-8") == made, "call make results"
