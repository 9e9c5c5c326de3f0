# SPDX-License-Identifier: Apache-2.0
"""Policies of Stable-Baselines3's checkpoints as actors of ours.

A checkpoint is a zip whose `policy.pth` holds the weights. Nothing in it is unpickled but tensors
(torch's `weights_only`); the file `data`, which holds pickled classes, is not opened. So what the
weights do not tell, such as an activation that is not the algorithm's default, has to be given.
"""

from __future__ import annotations

import io
import pickle
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Literal

import torch
from torch import Tensor

from twinloop.contract import Contract
from twinloop.models.actor import Actor, ActorConfig
from twinloop.models.base import ModelInvalid

_WEIGHTS = "policy.pth"
_MOST_BYTES = 512 * 2**20


def load(
    path: Path | str,
    contract: Contract | None = None,
    activation: Literal["relu", "tanh"] | None = None,
    lower: Tensor | None = None,
    upper: Tensor | None = None,
) -> Actor:
    """Return the policy of a checkpoint of SAC, TD3, DDPG, PPO or A2C with `MlpPolicy`.

    Args:
        path: the zip that `save` wrote.
        contract: of the task that it is for; its action limits are those of the policy's space.
        activation: None for the algorithm's default: ReLU, and tanh for PPO and A2C.
        lower, upper: limits of the action space [A], in place of the contract's.

    Raises:
        ModelInvalid: the file is no such checkpoint, or not of the contract's sizes.
    """
    try:
        actor = actor_of(_read(Path(path)), activation)
    except ModelInvalid as error:
        raise ModelInvalid(f"{path}: {error}") from error
    if contract is not None:
        sizes = (contract.observation_size, contract.action_size)
        if sizes != (actor.observation_size, actor.action_size):
            raise ModelInvalid(
                f"{path}: observes {actor.observation_size} and acts on {actor.action_size}, "
                f"expected {sizes[0]} and {sizes[1]} as in {contract.name}"
            )
        lower = torch.tensor(contract.action.lower) if lower is None else lower
        upper = torch.tensor(contract.action.upper) if upper is None else upper
    if lower is not None and upper is not None:
        middle, half = 0.5 * (upper + lower), 0.5 * (upper - lower)
        actor.action_mean.copy_(middle)
        actor.action_scale.copy_(half)
        if not actor.config.squashes:
            _rescale(actor, middle, half)
    actor.requires_grad_(False)
    return actor.eval()


def actor_of(
    weights: Mapping[str, Tensor], activation: Literal["relu", "tanh"] | None = None
) -> Actor:
    """Return the actor of a policy's weights, by the names that Stable-Baselines3 gives them.

    Raises:
        ModelInvalid: they are of another policy, or layers do not fit together.
    """
    weights = dict(weights)
    if "actor.mu.weight" in weights or "actor.mu.0.weight" in weights:
        return _off_policy(weights, activation or "relu")
    if "action_net.weight" in weights:
        return _on_policy(weights, activation or "tanh")
    raise ModelInvalid(f"no policy of SAC, TD3, DDPG, PPO or A2C; it has {sorted(weights)[:6]}")


def weights_of(actor: Actor) -> dict[str, Tensor]:
    """Return an actor's weights by the names that Stable-Baselines3's SAC gives them.

    Raises:
        ValueError: its noise does not follow from the state, as SAC's does.
    """
    if actor.config.deviation != "state":
        raise ValueError(f"deviation is {actor.config.deviation!r}, expected 'state'")
    weights = {}
    for name, tensor in actor.state_dict().items():
        layer, _, part = name.rpartition(".")
        if layer.startswith("layers."):
            # Between two layers stands the activation.
            weights[f"actor.latent_pi.{2 * int(layer.split('.')[1])}.{part}"] = tensor
        elif layer in ("mean", "log_deviation"):
            weights[f"actor.{'mu' if layer == 'mean' else 'log_std'}.{part}"] = tensor
    return weights


@torch.no_grad()
def _rescale(actor: Actor, middle: Tensor, half: Tensor) -> None:
    """Work the limits into the last layer of a policy that acts in the space's own units, clipped:
    PPO's actions are not scaled to ±1, as SAC's are."""
    actor.mean.weight.div_(half[:, None])
    actor.mean.bias.sub_(middle).div_(half)
    assert isinstance(actor.log_deviation, Tensor)
    actor.log_deviation.sub_(half.log())


def _read(path: Path) -> dict[str, Tensor]:
    try:
        with zipfile.ZipFile(path) as archive:
            if archive.getinfo(_WEIGHTS).file_size > _MOST_BYTES:
                raise ModelInvalid(f"{_WEIGHTS} is larger than {_MOST_BYTES} bytes")
            data = archive.read(_WEIGHTS)
        weights = torch.load(io.BytesIO(data), map_location="cpu", weights_only=True)
    except (OSError, KeyError, zipfile.BadZipFile, RuntimeError, pickle.UnpicklingError) as error:
        raise ModelInvalid(f"is no checkpoint of Stable-Baselines3: {error}") from error
    if not isinstance(weights, dict) or not all(isinstance(v, Tensor) for v in weights.values()):
        raise ModelInvalid(f"{_WEIGHTS} does not hold tensors by name")
    return {str(name): value.float() for name, value in weights.items()}


def _off_policy(weights: dict[str, Tensor], activation: Literal["relu", "tanh"]) -> Actor:
    """Return the actor of SAC, whose noise follows from the state, or of TD3, which has none."""
    if "actor.mu.weight" in weights:
        hidden = _stack(weights, "actor.latent_pi")
        mean, noise = "actor.mu", "actor.log_std"
        if f"{noise}.weight" not in weights:
            raise ModelInvalid("the policy explores by gSDE, which is not converted")
        return _made(weights, hidden, mean, activation, True, "state", noise)
    layers = _stack(weights, "actor.mu")
    return _made(weights, layers[:-1], layers[-1], activation, True, "none", "")


def _on_policy(weights: dict[str, Tensor], activation: Literal["relu", "tanh"]) -> Actor:
    """Return the actor of PPO or A2C, whose noise is one for all states."""
    hidden = _stack(weights, "mlp_extractor.policy_net")
    if weights.get("log_std", torch.zeros(1, 1)).dim() != 1:
        raise ModelInvalid("the policy explores by gSDE, which is not converted")
    return _made(weights, hidden, "action_net", activation, False, "fixed", "log_std")


def _stack(weights: dict[str, Tensor], prefix: str) -> list[str]:
    """Return the names of a sequence's linear layers, in order."""
    numbers = sorted(
        int(name.split(".")[-2])
        for name in weights
        if name.startswith(prefix + ".") and name.endswith(".weight")
    )
    return [f"{prefix}.{number}" for number in numbers]


def _made(
    weights: dict[str, Tensor],
    hidden: list[str],
    mean: str,
    activation: Literal["relu", "tanh"],
    squashes: bool,
    deviation: Literal["state", "fixed", "none"],
    noise: str,
) -> Actor:
    """Return an actor with these weights.

    Raises:
        ModelInvalid: a layer is missing or of another shape than its neighbours ask for.
    """
    names = {f"layers.{index}": layer for index, layer in enumerate(hidden)} | {"mean": mean}
    if deviation == "state":
        names["log_deviation"] = noise
    try:
        config = ActorConfig(
            observation_size=weights[f"{hidden[0]}.weight"].shape[1],
            action_size=weights[f"{mean}.weight"].shape[0],
            hidden=tuple(weights[f"{layer}.weight"].shape[0] for layer in hidden),
            activation=activation,
            squashes=squashes,
            deviation=deviation,
        )
        actor = Actor(config)
        found = {
            f"{ours}.{part}": weights[f"{theirs}.{part}"]
            for ours, theirs in names.items()
            for part in ("weight", "bias")
        }
        if deviation == "fixed":
            found["log_deviation"] = weights[noise]
        actor.load_state_dict(actor.state_dict() | found)
    except (KeyError, IndexError, RuntimeError, ValueError) as error:
        raise ModelInvalid(f"the policy's layers are not those of MlpPolicy: {error}") from error
    return actor
