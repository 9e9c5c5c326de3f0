# SPDX-License-Identifier: Apache-2.0
"""In-process episodes as bags, and back: a run of a fleet leaves what a robot leaves."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path

from twinloop.bags.episodes import episode as read_episode
from twinloop.bags.episodes import episodes
from twinloop.bags.errors import BagError
from twinloop.bags.metadata import METADATA_FILE, EpisodeMetadata
from twinloop.bags.read import complete_bags
from twinloop.bags.rollouts import write_rollout
from twinloop.contract import Contract
from twinloop.learning.episode import Episode
from twinloop.learning.rollout import EpisodeRecord, episode_id
from twinloop.reporting import machine

_INDEX_RANGE = 1_000_000


class EpisodeBags:
    """A folder with one bag an episode, found by source and seed.

    Args:
        folder: made with the first episode.
        contract: of the task.
        engine: what the robot is, such as `mujoco`.
    """

    def __init__(self, folder: Path, contract: Contract, engine: str = "mujoco") -> None:
        self.folder = folder
        self._contract = contract
        self._engine = engine

    def find(self, source: str, seed: int) -> Episode | None:
        """Return an episode whose bag is there whole; what is not is removed."""
        path = self._path(episode_id(source, seed), seed)
        if not path.is_dir():
            return None
        try:
            return read_episode(path, self._contract)
        except BagError:
            # Its writer was killed, or the disk lost a part of it: the episode is run again.
            shutil.rmtree(path)
            return None

    def add(self, record: EpisodeRecord) -> Episode:
        """Write an episode that has ended, and return it."""
        meta = record.episode.meta
        index = int(meta["seed"]) % _INDEX_RANGE
        write_record(record, self._contract, self.folder, index, self._engine, str(meta["model"]))
        return record.episode

    def _path(self, name: str, seed: int) -> Path:
        return bag_path(self.folder, seed % _INDEX_RANGE, name)


def bag_path(folder: Path, index: int, name: str) -> Path:
    """Return where the bag of an episode lies."""
    return folder / f"episode_{index:06d}_{name}"


def write_record(
    record: EpisodeRecord,
    contract: Contract,
    folder: Path,
    index: int,
    engine: str,
    model_version: str,
    plan_ms: Sequence[float] = (),
) -> Path:
    """Write an in-process episode as a bag; one that is there already whole is left as it is."""
    meta = record.episode.meta
    path = bag_path(folder, index, str(meta["episode_id"]))
    if (path / METADATA_FILE).is_file():
        return path
    about = EpisodeMetadata(
        episode_id=str(meta["episode_id"]),
        index=index,
        task=contract.name,
        goal=str(meta["goal"]),
        places=tuple(meta.get("places", ())),
        robot=contract.robot,
        source=engine,
        seed=int(meta["seed"]),
        model_version=model_version,
        versions=machine.versions(),
        dropped=record.stop_reason == "dropped",
        rotation_deg=record.rotation_deg,
        stop_reason=record.stop_reason,
    )
    shutil.rmtree(path, ignore_errors=True)
    return write_rollout(path, record.episode, contract, about, plan_ms=plan_ms)


def read_bags(folders: Sequence[Path], contract: Contract) -> list[Episode]:
    """Return the episodes of all complete bags in some folders, in the order of their seeds.

    Raises:
        BagError: a bag is damaged, or of another contract.
    """
    paths = [path for folder in folders for path in complete_bags(folder)]
    found = [one for path in paths for one in episodes(path, contract)]
    return sorted(found, key=lambda one: (int(one.meta["seed"]), str(one.meta["episode_id"])))
