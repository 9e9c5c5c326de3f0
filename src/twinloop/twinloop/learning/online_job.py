# SPDX-License-Identifier: Apache-2.0
"""One job of the online learner: read new bags, train a candidate, gate it, and keep the result.

Everything a job knows is on disk, and is written in an order that lets the next job go on after a
crash at any point: bag entries, then the candidate, then its decision, then the pointer.
"""

from __future__ import annotations

import fcntl
import importlib
import math
import random
import resource
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal

import torch
from pydantic import BaseModel, ConfigDict, Field

from twinloop import contract as contracts
from twinloop import tasks
from twinloop.bags.episodes import episodes as read_bag
from twinloop.bags.errors import BagError
from twinloop.contract import Contract
from twinloop.learning.episode import Episode
from twinloop.learning.fit import FitConfig, FitDiverged, fit
from twinloop.learning.gate import HORIZON, Decision, GateConfig, NotEnoughHeldOut, judge
from twinloop.learning.journal import MOST_ATTEMPTS, Entry, Journal, modified_ns
from twinloop.learning.linear_gate import judge_policy
from twinloop.learning.linear_learner import PLANNER as SEARCHER
from twinloop.learning.linear_learner import TooFewRollouts, next_model, on_policy
from twinloop.learning.model_file import Candidate, Lineage, LoadedModel, Manifest
from twinloop.learning.off_policy import OffPolicySettings
from twinloop.learning.online_policy import PLANNER as POLICY
from twinloop.learning.online_policy import PolicyLearning
from twinloop.learning.policy_search import SearchSettings
from twinloop.learning.registry import Registry, RegistryError
from twinloop.learning.replay import split
from twinloop.models import Ensemble, ModelInvalid
from twinloop.models.actor import Actor
from twinloop.models.ensemble import EnsembleConfig
from twinloop.models.linear_latent import LinearLatent

Report = Callable[..., None]  # report(kind, message, **values)


class LearnerConfig(BaseModel):
    """How an online learner works; JSON-able, since a job runs in another process."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    task: str
    goal: str = ""  # for which a policy is learned; the task's first one where it is empty
    planner: str = "mppi"  # what plans; lqr_flm and policy have candidates of their own kinds
    record_dir: str
    registry: str
    replay_dirs: tuple[str, ...] = ()  # folders of bags that are mixed into the training data
    episodes_per_candidate: int = Field(default=2, ge=1)
    train_seconds: float = Field(default=30.0, gt=0.0)  # wall-clock time of one fit at most
    train_updates: int = Field(default=1500, ge=1)  # of the weights, at most
    batch: int = Field(default=256, ge=1)  # windows, for each member
    learning_rate: float = Field(default=3e-4, gt=0.0)
    loss_steps: int = Field(default=4, ge=1)
    replay_transitions: int = Field(default=20_000, ge=0)  # of older episodes, in each fit
    pilot_weight: float = Field(default=1.0, ge=0.0, le=100.0)  # of steps with a person
    held_out_share: float = Field(default=0.25, gt=0.0, lt=1.0)
    keep_rejected: int = Field(default=5, ge=0)
    seed: int = 0
    threads: int = Field(default=1, ge=1)
    priority: Literal["idle", "low", "normal"] = "idle"
    gate: GateConfig = GateConfig()
    search: SearchSettings = SearchSettings()  # of lqr_flm
    learning: OffPolicySettings | None = None  # of policy; None: those of config/training
    updates_per_transition: float = Field(default=0.0, ge=0.0)  # in their place; 0: as they are
    first_transitions: int = Field(default=0, ge=0)  # likewise

    @property
    def journal_folder(self) -> Path:
        return Path(self.registry).expanduser().absolute() / self.task / "learner"


class LearnerBusy(RuntimeError):
    """Another process learns for this registry already."""


def run_job(config: LearnerConfig, report: Report) -> None:
    """Do what there is to do for the bags on disk.

    Raises:
        LearnerBusy: another job runs on this registry.
        RegistryError, OSError: the disk refuses.
    """
    torch.set_num_threads(config.threads)
    contract = contracts.load(config.task)
    with _only_job(config.journal_folder):
        job = _Job(config, contract, report)
        job.finish_undecided()
        job.read_new_bags()
        job.train_if_due()


class _Job:
    def __init__(self, config: LearnerConfig, contract: Contract, report: Report) -> None:
        self._config = config
        self._contract = contract
        self._report = report
        self._registry = Registry(config.registry, contract)
        self._journal = Journal(config.journal_folder)
        problem = self._journal.load()
        if problem:
            report("journal", problem)

    def finish_undecided(self) -> None:
        """Gate the candidates that a job which died has left."""
        for version in self._registry.recover():
            try:
                loaded = self._registry.load(version)
                if isinstance(loaded.model, Actor):
                    self._gate_policy(loaded)
                else:
                    self._gate(loaded, self._held_out())
            except (ModelInvalid, NotEnoughHeldOut) as error:
                self._report("undecided", f"{version} stays without a decision: {error}")

    def read_new_bags(self) -> None:
        """Take every complete bag that is new into the journal, or note why it is refused."""
        trained_on = self._trained_on()
        folders = [(folder, True) for folder in self._config.replay_dirs]
        for folder, is_replay in [*folders, (self._config.record_dir, False)]:
            for bag in self._journal.pending(folder):
                self._read(bag, is_replay, trained_on)
        for path, entry in self._journal.side("reading").items():
            if entry.attempts >= MOST_ATTEMPTS:
                entry.outcome = "refused"
                entry.reason = f"the reader died on it {entry.attempts} times"
                self._journal.save()
                self._report("bag_refused", f"{path}: {entry.reason}", bag=path)

    def train_if_due(self) -> None:
        """Train and gate a candidate if enough episodes have arrived."""
        unused = self._journal.unused()
        if unused < self._config.episodes_per_candidate:
            due = self._config.episodes_per_candidate
            self._report("waiting", f"{unused} new episodes, a candidate is due at {due}")
            return
        if self._config.planner == POLICY:
            # Nothing is kept from a policy: it is judged by what its own episodes earn.
            self._policy.learn(self._running(), self._all_episodes())
        elif not self._learn_model():
            return
        for entry in self._journal.entries.values():
            entry.was_used = entry.outcome in ("training", "held_out")
        self._journal.save()

    def _learn_model(self) -> bool:
        """Train and gate a model to plan with; returns False where there is too little for it."""
        running = self._running()
        if running is not None and isinstance(running.model, Actor):
            self._report(
                "waiting",
                f"{running.version} is a policy, which predicts nothing; models to plan with need "
                "a registry of their own",
            )
            return False
        self._fill_sides()
        held_out = self._held_out()
        training = self._training()
        if not training or _windows(held_out) < self._config.gate.total_windows:
            self._report(
                "waiting",
                f"{len(training)} episodes to train on and {_windows(held_out)} held-out windows, "
                f"expected at least 1 and {self._config.gate.total_windows}",
            )
            return False
        if self._searches:
            held_out = on_policy(held_out, self._version_of_policy())
            if _windows(held_out) < self._config.gate.total_windows:
                self._report("waiting", "the running policy has too few held-out episodes")
                return False
        try:
            train = self._search if self._searches else self._train
            candidate = train(training, held_out)
        except TooFewRollouts as error:
            self._report("waiting", str(error))
            return False
        if candidate is not None:
            version = self._registry.add(candidate)
            self._report("candidate", f"{version} is trained", version=version)
            self._gate(self._registry.load(version), held_out)
            self._registry.prune(self._config.keep_rejected)
        return True

    def _read(self, bag: Path, is_replay: bool, trained_on: set[str]) -> None:
        path = str(bag.absolute())
        former = self._journal.entries.get(path)
        stamp = modified_ns(bag)
        attempts = former.attempts if former and former.modified_ns == stamp else 0
        entry = Entry(
            modified_ns=stamp, outcome="reading", is_replay=is_replay, attempts=attempts + 1
        )
        self._journal.entries[path] = entry
        # On disk before the bag is opened, so that one that kills its reader is found out.
        self._journal.save()
        try:
            runs = read_bag(bag, self._contract)
        except (BagError, ValueError, OSError) as error:
            entry.outcome, entry.reason = "refused", str(error)
            self._report("bag_refused", str(error), bag=path)
        else:
            self._journal.keep(path, runs)
            entry.episode_id = str(runs[0].meta.get("episode_id", bag.name))
            entry.transitions = sum(map(len, runs))
            is_held_out = bool(split(runs[:1], self._config.held_out_share)[1])
            if entry.episode_id in trained_on:
                is_held_out = False
            entry.outcome = "held_out" if is_held_out else "training"
            self._report(
                "bag_read",
                f"{bag.name}: {entry.transitions} transitions, {entry.outcome.replace('_', ' ')}",
                bag=path,
                transitions=entry.transitions,
            )
        self._journal.save()

    def _fill_sides(self) -> None:
        """Move episodes that nothing was trained on or judged by, where a side has too few.

        Which ones follows from their ids alone, as the split does.
        """
        trained_on = self._trained_on()
        free = [e for e in self._journal.entries.values() if not e.was_used]
        free.sort(key=lambda entry: entry.episode_id)
        held_out = [entry for entry in free if entry.outcome == "held_out"]
        if not self._journal.side("training") and len(held_out) > 1:
            held_out.pop().outcome = "training"
        training = [
            entry
            for entry in free
            if entry.outcome == "training" and entry.episode_id not in trained_on
        ]
        needed = self._config.gate.total_windows
        while len(training) > 1 and _windows(self._held_out()) < needed:
            training.pop().outcome = "held_out"
        self._journal.save()

    def _train(self, training: list[Episode], held_out: list[Episode]) -> Candidate | None:
        """Return a candidate, None where training diverged."""
        config = self._config
        running = self._running()
        seed = config.seed + len(self._registry.versions())
        model = self._new_model(seed) if running is None else running.model
        transitions = sum(map(len, training))
        self._report(
            "training",
            f"on {len(training)} runs with {transitions} transitions, from "
            f"{running.version if running else 'scratch'}",
            transitions=transitions,
        )
        started, cpu = time.monotonic(), time.process_time()
        windows = sum(max(len(e) - config.loss_steps + 1, 0) for e in training)
        fit_config = FitConfig(
            steps=config.loss_steps,
            batch=config.batch,
            epochs=math.ceil(config.train_updates / max(math.ceil(windows / config.batch), 1)),
            time_limit_s=config.train_seconds,
            learning_rate=config.learning_rate,
            pilot_weight=config.pilot_weight,
        )
        try:
            result = fit(
                model,
                training,
                fit_config,
                seed,
                warm_start=running is not None,
                progress=lambda epoch, loss: self._report(
                    "progress", f"epoch {epoch + 1}, loss {loss:.4f}", epoch=epoch, loss=loss
                ),
            )
        except (FitDiverged, ValueError) as error:
            self._report("diverged", str(error))
            return None
        lineage = self._lineage(running, training, held_out, seed)
        losses = result.training_loss
        metrics = {
            "loss_first": losses[0] if losses else None,
            "loss_last": losses[-1] if losses else None,
            "epochs": float(result.epochs),
            "updates": float(result.updates),
            "skipped": float(result.skipped),
            "train_seconds": time.monotonic() - started,
            "train_cpu_seconds": time.process_time() - cpu,
            "peak_memory_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
        }
        return Candidate(model, self._contract, lineage, metrics)

    def _search(self, training: list[Episode], held_out: list[Episode]) -> Candidate | None:
        """Return LQR-FLM's next model, None where none could be found.

        Raises:
            TooFewRollouts: the running policy has made too few episodes yet.
        """
        running = self._running()
        seed = self._config.seed + len(self._registry.versions())
        started, cpu = time.monotonic(), time.process_time()
        try:
            found = next_model(
                tasks.make(self._config.task),
                running.model if running else None,
                running.version if running else None,
                training,
                self._config.search,
                seed,
            )
        except TooFewRollouts:
            raise
        except ValueError as error:
            self._report("diverged", str(error))
            return None
        spent: dict[str, float | None] = {
            "train_seconds": time.monotonic() - started,
            "train_cpu_seconds": time.process_time() - cpu,
        }
        lineage = self._lineage(running, training, held_out, seed)
        return Candidate(found.model, self._contract, lineage, found.metrics | spent)

    @property
    def _searches(self) -> bool:
        return self._config.planner == SEARCHER

    def _version_of_policy(self) -> str | None:
        """Return the running version where it has a policy."""
        running = self._running()
        has_policy = running is not None and isinstance(running.model, LinearLatent)
        return running.version if running is not None and has_policy else None

    def _lineage(
        self,
        running: LoadedModel | None,
        training: list[Episode],
        held_out: list[Episode],
        seed: int,
    ) -> Lineage:
        parent = running.manifest.lineage if running else Lineage()
        fresh = [e for e in self._journal.side("training").values() if not e.was_used]
        return Lineage(
            parent=running.version if running else None,
            episodes=tuple(dict.fromkeys(str(e.meta.get("episode_id", "")) for e in training)),
            held_out=tuple(dict.fromkeys(str(e.meta.get("episode_id", "")) for e in held_out)),
            transitions=sum(map(len, training)),
            total_episodes=len(fresh) + (parent.total_episodes or len(parent.episodes)),
            total_transitions=sum(e.transitions for e in fresh)
            + (parent.total_transitions or parent.transitions),
            seed=seed,
            command="online learner",
        )

    def _gate(self, candidate: LoadedModel, held_out: list[Episode]) -> None:
        running = self._running()
        decision: Decision
        if isinstance(candidate.model, LinearLatent):
            former = running.model if running else None
            decision = judge_policy(
                candidate.model,
                # A model of another kind has no policy: the candidate is the first of its kind.
                former if isinstance(former, LinearLatent) else None,
                running.version if running else None,
                held_out,
                self._contract,
                self._config.gate,
            )
        else:
            decision = judge(
                candidate.model,
                running.model if running else None,
                running.version if running else None,
                held_out,
                self._contract,
                self._config.gate,
            )
        self._registry.decide(candidate.version, decision)
        self._report(
            decision.verdict, f"{candidate.version}: {decision.reason}", version=candidate.version
        )

    def _gate_policy(self, candidate: LoadedModel) -> None:
        episodes = self._all_episodes() if self._config.planner == POLICY else []
        if not episodes:
            self._report("undecided", f"{candidate.version} stays undecided: no policy is learned")
            return
        self._policy.gate(candidate, self._running(), episodes)

    def _running(self) -> LoadedModel | None:
        """Load the running model, or what ran before where its files are broken by now."""
        try:
            return self._registry.load_running()
        except RegistryError as error:
            self._report("running_invalid", str(error))
            return None

    def _new_model(self, seed: int) -> Ensemble:
        """Return the task's own model, or a plain ensemble where the task has none."""
        contract = self._contract
        try:
            module = importlib.import_module(f"twinloop.models.{contract.name}")
        except ModuleNotFoundError:
            known = [
                contract.slices[channel.name]
                for channel in contract.observation
                if channel.topic == contract.action.applied_topic
            ]
            config = EnsembleConfig(
                observation_size=contract.observation_size,
                action_size=contract.action_size,
                known=(known[0].start, known[0].stop) if known else None,
            )
            return Ensemble(config, seed)
        model = module.new_model(seed)
        assert isinstance(model, Ensemble)
        return model

    @property
    def _policy(self) -> PolicyLearning:
        return PolicyLearning(self._config, self._registry, self._report)

    def _all_episodes(self) -> list[Episode]:
        """Return every episode that could be read, in the order in which bags were found."""
        known = self._journal.entries.items()
        return self._load({p: e for p, e in known if e.outcome in ("training", "held_out")})

    def _held_out(self) -> list[Episode]:
        return self._load(self._journal.side("held_out"))

    def _training(self) -> list[Episode]:
        """Return all new episodes, and as many of the older ones as the replay may hold."""
        side = self._journal.side("training")
        chosen = {path: entry for path, entry in side.items() if not entry.was_used}
        older = [item for item in side.items() if item[0] not in chosen]
        random.Random(self._config.seed + len(side)).shuffle(older)
        room = self._config.replay_transitions
        for path, entry in older:
            if entry.transitions <= room:
                chosen[path] = entry
                room -= entry.transitions
        return self._load(chosen)

    def _load(self, entries: dict[str, Entry]) -> list[Episode]:
        result = []
        for path, entry in entries.items():
            try:
                result += self._journal.episodes(path, self._read_again)
            except (BagError, ValueError, OSError) as error:
                entry.outcome, entry.reason = "refused", str(error)
                self._report("bag_refused", str(error), bag=path)
        return result

    def _read_again(self, bag: Path) -> list[Episode]:
        return read_bag(bag, self._contract)

    def _trained_on(self) -> set[str]:
        """Return the ids of all episodes that any version was trained on."""
        return {
            episode_id
            for _, known in self._registry.entries()
            if isinstance(known, Manifest)
            for episode_id in known.lineage.episodes
        }


def _windows(episodes: list[Episode]) -> int:
    return sum(max(len(episode) - HORIZON + 1, 0) for episode in episodes)


@contextmanager
def _only_job(folder: Path) -> Iterator[Any]:
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / ".lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise LearnerBusy(f"{folder}: another learner is at work here") from error
        yield lock
