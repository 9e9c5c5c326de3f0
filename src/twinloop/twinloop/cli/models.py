# SPDX-License-Identifier: Apache-2.0
"""`twinloop models`: list model versions, look at them, promote one by hand."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.table import Table

from twinloop import contract as contracts
from twinloop.cli.errors import CommandError
from twinloop.cli.policy_import import import_policy
from twinloop.learning.gate import Decision, Score
from twinloop.learning.model_file import Manifest
from twinloop.learning.registry import Registry, RegistryError
from twinloop.models import ModelInvalid

app = typer.Typer(help="List model versions, look at them, promote one by hand.")

Folder = Annotated[
    Path, typer.Option("--registry", help="Folder of the models.", show_default=True)
]
Task = Annotated[str, typer.Option("--task", help="Whose models.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print the same as JSON.")]
Version = Annotated[str, typer.Argument(help="Such as v0003, or 'current'.", show_default=False)]
_FOLDER = Path("runs/baoding/registry")

app.command("import")(import_policy)


@app.command("list")
def list_command(folder: Folder = _FOLDER, task: Task = "baoding", as_json: AsJson = False) -> None:
    """List all versions: what they were trained on, their errors, and which one runs."""
    with _errors():
        registry = _open(folder, task)
        current = registry.current()
        rows = [(version, known) for version, known in registry.entries()]
    if as_json:
        _print_json(
            {
                "current": current,
                "versions": [
                    {"version": version, "error": str(known)}
                    if isinstance(known, ModelInvalid)
                    else {"version": version, **_as_dict(known)}
                    for version, known in rows
                ],
            }
        )
        return
    table = Table(
        "", "version", "status", "parent", "transitions", "1 step [mm]", "7 steps [mm]", "made at"
    )
    for version, known in rows:
        mark = "*" if version == current else ""
        if isinstance(known, ModelInvalid):
            table.add_row(mark, version, f"[red]unreadable: {known}[/]")
            continue
        about, score = known.lineage, known.decision.candidate if known.decision else None
        table.add_row(
            mark,
            version,
            known.status,
            about.parent or "-",
            str(about.total_transitions or about.transitions),
            _mm(score.one_step_mm if score else None),
            _mm(score.seven_step_mm if score else None),
            about.created_at,
        )
    Console().print(table)


@app.command("show")
def show_command(
    version: Version, folder: Folder = _FOLDER, task: Task = "baoding", as_json: AsJson = False
) -> None:
    """Show one version: lineage, training, and the gate's decision with every figure."""
    with _errors():
        registry = _open(folder, task)
        name = _resolve(registry, version)
        known = registry.manifest(name)
        path = registry.path(name)
    try:
        registry.load(name)
        usable = "yes"
    except ModelInvalid as error:
        usable = f"no: {error}"
    if as_json:
        about = _as_dict(known) | {"episodes": list(known.lineage.episodes)}
        _print_json({"version": name, "path": str(path), "usable": usable, **about})
        return
    console = Console()
    facts = Table(show_header=False)
    facts.add_row("version", name + (" (runs)" if registry.current() == name else ""))
    facts.add_row("folder", str(path))
    facts.add_row("usable", usable)
    facts.add_row("status", known.status)
    facts.add_row("architecture", str(known.architecture.get("kind")))
    facts.add_row("contract", known.contract_hash)
    facts.add_row("weights", f"{known.weights.bytes / 1e6:.2f} MB")
    for key, value in known.lineage.model_dump().items():
        count = f"{len(value)} episodes" if isinstance(value, tuple) else str(value)
        facts.add_row(key.replace("_", " "), count)
    for key, figure in known.metrics.items():
        facts.add_row(key.replace("_", " "), "-" if figure is None else f"{figure:.4g}")
    if known.decision is not None:
        facts.add_row("decision", f"{known.decision.verdict}: {known.decision.reason}")
    console.print(facts)
    if known.decision is not None and known.decision.candidate is not None:
        console.print(_decision_table(known.decision, known.decision.candidate))


@app.command("promote")
def promote_command(
    version: Version, folder: Folder = _FOLDER, task: Task = "baoding", as_json: AsJson = False
) -> None:
    """Let a version run. A learner that is at work announces it within a second or two."""
    with _errors():
        registry = _open(folder, task)
        before = _current_or_none(registry)
        registry.promote(version)
    _print_change(before, version, as_json)


@app.command("rollback")
def rollback_command(
    folder: Folder = _FOLDER, task: Task = "baoding", as_json: AsJson = False
) -> None:
    """Go back to the version that ran before the current one."""
    with _errors():
        registry = _open(folder, task)
        before = _current_or_none(registry)
        version = registry.rollback()
    _print_change(before, version, as_json)


@contextmanager
def _errors() -> Iterator[None]:
    try:
        yield
    except (RegistryError, ModelInvalid, ValueError) as error:
        raise CommandError(str(error)) from error


def _open(folder: Path, task: str) -> Registry:
    registry = Registry(folder, contracts.load(task))
    if not registry.versions():
        raise RegistryError(f"{registry.folder}: holds no models; --registry names another folder")
    return registry


def _resolve(registry: Registry, version: str) -> str:
    if version != "current":
        return version
    current = registry.current()
    if current is None:
        raise RegistryError(f"{registry.folder}: no model was promoted yet")
    return current


def _current_or_none(registry: Registry) -> str | None:
    """Return the running version, None also where the pointer is broken: this is how to mend it."""
    try:
        return registry.current()
    except RegistryError:
        return None


def _print_change(before: str | None, after: str, as_json: bool) -> None:
    if as_json:
        _print_json({"before": before, "current": after})
    else:
        Console().print(f"{before or 'nothing'} -> {after}")


def _decision_table(decision: Decision, candidate: Score) -> Table:
    running = decision.compared_with or "none"
    table = Table("error on held-out episodes [mm]", "candidate", running, "no motion", "windows")
    scores = (candidate, decision.running, decision.still)
    for name, key in (
        ("after one step", "one_step_mm"),
        ("after seven steps", "seven_step_mm"),
        ("after seven steps, median", "seven_step_median_mm"),
        ("after seven steps, mean over bands", "seven_step_banded_mm"),
    ):
        figures = [_mm(getattr(score, key) if score else None) for score in scores]
        table.add_row(name, *figures, str(candidate.windows))
    for index, band in enumerate(candidate.bands):
        figures = [_mm(score.bands[index].seven_step_mm if score else None) for score in scores]
        table.add_row(f"  {band.from_deg}-{band.to_deg} deg", *figures, str(band.windows))
    return table


def _mm(figure: float | None) -> str:
    return "-" if figure is None else f"{figure:.2f}"


def _as_dict(known: Manifest) -> dict[str, Any]:
    content = known.model_dump(mode="json", exclude={"contract": True, "format": True})
    content["lineage"] = {
        key: len(value) if isinstance(value, list) else value
        for key, value in content["lineage"].items()
    }
    return content


def _print_json(content: Any) -> None:
    typer.echo(json.dumps(content, indent=2))
