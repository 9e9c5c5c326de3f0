# SPDX-License-Identifier: Apache-2.0
"""The arm brings dropped balls back: 200 drops of learning rollouts in the twin, one cell.

Rollouts take turns: the planner with the shipped model, with the disturbances that training
episodes have; its policy alone, disturbed more; and the random motions that learning from nothing
begins with. Each begins where the last reset left the cell, and nothing is put back by hand unless
a reset failed. A drop is one that the task sees.

The reset sees drawn images of the palm's stereo pair and of the tray alone. What truly happened is
taken down at every tick and judged apart: whether both balls are in the palm, whether the arm came
into contact with anything (MuJoCo, on the measured joints, every 4 mm that a point of the arm
moves), whether hand or arm were told or did what their limits forbid, and the heights that balls
fell on the hand from. Robot time does not pass while a motion is planned; the core's time for
planning is added to it.
"""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

import harness
import matplotlib
import numpy as np
import torch
from harness import Target
from reset_checks import ResetChecker, Trace
from timed_planner import TimedPlanner
from twinloop.contract import load as load_contract
from twinloop.learning.model_file import load_model
from twinloop.learning.rollout import Actor, PlannedActor, ProposalActor, RandomActor, roll_out
from twinloop.paths import share
from twinloop.robots.hand24 import HAND24
from twinloop_sim.cell import Cell
from twinloop_sim.reset_devices import CellReset

from twinloop import planners, tasks

matplotlib.use("Agg")
from matplotlib import pyplot as plt

DROPS, QUICK_DROPS = 200, 9
STEPS = 100
FIRST_SEED = 520_000
TRIALS = 20  # episodes that may end without a drop, before a disturbed one is taken
NOISES = {"planner": (0.3, 0.6, 0.15), "policy": (0.6, 1.0)}
SOURCES = ("planner", "policy", "random")
EVENTFUL = ("collides", "hand_violations", "arm_violations")


class Rollouts:
    """Episodes of one cell, each from where the last one left it."""

    def __init__(self, cell: Cell) -> None:
        self._cell = cell
        self._task = tasks.make("baoding", "")
        folder = share("models", "baoding")
        current = (folder / "current").read_text().strip()
        loaded = load_model(folder / current, load_contract("baoding"))
        planner = planners.make("mppi", loaded.model, self._task, 0)
        proposal = loaded.model.proposal
        assert proposal is not None
        spread = 0.25 * (HAND24.upper - HAND24.lower)
        command = self._task.command
        self._actors: dict[str, Actor] = {
            "planner": PlannedActor(planner, self._task, 1, NOISES["planner"]),
            "policy": ProposalActor(proposal, self._task, 1, NOISES["policy"]),
            "random": RandomActor(HAND24.poses["cup"], spread, command, 0.15, 1),
        }

    def until_drop(self, source: str, seed: int, in_order: bool) -> dict[str, Any]:
        """Run episodes until one drops; returns how it ended.

        Args:
            in_order: whether balls are where an episode may begin; else they are put there.
        """
        start = "present" if in_order else "cup"
        for trial in range(TRIALS):
            # What drops nothing for so long is disturbed more.
            name = source if trial < TRIALS - 1 else "random"
            (record,) = roll_out(
                self._cell,
                self._actors[name],
                self._task,
                [seed * TRIALS + trial],
                STEPS,
                start=lambda _seed, start=start: start,  # type: ignore[misc]
            )
            start = "present"
            # A tracker's error may end an episode; without a ball that dropped it is no drop.
            if record.stop_reason != "completed" and in_palm(self._cell) < 2:
                return {
                    "source": name,
                    "episodes": trial + 1,
                    "steps": len(record.episode.actions),
                    "end": record.stop_reason,
                }
        raise RuntimeError(f"{source}, seed {seed}: no ball dropped in {TRIALS} episodes")


def in_palm(cell: Cell) -> int:
    """Return how many balls truly are in the palm."""
    task = tasks.make("baoding", "")
    lower, upper = np.array(task.config.safe_lower_m), np.array(task.config.safe_upper_m)
    place = cell.truth().ball_position[0]
    return int(((place > lower) & (place < upper)).all(axis=-1).sum())


def measure(folder: Path, drops: int) -> list[dict[str, Any]]:
    """Run the drops that are not in the folder yet; returns all of them."""
    path = folder / "drops.jsonl"
    rows = [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []
    if len(rows) >= drops:
        return rows
    cell = Cell(1, arm=True)
    trace = Trace(cell)
    planner = TimedPlanner(seed=1)
    resetter = CellReset(cell, planner, each_tick=trace.note)
    rollouts, checker = Rollouts(cell), ResetChecker()
    in_order = False
    with path.open("a") as out:
        for index in range(len(rows), drops):
            seed = FIRST_SEED + index
            row = rollouts.until_drop(SOURCES[index % len(SOURCES)], seed, in_order)
            row |= {"index": index, "seed": seed, "kept": in_palm(cell)}
            trace.clear()
            planner.spent_s = 0.0
            outcome = resetter.run(seed)
            row |= {
                "recovered": outcome.success and in_palm(cell) == 2,
                "success": outcome.success,
                "fault": outcome.fault,
                "message": outcome.message,
                "failures": outcome.failures,
                "robot_s": outcome.seconds,
                "planning_s": planner.spent_s,
                "seconds": outcome.seconds + planner.spent_s,
                "times": outcome.times,
                **checker.judge(trace),
            }
            in_order = row["recovered"]
            rows.append(row)
            out.write(json.dumps(row) + "\n")
            out.flush()
            print(
                f"{index + 1}/{drops} {row['source']} kept {row['kept']}: "
                f"{'recovered' if row['recovered'] else row['message']} in {row['seconds']:.1f} s "
                f"{row['failures'] or ''}",
                flush=True,
            )
    resetter.close()
    cell.close()
    return rows


def draw(path: Path, rows: list[dict[str, Any]]) -> None:
    figure, axes = plt.subplots(1, 2, figsize=(9, 3.2), layout="constrained")
    for kept in sorted({row["kept"] for row in rows}):
        seconds = [row["seconds"] for row in rows if row["kept"] == kept]
        axes[0].hist(seconds, bins=np.arange(0, 61, 2), alpha=0.6, label=f"{2 - kept} dropped")
    axes[0].axvline(25, color="0.6", ls=":")
    axes[0].set(xlabel="time of a recovery [s]", ylabel="drops")
    axes[0].legend()
    mean: Counter[str] = Counter()
    for row in rows:
        mean.update(row["times"])
    names = list(mean)
    axes[1].barh(names, [mean[name] / len(rows) for name in names])
    axes[1].invert_yaxis()
    axes[1].set(xlabel="mean time in a state [s]")
    figure.savefig(path, dpi=110)
    plt.close(figure)


def main() -> None:
    parser = harness.parser(__doc__)
    parser.add_argument("--drops", type=int, help="instead of the form's")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    drops = arguments.drops or (DROPS if arguments.full else QUICK_DROPS)
    folder = harness.start("resets", arguments.full, arguments.resume)
    rows = measure(folder, drops)
    recovered = [row for row in rows if row["recovered"]]
    seconds = [row["seconds"] for row in recovered]
    falls = [fall for row in rows for fall in row["fall_mm"]]
    events = {name: sum(bool(row[name]) for row in rows) for name in EVENTFUL}
    figures = {
        "drops": len(rows),
        "recovered": len(recovered),
        "seconds_p50": np.median(seconds),
        "seconds_p95": np.percentile(seconds, 95),
        "seconds_max": max(seconds),
        "robot_s_mean": np.mean([row["robot_s"] for row in recovered]),
        "planning_s_mean": np.mean([row["planning_s"] for row in recovered]),
        "kept": Counter(str(row["kept"]) for row in rows),
        "sources": Counter(row["source"] for row in rows),
        "ends": Counter(row["end"] for row in rows),
        "faults": Counter(str(row["fault"]) for row in rows if row["fault"]),
        "lived_through": Counter(
            f"{state}: {fault}" for row in recovered for state, fault in row["failures"]
        ),
        "clearance_mm_least": min(row["clearance_mm"] for row in rows),
        "nearest": min(rows, key=lambda row: row["clearance_mm"])["nearest"],
        "rows": [{k: v for k, v in row.items() if k != "times"} for row in rows],
    }
    targets = [
        Target("recovered without help", len(recovered) / len(rows), 0.98, ">="),
        Target("mean time of a recovery [s]", float(np.mean(seconds)), 25.0, "<="),
        Target("resets in which the arm touched something", events["collides"], 0, "<="),
        Target("resets beyond a limit of the hand", events["hand_violations"], 0, "<="),
        Target("resets beyond a limit of the arm", events["arm_violations"], 0, "<="),
        Target("highest fall on the hand [mm]", max(falls, default=0.0), 30.0, "<="),
    ]
    draw(folder / "times.png", rows)
    harness.finish("resets", folder, figures, targets, arguments.full, [folder / "times.png"])


if __name__ == "__main__":
    main()
