# SPDX-License-Identifier: Apache-2.0
"""`twinloop grasping`: data of the twin, training of the quality network, and its calibration."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from twinloop.cli.errors import CommandError
from twinloop.cli.grasping_data import DataFolder, OfSplit, Ray, Split, Workers, generate_parts
from twinloop.cli.grasping_segments import segment_data_command, segment_train_command
from twinloop.cli.options import command_line
from twinloop.reporting.progress import WorkProgress

app = typer.Typer(
    help="Generate grasps and heaps in the twin, train the networks on them, calibrate them."
)
app.command("segment-data")(segment_data_command)
app.command("segment-train")(segment_train_command)


@app.command("data")
def data_command(
    out: DataFolder,
    scenes: Annotated[int, typer.Option(help="Heaps, in parts of 20.", min=1)] = 1000,
    split: OfSplit = Split.train,
    workers: Workers = 1,
    ray: Ray = "",
) -> None:
    """Generate grasps of heaps with their robust quality, about 200 a scene, 100 kB on disk.

    Equal splits and numbers give equal data, however many processes there are.
    """
    from twinloop_sim.grasping.generate import SCENES_IN_PART, make_part

    generate_parts(out, scenes, split, workers, ray, make_part, SCENES_IN_PART)


@app.command("train")
def train_command(
    data: Annotated[Path, typer.Argument(help="Folder of `twinloop grasping data`: train, val.")],
    out: Annotated[Path, typer.Option(help="New folder for the network.", show_default=False)],
    epochs: Annotated[int, typer.Option(help="Passes over the data.", min=1)] = 4,
    seed: Annotated[int, typer.Option(help="Of weights, order and changes.", min=0)] = 0,
    threads: Annotated[int, typer.Option(help="Threads of the matrix products.", min=1)] = 1,
) -> None:
    """Train the network on objects of the training split; its figures are of the validation split.

    Equal data and seeds give equal weights on equal machines.
    """
    import numpy as np
    import torch

    from twinloop.grasping import weights
    from twinloop.grasping.data import load
    from twinloop.grasping.training import TrainingSettings, figures, predict, train

    torch.set_num_threads(threads)
    console = Console()
    if out.exists() and any(out.iterdir()):
        raise CommandError(f"{out} is not empty; name a new folder")
    try:
        samples, held_out = load(data, "train"), load(data, "val")
    except ValueError as error:
        raise CommandError(str(error)) from error
    settings = TrainingSettings(epochs=epochs)
    steps = max(epochs * len(samples) // settings.batch, 1)
    with WorkProgress(console, steps, "steps") as progress:

        def say(step: int, _: int, loss: float) -> None:
            progress.update(step, f"loss {loss:.3f}")

        network = train(samples, settings, seed, say=say)
    found = figures(predict(network, held_out), held_out.labels.numpy().astype(np.float64))
    about = {
        "command": command_line(),
        "seed": seed,
        "epochs": epochs,
        "samples": len(samples),
        "validation_samples": len(held_out),
        "validation": {name: round(value, 4) for name, value in found.items()},
    }
    manifest = weights.save(out, network, about)
    for name, value in found.items():
        console.print(f"validation {name}: {value:.3f}", highlight=False)
    console.print(f"{manifest.bytes / 1e6:.2f} MB in {out}", soft_wrap=True, highlight=False)


@app.command("calibrate")
def calibrate_command(
    model: Annotated[Path, typer.Argument(help="Folder of `twinloop grasping train`.")],
    scenes: Annotated[int, typer.Option(help="Heaps of validation objects.", min=10)] = 150,
    lifts: Annotated[int, typer.Option(help="Simulated lifts a heap.", min=1)] = 3,
) -> None:
    """Calibrate the told quality by simulated lifts of planned grasps on validation objects."""
    import torch
    from twinloop_sim.grasping.trials import lift_planned

    from twinloop.grasping import calibration, weights

    torch.set_num_threads(1)
    console = Console()
    network, manifest = weights.load(model)
    with WorkProgress(console, scenes, "scenes") as progress:
        odds, held = lift_planned(network, "val", scenes, lifts, progress.update)
    try:
        fitted = calibration.fit(odds, held)
    except ValueError as error:
        raise CommandError(str(error)) from error
    slope, intercept = fitted
    about = manifest.trained | {
        "calibration": {"command": command_line(), "lifts": len(held), "held": float(held.mean())}
    }
    weights.save(model, network, about, fitted)
    console.print(
        f"{len(held)} lifts, {100 * held.mean():.1f}% held; slope {slope:.3f}, intercept "
        f"{intercept:.3f}",
        highlight=False,
    )
