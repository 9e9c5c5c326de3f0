# SPDX-License-Identifier: Apache-2.0
"""`twinloop report`: a run, or a folder of bags, as one HTML page."""

from __future__ import annotations

import json
import tempfile
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console

from twinloop.cli.errors import CommandError

_PAGE = "report.html"


def report(
    folder: Annotated[
        Path, typer.Argument(help="Folder of a run, or of bags.", show_default=False)
    ],
    out: Annotated[
        Path | None,
        typer.Option(help="File of the page; report.html in the folder by default."),
    ] = None,
    film: Annotated[
        bool, typer.Option(help="Draw a film of the best, median and worst episode.")
    ] = True,
) -> None:
    """Make one HTML page of a run: figures, plots and a small film. It needs no other file."""
    if not folder.is_dir():
        raise CommandError(f"{folder} is not a folder; expected that of a run, or of bags")
    from twinloop import contract as contracts
    from twinloop.bags.read import complete_bags
    from twinloop.reporting import film as films
    from twinloop.reporting.episodes import read_run
    from twinloop.reporting.frames import draw_strip
    from twinloop.reporting.page import page
    from twinloop.reporting.plots import draw
    from twinloop.reporting.report import Run, build

    bags = folder / "bags" if (folder / "bags").is_dir() else folder
    if not complete_bags(bags):
        raise CommandError(f"{bags} holds no complete bag; expected those of episodes")
    console = Console(stderr=True)
    known = _known(folder)
    contract = contracts.load(_task(bags))
    with console.status("reading the bags ..."):
        episodes = read_run(bags, contract)
        models = _models(folder, contract, episodes)
    with tempfile.TemporaryDirectory() as aside, console.status("drawing ..."):
        run = Run(
            str(known.get("command", "")), int(known.get("seed") or 0), Path(aside),
            float(known.get("wall_s") or 0.0),
        )  # fmt: skip
        built = build(run, episodes, models)
        # How a run was measured is its own; here it is only shown.
        built.content.update({key: known[key] for key in _OF_THE_RUN if key in known})
        plots = {path.stem: path.read_bytes() for path in draw(built)}
        strip = draw_strip(episodes, contract, Path(aside) / "frames.png")
        if strip is not None:
            plots["frames"] = strip.read_bytes()
        shown = films.film(episodes, contract) if film else None
    told = [
        f"{title}: episode {one.index + 1}, {films.progress_text(one)}"
        for title, one in films.chosen(episodes)
    ]
    path = folder / _PAGE if out is None else out
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(page(f"twinloop: {folder.name}", built, plots, shown, told), encoding="utf-8")
    typer.echo(f"{path}  ({path.stat().st_size / 1e6:.1f} MB)")


_OF_THE_RUN = ("machine", "commit", "versions", "targets", "training")


def _known(folder: Path) -> dict[str, Any]:
    """Return what the run's own report says; nothing where it has none that can be read."""
    try:
        known = json.loads((folder / "report.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return known if isinstance(known, dict) else {}


def _task(bags: Path) -> str:
    from twinloop.bags.errors import BagError
    from twinloop.bags.read import complete_bags, metadata

    for path in complete_bags(bags):
        try:
            about = metadata(path).episode
        except BagError:
            continue
        if about is not None:
            return about.task
    raise CommandError(f"{bags}: no bag says which task it is of")


def _models(folder: Path, contract: Any, episodes: Any) -> Any:
    from twinloop.learning.registry import Registry
    from twinloop.reporting.models import Models, of_registry

    registry = Registry(folder / "registry", contract)
    return of_registry(registry, episodes) if registry.versions() else Models()
