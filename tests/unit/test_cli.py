# SPDX-License-Identifier: Apache-2.0
"""The command line: what is imported when, how mistakes are told, evaluation and training."""

from __future__ import annotations

import io
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import twinloop.learning.train as training
from rich.console import Console
from turning_bags import CONTRACT, turning
from twinloop.bags.check import check
from twinloop.bags.read import complete_bags, metadata
from twinloop.cli.main import COMMANDS, main
from twinloop.learning.episode_bags import EpisodeBags
from twinloop.learning.model_file import Candidate, Lineage
from twinloop.learning.registry import Registry
from twinloop.learning.rollout import EpisodeRecord
from twinloop.learning.training_run import Listener
from twinloop.models.ensemble import Ensemble, EnsembleConfig
from twinloop.reporting.live import CellState, LiveDisplay
from twinloop.reporting.progress import WorkProgress, duration

HEAVY = ("torch", "rclpy", "mujoco", "pybullet", "matplotlib")
LIGHT = [name for name, *_ in COMMANDS if name not in ("bag", "models", "tracker")]


def call(*words: str) -> int:
    with pytest.raises(SystemExit) as ended:
        main(list(words))
    return int(ended.value.code or 0)


def tiny_candidate(seed: int = 0) -> Candidate:
    where = CONTRACT.slices["command"]
    config = EnsembleConfig(
        observation_size=CONTRACT.observation_size,
        action_size=CONTRACT.action_size,
        hidden=(8,),
        known=(where.start, where.stop),
    )
    return Candidate(Ensemble(config, seed), CONTRACT, Lineage(seed=seed))


@pytest.fixture
def registry(tmp_path: Path) -> Path:
    """A registry with a current model."""
    made = Registry(tmp_path / "registry", CONTRACT)
    made.promote(made.add(tiny_candidate()))
    return tmp_path / "registry"


@pytest.mark.parametrize("words", [["--help"], *([name, "--help"] for name in LIGHT)])
def test_help_imports_nothing_heavy(words: list[str]) -> None:
    code = (
        "import sys\n"
        "from twinloop.cli.main import main\n"
        "try:\n"
        f"    main({words})\n"
        "except SystemExit as end:\n"
        f"    print(end.code, [name for name in {HEAVY} if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "Usage: twinloop" in done.stdout
    assert done.stdout.splitlines()[-1] == "0 []"


def test_the_help_names_every_command(capsys: pytest.CaptureFixture[str]) -> None:
    assert call("--help") == 0
    shown = capsys.readouterr().out
    assert all(name in shown and summary[:30] in shown for name, _, _, summary in COMMANDS)


def test_the_version_is_printed(capsys: pytest.CaptureFixture[str]) -> None:
    assert call("--version") == 0
    assert capsys.readouterr().out == "twinloop 0.1.0\n"


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["nonsense"], "No such command 'nonsense'; see 'twinloop --help'"),
        (["demo", "--episodes", "many"], "Invalid value for '--episodes'"),
        (["demo", "--episodes", "0"], "should be greater than or equal to 1"),
        (["demo", "--model", "/nowhere"], "/nowhere holds no model: expected model.json"),
        (["eval"], "Missing argument 'task'; see 'twinloop eval --help'"),
        (["eval", "juggling"], "no task 'juggling'; there are baoding"),
        (["eval", "baoding", "--model", "/nowhere"], "/nowhere holds no model"),
        (["eval", "baoding", "--twin", "isaac"], "'isaac' is not one of"),
        (["train", "juggling"], "no task 'juggling'"),
        (["eval", "baoding", "--look", "test"], "changes nothing without --eyes cameras"),
        (["eval", "valve", "--eyes", "cameras"], "follows the balls of baoding"),
        (["eval", "baoding", "--planner", "spam"], "no planner 'spam'; there are icem"),
        (["train", "baoding", "--resume"], "--resume carries on with the run in --out"),
        (["launch", "nonsense"], "there is no launch file 'nonsense'"),
    ],
)
def test_mistakes_are_told_in_one_line(
    words: list[str], expected: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert call(*words) == 2
    said = capsys.readouterr()
    assert said.out == ""
    assert said.err.startswith("error: ")
    assert said.err.count("\n") == 1
    assert expected in said.err


def test_a_run_does_not_mix_with_another(
    registry: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ("--model", str(registry), "--out", str(tmp_path))
    for command in (("demo",), ("eval", "baoding")):
        assert call(*command, *words) == 2
        assert "is not empty" in capsys.readouterr().err


def test_a_model_that_cannot_be_used_is_refused_before_anything_runs(
    registry: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    weights = registry / "baoding" / "v0001" / "weights.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1])
    out = tmp_path / "out"
    for command in (("demo",), ("eval", "baoding")):
        assert call(*command, "--model", str(registry), "--out", str(out)) == 2
        assert "weights.safetensors" in capsys.readouterr().err
        assert not out.exists()


def test_an_evaluation_leaves_bags_and_a_report(
    registry: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    reports = []
    for hands in ("1", "2"):
        out = tmp_path / hands
        words = ("--episodes", "2", "--steps", "3", "--seed", "7", "--workers", "1")
        more = ("--hands", hands, "--out", str(out), "--json")
        assert call("eval", "baoding", "--model", str(registry), *words, *more) == 0
        printed = json.loads(capsys.readouterr().out)
        assert printed == json.loads((out / "report.json").read_text())
        bags = complete_bags(out / "bags")
        assert [metadata(bag).episode.seed for bag in bags] == [7, 8]
        assert all(check(bag, CONTRACT).is_sound for bag in bags)
        assert (out / "rotation.png").is_file()
        reports.append(printed)
    one, two = reports
    assert [episode["steps"] for episode in one["episodes"]] == [3, 3]
    assert one["summary"]["model_versions"] == ["v0001"]
    assert one["summary"]["plan_ms"]["p50"] > 0.0
    # A batch of hands is planned in one call, so its time is not told as that of a plan.
    assert two["summary"]["plan_ms"]["p50"] is None
    rotations = [[e["rotation_deg"] for e in report["episodes"]] for report in reports]
    assert rotations[0] == pytest.approx(rotations[1], abs=0.1)


def stub_training(record_count: int, error: BaseException | None = None) -> Any:
    """Return a stand-in for training that collects, and then ends as told."""

    def train(out: Path, task: str, listener: Listener, **settings: Any) -> training.TrainResult:
        bags = EpisodeBags(out / "bags" / "training", CONTRACT)
        for seed in range(record_count):
            kept = bags.find("random", seed)
            if kept is None:
                about = {
                    "episode_id": f"random-{seed:06d}",
                    "seed": seed,
                    "goal": settings["goal"],
                    "model": "random",
                }
                whole = turning(30.0, steps=5)
                episode = type(whole)(whole.observations, whole.actions, about)
                bags.add(EpisodeRecord(episode, "completed", 30.0, -1.0))
            listener.episode(kept or episode, kept is None)
        listener.say("round 0")
        listener.round({"transitions": 10.0, "success": 0.0})
        if error is not None:
            raise error
        registry = Registry(out, CONTRACT)
        candidate = tiny_candidate(settings["seed"])
        version = registry.add(candidate)
        rows = [{"transitions": 10.0, "score_median": 30.0, "success": 0.0, "drop_share": 0.0}]
        return training.TrainResult(
            (version,), registry.path(version), candidate.model, candidate.lineage, {}, rows
        )

    return train


def test_training_makes_a_registry_with_bags_and_a_report(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(training, "train", stub_training(3))
    out = tmp_path / "run"
    words = ("train", "baoding", "--seed", "4", "--evaluate", "1", "--out", str(out))
    assert call(*words, "--json") == 0
    report = json.loads(capsys.readouterr().out)
    assert (out / "baoding" / "current").read_text().strip() == "v0001"
    assert len(complete_bags(out / "bags" / "training")) == 3
    evaluated = complete_bags(out / "bags" / "evaluation")
    assert [metadata(bag).episode.seed for bag in evaluated] == [4_900_000]
    assert report["training"]["rounds"][0]["score_median"] == 30.0
    assert report["summary"]["episodes"] == 1
    assert (out / "learning.png").is_file()
    # Without --resume nothing is written into a run that is there.
    assert call(*words) == 2
    assert "is not empty" in capsys.readouterr().err


def test_an_interrupted_training_is_carried_on_with_resume(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "run"
    words = ("train", "baoding", "--evaluate", "1", "--out", str(out))
    monkeypatch.setattr(training, "train", stub_training(2, KeyboardInterrupt()))
    assert call(*words) == 130
    assert f"--resume --out {out} carries on" in " ".join(capsys.readouterr().out.split())
    before = {bag: metadata(bag) for bag in complete_bags(out / "bags" / "training")}
    assert len(before) == 2
    monkeypatch.setattr(training, "train", stub_training(4))
    assert call(*words, "--resume") == 0
    after = {bag: metadata(bag) for bag in complete_bags(out / "bags" / "training")}
    assert len(after) == 4
    assert before.items() <= after.items()
    assert (out / "report.json").is_file()


class Clock:
    def __init__(self) -> None:
        self.now_s = 100.0

    def __call__(self) -> float:
        return self.now_s


def plain_console() -> Console:
    return Console(record=True, width=200, force_terminal=False, file=io.StringIO())


def test_progress_without_a_terminal_is_a_plain_line_now_and_then() -> None:
    console, clock = plain_console(), Clock()
    with WorkProgress(console, 100, "episodes", clock) as progress:
        for done in range(1, 41):
            clock.now_s += 0.5
            progress.update(done, "last [90] deg")
    lines = console.export_text().splitlines()
    assert len(lines) == 4
    assert lines[0] == "10/100 episodes, 120/min, ETA 0:45, last [90] deg"
    assert "\x1b" not in console.file.getvalue()  # type: ignore[attr-defined]


def test_a_duration_reads_like_a_clock() -> None:
    assert [duration(s) for s in (0.2, 59.5, 61, 3725)] == ["0:01", "1:00", "1:01", "1:02:05"]


def test_a_running_cell_without_a_terminal_is_shown_in_plain_lines() -> None:
    console, clock = plain_console(), Clock()
    state = CellState(episodes=2, steps=100)
    with LiveDisplay(console, state, clock) as display:
        display.refresh()
        state.phase, state.began_s, state.model = "running", clock.now_s, "v0001"
        for step in range(100):
            clock.now_s += 0.1
            state.step, state.transitions, state.rotation_deg = step, step, 2.0 * step
            state.plan_ms.append(30.0)
            display.refresh()
            display.refresh()
    lines = console.export_text().splitlines()
    assert lines[0] == "starting the nodes ..."
    assert [line.split("step ")[1].split(",")[0] for line in lines[1:]] == [
        "0/100",
        "25/100",
        "50/100",
        "75/100",
    ]
    assert lines[3] == (
        "episode 1/2, running, step 50/100, rotation 100 deg, plan 30 ms, model v0001, "
        "50 transitions, ETA 0:16"
    )
    assert "\x1b" not in console.file.getvalue()  # type: ignore[attr-defined]


def test_a_running_cell_on_a_terminal_is_redrawn_and_erased() -> None:
    console = Console(force_terminal=True, width=80, height=24, file=io.StringIO())
    clock = Clock()
    state = CellState(episodes=8, steps=100, index=3, step=40, phase="running", model="v0002")
    with LiveDisplay(console, state, clock) as display:
        for _ in range(3):
            clock.now_s += 1.0
            display.refresh()
        display.say("episode 3: dropped")
    shown = console.file.getvalue()  # type: ignore[attr-defined]
    assert "episode 4 of 8" in shown
    assert "v0002" in shown
    # The line stays, and what is below it is erased in the end.
    assert "episode 3: dropped" in shown
    assert shown.rstrip().endswith("\x1b[2K")
