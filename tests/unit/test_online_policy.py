# SPDX-License-Identifier: Apache-2.0
"""The online learner where a policy acts: from bags to versions, through kills and damage."""

from __future__ import annotations

import multiprocessing
import os
import shutil
import signal
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import orbiting_bags as orbit
import pytest
import torch
from twinloop.bags.episodes import episodes as read_bag
from twinloop.bags.metadata import EpisodeMetadata
from twinloop.bags.rollouts import write_rollout
from twinloop.learning.episode import Episode
from twinloop.learning.following_bags import STATE
from twinloop.learning.gate import GateConfig
from twinloop.learning.model_file import Candidate
from twinloop.learning.off_policy import OffPolicyLearner, OffPolicySettings
from twinloop.learning.online_job import LearnerConfig, run_job
from twinloop.learning.online_policy import require_learnable, settings_of
from twinloop.learning.policy_gate import (
    chance_of_less,
    judge_new,
    judge_returns,
    returns_of,
    whole_episodes,
)
from twinloop.learning.registry import Registry
from twinloop.models.actor import Actor, ActorConfig
from twinloop.planners.control import COMPLETE, DROPPED

from twinloop import planners, tasks

torch.set_num_threads(1)
FORK = multiprocessing.get_context("fork")
TASK = tasks.make("baoding")
LEARNING = OffPolicySettings(hidden=(16,), batch=16, first=40, updates=0.5, normalises=True)


def turning(seed: int, rad: float, steps: int = 20, **meta: Any) -> Episode:
    """An episode whose balls turn by so much a step, counter-clockwise to a viewer of the palm."""
    made = orbit.episode(f"turn_{seed}", seed, steps)
    seen = made.observations.copy()
    where = orbit.CONTRACT.slices["ball_position"]
    centre = np.array([0.006, -0.03, 0.08])
    for step, row in enumerate(seen):
        angle = 0.3 * seed + rad * step
        line = 0.03 * np.array([np.cos(angle), 0.0, np.sin(angle)])
        row[where] = np.concatenate([centre + line, centre - line])
    about = {"episode_id": f"turn_{seed}", "first_step": 0, "stop_reason": COMPLETE}
    return Episode(seen, made.actions, about | meta)


class Station:
    """A folder of bags, and jobs of a learner on it."""

    def __init__(self, root: Path) -> None:
        self.root, self.bags, self.count = root, root / "bags", 0
        self.bags.mkdir()
        self.registry = Registry(root / "registry", orbit.CONTRACT)
        self.registry.promote(
            self.registry.add(Candidate(orbit.untrained_model(), orbit.CONTRACT, status="seed"))
        )

    def config(self, **changes: Any) -> LearnerConfig:
        values: dict[str, Any] = {
            "task": "baoding",
            "planner": "policy",
            "record_dir": str(self.bags),
            "registry": str(self.root / "registry"),
            "episodes_per_candidate": 1,
            "learning": LEARNING,
            # One episode is enough to be judged, and too little to be taken back.
            "gate": GateConfig(returns_episodes=1),
        }
        return LearnerConfig(**values | changes)

    @property
    def state(self) -> Path:
        return self.config().journal_folder / STATE

    def record(self, count: int, rad: float = 0.05, steps: int = 20) -> None:
        """Record episodes of the running version."""
        for _ in range(count):
            episode = turning(self.count, rad, steps)
            name = f"episode_{self.count:03d}"
            about = EpisodeMetadata(
                episode_id=name,
                task="baoding",
                goal="ccw",
                model_version=self.registry.current() or "",
                stop_reason=COMPLETE,
            )
            write_rollout(self.bags / name, episode, orbit.CONTRACT, about)
            self.count += 1

    def give(self, policy: Actor) -> str:
        """Let a policy act that was not learned here, well after all that was."""
        if self.state.exists():
            os.utime(self.state, (0, 0))
        version = self.registry.add(Candidate(policy, orbit.CONTRACT, status="seed"))
        self.registry.promote(version)
        return version

    def learn(self, **changes: Any) -> list[tuple[str, str]]:
        events: list[tuple[str, str]] = []
        run_job(self.config(**changes), lambda kind, text, **_: events.append((kind, text)))
        return events

    def learn_and_die(self, owner: object, name: str) -> None:
        """Run a job in a process that is killed where it calls `owner.name`."""

        def run() -> None:
            setattr(owner, name, die)
            self.learn()

        process = FORK.Process(target=run)
        process.start()
        process.join(120)
        assert process.exitcode == -signal.SIGKILL

    def updates(self) -> dict[str, float]:
        return {
            version: about.metrics["updates"]
            for version, about in self.registry.entries()
            if "updates" in about.metrics
        }


def die(*_: object, **__: object) -> None:
    os.kill(os.getpid(), signal.SIGKILL)


@pytest.fixture
def station(tmp_path: Path) -> Station:
    return Station(tmp_path)


def kinds(events: list[tuple[str, str]]) -> list[str]:
    return [kind for kind, _ in events]


def tensors(station: Station, version: str) -> dict[str, torch.Tensor]:
    return station.registry.load(version).model.state_tensors()


def test_bags_become_policies_at_the_ratio_of_updates_and_damaged_ones_are_named(
    station: Station,
) -> None:
    station.record(1)
    events = station.learn()
    assert events[-1][0] == "waiting"
    assert "20 transitions and 0 gradient steps made no other policy" in events[-1][1]
    station.record(2)
    shutil.copytree(station.bags / "episode_000", station.bags / "torn")
    for file in (station.bags / "torn").glob("*.mcap"):
        os.truncate(file, file.stat().st_size // 2)
    events = station.learn()
    assert kinds(events)[-2:] == ["candidate", "promoted"]
    [refused] = [text for kind, text in events if kind == "bag_refused"]
    assert str(station.bags / "torn") in refused
    assert station.updates() == {"v0002": 30.0}  # half of 60 transitions
    assert station.registry.current() == "v0002"
    first = station.registry.load("v0002")
    assert isinstance(first.model, Actor)
    assert first.manifest.lineage.episodes == ("episode_000", "episode_001", "episode_002")
    assert first.manifest.decision is not None
    assert first.manifest.decision.candidate is None

    station.record(1)
    station.learn()
    assert station.updates() == {"v0002": 30.0, "v0003": 40.0}
    about = station.registry.manifest("v0003").lineage
    assert (about.parent, about.episodes, about.total_transitions) == (
        "v0002",
        ("episode_003",),
        80,
    )
    assert kinds(station.learn()) == ["waiting"]  # nothing new


@pytest.mark.parametrize(
    ("owner", "name"),
    [
        (OffPolicyLearner, "improve"),
        (OffPolicyLearner, "save"),
        (Registry, "add"),
        (Registry, "decide"),
        (Registry, "_point_to"),
    ],
)
def test_a_job_that_is_killed_anywhere_is_done_by_the_next(
    station: Station, tmp_path: Path, owner: object, name: str
) -> None:
    (tmp_path / "other").mkdir()
    whole = Station(tmp_path / "other")
    for one in (station, whole):
        one.record(3)
        one.learn()
        one.record(2)
    station.learn_and_die(owner, name)
    for one in (station, whole):
        one.learn()
    assert station.registry.current() == whole.registry.current() == "v0003"
    assert station.updates() == whole.updates() == {"v0002": 30.0, "v0003": 50.0}
    expected = tensors(whole, "v0003")
    for key, tensor in tensors(station, "v0003").items():
        assert torch.equal(tensor, expected[key]), key


def test_a_damaged_state_is_named_and_the_learner_goes_on_from_the_policy_that_acts(
    station: Station,
) -> None:
    station.record(3)
    station.learn()
    os.truncate(station.state, station.state.stat().st_size // 2)
    station.record(1)
    events = station.learn(train_updates=10)
    [told] = [text for kind, text in events if kind == "state_refused"]
    assert str(station.state) in told
    # Critics that know nothing yet undo no policy.
    assert events[-1][0] == "waiting"
    assert station.registry.current() == "v0002"
    station.record(1)
    assert station.learn()[-1][0] == "promoted"
    assert station.updates()["v0003"] == 50.0
    assert station.registry.manifest("v0003").lineage.parent == "v0002"


def test_what_is_not_finite_is_neither_kept_nor_given_away(
    station: Station, monkeypatch: pytest.MonkeyPatch
) -> None:
    station.record(3)
    station.learn()
    before = station.state.read_bytes()
    station.record(1)
    improve = OffPolicyLearner.improve

    def diverge(self: OffPolicyLearner, *limits: Any) -> int:
        done = improve(self, *limits)
        with torch.no_grad():
            next(self._sac.critic.parameters()).fill_(torch.nan)
        return done

    monkeypatch.setattr(OffPolicyLearner, "improve", diverge)
    assert station.learn()[-1][0] == "diverged"
    assert station.state.read_bytes() == before
    assert station.registry.versions() == ["v0001", "v0002"]


def test_a_policy_that_earns_less_is_taken_back_and_the_one_before_acts_for_a_while(
    station: Station,
) -> None:
    gate = GateConfig()
    station.record(3)
    station.learn(gate=gate)
    station.record(3)
    events = station.learn(gate=gate)
    assert events[-1] == (
        "waiting",
        "v0002 has acted for 3 whole episodes, and is judged after 4",
    )
    station.record(1)
    station.learn(gate=gate)
    assert station.registry.current() == "v0003"
    station.record(4, rad=-0.05)
    updates = station.updates()["v0003"]
    events = station.learn(gate=gate)
    assert kinds(events)[-2:] == ["progress", "waiting"]
    [rejected] = [text for kind, text in events if kind == "rejected"]
    assert "v0003: 4 episodes earned" in rejected
    assert "v0002 acts again" in rejected
    assert station.registry.current() == "v0002"
    about = station.registry.manifest("v0003")
    assert about.status == "rejected"
    assert about.decision is not None
    assert about.decision.returns is not None
    assert about.decision.returns.mean < about.decision.returns.former_mean
    # It was learned from all the same, and what comes of that is tried next.
    station.record(1)
    assert station.learn(gate=gate)[-1][0] == "promoted"
    assert station.updates()["v0004"] > updates + 40


def test_a_policy_that_was_given_is_improved_and_one_of_another_form_acts_as_it_is(
    station: Station,
) -> None:
    given = OffPolicyLearner(TASK, LEARNING, seed=5).actor()
    station.give(given)
    station.record(3)
    assert station.learn()[-1][0] == "waiting"  # the critics' own gradient steps
    station.record(2)
    assert station.learn()[-1][0] == "promoted"
    assert station.updates() == {"v0003": 50.0}
    assert station.registry.manifest("v0003").lineage.parent == "v0002"

    # Chosen later, one is gone on from in place of what was learned before.
    station.give(OffPolicyLearner(TASK, LEARNING, seed=6).actor())
    station.record(1)
    assert station.learn()[-1][0] == "promoted"
    assert station.registry.manifest("v0005").lineage.parent == "v0004"
    assert station.updates()["v0005"] == 60.0
    station.record(1)
    station.learn()
    assert station.registry.manifest("v0006").lineage.parent == "v0005"

    other = Actor(ActorConfig(observation_size=given.observation_size, action_size=24, hidden=(8,)))
    version = station.give(other)
    station.record(1)
    events = station.learn()
    assert events[-1][0] == "waiting"
    assert f"{version} acts as it is, and is not learned" in events[-1][1]
    assert station.registry.current() == version


def test_nobody_plans_with_a_policy_and_no_model_is_fitted_from_one(station: Station) -> None:
    policy = OffPolicyLearner(TASK, LEARNING, 0).actor()
    with pytest.raises(ValueError, match="the model is a policy, which acts and predicts nothing"):
        planners.make("mppi", policy, TASK, 0)
    version = station.give(policy)
    station.record(4, steps=60)
    told = dict(station.learn(planner="mppi", held_out_share=0.5))
    assert f"{version} is a policy, which predicts nothing" in told["waiting"]
    assert station.registry.current() == version


def test_weights_come_from_and_go_to_the_library_unchanged() -> None:
    made, other = (OffPolicyLearner(TASK, LEARNING, seed) for seed in (1, 2))
    other.start_from(made.actor())
    seen = torch.randn(9, TASK.observation_size)
    noise = torch.randn(9, 1, TASK.action_size)
    assert torch.equal(other.actor().act(seen, noise), made.actor().act(seen, noise))
    other.add([turning(k, 0.05) for k in range(5)])
    other.improve(most=LEARNING.first)
    assert torch.equal(other.actor().act(seen, noise), made.actor().act(seen, noise))
    other.improve(most=2)
    assert not torch.equal(other.actor().act(seen, noise), made.actor().act(seen, noise))
    with pytest.raises(ValueError, match="hidden=\\(8,\\)"):
        other.start_from(OffPolicyLearner(TASK, replace(LEARNING, hidden=(8,))).actor())


def test_only_whole_episodes_that_one_version_planned_are_judged() -> None:
    mine = {"planned_by": ["v0002"]}
    given = [
        turning(0, 0.05, **mine),
        turning(1, 0.05, planned_by=["v0001", "v0002"]),
        turning(2, 0.05, **mine, first_step=3),
        turning(3, 0.05, **mine, stop_reason="stopped on request"),
        turning(4, 0.05, **mine, piloted=[(0, 2)]),
        turning(5, 0.05, **mine, stop_reason=DROPPED),
        turning(6, 0.05),
    ]
    assert whole_episodes(given, "v0002") == [given[0], given[5]]
    earned = returns_of(TASK, [turning(0, 0.05), turning(0, -0.05), turning(0, 0.0)])
    assert earned[0] > 15 > 0 > earned[2] > -1 > -15 > earned[1]


def test_only_a_loss_that_chance_does_not_explain_takes_a_policy_back() -> None:
    low, high = np.arange(4.0), 10 + np.arange(4.0)
    assert chance_of_less(low, high) == pytest.approx(1 / 70, abs=0.004)
    assert chance_of_less(high, low) == 1.0
    rng = np.random.default_rng(0)
    found = [chance_of_less(*rng.normal(size=(2, 5)), seed=k) <= 0.05 for k in range(100)]
    assert 0 <= sum(found) <= 12

    def judged(rad: float, count: int = 4) -> Any:
        given = [turning(k, rad + 1e-3 * k, planned_by=["v0003"]) for k in range(count)]
        given += [turning(k, 0.03 + 1e-3 * k, planned_by=["v0002"]) for k in range(4)]
        return judge_returns(TASK, "v0003", "v0002", given, GateConfig())

    assert judged(0.03) is None
    assert judged(0.05) is None
    assert judged(-0.03, count=3) is None  # too few to tell
    decision = judged(-0.03)
    assert (decision.verdict, decision.compared_with) == ("rejected", "v0002")
    assert decision.returns.chance <= GateConfig().returns_level


def test_a_new_policy_has_to_be_finite_where_the_robot_was() -> None:
    made = OffPolicyLearner(TASK, LEARNING).actor()
    given = [turning(0, 0.05)]
    assert judge_new(made, None, given, GateConfig()).verdict == "promoted"
    made.observation_scale.fill_(0.0)
    assert judge_new(made, "v0001", given, GateConfig()).verdict == "rejected"


def test_settings_are_the_task_s_but_for_what_the_learner_is_told(tmp_path: Path) -> None:
    config = LearnerConfig(
        task="baoding", planner="policy", record_dir="bags", registry=str(tmp_path)
    )
    require_learnable(config)
    assert settings_of(config).first == 1000
    told = config.model_copy(update={"first_transitions": 7, "updates_per_transition": 0.25})
    assert (settings_of(told).first, settings_of(told).updates) == (7, 0.25)
    with pytest.raises(ValueError, match="goal hold of task baoding is not in its observation"):
        require_learnable(config.model_copy(update={"goal": "hold"}))


def test_bags_tell_who_planned_and_what_ended_each_run(tmp_path: Path) -> None:
    about = EpisodeMetadata(
        episode_id="one", task="baoding", model_version="v0007", stop_reason=DROPPED
    )
    bag = write_rollout(tmp_path / "one", turning(0, 0.05), orbit.CONTRACT, about)
    [run] = read_bag(bag, orbit.CONTRACT)
    assert run.meta["planned_by"] == ["v0007"]
    assert run.meta["stop_reason"] == DROPPED
