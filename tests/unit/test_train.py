# SPDX-License-Identifier: Apache-2.0
"""Training runs: they carry on after a kill at any moment, and can be repeated from their bags."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from tiny_training import CONFIG, run
from twinloop.bags.errors import BagError
from twinloop.bags.read import complete_bags, metadata
from twinloop.contract import load as load_contract
from twinloop.learning.checkpoint import CheckpointInvalid
from twinloop.learning.episode import Episode
from twinloop.learning.model_file import load_model
from twinloop.learning.policy import PolicyConfig
from twinloop.learning.ppo import PPOConfig
from twinloop.learning.proposal import ProposalTraining
from twinloop.learning.protocol import protocol
from twinloop.learning.soft_actor_critic import SACConfig
from twinloop.learning.train import TrainResult
from twinloop.learning.training_run import Listener, ProtocolImpossible

from twinloop import tasks

torch.set_num_threads(1)


def assert_equal(one: TrainResult, other: TrainResult) -> None:
    for name, tensor in one.model.state_tensors().items():
        assert torch.equal(other.model.state_tensors()[name], tensor), name
    assert one.metrics == other.metrics
    assert one.lineage.episodes == other.lineage.episodes


@pytest.fixture(scope="module")
def whole(tmp_path_factory) -> tuple[TrainResult, Path]:
    out = tmp_path_factory.mktemp("whole")
    return run(out), out


def test_a_run_leaves_a_model_with_its_lineage_and_a_bag_of_every_episode(whole) -> None:
    result, out = whole
    assert result.version == "v0001"
    manifest = load_model(result.folder, load_contract("baoding")).manifest
    assert manifest.lineage.transitions > 0
    assert {"one_step_mean_mm", "evaluation_episodes"} <= set(manifest.metrics)
    collected = sum(row["episodes"] for row in result.rounds)
    assert len(complete_bags(out / "bags" / "training")) == collected
    assert len(complete_bags(out / "bags" / "evaluation_stage_00")) == 1


class Gone(Exception):
    pass


def die_at(number: int) -> Callable[[Episode, bool], None]:
    """Return what ends a run at its n-th episode."""
    seen = 0

    def count(episode: Episode, is_new: bool) -> None:
        nonlocal seen
        seen += 1
        if seen == number:
            raise Gone

    return count


def test_a_run_that_is_carried_on_repeats_no_episode_that_had_ended(tmp_path, whole) -> None:
    with pytest.raises(Gone):
        run(tmp_path, listener=Listener(lambda _: None, die_at(3)))
    before = {path: path.stat().st_mtime_ns for path in complete_bags(tmp_path / "bags/training")}
    assert len(before) == 3
    heard: list[bool] = []
    listener = Listener(lambda _: None, lambda _, is_new: heard.append(is_new))
    assert_equal(whole[0], run(tmp_path, listener=listener))
    assert heard.count(False) == 3
    after = {path: path.stat().st_mtime_ns for path in complete_bags(tmp_path / "bags/training")}
    assert before.items() <= after.items()


def test_a_bag_that_was_damaged_in_the_crash_is_made_again(tmp_path, whole) -> None:
    with pytest.raises(Gone):
        run(tmp_path, listener=Listener(lambda _: None, die_at(2)))
    bag = complete_bags(tmp_path / "bags/training")[0]
    data = bag / f"{bag.name}.mcap"
    data.write_bytes(data.read_bytes()[:500])
    assert_equal(whole[0], run(tmp_path))


@pytest.mark.parametrize("lines", [1, 3, 4])
def test_a_run_killed_at_any_moment_ends_in_the_same_model(tmp_path, whole, lines) -> None:
    program = Path(__file__).with_name("tiny_training.py")
    victim = subprocess.Popen(
        [sys.executable, str(program), str(tmp_path)], stdout=subprocess.PIPE, text=True
    )
    assert victim.stdout is not None
    # It prints a line an episode and a line a round; the kill comes amid what follows.
    for _ in range(lines):
        assert victim.stdout.readline()
    os.kill(victim.pid, signal.SIGKILL)
    assert victim.wait() == -signal.SIGKILL
    victim.stdout.close()
    assert not (tmp_path / "baoding").exists()
    assert_equal(whole[0], run(tmp_path))


def test_two_workers_train_the_same_model_as_one(tmp_path, whole) -> None:
    assert_equal(whole[0], run(tmp_path, workers=2))


@pytest.mark.parametrize("folder", ["", "bags/training"])
def test_bags_alone_give_the_same_model(tmp_path, whole, folder) -> None:
    again = run(tmp_path, from_bags=whole[1] / folder)
    for name, tensor in whole[0].model.state_tensors().items():
        assert torch.allclose(again.model.state_tensors()[name], tensor, atol=1e-6), name
    assert not (tmp_path / "bags" / "training").exists()


def test_a_folder_without_bags_is_refused(tmp_path) -> None:
    with pytest.raises(BagError, match="holds no complete bag"):
        run(tmp_path / "out", from_bags=tmp_path)


def test_every_stage_leaves_a_version(tmp_path, whole) -> None:
    result = run(tmp_path, config=replace(CONFIG, stages=(60, 90)))
    assert result.versions == ("v0001", "v0002")
    early = load_model(tmp_path / "baoding" / "v0001", load_contract("baoding")).manifest
    assert early.lineage.total_transitions < result.lineage.total_transitions
    assert len(complete_bags(tmp_path / "bags" / "evaluation_stage_00")) == 1
    # The last one is fitted from new weights, so that stages before do not change it.
    assert result.lineage.episodes == whole[0].lineage.episodes
    again = run(tmp_path, config=replace(CONFIG, stages=(60, 90)))
    assert again.versions == result.versions
    assert_equal(result, again)


def test_other_settings_are_refused_and_a_damaged_file_is_named(tmp_path) -> None:
    run(tmp_path)
    with pytest.raises(CheckpointInvalid, match="other settings \\(updates_last\\)"):
        run(tmp_path, config=replace(CONFIG, updates_last=3))
    damaged = tmp_path / "training" / "round_000_model.safetensors"
    damaged.write_bytes(damaged.read_bytes()[:200])
    with pytest.raises(CheckpointInvalid, match=r"round_000_model\.safetensors"):
        run(tmp_path)
    assert json.loads((tmp_path / "training" / "run.json").read_text())["task"] == "baoding"


POLICY = replace(
    CONFIG,
    stages=(90, 150),
    policy=PolicyConfig(hidden=(16,), sac=SACConfig(batch=8, critic_hidden=(16,))),
    goals=("ccw", "cw", "move"),
    relabelled=0.5,
    cell={"spread": "spread"},
    save_every=2,
)


@pytest.fixture(scope="module")
def with_policy(tmp_path_factory) -> tuple[TrainResult, Path]:
    out = tmp_path_factory.mktemp("policy")
    return run(out, config=POLICY), out


def test_a_policy_that_acts_comes_with_the_model(with_policy) -> None:
    result, out = with_policy
    loaded = load_model(result.folder, load_contract("baoding")).model
    assert loaded.proposal is not None
    found = [metadata(path).episode for path in complete_bags(out / "bags" / "training")]
    assert {about.goal for about in found if about is not None} == {"ccw", "cw", "move"}
    assert {about.model_version for about in found if about is not None} == {"random", "explore"}


@pytest.mark.parametrize("number", [4, 7, 10])
def test_a_policy_is_carried_on_to_the_same_weights(tmp_path, with_policy, number) -> None:
    with pytest.raises(Gone):
        run(tmp_path, config=POLICY, listener=Listener(lambda _: None, die_at(number)))
    assert_equal(with_policy[0], run(tmp_path, config=POLICY, workers=2))


def test_bags_alone_give_the_same_policy(tmp_path, with_policy) -> None:
    result, out = with_policy
    again = run(tmp_path, config=POLICY, from_bags=out)
    for name, tensor in result.model.state_tensors().items():
        assert torch.allclose(again.model.state_tensors()[name], tensor, atol=1e-6), name


def test_a_proposal_policy_is_trained_first_and_planned_about(tmp_path) -> None:
    ppo = PPOConfig(rollout=4, epochs=1, batch=8, critic_only=1, critic_hidden=(8,))
    proposal = ProposalTraining(
        hands=2,
        transitions=24,
        demonstrations={"ccw": 2, "move": 1},
        bad_end=1,
        imitation_epochs=1,
        oracle={"samples": 4, "horizon": 2},
        ppo=ppo,
    )
    config = replace(CONFIG, proposal=proposal, goals=("ccw", "move"))
    result = run(tmp_path, config=config)
    assert load_model(result.folder, load_contract("baoding")).model.proposal is not None
    found = [metadata(path).episode for path in complete_bags(tmp_path / "bags" / "training")]
    assert {about.model_version for about in found if about is not None} == {"proposal", "model"}
    assert len(complete_bags(tmp_path / "bags" / "demonstrations")) == 3
    with pytest.raises(ProtocolImpossible, match="not for valve"):
        run(tmp_path / "valve", task="valve", config=replace(config, goals=("",)))


def test_another_task_is_trained_by_the_same_protocol(tmp_path) -> None:
    result = run(tmp_path, task="valve")
    assert {"one_step_error", "seven_step_error", "evaluation_success"} <= set(result.metrics)
    assert result.folder == tmp_path / "valve" / "v0001"


@pytest.mark.parametrize("task", ["cube", "pencil"])
def test_a_task_whose_goal_is_observed_is_learned_by_a_policy(tmp_path, task) -> None:
    assert POLICY.policy is not None
    newest = replace(POLICY.policy, trial=0)
    result = run(tmp_path, task=task, config=replace(CONFIG, stages=(90, 150), policy=newest))
    average = torch.load(tmp_path / "training" / "policy.pt", weights_only=True)["sac"]["average"]
    proposal = load_model(result.folder, load_contract(task)).model.proposal
    assert proposal is not None
    for name, tensor in proposal.state_dict().items():
        assert name in ("mean", "scale") or torch.equal(tensor, average[name]), name


@pytest.mark.parametrize("task", tasks.available())
def test_the_protocol_of_every_task_can_be_read(task) -> None:
    made = protocol(task, 20_000)
    assert made.stages == (5_000, 10_000, 20_000)
    assert made.steps == tasks.make(task).episode_steps
