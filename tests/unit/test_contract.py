# SPDX-License-Identifier: Apache-2.0
"""Contracts: round trip, packing, extraction by name, hold alignment and ages."""

from types import SimpleNamespace as Message

import numpy as np
import pytest
from twinloop.contract import Assembler, Contract, MalformedMessage, ObservationUnavailable

from twinloop import contract as contracts

MS = 1_000_000


@pytest.fixture
def baoding() -> Contract:
    return contracts.load("baoding")


def header(stamp_ns: int, frame: str = "") -> Message:
    stamp = Message(sec=stamp_ns // 10**9, nanosec=stamp_ns % 10**9)
    return Message(stamp=stamp, frame_id=frame)


def joint_state(contract: Contract, stamp_ns: int, value: float = 0.1) -> Message:
    names = list(contract.action.elements)
    return Message(
        header=header(stamp_ns),
        name=names,
        position=[value + 0.01 * i for i in range(len(names))],
        velocity=[value - 0.01 * i for i in range(len(names))],
    )


def trajectory(contract: Contract, stamp_ns: int) -> Message:
    names = list(contract.action.elements)
    return Message(
        header=header(stamp_ns), joint_names=names, points=[Message(positions=[0.2] * len(names))]
    )


def balls(stamp_ns: int, stale: bool = False, frame: str = "rh_palm") -> Message:
    return Message(
        header=header(stamp_ns, frame),
        balls=[
            Message(
                id=i,
                position=Message(x=0.1 + i, y=0.2 + i, z=0.3 + i),
                velocity=Message(x=1.0 + i, y=2.0 + i, z=3.0 + i),
                stale=stale,
            )
            for i in (0, 1)
        ],
    )


def fed(contract: Contract, stamp_ns: int) -> Assembler:
    assembler = Assembler(contract)
    assembler.feed("joint_states", joint_state(contract, stamp_ns))
    assembler.feed("applied_command", trajectory(contract, stamp_ns - 100 * MS))
    assembler.feed("balls", balls(stamp_ns - 30 * MS))
    return assembler


@pytest.mark.parametrize("name", contracts.available())
def test_every_contract_survives_a_json_round_trip(name: str) -> None:
    contract = contracts.load(name)
    again = Contract.from_json(contract.to_json())
    assert again == contract
    assert again.hash() == contract.hash()
    assert len(contract.describe()) == contract.observation_size


def test_unknown_contract_is_named() -> None:
    with pytest.raises(ValueError, match="no contract 'juggling'.*baoding"):
        contracts.load("juggling")


def test_hash_changes_with_the_meaning_of_a_vector(baoding: Contract) -> None:
    other = baoding.model_copy(update={"period_s": 0.05})
    assert other.hash() != baoding.hash()


@pytest.mark.parametrize("text", ["", "{}", "[1]", '{"name": 3}'])
def test_malformed_contract_is_refused(text: str) -> None:
    with pytest.raises(ValueError):  # noqa: PT011 - pydantic's message is its own
        Contract.from_json(text)


def test_pack_puts_channels_where_slices_say(baoding: Contract) -> None:
    channels = {c.name: np.full((3, len(c.elements)), i) for i, c in enumerate(baoding.observation)}
    packed = baoding.pack(channels)
    assert packed.shape == (3, 84)
    for i, name in enumerate(channels):
        assert np.all(packed[:, baoding.slices[name]] == i)
    with pytest.raises(ValueError, match="ball_velocity"):
        baoding.pack({**channels, "ball_velocity": np.zeros((3, 5))})
    del channels["command"]
    with pytest.raises(ValueError, match="channels"):
        baoding.pack(channels)


def test_observation_equals_what_the_messages_hold(baoding: Contract) -> None:
    stamp = 5_000 * MS
    observation = fed(baoding, stamp).assemble(stamp)
    part = {name: observation.vector[where] for name, where in baoding.slices.items()}
    assert part["joint_position"] == pytest.approx([0.1 + 0.01 * i for i in range(24)])
    assert part["joint_velocity"] == pytest.approx([0.1 - 0.01 * i for i in range(24)])
    assert part["command"] == pytest.approx([0.2] * 24)
    assert part["ball_position"] == pytest.approx([0.1, 0.2, 0.3, 1.1, 1.2, 1.3])
    assert part["ball_velocity"] == pytest.approx([1, 2, 3, 2, 3, 4])
    assert observation.sample_stamps_ns["ball_position"] == stamp - 30 * MS


def test_joints_are_matched_by_name_not_by_place(baoding: Contract) -> None:
    stamp = 5_000 * MS
    plain = fed(baoding, stamp).assemble(stamp)
    shuffled = Assembler(baoding)
    message = joint_state(baoding, stamp)
    for field in ("name", "position", "velocity"):
        setattr(message, field, [*reversed(getattr(message, field)), 9.0][:24])
    message.name.append("another_robots_joint")
    message.position.append(7.0)
    message.velocity.append(7.0)
    shuffled.feed("joint_states", message)
    shuffled.feed("applied_command", trajectory(baoding, stamp - 100 * MS))
    shuffled.feed("balls", balls(stamp - 30 * MS))
    assert np.array_equal(shuffled.assemble(stamp).vector, plain.vector)


def test_newest_sample_not_after_the_step_is_held(baoding: Contract) -> None:
    stamp = 5_000 * MS
    assembler = fed(baoding, stamp)
    assembler.feed("joint_states", joint_state(baoding, stamp + 10 * MS, value=0.9))
    assembler.feed("joint_states", joint_state(baoding, stamp - 10 * MS, value=0.5))
    assert assembler.assemble(stamp).vector[0] == pytest.approx(0.1)
    assert assembler.assemble(stamp + 10 * MS).vector[0] == pytest.approx(0.9)


@pytest.mark.parametrize("step_s", [3600, -3600])
def test_a_step_of_the_clock_leaves_no_old_samples(baoding: Contract, step_s: int) -> None:
    stamp = 10_000_000 * MS
    assembler = fed(baoding, stamp)
    later = stamp + step_s * 10**9
    assembler.feed("joint_states", joint_state(baoding, later, value=0.9))
    assembler.feed("applied_command", trajectory(baoding, later))
    assembler.feed("balls", balls(later))
    assert assembler.assemble(later).vector[0] == pytest.approx(0.9)


def test_channel_that_is_too_old_is_named(baoding: Contract) -> None:
    stamp = 5_000 * MS
    assembler = fed(baoding, stamp)
    with pytest.raises(ObservationUnavailable, match=r"joint_position is 0\.100 s old") as caught:
        assembler.assemble(stamp + 100 * MS)
    assert caught.value.channel == "joint_position"


def test_stale_balls_are_no_evidence(baoding: Contract) -> None:
    stamp = 5_000 * MS
    assembler = fed(baoding, stamp)
    for late in range(0, 400, 10):
        assembler.feed("joint_states", joint_state(baoding, stamp + late * MS))
        assembler.feed("applied_command", trajectory(baoding, stamp + late * MS))
        assembler.feed("balls", balls(stamp + late * MS, stale=True))
    with pytest.raises(ObservationUnavailable, match="channel ball_position is") as caught:
        assembler.assemble(stamp + 390 * MS)
    assert caught.value.is_lost


def test_a_sensor_that_has_gone_silent_has_not_lost_anything(baoding: Contract) -> None:
    stamp = 5_000 * MS
    assembler = fed(baoding, stamp)
    assembler.feed("balls", balls(stamp + 10 * MS, stale=True))
    for late in range(0, 400, 10):
        assembler.feed("joint_states", joint_state(baoding, stamp + late * MS))
        assembler.feed("applied_command", trajectory(baoding, stamp + late * MS))
    with pytest.raises(ObservationUnavailable, match="channel ball_position is") as caught:
        assembler.assemble(stamp + 390 * MS)
    assert not caught.value.is_lost


def test_a_channel_without_samples_is_named(baoding: Contract) -> None:
    with pytest.raises(ObservationUnavailable, match="joint_position has no sample"):
        Assembler(baoding).assemble(0)


def broken_messages(contract: Contract) -> dict[str, tuple[str, Message, str]]:
    nan = joint_state(contract, 0)
    nan.position[3] = float("nan")
    short = joint_state(contract, 0)
    short.position.pop()
    missing = joint_state(contract, 0)
    missing.name[0] = "nobody"
    points = trajectory(contract, 0)
    points.points = []
    one_ball = balls(0)
    one_ball.balls.pop()
    return {
        "nan": ("joint_states", nan, "rh_FFJ3.*not finite"),
        "short": ("joint_states", short, "24 names but 23 values"),
        "missing": ("joint_states", missing, "rh_WRJ2"),
        "points": ("applied_command", points, "0 points, expected 1"),
        "frame": ("balls", balls(0, frame="world"), "frame 'world', expected 'rh_palm'"),
        "ball": ("balls", one_ball, "ball1 is missing"),
    }


@pytest.mark.parametrize("case", ["nan", "short", "missing", "points", "frame", "ball"])
def test_malformed_message_is_refused_and_leaves_nothing(baoding: Contract, case: str) -> None:
    topic, message, complaint = broken_messages(baoding)[case]
    assembler = Assembler(baoding)
    with pytest.raises(MalformedMessage, match=complaint):
        assembler.feed(topic, message)
    with pytest.raises(ObservationUnavailable, match="no sample"):
        assembler.assemble(10**9)


def test_offline_assembly_takes_exactly_the_samples_used_live(baoding: Contract) -> None:
    stamp = 5_000 * MS
    live = fed(baoding, stamp).assemble(stamp)
    offline = Assembler(baoding, history_s=None)
    # A later sample that was recorded, but had not reached the live node in time.
    offline.feed("balls", balls(stamp - 10 * MS))
    offline.feed("balls", balls(stamp - 30 * MS))
    offline.feed("joint_states", joint_state(baoding, stamp))
    offline.feed("applied_command", trajectory(baoding, stamp - 100 * MS))
    replayed = offline.assemble_at(stamp, live.sample_stamps_ns)
    assert np.array_equal(replayed.vector, live.vector)
    with pytest.raises(ObservationUnavailable, match="joint_velocity has no sample stamped"):
        offline.assemble_at(stamp, {**live.sample_stamps_ns, "joint_velocity": stamp - 1})
