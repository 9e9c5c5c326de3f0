# SPDX-License-Identifier: Apache-2.0
"""What the page costs: late steps and plan times with and without a viewer, in one run.

The cell runs in real time, cameras and tracker in the loop and the page on. A viewer comes and goes
every quarter of a minute: it speaks the page's protocol and throws away what it is sent, so that no
browser's drawing is counted. Steps within a second of a change are left out. Loads of the machine
that have nothing to do with it come and go alike in both halves.
"""

from __future__ import annotations

import asyncio
import json
import re
import struct
import threading
import time
from pathlib import Path
from typing import Any

import harness
import matplotlib.pyplot as plt
import numpy as np
import psutil
import viser
import websockets
import zstandard
from harness import Target
from twinloop.bags.read import complete_bags, metadata, read_messages
from twinloop.cli.launch import find_launch_file
from twinloop.launching import LaunchLine, LaunchRunner
from twinloop.launching.reading import load_launch_file

TASK = "baoding"
PHASE_S = 15.0
EDGE_S = 1.0
LATE_MS = 10.0
_ADDRESS = re.compile(r"page at (http://[\d.]+:\d+)")
_MOVED = b"SetOrientationMessage"
_HEADER = struct.Struct("<QQ")


class Viewer:
    """Comes and goes, in a thread of its own, and notes what it was sent and what that cost.

    Attributes:
        watched: when it looked, beginnings and ends [s, wall clock].
        updates_hz: updates of the scene in a second, of each time it looked.
        cpu_share: of one core that the page's process took meanwhile, likewise.
        idle_share: likewise while it did not look.
    """

    def __init__(self) -> None:
        self.watched: list[tuple[float, float]] = []
        self.updates_hz: list[float] = []
        self.cpu_share: list[float] = []
        self.idle_share: list[float] = []
        self._address = ""
        self._ends = threading.Event()
        self._thread = threading.Thread(target=self._run)

    def hear(self, line: LaunchLine) -> None:
        """Learn from the launch where the page is."""
        found = _ADDRESS.search(line.text)
        if found and not self._address:
            self._address = found[1]
            self._thread.start()

    def close(self) -> None:
        self._ends.set()
        if self._thread.is_alive():
            self._thread.join()

    def _run(self) -> None:
        process = _listener(int(self._address.rpartition(":")[2]))
        while not self._ends.wait(0.1):
            for looks in (False, True):
                began_s, before_s = time.time(), _cpu_s(process)
                count = asyncio.run(self._watch()) if looks else self._ends.wait(PHASE_S)
                ended_s = time.time()
                try:
                    share = (_cpu_s(process) - before_s) / (ended_s - began_s)
                except psutil.Error:
                    return
                if ended_s - began_s < 0.9 * PHASE_S:
                    return
                if looks:
                    self.watched.append((began_s, ended_s))
                    self.updates_hz.append(count / (ended_s - began_s))
                (self.cpu_share if looks else self.idle_share).append(share)

    async def _watch(self) -> int:
        """Look for a while; returns how often the scene moved."""
        moved = 0
        address = self._address.replace("http", "ws")
        protocol = websockets.Subprotocol(f"viser-v{viser.__version__}")
        until_s = time.monotonic() + PHASE_S
        try:
            async with websockets.connect(
                address, subprotocols=[protocol], max_size=None, compression=None
            ) as connection:
                while not self._ends.is_set() and time.monotonic() < until_s:
                    try:
                        data = await asyncio.wait_for(connection.recv(), 0.2)
                    except TimeoutError:
                        continue
                    assert isinstance(data, bytes)
                    moved += _tells_of_moves(data)
        except (OSError, websockets.WebSocketException):
            self._ends.wait(max(until_s - time.monotonic(), 0.0))
        return moved


def main() -> None:
    parser = harness.parser(__doc__)
    parser.add_argument("--episodes", type=int, help="instead of the form's")
    arguments = parser.parse_args()
    count = arguments.episodes or (20 if arguments.full else 4)
    folder = harness.start("web", arguments.full, arguments.resume)
    viewer = Viewer()
    bags = folder / "bags"
    description = load_launch_file(
        find_launch_file(TASK),
        {
            "episodes": str(count),
            "learn": "false",
            "record_dir": str(bags),
            "web": "true",
        },
    )
    try:
        result = LaunchRunner(description, viewer.hear, folder / "log.txt").run()
    finally:
        viewer.close()
    if result.exit_code:
        raise SystemExit(f"the cell ended early: {result.reason}; see {folder / 'log.txt'}")
    (folder / "viewer.json").write_text(json.dumps(vars(viewer), default=str))
    steps = list(steps_of(bags))
    with_it, without = halves(steps, viewer.watched)
    figures: dict[str, Any] = {
        "episodes": count,
        "load_of_the_machine": list(psutil.getloadavg()),
        "with": summary(with_it),
        "without": summary(without),
        "updates_hz": viewer.updates_hz,
        "cpu_share": viewer.cpu_share,
        "cpu_share_without_viewer": viewer.idle_share,
    }
    late = figures["with"]["late_pct"] - figures["without"]["late_pct"]
    plan = figures["with"]["plan_ms_p50"] - figures["without"]["plan_ms_p50"]
    targets = [
        Target("late steps more with a viewer [percentage points]", late, 1.0, "<="),
        Target("plan time p50 more with a viewer [ms]", plan, 2.0, "<="),
        Target("share of one core with a viewer", _median(viewer.cpu_share), 0.25, "<="),
        Target("updates of the scene [Hz]", _median(viewer.updates_hz), 15.0, ">="),
    ]
    draw(folder / "lateness.png", with_it, without)
    harness.finish("web", folder, figures, targets, arguments.full, [folder / "lateness.png"])


def steps_of(bags: Path) -> list[tuple[float, float, float]]:
    """Return time of recording [s, wall clock], lateness [ms] and plan time [ms] of every step."""
    found = []
    for path in complete_bags(bags):
        about = metadata(path).episode
        if about is None:
            continue
        for message in read_messages(path, [about.topic("plan_stats")]):
            stats = message.decode()
            if stats.episode_id == about.episode_id and not stats.stop_reason:
                found.append((message.log_time_ns / 1e9, stats.lateness_ms, stats.plan_ms))
    return found


def halves(
    steps: list[tuple[float, float, float]], watched: list[tuple[float, float]]
) -> tuple[np.ndarray, np.ndarray]:
    """Return the steps with a viewer and those without, [S, 3]; those amid a change are in neither.

    Before the first viewer and after the last one nothing counts: the cell starts and ends there.
    """
    table = np.array(steps).reshape(-1, 3)
    time_s = table[:, 0]
    seen, unseen = (np.zeros(len(table), dtype=bool) for _ in range(2))
    for index, (began_s, ended_s) in enumerate(watched):
        seen |= (time_s > began_s + EDGE_S) & (time_s < ended_s - EDGE_S)
        before_s = watched[index - 1][1] if index else began_s - PHASE_S
        unseen |= (time_s > before_s + EDGE_S) & (time_s < began_s - EDGE_S)
    return table[seen], table[unseen]


def summary(steps: np.ndarray) -> dict[str, Any]:
    if not len(steps):
        return {"steps": 0, "late_pct": float("nan"), "plan_ms_p50": float("nan")}
    _, lateness, plan = steps.T
    return {
        "steps": len(steps),
        "late_pct": 100.0 * float((lateness > LATE_MS).mean()),
        "lateness_ms_p99": float(np.percentile(lateness, 99)),
        "plan_ms_p50": float(np.percentile(plan, 50)),
        "plan_ms_p99": float(np.percentile(plan, 99)),
    }


def draw(path: Path, with_it: np.ndarray, without: np.ndarray) -> None:
    figure, axes = plt.subplots(figsize=(7, 3.5), layout="constrained")
    for steps, label in ((without, "nobody looks"), (with_it, "one viewer")):
        if len(steps):
            values = np.sort(steps[:, 1])
            axes.plot(values, np.linspace(0, 100, len(values)), label=label)
    axes.set_xlabel("lateness of a step [ms]")
    axes.set_ylabel("steps at most as late [%]")
    axes.legend(frameon=False)
    figure.savefig(path, dpi=120)


def _median(values: list[float]) -> float | None:
    return float(np.median(values)) if values else None


def _tells_of_moves(data: bytes) -> bool:
    """Tell whether a window of messages that the page's server sent moves parts of the scene."""
    _, size = _HEADER.unpack_from(data)
    packed = data[_HEADER.size : _HEADER.size + size]
    return _MOVED in zstandard.ZstdDecompressor().decompress(packed)


def _listener(port: int) -> psutil.Process:
    """Return the process that listens on a port of this machine."""
    for one in psutil.net_connections("tcp"):
        if one.status == psutil.CONN_LISTEN and one.laddr == ("127.0.0.1", port) and one.pid:
            return psutil.Process(one.pid)
    raise RuntimeError(f"nobody listens on port {port}")


def _cpu_s(process: psutil.Process) -> float:
    times = process.cpu_times()
    return float(times.user + times.system)


if __name__ == "__main__":
    main()
