# SPDX-License-Identifier: Apache-2.0
"""One hour of the Baoding cell with nobody there: it turns balls, drops them, fetches them, learns.

The node system runs as `twinloop launch baoding reset:=arm` starts it, cameras, tracker, recorder
and learner included; the arm brings back what drops, on what cameras see. Time is the twin's, in
lock-step, so that a busy machine costs time and changes nothing; at most it runs twice as fast as
real time.

A process beside them hears how episodes go and looks at the memory that is each process's own.
Afterwards every bag is checked, and what is left of the processes is looked for. A run that was
interrupted cannot be carried on with; one that is complete is judged again by --resume.

The shipped model hardly drops a ball. --model names another one that the cell begins with, such as
one that `make bench-learning` has learned from scratch, so that there is something to bring back.
"""

from __future__ import annotations

import contextlib
import json
import os
import threading
import time
from collections import Counter
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import harness
import matplotlib
import numpy as np
import psutil
import rclpy
from harness import Target
from rclpy.executors import SingleThreadedExecutor
from rich.console import Console
from rosgraph_msgs.msg import Clock
from twinloop.bags.check import check
from twinloop.bags.read import complete_bags, unfinished_bags
from twinloop.cli.launch import find_launch_file
from twinloop.contract import load as load_contract
from twinloop.dds import own_domain
from twinloop.launching import LaunchRunner
from twinloop.launching.reading import load_launch_file
from twinloop.nodes import qos
from twinloop.reporting.episodes import read_run

from twinloop_interfaces.msg import EpisodeStatus

matplotlib.use("Agg")
from matplotlib import pyplot as plt

TASK = "baoding"
HOUR_S, QUICK_S = 3600.0, 90.0
WARM_S = {True: 600.0, False: 30.0}  # of the full form, and the quick one
SAMPLE_S = 5.0  # steady, between two looks at the memory
SILENT_S = 300.0  # steady, without the twin's clock: the run has failed
END_S = 30.0  # for processes to be gone
FIRST_SEED = 930_000
FETCH_S = 15.0  # a reset that took longer had the arm bring a ball
PHASES = {
    EpisodeStatus.RESETTING: "resetting",
    EpisodeStatus.RUNNING: "turning",
    EpisodeStatus.ENDED: "waiting",
    EpisodeStatus.IDLE: "waiting",
}


@dataclass
class Course:
    """What was seen of a run; times are the twin's since its start, s.

    Attributes:
        phases: since when each phase lasted, and its name.
        ends: when an episode or its reset ended, and why; "" for a reset that succeeded.
        memory: of each process, by name and id: time, MB.
        lines: that tell of processes that died or of errors.
    """

    seconds: float = 0.0
    wall_s: float = 0.0
    phases: list[tuple[float, str]] = field(default_factory=list)
    ends: list[tuple[float, str, str]] = field(default_factory=list)
    memory: dict[str, list[tuple[float, float]]] = field(default_factory=dict)
    lines: list[str] = field(default_factory=list)
    left: list[str] = field(default_factory=list)
    reason: str = ""


class Watcher:
    """Hears how a run goes, in the thread that calls `spin`."""

    def __init__(self) -> None:
        rclpy.init()
        self.course = Course()
        self.heard_s = time.monotonic()
        self._start_s: float | None = None
        self._now_s = 0.0
        self._phase = -1
        self._node = rclpy.create_node("unattended")
        self._node.create_subscription(Clock, "/clock", self._on_clock, qos.CLOCK)
        self._node.create_subscription(
            EpisodeStatus, "episode_status", self._on_status, qos.latched(10)
        )
        self._executor = SingleThreadedExecutor()
        self._executor.add_node(self._node)

    def spin(self, seconds: float) -> None:
        end_s = time.monotonic() + seconds
        while (left_s := end_s - time.monotonic()) > 0.0:
            self._executor.spin_once(left_s)

    def close(self) -> None:
        self._node.destroy_node()
        rclpy.try_shutdown()

    def _on_clock(self, message: Clock) -> None:
        now_s = message.clock.sec + 1e-9 * message.clock.nanosec
        if self._start_s is None:
            self._start_s = now_s
        if now_s > self._now_s:
            self.heard_s = time.monotonic()
        self._now_s = now_s
        self.course.seconds = now_s - self._start_s

    def _on_status(self, status: EpisodeStatus) -> None:
        if status.phase == self._phase:
            return
        before, self._phase = self._phase, status.phase
        at_s = self.course.seconds
        self.course.phases.append((at_s, PHASES.get(status.phase, "waiting")))
        if before == EpisodeStatus.RESETTING:
            done = status.phase == EpisodeStatus.RUNNING
            self.course.ends.append((at_s, "reset", "" if done else status.stop_reason))
        elif status.phase == EpisodeStatus.ENDED:
            self.course.ends.append((at_s, "episode", status.stop_reason))


def name_of(process: psutil.Process) -> str:
    """Return a node's name, or that of the program."""
    scripts = [part for part in process.cmdline() if part.endswith("_node")]
    return Path(scripts[0]).name if scripts else process.name()


def run(folder: Path, seconds: float, model: str, console: Console) -> Course:
    """Run the cell for so long; what it did is kept in the folder.

    Raises:
        RuntimeError: the twin stood still for `SILENT_S`.
    """
    os.environ.update(own_domain())
    arguments = {
        "twin": "mujoco",
        "reset": "arm",
        "episodes": "1000000",
        "seed": str(FIRST_SEED),
        "rtf": "2.0",
        "lockstep": "true",
        "busy": "true",
        "web": "false",
        "model": model,
        "record_dir": str(folder / "bags"),
        "registry": str(folder / "registry"),
    }
    description = load_launch_file(find_launch_file(TASK), arguments)
    watcher = Watcher()
    course = watcher.course
    telling = ("process has died", "gave up", "[ERROR]", "[FATAL]", "Traceback")

    def hear(line: Any) -> None:
        if any(word in line.text for word in telling):
            course.lines.append(f"{course.seconds:.0f} s: {line.source}: {line.text}"[:300])

    runner = LaunchRunner(description, hear, folder / "log.txt", handles_signals=False)
    thread = threading.Thread(target=lambda: results.append(runner.run()))
    results: list[Any] = []
    began_s = time.monotonic()
    thread.start()
    seen: dict[str, psutil.Process] = {}
    told_s = 0.0
    try:
        while thread.is_alive() and course.seconds < seconds:
            watcher.spin(SAMPLE_S)
            for process in psutil.Process().children(recursive=True):
                with contextlib.suppress(psutil.NoSuchProcess, psutil.ZombieProcess):
                    name = f"{name_of(process)} {process.pid}"
                    memory = process.memory_info()
                    own_mb = (memory.rss - memory.shared) / 1e6
                    seen[name] = process
                    course.memory.setdefault(name, []).append((course.seconds, own_mb))
            if time.monotonic() - told_s > 60.0:
                told_s = time.monotonic()
                ends = Counter(kind for _, kind, _ in course.ends)
                console.print(
                    f"{course.seconds:.0f} of {seconds:.0f} s, {dict(ends)}, "
                    f"{course.seconds / (told_s - began_s):.2f} times real time"
                )
            if time.monotonic() - watcher.heard_s > SILENT_S:
                raise RuntimeError(f"the twin's clock stood still for {SILENT_S:g} s")
    finally:
        runner.stop("the time is over")
        thread.join(120.0)
        watcher.close()
    course.wall_s = time.monotonic() - began_s
    course.reason = results[0].reason if results else "did not end"
    alive = psutil.wait_procs(list(seen.values()), timeout=END_S)[1]
    course.left = [name for name, process in seen.items() if process in alive]
    (folder / "course.json").write_text(json.dumps(asdict(course)))
    return course


def growth_mb(course: Course, warm_s: float) -> dict[str, float]:
    """Return by how much each process that was there before grew after the first minutes.

    From the most that it had then to the most in the last tenth of the run.
    """
    late_s = course.seconds - 0.1 * (course.seconds - warm_s)
    grown = {}
    for name, samples in course.memory.items():
        early = [used for at_s, used in samples if at_s <= warm_s]
        late = [used for at_s, used in samples if at_s >= late_s]
        if early and late:
            grown[name] = max(late) - max(early)
    return grown


def shares(course: Course) -> dict[str, float]:
    """Return the share of time that each phase took."""
    spent: Counter[str] = Counter()
    times = [at_s for at_s, _ in course.phases] + [course.seconds]
    spent["waiting"] += times[0]
    for (start_s, name), end_s in zip(course.phases, times[1:], strict=True):
        spent[name] += end_s - start_s
    return {name: seconds / course.seconds for name, seconds in spent.items()}


def reset_times(course: Course) -> list[tuple[float, float]]:
    """Return when each reset began and how long it took, s."""
    return [
        (start_s, end_s - start_s)
        for (start_s, name), (end_s, _) in zip(course.phases, course.phases[1:], strict=False)
        if name == "resetting"
    ]


def draw(path: Path, course: Course, figures: list[Any]) -> None:
    figure, axes = plt.subplots(1, 3, figsize=(12, 3.2), layout="constrained")
    took = reset_times(course)
    axes[0].scatter([at / 60 for at, _ in took], [s for _, s in took], s=8)
    axes[0].set(xlabel="time [min]", ylabel="time of a reset [s]")
    count = np.arange(1, len(figures) + 1)
    axes[1].plot(count, np.cumsum([one.succeeded for one in figures]) / count, label="success")
    axes[1].plot(count, np.cumsum([one.dropped for one in figures]) / count, label="dropped")
    axes[1].set(xlabel="episodes", ylabel="share so far", ylim=(0, 1))
    axes[1].legend()
    for name, samples in course.memory.items():
        if "_node" in name:
            at, used = np.array(samples).T
            axes[2].plot(at / 60, used, label=name.split("_node")[0])
    axes[2].set(xlabel="time [min]", ylabel="own memory [MB]")
    axes[2].legend(fontsize=6)
    figure.savefig(path, dpi=110)
    plt.close(figure)


def main() -> None:
    parser = harness.parser(__doc__)
    parser.add_argument("--seconds", type=float, help="of the twin's time, instead of the form's")
    parser.add_argument("--model", default="shipped", help="folder of the model to begin with")
    arguments = parser.parse_args()
    seconds = arguments.seconds or (HOUR_S if arguments.full else QUICK_S)
    folder = harness.start("unattended", arguments.full, arguments.resume)
    console = Console()
    done = folder / "course.json"
    if done.is_file():
        course = Course(**json.loads(done.read_text()))
    else:
        course = run(folder, seconds, arguments.model, console)
    bags = [*complete_bags(folder / "bags"), *unfinished_bags(folder / "bags")]
    bad = [path.name for path in bags if not check(path).is_sound]
    episodes = read_run(folder / "bags", load_contract(TASK))
    ended = [one for one in episodes if one.steps > 0]
    took = np.array([seconds for _, seconds in reset_times(course)])
    fetched = took >= FETCH_S
    resets = [why for _, kind, why in course.ends if kind == "reset"]
    drops = sum(
        kind == "episode" and why in ("dropped", "balls_lost") for _, kind, why in course.ends
    )
    grown = growth_mb(course, WARM_S[arguments.full])
    died = [line for line in course.lines if "process has died" in line]
    figures = {
        "seconds": course.seconds,
        "wall_s": course.wall_s,
        "times_real_time": course.seconds / course.wall_s,
        "reason": course.reason,
        "episodes": len(ended),
        "drops": drops,
        "episode_ends": Counter(why for _, kind, why in course.ends if kind == "episode"),
        "resets": len(resets),
        "resets_with_the_arm": int(fetched.sum()),
        "reset_s_median_with_the_arm": float(np.median(took[fetched])) if fetched.any() else None,
        "reset_s_median_without": float(np.median(took[~fetched])) if (~fetched).any() else None,
        "resets_that_failed": Counter(why for why in resets if why),
        "shares": shares(course),
        "success": float(np.mean([one.succeeded for one in ended])) if ended else None,
        "models": sorted({model for one in ended for model in one.models}),
        "bags": len(bags),
        "bad_bags": bad,
        "memory_growth_mb": grown,
        "lines": course.lines[:50],
        "left": course.left,
    }
    targets = [
        Target("time without help [s]", course.seconds, seconds, ">="),
        Target("resets that failed", sum(bool(why) for why in resets), 0, "<="),
        Target("processes that died", len(died), 0, "<="),
        Target("processes left behind", len(course.left), 0, "<="),
        Target("bags that fail the check", len(bad), 0, "<="),
        Target("largest growth of a process [MB]", max(grown.values(), default=None), 50.0, "<="),
    ]
    draw(folder / "course.png", course, ended)
    harness.finish("unattended", folder, figures, targets, arguments.full, [folder / "course.png"])


if __name__ == "__main__":
    main()
