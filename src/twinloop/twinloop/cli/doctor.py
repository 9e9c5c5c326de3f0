# SPDX-License-Identifier: Apache-2.0
"""`twinloop doctor`: what is present, what is missing and what to do."""

from __future__ import annotations

import dataclasses
import json
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table
from rich.text import Text

from twinloop.cli.errors import FAILED
from twinloop.doctor import Check, examine, is_healthy

_MARKS = {"ok": ("ok", "green"), "warning": ("warn", "yellow"), "missing": ("MISSING", "red")}


def doctor(
    as_json: Annotated[bool, typer.Option("--json", help="Print the same as JSON.")] = False,
) -> None:
    """Tell what is present, what is missing and what to do.

    Ends with 1 if something that is needed is missing.
    """
    console = Console()
    if as_json:
        checks = examine()
        report = {
            "healthy": is_healthy(checks),
            "checks": [dataclasses.asdict(check) for check in checks],
        }
        typer.echo(json.dumps(report, indent=2))
    else:
        # Draws nothing where the output is no terminal.
        with console.status("looking around ..."):
            checks = examine()
        console.print(_table(checks))
        console.print(_verdict(checks))
    if not is_healthy(checks):
        raise typer.Exit(FAILED)


def _table(checks: list[Check]) -> Table:
    table = Table(box=None, padding=(0, 1), show_header=False)
    table.add_column(no_wrap=True)
    table.add_column(no_wrap=True)
    table.add_column(overflow="fold")
    for check in checks:
        mark, style = _MARKS[check.status]
        found = Text(check.found)
        if check.advice:
            found.append(f"\n{check.advice}", style="bold")
        table.add_row(Text(mark, style=style), check.name, found)
    return table


def _verdict(checks: list[Check]) -> Text:
    missing = [check.name for check in checks if check.status == "missing"]
    if missing:
        return Text(f"missing: {', '.join(missing)}", style="red")
    return Text("everything that is needed is here", style="green")
