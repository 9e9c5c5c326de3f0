# SPDX-License-Identifier: Apache-2.0
"""Trains the segmentation network; each pass over the data is kept, and carried on with."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import safetensors
import safetensors.torch
import torch
from torch import Tensor

from twinloop.grasping.segmentation.accuracy import Accuracy
from twinloop.grasping.segmentation.data import Heaps, metres, varied
from twinloop.grasping.segmentation.grouping import group
from twinloop.grasping.segmentation.image import HEIGHT, WIDTH, features
from twinloop.grasping.segmentation.network import SegmentNetwork, SegmentNetworkConfig
from twinloop.grasping.segmentation.targets import loss, target
from twinloop.models.base import ModelInvalid, check_tensors

CHECKPOINT = "checkpoint.safetensors"
_MOMENTS = ("exp_avg", "exp_avg_sq")


@dataclass(frozen=True)
class SegmentTrainingSettings:
    """How it is trained.

    Attributes:
        epochs: passes over the data.
        batch: views of a step.
        rate: greatest learning rate; it rises for a twentieth of the steps and falls by a cosine.
        weight_decay: of AdamW (Loshchilov & Hutter 2019).
    """

    epochs: int = 30
    batch: int = 8
    rate: float = 3e-3
    weight_decay: float = 1e-4


def train(
    heaps: Heaps,
    settings: SegmentTrainingSettings,
    seed: int,
    folder: Path,
    config: SegmentNetworkConfig | None = None,
    say: Callable[[int, int, float], None] = lambda *_: None,
) -> SegmentNetwork:
    """Return a network that was trained on views; equal seeds give equal networks.

    Args:
        folder: where each pass is kept; one that is there is carried on from, to the same end.
        say: is told the step, how many there are, and the loss.

    Raises:
        ValueError: fewer views than a batch.
        ModelInvalid: what is kept is of other data, settings or another seed, or is damaged.
    """
    if len(heaps) < settings.batch:
        raise ValueError(f"there are {len(heaps)} views, expected a batch of {settings.batch}")
    torch.manual_seed(seed)
    network = SegmentNetwork(config or SegmentNetworkConfig()).train()
    optimiser = torch.optim.AdamW(
        network.parameters(), settings.rate, weight_decay=settings.weight_decay
    )
    origin = json.dumps(
        {
            "settings": asdict(settings),
            "seed": seed,
            "data": heaps.digest,
            "network": network.config.model_dump(mode="json"),
        },
        sort_keys=True,
    )
    path = folder / CHECKPOINT
    first = _resume(path, network, optimiser, origin) if path.exists() else 0
    a_pass = len(heaps) // settings.batch
    steps = settings.epochs * a_pass
    for epoch in range(first, settings.epochs):
        rng = np.random.default_rng([seed, epoch])
        order = rng.permutation(len(heaps))[: a_pass * settings.batch]
        for number, chosen in enumerate(order.reshape(a_pass, settings.batch)):
            step = epoch * a_pass + number
            for parameters in optimiser.param_groups:
                parameters["lr"] = settings.rate * _share(step, steps)
            views = [varied(heaps.heights[one], heaps.labels[one], rng) for one in chosen]
            seen = np.stack([features(*metres(heights)) for heights, _ in views])
            wrong = loss(network(torch.from_numpy(seen)), [target(labels) for _, labels in views])
            optimiser.zero_grad(set_to_none=True)
            wrong.backward()
            optimiser.step()
            say(step + 1, steps, float(wrong.detach()))
        _keep(path, network, optimiser, origin, epoch + 1)
    return network.eval()


def _share(step: int, steps: int) -> float:
    """Return the share of the greatest learning rate."""
    rising = max(steps // 20, 1)
    if step < rising:
        return (step + 1) / rising
    return 0.5 * (1 + math.cos(math.pi * (step - rising) / max(steps - rising, 1)))


def figures(network: SegmentNetwork, heaps: Heaps) -> dict[str, float]:
    """Return average precision and recall on held-out views, everywhere that is seen."""
    accuracy = Accuracy()
    everywhere = np.ones((HEIGHT, WIDTH), bool)
    with torch.inference_mode():
        for index in range(len(heaps)):
            above, is_seen = heaps.view(index)
            maps = network(torch.from_numpy(features(above, is_seen))[None])
            labels, scores = group(maps, everywhere)
            accuracy.add(heaps.labels[index], labels, scores, is_seen)
    return accuracy.figures()


def _keep(
    path: Path, network: SegmentNetwork, optimiser: torch.optim.AdamW, origin: str, epochs: int
) -> None:
    tensors = {f"network.{name}": tensor for name, tensor in network.state_dict().items()}
    for name, parameter in network.named_parameters():
        for moment in _MOMENTS:
            tensors[f"{moment}.{name}"] = optimiser.state[parameter][moment]
        tensors[f"step.{name}"] = optimiser.state[parameter]["step"]
    path.parent.mkdir(parents=True, exist_ok=True)
    unfinished = path.with_suffix(".tmp")
    safetensors.torch.save_file(
        {name: tensor.contiguous() for name, tensor in tensors.items()},
        unfinished,
        {"origin": origin, "epochs": str(epochs)},
    )
    unfinished.rename(path)


def _resume(path: Path, network: SegmentNetwork, optimiser: torch.optim.AdamW, origin: str) -> int:
    """Fill network and optimiser with what was kept; returns how many passes it saw."""
    try:
        with safetensors.safe_open(path, "pt") as file:
            about = file.metadata() or {}
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except (OSError, safetensors.SafetensorError) as error:
        raise ModelInvalid(f"{path}: {error}") from error
    if about.get("origin") != origin:
        raise ModelInvalid(
            f"{path}: was trained from {about.get('origin')}, and not from {origin}; name another "
            "folder"
        )
    expected: dict[str, Tensor] = {f"network.{k}": v for k, v in network.state_dict().items()}
    for name, parameter in network.named_parameters():
        expected |= {f"{moment}.{name}": parameter.detach() for moment in _MOMENTS}
        expected[f"step.{name}"] = torch.tensor(0.0)
    try:
        check_tensors(expected, tensors)
    except ModelInvalid as error:
        raise ModelInvalid(f"{path}: {error}") from error
    network.load_state_dict({name: tensors[f"network.{name}"] for name in network.state_dict()})
    for name, parameter in network.named_parameters():
        kinds = (*_MOMENTS, "step")
        optimiser.state[parameter] = {kind: tensors[f"{kind}.{name}"] for kind in kinds}
    return int(about.get("epochs", "0"))
