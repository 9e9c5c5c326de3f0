# SPDX-License-Identifier: Apache-2.0
"""Train an ensemble on episodes, with a loss over several open-loop steps, and score it."""

from __future__ import annotations

import copy
import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import reduce
from operator import add

import torch
from torch import Tensor, nn

from twinloop.contract import load as load_contract
from twinloop.learning.episode import Episode
from twinloop.learning.joined_weights import JoinedWeights, joined
from twinloop.learning.replay import Windows, windows
from twinloop.models.ensemble import Ensemble
from twinloop.models.layers import bfloat16_products, weights_of_products

_LONGEST_GRADIENT = 10.0


class FitDiverged(RuntimeError):
    """Training gave no finite loss; the model is as it was before."""


@dataclass(frozen=True)
class FitConfig:
    """How to train.

    Without `time_limit_s` the result depends on data, config and seed alone, on equal processors:
    those that have bfloat16 multiply in it.
    """

    steps: int = 4  # open-loop steps in the loss
    batch: int = 256  # windows, for each member
    epochs: int = 40
    time_limit_s: float | None = None
    learning_rate: float = 1e-3
    weight_decay: float = 1e-5
    input_noise: float = 0.01  # of an element's standard deviation
    # Permutations of the observation that leave the task as it is, such as swapping two balls.
    symmetries: tuple[tuple[int, ...], ...] = ()
    pilot_weight: float = 1.0  # of steps in which a person had a hand, against the others' 1

    def __post_init__(self) -> None:
        if not 0 <= self.pilot_weight < math.inf:
            raise ValueError(f"fit: pilot_weight is {self.pilot_weight}, expected 0 or more")
        for name in ("steps", "batch", "epochs", "learning_rate"):
            if not getattr(self, name) > 0:
                raise ValueError(f"fit: {name} is {getattr(self, name)}, expected > 0")


@dataclass(frozen=True)
class FitReport:
    """What a call of `fit` did. Losses are means over elements, in normalised units."""

    epochs: int
    updates: int
    seconds: float
    training_loss: list[float] = field(default_factory=list)
    skipped: int = 0  # updates left out because their loss was not finite


def fit(
    model: Ensemble,
    episodes: Sequence[Episode],
    config: FitConfig,
    seed: int,
    warm_start: bool = False,
    progress: Callable[[int, float], None] | None = None,
) -> FitReport:
    """Train `model` in place, members on different minibatches.

    With `warm_start` the scales that the weights were trained with stay as they are. `progress` is
    called with the epoch and its loss.

    Raises:
        ValueError: no episode has `config.steps` transitions.
        FitDiverged: no loss of an epoch was finite; the model keeps its former weights.
    """
    data = windows(episodes, config.steps, config.pilot_weight)
    if not warm_start:
        model.normalise(*data.transitions())
    former = copy.deepcopy(model.state_dict())
    generator = torch.Generator().manual_seed(seed)
    model.requires_grad_(True)
    if model.proposal is not None:
        model.proposal.requires_grad_(False)  # it predicts nothing, and is not to decay either
    weights = [p for p in model.parameters() if p.requires_grad]
    started = time.monotonic()
    try:
        with joined(weights, weights_of_products(model)) as together:
            report = _descend(model, together, data, config, generator, progress, started)
            if not math.isfinite(
                float(together.vector.detach().sum())
            ):  # without a mask of all weights
                raise FitDiverged("weights are not finite after training")
    except FitDiverged:
        model.load_state_dict(former)
        raise
    finally:
        model.requires_grad_(False)
    return report


def _descend(
    model: Ensemble,
    together: JoinedWeights,
    data: Windows,
    config: FitConfig,
    generator: torch.Generator,
    progress: Callable[[int, float], None] | None,
    started: float,
) -> FitReport:
    """Take the gradient steps of all epochs."""
    vector = together.vector
    optimizer = torch.optim.AdamW(
        [vector], lr=config.learning_rate, weight_decay=config.weight_decay, fused=True
    )
    is_predicted = model.predicted.to(vector.dtype)
    # Elements that are given count among those that the mean is over.
    share = len(is_predicted) / float(is_predicted.sum()) / config.steps
    losses: list[float] = []
    updates = skipped = 0
    per_epoch = math.ceil(len(data) / config.batch)
    for epoch in range(config.epochs):
        order = torch.stack(
            [torch.randperm(len(data), generator=generator) for _ in range(model.members)]
        )
        total, finite = 0.0, 0
        for k in range(per_epoch):
            done = _share_done(config, (epoch * per_epoch + k) / per_epoch, started)
            if done >= 1:
                break
            optimizer.param_groups[0]["lr"] = config.learning_rate * _decay(done)
            index = order[:, k * config.batch : (k + 1) * config.batch]
            loss = _loss(model, data, index, is_predicted, config, generator)
            value = share * float(loss.detach())
            if not math.isfinite(value):
                skipped += 1
                continue
            loss.backward(loss.new_tensor(share))
            together.take_gradients()
            _clip(together.gradient)
            optimizer.step()
            together.refresh()
            total += value
            finite += 1
            updates += 1
        else:
            if not finite:
                raise FitDiverged(f"epoch {epoch}: none of {per_epoch} losses was finite")
        if finite:
            losses.append(total / finite)
            if progress is not None:
                progress(epoch, losses[-1])
        if done >= 1:
            break
    return FitReport(len(losses), updates, time.monotonic() - started, losses, skipped)


def _clip(gradient: Tensor) -> None:
    """Shorten a gradient [P] that is too long. It seldom is, so nothing is written unless."""
    length = math.sqrt(torch.dot(gradient, gradient))  # quicker than a norm
    if length > _LONGEST_GRADIENT:
        gradient.mul_(_LONGEST_GRADIENT / length)


def _share_done(config: FitConfig, epochs: float, started: float) -> float:
    done = epochs / config.epochs
    if config.time_limit_s is not None:
        done = max(done, (time.monotonic() - started) / config.time_limit_s)
    return done


def _decay(done: float) -> float:
    """Return the share of the learning rate: a short rise, then half a cosine."""
    return min(1.0, 0.1 + done / 0.03) * (0.02 + 0.98 * 0.5 * (1 + math.cos(math.pi * done)))


def _loss(
    model: Ensemble,
    data: Windows,
    index: Tensor,
    is_predicted: Tensor,
    config: FitConfig,
    generator: torch.Generator,
) -> Tensor:
    """Return the smooth-L1 loss of open-loop rollouts on normalised differences, the mean over all
    elements and the sum over steps; index [E, b].

    `is_predicted` [O] is 1 or 0: what is given has no error, and to take it out would cost more
    than to carry it along.
    """
    per_scale = is_predicted / model.difference_scale
    observations, actions = data.batch(index)
    if config.symmetries:
        choice = int(torch.randint(len(config.symmetries) + 1, (), generator=generator))
        if choice:
            observations = observations[..., list(config.symmetries[choice - 1])]
    # To draw it costs as much as a layer's products, so members share it: their windows differ.
    noise = torch.randn(observations[0, :, 0].shape, generator=generator)
    spread = config.input_noise * model.observation_scale
    state = torch.addcmul(observations[:, :, 0], noise, spread)
    truth = observations[:, :, 1:] * per_scale
    guesses = []
    for k in range(config.steps - 1):
        with bfloat16_products():
            state = model.predict(state, actions[:, :, k])
        guesses.append(state * per_scale)
    # Nothing follows the last step, so no state is made of it.
    with bfloat16_products():
        change = model.difference(state, actions[:, :, -1])
    guesses.append(torch.addcmul(state * per_scale, change, is_predicted))
    losses = []
    for k, guess in enumerate(guesses):
        if data.weights is None:
            losses.append(nn.functional.smooth_l1_loss(guess, truth[:, :, k]))
        else:
            each = nn.functional.smooth_l1_loss(guess, truth[:, :, k], reduction="none")
            losses.append((data.weights[index] * each.mean(-1)).mean())
    return reduce(add, losses)


@torch.no_grad()
def prediction_error(
    model: Ensemble,
    episodes: Sequence[Episode],
    steps: Sequence[int] = (1, 7),
    positions: slice | None = None,
    limit: int = 4000,
) -> dict[str, dict[str, float]]:
    """Return the open-loop error of ball positions [mm] after each of `steps`.

    For every number of steps: `mean` and `median` of the distance between the members' mean
    prediction and what was observed, and `still`, the mean distance moved (the error of a model
    that predicts no motion). `positions` are xyz triples in m, the Baoding balls unless told; at
    most `limit` windows count, evenly spread.

    Raises:
        ValueError: no episode has as many transitions as the largest number of steps.
    """
    where = load_contract("baoding").slices["ball_position"] if positions is None else positions
    data = windows(episodes, max(steps))
    index = torch.arange(0, len(data), max(1, math.ceil(len(data) / limit)))
    observations, actions = data.batch(index)
    state = observations[:, 0].expand(model.members, -1, -1)
    result = {}
    for k in range(1, max(steps) + 1):
        state = model.predict(state, actions[:, k - 1])
        if k not in steps:
            continue
        truth = observations[:, k, where].unflatten(-1, (-1, 3))
        guess = state[..., where].mean(0).unflatten(-1, (-1, 3))
        error = torch.linalg.vector_norm(guess - truth, dim=-1) * 1e3
        moved = truth - observations[:, 0, where].unflatten(-1, (-1, 3))
        result[str(k)] = {
            "mean": float(error.mean()),
            "median": float(error.median()),
            "still": float(torch.linalg.vector_norm(moved, dim=-1).mean() * 1e3),
        }
    return result


@torch.no_grad()
def normalised_error(
    model: Ensemble, episodes: Sequence[Episode], steps: Sequence[int] = (1, 7), limit: int = 4000
) -> dict[int, float]:
    """Return the open-loop error after each of `steps`: the root mean square over all elements that
    are predicted, of the members' mean, in units of an element's usual change in a step.

    Raises:
        ValueError: no episode has as many transitions as the largest number of steps.
    """
    data = windows(episodes, max(steps))
    index = torch.arange(0, len(data), max(1, math.ceil(len(data) / limit)))
    observations, actions = data.batch(index)
    state = observations[:, 0].expand(model.members, -1, -1)
    predicted = model.predicted
    scale = model.difference_scale[predicted]
    result = {}
    for k in range(1, max(steps) + 1):
        state = model.predict(state, actions[:, k - 1])
        if k in steps:
            error = (state.mean(0)[..., predicted] - observations[:, k, predicted]) / scale
            result[k] = float(error.square().mean().sqrt())
    return result
