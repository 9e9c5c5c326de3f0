# SPDX-License-Identifier: Apache-2.0
"""Fleets: the same episodes from any number of workers, and none lost with a worker."""

from __future__ import annotations

import importlib.util
import os
import signal
from collections.abc import Iterable
from dataclasses import replace

import numpy as np
import psutil
import pytest
import torch
from twinloop.fleet import Fleet, FleetError, Job, deal, open_fleet, packed, run_job
from twinloop.fleet.runner import Runner
from twinloop.learning.rollout import EpisodeRecord
from twinloop.models.baoding import new_model

torch.set_num_threads(1)
MODEL = packed(new_model(0, 2, (8,)))
PLANNED = Job(
    "baoding",
    "model",
    tuple(range(3, 10)),
    steps=6,
    hands=3,
    noises=(0.0, 0.5),
    planner={"samples": 6, "horizon": 2},
    model=MODEL,
)
RANDOM = replace(PLANNED, source="random", model=None)


def by_seed(records: Iterable[EpisodeRecord]) -> dict[int, EpisodeRecord]:
    found = list(records)
    result = {record.episode.meta["seed"]: record for record in found}
    assert len(result) == len(found), "an episode came twice"
    return result


def assert_equal(one: dict[int, EpisodeRecord], other: dict[int, EpisodeRecord]) -> None:
    assert one.keys() == other.keys()
    for seed, record in one.items():
        assert np.array_equal(record.episode.observations, other[seed].episode.observations)
        assert np.array_equal(record.episode.actions, other[seed].episode.actions)
        assert record.episode.meta == other[seed].episode.meta


@pytest.fixture(scope="module")
def alone() -> dict[int, EpisodeRecord]:
    with open_fleet(1) as fleet:
        return by_seed(fleet.run(deal(PLANNED)))


@pytest.fixture(scope="module")
def pair() -> Iterable[Fleet]:
    with open_fleet(2) as fleet:
        yield fleet


def test_parts_of_a_job_are_nearly_equal_and_hold_every_seed_once() -> None:
    parts = [job.seeds for job in deal(PLANNED)]
    assert sorted(len(part) for part in parts) == [2, 2, 3]
    assert sorted(seed for part in parts for seed in part) == list(PLANNED.seeds)
    assert deal(PLANNED, []) == []


def test_two_workers_give_the_episodes_of_one_to_the_last_bit(alone, pair) -> None:
    assert_equal(alone, by_seed(pair.run(deal(PLANNED))))


def test_a_cell_that_was_used_gives_the_episodes_of_a_new_one() -> None:
    runner = Runner()
    first = by_seed(runner.run(replace(RANDOM, seeds=(1, 2, 3))))
    list(runner.run(replace(RANDOM, seeds=(4, 5, 6), steps=3)))
    again = by_seed(runner.run(replace(RANDOM, seeds=(1, 2, 3))))
    runner.close()
    assert_equal(first, again)


def test_jobs_of_other_networks_reach_workers_that_hold_some_already(pair) -> None:
    other = replace(PLANNED, model=packed(new_model(1, 2, (8,))), seeds=(3, 4, 5))
    for job in (replace(PLANNED, seeds=(3, 4, 5)), other):
        assert_equal(by_seed(run_job(job)), by_seed(pair.run([job])))


def test_killed_workers_are_replaced_and_none_of_their_episodes_is_lost(alone) -> None:
    said: list[str] = []
    with open_fleet(2, say=said.append) as fleet:
        episodes = fleet.run(deal(PLANNED))
        records = [next(episodes)]
        victims = psutil.Process().children()
        workers = [p for p in victims if "spawn_main" in " ".join(p.cmdline())]
        for worker in workers[-2:]:
            os.kill(worker.pid, signal.SIGKILL)
        records += episodes
        assert fleet.losses >= 1
    assert_equal(alone, by_seed(records))
    assert "SIGKILL" in said[0]
    assert "run again" in said[0]


class _Fragile:
    """Workers that die with every job."""

    def start(self):
        return self

    def wait(self, busy):
        return busy

    def send(self, job, networks):
        pass

    def next_event(self):
        from twinloop.fleet.base import Lost

        return Lost("signal SIGSEGV")

    def stop(self):
        pass

    def close(self):
        pass


def test_a_job_that_takes_worker_after_worker_with_it_ends_the_run() -> None:
    fleet = Fleet(_Fragile(), 1)
    with pytest.raises(FleetError, match=r"seeds 3 to 9.*SIGSEGV"):
        list(fleet.run([PLANNED]))
    assert fleet.losses == 3


@pytest.mark.parametrize("workers", [1, 2])
def test_an_error_of_a_job_reaches_the_caller_and_the_fleet_goes_on(workers, pair) -> None:
    with open_fleet(1) as single:
        fleet = single if workers == 1 else pair
        with pytest.raises(ValueError, match="needs a model"):
            list(fleet.run([replace(PLANNED, model=None), RANDOM]))
        assert len(list(fleet.run([RANDOM]))) == len(RANDOM.seeds)


def test_a_run_that_is_given_up_leaves_a_fleet_that_works(pair) -> None:
    next(pair.run(deal(RANDOM)))
    assert_equal(by_seed(run_job(RANDOM)), by_seed(pair.run([RANDOM])))


def test_fewer_than_one_worker_or_hand_is_refused() -> None:
    with pytest.raises(ValueError, match="workers is 0"):
        open_fleet(0)
    with pytest.raises(ValueError, match="hands is 0"):
        replace(PLANNED, hands=0)


@pytest.mark.skipif(importlib.util.find_spec("ray") is not None, reason="Ray is installed")
def test_ray_that_is_not_installed_is_named() -> None:
    with pytest.raises(FleetError, match=r"not installed.*pip install"):
        open_fleet(2, ray="auto")


@pytest.mark.skipif(importlib.util.find_spec("ray") is None, reason="Ray is not installed")
def test_a_ray_cluster_gives_the_same_episodes_and_replaces_killed_actors(alone) -> None:
    said: list[str] = []
    with open_fleet(2, ray="local", say=said.append) as fleet:
        assert_equal(alone, by_seed(fleet.run(deal(PLANNED))))
        episodes = fleet.run(deal(PLANNED))
        records = [next(episodes)]
        actors = [p for p in psutil.process_iter(["cmdline"]) if is_actor(p)]
        assert actors
        for actor in actors:
            actor.kill()
        records += episodes
        assert fleet.losses >= 1
        assert_equal(alone, by_seed(records))
        with pytest.raises(ValueError, match="needs a model"):
            list(fleet.run([replace(PLANNED, model=None)]))


def is_actor(process: psutil.Process) -> bool:
    """Return whether a process is an actor of this test's own cluster."""
    title = " ".join(process.info["cmdline"] or [])
    own = psutil.Process().children(recursive=True)
    return title.startswith("ray::_Actor") and process in own
