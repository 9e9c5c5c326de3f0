# SPDX-License-Identifier: Apache-2.0
"""The report of a calibration: figures, a picture of what was covered, errors by view."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from numpy.typing import NDArray

from twinloop.perception.calibration.checks import Promise, rms_px
from twinloop.perception.calibration.diversity import COVERAGE_CELLS, corner_counts
from twinloop.perception.calibration.hand_camera import MountCalibration, MountPromise
from twinloop.perception.calibration.stereo import StereoCalibration
from twinloop.perception.calibration.views import View
from twinloop.perception.mount import Mount
from twinloop.perception.stereo_pairs import EYES
from twinloop.reporting import machine
from twinloop.reporting.drawing import DROPPED, FAINT, INK, KEPT, save
from twinloop.robots.rotations import quaternion_from_matrix

Array = NDArray[np.float64]
Residuals = Sequence[tuple[Array | None, ...]]
REPORT_FILE = "report.json"
_ARROW = 0.05  # of the picture's width, for the largest error


def about(command: str, board: str, source: str) -> dict[str, Any]:
    """Return what every report of a calibration begins with."""
    return {
        "command": command,
        "versions": machine.versions(),
        "machine": machine.machine(),
        "commit": machine.commit(),
        "board": board,
        "source": source,
    }


def stereo_figures(found: StereoCalibration, promise: Promise) -> dict[str, Any]:
    """Return the figures of a stereo pair, with its targets."""
    model, fit = found.model, found.fit
    turn = fit.rig[:3, :3]
    angle = np.arccos(np.clip((np.trace(turn) - 1.0) / 2.0, -1.0, 1.0))
    focal_pct = 200.0 * max(found.focal_std)
    baseline_mm = 2e3 * found.baseline_std_m
    return {
        "size": list(model.left.size),
        "distortion_model": model.left.distortion,
        "eyes": {
            name: {
                "focal_px": _rounded(np.diag(camera.k)[:2], 3),
                "focal_std_pct": round(100.0 * found.focal_std[eye], 4),
                "principal_point_px": _rounded(camera.k[:2, 2], 3),
                "principal_point_std_px": _rounded(fit.lens_std(eye)[2:4], 3),
                "distortion": _rounded(camera.d, 6),
                "coverage": _coverage(found.views, eye),
                "reprojection_px": _error(fit.residuals, eye),
            }
            for eye, (name, camera) in enumerate(zip(EYES, (model.left, model.right), strict=True))
        },
        "baseline_mm": round(1e3 * model.baseline_m, 3),
        "baseline_std_mm": round(1e3 * found.baseline_std_m, 4),
        "angle_between_eyes_deg": round(float(np.degrees(angle)), 4),
        "views": view_figures(found.views, fit.residuals),
        "left_out": found.left_out,
        "targets": [
            _target("focal length, uncertainty [%]", focal_pct, 100.0 * promise.focal),
            _target("baseline, uncertainty [mm]", baseline_mm, 1e3 * promise.baseline_m),
        ],
    }


def mount_figures(
    found: MountCalibration, promise: MountPromise, nominal: Mount | None
) -> dict[str, Any]:
    """Return the figures of a mount, with its targets.

    Args:
        nominal: where the robot's description has the camera.
    """
    mount, estimate = found.mount.transform, found.estimate
    position_mm = 2e3 * found.position_std_m
    rotation_deg = 2.0 * float(np.degrees(found.rotation_std_rad))
    off = None
    if nominal is not None:
        turn = nominal.transform[:3, :3].T @ mount[:3, :3]
        angle = np.arccos(np.clip((np.trace(turn) - 1.0) / 2.0, -1.0, 1.0))
        way = np.linalg.norm(mount[:3, 3] - nominal.transform[:3, 3])
        off = {"mm": round(1e3 * float(way), 2), "deg": round(float(np.degrees(angle)), 3)}
    return {
        "parent_frame": found.mount.parent,
        "child_frame": found.mount.child,
        "position_m": _rounded(mount[:3, 3], 6),
        "quaternion_wxyz": _rounded(quaternion_from_matrix(mount[:3, :3]), 6),
        "position_std_mm": round(1e3 * found.position_std_m, 3),
        "rotation_std_deg": round(float(np.degrees(found.rotation_std_rad)), 4),
        "corner_std_px": round(estimate.pixel_std, 4),
        "joint_std_deg": round(float(np.degrees(estimate.joint_std_rad)), 3),
        "from_the_description": off,
        "board_on_link_m": _rounded(estimate.on_link[:3, 3], 6),
        "views": view_figures(found.views, estimate.residuals),
        "targets": [
            _target("position, uncertainty [mm]", position_mm, 1e3 * promise.position_m),
            _target("rotation, uncertainty [deg]", rotation_deg, np.degrees(promise.rotation_rad)),
        ],
    }


def view_figures(views: Sequence[View], residuals: Residuals | None = None) -> list[dict[str, Any]]:
    """Return each view's corners and, where they are known, its errors [pixels]."""
    result = []
    for index, view in enumerate(views):
        row: dict[str, Any] = {"name": view.name}
        for eye, seen in zip(EYES, view.seen, strict=False):
            row[f"{eye}_corners"] = 0 if seen is None else len(seen.ids)
        for eye, errors in zip(EYES, residuals[index] if residuals else (), strict=False):
            row[f"{eye}_px"] = None if errors is None else round(rms_px(errors), 4)
        result.append(row)
    return result


def write_report(folder: Path, content: dict[str, Any]) -> Path:
    """Write `report.json` into a folder, whole or not at all; returns its path."""
    path = folder / REPORT_FILE
    temporary = path.with_name(f".{REPORT_FILE}")
    text = json.dumps(content, indent=2, allow_nan=False)
    temporary.write_text(text + "\n", encoding="utf-8")
    temporary.replace(path)
    return path


def draw_coverage(views: Sequence[View], residuals: Residuals | None, path: Path) -> Path:
    """Draw where each eye saw corners, with their errors, much enlarged, where they are known."""
    eyes = len(views[0].seen)
    figure = Figure(figsize=(5.4 * eyes, 4.2), layout="constrained")
    FigureCanvasAgg(figure)
    for eye in range(eyes):
        axes = figure.add_subplot(1, eyes, eye + 1)
        seen = [view.seen[eye] for view in views]
        found = [one for one in seen if one is not None]
        axes.set_title(f"{EYES[eye]} eye", loc="left", fontsize=11, color=INK)
        axes.tick_params(colors=INK, labelsize=8)
        if not found:
            continue
        width, height = found[0].size
        axes.set_xlim(-0.5, width - 0.5)
        axes.set_ylim(height - 0.5, -0.5)
        axes.set_aspect("equal")
        counts = corner_counts(found, COVERAGE_CELLS)
        extent = (-0.5, width - 0.5, height - 0.5, -0.5)
        axes.imshow(counts > 0, extent=extent, cmap="Greys", vmin=-0.2, vmax=6.0, aspect="auto")
        pixels = np.concatenate([one.pixels for one in found])
        axes.plot(*pixels.T, ".", color=KEPT, ms=2.5)
        share = f"corners in {(counts > 0).mean():.0%} of the cells"
        errors = [view[eye] for view in residuals] if residuals else []
        known = [one for one in errors if one is not None]
        if known:
            every = np.concatenate(known)
            scale = float(np.linalg.norm(every, axis=1).max()) / (_ARROW * width)
            axes.quiver(
                *pixels.T, *every.T, color=DROPPED, angles="xy", scale_units="xy", scale=scale,
                width=0.0025,
            )  # fmt: skip
            share += f"; errors × {1 / scale:.0f}, rms {rms_px(every):.3f} px"
        axes.set_xlabel(share, fontsize=9, color=INK)
    return save(figure, path)


def draw_errors(views: Sequence[View], residuals: Residuals, path: Path) -> Path:
    """Draw the error of each view as bars, by eye."""
    figure = Figure(figsize=(8.0, 3.6), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    eyes = len(views[0].seen)
    places = np.arange(len(views))
    for eye, color in zip(range(eyes), (KEPT, DROPPED), strict=False):
        heights = [0.0 if view[eye] is None else rms_px(view[eye]) for view in residuals]  # type: ignore[arg-type]
        axes.bar(places + 0.4 * eye, heights, 0.4, color=color, label=f"{EYES[eye]} eye")
    axes.set_title("Reprojection error, by view", loc="left", fontsize=11, color=INK)
    axes.set_ylabel("rms [pixels]", color=INK)
    few = places[:: max(1, len(views) // 20)]
    axes.set_xticks(few + 0.2, [views[i].name for i in few], rotation=60, fontsize=7, ha="right")
    axes.grid(axis="y", color=FAINT, lw=0.6, alpha=0.6)
    axes.set_axisbelow(True)
    axes.legend(frameon=False, fontsize=9)
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
    return save(figure, path)


def _coverage(views: Sequence[View], eye: int) -> float:
    seen = [view.seen[eye] for view in views]
    counts = corner_counts([one for one in seen if one is not None], COVERAGE_CELLS)
    return round(float((counts > 0).mean()), 3)


def _error(residuals: Residuals, eye: int) -> float:
    errors = [view[eye] for view in residuals]
    return round(rms_px(np.concatenate([one for one in errors if one is not None])), 4)


def _target(name: str, value: float, bound: float) -> dict[str, Any]:
    return {
        "name": name,
        "value": round(float(value), 4),
        "bound": f"<= {float(bound):g}",
        "holds": bool(value <= bound),
    }


def _rounded(values: Array, digits: int) -> list[float]:
    return [round(float(value), digits) for value in values]
