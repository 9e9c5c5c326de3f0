# SPDX-License-Identifier: Apache-2.0
"""The hand turns the balls on what its cameras see: success and delay beside a made-up tracker.

The node system runs in real time, with the cameras and the ball tracker in the loop and then with
the twin's stand-in for them: the same model, the same seeds, and every episode counts. The delay
from an exposure to the command that answers it is read off the bags of the first: the age of the
balls' sample at the step's due time, how late the step began, and how long its plan took.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import harness
import matplotlib.pyplot as plt
import numpy as np
from harness import Target
from rich.console import Console
from twinloop.bags.read import complete_bags, metadata, read_messages
from twinloop.cli.launch import find_launch_file
from twinloop.contract import load as load_contract
from twinloop.contract import stamp_of
from twinloop.dds import own_domain
from twinloop.launching import LaunchRunner
from twinloop.launching.reading import load_launch_file
from twinloop.reporting.episodes import EpisodeFigures, read_run

TASK = "baoding"
STEPS = 100
FIRST_SEED = 910_000
DEGREES = (90.0, 180.0)
EYES = ("cameras", "standin")


def main() -> None:
    parser = harness.parser(__doc__)
    parser.add_argument("--episodes", type=int, help="instead of the form's")
    parser.add_argument("--look", default="test", help="family of looks that is drawn from")
    parser.add_argument("--cut", default="", help="why a full protocol is cut short")
    arguments = parser.parse_args()
    count = arguments.episodes or (20 if arguments.full else 3)
    folder = harness.start("eyes", arguments.full, arguments.resume)
    console = Console()
    figures: dict[str, Any] = {"episodes": count, "look": arguments.look}
    if arguments.cut:
        figures["cut"] = arguments.cut
    runs = {}
    for eyes in EYES:
        console.print(f"{eyes}: {count} episodes of {STEPS} steps in real time")
        runs[eyes] = run(folder / eyes, eyes, count, arguments.look)
        figures[eyes] = summary(runs[eyes], folder / eyes)
        console.print(figures[eyes])
    delays = np.array(list(delays_ms(folder / "cameras" / "bags")))
    figures["delay_ms"] = {
        "steps": len(delays),
        **{f"p{share}": float(np.percentile(delays, share)) for share in (50, 90, 99)},
    }
    lost = figures["standin"]["success_180"] - figures["cameras"]["success_180"]
    targets = [
        Target("success at 180 deg lost to the cameras", lost, 0.1, "<="),
        Target("exposure to command p50 [ms]", figures["delay_ms"]["p50"], 90.0, "<="),
        Target("exposure to command p99 [ms]", figures["delay_ms"]["p99"], 150.0, "<="),
        Target("fresh pairs a control step", figures["cameras"]["fresh_share"], 0.99, ">="),
    ]
    draw(folder / "delay.png", delays, runs)
    harness.finish("eyes", folder, figures, targets, arguments.full, [folder / "delay.png"])


def run(folder: Path, eyes: str, count: int, look: str) -> list[EpisodeFigures]:
    """Run the cell, unless that was done before; returns its episodes.

    Raises:
        RuntimeError: fewer episodes ran than were asked for.
    """
    done = folder / "done.json"
    if not done.is_file():
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir()
        arguments = {
            "eyes": eyes,
            "look": look,
            "episodes": str(count),
            "steps": str(STEPS),
            "seed": str(FIRST_SEED),
            "learn": "false",
            "record_dir": str(folder / "bags"),
        }
        description = load_launch_file(find_launch_file(TASK), arguments)
        result = LaunchRunner(description, lambda _line: None, folder / "log.txt").run()
        if result.exit_code:
            raise RuntimeError(f"the cell ended early: {result.reason}; see {folder / 'log.txt'}")
        done.write_text(json.dumps(arguments))
    # Attempts that a fault ended are episodes too.
    return read_run(folder / "bags", load_contract(TASK))


def summary(episodes: list[EpisodeFigures], folder: Path) -> dict[str, Any]:
    kept = np.array([not one.dropped and one.stop_reason == "complete" for one in episodes])
    turned = np.array([one.rotation_deg for one in episodes])
    ages = np.array([age for _, age in ages_ms(folder / "bags")])
    stamps = [stamp for stamp, _ in ages_ms(folder / "bags")]
    return {
        "episodes": len(episodes),
        "kept": int(kept.sum()),
        "median_rotation_deg": float(np.median(turned)),
        **{
            f"success_{degrees:.0f}": float((kept & (turned >= degrees)).mean())
            for degrees in DEGREES
        },
        "age_of_balls_ms": {
            "p50": float(np.percentile(ages, 50)),
            "p99": float(np.percentile(ages, 99)),
        },
        "fresh_share": len(set(stamps)) / len(stamps),
        "late_steps": float(np.mean(np.concatenate([one.lateness_ms for one in episodes]) > 20.0)),
        "ends": sorted({one.stop_reason for one in episodes}),
    }


def steps_of(bags: Path) -> Iterator[tuple[Any, float]]:
    """Yield the statistics of every planned step, and the exposure of the balls it used [ns]."""
    for path in complete_bags(bags):
        about = metadata(path).episode
        if about is None:
            continue
        for message in read_messages(path, [about.topic("plan_stats")]):
            stats = message.decode()
            if stats.episode_id == about.episode_id and not stats.stop_reason:
                place = list(stats.channels).index("ball_position")
                stamp = stats.channel_stamps[place]
                yield stats, stamp.sec * 10**9 + stamp.nanosec


def ages_ms(bags: Path) -> Iterator[tuple[int, float]]:
    """Yield each step's exposure [ns] and its age at the step's due time [ms]."""
    for stats, exposed_ns in steps_of(bags):
        yield exposed_ns, (stamp_of(stats) - exposed_ns) / 1e6


def delays_ms(bags: Path) -> Iterator[float]:
    """Yield the times from exposure to command [ms]."""
    for stats, exposed_ns in steps_of(bags):
        yield (stamp_of(stats) - exposed_ns) / 1e6 + stats.lateness_ms + stats.plan_ms


def draw(path: Path, delays: np.ndarray, runs: dict[str, list[EpisodeFigures]]) -> None:
    """Draw how long commands take after an exposure, and how far the balls turned."""
    figure, (left, right) = plt.subplots(1, 2, figsize=(9, 3.2), layout="constrained")
    left.hist(np.clip(delays, 0, 200), bins=np.arange(0, 202, 4), color="#1f6f8b")
    for bound, text in ((90, "p50 bound"), (150, "p99 bound")):
        left.axvline(bound, color="#c8553d", linestyle="--")
        left.text(bound, left.get_ylim()[1], f" {text}", va="top", fontsize=8)
    left.set(xlabel="exposure to command [ms]", ylabel="steps")
    for eyes, episodes in runs.items():
        turned = sorted(one.rotation_deg for one in episodes)
        right.plot(turned, np.arange(1, len(turned) + 1) / len(turned), label=eyes, marker=".")
    right.set(xlabel="rotation of an episode [deg]", ylabel="share of episodes", ylim=(0, 1.02))
    right.legend(frameon=False)
    figure.savefig(path, dpi=120)
    plt.close(figure)


if __name__ == "__main__":
    os.environ.update(own_domain())
    main()
