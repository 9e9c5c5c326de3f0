# SPDX-License-Identifier: Apache-2.0
"""`twinloop tracker`: draw the ball tracker's training data, and train its network on them."""

from __future__ import annotations

import enum
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from twinloop.cli.errors import CommandError
from twinloop.cli.options import command_line
from twinloop.reporting.progress import WorkProgress

app = typer.Typer(help="Draw the ball tracker's training data, train its network on them.")


class Renderer(enum.StrEnum):
    """What draws the images."""

    auto = "auto"
    mujoco = "mujoco"
    pybullet = "pybullet"


@app.command("data")
def data_command(
    out: Annotated[Path, typer.Argument(help="New folder for them.", show_default=False)],
    pairs: Annotated[int, typer.Option(help="Pairs of images.", min=1)] = 12_000,
    seed: Annotated[int, typer.Option(help="Of states and appearances.", min=0)] = 0,
    renderer: Annotated[Renderer, typer.Option(help="What draws them.")] = Renderer.auto,
) -> None:
    """Draw labelled pairs of images: states of real rollouts and made ones, ever new appearances.

    A pair takes about 250 kB on disk. Equal seeds give equal data on equal renderers.
    """
    import torch
    from twinloop_sim.cameras import open_eyes
    from twinloop_sim.tracker_scenes import generate

    torch.set_num_threads(1)
    console = Console()
    try:
        with WorkProgress(console, pairs, "pairs") as progress:
            generate(out, open_eyes(renderer.value), pairs, seed, say=progress.update)
    except (FileExistsError, RuntimeError) as error:
        raise CommandError(str(error)) from error
    console.print(f"{pairs} pairs in {out}", soft_wrap=True, highlight=False)


@app.command("train")
def train_command(
    data: Annotated[
        list[Path], typer.Argument(help="Folders of `twinloop tracker data`.", show_default=False)
    ],
    out: Annotated[Path, typer.Option(help="Folder for the network.", show_default=False)],
    windows: Annotated[
        int, typer.Option(help="Shown in all, with repetitions.", min=100)
    ] = 300_000,
    seed: Annotated[int, typer.Option(help="Of weights, order and changes.", min=0)] = 0,
) -> None:
    """Train the network on one core; the tracker takes the folder as its `weights`.

    Equal data and seeds give equal weights on equal machines.
    """
    import torch

    from twinloop.perception.ball_tracker import weights
    from twinloop.perception.ball_tracker.data import load
    from twinloop.perception.ball_tracker.training import TrainingSettings, describe, train

    torch.set_num_threads(1)
    console = Console()
    if out.exists() and any(out.iterdir()):
        raise CommandError(f"{out} is not empty; name a new folder")
    try:
        samples = load(data)
    except (OSError, ValueError) as error:
        raise CommandError(str(error)) from error
    settings = TrainingSettings(windows=windows)
    losses: dict[str, float] = {}
    with WorkProgress(console, windows, "windows") as progress:

        def say(step: int, _: int, parts: dict[str, float]) -> None:
            losses.update(parts)
            progress.update(step * settings.batch, describe(parts))

        network = train(samples, settings, seed, say=say)
    about = {
        "command": command_line(),
        "seed": seed,
        "windows": windows,
        "samples": len(samples),
        "losses": {name: round(value, 4) for name, value in losses.items()},
    }
    manifest = weights.save(out, network, about)
    console.print(f"{manifest.bytes / 1e6:.2f} MB in {out}", soft_wrap=True, highlight=False)
