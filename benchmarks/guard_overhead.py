# SPDX-License-Identifier: Apache-2.0
"""What the command guard costs: time per command and per tick for the 24-joint hand.

Run: .venv/bin/python benchmarks/guard_overhead.py
"""

from __future__ import annotations

import argparse
import time

import numpy as np
from twinloop.robots.hand24 import HAND24
from twinloop.safety.guard import CommandGuard
from twinloop.safety.verdict import GuardSettings

BOUND_US = 50.0
TICKS_PER_COMMAND = 10


def measure(commands: int, seed: int = 0) -> dict[str, np.ndarray]:
    """Times in µs: of `submit` per command, of `tick` per tick, of the names put in order."""
    rng = np.random.default_rng(seed)
    names = list(HAND24.joint_names)
    shuffled = [names[i] for i in rng.permutation(len(names))]
    guard = CommandGuard(HAND24, GuardSettings(), HAND24.poses["cup"])
    # Half of the targets ask for more than one step or leave the limits: the costlier path.
    targets = rng.normal((HAND24.lower + HAND24.upper) / 2, 0.8, (commands, 24)).tolist()
    spent: dict[str, list[float]] = {"command": [], "command, names shuffled": [], "tick": []}
    now_ns, steady_s, tick_ns = 10**9, 0.0, 10_000_000
    for k, target in enumerate(targets):
        kind = ("command", "command, names shuffled")[k % 2]
        order = (names, shuffled)[k % 2]
        start = time.perf_counter()
        verdict = guard.submit(order, target, now_ns, "planner", now_ns, steady_s)
        spent[kind].append(time.perf_counter() - start)
        if not verdict.is_accepted:
            raise RuntimeError(f"the guard refused a good command: {verdict.detail}")
        for _ in range(TICKS_PER_COMMAND):
            start = time.perf_counter()
            guard.tick(now_ns, steady_s)
            spent["tick"].append(time.perf_counter() - start)
            now_ns += tick_ns
            steady_s += tick_ns * 1e-9
    return {kind: np.array(times) * 1e6 for kind, times in spent.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--commands", type=int, default=4000, help="commands to time")
    spent = measure(parser.parse_args().commands)
    print(f"{'µs':>26} {'median':>8} {'p99':>8}")
    for kind, times in spent.items():
        print(f"{kind:>26} {np.median(times):8.1f} {np.percentile(times, 99):8.1f}")
    median = float(np.median(spent["command"]))
    holds = "holds" if median <= BOUND_US else "does not hold"
    print(f"at most {BOUND_US:.0f} µs per command: {holds} (median {median:.1f} µs)")


if __name__ == "__main__":
    main()
