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
            together.vector.add_(0.1)
        together.refresh()
        assert torch.equal(layer.weight, (before + 0.1).bfloat16())
    assert layer.weight.dtype == torch.float32
    assert torch.equal(layer.weight, before + 0.1)


def test_a_gradient_comes_through_what_is_halved() -> None:
    layer = nn.Linear(3, 1, bias=False)
    with joined(list(layer.parameters()), [layer.weight]) as together:
        layer(torch.tensor([[1.0, 2.0, 3.0]], dtype=torch.bfloat16)).sum().backward()
        together.take_gradients()
        assert together.gradient.tolist() == [1.0, 2.0, 3.0]
        assert together.gradient.dtype == torch.float32


def test_weights_that_a_loss_does_not_reach_have_no_gradient() -> None:
    layers = nn.ModuleList([nn.Linear(2, 2), nn.Linear(2, 2)])
    with joined(list(layers.parameters())) as together:
        layers[0](torch.ones(1, 2)).sum().backward()
        together.take_gradients()
        layers[1](torch.ones(1, 2)).sum().backward()
        together.take_gradients()
        first, second = together.gradient.split(6)
    assert not first.any()
    assert second.any()


def test_weights_are_given_back_after_an_error() -> None:
    layer = nn.Linear(2, 1)
    before = layer.weight.detach().clone()
    with (
        pytest.raises(ZeroDivisionError),
        joined(list(layer.parameters()), [layer.weight]) as together,
    ):
        _ = 1 / 0
    with torch.no_grad():
        together.vector.zero_()
    assert torch.equal(layer.weight, before)
    assert layer.weight.grad is None
