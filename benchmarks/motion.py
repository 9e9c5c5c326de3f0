# SPDX-License-Identifier: Apache-2.0
"""Arm motion planning: 200 random starts and goals in the cell, on one core.

Starts are joint positions drawn within limits and free of collision. Half of the goals are such
joint positions, half are poses over ramp, tray and palm with the gripper pointing down, up to 50
degrees aside. Every other plan carries a ball, and the hand takes its cup, an open or a random
posture.

What is planned with pinocchio and coal is checked with MuJoCo, on the same URDF: at every
millimetre that any point of the arm moves, nothing that may not touch is within 1 mm; and position,
velocity, acceleration and jerk, as differences of positions a millisecond apart, are inside their
limits.

Planning runs in one thread. Its time is that of the core: the same as on the clock where nothing
else wants the core, which `wall_ms` and `load_average` tell.
"""

from __future__ import annotations

import os
import time
from dataclasses import dataclass
from typing import Any

import harness
import matplotlib
import numpy as np
from cell_checker import CellChecker
from harness import Target
from twinloop.motion import make_planner
from twinloop.motion.errors import MotionError
from twinloop.motion.ompl_planner import OmplPlanner
from twinloop.motion.planner import Pose, Scene
from twinloop.robots.hand24 import HAND24

matplotlib.use("Agg")
from matplotlib import pyplot as plt

PAIRS, QUICK_PAIRS = 200, 20
TIMEOUT_S = 2.0
BALL_RADIUS_M = 0.028
GOAL_BOX_M = ((-0.60, 0.15), (-0.25, 0.30), (-0.15, 0.40))  # over tray, ramp and palm
STEEPEST = np.cos(np.radians(50.0))


@dataclass(frozen=True)
class Case:
    scene: Scene
    start: np.ndarray
    goal: np.ndarray  # joint positions; where `is_pose`, of the pose that is asked for
    is_pose: bool


def draw(planner: OmplPlanner, count: int, seed: int = 0) -> list[Case]:
    rng = np.random.default_rng(seed)
    limits = planner.limits
    cases: list[Case] = []
    for index in range(count):
        postures = (HAND24.poses["cup"], np.zeros(24), rng.uniform(HAND24.lower, HAND24.upper))
        hand = np.clip(postures[index % 3], HAND24.lower, HAND24.upper)
        carries = index % 2 == 0
        scene = Scene(hand, 0.028 if carries else 0.04, BALL_RADIUS_M if carries else 0.0)
        planner.set_scene(scene)
        is_pose = index % 4 < 2

        def free(posing: bool, hand_scene: Scene = scene) -> np.ndarray:
            while True:
                q = rng.uniform(limits.lower, limits.upper)
                pose = planner.world.pose(q)
                inside = all(
                    low <= x <= high
                    for x, (low, high) in zip(pose.position, GOAL_BOX_M, strict=True)
                )
                if posing and not (inside and pose.rotation[2, 2] <= -STEEPEST):
                    continue
                if planner.world.is_free(q, 0.004):
                    return q

        cases.append(Case(scene, free(False), free(is_pose), is_pose))
    return cases


def run(planner: OmplPlanner, checker: CellChecker, case: Case) -> dict[str, Any]:
    planner.set_scene(case.scene)
    goal_pose: Pose = planner.world.pose(case.goal)
    began, cpu = time.perf_counter(), time.process_time()
    planner.set_start_state(case.start)
    if case.is_pose:
        planner.set_goal_state(pose=goal_pose)
    else:
        planner.set_goal_state(joint_positions=case.goal)
    try:
        trajectory = planner.plan(timeout_s=TIMEOUT_S)
    except MotionError as error:
        row = {"solved": False, "error": f"{type(error).__name__}: {error}"}
        trajectory = None
    else:
        row = {"solved": True, "error": ""}
    row |= {
        "goal": "pose" if case.is_pose else "joints",
        "carries": case.scene.held_radius_m > 0.0,
        "wall_ms": (time.perf_counter() - began) * 1e3,
        "core_ms": (time.process_time() - cpu) * 1e3,
    }
    if trajectory is not None:
        row |= checker.check(case.scene, trajectory)
        ends = np.abs(trajectory.position[0] - case.start).max() < 1e-9
        if case.is_pose:
            position, rotation = checker.tool(trajectory.position[-1])
            angle = np.arccos(np.clip((np.trace(rotation.T @ goal_pose.rotation) - 1) / 2, -1, 1))
            ends &= np.linalg.norm(position - goal_pose.position) < 1e-4 and angle < 1e-3
        else:
            ends &= np.abs(trajectory.position[-1] - case.goal).max() < 1e-9
        row |= {"reaches": bool(ends), "duration_s": trajectory.duration}
    return row


def main() -> None:
    arguments = harness.parser(__doc__).parse_args()
    folder = harness.start("motion", arguments.full, arguments.resume)
    planner = make_planner("ompl", seed=1)
    assert isinstance(planner, OmplPlanner)
    checker = CellChecker(planner.semantics.allowed)
    rows = [
        run(planner, checker, case)
        for case in draw(planner, PAIRS if arguments.full else QUICK_PAIRS)
    ]
    solved = [row for row in rows if row["solved"]]
    wall = np.array([row["wall_ms"] for row in rows])
    cpu = np.array([row["core_ms"] for row in rows])
    collisions = sum(row["collisions"] > 0 for row in solved)
    beyond = sum(row["limit_share"] > 1.0 + 1e-6 for row in solved)
    missed = sum(not row["reaches"] for row in solved)
    figures = {
        "pairs": len(rows),
        "solved": len(solved),
        "wall_ms_p50": np.percentile(wall, 50),
        "wall_ms_p95": np.percentile(wall, 95),
        "core_ms_p50": np.percentile(cpu, 50),
        "core_ms_p95": np.percentile(cpu, 95),
        "core_ms_max": cpu.max(),
        "load_average": os.getloadavg()[0],
        "duration_s_mean": np.mean([row["duration_s"] for row in solved]),
        "clearance_mm_least": min(row["clearance_mm"] for row in solved),
        "limit_share_greatest": max(row["limit_share"] for row in solved),
        "samples_checked": sum(row["samples"] for row in solved),
        "rows": rows,
    }
    targets = [
        Target("solved", len(solved) / len(rows), 0.99, ">="),
        Target("core_ms_p50", figures["core_ms_p50"], 100.0, "<="),
        Target("core_ms_p95", figures["core_ms_p95"], 400.0, "<="),
        Target("trajectories_in_collision", collisions, 0, "<="),
        Target("trajectories_beyond_limits", beyond, 0, "<="),
        Target("goals_missed", missed, 0, "<="),
    ]
    plot = folder / "planning.png"
    figure, axes = plt.subplots(1, 2, figsize=(9, 3.2), layout="constrained")
    axes[0].plot(np.sort(cpu), np.arange(1, len(cpu) + 1) / len(cpu))
    axes[0].axvline(100, color="0.6", ls=":")
    axes[0].axvline(400, color="0.6", ls="--")
    axes[0].set(xscale="log", xlabel="time of one core for a plan [ms]", ylabel="share of plans")
    axes[1].hist([row["duration_s"] for row in solved], bins=30)
    axes[1].set(xlabel="duration of motion [s]", ylabel="plans")
    figure.savefig(plot, dpi=110)
    harness.finish("motion", folder, figures, targets, arguments.full, plots=[plot])


if __name__ == "__main__":
    main()
