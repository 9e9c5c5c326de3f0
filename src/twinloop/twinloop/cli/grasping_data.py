# SPDX-License-Identifier: Apache-2.0
"""What commands that generate data in the grasping twin share: their options, and the work."""

from __future__ import annotations

import enum
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console

from twinloop.cli.errors import CommandError
from twinloop.reporting.progress import WorkProgress


class Split(enum.StrEnum):
    """Objects, apart from each other."""

    train = "train"
    val = "val"
    test = "test"
    adversarial = "adversarial"


DataFolder = Annotated[Path, typer.Argument(help="Folder for them; carried on with if there.")]
OfSplit = Annotated[Split, typer.Option("--split", help="Whose objects are used.")]
Workers = Annotated[int, typer.Option(help="Processes on this machine.", min=1)]
Ray = Annotated[str, typer.Option(help="Ray cluster to use: its address, auto, or local.")]


def generate_parts(
    out: Path,
    scenes: int,
    split: Split,
    workers: int,
    ray: str,
    make: Callable[..., Any],
    size: int,
) -> None:
    """Generate scenes in parts of a size by `make` of the twin, and say how far it is.

    Raises:
        CommandError: the fleet does not answer.
    """
    from twinloop_sim.grasping.generate import generate

    from twinloop.fleet import FleetError

    console = Console()
    try:
        with WorkProgress(console, scenes, "scenes") as progress:
            parts = generate(
                out, scenes, split.value, workers, ray or None, progress.update, make, size
            )
    except FleetError as error:
        raise CommandError(str(error)) from error
    console.print(f"{parts} parts in {out}", soft_wrap=True, highlight=False)
