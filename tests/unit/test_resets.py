# SPDX-License-Identifier: Apache-2.0
"""Resets of the Baoding cell, undisturbed and disturbed, in process."""

from __future__ import annotations

import numpy as np
import pytest
from reset_station import IN_PALM, IN_TRAY, ON_FLOOR, ResetStation
from twinloop.motion.errors import NoPath
from twinloop.resets.faults import Fault
from twinloop.resets.settings import ResetSettings, load_settings
from twinloop.robots.hand24 import HAND24

AT_REST = 0.02  # rad/s


@pytest.fixture(scope="module")
def station() -> ResetStation:
    return ResetStation()


def is_at_rest_state(station: ResetStation) -> bool:
    rest = station.planner.semantics.states["rest"]
    return bool(np.abs(station.cell.arms[0].q - rest).max() < 0.02)


def holds_ball(station: ResetStation) -> bool:
    return station.cell.arms[0].width == pytest.approx(0.0551, abs=0.003)


def test_both_balls_come_back_from_the_tray(station) -> None:
    station.scene(*IN_TRAY)
    outcome = station.run()
    assert outcome.success, outcome.message
    assert station.balls_in_palm == 2
    assert is_at_rest_state(station)
    assert outcome.seconds < 25.0
    np.testing.assert_allclose(station.cell.joint_position[0], HAND24.poses["cup"], atol=0.15)
    assert station.phases[-6:] == ["carry", "lower", "release", "look", "cup", "confirm"]


def test_a_ball_that_stayed_in_the_palm_is_kept_and_the_other_put_beside_it(station) -> None:
    station.scene(IN_PALM, IN_TRAY[0])
    outcome = station.run()
    assert outcome.success, outcome.message
    assert station.phases.count("carry") == 1
    assert station.balls_in_palm == 2


def test_balls_that_are_in_the_palm_already_are_left_alone(station) -> None:
    station.cell.reset([1])
    station.devices.hand.goal = station.cell.command[0].copy()
    outcome = station.run()
    assert outcome.success, outcome.message
    assert "grasp" not in station.phases


def test_a_ball_out_of_reach_is_told_with_the_robot_at_rest_and_the_cell_waits(station) -> None:
    station.scene(IN_TRAY[0], ON_FLOOR)
    outcome = station.run()
    assert outcome.fault is Fault.BALL_OUT_OF_REACH
    assert "1 of 2 balls" in outcome.message
    assert is_at_rest_state(station)
    assert station.arm_speed < AT_REST


@pytest.mark.parametrize("phase", ["grasp", "carry", "release"])
def test_withdrawn_anywhere_it_comes_to_rest_and_starts_again_from_there(station, phase) -> None:
    station.scene(*IN_TRAY)
    cancels = {"cancel": False}
    outcome = station.run(at=phase, then=lambda: cancels.update(cancel=True), cancel_on=cancels)
    assert outcome.fault is Fault.CANCELLED
    assert outcome.failures[-1][0] == phase
    station.wait(1.0)
    assert station.arm_speed < AT_REST
    station.restart()
    again = station.run()
    assert again.success, again.message
    assert station.balls_in_palm == 2


def test_a_ball_that_slips_is_fetched_again(station) -> None:
    station.scene(*IN_TRAY)
    outcome = station.run("carry", lambda: station.cell.arms[0].grip(0.08), station.is_over_ramp)
    assert outcome.success, outcome.message
    assert ("carry", Fault.BALL_SLIPPED) in outcome.failures
    assert station.balls_in_palm == 2


def test_a_tray_camera_that_stalls_is_waited_for(station) -> None:
    station.scene(*IN_TRAY)
    tray = station.devices.tray
    tray.stalls_until_s = station.devices.clock.now_s() + 3.0
    assert station.run().success


def test_a_tray_camera_that_is_gone_is_told_with_the_robot_at_rest(station) -> None:
    station.scene(*IN_TRAY)
    station.devices.tray.stalls_until_s = np.inf
    outcome = station.run()
    assert outcome.fault is Fault.TRAY_UNSEEN
    assert "no image" in outcome.message
    assert is_at_rest_state(station)


@pytest.mark.parametrize(("failures", "recovers"), [(2, True), (50, False)])
def test_an_arm_planner_without_a_path_is_tried_again_then_told(
    station, monkeypatch, failures: int, recovers: bool
) -> None:
    station.scene(*IN_TRAY)
    left = [failures]
    plan_line = station.planner.plan_line

    def refuse(*arguments, **named):
        if left[0] > 0:
            left[0] -= 1
            raise NoPath("something stands in the way")
        return plan_line(*arguments, **named)

    monkeypatch.setattr(station.planner, "plan_line", refuse)
    outcome = station.run()
    assert outcome.success == recovers
    if not recovers:
        assert outcome.fault is Fault.NO_PATH
        assert "something stands in the way" in outcome.message
        assert station.arm_speed < AT_REST


def test_a_node_that_dies_with_a_ball_in_the_air_is_followed_by_one_that_carries_on(
    station,
) -> None:
    station.scene(*IN_TRAY)

    class Killed(Exception):
        pass

    def kill() -> None:
        raise Killed

    with pytest.raises(Killed):
        station.run("carry", kill)
    station.wait(4.0)  # the arm's controller goes to the end of what it was told
    assert station.arm_speed < AT_REST
    assert holds_ball(station)
    station.restart()
    outcome = station.run()
    assert outcome.success, outcome.message
    assert station.phases[:5] == ["check", "clear", "open", "look", "carry"]


def test_an_emergency_stop_with_a_ball_in_the_air_keeps_it_held(station) -> None:
    station.scene(*IN_TRAY)

    def press() -> None:
        station.devices.safety.reason = "emergency stop pressed"
        station.cell.arms[0].stop("emergency stop")

    outcome = station.run("carry", press)
    assert outcome.fault is Fault.STOPPED
    assert "emergency stop pressed" in outcome.message
    station.wait(1.0)
    assert station.arm_speed < AT_REST
    assert holds_ball(station)
    before = station.cell.state.ball_position[0]
    station.wait(5.0)
    np.testing.assert_allclose(station.cell.state.ball_position[0], before, atol=0.001)
    station.devices.safety.reason = ""
    assert station.run().success


def test_settings_out_of_range_are_refused_by_name() -> None:
    given = load_settings().model_dump()
    given["hand"]["receive"]["rh_THJ5"] = 3.0
    with pytest.raises(ValueError, match="receive: rh_THJ5 is 3.0"):
        ResetSettings.model_validate(given)
