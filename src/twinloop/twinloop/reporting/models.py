# SPDX-License-Identifier: Apache-2.0
"""What became of the models of a run, and how well each of them predicts the run's episodes."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from twinloop.bags.episodes import episodes
from twinloop.bags.errors import BagError
from twinloop.contract import Contract
from twinloop.learning.episode import Episode
from twinloop.learning.gate import CHANNEL, NotEnoughHeldOut, score
from twinloop.learning.model_file import LoadedModel, Manifest, load_model
from twinloop.learning.registry import Registry, RegistryError
from twinloop.models import ModelInvalid
from twinloop.reporting.episodes import EpisodeFigures


@dataclass(frozen=True)
class ModelError:
    """How far predicted balls are from observed ones, by open-loop steps [mm]."""

    version: str
    status: str
    """`promoted`, `rejected`, `candidate`, or `seed` for what the run began with."""
    one_step_mm: float
    seven_step_mm: float


@dataclass(frozen=True)
class Models:
    """The models of a run."""

    promotions: int = 0
    rejections: int = 0
    errors: tuple[ModelError, ...] = ()
    scored_on: str = ""
    """Which episodes the errors are of, in words; why there are none where there are none."""


def of_registry(registry: Registry, figures: Sequence[EpisodeFigures]) -> Models:
    """Score every version of a registry on the run's episodes.

    On those that its learner held out, where there are enough of them: so no version was trained
    on what it is scored on. Otherwise on all, which flatters the versions trained on some.
    """
    manifests = {
        version: known for version, known in registry.entries() if isinstance(known, Manifest)
    }
    decided = [known.decision.verdict for known in manifests.values() if known.decision is not None]
    held_out = {
        name
        for known in manifests.values()
        if known.decision is not None
        for name in known.decision.held_out
    }
    loaded = []
    for version in manifests:
        try:
            loaded.append(registry.load(version))
        except (ModelInvalid, RegistryError):
            continue  # its weights were pruned, or it was refused for what it is
    chosen = [one for one in figures if one.id in held_out]
    errors, note = _errors(loaded, chosen, registry.contract)
    scored_on = f"{len(chosen)} held-out episode{'s' if len(chosen) > 1 else ''}"
    if not errors:
        errors, note = _errors(loaded, figures, registry.contract)
        flattery = ", those trained on included" if decided else ""
        scored_on = f"all {len(figures)} episodes{flattery}"
    return Models(
        promotions=decided.count("promoted"),
        rejections=decided.count("rejected"),
        errors=errors,
        scored_on=scored_on if errors else note,
    )


def of_model(path: Path | str, figures: Sequence[EpisodeFigures], contract: Contract) -> Models:
    """Score one model on all episodes of a run that did not train."""
    try:
        loaded = load_model(path, contract)
    except ModelInvalid as error:
        return Models(scored_on=str(error))
    errors, note = _errors([loaded], figures, contract)
    return Models(errors=errors, scored_on=f"all {len(figures)} episodes" if errors else note)


def _errors(
    models: Iterable[LoadedModel], figures: Sequence[EpisodeFigures], contract: Contract
) -> tuple[tuple[ModelError, ...], str]:
    """Return the errors, or none and why."""
    if CHANNEL not in contract.slices:
        return (), f"prediction errors are of balls, which task {contract.name} has none of"
    data = _data(figures, contract)
    found = []
    for one in models:
        try:
            result = score(one.model, data, contract)
        except NotEnoughHeldOut as error:
            return (), str(error)
        if result.one_step_mm is not None and result.seven_step_mm is not None:
            found.append(
                ModelError(
                    one.version, one.manifest.status, result.one_step_mm, result.seven_step_mm
                )
            )
    return tuple(found), "" if found else "no model can be scored"


def _data(figures: Sequence[EpisodeFigures], contract: Contract) -> list[Episode]:
    data = []
    for path in (path for one in figures for path in one.bags):
        try:
            data += episodes(path, contract)
        except BagError:
            continue  # the report lists it as unreadable, or it is too short to predict anything
    return data
