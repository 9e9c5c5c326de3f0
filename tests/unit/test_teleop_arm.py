# SPDX-License-Identifier: Apache-2.0
"""Jogging the arm: where it goes, how fast, how near to things, and that it stops by itself."""

from __future__ import annotations

import numpy as np
import pytest
from twinloop.motion.semantics import BASE, arm_limits, semantics
from twinloop.motion.trajectory_controller import TrajectoryController, TrajectoryRefused
from twinloop.motion.world import World
from twinloop.robots.panda import PANDA
from twinloop.teleop.arm import ArmJog
from twinloop.teleop.settings import ARM_CHOSEN, load_settings

SETTINGS = load_settings().arm
LIMITS = arm_limits()
REST = semantics().states["rest"]
TICK_S = 0.01
RENEW_TICKS = round(SETTINGS.renew_s / TICK_S)


@pytest.fixture(scope="module")
def world() -> World:
    return World(semantics())


class Follower:
    """A controller that follows at once, and hears of a link some ticks after it was made."""

    def __init__(self, world: World, late_ticks: int = 0) -> None:
        self.world = world
        self.jog = ArmJog(world, SETTINGS, LIMITS)
        self.controller = TrajectoryController(PANDA.joint_names, LIMITS, REST)
        self.late_ticks = late_ticks
        self.ticks = 0
        self.refused = 0
        self.q = [REST.copy()]
        self.coming: list[tuple[int, object]] = []

    def run(self, motions: dict[str, float] | None, seconds: float) -> np.ndarray:
        """Positions [T, 7] while a pilot wants motions; None: he is gone."""
        first = len(self.q)
        for _ in range(round(seconds / TICK_S)):
            now_s = self.ticks * TICK_S
            if motions is not None and self.ticks % RENEW_TICKS == 0:
                link = self.jog.next(motions, self.q[-1], now_s)
                if link is not None:
                    self.coming.append((self.ticks + self.late_ticks, link))
            while self.coming and self.coming[0][0] <= self.ticks:
                try:
                    self.controller.start(self.coming.pop(0)[1])
                except TrajectoryRefused:
                    self.refused += 1
            self.ticks += 1
            told = self.controller.step(self.ticks * TICK_S, self.q[-1], np.zeros(7))
            self.q.append(told.position.copy())
        return np.array(self.q[first - 1 :])


@pytest.mark.parametrize("late_ticks", [0, 1, 2])
def test_the_tool_goes_straight_where_it_is_wanted_no_faster_than_allowed(
    world: World, late_ticks: int
) -> None:
    follower = Follower(world, late_ticks)
    q = follower.run({"arm/z": 1.0}, 2.0)
    places = np.array([world.pose(each).position for each in q[::10]])
    moved = places[-1] - places[0]
    assert 0.5 < moved[2] / (2.0 * SETTINGS.linear_speed) < 1.02
    assert np.abs(places[:, :2] - places[0, :2]).max() < 0.1 * moved[2]
    assert np.abs(np.diff(q, axis=0)).max() / TICK_S <= 1.02 * SETTINGS.joint_speed
    assert follower.refused == 0
    turned = world.pose(q[0]).rotation.T @ world.pose(q[-1]).rotation
    assert np.trace(turned) > 2.99


def test_axes_are_the_arms_own(world: World) -> None:
    base = world.pose(REST, BASE).rotation
    for axis, name in enumerate(("arm/x", "arm/y")):
        q = Follower(world).run({name: -1.0}, 0.6)
        moved = base.T @ (world.pose(q[-1]).position - world.pose(q[0]).position)
        assert moved[axis] < -0.02
        assert np.abs(np.delete(moved, axis)).max() < 0.3 * abs(moved[axis])


def test_single_joints_are_moved_by_name_or_by_choice(world: World) -> None:
    q = Follower(world).run({"joint/panda_joint7": 1.0}, 1.0)
    assert np.flatnonzero(np.ptp(q, axis=0) > 1e-6).tolist() == [6]
    follower = Follower(world)
    follower.jog.choose(-1)
    assert follower.jog.chosen_joint == "panda_joint7"
    q = follower.run({ARM_CHOSEN: -1.0, "hand/close": 1.0}, 1.0)
    assert np.flatnonzero(np.ptp(q, axis=0) > 1e-6).tolist() == [6]
    assert q[-1, 6] < REST[6] - 0.2


def test_without_its_pilot_the_arm_begins_to_brake_within_100_ms_and_stands(world: World) -> None:
    follower = Follower(world)
    follower.run({"joint/panda_joint1": 1.0}, 1.0)
    q = follower.run(None, 1.0)[:, 0]
    speed = np.diff(q) / TICK_S
    fastest = SETTINGS.joint_speed
    assert speed[0] == pytest.approx(fastest, rel=0.02)
    assert speed[round(0.1 / TICK_S) + 1] < 0.99 * fastest
    assert np.abs(speed[50:]).max() == 0.0


@pytest.mark.parametrize(("motion", "way"), [("arm/z", -1.0), ("joint/panda_joint2", 1.0)])
def test_the_arm_slows_down_near_things_and_stands_before_it_touches_them(
    world: World, motion: str, way: float
) -> None:
    follower = Follower(world, late_ticks=1)
    q = follower.run({motion: way}, 11.0)[::10]
    clearances = np.array([world.clearance(each) for each in q])
    assert SETTINGS.stop_at_m - 2e-3 < clearances.min() < SETTINGS.stop_at_m + 0.01
    assert clearances[0] > SETTINGS.slow_at_m
    speed = np.abs(np.diff(q, axis=0)).max(axis=1)
    assert speed[-1] < 0.1 * speed.max()
    # And it comes away again.
    back = follower.run({motion: -way}, 1.0)
    assert world.clearance(back[-1]) > clearances[-1] + 0.01
