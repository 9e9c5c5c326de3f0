# SPDX-License-Identifier: Apache-2.0
"""Vectors assembled from a bag are those that the live node had, element by element."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from bag_processes import Observer, Processes, interrupt, wait_until
from twinloop.bags import complete_bags, metadata, read_messages
from twinloop.bags.episodes import episode, recorded_steps
from twinloop.dds import take_domain
from twinloop.learning.model_file import Candidate, write_model
from twinloop.models.ensemble import Ensemble, EnsembleConfig
from twinloop.planners.control import COMPLETE, DROPPED

from twinloop import contract

CONTRACT = contract.load("baoding")
DOMAIN = take_domain()


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


def untrained_model(folder: Path) -> Path:
    """Write a model that predicts next to nothing; what it plans does not matter here."""
    command = CONTRACT.slices["command"]
    config = EnsembleConfig(
        observation_size=CONTRACT.observation_size,
        action_size=CONTRACT.action_size,
        members=2,
        hidden=(32,),
        known=(command.start, command.stop),
    )
    folder.mkdir()
    write_model(folder, Candidate(Ensemble(config, 0), CONTRACT, status="seed"))
    return folder


def test_offline_vectors_equal_those_of_the_running_system(tmp_path: Path) -> None:
    bags, model = tmp_path / "bags", untrained_model(tmp_path / "v0001")
    with Processes(DOMAIN) as processes, Observer(DOMAIN) as observer:
        nodes = [
            processes.node("twinloop_sim.nodes.twin", lockstep=True, rtf=2.0),
            processes.recorder(bags, use_sim_time=True, source="mujoco"),
            processes.node("twinloop.nodes.planner", model=model, rtf=2.0, nice=0),
        ]
        for name in ("/twin", "/recorder", "/planner"):
            wait_until(lambda name=name: observer.values(name).get("state") == "active", 120.0)
        episode_node = processes.node(
            "twinloop.nodes.episode", episodes=2, steps=40, lockstep=True, use_sim_time=True
        )
        assert episode_node.wait(timeout=120) == 0
        for node in nodes:
            assert interrupt(node) == 0
    recorded_bags = complete_bags(bags)
    assert len(recorded_bags) == 2
    for bag in recorded_bags:
        about = metadata(bag).episode
        assert about is not None
        assert about.controller["servo"]["fingers"]["gain"] > 0
        assert about.model_version == "v0001"
        # An untrained model may drop a ball before the time is up.
        require_parity(bag, steps=about.steps or 0)
        closing = [m.decode() for m in read_messages(bag, ["/plan_stats"])][-1]
        last = recorded_steps(bag, CONTRACT)[-1].after
        assert closing.stop_reason in (COMPLETE, DROPPED)
        np.testing.assert_array_equal(last, closing.observation, strict=True)
        assert len(episode(bag, CONTRACT)) == about.steps


def test_offline_vectors_equal_those_of_a_live_assembler(tmp_path: Path) -> None:
    with Processes(DOMAIN) as processes:
        recorder = processes.recorder(tmp_path)
        assert processes.cell(episodes=1, steps=40).wait(timeout=120) == 0
        assert interrupt(recorder) == 0
    (bag,) = complete_bags(tmp_path)
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
