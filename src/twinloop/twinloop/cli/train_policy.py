# SPDX-License-Identifier: Apache-2.0
"""`twinloop train TASK --algorithm ...`: a policy, in a twin or from bags alone."""

from __future__ import annotations

import enum
import time
from pathlib import Path

from rich.console import Console

from twinloop.cli.errors import CommandError
from twinloop.cli.options import command_line, require_goal
from twinloop.reporting.progress import WorkProgress

_SEEDS_PER_RUN, _EVALUATION_SEEDS = 1_000_000, 900_000


class Algorithm(enum.StrEnum):
    """What is trained: a dynamics model to plan with, or a policy that acts."""

    model = "model"
    sac = "sac"
    bc = "bc"
    iql = "iql"
    bear = "bear"


def train_policy(
    task: str,
    algorithm: Algorithm,
    folder: Path,
    *,
    goal: str,
    transitions: int,
    updates: int | None,
    seed: int,
    from_bags: Path | None,
    asynchronous: bool,
    evaluate: int,
    console: Console,
    as_json: bool,
) -> None:
    """Train a policy, let it be the registry's current version, and measure it."""
    # Late, because these imports take seconds.
    from twinloop import contract as contracts
    from twinloop import tasks
    from twinloop.bags.errors import BagError
    from twinloop.cli.evaluation import load_or_refuse, run_episodes
    from twinloop.cli.reports import finish
    from twinloop.learning import policy_training as training
    from twinloop.learning.checkpoint import CheckpointInvalid
    from twinloop.learning.off_policy import LibraryMissing
    from twinloop.learning.registry import Registry
    from twinloop.reporting.models import of_model
    from twinloop.reporting.report import Run

    require_goal(task, goal)
    is_offline = algorithm.value in training.OFFLINE
    if is_offline != (from_bags is not None):
        wanted = "needs --from-bags" if is_offline else "collects itself, without --from-bags"
        raise CommandError(f"--algorithm {algorithm} {wanted}")
    if is_offline and asynchronous:
        raise CommandError("--asynchronous is for learning in a twin, not from bags alone")
    began_s = time.monotonic()
    contract = contracts.load(task)
    registry = Registry(folder, contract)
    try:
        if is_offline:
            assert from_bags is not None
            changes = {} if updates is None else {"updates": updates}
            chosen = training.offline_settings(task, algorithm.value, **changes)
            learner, lineage = training.train_offline(from_bags, contract, goal, chosen, seed)
            with WorkProgress(console, chosen.updates, "gradient steps") as progress:
                for portion in training.slices(chosen.updates):
                    learner.improve(portion)
                    progress.update(learner.updates)
            actor, metrics = learner.actor(), {"updates": float(learner.updates)}
            found: dict[str, float | None] = dict(metrics)
        else:
            settings = training.online_settings(task)
            with WorkProgress(console, transitions, "transitions") as progress:
                actor, lineage, found = training.train_online(
                    folder, task, goal, transitions, seed, settings, asynchronous, progress.update
                )
    except (BagError, CheckpointInvalid, LibraryMissing, RuntimeError, ValueError) as error:
        raise CommandError(str(error)) from error
    except KeyboardInterrupt:
        console.print(f"interrupted; --resume --out {folder} carries on", markup=False)
        raise
    made = training.candidate(actor, contract, lineage, found, seed, command_line())
    version = registry.add(made)
    registry.promote(version, "trained")
    loaded, _ = load_or_refuse(registry.path(version), task)
    first = seed * _SEEDS_PER_RUN + _EVALUATION_SEEDS
    figures = run_episodes(
        loaded,
        contract,
        range(first, first + evaluate),
        steps=tasks.make(task, goal).episode_steps,
        engine="mujoco",
        goal=goal,
        planner="policy",
        hands=1,
        workers=None,
        bags=folder / "bags" / "evaluation",
        console=console,
    )
    run = Run(command_line(), seed, folder, time.monotonic() - began_s)
    models = of_model(registry.path(version), figures, contract)
    about = {"algorithm": algorithm.value, "transitions": lineage.transitions, **found}
    finish(run, figures, models, contract, console, as_json, policy_training=about)
