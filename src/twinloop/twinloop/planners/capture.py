# SPDX-License-Identifier: Apache-2.0
"""A function of fixed shapes as one CUDA graph: launched at once, without the host in between."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

_WARM_UP = 3  # calls before the capture, in which libraries choose and set up their kernels


class CudaGraph:
    """Records `function` once and replays it on new values of its inputs.

    Args:
        function: reads its inputs and `state`, may change `state` in place, and returns a tensor.
            It must not ask for a value on the host, nor copy from it.
        inputs: examples, on any device; later ones must have the same shapes and types.
        state: tensors on the device that it carries from call to call; recording leaves them as
            they were.
    """

    def __init__(
        self,
        function: Callable[..., Tensor],
        inputs: Sequence[Tensor],
        state: Sequence[Tensor],
        device: torch.device,
    ) -> None:
        self._inputs = [value.to(device, copy=True) for value in inputs]
        former = [value.clone() for value in state]
        aside = torch.cuda.Stream(device)
        aside.wait_stream(torch.cuda.current_stream(device))
        with torch.cuda.stream(aside):
            for _ in range(_WARM_UP):
                function(*self._inputs)
        torch.cuda.current_stream(device).wait_stream(aside)
        self._graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(self._graph):
            self._result = function(*self._inputs)
        for value, kept in zip(state, former, strict=True):
            value.copy_(kept)

    def __call__(self, *inputs: Tensor) -> Tensor:
        """Return the result for new inputs; it is overwritten by the next call."""
        for held, value in zip(self._inputs, inputs, strict=True):
            held.copy_(value, non_blocking=True)
        self._graph.replay()
        return self._result
