# SPDX-License-Identifier: Apache-2.0
"""A calibration from its pictures to its files: what `twinloop calibrate`'s commands share."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn, TypeVar

import numpy as np
import typer
from numpy.typing import NDArray
from rich.console import Console
from rich.table import Table

from twinloop.bags.errors import BagError
from twinloop.cli.errors import FAILED, CommandError
from twinloop.cli.options import command_line, run_folder
from twinloop.learning.files import sync_folder, write_synced
from twinloop.perception.bag_images import count_images
from twinloop.perception.calibration.boards import Board
from twinloop.perception.calibration.collecting import Collection, Shot, look
from twinloop.perception.calibration.detection import describe_unseen
from twinloop.perception.calibration.sources import bag_shots, folder_shots
from twinloop.perception.calibration.views import CalibrationRefused, View
from twinloop.reporting.calibration import (
    about,
    draw_coverage,
    draw_errors,
    view_figures,
    write_report,
)
from twinloop.reporting.progress import WorkProgress

Result = TypeVar("Result")
Residuals = Sequence[tuple[NDArray[np.float64] | None, ...]]
_LEAST_SEEN = 0.25  # share of the pairs that show the board; with less it may be another one
_MORE_VIEWS = 6  # that a live session takes where the result is still too uncertain


@dataclass(frozen=True)
class Live:
    """Live topics, and how long and how often to look at them."""

    namespace: str
    compressed: bool
    rate_hz: float
    timeout_s: float
    views: int


@dataclass(frozen=True)
class Source:
    """Where pictures come from: a folder, a bag, or, where neither is named, live topics."""

    images: Path | None
    bag: Path | None
    live: Live

    def __post_init__(self) -> None:
        if self.images is not None and self.bag is not None:
            raise CommandError("name --images or --bag, not both")

    @property
    def text(self) -> str:
        if self.images is not None:
            return str(self.images)
        return str(self.bag) if self.bag is not None else f"live {self.live.namespace}".strip()


class Session:
    """One run of a command.

    Args:
        kind: names the run's folder.
        run: the folder, where it was given.
        joints: names of the joints whose positions matter.
    """

    def __init__(
        self,
        kind: str,
        board: Board,
        source: Source,
        run: Path | None,
        as_json: bool,
        joints: Sequence[str],
    ) -> None:
        self._kind, self._board, self._source, self._run = kind, board, source, run
        self._as_json, self._joints = as_json, tuple(joints)
        self._console = Console(stderr=as_json)
        self._views: list[View] = []

    def solve(
        self,
        calibrate: Callable[[list[View]], Result],
        missing: Callable[[Sequence[View]], list[str]],
        is_fixed: bool = False,
    ) -> Result:
        """Gather views and calibrate; a refusal is reported and ends the command with 1."""
        self._folder = run_folder(self._run, self._kind)
        try:
            if self._source.images is not None:
                return calibrate(self._from_folder(self._source.images))
            collection = Collection(self._board, missing, bool(self._joints), is_fixed)
            if self._source.bag is not None:
                return calibrate(self._from_bag(self._source.bag, collection))
            return self._from_live(collection, calibrate)
        except CalibrationRefused as refusal:
            self._refuse(refusal)
        except (BagError, OSError) as error:
            raise CommandError(str(error)) from error

    def finish(
        self,
        figures: dict[str, Any],
        views: Sequence[View],
        residuals: Residuals,
        files: Sequence[Path],
        warning: str = "",
    ) -> None:
        """Write the report and its pictures, and print the summary or the report."""
        content = self._about() | figures | {"files": [str(path) for path in files]}
        folder = self._folder
        with self._console.status("drawing ..."):
            draw_coverage(views, residuals, folder / "coverage.png")
            draw_errors(views, residuals, folder / "errors.png")
        path = write_report(folder, content)
        if self._as_json:
            typer.echo(path.read_text(encoding="utf-8"), nl=False)
        _show(self._console, content)
        for name in (*files, path, folder / "coverage.png", folder / "errors.png"):
            self._console.print(f"[bold]{name}[/]", soft_wrap=True, highlight=False)
        if warning:
            self._console.print(warning, style="yellow", soft_wrap=True)

    def _about(self) -> dict[str, Any]:
        return about(command_line(), self._board.text, self._source.text)

    def _from_folder(self, folder: Path) -> list[View]:
        shots = folder_shots(folder, self._joints)
        with WorkProgress(self._console, len(shots), "pairs") as progress:
            for done, shot in enumerate(shots, start=1):
                self._views.append(look(self._board, shot))
                progress.update(done)
        self._check_seen(shots)
        return self._views

    def _from_bag(self, bag: Path, collection: Collection) -> list[View]:
        last: Shot | None = None
        with WorkProgress(
            self._console, count_images(bag, needs_joints=False), "images"
        ) as progress:
            for shot in bag_shots(bag, self._joints, progress=progress.update):
                last = shot
                collection.offer(shot)
        self._views = collection.views
        if last is None:
            lack = f" with positions of {', '.join(self._joints)}" if self._joints else ""
            raise CalibrationRefused(f"{bag} holds no pairs of pictures{lack}")
        if not self._views:
            self._check_seen([last])
        return self._views

    def _from_live(
        self, collection: Collection, calibrate: Callable[[list[View]], Result]
    ) -> Result:
        try:
            from twinloop.cli.calibration_live import LiveSession
        except ImportError as error:
            raise CommandError(
                f"live topics need ROS 2, which is not there ({error}): name --images or --bag, or "
                "see 'twinloop doctor'"
            ) from error
        self._views = collection.views
        live = self._source.live
        with LiveSession(self._console, collection, self._joints, live) as session:
            wanted = live.views
            while True:
                session.take(wanted)
                try:
                    return calibrate(list(collection.views))
                except CalibrationRefused as refusal:
                    if session.is_over:
                        raise
                    session.say(f"not yet: {refusal}")
                    wanted = len(collection.views) + _MORE_VIEWS

    def _check_seen(self, shots: Sequence[Shot]) -> None:
        """Refuse pictures of which few show the board, if they show another one."""
        seen = sum(any(view.seen) for view in self._views)
        if seen >= _LEAST_SEEN * len(shots):
            return
        hints = (describe_unseen(self._board, image) for shot in shots for image in shot.images)
        hint = next((hint for hint in hints if hint), "")
        if hint or not seen:
            raise CalibrationRefused(
                f"the board {self._board.text} is seen in {seen} of {len(shots)} pairs of "
                f"pictures: {hint or 'is it in sight, whole, lit and in focus?'}"
            )

    def _refuse(self, refusal: CalibrationRefused) -> NoReturn:
        content = self._about() | {"refused": list(refusal.reasons)}
        content["views"] = view_figures(self._views)
        folder = self._folder
        path = write_report(folder, content)
        if self._views:
            draw_coverage(self._views, None, folder / "coverage.png")
        if self._as_json:
            typer.echo(path.read_text(encoding="utf-8"), nl=False)
        self._console.print("no calibration was made:", style="red")
        for reason in refusal.reasons:
            self._console.print(f"- {reason}", markup=False, highlight=False)
        self._console.print(f"[bold]{folder}[/]", soft_wrap=True, highlight=False)
        raise typer.Exit(FAILED)


def save_set(texts: dict[Path, str]) -> None:
    """Write files that belong together; each is there whole or not at all, and none before all are
    on the disk.

    Raises:
        CommandError: the disk refused; what was there before stays.
    """
    fresh = {path: path.with_name(f".{path.name}.{os.getpid()}") for path in texts}
    try:
        for path, text in texts.items():
            path.parent.mkdir(parents=True, exist_ok=True)
            fresh[path].unlink(missing_ok=True)
            write_synced(fresh[path], text.encode())
        for path, written in fresh.items():
            written.replace(path)
        for folder in {path.parent for path in texts}:
            sync_folder(folder)
    except OSError as error:
        raise CommandError(f"{error.filename} cannot be written: {error.strerror}") from error
    finally:
        for written in fresh.values():
            written.unlink(missing_ok=True)


def _show(console: Console, content: dict[str, Any]) -> None:
    table = Table(box=None, padding=(0, 1), show_header=False)
    table.add_column(style="dim")
    table.add_column()
    used = len(content["views"])
    table.add_row(
        "views",
        f"{used} used" + "".join(f", {name} left out" for name in content.get("left_out", ())),
    )
    for name, eye in content.get("eyes", {}).items():
        fx, fy = eye["focal_px"]
        cx, cy = eye["principal_point_px"]
        table.add_row(
            f"{name} eye",
            f"f {fx:.2f} {fy:.2f} px ± {eye['focal_std_pct']:.2f}%, c {cx:.1f} {cy:.1f} px, "
            f"error {eye['reprojection_px']:.3f} px, covered {eye['coverage']:.0%}",
        )
    if "baseline_mm" in content:
        table.add_row(
            "baseline", f"{content['baseline_mm']:.2f} mm ± {content['baseline_std_mm']:.3f} mm"
        )
    if "position_m" in content:
        place = " ".join(f"{1e3 * value:.1f}" for value in content["position_m"])
        table.add_row(
            content["child_frame"],
            f"{place} mm in {content['parent_frame']} ± {content['position_std_mm']:.2f} mm, "
            f"± {content['rotation_std_deg']:.3f}°",
        )
        table.add_row("corners", f"± {content['corner_std_px']:.3f} px")
        if content["joint_std_deg"]:
            table.add_row("joint positions", f"± {content['joint_std_deg']:.2f}°")
        off = content["from_the_description"]
        if off:
            table.add_row("off the description", f"{off['mm']:.1f} mm, {off['deg']:.2f}°")
    console.print(table)
