# SPDX-License-Identifier: Apache-2.0
"""One episode as the learner sees it."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class Episode:
    """Observations `[T+1, O]` and the actions `[T, A]` applied between them, float32.

    Units and order are the contract's. `meta` names at least the episode (`episode_id`); rollouts
    add task, goal, seed, model, robot, contract_hash, dropped, rotation_deg and source.

    Raises:
        ValueError: shapes do not fit together, or a value is not finite.
    """

    observations: NDArray[np.float32]
    actions: NDArray[np.float32]
    meta: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        name = self.meta.get("episode_id", "episode")
        for key in ("observations", "actions"):
            array = np.asarray(getattr(self, key), dtype=np.float32)
            if array.ndim != 2:
                raise ValueError(f"{name}: {key} has shape {array.shape}, expected [steps, size]")
            if not np.isfinite(array).all():
                row = int(np.argmax(~np.isfinite(array).all(1)))
                raise ValueError(f"{name}: {key} is not finite at step {row}")
            object.__setattr__(self, key, array)
        if len(self.observations) != len(self.actions) + 1:
            raise ValueError(
                f"{name}: {len(self.observations)} observations for {len(self.actions)} actions, "
                "expected one more observation than actions"
            )

    def __len__(self) -> int:
        """Return the number of transitions."""
        return len(self.actions)
