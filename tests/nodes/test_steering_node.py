# SPDX-License-Identifier: Apache-2.0
"""From a joystick to the twin's hand and back to autonomy, over DDS."""

from __future__ import annotations

import signal
import time
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


@pytest.fixture(scope="module")
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


def test_a_pilot_takes_over_and_autonomy_goes_on_where_he_stops(station: PilotedStation) -> None:
    count = len(station.record.applied)
    planned = len(station.planned)
    station.hold(**CLOSES)
    begun = len(station.record.applied)
    station.spin_until(lambda: station.goal[NAMES.index("rh_MFJ3")] > CUP[5] + 0.3)
    pilots = station.record.applied[begun:]
    last = station.goal
    station.let_go()
    ended = len(station.record.applied)
    station.spin_until(lambda: np.abs(station.goal - CUP).max() < 1e-6)

    assert station.steps_since(count).max() <= AUTONOMY_STEP + 1e-6
    assert station.steps_since(begun)[: len(pilots) - 1].max() <= PILOT_STEP + 1e-6
    # The first autonomous action starts from the pilot's last.
    first = station.record.applied[ended][2]
    assert np.abs(first - last).max() <= AUTONOMY_STEP + 1e-6
    # His commands stood in the place of the planner's, step by step.
    stamps = {stamp for stamp, _ in station.planned[planned:]}
    on_time = [stamp for stamp, _, _ in pilots[1:-1] if stamp in stamps]
    assert len(on_time) >= 0.7 * len(pilots[1:-1])
    reasons = [(one.who, one.reason) for one in station.control[-2:]]
    assert reasons == [
        (PILOT, "the dead-man is held"),
        (AUTONOMY, "the dead-man was released"),
    ]


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


@pytest.mark.load_sensitive
@pytest.mark.parametrize("lost", ["joy", "teleop"])
def test_loss_of_the_pilot_stops_within_100_ms(station: PilotedStation, lost: str) -> None:
    station.hold_until(lambda: station.goal[NAMES.index("rh_MFJ3")] > CUP[5] + 0.2, **CLOSES)
    teleop = station.nodes["teleop"]
    began_s = time.monotonic()
    if lost == "joy":
        station.joy_speaks = False
    else:
        teleop.send_signal(signal.SIGSTOP)
    try:
        station.spin_until(lambda: station.who == NOBODY)
        took_s = time.monotonic() - began_s
    finally:
        teleop.send_signal(signal.SIGCONT)
    assert took_s <= 0.1


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
