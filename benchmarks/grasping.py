# SPDX-License-Identifier: Apache-2.0
"""Depth grasping: time of a plan, validation by object, calibration, real images, the pick loop.

Everything is drawn with test and adversarial objects, from which nothing was trained or calibrated.
In the pick loop Franka's arm clears a bin in the twin: it sees noisy depth images, from a camera
whose place is known with the errors of a calibration, its joints and their torques, and nothing
else. An attempt has succeeded where something truly came to lie in the other bin by it. Beside the
network, in the same bins: a top-down heuristic and the antipodal sampler without a network. Single
and adversarial objects lie in the bin alone, heaps are a Poisson number (mean 5, 1 to 10). Robot
time does not pass while anything is planned; the core's time for planning is added to it.

Real images are taken from the folder that is named by `--real`; without it they are not measured.
Each part is kept in the run's folder, so that `--resume` carries on where it stopped, and `--parts`
spreads the protocol over time; what was not measured yet holds no target.
"""

from __future__ import annotations

import dataclasses
import json
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import grasping_real
import grasping_segments
import harness
import matplotlib.pyplot as plt
import numpy as np
import torch
from grasping_picks import IMAGES, Bins, causes, clear_bins
from harness import Target
from rich.console import Console
from rich.table import Table
from twinloop.grasping import calibration, candidates, heights, segmentation, surface, weights
from twinloop.grasping.gripper import FRANKA_HAND
from twinloop.grasping.planner import GraspPlanner, PlannerSettings
from twinloop.grasping.refusals import GraspRefused
from twinloop.paths import share
from twinloop_sim.grasping import depth_camera, labels, objects, views
from twinloop_sim.grasping.clearing import Kind
from twinloop_sim.grasping.scene import Scene
from twinloop_sim.grasping.trials import lift_disturbed, lift_planned

NOISES = ("structured_light", "d435")
PROMISED = {Kind.single: 0.95, Kind.heap: 0.90, Kind.adversarial: 0.75}
_FIRST_SEED = 500_000
_LIFTS = 4  # of a heap, for labels
_PARTS = ("real", "timing", "labels", "reliability", "segments", "picks")


def main() -> None:
    parser = harness.parser(__doc__)
    parser.add_argument("--real", type=Path, help="folder of real depth images")
    parser.add_argument("--attempts", type=int, help="of each cell of the pick loop")
    parser.add_argument("--parts", nargs="+", choices=_PARTS, default=_PARTS, help="to measure")
    parser.add_argument("--rows", default="", help="of the pick loop, that have this in their name")
    parser.add_argument("--scale", type=int, help="times the quick form's scenes; full: 10")
    parser.add_argument("--rounds", type=int, help="of refinement; the planner's own without")
    parser.add_argument("--images", type=int, help="of a sight; as the camera needs without")
    parser.add_argument("--cut", default="", help="why a full protocol is cut short")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    folder = harness.start("grasping", arguments.full, arguments.resume)
    console = Console(width=150)
    attempts = arguments.attempts or (300 if arguments.full else 8)
    scale = arguments.scale or (10 if arguments.full else 1)
    network, manifest = weights.load(share("models", "grasping"))
    settings = PlannerSettings()
    if arguments.rounds is not None:
        settings = dataclasses.replace(settings, rounds=arguments.rounds)
    planner = GraspPlanner(network, manifest.calibration, settings=settings)

    def part(name: str, make: Callable[[], Any]) -> Any:
        path = folder / f"{name}.json"
        if not path.exists():
            if name.partition("-")[0] not in arguments.parts:
                return None
            console.print(f"{name} ...")
            path.write_text(json.dumps(make()))
        return json.loads(path.read_text())

    real: list[dict[str, Any]] = []
    if arguments.real is not None:
        real = part("real", lambda: grasping_real.measure(planner, arguments.real, folder)) or []
    timing = part("timing", lambda: plan_times(planner, 10 * scale))
    checked = part("labels", lambda: labels_and_lifts(5 * scale))
    told = part("reliability", lambda: reliability(planner, 6 * scale))
    told_apart = segments(folder, part, 2 * scale, 8 * scale)
    wanted = attempts if "picks" in arguments.parts else 0
    bins = Bins(planner, arguments.images)
    table = [
        clear_bins(folder, bins, row, wanted if arguments.rows in ", ".join(row) else 0, console)
        for row in rows_of_picks()
    ]
    for rows in (told_apart, table):
        if rows:
            show(console, rows)
    plots = [place] if (place := causes(folder, table)) is not None else []
    if told:
        draw(folder / "reliability.png", told)
        plots.append(folder / "reliability.png")
    figures: dict[str, Any] = {
        "rounds_of_refinement": settings.rounds,
        "images_of_a_sight": arguments.images or IMAGES,
        "plan": timing,
        "validation": manifest.trained.get("validation", {}),
        "model_mb": manifest.bytes / 1e6,
        "labels_and_lifts": checked,
        "reliability_on_test_objects": told,
        "real_images": real,
        "segmentation": told_apart,
        "pick_loop": table,
    }
    if arguments.cut:
        figures["cut"] = arguments.cut
    harness.finish(
        "grasping",
        folder,
        figures,
        targets(figures, table),
        arguments.full,
        plots,
    )


def rows_of_picks() -> list[tuple[str, Kind, str]]:
    """Return the rows of the pick loop: who picks what, seen through which noise."""
    network = [("network", kind, noise) for noise in NOISES for kind in Kind]
    others = [(name, kind, NOISES[0]) for name in ("top-down", "antipodal") for kind in Kind]
    return [*network, *others]


def plan_times(planner: GraspPlanner, count: int) -> dict[str, float]:
    """Time plans on images of heaps, 640 x 480, by the clock and on the cores."""
    scene = Scene()
    wall, core = [], []
    for index in range(count):
        rng = np.random.default_rng([objects.SPLITS.index("test"), _FIRST_SEED + index])
        views.draw_heap(scene, "test", rng)
        camera = depth_camera.draw_camera(rng)
        view = views.look(scene, camera, NOISES[index % 2], rng)
        began = time.perf_counter(), time.process_time()
        try:
            planner.plan(view.depth, camera.camera, view.mask)
        except GraspRefused:
            continue
        wall.append(1e3 * (time.perf_counter() - began[0]))
        core.append(1e3 * (time.process_time() - began[1]))
    scene.close()
    return {
        "plans": len(wall),
        "wall_ms_p50": float(np.median(wall)),
        "wall_ms_p99": float(np.percentile(wall, 99)),
        "core_ms_p50": float(np.median(core)),
        "core_ms_p99": float(np.percentile(core, 99)),
    }


def segments(
    folder: Path, part: Callable[[str, Callable[[], Any]], Any], val: int, test: int
) -> list[dict[str, Any]]:
    """Return how well heaps are segmented, a row for each camera and method.

    Args:
        part: keeps what was measured by its name.
        val, test: heaps that settings are chosen on, and that are measured, of each camera.
    """
    best = part("segments", lambda: grasping_segments.tuned(val))
    if not best:
        return []
    found: list[dict[str, Any]] = []
    for camera in grasping_segments.CAMERAS:
        measure = partial(
            grasping_segments.measure, segmentation.shipped(), camera, test, best, folder
        )
        found += part(f"segments-{camera}", measure) or []
    return found


def labels_and_lifts(scenes: int) -> list[dict[str, float]]:
    """Compare robust Ferrari-Canny quality with simulated lifts, on candidates of test heaps."""
    scene = Scene()
    told: list[float] = []
    held: list[bool] = []
    for index in range(scenes):
        rng = np.random.default_rng([objects.SPLITS.index("test"), _FIRST_SEED + 10_000 + index])
        views.draw_heap(scene, "test", rng)
        camera = depth_camera.draw_camera(rng)
        view = views.look(scene, camera, "ideal", rng)
        try:
            seen = heights.build(view.depth, camera.camera, view.mask, rng)
        except GraspRefused:
            continue
        grasps = candidates.sample(seen, FRANKA_HAND, 300, rng)
        grasps = grasps[surface.penetration(seen, grasps, FRANKA_HAND) < surface.TOLERANCE_M]
        world = views.into_world(grasps, seen, camera)
        quality = labels.robust_quality(scene, world, FRANKA_HAND, rng)
        # As many of the good as of the bad, or nearly all would be bad.
        order = np.argsort(quality)
        chosen = np.concatenate([order[: _LIFTS // 2], order[-(_LIFTS // 2) :]])
        before = scene.client.saveState()
        for number in chosen if len(grasps) >= _LIFTS else []:
            told.append(float(quality[number]))
            held.append(bool(lift_disturbed(scene, world, int(number), FRANKA_HAND, rng).bodies))
            scene.client.restoreState(before)
        scene.client.removeState(before)
    scene.close()
    rows = []
    for low, high in ((0.0, 0.01), (0.01, 0.5), (0.5, 0.99), (0.99, 1.01)):
        inside = [h for q, h in zip(told, held, strict=True) if low <= q < high]
        if inside:
            rows.append(
                {
                    "quality_from": low,
                    "to": min(high, 1.0),
                    "lifts": len(inside),
                    "held": float(np.mean(inside)),
                }
            )
    return rows


def reliability(planner: GraspPlanner, scenes: int) -> dict[str, Any]:
    """Lift planned grasps of all ranks on test objects, and compare with the told quality."""
    assert planner.network is not None
    odds, held = lift_planned(planner.network, "test", scenes, 3)
    slope, intercept = planner.calibration
    quality = 1 / (1 + np.exp(-(slope * odds + intercept)))
    return {"lifts": len(held)} | calibration.reliability(quality, held)


def targets(figures: dict[str, Any], table: list[dict[str, Any]]) -> list[Target]:
    """Return what is promised of plans, the model, real images and the pick loop."""
    plan, real = figures["plan"] or {}, figures["real_images"]
    found = [
        Target("plan wall_ms_p50", plan.get("wall_ms_p50"), 300.0, "<="),
        Target("plan wall_ms_p99", plan.get("wall_ms_p99"), 600.0, "<="),
        Target("model_mb", figures["model_mb"], 3.0, "<="),
    ]
    rows = {row["cell"]: row for row in table}
    for kind, bound in PROMISED.items():
        clean = rows[f"network, {kind}, {NOISES[0]}"]
        noisy = rows[f"network, {kind}, {NOISES[1]}"]
        lost = None
        if clean["attempts"] and noisy["attempts"]:
            lost = clean["success"] - noisy["success"]
        found += [
            Target(f"{kind}: success", clean["success"], bound, ">="),
            Target(f"{kind}: attempts", clean["attempts"], 300, ">="),
            Target(f"{kind}: cleared", clean["cleared"], 0.95, ">="),
            Target(f"{kind}: lost by d435", lost, 0.08, "<="),
        ]
    planned = [row for row in real if row["grasps"]]

    def over(name: str, reduce: Callable[[list[float]], float]) -> float | None:
        return float(reduce([row[name] for row in planned])) if planned else None

    ours = [row for row in figures["segmentation"] if row["method"] == "ours"]
    found.append(
        Target(
            "segmentation: image_ms_p50",
            max((row["image_ms_p50"] for row in ours), default=None),
            grasping_segments.PROMISED_MS,
            "<=",
        )
    )

    drops = [
        row["top_quality"] - np.mean([row[f"focal_x{f:g}_true"] for f in grasping_real.FALSE])
        for row in planned
    ]
    return [
        *found,
        Target("real: images with a grasp", len(planned) if real else None, 8, ">="),
        Target("real: slowest plan_ms", over("plan_ms", max), 600.0, "<="),
        Target("real: contacts_on_mask", over("contacts_on_mask", np.mean), 0.9, ">="),
        Target("real: free_of_collision", over("free_of_collision", min), 1.0, ">="),
        Target("real: least drop by false focal length", min(drops, default=None), 0.01, ">="),
    ]


def show(console: Console, table: list[dict[str, Any]]) -> None:
    """Print the pick loop."""
    shown = Table(box=None, padding=(0, 1))
    for name in table[0]:
        shown.add_column(name, header_style="dim")
    for row in table:
        shown.add_row(*(f"{v:.3g}" if isinstance(v, float) else str(v) for v in row.values()))
    console.print(shown)


def draw(path: Path, told: dict[str, Any]) -> None:
    """Draw told against found qualities."""
    figure, axis = plt.subplots(figsize=(5.5, 5), layout="tight")
    axis.plot([0, 1], [0, 1], color="0.7")
    rows = told["bins"]
    axis.plot([row["told"] for row in rows], [row["held"] for row in rows], "o-")
    for row in rows:
        axis.annotate(str(row["count"]), (row["told"], row["held"]), fontsize=8)
    axis.set_xlabel("told quality")
    axis.set_ylabel("share that held")
    axis.set_title(
        f"{told['lifts']} lifts on test objects, ECE {told['expected_calibration_error']:.3f}"
    )
    axis.grid(True, alpha=0.3)
    figure.savefig(path, dpi=120)
    plt.close(figure)


if __name__ == "__main__":
    main()
