# SPDX-License-Identifier: Apache-2.0
"""Weights as one vector: gradients arrive, updates are seen, and nothing is left behind."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from twinloop.learning.joined_weights import joined


def test_a_step_on_the_vector_is_a_step_on_the_weights() -> None:
    torch.manual_seed(0)
    ours, plain = nn.Linear(3, 2), nn.Linear(3, 2)
    plain.load_state_dict(ours.state_dict())
    x = torch.randn(5, 3)
    with joined(list(ours.parameters())) as together:
        optimizer = torch.optim.SGD([together.vector], lr=0.1)
        for _ in range(3):
            ours(x).square().sum().backward()
            together.take_gradients()
            optimizer.step()
            together.refresh()
    optimizer = torch.optim.SGD(plain.parameters(), lr=0.1)
    for _ in range(3):
        optimizer.zero_grad()
        plain(x).square().sum().backward()
        optimizer.step()
    for own, other in zip(ours.parameters(), plain.parameters(), strict=True):
        assert torch.allclose(own, other)
        assert own.grad is None


def test_what_is_halved_is_seen_so_and_kept_whole() -> None:
    layer = nn.Linear(3, 2)
    before = layer.weight.detach().clone()
    with joined(list(layer.parameters()), [layer.weight]) as together:
        assert layer.weight.dtype == torch.bfloat16
        assert layer.bias.dtype == torch.float32
        with torch.no_grad():
            together.vector.add_(1e-4)  # too little to be seen in bfloat16 at once
        together.refresh()
    assert layer.weight.dtype == torch.float32
    assert torch.allclose(layer.weight, before + 1e-4, atol=1e-7)


def test_weights_that_a_loss_does_not_reach_stay_as_they_are() -> None:
    layers = nn.ModuleList([nn.Linear(2, 2), nn.Linear(2, 2)])
    with joined(list(layers.parameters())) as together:
        layers[0](torch.ones(1, 2)).sum().backward()
        together.take_gradients()
        layers[1](torch.ones(1, 2)).sum().backward()
        together.take_gradients()
        assert together.vector.grad is not None
        first, second = together.vector.grad.split(6)
    assert not first.any()
    assert second.any()


def test_weights_are_given_back_after_an_error() -> None:
    layer = nn.Linear(2, 1)
    with pytest.raises(ZeroDivisionError), joined(list(layer.parameters()), [layer.weight]):
        _ = 1 / 0
    assert layer.weight.dtype == torch.float32
