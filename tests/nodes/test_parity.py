# SPDX-License-Identifier: Apache-2.0
"""Vectors assembled from a bag are those that the live node had, element by element."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
from bag_processes import Processes, interrupt
from twinloop.bags import complete_bags
from twinloop.bags.episodes import episode, recorded_steps

from twinloop import contract

CONTRACT = contract.load("baoding")
DOMAIN = 30 + (os.getpid() + 29) % 60


def require_parity(bag: Path, steps: int) -> None:
    """Every step of the bag gives exactly the vector that `plan_stats` says was planned from."""
    recorded = recorded_steps(bag, CONTRACT)
    assert [step.step for step in recorded] == list(range(steps))
    for step in recorded:
        assert step.observation is not None, f"a sample of step {step.step} was not recorded"
        for channel in CONTRACT.observation:
            block = CONTRACT.slices[channel.name]
            np.testing.assert_array_equal(
                step.observation[block],
                step.live[block],
                err_msg=f"step {step.step}, channel {channel.name}",
                strict=True,
            )


def test_offline_vectors_equal_those_of_a_live_assembler(tmp_path: Path) -> None:
    with Processes(DOMAIN) as processes:
        recorder = processes.recorder(tmp_path)
        assert processes.cell(episodes=2, steps=40).wait(timeout=60) == 0
        assert interrupt(recorder) == 0
    bags = complete_bags(tmp_path)
    assert len(bags) == 2
    for bag in bags:
        require_parity(bag, steps=40)
        recorded = recorded_steps(bag, CONTRACT)
        arrays = episode(bag, CONTRACT)
        assert len(arrays) == 40, "the observation after the last step is there too"
        np.testing.assert_array_equal(
            arrays.observations[:-1], np.stack([step.live for step in recorded])
        )
        # The command channel repeats the goal of the step before, once the first was applied.
        np.testing.assert_array_equal(
            arrays.observations[1:, CONTRACT.slices["command"]], arrays.actions
        )
