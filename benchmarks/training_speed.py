# SPDX-License-Identifier: Apache-2.0
"""How fast ensembles are trained, beside a straightforward PyTorch loop over their members.

    python benchmarks/training_speed.py [--full] [--threads 2]

Both sides train the same networks on the same data with PDDM's one-step loss and the batch of our
settings. The loop has a `Sequential`, an Adam, and a shuffling `DataLoader` for each member; a
second one takes its minibatches by index instead, which is quicker. They multiply in single
precision, as PyTorch does unless told; `fit` in bfloat16 where the processor can. Rounds of all
sides alternate.
"""

from __future__ import annotations

import itertools
import time
from typing import Any

import harness
import numpy as np
import torch
from harness import Target
from plan_timing import plain_ensemble
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset
from twinloop.learning.episode import Episode
from twinloop.learning.fit import FitConfig, fit
from twinloop.models.ensemble import Ensemble

from twinloop import tasks

SIZES = [(hidden, members) for hidden in (250, 500) for members in (3, 5)]
EPISODE_STEPS = 100
EPOCHS = 4  # of a round; what is done once a fit is shared by them


def episodes(count: int, seed: int = 0) -> list[Episode]:
    """Return made-up episodes of the hand's size: the time does not depend on the values."""
    task, rng = tasks.make("baoding"), np.random.default_rng(seed)
    made = []
    for _ in range(count):
        observations = rng.normal(size=(EPISODE_STEPS + 1, task.observation_size))
        actions = rng.normal(size=(EPISODE_STEPS, task.action_size))
        made.append(Episode(observations.astype(np.float32), actions.astype(np.float32)))
    return made


def transitions(data: list[Episode]) -> tuple[Tensor, Tensor]:
    """Return normalised inputs and differences, as a loop would prepare them once."""
    before = np.concatenate([e.observations[:-1] for e in data])
    change = np.concatenate([np.diff(e.observations, axis=0) for e in data])
    inputs = np.concatenate([before, np.concatenate([e.actions for e in data])], axis=1)
    return torch.from_numpy(inputs / inputs.std(0)), torch.from_numpy(change / change.std(0))


def networks(model: Ensemble) -> list[nn.Sequential]:
    """Return a network a member of the sizes of an ensemble."""
    made = []
    for _ in range(model.members):
        layers: list[nn.Module] = []
        for layer in model.network.layers:
            layers += [nn.Linear(layer.weight.shape[1], layer.weight.shape[2]), nn.ReLU()]
        made.append(nn.Sequential(*layers[:-1]))
    return made


def loop(model: Ensemble, inputs: Tensor, changes: Tensor, batch: int, by_index: bool) -> float:
    """Train every member for some epochs; returns samples a second, over all members."""
    trained = [(net, torch.optim.Adam(net.parameters(), lr=1e-3)) for net in networks(model)]
    data = TensorDataset(inputs, changes)
    began = time.perf_counter()
    for (net, optimizer), _ in itertools.product(trained, range(EPOCHS)):
        if by_index:
            parts = ((inputs[i], changes[i]) for i in torch.randperm(len(inputs)).split(batch))
        else:
            parts = iter(DataLoader(data, batch, shuffle=True))
        for x, y in parts:
            loss = nn.functional.smooth_l1_loss(net(x), y)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
    return EPOCHS * len(trained) * len(inputs) / (time.perf_counter() - began)


def ours(model: Ensemble, data: list[Episode], config: FitConfig) -> float:
    """Train as long with `fit`; returns samples a second, over all members."""
    began = time.perf_counter()
    fit(model, data, config, seed=0)
    return config.epochs * model.members * sum(map(len, data)) / (time.perf_counter() - began)


def main() -> None:
    parser = harness.parser(__doc__)
    parser.add_argument("--threads", type=int, default=2, help="threads of the matrix products")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    rounds, count = (15, 60) if arguments.full else (3, 10)
    folder = harness.start("training_speed", arguments.full, arguments.resume)
    data = episodes(count)
    inputs, changes = transitions(data)
    config = FitConfig(steps=1, epochs=EPOCHS)
    figures: dict[str, Any] = {"threads": arguments.threads, "batch": config.batch}
    targets = []
    for hidden, members in SIZES:
        model = plain_ensemble(tasks.make("baoding"), (hidden, hidden), members)
        rates: dict[str, list[float]] = {"fit": [], "loop": [], "loop_by_index": []}
        for _ in itertools.repeat(None, rounds):
            rates["fit"].append(ours(model, data, config))
            rates["loop"].append(loop(model, inputs, changes, config.batch, by_index=False))
            rates["loop_by_index"].append(loop(model, inputs, changes, config.batch, by_index=True))
        row = {f"{side}_samples_per_second": float(np.median(r)) for side, r in rates.items()}
        for side in ("loop", "loop_by_index"):
            ratios = np.array(rates["fit"]) / np.array(rates[side])
            row[f"fit_over_{side}"] = float(np.median(ratios))
        name = f"2x{hidden}_{members}_members"
        figures[name] = row
        targets.append(Target(f"fit_over_loop_{name}", row["fit_over_loop"], 3.0, ">="))
    harness.finish("training_speed", folder, figures, targets, arguments.full)


if __name__ == "__main__":
    main()
