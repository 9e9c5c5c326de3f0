# SPDX-License-Identifier: Apache-2.0
"""From the arrays of an in-process rollout to a bag, so that fleets leave what robots leave."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from twinloop.bags.episodes import PLAN_STATS
from twinloop.bags.metadata import EpisodeMetadata
from twinloop.bags.types import message_class
from twinloop.bags.write import EpisodeWriter
from twinloop.contract import Channel, Contract
from twinloop.contract.poses import quaternion_of
from twinloop.learning.episode import Episode

_PLAN_STATS_TYPE = "twinloop_interfaces/msg/PlanStats"
_MISSING = np.zeros(0)
_NO_TURN = np.array([1.0, 0.0, 0.0, 0.0, 1.0, 0.0])
Blocks = list[tuple[Channel, NDArray[np.float32]]]


def write_rollout(
    path: Path | str,
    rollout: Episode,
    contract: Contract,
    metadata: EpisodeMetadata,
    *,
    start_ns: int = 0,
    plan_ms: Sequence[float] = (),
) -> Path:
    """Write a rollout as a bag from which `episodes.episode` reads the same arrays again.

    Topics hold one sample per control step, stamped with the step's time; `plan_stats` names it.

    Args:
        path: folder to make.
        rollout: observations [T+1, O] and actions [T, A] in the contract's order.
        metadata: contract and contract hash are filled in here.
        start_ns: time of the first step [ns].
        plan_ms: what planning each step took [T]; left out where nobody planned.

    Raises:
        ValueError: sizes are not the contract's, there are not as many times as steps, or a channel
            that repeats the applied command does not hold the action of the step before.
        BagError, BagWriteError: see `EpisodeWriter`.
    """
    _require_fit(rollout, contract)
    if plan_ms and len(plan_ms) != len(rollout):
        raise ValueError(f"{len(plan_ms)} plan times for {len(rollout)} steps")
    with RolloutWriter(path, contract, metadata, start_ns=start_ns) as writer:
        for k, action in enumerate(rollout.actions):
            writer.step(rollout.observations[k], action, plan_ms[k] if plan_ms else 0.0)
        writer.end(rollout.observations[-1])
    return writer.path


class RolloutWriter:
    """Writes a rollout step by step, so that a killed process leaves what was written out.

    Args:
        path: folder to make.
        metadata: contract and contract hash are filled in here.
        start_ns: time of the first step [ns].
        chunk_age_s: simulated time after which a chunk is written out [s].

    Raises:
        BagError, BagWriteError: see `EpisodeWriter`.
    """

    def __init__(
        self,
        path: Path | str,
        contract: Contract,
        metadata: EpisodeMetadata,
        *,
        start_ns: int = 0,
        chunk_age_s: float = 1.0,
    ) -> None:
        self._contract = contract
        self._period_ns = round(contract.period_s * 1e9)
        # Room for the command that was in force before the first step.
        self._stamp_ns = max(start_ns, self._period_ns)
        self._about = metadata.model_copy(
            update={
                "contract": contract.model_dump(mode="json"),
                "contract_hash": contract.hash(),
            }
        )
        self._goal = _goal(contract)
        self._writer = EpisodeWriter(path, self._about, chunk_age_s=chunk_age_s)
        self._is_open = True
        self.path = self._writer.path
        self.steps = 0

    def step(
        self, observation: NDArray[np.float32], action: NDArray[np.float32], plan_ms: float = 0.0
    ) -> None:
        """Append a step: what was observed [O], and what was applied then [A]."""
        stamps = self._observe(observation)
        about, stamp_ns = self._about, self._stamp_ns
        stats = _plan_stats(about, self.steps, stamp_ns, stamps, observation, action)
        stats.plan_ms = plan_ms
        self._writer.write(about.topic(PLAN_STATS), _PLAN_STATS_TYPE, stats, stamp_ns)
        applied = self._contract.action.applied_topic
        _write(self._writer, about, applied, [(self._goal, action)], stamp_ns)
        self.steps += 1
        self._stamp_ns += self._period_ns

    def end(self, observation: NDArray[np.float32]) -> None:
        """Append what was observed after the last step [O]."""
        self._observe(observation)

    def close(self, **outcome: Any) -> Path:
        """Finish the bag; see `EpisodeWriter.close`."""
        self._is_open = False
        return self._writer.close(**{"steps": self.steps} | outcome)

    def _observe(self, observation: NDArray[np.float32]) -> dict[str, int]:
        """Write what is sampled at this step; returns the samples' stamps [ns] by channel."""
        stamps: dict[str, int] = {}
        for topic, blocks in _by_topic(self._contract, observation).items():
            is_goal = topic == self._contract.action.applied_topic
            sample_ns = self._stamp_ns - self._period_ns if is_goal else self._stamp_ns
            stamps |= {channel.name: sample_ns for channel, _ in blocks}
            if not is_goal or self.steps == 0:
                _write(self._writer, self._about, topic, blocks, sample_ns)
        return stamps

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if self._is_open and kind is None:
            self.close()
        elif self._is_open:
            self._writer.abort()


def _require_fit(rollout: Episode, contract: Contract) -> None:
    sizes = (rollout.observations.shape[1], rollout.actions.shape[1])
    expected = (contract.observation_size, contract.action_size)
    if sizes != expected:
        raise ValueError(
            f"a rollout with observations and actions of {sizes} elements, expected {expected} "
            f"under contract {contract.name}"
        )
    for channel in contract.observation:
        if channel.topic == contract.action.applied_topic:
            repeated = rollout.observations[1:-1, contract.slices[channel.name]]
            if not np.array_equal(repeated, rollout.actions[:-1]):
                raise ValueError(
                    f"channel {channel.name} differs from the action of the step before, which "
                    f"topic {channel.topic} gives"
                )


def _by_topic(contract: Contract, observation: NDArray[np.float32]) -> dict[str, Blocks]:
    topics: dict[str, Blocks] = {}
    for channel in contract.observation:
        block = observation[contract.slices[channel.name]]
        topics.setdefault(channel.topic, []).append((channel, block))
    # Last, because a planner takes its step as soon as the trigger's sample arrives.
    topics[contract.trigger] = topics.pop(contract.trigger)
    return topics


def _goal(contract: Contract) -> Channel:
    action = contract.action
    return Channel(
        name="action",
        topic=action.applied_topic,
        type=action.type,
        field="positions",
        elements=action.elements,
        unit=action.unit,
        max_age_s=contract.period_s,
    )


def _write(
    writer: EpisodeWriter, about: EpisodeMetadata, topic: str, blocks: Blocks, stamp_ns: int
) -> None:
    channel = blocks[0][0]
    header = _header(stamp_ns, channel.frame)
    message = _BUILDERS[channel.type](header, blocks)
    writer.write(about.topic(topic), channel.type, message, stamp_ns)


def _joint_state(header: Any, blocks: Blocks) -> Any:
    values, names = {}, list(blocks[0][0].elements)
    for channel, block in blocks:
        if channel.field == "sin_cos":
            names, values["position"] = _angles(channel, block)
        else:
            values[channel.field] = block.astype(np.float64)
    return message_class("sensor_msgs/msg/JointState")(
        header=header,
        name=names,
        position=values.get("position", _MISSING),
        velocity=values.get("velocity", _MISSING),
        effort=values.get("effort", _MISSING),
    )


def _angles(channel: Channel, block: NDArray[np.float32]) -> tuple[list[str], NDArray[np.float64]]:
    """Return names and angles of elements such as `valve.sin` and `valve.cos`."""
    parts = dict(zip(channel.elements, block.astype(np.float64), strict=True))
    names = list(dict.fromkeys(element.rpartition(".")[0] for element in channel.elements))
    angles = [np.arctan2(parts[f"{name}.sin"], parts[f"{name}.cos"]) for name in names]
    return names, np.array(angles)


def _trajectory(header: Any, blocks: Blocks) -> Any:
    values = {channel.field: block.astype(np.float64) for channel, block in blocks}
    point = message_class("trajectory_msgs/msg/JointTrajectoryPoint")(
        positions=values.get("positions", _MISSING),
        velocities=values.get("velocities", _MISSING),
        accelerations=values.get("accelerations", _MISSING),
        effort=values.get("effort", _MISSING),
        time_from_start=message_class("builtin_interfaces/msg/Duration")(sec=0, nanosec=0),
    )
    return message_class("trajectory_msgs/msg/JointTrajectory")(
        header=header, joint_names=list(blocks[0][0].elements), points=[point]
    )


def _balls(header: Any, blocks: Blocks) -> Any:
    values: dict[str, dict[str, dict[str, float]]] = {}
    for channel, block in blocks:
        for element, value in zip(channel.elements, block, strict=True):
            name, _, axis = element.partition(".")
            values.setdefault(name, {}).setdefault(channel.field, {})[axis] = float(value)
    point = message_class("geometry_msgs/msg/Point")
    vector = message_class("geometry_msgs/msg/Vector3")
    still = {"x": 0.0, "y": 0.0, "z": 0.0}
    ball = message_class("twinloop_interfaces/msg/TrackedBall")
    return message_class("twinloop_interfaces/msg/TrackedBallArray")(
        header=header,
        balls=[
            ball(
                id=int(name.removeprefix("ball")),
                position=point(**fields.get("position", still)),
                velocity=vector(**fields.get("velocity", still)),
                covariance=np.zeros(36),
                visible_fraction=1.0,
                stale=False,
            )
            for name, fields in values.items()
        ],
    )


def _odometry(header: Any, blocks: Blocks) -> Any:
    values = {channel.field: block for channel, block in blocks}
    zero, covariance = np.zeros(3), np.zeros(36)
    rotation = values.get("rotation", _NO_TURN)
    twist = message_class("geometry_msgs/msg/Twist")(
        linear=_vector3(values.get("linear", zero)), angular=_vector3(values.get("angular", zero))
    )
    return message_class("nav_msgs/msg/Odometry")(
        header=header,
        child_frame_id=header.frame_id,  # in which the twist is given
        pose=message_class("geometry_msgs/msg/PoseWithCovariance")(
            pose=_pose(values.get("position", zero), rotation), covariance=covariance
        ),
        twist=message_class("geometry_msgs/msg/TwistWithCovariance")(
            twist=twist, covariance=covariance
        ),
    )


def _pose_stamped(header: Any, blocks: Blocks) -> Any:
    values = {channel.field: block for channel, block in blocks}
    pose = _pose(values.get("position", np.zeros(3)), values.get("rotation", _NO_TURN))
    return message_class("geometry_msgs/msg/PoseStamped")(header=header, pose=pose)


def _path(header: Any, blocks: Blocks) -> Any:
    stamped = message_class("geometry_msgs/msg/PoseStamped")
    places = [(x, y, 0.0) for x, y in blocks[0][1].reshape(-1, 2)]
    poses = [stamped(header=header, pose=_pose(np.array(place), _NO_TURN)) for place in places]
    return message_class("nav_msgs/msg/Path")(header=header, poses=poses)


def _pose(position: NDArray[np.floating], columns: NDArray[np.floating]) -> Any:
    x, y, z = map(float, position)
    w, i, j, k = quaternion_of(columns.astype(np.float64)).tolist()
    return message_class("geometry_msgs/msg/Pose")(
        position=message_class("geometry_msgs/msg/Point")(x=x, y=y, z=z),
        orientation=message_class("geometry_msgs/msg/Quaternion")(w=w, x=i, y=j, z=k),
    )


def _vector3(values: NDArray[np.floating]) -> Any:
    x, y, z = map(float, values)
    return message_class("geometry_msgs/msg/Vector3")(x=x, y=y, z=z)


_BUILDERS: dict[str, Callable[[Any, Blocks], Any]] = {
    "sensor_msgs/msg/JointState": _joint_state,
    "trajectory_msgs/msg/JointTrajectory": _trajectory,
    "twinloop_interfaces/msg/TrackedBallArray": _balls,
    "nav_msgs/msg/Odometry": _odometry,
    "geometry_msgs/msg/PoseStamped": _pose_stamped,
    "nav_msgs/msg/Path": _path,
}


def _plan_stats(
    about: EpisodeMetadata,
    step: int,
    stamp_ns: int,
    sample_stamps_ns: dict[str, int],
    observation: NDArray[np.float32],
    action: NDArray[np.float32],
) -> Any:
    return message_class(_PLAN_STATS_TYPE)(
        header=_header(stamp_ns, ""),
        episode_id=about.episode_id,
        step=step,
        plan_ms=0.0,
        lateness_ms=0.0,
        best_return=0.0,
        mean_return=0.0,
        disagreement=0.0,
        samples=0,
        horizon=0,
        nan_rollouts=0,
        model_version=about.model_version,
        channels=list(sample_stamps_ns),
        channel_stamps=[_time(stamp) for stamp in sample_stamps_ns.values()],
        observation=observation,
        action=action.astype(np.float64),
        stop_reason="",
    )


def _header(stamp_ns: int, frame: str) -> Any:
    return message_class("std_msgs/msg/Header")(stamp=_time(stamp_ns), frame_id=frame)


def _time(stamp_ns: int) -> Any:
    time = message_class("builtin_interfaces/msg/Time")
    return time(sec=stamp_ns // 10**9, nanosec=stamp_ns % 10**9)
