# SPDX-License-Identifier: Apache-2.0
"""`twinloop track`: the ball tracker on the images of a bag, once more."""

from __future__ import annotations

import json
import signal
import threading
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import numpy as np
import typer
from rich.console import Console
from rich.table import Table

from twinloop.bags.errors import BagError
from twinloop.bags.read import TRACKS_SUFFIX, bag_folder
from twinloop.cli.errors import CommandError
from twinloop.cli.options import AsJson, command_line
from twinloop.reporting.machine import commit, machine
from twinloop.reporting.progress import WorkProgress

if TYPE_CHECKING:
    from twinloop.perception.bag_tracking import TrackingFigures

INTERRUPTED = 130
REPORT_FILE = "report.json"


def track(
    bag: Annotated[Path, typer.Option(help="The bag; it is only read.", show_default=False)],
    out: Annotated[
        Path | None,
        typer.Option(help="Folder for the tracks; <bag>.tracks by default.", show_default=False),
    ] = None,
    cameras: Annotated[
        Path | None,
        typer.Option(
            help="Folder with left.yaml and right.yaml; the bag's camera_info by default.",
            show_default=False,
        ),
    ] = None,
    mount: Annotated[
        Path | None,
        typer.Option(help="Where the left camera sits; as the URDF has it.", show_default=False),
    ] = None,
    weights: Annotated[
        Path | None,
        typer.Option(help="Folder of the tracker's network; the shipped one.", show_default=False),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Track the balls in a bag's images again, and write the tracks beside it as a new bag.

    Ctrl-C ends it early; what was tracked until then is a whole bag.
    """
    console = Console(stderr=as_json)
    # Late, because these imports take seconds.
    import torch

    from twinloop.perception.bag_images import count_images
    from twinloop.perception.bag_tracking import track_bag
    from twinloop.perception.ball_tracker import BallTracker
    from twinloop.perception.camera_model import StereoModel, load_camera
    from twinloop.perception.mount import load_mount, mount_from_urdf
    from twinloop.robots.description import hand_urdf

    torch.set_num_threads(1)
    stopped = threading.Event()
    try:
        folder = bag_folder(bag)
        target = out or folder.with_name(folder.name + TRACKS_SUFFIX)
        if target.exists():
            raise CommandError(f"{target} is there already; remove it, or name another by --out")
        stereo = None
        if cameras is not None:
            stereo = StereoModel(
                *(load_camera(cameras / f"{eye}.yaml") for eye in ("left", "right"))
            )
        place = (
            load_mount(mount)
            if mount is not None
            else mount_from_urdf(hand_urdf(), "rh_forearm", "camera_left_optical")
        )
        previous = signal.signal(signal.SIGINT, lambda *_: stopped.set())
        try:
            with WorkProgress(console, count_images(folder), "images") as progress:
                figures = track_bag(
                    folder,
                    target,
                    lambda stereo: BallTracker(stereo, place, weights=weights),
                    stereo,
                    stopped.is_set,
                    progress.update,
                )
        finally:
            signal.signal(signal.SIGINT, previous)
    except (BagError, OSError, ValueError) as error:
        raise CommandError(str(error)) from error
    content = {"command": command_line(), "machine": machine(), "commit": commit()}
    content |= {"bag": str(folder), "tracks": str(target)} | summary(figures)
    text = json.dumps(content, indent=2)
    (target / REPORT_FILE).write_text(text + "\n", encoding="utf-8")
    if as_json:
        typer.echo(text)
    else:
        _show(console, content)
    if figures.was_stopped:
        raise typer.Exit(INTERRUPTED)


def summary(figures: TrackingFigures) -> dict[str, Any]:
    """Return the figures of a run; what was not measured is None."""
    counts, frames = figures.counts, figures.frames
    return {
        "was_stopped": figures.was_stopped,
        "frames": frames,
        "stale_share": [round(count / frames, 4) for count in figures.stale],
        "images_skewed": counts.skewed,
        "images_late": counts.late,
        "images_refused": counts.refused,
        "images_before_camera_info": figures.uncalibrated,
        "pairs_without_joint_states": figures.without_joints,
        "pair_ms": _percentiles(figures.pair_ms),
        "compared_to_recorded": figures.compared,
        "difference_mm": _percentiles([1e3 * each for each in figures.differences_m]),
        "stale_flags_that_differ": figures.stale_differs,
    }


def _percentiles(values: list[float]) -> dict[str, float] | None:
    if not values:
        return None
    return {f"p{share}": round(float(np.percentile(values, share)), 3) for share in (50, 95)}


def _show(console: Console, content: dict[str, Any]) -> None:
    table = Table(show_header=False)
    for name, value in content.items():
        if name in ("command", "machine", "commit", "was_stopped") or value is None:
            continue
        if isinstance(value, dict):
            value = ", ".join(f"{share} {figure:g}" for share, figure in value.items())
        elif isinstance(value, list):
            value = ", ".join(f"ball {index} {share:.1%}" for index, share in enumerate(value))
        table.add_row(name.replace("_", " "), str(value))
    console.print(table)
    if content["was_stopped"]:
        console.print("stopped before the bag's end")
