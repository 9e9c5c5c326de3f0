# SPDX-License-Identifier: Apache-2.0
"""Steps that a person steered: marked in bags, and weighed by the learner."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from bag_samples import CONTRACT, about, random_rollout
from twinloop.bags.episodes import episode as read_episode
from twinloop.bags.interventions import control_spans
from twinloop.bags.metadata import EpisodeMetadata
from twinloop.bags.read import read_messages
from twinloop.bags.rollouts import write_rollout
from twinloop.bags.types import message_class
from twinloop.bags.write import EpisodeWriter
from twinloop.learning.episode import Episode
from twinloop.learning.fit import FitConfig, fit
from twinloop.learning.journal import Journal
from twinloop.learning.replay import windows
from twinloop.models.ensemble import Ensemble, EnsembleConfig

AUTONOMY, PILOT, SHARED, NOBODY = range(4)
STATUS = "twinloop_interfaces/msg/ControlStatus"
FIRST_NS = 100_000_000  # of a rollout that is written from time 0 on


def steered_bag(folder: Path, changes: list[tuple[int, int]]) -> Path:
    """A bag of 30 steps in which who commands changes: step from which on, who."""
    plain = write_rollout(folder / "plain", random_rollout(), CONTRACT, about())
    described: EpisodeMetadata = about(
        contract=CONTRACT.model_dump(mode="json"), contract_hash=CONTRACT.hash(), steps=30
    )
    with EpisodeWriter(folder / "steered", described) as writer:
        for step, who in changes:
            time = message_class("builtin_interfaces/msg/Time")
            stamp_ns = FIRST_NS + step * 100_000_000 - 1
            said = message_class(STATUS)(
                stamp=time(sec=stamp_ns // 10**9, nanosec=stamp_ns % 10**9),
                who=who,
                sharing=False,
                alpha=float("nan"),
                reason="",
            )
            writer.write("/control_status", STATUS, said, stamp_ns)
        for message in read_messages(plain):
            decoded = message.decode()
            writer.write(message.topic, message.type, decoded, message.log_time_ns)
    return folder / "steered"


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ([], None),
        ([(0, AUTONOMY)], None),
        ([(0, PILOT)], [(0, 30)]),
        (
            [(0, AUTONOMY), (5, PILOT), (9, AUTONOMY), (20, SHARED), (24, NOBODY)],
            [(5, 9), (20, 24)],
        ),
    ],
)
def test_the_steps_that_a_pilot_had_are_marked(
    changes: list[tuple[int, int]], expected: list[tuple[int, int]] | None, tmp_path: Path
) -> None:
    episode = read_episode(steered_bag(tmp_path, changes), CONTRACT)
    assert len(episode) == 30
    assert episode.meta.get("piloted") == expected


def test_who_commanded_from_when_to_when_can_be_read(tmp_path: Path) -> None:
    bag = steered_bag(tmp_path, [(0, AUTONOMY), (5, PILOT), (9, NOBODY), (9, NOBODY), (20, PILOT)])
    spans = control_spans(bag)
    assert [span.who for span in spans] == ["autonomy", "pilot", "nobody", "pilot"]
    assert spans[1].ends_s - spans[1].begins_s == pytest.approx(0.4)
    assert spans[2].ends_s - spans[2].begins_s == pytest.approx(1.1)
    assert spans[3].ends_s > spans[3].begins_s
    plain = tmp_path / "plain"
    assert control_spans(plain) == []


def test_the_learners_cache_keeps_the_marks(tmp_path: Path) -> None:
    episode = read_episode(steered_bag(tmp_path, [(5, PILOT), (9, AUTONOMY)]), CONTRACT)
    journal = Journal(tmp_path / "journal")
    journal.keep("bag", [episode])
    [kept] = journal.episodes("bag", lambda _path: [])
    assert [tuple(pair) for pair in kept.meta["piloted"]] == [(5, 9)]


def test_windows_count_as_their_steps_do() -> None:
    plain, steered = random_rollout(10, 0), random_rollout(10, 1)
    steered.meta["piloted"] = [(0, 4)]
    assert windows([plain, steered], 2).weights is None
    weights = windows([plain, steered], 2, pilot_weight=3.0).weights
    assert weights is not None
    assert weights.mean() == pytest.approx(1.0)
    shares = (weights / weights[0]).tolist()
    assert shares[:9] == pytest.approx([1.0] * 9)
    assert shares[9:] == pytest.approx([3.0, 3.0, 3.0, 2.0, 1.0, 1.0, 1.0, 1.0, 1.0])
    assert windows([steered], 2, pilot_weight=0.0).weights[0] == 0.0


def made_of(sign: float, seed: int) -> Episode:
    """An episode whose observations move with their action, or against it."""
    rng = np.random.default_rng(seed)
    actions = rng.normal(size=(200, 1)).astype(np.float32)
    observations = np.concatenate([np.zeros((1, 2)), np.cumsum(sign * actions.repeat(2, 1), 0)])
    return Episode(observations.astype(np.float32), actions, {"episode_id": str(seed)})


@pytest.mark.parametrize(("pilot_weight", "expected"), [(50.0, 1.0), (0.02, -1.0)])
def test_a_model_believes_whose_steps_weigh_more(pilot_weight: float, expected: float) -> None:
    others, pilots = made_of(-1.0, 0), made_of(1.0, 1)
    pilots.meta["piloted"] = [(0, 200)]
    torch.manual_seed(0)
    config = EnsembleConfig(observation_size=2, action_size=1, members=1, hidden=(16,))
    model = Ensemble(config)
    settings = FitConfig(
        steps=1, epochs=12, batch=32, learning_rate=1e-2, pilot_weight=pilot_weight
    )
    fit(model, [others, pilots], settings, seed=0)
    moved = model.predict(torch.zeros(1, 1, 2), torch.ones(1, 1, 1))
    assert float(moved.mean()) * expected > 0.3


def test_a_weight_that_makes_no_sense_is_refused() -> None:
    with pytest.raises(ValueError, match="pilot_weight is -1.0, expected 0 or more"):
        FitConfig(pilot_weight=-1.0)
