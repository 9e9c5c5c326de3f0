# SPDX-License-Identifier: Apache-2.0
"""Calibration on rendered boards: how far off lenses, baseline and camera-to-hand are.

Each session draws a pair of cameras, their place on the mount and a person who holds up a board,
takes views, and does what a refusal asks for. The pair so found then finds its own place on the
hand, in both ways: from one view of a board at a known place on the mount, and from a board taped
anyhow onto the palm, with joint sensors that err.
"""

from __future__ import annotations

import itertools
import json
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import cv2
import harness
import matplotlib
import numpy as np
from board_sessions import (
    CAMERA,
    EVERYWHERE,
    HARSH,
    MOUNT,
    PALM,
    TWIN,
    VGA,
    Format,
    Room,
    draw_board_on_mount,
    draw_board_on_palm,
    draw_mount,
    draw_pair,
    draw_wrist,
    held_boards,
)
from harness import Target
from rich.console import Console
from twinloop.perception.calibration.boards import parse_board
from twinloop.perception.calibration.collecting import Shot, look
from twinloop.perception.calibration.diversity import ENOUGH, corner_counts
from twinloop.perception.calibration.hand_camera import MountCalibration, calibrate_mount
from twinloop.perception.calibration.link import Link
from twinloop.perception.calibration.stereo import StereoCalibration, calibrate_stereo
from twinloop.perception.calibration.views import CalibrationRefused, View
from twinloop.perception.camera_model import StereoModel
from twinloop.reporting.calibration import draw_coverage
from twinloop.robots.description import hand_urdf

matplotlib.use("Agg")
import matplotlib.pyplot as plt

MOUNT_BOARD = parse_board("charuco:6x4:40:28")
PALM_BOARD = parse_board("charuco:6x4:30:22")
FIRST_VIEWS, MORE_VIEWS, MOST_VIEWS = 25, 6, 85
PALM_VIEWS, MOST_PALM_VIEWS = 20, 50
JOINT_STD_DEG = 0.2
BOUNDS = {"focal_pct": 0.5, "baseline_mm": 0.5, "mm": 2.0, "deg": 0.3}


@dataclass(frozen=True)
class Case:
    """A kind of session."""

    name: str
    form: Format
    board: str
    is_promised: bool = True


CASES = (
    Case("280x180, ChArUco", TWIN, "charuco:8x5:34:25"),
    Case("280x180, chessboard", TWIN, "chessboard:9x6:25"),
    Case("640x480, ChArUco", VGA, "charuco:8x5:34:25"),
    Case("280x180, twice the blur and noise", HARSH, "charuco:8x5:34:25", is_promised=False),
)


@dataclass(frozen=True)
class Outcome:
    """What came of one session; errors are None where nothing was found."""

    case: str
    seed: int
    views: int
    refusals: int
    focal_pct: float | None = None
    baseline_mm: float | None = None
    focal_sigmas: float | None = None
    baseline_sigmas: float | None = None
    corner_px: float | None = None
    known_mm: float | None = None
    known_deg: float | None = None
    palm_mm: float | None = None
    palm_deg: float | None = None
    palm_views: int = 0
    refused: str = ""


def run_session(case: Case, seed: int) -> tuple[Outcome, StereoCalibration | None]:
    """Hold one session."""
    rng = np.random.default_rng([seed, 51])
    truth = draw_pair(case.form, rng)
    pair, views, refusals, why = calibrate_pair(
        Room(truth, parse_board(case.board), case.form), rng
    )
    if pair is None:
        return Outcome(case.name, seed, len(views), refusals, refused=why), None
    share, sigmas = [], []
    for eye, std in zip(("left", "right"), pair.focal_std, strict=True):
        found, true = getattr(pair.model, eye).k, getattr(truth, eye).k
        one = np.abs(np.diag(found)[:2] / np.diag(true)[:2] - 1.0).max()
        share.append(one)
        sigmas.append(one / std)
    baseline_m = abs(pair.model.baseline_m - truth.baseline_m)
    mount = draw_mount(rng)
    known = mount_error(from_known_place(truth, pair.model, mount, case.form, rng), mount)
    palm, palm_views = from_palm(truth, pair.model, mount, case.form, rng)
    on_palm = mount_error(palm, mount)
    return Outcome(
        case.name,
        seed,
        len(views),
        refusals,
        100.0 * max(share),
        1e3 * baseline_m,
        max(sigmas),
        baseline_m / pair.baseline_std_m,
        pair.fit.solution.sigma,
        *known,
        *on_palm,
        palm_views,
    ), pair


def calibrate_pair(
    room: Room, rng: np.random.Generator
) -> tuple[StereoCalibration | None, list[View], int, str]:
    """Take views until they do; returns them, and how often and last why they did not."""
    board, views, refusals, why = room.board, [], 0, ""
    poses = held_boards(board, room.truth, rng)
    wanted = FIRST_VIEWS
    while len(views) < MOST_VIEWS:
        for pose in itertools.islice(poses, wanted - len(views)):
            views.append(look(board, Shot(f"{len(views):02d}", room.take(pose, rng))))
        try:
            return calibrate_stereo(board, views), views, refusals, why
        except CalibrationRefused as refusal:
            refusals, why = refusals + 1, str(refusal)
        wanted = len(views) + MORE_VIEWS
        poses = as_told(room, views, why, rng)
    return None, views, refusals, why


def as_told(room: Room, views: list[View], why: str, rng: np.random.Generator) -> Any:
    """Return poses as of a person who does what a refusal asks for."""
    if "tilt the board" in why:
        return held_boards(room.board, room.truth, rng, tilt_deg=(25.0, 40.0), reach=0.4)
    blank = []
    for eye in range(2):
        seen = [one for view in views if (one := view.seen[eye]) is not None]
        counts = corner_counts(seen, (3, 3)).ravel()
        blank += [(eye, part) for part in range(9) if counts[part] < ENOUGH.corners]
    return held_boards(
        room.board,
        room.truth,
        rng,
        tilt_deg=(0.0, 20.0),
        parts=blank or EVERYWHERE,
    )


def from_known_place(
    truth: StereoModel, pair: StereoModel, mount: Any, form: Format, rng: np.random.Generator
) -> MountCalibration | None:
    """Find the cameras' place from one view of a board on the mount."""
    place = draw_board_on_mount(MOUNT_BOARD, mount, rng)
    pictures = Room(truth, MOUNT_BOARD, form).take(np.linalg.inv(mount) @ place, rng)
    view = look(MOUNT_BOARD, Shot("00", pictures))
    link = Link(hand_urdf(), MOUNT, MOUNT)
    try:
        return calibrate_mount(MOUNT_BOARD, [view], pair, link, place, CAMERA)
    except CalibrationRefused:
        return None


def from_palm(
    truth: StereoModel, pair: StereoModel, mount: Any, form: Format, rng: np.random.Generator
) -> tuple[MountCalibration | None, int]:
    """Find it from a board on the palm, at wrist positions that are drawn anew until they do."""
    place, link = draw_board_on_palm(PALM_BOARD, rng), Link(hand_urdf(), MOUNT, PALM)
    room, views = Room(truth, PALM_BOARD, form), []
    while len(views) < MOST_PALM_VIEWS:
        for _ in range(PALM_VIEWS if not views else MORE_VIEWS):
            wrist = draw_wrist(rng)
            pictures = room.take(np.linalg.inv(mount) @ link.pose(wrist) @ place, rng)
            measured = wrist + np.radians(rng.normal(0.0, JOINT_STD_DEG, 2))
            views.append(look(PALM_BOARD, Shot(f"{len(views):02d}", pictures, measured)))
        try:
            return calibrate_mount(PALM_BOARD, views, pair, link, None, CAMERA), len(views)
        except CalibrationRefused:
            continue
    return None, len(views)


def mount_error(found: MountCalibration | None, mount: Any) -> tuple[float | None, float | None]:
    """Return how far off a mount is, mm and deg."""
    if found is None:
        return None, None
    there = found.mount.transform
    turn = cv2.Rodrigues(mount[:3, :3].T @ there[:3, :3])[0]
    return (
        1e3 * float(np.linalg.norm(there[:3, 3] - mount[:3, 3])),
        float(np.degrees(np.linalg.norm(turn))),
    )


def figures_of(case: Case, outcomes: list[Outcome]) -> dict[str, Any]:
    """Return medians, worst and shares within the bounds, over all sessions of a case."""
    row: dict[str, Any] = {
        "case": case.name,
        "sessions": len(outcomes),
        "views_median": float(np.median([one.views for one in outcomes])),
        "refusals_median": float(np.median([one.refusals for one in outcomes])),
        "never_accepted": sum(one.focal_pct is None for one in outcomes),
        "corner_px_median": median([one.corner_px for one in outcomes]),
    }
    for name, bound in figure_bounds():
        values = [getattr(one, name) for one in outcomes]
        within = [value is not None and value <= bound for value in values]
        row |= {
            f"{name}_median": median(values),
            f"{name}_worst": worst(values),
            f"{name}_within": float(np.mean(within)),
        }
    for name in ("focal_sigmas", "baseline_sigmas"):
        known = [getattr(one, name) for one in outcomes if getattr(one, name) is not None]
        row[f"{name}_below_2"] = float(np.mean(np.array(known) <= 2.0)) if known else None
    return row


def figure_bounds() -> list[tuple[str, float]]:
    """Return the measured figures with what they are promised to stay within."""
    ways = [(f"{way}_{unit}", BOUNDS[unit]) for way in ("known", "palm") for unit in ("mm", "deg")]
    return [(name, BOUNDS[name]) for name in ("focal_pct", "baseline_mm")] + ways


def median(values: list[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return float(np.median(known)) if known else None


def worst(values: list[float | None]) -> float | None:
    """Return the largest; None where one is missing, which is worse than any."""
    known = [value for value in values if value is not None]
    return max(known) if len(known) == len(values) else None


def draw(outcomes: dict[str, list[Outcome]], path: Path) -> None:
    """Draw the errors of all sessions, sorted, each over its bound."""
    titles = {
        "focal_pct": "focal length [%]",
        "baseline_mm": "baseline [mm]",
        "known_mm": "camera to hand, board at a known place [mm]",
        "known_deg": "likewise [deg]",
        "palm_mm": "camera to hand, board taped to the palm [mm]",
        "palm_deg": "likewise [deg]",
    }
    figure, grid = plt.subplots(3, 2, figsize=(9, 8), layout="constrained")
    for axes, (name, bound) in zip(grid.ravel(), figure_bounds(), strict=True):
        for case, of_case in outcomes.items():
            values = sorted(v for one in of_case if (v := getattr(one, name)) is not None)
            share = (np.arange(len(values)) + 1) / max(len(of_case), 1)
            axes.plot(values, share, drawstyle="steps-post", label=case)
        axes.axvline(bound, color="black", lw=1.0, ls="--")
        axes.set_title(titles[name], loc="left", fontsize=10)
        axes.set_xscale("log")
        axes.set_ylim(0.0, 1.02)
        axes.grid(alpha=0.3)
        axes.set_ylabel("share of sessions")
    grid[0, 0].legend(fontsize=7, frameon=False)
    figure.suptitle("Errors of calibrations on rendered boards; dashed: promised", fontsize=11)
    figure.savefig(path, dpi=110, facecolor="white")
    plt.close(figure)


def main() -> None:
    parser = harness.parser(__doc__)
    parser.add_argument("--sessions", type=int, help="of each kind; 30 or, quick, 2 by default")
    arguments = parser.parse_args()
    cv2.setNumThreads(1)
    sessions = arguments.sessions or (30 if arguments.full else 2)
    folder = harness.start("calibration", arguments.full, arguments.resume)
    console = Console()
    outcomes: dict[str, list[Outcome]] = {}
    coverage = folder / "coverage.png"
    for case, seed in itertools.product(CASES, range(sessions)):
        done = folder / f"{CASES.index(case)}-{seed}.json"
        if not done.exists():
            began_s = time.monotonic()
            outcome, pair = run_session(case, seed)
            if pair is not None and not coverage.exists():
                draw_coverage(pair.views, pair.fit.residuals, coverage)
            done.write_text(json.dumps(asdict(outcome)))
            took_s = time.monotonic() - began_s
            console.print(f"{case.name}, {seed}: {took_s:.0f} s", markup=False, highlight=False)
        outcomes.setdefault(case.name, []).append(Outcome(**json.loads(done.read_text())))
    rows = [figures_of(case, outcomes[case.name]) for case in CASES]
    targets = [
        Target(f"{name}, worst of {sessions}: {case.name}", row[f"{name}_worst"], bound, "<=")
        for case, row in zip(CASES, rows, strict=True)
        if case.is_promised
        for name, bound in figure_bounds()
    ]
    draw(outcomes, folder / "errors.png")
    figures = {
        "joint_std_deg": JOINT_STD_DEG,
        "cases": rows,
        "sessions": [asdict(one) for of_case in outcomes.values() for one in of_case],
    }
    plots = [folder / "errors.png", *([coverage] if coverage.exists() else [])]
    harness.finish("calibration", folder, figures, targets, arguments.full, plots)


if __name__ == "__main__":
    main()
