# SPDX-License-Identifier: Apache-2.0
"""Balls in the tray, found in drawn images."""

from __future__ import annotations

import numpy as np
import pytest
from tray_view import TrayView
from twinloop.perception.tray import TrayFinder, TrayOutcome
from twinloop.perception.tray_shape import tray_shape
from twinloop_sim.arm_cell import arm_positions
from twinloop_sim.cameras.sensor import Sensor

DROPS = [[-0.47, 0.263, -0.2], [-0.40, 0.263, -0.15]]
CLOSE_M = 0.003


@pytest.fixture(scope="module")
def view():
    made = TrayView()
    yield made
    made.close()


@pytest.fixture(scope="module")
def finder(view) -> TrayFinder:
    return TrayFinder(view.camera)


def test_the_channel_is_that_of_the_urdf(view) -> None:
    view.settle(DROPS)
    np.testing.assert_allclose(tray_shape().first(0.028), view.ball(0), atol=0.001)


@pytest.mark.parametrize("count", [0, 1, 2])
def test_balls_are_found_whatever_everything_looks_like(view, finder, count: int) -> None:
    rng = np.random.default_rng(count)
    view.settle(DROPS[:count])
    sensor = Sensor()
    for _ in range(12):
        view.repaint(rng)
        sight = finder.find(sensor.expose(view.image(), rng))
        assert sight.outcome == (TrayOutcome.BALLS if count else TrayOutcome.EMPTY)
        assert len(sight.balls) == count
        for index, ball in enumerate(sight.balls):
            assert np.linalg.norm(ball.position - view.ball(index)) < CLOSE_M
            assert ball.radius_m == pytest.approx(0.028, rel=0.05)
            assert ball.confidence > 0.7


def test_a_ball_is_found_on_its_way_down_the_channel(view, finder) -> None:
    found = 0
    for seconds in np.arange(0.15, 0.6, 0.05):
        view.settle([[-0.385, 0.263, -0.225]], seconds)
        if tray_shape().holds(view.ball(0), 0.028):
            (ball,) = finder.find(view.image()).balls
            assert np.linalg.norm(ball.position - view.ball(0)) < CLOSE_M
            found += 1
    assert found >= 3


def test_balls_of_another_size_do_not_count(view) -> None:
    view.settle(DROPS)
    assert TrayFinder(view.camera, radius_m=0.022).find(view.image()).balls == ()


def test_a_tray_that_cannot_be_seen_is_blocked_not_empty(view, finder) -> None:
    view.settle([])
    picture = view.image()
    assert finder.find(picture).outcome == TrayOutcome.EMPTY
    dark = (0.1 * picture).astype(np.uint8)
    covered = picture.copy()
    covered[90:210, 100:250] = 120
    for image in (dark, np.zeros_like(picture), covered):
        sight = finder.find(image)
        assert (sight.outcome, sight.balls) == (TrayOutcome.BLOCKED, ())


def test_the_resting_arm_does_not_stand_in_the_way(view, finder) -> None:
    view.settle(DROPS)
    view.data.qpos[arm_positions(view.model)] = [0.93, -0.9, 0.0, -2.4, 0.0, 1.6, 0.785]
    assert len(finder.find(view.image()).balls) == 2


def test_images_of_another_size_are_refused(finder) -> None:
    with pytest.raises(ValueError, match=r"\[240, 320, 3\]"):
        finder.find(np.zeros((480, 640, 3), np.uint8))
