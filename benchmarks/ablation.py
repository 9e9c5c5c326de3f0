# SPDX-License-Identifier: Apache-2.0
"""What ingredients of Baoding learning are worth: with and without them.

Of the policy: training from nothing on few transitions, then fresh episodes with the policy alone.
Of the policies of one run there are three: the mean of its best rounds, which is what ships, the
average of its last updates, and the last update alone. Of the dynamics model: fits to the same
random and exploring episodes, then the open-loop error of the balls on episodes held out.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import harness
import matplotlib.pyplot as plt
import numpy as np
import torch
from twinloop.contract import load as load_contract
from twinloop.fleet import Job, deal, open_fleet, packed
from twinloop.learning.episode import Episode
from twinloop.learning.episode_bags import read_bags
from twinloop.learning.fit import FitConfig, fit, prediction_error
from twinloop.learning.goals import goals_of
from twinloop.learning.policy import PolicyConfig, PolicyLearner
from twinloop.learning.protocol import Protocol, protocol
from twinloop.learning.replay import split
from twinloop.learning.train import bag_folders, train
from twinloop.learning.training_run import Listener, summary
from twinloop.models import Ensemble, new_model
from twinloop.models.ensemble import EnsembleConfig
from twinloop.models.proposal import Proposal

from twinloop import planners, tasks

TASK = "baoding"
EVALUATION_SEED = 700_000_000


POLICY: dict[str, Callable[[PolicyConfig], PolicyConfig]] = {
    "as shipped": lambda policy: policy,
    "a third of the updates": lambda policy: replace(policy, updates=policy.updates / 3),
}
# Other policies of the runs "as shipped", by the networks of their state of training.
OF_SHIPPED = {"average of the last updates": "average", "last update alone": "actor"}


def main() -> None:
    parser = harness.parser(__doc__)
    parser.add_argument("--processes", type=int, default=1, help="training runs side by side")
    arguments = parser.parse_args()
    full = arguments.full
    seeds, transitions, episodes = ((0, 1, 2), 20_000, 50) if full else ((0,), 600, 4)
    folder = harness.start("ablation", full, arguments.resume)
    base = protocol(TASK, transitions)
    base = replace(base, stages=(transitions,), updates_last=1)
    assert base.policy is not None
    runs = {
        name: [folder / name.replace(" ", "-") / str(seed) for seed in seeds] for name in POLICY
    }
    with ProcessPoolExecutor(arguments.processes, get_context("spawn")) as pool:
        ends = []
        for name, change in POLICY.items():
            config = replace(base, policy=change(base.policy))
            ends += [
                pool.submit(_train, out, seed, config, episodes)
                for out, seed in zip(runs[name], seeds, strict=True)
            ]
        for end in ends:
            end.result()
    policy = {name: [_row(out) for out in outs] for name, outs in runs.items()}
    for name, network in OF_SHIPPED.items():
        policy[name] = [_of_shipped(out, network, base, episodes) for out in runs["as shipped"]]
    data = folder / "as-shipped" / "0"
    model = _models(data, seeds, updates=800 if full else 5)
    figures: dict[str, Any] = {"seeds": list(seeds), "transitions": transitions}
    figures |= {"episodes_a_seed": episodes, "policy": policy, "model": model}
    draw(folder / "policy.png", policy)
    harness.finish("ablation", folder, figures, [], full, [folder / "policy.png"])


def _train(out: Path, seed: int, config: Protocol, episodes: int) -> None:
    """Train once, and keep how fresh episodes go with the policy of that run."""
    kept = out.with_suffix(".json")
    if kept.exists():
        return
    torch.set_num_threads(1)
    silent = Listener(lambda _: None)
    result = train(out, TASK, seed, workers=1, evaluate=0, config=config, listener=silent)
    assert result.model.proposal is not None
    row = _tried(result.model.proposal, config, episodes)
    kept.write_text(json.dumps(row))
    print(out.parent.name, seed, row, flush=True)


def _of_shipped(out: Path, network: str, config: Protocol, episodes: int) -> dict[str, float]:
    """Return how episodes go with another policy of a run, once."""
    kept = out.with_name(f"{out.name}-{network}.json")
    if not kept.exists():
        task = tasks.make(TASK)
        assert config.policy is not None
        change = planners.action_space(task).largest_change
        learner = PolicyLearner(goals_of(task), change, 0, config.policy)
        learner.load(out / "training" / "policy.pt")
        policies = {"average": learner.sac.policy(), "actor": learner.sac.actor.proposal}
        kept.write_text(json.dumps(_tried(policies[network], config, episodes)))
    row: dict[str, float] = json.loads(kept.read_text())
    return row


def _tried(proposal: Proposal, config: Protocol, episodes: int) -> dict[str, float]:
    """Return how fresh episodes go with a policy alone."""
    seeds = tuple(range(EVALUATION_SEED, EVALUATION_SEED + episodes))
    job = Job(TASK, "proposal", seeds, config.steps, hands=25, proposal=packed(proposal))
    with open_fleet(1) as fleet:
        found = [record.episode for record in fleet.run(deal(job))]
    return summary(tasks.make(TASK), found)


def _row(out: Path) -> dict[str, float]:
    row: dict[str, float] = json.loads(out.with_suffix(".json").read_text())
    return row


def _models(data: Path, seeds: tuple[int, ...], updates: int) -> dict[str, list[dict[str, float]]]:
    """Return the errors [mm] of models fitted to one run's episodes, a row a seed."""
    training, held_out = split(read_bags(bag_folders(data), load_contract(TASK)), 0.1)
    shipped = FitConfig()
    variants: dict[str, tuple[Callable[[int], Ensemble], FitConfig]] = {
        "as shipped": (lambda seed: new_model(TASK, seed), shipped),
        "loss over one step": (lambda seed: new_model(TASK, seed), replace(shipped, steps=1)),
        "one member": (lambda seed: new_model(TASK, seed, members=1), shipped),
        "no input noise": (lambda seed: new_model(TASK, seed), replace(shipped, input_noise=0.0)),
        "no geometry, one network": (_plain, shipped),
    }
    return {
        name: [_error(make(seed), training, held_out, config, seed, updates) for seed in seeds]
        for name, (make, config) in variants.items()
    }


def _plain(seed: int) -> Ensemble:
    task = tasks.make(TASK)
    known = (task.command.start, task.command.stop)
    return Ensemble(
        EnsembleConfig(
            observation_size=task.observation_size,
            action_size=task.action_size,
            hidden=(200, 200),
            known=known,
        ),
        seed,
    )


def _error(
    model: Ensemble,
    training: list[Episode],
    held_out: list[Episode],
    config: FitConfig,
    seed: int,
    updates: int,
) -> dict[str, float]:
    torch.set_num_threads(1)
    windows = sum(max(len(e) - config.steps + 1, 0) for e in training)
    epochs = max(1, round(updates * config.batch / windows))
    fit(model, training, replace(config, epochs=epochs), seed=seed)
    balls = load_contract(TASK).slices["ball_position"]
    found = prediction_error(model, held_out, (1, 7), balls)
    return {
        f"{steps}_step_{kind}_mm": float(found[steps][kind])
        for steps in ("1", "7")
        for kind in ("mean", "median", "still")
    }


def draw(path: Path, policy: dict[str, list[dict[str, float]]]) -> None:
    """Draw the rotation and success of every variant: one dot a seed, and the mean."""
    figure, axes = plt.subplots(1, 3, figsize=(12, 3.2), sharey=True, layout="constrained")
    names = ("rotation_deg_median", "success_90", "drop_share")
    labels = ("median rotation [deg]", "success at 90°", "dropped")
    height = np.arange(len(policy))[::-1]
    for axis, name, label in zip(axes, names, labels, strict=True):
        for y, rows in zip(height, policy.values(), strict=True):
            values = [row[name] for row in rows]
            axis.plot(values, [y] * len(values), "o", color="C0", alpha=0.5)
            axis.plot(np.mean(values), y, "|", color="k", ms=16)
        axis.set(xlabel=label, yticks=height, yticklabels=list(policy))
    figure.savefig(path, dpi=120)
    plt.close(figure)


if __name__ == "__main__":
    main()
