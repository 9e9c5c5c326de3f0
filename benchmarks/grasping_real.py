# SPDX-License-Identifier: Apache-2.0
"""Grasps on a folder of real depth images: NAME.depth.npy [m], NAME.mask.png, and one *.intr file.

The folder is an argument; its images go nowhere but into the run's own folder, as overlays.
"""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from twinloop.grasping import heights, surface
from twinloop.grasping.drawing import annotate
from twinloop.grasping.planner import GraspPlanner, rows
from twinloop.grasping.refusals import GraspRefused
from twinloop.perception.camera_model import CameraModel

# Pixels of the table that leave the robot at the picture's lower edge out: x, y, right, bottom.
REGION = (140, 60, 520, 350)
TOP = 10
FALSE = (0.8, 1.2)
_NEAR_PX = 2


def camera_of(folder: Path, factor: float = 1.0) -> CameraModel:
    """Return the folder's camera, with its focal lengths times a factor."""
    (path,) = folder.glob("*.intr")
    told = json.loads(path.read_text())
    k = np.array(
        [
            [told["_fx"] * factor, 0.0, told["_cx"]],
            [0.0, told["_fy"] * factor, told["_cy"]],
            [0.0, 0.0, 1.0],
        ]
    )
    size = (int(told["_width"]), int(told["_height"]))
    p = np.column_stack([k, np.zeros(3)])
    return CameraModel("real", size, k, np.zeros(5), np.eye(3), p)


def measure(planner: GraspPlanner, folder: Path, out: Path) -> list[dict[str, Any]]:
    """Plan on every image; returns one row each and writes overlays to `out`."""
    return [_image(planner, path, out) for path in sorted(folder.glob("*.depth.npy"))]


def _image(planner: GraspPlanner, path: Path, out: Path) -> dict[str, Any]:
    name = path.name.removesuffix(".depth.npy")
    depth = np.load(path, allow_pickle=False).squeeze().astype(np.float32)
    mask = cv2.imread(str(path.with_name(f"{name}.mask.png")), cv2.IMREAD_GRAYSCALE) > 0
    camera = camera_of(path.parent)
    region = np.zeros(depth.shape, bool)
    region[REGION[1] : REGION[3], REGION[0] : REGION[2]] = True
    row: dict[str, Any] = {"image": name, "grasps": 0}
    began = time.perf_counter(), time.process_time()
    try:
        grasps = planner.plan(depth, camera, region)
    except GraspRefused as error:
        return row | {"refused": str(error.reason)}
    row |= {
        "grasps": len(grasps),
        "plan_ms": 1e3 * (time.perf_counter() - began[0]),
        "core_ms": 1e3 * (time.process_time() - began[1]),
    }
    best = grasps[:TOP]
    scene = heights.build(depth, camera, region)
    given = rows(scene, best)
    pixels = np.concatenate([camera.project(one.contacts) for one in best])
    x, y = np.rint(pixels).astype(int).T
    grown = cv2.dilate(mask.astype(np.uint8), np.ones((2 * _NEAR_PX + 1,) * 2)) > 0
    free = surface.penetration(scene, given, planner.gripper) < surface.TOLERANCE_M
    row |= {
        "best_quality": best[0].quality,
        "contacts_on_mask": float(mask[y, x].mean()),
        "contacts_within_2_px": float(grown[y, x].mean()),
        "free_of_collision": float(free.mean()),
        "top_quality": float(planner.rate(scene, given).mean()),
    }
    for factor in FALSE:
        row |= _falsified(planner, depth, path.parent, region, scene, factor)
    picture = annotate(depth, camera, best)
    edges, _ = cv2.findContours(mask.astype(np.uint8), cv2.RETR_LIST, cv2.CHAIN_APPROX_NONE)
    cv2.drawContours(picture, edges, -1, (120, 120, 255), 1)
    left, top, right, bottom = REGION
    cv2.imwrite(str(out / f"real-{name}.png"), picture[top:bottom, left:right, ::-1])
    return row


def _falsified(
    planner: GraspPlanner,
    depth: np.ndarray,
    folder: Path,
    region: np.ndarray,
    scene: heights.HeightMap,
    factor: float,
) -> dict[str, float]:
    """Return what grasps that were planned with false focal lengths are told and truly worth."""
    name = f"focal_x{factor:g}"
    try:
        grasps = planner.plan(depth, camera_of(folder, factor), region)[:TOP]
    except GraspRefused:
        return {f"{name}_told": 0.0, f"{name}_true": 0.0}
    return {
        f"{name}_told": float(np.mean([one.quality for one in grasps])),
        f"{name}_true": float(planner.rate(scene, rows(scene, grasps)).mean()),
    }
