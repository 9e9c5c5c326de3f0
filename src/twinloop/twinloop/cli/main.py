# SPDX-License-Identifier: Apache-2.0
"""The `twinloop` command. Only the sub-command that is called is imported."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Sequence
from typing import Annotated, NoReturn

import typer

import twinloop
from twinloop.cli.errors import USAGE_ERROR, CommandError
from twinloop.dds import stay_on_this_machine

try:
    from typer import TyperException as Refused
except ImportError:  # older ones are built on click
    from click import ClickException as Refused  # type: ignore[import-not-found, no-redef]

# Name, module under twinloop.cli, attribute (a function or a Typer), one line of help.
COMMANDS = (
    ("demo", "demo", "demo", "Run the Baoding cell: learn while it works, report at the end."),
    ("launch", "launch", "launch", "Run a launch file; Ctrl-C stops everything within 5 s."),
    ("train", "train", "train", "Train a task's model in twins on this machine."),
    ("eval", "eval", "evaluate", "Measure a model in a twin, as fast as the machine allows."),
    ("report", "report", "report", "Make one HTML page of a run: figures, plots and a film."),
    ("bag", "bag", "app", "Look at recorded episodes, check them, mend them, play them again."),
    ("calibrate", "calibrate", "app", "Calibrate cameras from pictures of a printed board."),
    ("track", "track", "track", "Track the balls in a bag's images again."),
    ("tracker", "tracker", "app", "Draw the ball tracker's training data, train its network."),
    ("grasping", "grasping", "app", "Generate grasps in the twin, train their network."),
    ("models", "models", "app", "List model versions, look at them, promote one by hand."),
    ("teleop", "teleop", "teleop", "Steer a running cell from a terminal's keyboard."),
    ("hardware", "hardware", "app", "Check a lab's hardware file; drive simulated devices."),
    ("doctor", "doctor", "doctor", "Tell what is present, what is missing and what to do."),
)


def application(words: Sequence[str]) -> typer.Typer:
    """Return the command line for these words: the one command they name is loaded, the others
    only stand in the help."""
    app = typer.Typer(
        help="Robots that go on learning while they work.",
        no_args_is_help=True,
        add_completion=False,
        pretty_exceptions_enable=False,
        context_settings={"help_option_names": ["-h", "--help"]},
    )
    app.callback()(_options)
    called = next((word for word in words if not word.startswith("-")), None)
    for name, module, attribute, summary in COMMANDS:
        if name != called:
            app.command(name, help=summary)(_not_loaded)
            continue
        loaded = getattr(importlib.import_module(f"twinloop.cli.{module}"), attribute)
        if isinstance(loaded, typer.Typer):
            app.add_typer(loaded, name=name)
        else:
            app.command(name)(loaded)
    return app


def main(words: Sequence[str] | None = None) -> NoReturn:
    """Run the command line and exit: with 2 and one line on stderr where its user is mistaken."""
    words = sys.argv[1:] if words is None else words
    stay_on_this_machine()
    try:
        status = application(words)(words, prog_name="twinloop", standalone_mode=False)
    except CommandError as error:
        _complain(str(error), USAGE_ERROR)
    except Refused as error:
        _complain(_with_hint(error), error.exit_code)
    except typer.Abort:
        _complain("aborted", 1)
    except BrokenPipeError:
        # Whoever read the output has had enough; Python must not complain again at its end.
        sys.stdout = None
        sys.exit(1)
    sys.exit(status if isinstance(status, int) else 0)


def _complain(message: str, status: int) -> NoReturn:
    if message:
        print(f"error: {message}", file=sys.stderr)
    sys.exit(status)


def _with_hint(error: Refused) -> str:
    """Return what is wrong and where to read more; nothing where the help was shown already."""
    message = error.format_message().rstrip(".")
    context = getattr(error, "ctx", None)
    return f"{message}; see '{context.command_path} --help'" if message and context else message


def _print_version(wanted: bool) -> None:
    if wanted:
        print(f"twinloop {twinloop.__version__}")
        raise typer.Exit


def _options(
    version: Annotated[
        bool,
        typer.Option(
            "--version",
            help="Print the version and exit.",
            is_eager=True,
            callback=_print_version,
        ),
    ] = False,
) -> None:
    """Options before the name of a command."""


def _not_loaded() -> NoReturn:
    raise AssertionError("a command that was not named cannot be called")
