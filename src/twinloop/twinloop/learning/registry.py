# SPDX-License-Identifier: Apache-2.0
"""The registry: every version of a task's model, and a pointer to the one that runs.

    <root>/<task>/v0001/{model.json, weights.safetensors}
    <root>/<task>/current            name of the running version, replaced in one step
    <root>/<task>/promotions.jsonl   every change of the pointer, oldest first

Writers, of which there may be several processes, take a file lock; readers need none, because a
version appears whole and its weights never change.
"""

from __future__ import annotations

import fcntl
import json
import os
import re
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path

from twinloop.contract import Contract
from twinloop.learning.files import replace_file, sync_folder
from twinloop.learning.gate import Decision
from twinloop.learning.model_file import (
    WEIGHTS,
    Candidate,
    LoadedModel,
    Manifest,
    load_model,
    read_manifest,
    rewrite_manifest,
    write_model,
)
from twinloop.models import ModelInvalid

_VERSION = re.compile(r"v\d{4,9}")
_ADDING = ".adding-"
_CURRENT = "current"
_PROMOTIONS = "promotions.jsonl"


class RegistryError(RuntimeError):
    """The registry cannot do what was asked; the message says what is in the way."""


@dataclass(frozen=True)
class Promotion:
    """One change of the pointer."""

    version: str
    reason: str
    at: str
    is_rollback: bool = False


class Registry:
    """All versions of one contract's task under a root folder."""

    def __init__(self, root: Path | str, contract: Contract) -> None:
        self.contract = contract
        self.folder = Path(root).expanduser().absolute() / contract.name

    def versions(self) -> list[str]:
        """Return the names of all versions, oldest first."""
        if not self.folder.is_dir():
            return []
        names = [p.name for p in self.folder.iterdir() if _VERSION.fullmatch(p.name)]
        return sorted(names, key=lambda name: int(name[1:]))

    def path(self, version: str) -> Path:
        """Return the folder of a version.

        Raises:
            RegistryError: there is none of that name.
        """
        if not _VERSION.fullmatch(version) or not (self.folder / version).is_dir():
            raise RegistryError(f"{self.folder}: no version {version!r}; has {self.versions()}")
        return self.folder / version

    def manifest(self, version: str) -> Manifest:
        """Return what is known of a version; raises RegistryError or ModelInvalid."""
        return read_manifest(self.path(version))

    def entries(self) -> list[tuple[str, Manifest | ModelInvalid]]:
        """Return every version with what is known of it, or why that cannot be read."""
        result: list[tuple[str, Manifest | ModelInvalid]] = []
        for version in self.versions():
            try:
                result.append((version, self.manifest(version)))
            except ModelInvalid as error:
                result.append((version, error))
        return result

    def load(self, version: str) -> LoadedModel:
        """Load a version after checking all of it; raises RegistryError or ModelInvalid."""
        return load_model(self.path(version), self.contract)

    def current(self) -> str | None:
        """Return the running version, None where none was promoted yet.

        Raises:
            RegistryError: the pointer does not name a version that exists.
        """
        pointer = self.folder / _CURRENT
        try:
            with pointer.open("rb") as file:
                name = file.read(64).decode("ascii", "replace").strip()
        except FileNotFoundError:
            return None
        if not _VERSION.fullmatch(name) or not (self.folder / name).is_dir():
            raise RegistryError(
                f"{pointer}: is {name!r}, expected one of {self.versions()}; "
                "'twinloop models promote' sets it"
            )
        return name

    def load_running(self) -> LoadedModel | None:
        """Load the running model, or the newest that ran before it and can be loaded.

        Returns:
            None where nothing was promoted yet.

        Raises:
            RegistryError: none of them can be loaded; the message says why of each.
        """
        names, refused = self._before(None), ""
        with suppress(RegistryError):
            names.append(self.current() or "")
        for version in dict.fromkeys(name for name in reversed(names) if name):
            try:
                return self.load(version)
            except (ModelInvalid, RegistryError) as error:
                refused += f"; {error}"
        if refused:
            raise RegistryError(f"{self.folder}: no model that ran can be loaded{refused}")
        return None

    def former(self) -> LoadedModel | None:
        """Load what `rollback` would go back to, None where there is nothing."""
        try:
            names = self._before(self.current())
        except RegistryError:
            return None
        for version in reversed(names):
            with suppress(ModelInvalid, RegistryError):
                return self.load(version)
        return None

    def add(self, candidate: Candidate) -> str:
        """Store a candidate and return its version. A crash leaves nothing half.

        Raises:
            ModelInvalid: its tensors are not finite or do not fit its config.
            RegistryError: it is of another contract, or the disk refused.
        """
        if candidate.contract.hash() != self.contract.hash():
            raise RegistryError(
                f"{self.folder}: a candidate of contract {candidate.contract.hash()}, "
                f"expected {self.contract.hash()}"
            )
        with self._writing():
            temporary = Path(tempfile.mkdtemp(prefix=_ADDING, dir=self.folder))
            try:
                temporary.chmod(0o755)
                write_model(temporary, candidate)
                sync_folder(temporary)
                versions = self.versions()
                version = f"v{int(versions[-1][1:]) + 1 if versions else 1:04d}"
                temporary.rename(self.folder / version)
                sync_folder(self.folder)
            except OSError as error:
                raise RegistryError(f"{self.folder}: cannot add a model: {error}") from error
            finally:
                shutil.rmtree(temporary, ignore_errors=True)
        return version

    def promote(self, version: str, reason: str = "by hand") -> None:
        """Let the pointer name a version, after loading it once.

        Raises:
            RegistryError: there is no such version, or the disk refused.
            ModelInvalid: it cannot be used; the pointer stays.
        """
        self.load(version)
        with self._writing():
            self._point_to(version, reason)

    def decide(self, version: str, decision: Decision) -> None:
        """Keep the gate's decision with the version, and promote the version if so decided."""
        if decision.verdict == "promoted":
            self.load(version)
        with self._writing():
            manifest = self.manifest(version).model_copy(
                update={"decision": decision, "status": decision.verdict}
            )
            try:
                rewrite_manifest(self.path(version), manifest)
            except OSError as error:
                raise RegistryError(f"{self.path(version)}: cannot be written: {error}") from error
            if decision.verdict == "promoted":
                self._point_to(version, decision.reason)

    def promotions(self) -> list[Promotion]:
        """Return every change of the pointer, oldest first."""
        try:
            lines = (self.folder / _PROMOTIONS).read_text("utf-8", "replace").splitlines()
        except FileNotFoundError:
            return []
        result = []
        for line in lines:
            try:
                result.append(Promotion(**json.loads(line)))
            except (ValueError, TypeError):
                continue  # the last line, cut short by a crash; the pointer itself is right
        return result

    def rollback(self) -> str:
        """Let the pointer name what it named before, and return that version.

        Raises:
            RegistryError: nothing else was promoted before, or none of that can be used any more.
        """
        current = self.current()
        refused = ""
        for version in reversed(self._before(current)):
            try:
                self.load(version)
            except (ModelInvalid, RegistryError) as error:
                refused += f"; {error}"
                continue
            with self._writing():
                self._point_to(version, f"rolled back from {current}", is_rollback=True)
            return version
        raise RegistryError(f"{self.folder}: nothing to roll back to from {current}{refused}")

    def seed_from(self, path: Path | str) -> str:
        """Copy a model folder, such as the one that is shipped, into the registry.

        It is promoted where nothing runs yet. Seeding the same weights again changes nothing.

        Returns:
            its version here.

        Raises:
            ModelInvalid: the model cannot be used.
        """
        loaded = load_model(path, self.contract)
        digest = loaded.manifest.weights.sha256
        version = next(
            (
                name
                for name, known in self.entries()
                if isinstance(known, Manifest) and known.weights.sha256 == digest
            ),
            None,
        )
        if version is None:
            about = loaded.manifest
            version = self.add(
                Candidate(loaded.model, self.contract, about.lineage, dict(about.metrics), "seed")
            )
        if self.current() is None:
            self.promote(version, f"seeded from {path}")
        return version

    def recover(self) -> list[str]:
        """Finish what a crash interrupted: promotions that were decided but not carried out.

        Returns:
            the versions that have no decision yet, oldest first.
        """
        with self._writing():
            promoted = {promotion.version for promotion in self.promotions()}
            current = self.current()
            undecided = []
            for version, known in self.entries():
                if isinstance(known, ModelInvalid) or version == current or version in promoted:
                    continue
                if known.status == "candidate":
                    undecided.append(version)
                elif known.status == "promoted" and known.decision:
                    with suppress(ModelInvalid):
                        self.load(version)
                        self._point_to(version, known.decision.reason)
        return undecided

    def prune(self, keep_rejected: int) -> list[str]:
        """Delete the weights of all but the newest rejected versions; their records stay.

        Returns:
            the versions that lost their weights.
        """
        if keep_rejected < 0:
            raise ValueError(f"keep_rejected is {keep_rejected}, expected at least 0")
        pruned = []
        with self._writing():
            current = self.current()
            rejected = [
                version
                for version, known in self.entries()
                if isinstance(known, Manifest)
                and known.status == "rejected"
                and version != current
                and (self.folder / version / WEIGHTS).exists()
            ]
            for version in rejected[: max(len(rejected) - keep_rejected, 0)]:
                (self.folder / version / WEIGHTS).unlink(missing_ok=True)
                pruned.append(version)
        return pruned

    def _before(self, current: str | None) -> list[str]:
        """Return what ran before the current version and was not rolled back, oldest first."""
        ran: list[str] = []
        for promotion in self.promotions():
            if promotion.is_rollback:
                while ran and ran[-1] != promotion.version:
                    ran.pop()
            if not ran or ran[-1] != promotion.version:
                ran.append(promotion.version)
        return ran[:-1] if ran and ran[-1] == current else ran

    def _point_to(self, version: str, reason: str, is_rollback: bool = False) -> None:
        try:
            known = self.promotions()
            with suppress(RegistryError):
                running = self.current()
                if running is not None and (not known or known[-1].version != running):
                    self._log(running, "found running")  # its writer died before this line
            replace_file(self.folder / _CURRENT, f"{version}\n".encode())
            self._log(version, reason, is_rollback)
        except OSError as error:
            raise RegistryError(f"{self.folder}: cannot promote {version}: {error}") from error

    def _log(self, version: str, reason: str, is_rollback: bool = False) -> None:
        at = datetime.now(UTC).isoformat(timespec="seconds")
        line = json.dumps(asdict(Promotion(version, reason, at, is_rollback))) + "\n"
        with (self.folder / _PROMOTIONS).open("ab+") as file:
            size = file.seek(0, os.SEEK_END)
            file.seek(max(size - 1, 0))
            if size and file.read(1) != b"\n":
                line = "\n" + line  # after a line that a crash has cut short
            file.write(line.encode())
            file.flush()
            os.fsync(file.fileno())

    @contextmanager
    def _writing(self) -> Iterator[None]:
        """Hold the writers' lock, and clear away what a writer that died has left."""
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            lock = (self.folder / ".lock").open("w")
        except OSError as error:
            raise RegistryError(f"{self.folder}: cannot be written: {error}") from error
        with lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            for stale in self.folder.glob(f"{_ADDING}*"):
                shutil.rmtree(stale, ignore_errors=True)
            yield
