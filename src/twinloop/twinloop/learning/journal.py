# SPDX-License-Identifier: Apache-2.0
"""What a learner remembers between jobs: which bags it has seen, and what became of each.

    <folder>/journal.json               one entry for every bag, replaced in one step
    <folder>/episodes/<key>.safetensors  arrays of the bags that could be read

The arrays are a cache: where one is missing or broken its bag is read again.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Literal

import safetensors
import safetensors.numpy
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from twinloop.bags.metadata import METADATA_FILE
from twinloop.bags.read import complete_bags
from twinloop.learning.episode import Episode
from twinloop.learning.files import replace_file

Outcome = Literal["reading", "training", "held_out", "refused"]
# A bag in whose reading the process died this often is not tried again.
MOST_ATTEMPTS = 2


class Entry(BaseModel):
    """One bag."""

    model_config = ConfigDict(extra="forbid")

    modified_ns: int
    """Of its metadata; a bag that was repaired since is read again."""
    outcome: Outcome
    is_replay: bool = False
    """From a folder that is mixed in, not waited for."""
    episode_id: str = ""
    transitions: int = Field(default=0, ge=0)
    attempts: int = Field(default=0, ge=0)
    was_used: bool = False
    """A candidate was trained, and judged, with what was known of this bag."""
    reason: str = ""


class _Content(BaseModel):
    model_config = ConfigDict(extra="forbid")

    format: Literal["twinloop-journal/1"] = "twinloop-journal/1"
    bags: dict[str, Entry] = Field(default_factory=dict)


class Journal:
    """The entries by bag path, and the arrays of those that were read."""

    def __init__(self, folder: Path | str) -> None:
        self.folder = Path(folder)
        self.entries: dict[str, Entry] = {}

    def load(self) -> str | None:
        """Read the entries from disk; return what was wrong with them, None where nothing was.

        A journal that cannot be read counts as empty: all that is in it can be had from the bags.
        """
        path = self.folder / "journal.json"
        try:
            self.entries = _Content.model_validate_json(path.read_bytes()).bags
        except FileNotFoundError:
            self.entries = {}
        except (ValidationError, OSError) as error:
            self.entries = {}
            return f"{path}: is not a journal, begins anew: {str(error).splitlines()[0]}"
        return None

    def save(self) -> None:
        """Write the entries; raises OSError where the disk refuses."""
        self.folder.mkdir(parents=True, exist_ok=True)
        content = _Content(bags=self.entries)
        replace_file(self.folder / "journal.json", content.model_dump_json(indent=1).encode())

    def pending(self, folder: Path | str) -> list[Path]:
        """Return the complete bags of a folder that were not read yet, or were mended since."""
        return [bag for bag in complete_bags(folder) if self._is_pending(bag)]

    def _is_pending(self, bag: Path) -> bool:
        entry = self.entries.get(str(bag.absolute()))
        if entry is None or entry.modified_ns != modified_ns(bag):
            return True
        return entry.outcome == "reading" and entry.attempts < MOST_ATTEMPTS

    def unused(self) -> int:
        """Return how many episodes arrived since the last candidate."""
        return sum(
            not entry.was_used and not entry.is_replay and entry.outcome in ("training", "held_out")
            for entry in self.entries.values()
        )

    def side(self, outcome: Outcome) -> dict[str, Entry]:
        """Return the entries of one outcome, by bag path."""
        return {path: entry for path, entry in self.entries.items() if entry.outcome == outcome}

    def keep(self, bag: str, runs: Sequence[Episode]) -> None:
        """Store the arrays of a bag; raises OSError where the disk refuses."""
        arrays, about = {}, []
        for index, run in enumerate(runs):
            arrays[f"{index}.observations"] = run.observations
            arrays[f"{index}.actions"] = run.actions
            about.append(run.meta)
        data = safetensors.numpy.save(arrays, {"meta": json.dumps(about, default=str)})
        path = self._array_path(bag)
        path.parent.mkdir(parents=True, exist_ok=True)
        replace_file(path, data)

    def episodes(self, bag: str, read: Callable[[Path], list[Episode]]) -> list[Episode]:
        """Return the unbroken runs of a bag: from the cache, or else by `read`."""
        try:
            return _read_arrays(self._array_path(bag))
        except (OSError, ValueError, KeyError, TypeError, safetensors.SafetensorError):
            runs = read(Path(bag))
            self.keep(bag, runs)
            return runs

    def _array_path(self, bag: str) -> Path:
        key = hashlib.sha256(bag.encode()).hexdigest()[:24]
        return self.folder / "episodes" / f"{key}.safetensors"


def modified_ns(bag: Path) -> int:
    """Return when a bag's metadata was last written, 0 where it is gone."""
    try:
        return os.stat(bag / METADATA_FILE).st_mtime_ns
    except OSError:
        return 0


def _read_arrays(path: Path) -> list[Episode]:
    with safetensors.safe_open(path, framework="numpy") as file:
        about = json.loads(file.metadata()["meta"])
        return [
            Episode(
                file.get_tensor(f"{index}.observations"), file.get_tensor(f"{index}.actions"), meta
            )
            for index, meta in enumerate(about)
        ]
