# SPDX-License-Identifier: Apache-2.0
"""`twinloop models import`: other people's policies into a registry."""

from __future__ import annotations

import enum
import json
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from twinloop import contract as contracts
from twinloop.cli.errors import CommandError
from twinloop.models import ModelInvalid


class Acts(enum.StrEnum):
    """What an action is."""

    target = "target"
    change = "change"


def import_policy(
    policy: Annotated[
        Path,
        typer.Argument(
            help="ONNX (.onnx), TorchScript (.pt, .ts), or a checkpoint of Stable-Baselines3 "
            "(.zip).",
            show_default=False,
        ),
    ],
    contract: Annotated[
        str, typer.Option(help="A contract file in JSON, or the name of a task, such as valve.")
    ],
    registry: Annotated[Path, typer.Option("--registry", help="Where it goes.")],
    acts: Annotated[
        Acts, typer.Option(help="Actions are targets, or changes of the command in force.")
    ] = Acts.target,
    own_units: Annotated[
        bool,
        typer.Option("--own-units", help="Actions are in the contract's unit, not within ±1."),
    ] = False,
    chunk: Annotated[int, typer.Option(help="Actions that one call gives.", min=1, max=200)] = 1,
    runs_code: Annotated[
        bool,
        typer.Option(
            "--runs-code",
            help="Run the file once to check it. TorchScript files are programs: only what you "
            "would start as one.",
        ),
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print the same as JSON.")] = False,
) -> None:
    """Bring a policy of another program into a registry, with the contract that it is of."""
    # Late, because these imports take seconds.
    from twinloop.learning import exported_policies, stable_baselines
    from twinloop.learning.model_file import Candidate, Lineage
    from twinloop.learning.registry import Registry, RegistryError
    from twinloop.models.ensemble import Ensemble

    try:
        known = contract in contracts.available()
        of = (
            contracts.load(contract)
            if known
            else exported_policies.read_contract(Path(contract).expanduser())
        )
        made: Ensemble
        if policy.suffix == ".zip":
            made = stable_baselines.load(policy, of)
        else:
            made = exported_policies.load(
                policy,
                of,
                acts=acts.value,
                in_own_units=own_units,
                chunk=chunk,
                runs_code=runs_code,
            )
        store = Registry(registry, of)
        lineage = Lineage(command=f"imported from {policy.name}")
        version = store.add(Candidate(made, of, lineage, status="seed"))
    except (ModelInvalid, RegistryError) as error:
        raise CommandError(str(error)) from error
    path = store.path(version)
    if as_json:
        typer.echo(json.dumps({"version": version, "path": str(path)}))
    else:
        Console().print(f"{version}  {path}", soft_wrap=True)
