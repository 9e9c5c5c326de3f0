# SPDX-License-Identifier: Apache-2.0
"""`twinloop bag`: look at recorded episodes, check them, mend them, play them again."""

from __future__ import annotations

import dataclasses
import enum
import json
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any, NoReturn, ParamSpec, TypeVar

import typer
from rich.console import Console
from rich.markup import escape
from rich.progress import Progress
from rich.table import Column, Table

from twinloop.bags.check import CheckReport, check
from twinloop.bags.errors import BagError
from twinloop.bags.interventions import control_spans
from twinloop.bags.metadata import BagInformation
from twinloop.bags.read import complete_bags, metadata, unfinished_bags
from twinloop.bags.repair import RepairReport, repair

app = typer.Typer(help="Look at recorded episodes, check them, mend them, play them again.")

_FAILED = 1
_USAGE_ERROR = 2
Bags = Annotated[list[Path], typer.Argument(help="Bags, or folders of bags.", show_default=False)]
Arguments = ParamSpec("Arguments")
Result = TypeVar("Result")
AsJson = Annotated[bool, typer.Option("--json", help="Print the same as JSON.")]


@app.command("info")
def info_command(bags: Bags, as_json: AsJson = False) -> None:
    """Show what bags hold."""
    results = [(path, _or_fail(metadata, path)) for path in _expand(bags)]
    if as_json:
        _print_json([_as_dict(path, information) for path, information in results])
        return
    console = Console()
    if len(results) == 1:
        _print_one(console, *results[0])
    else:
        _print_many(console, results)


@app.command("check")
def check_command(bags: Bags, as_json: AsJson = False) -> None:
    """Check index, checksums, counts, order, cadence, types, contract and values.

    Ends with 1 if a bag has an error; warnings alone do not count.
    """
    reports = [_or_fail(check, path) for path in _expand(bags, unfinished=True)]
    if as_json:
        _print_json([dataclasses.asdict(r) | {"is_sound": r.is_sound} for r in reports])
    else:
        console = Console()
        for report in reports:
            _print_check(console, report, with_topics=len(reports) == 1)
    if not all(report.is_sound for report in reports):
        raise typer.Exit(_FAILED)


@app.command("repair")
def repair_command(
    bags: Bags,
    output: Annotated[
        Path | None, typer.Option(help="Write the valid bag here and leave the broken one alone.")
    ] = None,
    discard: Annotated[
        bool, typer.Option("--discard", help="Do not keep the broken bag as <name>.broken.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Write valid bags from what is left of broken ones.

    In a folder of bags, those without metadata are repaired; a bag that is named is in any case.
    """
    paths = [p for bag in bags for p in ([bag] if _is_bag(bag) else unfinished_bags(bag))]
    if output is not None and len(paths) != 1:
        _fail(f"--output takes one bag, {len(paths)} are given")
    reports = [_or_fail(repair, path, output=output, keep_original=not discard) for path in paths]
    if as_json:
        _print_json([_repair_as_dict(report) for report in reports])
        return
    console = Console()
    if not reports:
        console.print("nothing to repair")
        return
    name = Column("bag", no_wrap=True, overflow="fold")
    table = Table(name, "messages kept", "dropped", "bytes lost", "damaged places", "original")
    for report in reports:
        table.add_row(
            report.path.name,
            str(report.messages_kept),
            str(report.messages_dropped),
            str(report.bytes_lost),
            str(len(report.damages)),
            report.original.name if report.original else "-",
        )
    console.print(table)


@app.command("replay")
def replay_command(
    bag: Annotated[Path, typer.Argument(help="The bag's folder.", show_default=False)],
    rate: Annotated[float, typer.Option(help="2 is twice as fast as recorded.")] = 1.0,
    topic: Annotated[
        list[str] | None, typer.Option(help="Only this topic; may be given again.")
    ] = None,
    clock: Annotated[bool, typer.Option("--clock", help="Publish /clock too.")] = False,
    as_json: AsJson = False,
) -> None:
    """Publish a bag's messages again; Ctrl-C ends it."""
    try:
        from twinloop.nodes.replay import replay
    except ImportError as error:
        _fail(f"replay needs ROS 2, which is not there ({error}); 'twinloop doctor' tells more")
    console = Console(stderr=True)
    with Progress(console=console, transient=True, disable=not console.is_terminal) as progress:
        task = progress.add_task("messages")
        count = _or_fail(
            replay,
            bag,
            rate=rate,
            topics=topic,
            clock=clock,
            progress=lambda done, total: progress.update(task, completed=done, total=total),
        )
    if as_json:
        _print_json({"path": str(bag), "published": count})
    else:
        Console().print(f"{count} messages published")


class Format(enum.StrEnum):
    """What bags are written as."""

    lerobot = "lerobot"


@app.command("export")
def export_command(
    bags: Bags,
    out: Annotated[Path, typer.Option(help="Folder to make.", show_default=False)],
    format: Annotated[Format, typer.Option(help="Of the data set.")] = Format.lerobot,
    as_json: AsJson = False,
) -> None:
    """Write bags of one contract as a data set of LeRobot."""
    from twinloop.bags import lerobot

    try:
        count = lerobot.export(_expand(bags), out)
    except (BagError, FileExistsError, lerobot.ParquetMissing) as error:
        _fail(str(error))
    _tell(as_json, {"path": str(out), "episodes": count}, f"{count} episodes in {out}")


@app.command("import")
def import_command(
    folder: Annotated[Path, typer.Argument(help="The data set.", show_default=False)],
    out: Annotated[Path, typer.Option(help="Folder for the bags.", show_default=False)],
    format: Annotated[Format, typer.Option(help="Of the data set.")] = Format.lerobot,
    as_json: AsJson = False,
) -> None:
    """Write a data set that was exported here as bags again."""
    from twinloop.bags import lerobot

    try:
        written = lerobot.bring_back(folder, out)
    except (BagError, lerobot.NotADataSet, lerobot.ParquetMissing) as error:
        _fail(str(error))
    _tell(as_json, {"bags": [str(path) for path in written]}, f"{len(written)} bags in {out}")


def _tell(as_json: bool, content: dict[str, Any], line: str) -> None:
    if as_json:
        _print_json(content)
    else:
        Console().print(line, soft_wrap=True)


def _is_bag(path: Path) -> bool:
    return path.suffix == ".mcap" or any(path.glob("*.mcap"))


def _expand(paths: list[Path], unfinished: bool = False) -> list[Path]:
    found: list[Path] = []
    for path in paths:
        if _is_bag(path) or not path.is_dir():
            found.append(path)
        else:
            found += sorted([*complete_bags(path), *(unfinished_bags(path) if unfinished else [])])
    if not found:
        _fail(f"no bags in {', '.join(str(path) for path in paths)}")
    return found


def _or_fail(
    action: Callable[Arguments, Result], *args: Arguments.args, **kwargs: Arguments.kwargs
) -> Result:
    try:
        return action(*args, **kwargs)
    except (BagError, ValueError) as error:
        _fail(str(error))


def _fail(message: str) -> NoReturn:
    typer.echo(f"error: {message}", err=True)
    raise typer.Exit(_USAGE_ERROR)


def _as_dict(path: Path, information: BagInformation) -> dict[str, Any]:
    episode = information.episode
    return {
        "path": str(path),
        "start_ns": information.start_ns,
        "duration_s": information.duration_ns / 1e9,
        "messages": information.message_count,
        "bytes": _size(path),
        "topics": {topic.name: topic.message_count for topic in information.topics},
        "commanded": [dataclasses.asdict(span) for span in _or_fail(control_spans, path)],
        "episode": episode.model_dump(exclude={"contract"}) if episode else None,
    }


def _print_one(console: Console, path: Path, information: BagInformation) -> None:
    console.print(str(path), soft_wrap=True)
    facts = Table(show_header=False)
    facts.add_row("duration", f"{information.duration_ns / 1e9:.2f} s")
    facts.add_row("messages", str(information.message_count))
    facts.add_row("size", f"{_size(path) / 1e6:.2f} MB")
    if information.episode is not None:
        fields = information.episode.model_dump(exclude={"contract", "controller", "versions"})
        for name, value in fields.items():
            if value not in (None, ""):
                facts.add_row(name.replace("_", " "), str(value))
    for span in _or_fail(control_spans, path):
        facts.add_row(f"{span.who} commanded", f"{span.begins_s:.2f} to {span.ends_s:.2f} s")
    console.print(facts)
    topics = Table("topic", "type", "messages", "rate [Hz]")
    seconds = information.duration_ns / 1e9
    for topic in information.topics:
        rate = f"{topic.message_count / seconds:.1f}" if seconds > 0 else "-"
        topics.add_row(topic.name, topic.type, str(topic.message_count), rate)
    console.print(topics)


def _print_many(console: Console, results: list[tuple[Path, BagInformation]]) -> None:
    name = Column("bag", no_wrap=True, overflow="fold")
    table = Table(name, "task", "steps", "rotation [deg]", "ended", "model", "MB")
    for path, information in results:
        episode = information.episode
        rotation = episode.rotation_deg if episode else None
        table.add_row(
            path.name,
            f"{episode.task} {episode.goal}".strip() if episode else "-",
            str(episode.steps) if episode and episode.steps is not None else "-",
            f"{rotation:.1f}" if rotation is not None else "-",
            ((episode.stop_reason or "-") if episode else "-"),
            (episode.model_version or "-") if episode else "-",
            f"{_size(path) / 1e6:.2f}",
        )
    console.print(table)


def _print_check(console: Console, report: CheckReport, *, with_topics: bool) -> None:
    verdict = "[green]sound[/]" if report.is_sound else "[red]not sound[/]"
    console.print(f"{report.path.name}: {verdict}")
    for finding in report.findings:
        colour = "red" if finding.severity == "error" else "yellow"
        console.print(
            f"  [{colour}]{finding.severity}[/] {finding.what}: {escape(finding.message)}"
        )
    if with_topics:
        table = Table("topic", "type", "messages", "rate [Hz]", "longest gap [s]")
        for topic in report.topics:
            table.add_row(
                topic.topic,
                topic.type,
                str(topic.messages),
                f"{topic.rate_hz:.2f}",
                f"{topic.max_gap_s:.3f}",
            )
        console.print(table)


def _repair_as_dict(report: RepairReport) -> dict[str, Any]:
    return {
        "path": str(report.path),
        "original": str(report.original) if report.original else None,
        "messages_kept": report.messages_kept,
        "messages_dropped": report.messages_dropped,
        "bytes_lost": report.bytes_lost,
        "damages": [damage._asdict() for damage in report.damages],
        "topics": report.topics,
    }


def _size(path: Path) -> int:
    folder = path.parent if path.is_file() else path
    return sum(file.stat().st_size for file in folder.glob("*.mcap"))


def _print_json(content: Any) -> None:
    typer.echo(json.dumps(content, indent=2, default=str))
