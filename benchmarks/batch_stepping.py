# SPDX-License-Identifier: Apache-2.0
"""Compares the throughput of many hands stepped together with that of one hand.

    python benchmarks/batch_stepping.py [--hands 64] [--threads 2] [--json]

Each side steps the physics of control steps (ten ticks a call) under moving targets. Rounds of both
sides alternate and the quickest of each counts, so that other load on the machine matters little.
"""

from __future__ import annotations

import argparse
import json
import os
import time

import numpy as np
from twinloop_sim.mujoco_twin import MujocoBatch

_TICKS = 10
_BOUND = 1.8


def seconds_per_step(batch: MujocoBatch, steps: int, seed: int) -> float:
    """Return the wall-clock time of one control step of one hand of the batch [s]."""
    rng = np.random.default_rng(seed)
    batch.reset(np.arange(batch.hands))
    ctrl = np.repeat(batch.rest[:, None], _TICKS, axis=1)
    began = time.perf_counter()
    for _ in range(steps):
        batch.step(ctrl + rng.uniform(-0.05, 0.05, (batch.hands, 1, 1)))
    return (time.perf_counter() - began) / (steps * batch.hands)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--hands", type=int, default=64, help="hands in the batch")
    parser.add_argument("--threads", type=int, default=2, help="threads of the batch")
    parser.add_argument("--rounds", type=int, default=8, help="rounds of both sides")
    parser.add_argument("--json", action="store_true", help="print JSON")
    arguments = parser.parse_args()

    one = MujocoBatch(1)
    many = MujocoBatch(arguments.hands, threads=arguments.threads)
    times: dict[str, list[float]] = {"one": [], "many": []}
    for seed in range(arguments.rounds):
        times["one"].append(seconds_per_step(one, 200, seed))
        times["many"].append(seconds_per_step(many, 20, seed))
    one.close()
    many.close()
    rate = {side: 1.0 / min(values) for side, values in times.items()}
    ratio = rate["many"] / rate["one"]
    report = {
        "cores": os.cpu_count(),
        "hands": arguments.hands,
        "threads": arguments.threads,
        "one_hand_steps_per_s": rate["one"],
        "batch_steps_per_s": rate["many"],
        "ratio": ratio,
        "targets": [
            {"name": "batch_ratio", "value": ratio, "bound": _BOUND, "holds": ratio >= _BOUND}
        ],
    }
    if arguments.json:
        print(json.dumps(report))
        return
    print(f"one hand:            {rate['one']:8.0f} control steps/s")
    print(f"{arguments.hands:3d} hands, {arguments.threads} threads: {rate['many']:8.0f}")
    print(f"ratio:               {ratio:8.2f} (at least {_BOUND})")


if __name__ == "__main__":
    main()
