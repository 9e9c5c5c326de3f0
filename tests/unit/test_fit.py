# SPDX-License-Identifier: Apache-2.0
"""Episodes -> windows -> fitted models."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from twinloop.learning.episode import Episode
from twinloop.learning.fit import FitConfig, FitDiverged, fit, prediction_error
from twinloop.learning.replay import split, windows
from twinloop.models import layers
from twinloop.models.ensemble import Ensemble, EnsembleConfig
from twinloop.models.proposal import Proposal, ProposalConfig

POSITION = slice(0, 3)
torch.set_num_threads(1)  # threads cost more than they give on matrices of this size


def episode(seed: int, steps: int = 40) -> Episode:
    """A point in space whose speed follows a command: [position 3, velocity 3, command 3]."""
    rng = np.random.default_rng(seed)
    position, velocity, command = rng.normal(size=3) * 0.02, np.zeros(3), np.zeros(3)
    observations, actions = [np.concatenate([position, velocity, command])], []
    for _ in range(steps):
        command = np.clip(command + rng.normal(size=3) * 0.1, -0.5, 0.5)
        velocity = 0.6 * velocity + 0.4 * command
        position = position + 0.1 * np.tanh(2 * velocity)
        observations.append(np.concatenate([position, velocity, command]))
        actions.append(command)
    return Episode(np.array(observations), np.array(actions), {"episode_id": f"e{seed}"})


def model(seed: int = 0) -> Ensemble:
    config = EnsembleConfig(
        observation_size=9, action_size=3, members=2, hidden=(32, 32), known=(6, 9)
    )
    return Ensemble(config, seed)


@pytest.fixture(scope="module")
def episodes() -> list[Episode]:
    return [episode(seed) for seed in range(24)]


def test_fitting_beats_no_motion_on_held_out_episodes_after_one_and_seven_steps(episodes) -> None:
    training, held_out = split(episodes, 0.2)
    fitted = model()
    report = fit(fitted, training, FitConfig(epochs=60, batch=128, learning_rate=3e-3), seed=0)
    assert report.training_loss[-1] < 0.1 * report.training_loss[0]
    errors = prediction_error(fitted, held_out, positions=POSITION)
    assert errors["1"]["mean"] < 0.15 * errors["1"]["still"]
    assert errors["7"]["mean"] < 0.15 * errors["7"]["still"]


def test_products_in_bfloat16_fit_as_well_as_in_single_precision(episodes, monkeypatch) -> None:
    training, held_out = split(episodes, 0.2)
    errors = {}
    for has_it in (False, True):
        # On a CPU without its instructions bfloat16 is slow, and the same.
        monkeypatch.setattr(layers, "_HAS_BFLOAT16", has_it)
        fitted = model()
        fit(fitted, training, FitConfig(epochs=40, batch=128, learning_rate=3e-3), seed=0)
        assert {weight.dtype for weight in fitted.parameters()} == {torch.float32}
        errors[has_it] = prediction_error(fitted, held_out, positions=POSITION)
    assert errors[True] != errors[False]
    for steps in ("1", "7"):
        assert errors[True][steps]["mean"] < 1.1 * errors[False][steps]["mean"]


def test_a_network_multiplies_in_bfloat16_only_where_told(monkeypatch) -> None:
    monkeypatch.setattr(layers, "_HAS_BFLOAT16", True)
    fitted, rng = model(), torch.Generator().manual_seed(0)
    seen, done = torch.randn(2, 5, 9, generator=rng), torch.randn(2, 5, 3, generator=rng)
    for layer in fitted.network.layers:
        layer.bias.data.normal_(generator=rng)
    single = fitted.predict(seen, done)
    with layers.bfloat16_products():
        half = fitted.predict(seen, done)
    assert half.dtype == torch.float32
    assert not torch.equal(half, single)
    torch.testing.assert_close(half, single, atol=0.02, rtol=0.02)
    assert torch.equal(fitted.predict(seen, done), single)


def test_a_seed_fixes_the_weights_and_members_differ(episodes) -> None:
    weights = []
    for seed in (3, 3, 4):
        fitted = model()
        fit(fitted, episodes, FitConfig(epochs=2), seed=seed)
        weights.append(fitted.state_tensors())
    assert all(torch.equal(weights[0][name], weights[1][name]) for name in weights[0])
    first = weights[0]["network.layers.0.weight"]
    assert not torch.equal(first, weights[2]["network.layers.0.weight"])
    assert not torch.equal(first[0], first[1])


def test_a_warm_start_keeps_the_scales_and_goes_on_from_the_weights(episodes) -> None:
    fitted = model()
    cold = fit(fitted, episodes[:12], FitConfig(epochs=20, batch=32), seed=0)
    scale = fitted.difference_scale.clone()
    warm = fit(fitted, episodes, FitConfig(epochs=1), seed=0, warm_start=True)
    assert torch.equal(fitted.difference_scale, scale)
    assert warm.training_loss[0] < 0.8 * cold.training_loss[0]


def test_divergence_is_named_and_leaves_the_model_as_it_was(episodes) -> None:
    fitted = model()
    fit(fitted, episodes, FitConfig(epochs=1), seed=0)
    fitted.network.layers[0].weight.data[0, 0, 0] = float("inf")
    before = fitted.state_tensors()
    with pytest.raises(FitDiverged, match="finite"):
        fit(fitted, episodes, FitConfig(epochs=1), seed=0, warm_start=True)
    assert all(torch.equal(before[name], value) for name, value in fitted.state_tensors().items())


def test_a_policy_that_goes_with_the_model_stays_as_it_is(episodes) -> None:
    layout = ProposalConfig(
        observation_size=9, action_size=3, command=(6, 9), joint_position=(3, 6), max_change=0.1
    )
    fitted = model().with_proposal(Proposal(layout))
    before = fitted.state_tensors()
    settings = FitConfig(epochs=2, weight_decay=0.5)
    fit(fitted, episodes, settings, seed=0, warm_start=True)
    after = fitted.state_tensors()
    for name, value in before.items():
        is_trained = name.startswith("network.")
        assert torch.equal(after[name], value) is not is_trained, name


def test_weights_have_memory_of_their_own_after_a_fit(episodes) -> None:
    fitted = model()
    fit(fitted, episodes, FitConfig(epochs=1), seed=0)
    weights = list(fitted.parameters())
    assert len({weight.untyped_storage().data_ptr() for weight in weights}) == len(weights)
    assert all(weight.grad is None and not weight.requires_grad for weight in weights)


def test_a_time_limit_ends_training_early(episodes) -> None:
    report = fit(model(), episodes, FitConfig(epochs=100_000, time_limit_s=0.5), seed=0)
    assert 0 < report.epochs < 100_000


def test_symmetries_make_the_model_treat_both_alike(episodes) -> None:
    # Axis 0 only ever moves in these episodes, so only the swap tells how axis 1 would move.
    swap = (1, 0, 2, 4, 3, 5, 7, 6, 8)
    lame = [still(e, (1, 4, 7)) for e in episodes]
    swapped = [Episode(e.observations[:, list(swap)], e.actions) for e in lame]
    error = []
    for symmetries in ((), (swap,)):
        fitted = Ensemble(EnsembleConfig(observation_size=9, action_size=3, members=2), 0)
        fit(fitted, lame, FitConfig(epochs=20, steps=1, symmetries=symmetries), seed=0)
        error.append(prediction_error(fitted, swapped, positions=POSITION)["1"]["mean"])
    assert error[1] < 0.5 * error[0]


def still(e: Episode, columns: tuple[int, ...]) -> Episode:
    observations, actions = e.observations.copy(), e.actions.copy()
    observations[:, columns] = 0.0
    actions[:] = 0.0
    return Episode(observations, actions)


def test_windows_never_cross_episodes() -> None:
    short = [episode(1, steps=5), episode(2, steps=3), episode(3, steps=4)]
    data = windows(short, steps=4)
    assert len(data) == 3
    observations, actions = data.batch(torch.arange(3))
    assert observations.shape == (3, 5, 9)
    assert actions.shape == (3, 4, 3)
    assert np.array_equal(observations[2].numpy(), short[2].observations)
    assert np.array_equal(actions[1].numpy(), short[0].actions[1:])
    with pytest.raises(ValueError, match="none of 3 episodes has 9"):
        windows(short, steps=9)


def test_an_episode_stays_on_its_side_of_the_split_while_data_grows(episodes) -> None:
    few, many = split(episodes[:10], 0.3), split(episodes, 0.3)
    for small, large in zip(few, many, strict=True):
        names = {e.meta["episode_id"] for e in large}
        assert small
        assert {e.meta["episode_id"] for e in small} <= names
    assert len(many[0]) + len(many[1]) == len(episodes)


def test_an_episode_of_bad_shape_or_value_is_refused() -> None:
    good = episode(0)
    with pytest.raises(ValueError, match="one more observation"):
        Episode(good.observations[:-1], good.actions)
    with pytest.raises(ValueError, match="expected \\[steps, size\\]"):
        Episode(good.observations[0], good.actions)
    broken = good.actions.copy()
    broken[7, 1] = np.nan
    with pytest.raises(ValueError, match="actions is not finite at step 7"):
        Episode(good.observations, broken)
