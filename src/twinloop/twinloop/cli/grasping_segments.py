# SPDX-License-Identifier: Apache-2.0
"""`twinloop grasping segment-data|segment-train`: data and training of heap segmentation."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from twinloop.cli.errors import CommandError
from twinloop.cli.grasping_data import DataFolder, OfSplit, Ray, Split, Workers, generate_parts
from twinloop.cli.options import command_line
from twinloop.reporting.progress import WorkProgress


def segment_data_command(
    out: DataFolder,
    scenes: Annotated[int, typer.Option(help="Heaps, in parts of 10.", min=1)] = 1000,
    split: OfSplit = Split.train,
    workers: Workers = 1,
    ray: Ray = "",
) -> None:
    """Generate heaps and the thing each pixel shows, four views a heap, 270 kB on disk.

    Equal splits and numbers give equal data, however many processes there are.
    """
    from twinloop_sim.grasping.segments import SCENES_IN_PART, make_part

    generate_parts(out, scenes, split, workers, ray, make_part, SCENES_IN_PART)


def segment_train_command(
    data: Annotated[
        Path, typer.Argument(help="Folder of `twinloop grasping segment-data`: train, val.")
    ],
    out: Annotated[
        Path,
        typer.Option(help="Folder for the network; carried on with if there.", show_default=False),
    ],
    epochs: Annotated[int, typer.Option(help="Passes over the data.", min=1)] = 30,
    seed: Annotated[int, typer.Option(help="Of weights, order and changes.", min=0)] = 0,
    threads: Annotated[int, typer.Option(help="Threads of the matrix products.", min=1)] = 1,
) -> None:
    """Train heap segmentation on training objects; its figures are of the validation split.

    Each pass is kept beside the network and carried on with. Equal data and seeds give equal
    weights on equal machines.
    """
    import torch

    from twinloop.grasping.segmentation import training, weights
    from twinloop.grasping.segmentation.data import load
    from twinloop.models.base import ModelInvalid

    torch.set_num_threads(threads)
    console = Console()
    settings = training.SegmentTrainingSettings(epochs=epochs)
    try:
        heaps, held_out = load(data, "train"), load(data, "val")
        with WorkProgress(console, epochs * (len(heaps) // settings.batch), "steps") as progress:
            network = training.train(
                heaps, settings, seed, out,
                say=lambda step, _, loss: progress.update(step, f"loss {loss:.3f}"),
            )  # fmt: skip
    except (ValueError, ModelInvalid) as error:
        raise CommandError(str(error)) from error
    found = training.figures(network, held_out)
    about = {
        "command": command_line(),
        "seed": seed,
        "epochs": epochs,
        "views": len(heaps),
        "validation": {name: round(value, 4) for name, value in found.items()},
    }
    manifest = weights.save(out, network, about)
    for name, value in found.items():
        console.print(f"validation {name}: {value:.3f}", highlight=False)
    console.print(f"{manifest.bytes / 1e6:.2f} MB in {out}", soft_wrap=True, highlight=False)
