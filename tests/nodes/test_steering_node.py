# SPDX-License-Identifier: Apache-2.0
"""From a joystick to the twin's hand and back to autonomy, over DDS."""

from __future__ import annotations

import itertools
import signal
from collections.abc import Iterator

import numpy as np
import pytest
from piloted_station import AUTONOMY_STEP, SETTINGS, PilotedStation
from std_srvs.srv import Trigger
from twin_station import CUP, NAMES

from twinloop_interfaces.msg import ControlStatus, PilotStatus

AUTONOMY, PILOT, NOBODY = ControlStatus.AUTONOMY, ControlStatus.PILOT, ControlStatus.NOBODY
PILOT_STEP = SETTINGS.hand.joint_speed * 0.1  # rad in a control step
AWAY = CUP + np.where(np.isin(NAMES, ["rh_FFJ2", "rh_MFJ2"]), -0.4, 0.0)
CLOSES = {"a1": -1.0}


@pytest.fixture
def station() -> Iterator[PilotedStation]:
    with PilotedStation(tracker=False, emergency_stop_timeout_s=10.0) as running:
        yield running


@pytest.fixture(autouse=True)
def at_rest(station: PilotedStation) -> Iterator[None]:
    """Every test begins with autonomy, in the cup."""
    station.joy_speaks, station.pressed, station.axes = True, set(), {}
    if station.who == NOBODY:
        ask(station, "resume_autonomy")
    station.wanted = CUP
    station.spin_until(lambda: station.who == AUTONOMY)
    station.spin_until(lambda: np.abs(station.goal - CUP).max() < 1e-6)
    return


def ask(station: PilotedStation, name: str) -> Trigger.Response:
    client = station.node.create_client(Trigger, name)
    station.spin_until(client.service_is_ready)
    return station._wait(client.call_async(Trigger.Request()))


def begins_ns(status: ControlStatus) -> int:
    """Stamp from which on somebody commands, ns."""
    return int(status.stamp.sec) * 10**9 + int(status.stamp.nanosec)


def take_over(station: PilotedStation) -> tuple[list[tuple[int, np.ndarray]], float] | None:
    """Let a pilot close the hand and let go again.

    Returns what was applied from before he took over until autonomy was back in the cup, and the
    share of his commands that stood in the place of the planner's; None where a busy machine has
    lost the pilot meanwhile.
    """
    told, count, planned = len(station.control), len(station.record.applied), len(station.planned)
    station.hold(**CLOSES)
    station.spin_until(
        lambda: station.goal[NAMES.index("rh_MFJ3")] > CUP[5] + 0.3 or station.who == NOBODY
    )
    if station.who == NOBODY:
        station.pressed.clear()
        return None
    station.let_go()
    station.spin_until(lambda: np.abs(station.goal - CUP).max() < 1e-6)
    said = [(one.who, one.reason) for one in station.control[told:]]
    if NOBODY in [who for who, _ in said]:
        return None
    assert said == [(PILOT, "the dead-man is held"), (AUTONOMY, "the dead-man was released")]
    applied = [(stamp, goal) for stamp, _, goal in station.record.applied[count:]]
    begun_ns, ended_ns = map(begins_ns, station.control[told:])
    his = [stamp for stamp, _ in applied if begun_ns <= stamp < ended_ns]
    stamps = {stamp for stamp, _ in station.planned[planned:]}
    assert len(his) >= 3
    return applied, sum(stamp in stamps for stamp in his[1:-1]) / len(his[1:-1])


def test_a_pilot_takes_over_and_autonomy_goes_on_where_he_stops(station: PilotedStation) -> None:
    shares = []
    for _ in range(6):
        told = len(station.control)
        found = take_over(station)
        if found is None:
            if station.who == NOBODY:
                ask(station, "resume_autonomy")
            station.spin_until(lambda: station.who == AUTONOMY)
            station.spin_until(lambda: np.abs(station.goal - CUP).max() < 1e-6)
            continue
        applied, share = found
        begun_ns, ended_ns = map(begins_ns, station.control[told:])
        steps = [
            (stamp, np.abs(goal - before).max())
            for (_, before), (stamp, goal) in itertools.pairwise(applied)
        ]
        # No jump, from the one to the other and back: the first action of each starts from the
        # last of the other.
        assert max(step for _, step in steps) <= AUTONOMY_STEP + 1e-6
        his = [step for stamp, step in steps if begun_ns <= stamp < ended_ns]
        assert max(his) <= PILOT_STEP + 1e-6
        # His commands stand in the place of the planner's, step by step. A planner that a busy
        # machine keeps from its steps gives him none to keep to.
        shares.append(share)
        if share >= 0.7:
            return
    raise AssertionError(f"shares of his commands at the planner's steps: {shares}")


def test_a_pilot_who_is_there_before_any_autonomy_moves_too(station: PilotedStation) -> None:
    station.wanted = None
    station.hold_until(lambda: station.goal[NAMES.index("rh_MFJ3")] > CUP[5] + 0.2, **CLOSES)
    station.let_go()
    held = station.goal
    station.spin(0.5)
    assert np.abs(station.goal - held).max() < 0.1  # the guard holds, where the ramp came to rest


@pytest.mark.parametrize("lost", ["joy", "teleop"])
def test_a_pilot_who_is_lost_leaves_the_hand_held(station: PilotedStation, lost: str) -> None:
    station.hold_until(lambda: station.goal[NAMES.index("rh_MFJ3")] > CUP[5] + 0.2, **CLOSES)
    teleop = station.nodes["teleop"]
    if lost == "joy":
        station.joy_speaks = False
    else:
        teleop.send_signal(signal.SIGSTOP)
    try:
        station.spin_until(lambda: station.who == NOBODY)
        assert "silent for" in station.control[-1].reason
        since = len(station.record.applied)
        station.spin(0.6)
        # Autonomy wants to lead away all the while.
        assert station.steps_since(since).max() < 1e-6
        assert np.abs(station.goal - CUP).max() > 0.15
    finally:
        teleop.send_signal(signal.SIGCONT)
    station.joy_speaks = True
    station.spin_until(lambda: station.pilot[-1].state == PilotStatus.LOST)
    # A dead-man that is still held, and one that is released, both change nothing.
    station.spin(0.3)
    station.pressed.clear()
    station.spin(0.3)
    assert station.who == NOBODY
    station.hold()
    station.let_go()


@pytest.fixture
def prompt() -> Iterator[PilotedStation]:
    with PilotedStation(is_prompt=True, tracker=False, emergency_stop_timeout_s=10.0) as running:
        running.wanted = CUP
        running.spin_until(lambda: np.abs(running.goal - CUP).max() < 1e-6)
        yield running


def rest_ms(station: PilotedStation, lost: str) -> float:
    """Lose a pilot in full motion; ms from his last message to the hand's last motion."""
    station.hold_until(lambda: station.goal[NAMES.index("rh_MFJ3")] > CUP[5] + 0.2, **CLOSES)
    teleop = station.nodes["teleop"]
    since = len(station.record.setpoints)
    if lost == "joy":
        station.joy_speaks = False
    else:
        teleop.send_signal(signal.SIGSTOP)
    try:
        station.spin_until(lambda: station.who == NOBODY)
        station.spin(0.4)
    finally:
        teleop.send_signal(signal.SIGCONT)
    places = station.record.setpoints[since:]
    moves = [
        stamp
        for (_, before), (stamp, now) in itertools.pairwise(places)
        if np.abs(now - before).max() > 1e-9
    ]
    # The twin's stamps, laid on the steady clock by the quickest delivery of late, tell when a
    # setpoint was in force.
    return (moves[-1] - max(station.ahead_ns) - station.said_ns[lost]) * 1e-6


@pytest.mark.load_sensitive
@pytest.mark.parametrize("lost", ["joy", "teleop"])
def test_a_hand_whose_pilot_is_lost_is_at_rest_within_100_ms(
    prompt: PilotedStation, lost: str
) -> None:
    assert 0.0 < rest_ms(prompt, lost) <= 100.0


def test_an_emergency_stop_ends_the_pilots_hold(station: PilotedStation) -> None:
    station.press(False)
    station.hold(**CLOSES)
    station.spin(0.3)
    station.press(True)
    station.spin_until(lambda: station.who == NOBODY)
    station.press(False)
    station.spin_until(lambda: station.rearm().success)
    station.spin(0.2)  # until the guard has told where it stands
    held = station.goal
    station.spin(0.5)
    assert station.who == NOBODY
    assert np.abs(station.goal - held).max() < 1e-6
    assert ask(station, "resume_autonomy").success
    station.spin_until(lambda: station.who == AUTONOMY)
