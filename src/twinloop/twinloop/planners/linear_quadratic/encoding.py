# SPDX-License-Identifier: Apache-2.0
"""Observations as states of linear dynamics, by one matrix.

What a goal is about is taken relative to it, so that one policy serves goals near each other; the
goal itself, which nothing moves, is only in the way where nothing else depends on where things are.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]


@dataclass(frozen=True)
class Encoding:
    """A linear map from observations to states, and one back to an observation, with the goal zero
    where states do not keep it.

    Attributes:
        encoder: [X, O].
        decoder: [O, X]; encoder @ decoder is the identity.
    """

    encoder: Array
    decoder: Array

    def encode(self, observation: NDArray[np.floating]) -> Array:
        """Return states: [..., O] -> [..., X]."""
        return np.asarray(observation, dtype=np.float64) @ self.encoder.T


def encoding_of(task: Any) -> Encoding:
    """Return the encoding of a task: everything it observes, the goal only where it `keeps_goal`.

    A task may name channels that are taken relative to the goal, as `relative`.
    """
    size, slices = task.observation_size, task.slices
    kept = np.ones(size, dtype=bool)
    whole = np.eye(size)
    if "goal" in slices and not getattr(task, "keeps_goal", False):
        kept[slices["goal"]] = False
    for channel, reference in getattr(task, "relative", {}).items():
        whole[slices[channel], slices[reference]] = -np.eye(
            slices[channel].stop - slices[channel].start
        )
    return Encoding(whole[kept], np.asarray(np.linalg.inv(whole), dtype=np.float64)[:, kept])


def command_in(task: Any, encoding: Encoding) -> slice:
    """Return where in a state the command in force lies.

    Raises:
        ValueError: the encoding does not keep it as it is.
    """
    start, stop = task.command.start, task.command.stop
    rows = [int(np.argmax(encoding.encoder[:, element])) for element in range(start, stop)]
    found = slice(rows[0], rows[0] + stop - start)
    if not np.array_equal(encoding.encoder[found, start:stop], np.eye(stop - start)):
        raise ValueError(f"the encoding of {task.name} does not keep its command")
    return found
