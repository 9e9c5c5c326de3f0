# SPDX-License-Identifier: Apache-2.0
"""Records every episode to a bag of its own; what it costs is kept low by never decoding samples.

A bag holds topics under their own names below the node's namespace, also where a launch file has
remapped them, so that readers need no knowledge of the launch.
"""

from __future__ import annotations

from functools import partial
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from rclpy.duration import Infinite
from rclpy.qos import (
    DurabilityPolicy,
    HistoryPolicy,
    LivelinessPolicy,
    QoSProfile,
    ReliabilityPolicy,
)
from rclpy.serialization import deserialize_message

from twinloop import contract
from twinloop.bags.errors import BagError
from twinloop.bags.metadata import EpisodeMetadata
from twinloop.bags.qos import qos_profile
from twinloop.bags.recording import (
    EpisodeRecording,
    EpisodeState,
    RecordedTopic,
    RecordingSettings,
)
from twinloop.bags.repair import repair_unfinished
from twinloop.nodes.base import ERROR, OK, WARN, Health, Node, run
from twinloop.nodes.messages import message_class
from twinloop.nodes.parameters import ParameterSpec
from twinloop.paths import share
from twinloop.yaml_files import read_yaml
from twinloop_interfaces.msg import EpisodeStatus

# Deep, because a recorder must not lose what it is late to take.
_DEPTH = 200
_BEST_EFFORT, _RELIABLE, _LATCHED = "best_effort", "reliable", "latched"
_STATUS = "episode_status"
# Beside what the contract names: topic, type, kind of QoS to ask for.
_CELL_TOPICS = (
    ("truth", "twinloop_interfaces/msg/TrackedBallArray", _BEST_EFFORT),
    ("plan_stats", "twinloop_interfaces/msg/PlanStats", _RELIABLE),
    ("guard_status", "twinloop_interfaces/msg/GuardStatus", _LATCHED),
    ("model", "twinloop_interfaces/msg/ModelAnnouncement", _LATCHED),
    ("control_status", "twinloop_interfaces/msg/ControlStatus", _LATCHED),
    ("pilot_command", "trajectory_msgs/msg/JointTrajectory", _RELIABLE),
    ("task_goal", "twinloop_interfaces/msg/TaskGoal", _LATCHED),
    (_STATUS, "twinloop_interfaces/msg/EpisodeStatus", _LATCHED),
    ("emergency_stop", "std_msgs/msg/Bool", _RELIABLE),
)
_IMAGE_TYPE = "sensor_msgs/msg/CompressedImage"
_IMAGES = tuple(
    (f"stereo/{eye}/{name}", type_name, _BEST_EFFORT)
    for eye in ("left", "right")
    for name, type_name in (
        ("image_raw/compressed", _IMAGE_TYPE),
        ("camera_info", "sensor_msgs/msg/CameraInfo"),
    )
)
_DIAGNOSTICS = ("/diagnostics", "diagnostic_msgs/msg/DiagnosticArray", _RELIABLE)
_TICK_S = 0.1


class Recorder(Node):
    """Opens a bag when `episode_status` says that an episode runs, and closes it after its end."""

    parameters = (
        ParameterSpec("record_dir", "runs/bags", "Folder that gets one folder per episode"),
        ParameterSpec("task", "baoding", "Task whose contract the topics and vectors follow"),
        ParameterSpec("source", "", "What the robot is: mujoco, pybullet or a robot's name"),
        ParameterSpec(
            "controller", "", "YAML file with the joint controller's gains; that of a known twin"
        ),
        ParameterSpec("chunk_kib", 64, "Size of a chunk, lost when killed [KiB]", 4, 4096),
        ParameterSpec("chunk_age_s", 1.0, "Age at which a chunk is written out [s]", 0.05, 60.0),
        ParameterSpec("before_s", 1.0, "Recorded from before an episode's start [s]", 0.0, 10.0),
        ParameterSpec("tail_s", 0.3, "Recorded from after an episode's end [s]", 0.0, 10.0),
        ParameterSpec("longest_s", 3600.0, "An episode without an end is cut [s]", 1.0, 1e6),
        ParameterSpec("min_free_mb", 500.0, "No bag starts with less disk [MB]", 0.0, 1e9),
        ParameterSpec(
            "images", "none", "Record the stereo camera's images", choices=("none", "compressed")
        ),
        ParameterSpec("max_image_mb", 500.0, "Images in one bag at most [MB]", 0.0, 1e9),
        ParameterSpec("diagnostics", False, "Record /diagnostics too"),
        ParameterSpec("repair", True, "Repair bags that a killed recorder has left in record_dir"),
    )

    def __init__(self) -> None:
        super().__init__("recorder")
        self._recording: EpisodeRecording | None = None
        self._undo: list[Any] = []
        self._repaired = 0
        self._malformed = 0
        self._complaint = ""
        self._status: EpisodeStatus | None = None
        # Of the newest episode, when it was first heard of: a busy recorder opens its bag later.
        self._first_goal = ("", "")
        self._logged_problem: str | None = None

    def configure(self) -> None:
        self._contract = contract.load(self.param("task"))
        self._controller = _read_yaml(
            self.param("controller") or _twin_settings(self.param("source"))
        )
        record_dir = Path(self.param("record_dir")).expanduser().resolve()
        record_dir.mkdir(parents=True, exist_ok=True)
        if self.param("repair"):
            self._repair(record_dir)
        settings = RecordingSettings(
            record_dir=record_dir,
            chunk_bytes=self.param("chunk_kib") * 1024,
            chunk_age_s=self.param("chunk_age_s"),
            before_s=self.param("before_s"),
            tail_s=self.param("tail_s"),
            longest_s=self.param("longest_s"),
            min_free_bytes=int(self.param("min_free_mb") * 1e6),
            max_image_bytes=int(self.param("max_image_mb") * 1e6),
        )
        topics = self._topic_table()
        recorded = [
            RecordedTopic(
                self._name_in_bag(name),
                type_name,
                is_latched=kind == _LATCHED,
                is_of_step=name in (self._contract.action.topic, "plan_stats"),
                is_image=type_name == _IMAGE_TYPE,
            )
            for name, type_name, kind in topics
        ]
        self._recording = EpisodeRecording(settings, recorded, self._describe, self._offered_qos)
        for name, type_name, kind in topics:
            callback = self._on_status if name == _STATUS else self._on_message
            subscription = self.create_subscription(
                message_class(type_name),
                name,
                partial(callback, self._name_in_bag(name)),
                _requested(kind),
                raw=True,
            )
            self._undo.append(partial(self.destroy_subscription, subscription))
        # On the steady clock, so that bags are closed while a twin's time stands still.
        timer = self.create_timer(_TICK_S, self._tick, clock=self.steady_clock)
        self._undo.append(partial(self.destroy_timer, timer))

    def deactivate(self) -> None:
        self._stop()

    def cleanup(self) -> None:
        self._stop()
        for undo in self._undo:
            undo()
        self._undo.clear()

    def close(self) -> None:
        self._stop()

    def health(self) -> Health:
        recording = self._recording
        if recording is None:
            return Health()
        bag = recording.current_bag
        values = {
            "bag": bag.name if bag else "",
            "episode": self._first_goal[0],
            "episodes": str(recording.counts.episodes),
            "messages": str(recording.counts.messages),
            "megabytes": f"{recording.counts.bytes / 1e6:.1f}",
            "failures": str(recording.counts.failures),
            "repaired": str(self._repaired),
            "malformed": str(self._malformed),
            "images_left_out": str(recording.counts.images_left_out),
        }
        if recording.problem is not None:
            return Health(ERROR, recording.problem, values)
        if self._complaint:
            return Health(WARN, self._complaint, values)
        return Health(OK, f"recording {bag.name}" if bag else "waiting for an episode", values)

    def _topic_table(self) -> list[tuple[str, str, str]]:
        table = {}
        for channel in self._contract.observation:
            table[channel.topic] = (channel.topic, channel.type, _BEST_EFFORT)
        action = self._contract.action
        for name in (action.topic, action.applied_topic):
            table[name] = (name, action.type, _RELIABLE)
        table |= {topic[0]: topic for topic in _CELL_TOPICS}
        if self.param("images") == "compressed":
            table |= {topic[0]: topic for topic in _IMAGES}
        if self.param("diagnostics"):
            table[_DIAGNOSTICS[0]] = _DIAGNOSTICS
        return list(table.values())

    def _name_in_bag(self, name: str) -> str:
        return name if name.startswith("/") else f"{self.get_namespace().rstrip('/')}/{name}"

    def _on_message(self, topic: str, cdr: bytes) -> None:
        if self._recording is not None:
            self._recording.receive(topic, cdr, self.get_clock().now().nanoseconds)

    def _on_status(self, topic: str, cdr: bytes) -> None:
        if self._recording is None:
            return
        now_ns = self.get_clock().now().nanoseconds
        try:
            # The middleware hands over whatever came; its own error type is a RuntimeError.
            status = deserialize_message(cdr, EpisodeStatus)
        except RuntimeError as error:
            self._malformed += 1
            self._complaint = f"{_STATUS}: {len(cdr)} bytes are no EpisodeStatus"
            self.get_logger().warning(f"{self._complaint}: {error}")
            return
        self._status, self._complaint = status, ""
        if self._first_goal[0] != status.episode_id:
            self._first_goal = (status.episode_id, status.goal)
        self._recording.receive(topic, cdr, now_ns)
        if not self.is_active:
            return
        state = EpisodeState(
            episode_id=status.episode_id,
            phase=status.phase,
            step=status.step,
            rotation_deg=status.rotation_deg,
            dropped=status.dropped,
            stop_reason=status.stop_reason,
            model_version=status.model_version,
        )
        self._recording.update(state, now_ns)

    def _tick(self) -> None:
        if self._recording is None:
            return
        self._recording.tick(self.get_clock().now().nanoseconds)
        problem = self._recording.problem
        if problem != self._logged_problem:
            self._logged_problem = problem
            if problem is not None:
                self.get_logger().error(problem)

    def _stop(self) -> None:
        if self._recording is not None:
            self._recording.stop()

    def _repair(self, record_dir: Path) -> None:
        for result in repair_unfinished(record_dir):
            if isinstance(result, BagError):
                self.get_logger().warning(f"could not repair: {result}")
                continue
            self._repaired += 1
            self.get_logger().info(
                f"repaired {result.path.name}: {result.messages_kept} messages kept, "
                f"{result.bytes_lost} bytes lost"
            )

    def _describe(self, episode_id: str) -> EpisodeMetadata:
        status = self._status
        assert status is not None
        if status.task and status.task != self._contract.name:
            raise ValueError(
                f"its task is {status.task!r}, expected {self._contract.name!r} as the parameter "
                "task says"
            )
        return EpisodeMetadata(
            episode_id=episode_id,
            index=status.index,
            task=self._contract.name,
            goal=self._first_goal[1],
            robot=self._contract.robot,
            source=self.param("source"),
            seed=status.seed,
            model_version=status.model_version,
            contract=self._contract.model_dump(mode="json"),
            contract_hash=self._contract.hash(),
            controller=self._controller,
            namespace=self.get_namespace().rstrip("/"),
            versions=_versions("twinloop", "rclpy", "mcap"),
        )

    def _offered_qos(self, topic: str) -> tuple[dict[str, Any], ...]:
        """Return the profiles of the topic's publishers, each once."""
        profiles: list[dict[str, Any]] = []
        for publisher in self.get_publishers_info_by_topic(topic):
            profile = _stored_profile(publisher.qos_profile)
            if profile not in profiles:
                profiles.append(profile)
        return tuple(profiles)


def _requested(kind: str) -> QoSProfile:
    return QoSProfile(
        depth=_DEPTH,
        reliability=(
            ReliabilityPolicy.BEST_EFFORT if kind == _BEST_EFFORT else ReliabilityPolicy.RELIABLE
        ),
        durability=(
            DurabilityPolicy.TRANSIENT_LOCAL if kind == _LATCHED else DurabilityPolicy.VOLATILE
        ),
    )


def _stored_profile(profile: QoSProfile) -> dict[str, Any]:
    def limit(duration: Any) -> int | None:
        nanoseconds = int(duration.nanoseconds)
        return nanoseconds if 0 < nanoseconds < Infinite.nanoseconds else None

    return qos_profile(
        reliability=ReliabilityPolicy(profile.reliability).name.lower(),
        durability=DurabilityPolicy(profile.durability).name.lower(),
        depth=int(profile.depth),
        history=HistoryPolicy(profile.history).name.lower(),
        liveliness=LivelinessPolicy(profile.liveliness).name.lower(),
        deadline_ns=limit(profile.deadline),
        lifespan_ns=limit(profile.lifespan),
        liveliness_lease_ns=limit(profile.liveliness_lease_duration),
    )


def _twin_settings(source: str) -> Path | None:
    """Return the file with the gains of a twin; None for anything else."""
    try:
        return share("config", "twin", f"{source}.yaml")
    except FileNotFoundError:
        return None


def _read_yaml(path: str | Path | None) -> dict[str, Any]:
    if path is None:
        return {}
    content = read_yaml(path)
    if not isinstance(content, dict):
        raise ValueError(f"{path} holds {type(content).__name__}, expected names and values")
    return content


def _versions(*packages: str) -> dict[str, str]:
    found = {}
    for package in packages:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            found[package] = "unknown"
    return found


def main() -> None:
    run(Recorder)
