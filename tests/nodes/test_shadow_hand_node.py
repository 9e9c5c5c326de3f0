# SPDX-License-Identifier: Apache-2.0
"""The Shadow Hand's node over DDS, on a stand-in for the topics and actions of its packages."""

from __future__ import annotations

import signal
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from driver_station import DriverStation
from twin_station import start_node
from twinloop.robots.shadow_hand import COUPLED, SHADOW_HAND

from twinloop_interfaces.msg import GuardStatus

sys.path.insert(0, str(Path(__file__).parents[1] / "peers"))
from shadow_hand import NAMES, ShadowHand

FINGERS = "rh_trajectory_controller"
REACHED_RAD = 5e-3


class HandStation(DriverStation):
    module = "twinloop.nodes.shadow_hand"
    robot = SHADOW_HAND

    def sums_reach(self, goal: np.ndarray) -> None:
        """Wait until the motors have brought their joints to a goal."""
        self.until(
            lambda: np.abs(motors(self.joints[-1][2]) - motors(goal)).max() < REACHED_RAD, 30.0
        )


def motors(position: np.ndarray) -> np.ndarray:
    """What the twenty motors do about 24 joints: of coupled ones, their sum."""
    found = dict(zip(NAMES, position, strict=True))
    for tip, middle in COUPLED:
        found[middle] += found.pop(tip)
    return np.array(list(found.values()))


@pytest.fixture(params=["topic", "action"])
def station(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[HandStation]:
    with ShadowHand() as hand:
        settings = hand.settings
        hand.settings = lambda **changes: settings(interface=request.param, **changes)
        with HandStation(hand, tmp_path) as made:
            made.hand = hand
            made.interface = request.param
            yield made


def test_the_hand_follows_commands_and_is_held_at_the_end(station: Any) -> None:
    hand = station.hand
    station.wait_for_joints()
    names, start = station.joints[-1][1:3]
    assert names == NAMES
    np.testing.assert_allclose(start, hand.position, atol=1e-9)
    # Nothing moves before the emergency stop was heard and the guard re-armed.
    assert station.refused(start + 0.05).startswith("emergency stop")
    np.testing.assert_allclose(hand.position, start, atol=1e-9)
    station.beat(False)
    assert station.call("rearm").success

    middle = np.clip(start + 0.3, SHADOW_HAND.lower, SHADOW_HAND.upper)
    steps = [start + (middle - start) * share for share in np.linspace(0.0, 1.0, 5)]
    station.drive(lambda k: steps[min(k, 4)] if k < 8 else None)
    station.sums_reach(middle)

    # A tip bent further than the joint before it is asked for as what the tendon can.
    crossed = middle.copy()
    for tip, before in COUPLED:
        crossed[NAMES.index(tip)] += 0.05
        crossed[NAMES.index(before)] -= 0.05
    station.drive(lambda k: crossed if k < 3 else None)
    station.until(lambda: len(station.applied) > 12)
    goal = [goal for _, source, goal in station.applied if source == "tester"][-1]
    for controller in hand.controllers.values():
        assert controller.commands
        assert not controller.refused
        for sent in controller.commands[-20:]:
            for tip, before in COUPLED:
                assert tip not in sent or sent[tip] <= sent[before] + 1e-9
    np.testing.assert_allclose(motors(goal), motors(crossed), atol=1e-9)

    # Ctrl-C: what its controllers were told last is what they hold.
    station.process.send_signal(signal.SIGINT)
    assert station.process.wait(60.0) == 0
    last = hand.controllers[FINGERS].commands[-1]
    held = np.array([last.get(name, 0.0) for name in NAMES])
    moved = [name in last for name in NAMES]
    assert np.abs(motors(held) - motors(np.where(moved, goal, 0.0))).max() < REACHED_RAD


def test_stop_recover_and_a_hand_that_falls_silent(station: Any) -> None:
    hand = station.hand
    station.wait_for_joints()
    station.beat(False)
    assert station.call("rearm").success
    assert station.call("stop").message == "stopped"
    assert "recover first" in station.call("rearm").message
    assert station.call("recover").message == "recovered"
    if station.interface == "action":
        hand.gives_up = True
        start = station.joints[-1][2]
        station.drive(lambda k: start + 0.02 * (k + 1) if k < 5 else None)
        station.until(lambda: station.guard.state == GuardStatus.STOPPED)
        # Fingers and wrist both give up; which of the two is heard first is chance.
        assert "trajectory_controller: a finger is held fast" in station.guard.reason
        hand.gives_up = False
        station.until(lambda: station.call("recover").success)
    hand.is_silent = True
    station.until(lambda: station.guard.state == GuardStatus.STOPPED)
    assert "no joint_states" in station.guard.reason
    station.until(lambda: station.level == b"\2")
    hand.is_silent = False
    station.until(lambda: station.call("recover").success)


def test_a_node_that_would_hear_itself_is_refused(tmp_path: Path) -> None:
    hardware = tmp_path / "lab.yaml"
    hardware.write_text('{"shadow_hand": {"driver": "shadow_hand"}}')
    process = start_node("twinloop.nodes.shadow_hand", 77, "/", hardware=hardware)
    assert process.wait(60.0) == 2
