# SPDX-License-Identifier: Apache-2.0
"""Learner node: trains on the bags that appear in a folder, and announces what it judged.

It announces the running model when it is activated, every model that takes its place, also by
`twinloop models promote`, and every candidate that was rejected.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from std_srvs.srv import Trigger

from twinloop import contract as contracts
from twinloop import planners
from twinloop.learning.model_file import Manifest
from twinloop.learning.online import Event, OnlineLearner
from twinloop.learning.online_job import LearnerConfig
from twinloop.learning.online_policy import PLANNER as POLICY
from twinloop.learning.online_policy import require_learnable
from twinloop.learning.registry import Registry, RegistryError
from twinloop.models import ModelInvalid
from twinloop.nodes import qos
from twinloop.nodes.base import OK, WARN, Health, Node, run
from twinloop.nodes.parameters import ParameterSpec
from twinloop.paths import share
from twinloop_interfaces.msg import ModelAnnouncement

SHIPPED = "shipped"
_POLL_PERIOD_S = 0.1
_POINTER_POLLS = 10
_HISTORY = 10
_WARNINGS = (
    "bag_refused",
    "crashed",
    "diverged",
    "running_invalid",
    "state_refused",
    "journal",
    "busy",
)


class Learner(Node):
    """Wires an OnlineLearner to the topic `model`."""

    parameters = (
        ParameterSpec("task", "baoding", "Task, and contract, whose model is learned"),
        ParameterSpec(
            "planner",
            planners.DEFAULT,
            "What plans; lqr_flm and policy learn policies, the others dynamics",
            choices=tuple(planners.available()),
        ),
        ParameterSpec("goal", "", "Goal for which a policy is learned; empty: the task's first"),
        ParameterSpec("record_dir", "runs/baoding/bags", "Folder in which bags appear"),
        ParameterSpec("registry", "runs/baoding/registry", "Folder of the models"),
        ParameterSpec(
            "model",
            SHIPPED,
            "Model to begin with: a folder, which is then promoted, or 'shipped', which is "
            "promoted where the registry has no current one, or 'none'",
        ),
        ParameterSpec("replay_dirs", [], "Folders of bags that are mixed into the training data"),
        ParameterSpec("episodes_per_candidate", 2, "New episodes for each candidate", 1, 10_000),
        ParameterSpec("train_seconds", 30.0, "Longest time of one fit [s]", 0.1, 1e6),
        ParameterSpec("train_updates", 1500, "Most updates of the weights in one fit", 1, 10**9),
        ParameterSpec("learning_rate", 3e-4, "Learning rate at the start of a fit", 1e-9, 10.0),
        ParameterSpec(
            "replay_transitions", 20_000, "Most transitions of older episodes in a fit", 0, 10**9
        ),
        ParameterSpec(
            "pilot_weight", 1.0, "In a fit, of steps that a person had a hand in", 0.0, 100.0
        ),
        ParameterSpec(
            "updates_per_transition",
            0.0,
            "Of a policy: most gradient steps for each transition; 0: as in config/training",
            0.0,
            100.0,
        ),
        ParameterSpec(
            "first_transitions",
            0,
            "Of a policy: transitions before which nothing is learned; 0: as in config/training",
            0,
            10**9,
        ),
        ParameterSpec("held_out_share", 0.25, "Share of episodes kept for the gate", 0.01, 0.9),
        ParameterSpec("keep_rejected", 5, "Rejected models whose weights are kept", 0, 10**6),
        ParameterSpec("seed", 0, "Seed of training", 0, 2**31 - 1),
        ParameterSpec(
            "priority",
            "idle",
            "Of training: processor time that nobody else wants, a small share, or as any process",
            choices=("idle", "low", "normal"),
        ),
        ParameterSpec("job_timeout_s", 900.0, "A training job is ended after [s]", 1.0, 1e6),
    )

    def __init__(self) -> None:
        super().__init__("learner")
        self._learner: OnlineLearner | None = None
        self._registry: Registry | None = None
        self._timer: Any = None
        self._polls = 0
        self._announced: str | None = None
        self._since_promoted = 0
        self._counts = {"promoted": 0, "rejected": 0}
        self._last = "nothing yet"
        self._complaint = ""

    def configure(self) -> None:
        names = (
            "task",
            "goal",
            "planner",
            "updates_per_transition",
            "first_transitions",
            "episodes_per_candidate",
            "train_seconds",
            "train_updates",
            "learning_rate",
            "replay_transitions",
            "pilot_weight",
            "held_out_share",
            "keep_rejected",
            "priority",
            "seed",
        )
        values: dict[str, Any] = {name: self.param(name) for name in names}
        for name in ("record_dir", "registry"):
            values[name] = str(Path(self.param(name)).expanduser().absolute())
        config = LearnerConfig(**values, replay_dirs=tuple(self.param("replay_dirs")))
        if config.planner == POLICY:
            require_learnable(config)
        self._registry = Registry(config.registry, contracts.load(config.task))
        self._begin_with(self._registry, self.param("model"))
        self._learner = OnlineLearner(config, self.param("job_timeout_s"))
        if self._timer is None:
            self._models = self.create_publisher(ModelAnnouncement, "model", qos.latched(_HISTORY))
            self.create_service(Trigger, "roll_back_model", self._on_roll_back)
            # On the steady clock: learning goes on while a twin's time stands still.
            self._timer = self.create_timer(
                _POLL_PERIOD_S, self.guarded(self._poll), clock=self.steady_clock
            )
        self.get_logger().info(
            f"learns {config.task} from bags in {config.record_dir}, "
            f"begins with {self._registry.current() or 'no model'}"
        )

    def activate(self) -> None:
        self._announced = None
        self._announce_current()

    def deactivate(self) -> None:
        self.close()

    def close(self) -> None:
        if self._learner is not None:
            self._learner.stop()

    def health(self) -> Health:
        learner = self._learner
        if learner is None:
            return Health(WARN, "not configured")
        values = {
            "model": self._announced or "",
            "training": str(learner.is_training).lower(),
            "transitions": str(learner.transitions),
            "promotions": str(self._counts["promoted"]),
            "rejections": str(self._counts["rejected"]),
            "refused_bags": str(learner.refused),
            "last": self._last,
        }
        if learner.failures or self._complaint:
            return Health(WARN, self._complaint or self._last, values)
        return Health(OK, "training" if learner.is_training else "waiting for episodes", values)

    def _begin_with(self, registry: Registry, model: str) -> None:
        if model == "none":
            return
        if model == SHIPPED:
            registry.seed_from(_shipped(registry.contract.name))
            return
        version = registry.seed_from(model)
        if registry.current() != version:
            registry.promote(version, f"chosen at start: {model}")

    def _poll(self) -> None:
        if not self.is_active or self._learner is None:
            return
        for event in self._learner.poll():
            self._take(event)
        self._polls += 1
        if self._polls % _POINTER_POLLS == 0:
            self._announce_current()

    def _take(self, event: Event) -> None:
        if event.kind in _WARNINGS:
            self.get_logger().warning(event.message)
        elif event.kind != "progress":
            self.get_logger().info(f"{event.kind.replace('_', ' ')}: {event.message}")
        self._last = event.message
        if event.kind in self._counts:
            self._counts[event.kind] += 1
        if event.kind == "promoted":
            self._announce_current()
        elif event.kind == "rejected":
            self._announce(event.values["version"], ModelAnnouncement.REJECTED, event.message)
            self._since_promoted += 1
            # What late subscribers still get must hold the running model.
            if self._since_promoted >= _HISTORY - 1:
                self._announced = None
                self._announce_current()

    def _on_roll_back(
        self, _request: Trigger.Request, response: Trigger.Response
    ) -> Trigger.Response:
        """Let the model run that ran before, and announce it."""
        assert self._registry is not None
        try:
            version = self._registry.rollback()
        except (RegistryError, ModelInvalid) as error:
            response.message = str(error)
            return response
        response.success, response.message = True, f"{version} runs again"
        self.get_logger().info(f"rolled back: {response.message}")
        self._announce_current()
        return response

    def _announce_current(self) -> None:
        """Announce the running model if it is another one than was announced last."""
        assert self._registry is not None
        try:
            current = self._registry.current()
            self._complaint = ""
        except RegistryError as error:
            if self._complaint != str(error):
                self.get_logger().error(str(error))
            self._complaint = str(error)
            return
        if current is None or current == self._announced:
            return
        self._announced, self._since_promoted = current, 0
        self._announce(current, ModelAnnouncement.PROMOTED, self._why(current))

    def _why(self, current: str) -> str:
        """Return why a version was promoted."""
        assert self._registry is not None
        last = self._registry.promotions()[-1:]
        if last and last[0].version == current:
            return last[0].reason
        # The pointer is set just before its line in the history is written.
        try:
            decision = self._registry.manifest(current).decision
        except (RegistryError, ModelInvalid):
            return ""
        return decision.reason if decision else ""

    def _announce(self, version: str, status: int, reason: str) -> None:
        assert self._registry is not None
        try:
            manifest = self._registry.manifest(version)
            message = _announcement(manifest)
            message.path = str(self._registry.path(version))
        except (RegistryError, ModelInvalid) as error:
            self.get_logger().error(f"{version} cannot be announced: {error}")
            return
        message.stamp = self.get_clock().now().to_msg()
        message.version, message.status, message.reason = version, status, reason
        self._models.publish(message)


def _announcement(manifest: Manifest) -> ModelAnnouncement:
    lineage, decision = manifest.lineage, manifest.decision
    score = decision.candidate if decision else None
    unknown = float("nan")
    return ModelAnnouncement(
        task=manifest.task,
        episodes=lineage.total_episodes or len(lineage.episodes),
        transitions=lineage.total_transitions or lineage.transitions,
        error_one_step_mm=unknown
        if score is None or score.one_step_mm is None
        else score.one_step_mm,
        error_seven_step_mm=unknown
        if score is None or score.seven_step_mm is None
        else score.seven_step_mm,
    )


def _shipped(task: str) -> Path:
    version = share("models", task, "current").read_text().strip()
    return share("models", task, version)


def main() -> None:
    run(Learner)
