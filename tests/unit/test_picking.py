# SPDX-License-Identifier: Apache-2.0
"""The pick loop against a made-up cell: what it does, each failure by name, cancelled anywhere."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from pick_station import PLACES, FakeCell, Thing
from twinloop.grasping.pick_devices import merged
from twinloop.motion.errors import NoPath
from twinloop.resets.faults import Fault

ROUND = ["look", "plan", "approach", "lower", "close", "lift", "weigh", "carry", "release"]
STATES = ROUND[2:]


@pytest.fixture(scope="module")
def made() -> FakeCell:
    """One cell for all: what takes long is its planner."""
    return FakeCell([])


@pytest.fixture
def cell(made: FakeCell) -> FakeCell:
    fresh = FakeCell.__dataclass_fields__
    for name in (
        "misses",
        "blocks",
        "is_dark",
        "arm_fails",
        "gripper_fails",
        "reason",
        "complaint",
    ):
        setattr(made, name, fresh[name].default)
    made.cancel()
    made.q = made.planner.semantics.states["rest"].copy()
    made.width, made.held, made.at = 0.08, None, lambda _phase: None
    made.things, made.put_over, made.phases, made.tried = [], [], [], []
    return made


def is_at_rest(cell: FakeCell) -> bool:
    rest = cell.planner.semantics.states["rest"]
    return bool(np.abs(cell.q - rest).max() < 0.02)


def test_several_images_are_merged_into_one_sight(made: FakeCell) -> None:
    depths = [
        [0.70, 0.70, 0.00, 0.70, 0.00],
        [0.60, 0.72, 0.70, 0.00, 0.00],
        [0.71, 0.00, 0.60, 0.00, 0.00],
    ]
    first = made.look(-1.0)
    assert first is not None
    views = [
        replace(first, stamp_s=float(index), depth=np.array([row], np.float32))
        for index, row in enumerate(depths)
    ]
    seen = merged(views)
    # What one image of three saw nearer is not there; what two did not see is a hole.
    np.testing.assert_allclose(seen.depth, [[0.70, 0.72, 0.70, 0.0, 0.0]])
    assert seen.depth.dtype == np.float32
    assert seen.stamp_s == 2.0
    np.testing.assert_array_equal(merged(views[:1]).depth, views[0].depth)


def test_a_sight_waits_for_as_many_images_as_are_asked_for(cell: FakeCell) -> None:
    looked: list[float] = []
    settings = cell.loop.settings
    cell.loop.settings = settings.model_copy(
        update={"look": settings.look.model_copy(update={"images": 3})}
    )
    look = cell.look

    def counted(after_s: float):
        view = look(after_s)
        if view is not None:
            looked.append(view.stamp_s)
        return view

    def resized(after_s: float):
        view = counted(after_s)
        if view is None or len(looked) > 1:
            return view
        return replace(view, depth=np.ones((2, 2), np.float32))

    try:
        for eyes, expected in ((counted, 3), (resized, 4)):
            cell.things, cell.look = [], eyes
            looked.clear()
            outcome = cell.run()
            assert outcome.success, outcome.message
            # What came before the camera was set to another size does not count.
            assert len(looked) == len(set(looked)) == expected
    finally:
        cell.loop.settings, cell.look = settings, look


def test_a_bin_is_cleared_thing_by_thing(cell) -> None:
    cell.things = [Thing(place) for place in PLACES]
    outcome = cell.run()
    assert outcome.success, outcome.message
    assert outcome.message == "the bin is empty"
    assert cell.put_over == cell.things
    assert (cell.loop.picked, len(cell.loop.attempts)) == (3, 3)
    assert cell.phases == ["check", "clear", *3 * ROUND, "look", "plan", "rest"]
    assert is_at_rest(cell)
    for attempt, thing in zip(cell.loop.attempts, cell.things, strict=True):
        assert attempt.fault is None
        assert attempt.weight_kg == pytest.approx(thing.mass_kg, abs=1e-6)
        assert attempt.held_m == thing.width_m
        assert 2.0 < attempt.ended_s - attempt.began_s < 10.0


def test_an_empty_bin_is_left_alone(cell) -> None:
    outcome = cell.run()
    assert outcome.success
    assert cell.phases == ["check", "clear", "look", "plan", "rest"]


def test_no_more_are_put_over_than_asked_for(cell) -> None:
    cell.things = [Thing(place) for place in PLACES]
    outcome = cell.run(most=2)
    assert outcome.success
    assert outcome.message == "2 things were put over"
    assert len(cell.left) == 1
    assert is_at_rest(cell)


def test_a_failed_place_is_remembered_and_others_come_first(cell) -> None:
    cell.things = [Thing(place) for place in PLACES]
    cell.misses = 1
    outcome = cell.run()
    assert outcome.success, outcome.message
    tried = [attempt.grasp.tips.position.tolist() for attempt in cell.loop.attempts]
    assert tried == [PLACES[0], PLACES[1], PLACES[2], PLACES[0]]
    assert cell.loop.attempts[0].fault is Fault.GRASP_MISSED
    assert cell.put_over == [cell.things[1], cell.things[2], cell.things[0]]


@pytest.mark.parametrize(
    ("trouble", "state", "fault"),
    [
        ({"misses": 1}, "close", Fault.GRASP_MISSED),
        ({"blocks": 1}, "lower", Fault.GRASP_BLOCKED),
        ({"slips_in": "lift"}, "lift", Fault.OBJECT_SLIPPED),
        ({"slips_in": "carry"}, "carry", Fault.OBJECT_SLIPPED),
        ({"slips_in": "weigh"}, "weigh", Fault.OBJECT_SLIPPED),
        ({"mass_kg": 0.001}, "weigh", Fault.NOTHING_LIFTED),
    ],
)
def test_a_failure_is_named_and_lived_through(cell, trouble, state, fault) -> None:
    thing = {name: value for name, value in trouble.items() if name in ("slips_in", "mass_kg")}
    cell.things = [Thing(PLACES[0], slips=1, **thing)]
    for name in set(trouble) - set(thing):
        setattr(cell, name, trouble[name])
    if "mass_kg" in trouble:
        cell.at = lambda phase: setattr(cell.things[0], "mass_kg", 0.1) if phase == "clear" and len(
            cell.phases) > 2 else None  # fmt: skip
    outcome = cell.run()
    assert outcome.success, outcome.message
    assert outcome.failures == ((state, fault),)
    assert [one.fault for one in cell.loop.attempts] in ([fault, None], [fault])
    assert cell.put_over == cell.things
    assert is_at_rest(cell)


def test_an_arm_that_fails_with_a_thing_in_the_gripper_puts_it_over_all_the_same(cell) -> None:
    cell.things = [Thing(PLACES[0])]
    cell.at = lambda phase: setattr(cell, "arm_fails", int(phase == "carry"))
    outcome = cell.run()
    assert outcome.success, outcome.message
    assert ("carry", Fault.ARM_FAILED) in outcome.failures
    assert cell.put_over == cell.things
    assert cell.loop.picked == 1


@pytest.mark.parametrize(
    ("trouble", "fault", "words"),
    [
        ({"is_dark": True}, Fault.BIN_UNSEEN, "no image"),
        ({"is_dark": True, "complaint": "the lens is dirty"}, Fault.BIN_UNSEEN, "lens is dirty"),
        ({"arm_fails": 99}, Fault.ARM_FAILED, "made up"),
        ({"misses": 99}, Fault.GRASP_MISSED, "closed to 0.0 mm"),
        ({"blocks": 3, "misses": 3}, Fault.NO_GRASP, "6 grasps in a row failed"),
    ],
)
def test_what_cannot_be_helped_ends_it_by_name(cell, trouble, fault, words) -> None:
    cell.things = [Thing(place) for place in PLACES]
    for name, value in trouble.items():
        setattr(cell, name, value)
    outcome = cell.run()
    assert outcome.fault is fault, outcome.message
    assert words in outcome.message


def test_bent_fingers_end_it_by_name(cell) -> None:
    cell.things = [Thing(PLACES[0])]
    cell.at = lambda phase: setattr(cell, "gripper_fails", 99 if phase == "close" else 0)
    outcome = cell.run()
    assert outcome.fault is Fault.GRIPPER_FAILED
    assert "fingers are bent" in outcome.message


def test_a_grasp_out_of_reach_gives_way_to_the_next_one_and_is_told_alone(cell) -> None:
    far = [0.6, -0.3, 0.02]
    cell.things = [Thing(far), Thing(PLACES[0])]
    outcome = cell.run()
    assert cell.put_over == [cell.things[1]]
    assert outcome.fault is Fault.NO_PATH
    assert is_at_rest(cell)


def test_a_planner_without_a_path_is_tried_again(cell, monkeypatch) -> None:
    cell.things = [Thing(PLACES[0])]
    plan, left = cell.planner.plan, [1]

    def refuse(*arguments, **named):
        if cell.phases[-1] == "carry" and left[0]:
            left[0] -= 1
            raise NoPath("something stands in the way")
        return plan(*arguments, **named)

    monkeypatch.setattr(cell.planner, "plan", refuse)
    outcome = cell.run()
    assert outcome.success, outcome.message
    assert outcome.failures == (("carry", Fault.NO_PATH),)
    assert cell.put_over == cell.things


@pytest.mark.parametrize("state", STATES)
@pytest.mark.parametrize("how", ["cancelled", "stopped"])
def test_withdrawn_anywhere_it_ends_there_and_carries_on_from_there(cell, state, how) -> None:
    cell.things = [Thing(PLACES[0])]
    ends: list[float] = []

    def at(phase: str) -> None:
        if phase == state and not ends:
            ends.append(cell.time_s)
            cell.reason = "emergency stop pressed" if how == "stopped" else ""

    cell.at = at
    outcome = cell.run(cancelled=lambda: how == "cancelled" and bool(ends))
    assert outcome.fault is (Fault.CANCELLED if how == "cancelled" else Fault.STOPPED)
    assert outcome.failures[-1][0] == state
    assert cell.time_s - ends[0] < 0.1
    assert cell.course().value in ("idle", "done")
    assert not cell.put_over
    cell.reason, cell.at = "", lambda _phase: None
    again = cell.run()
    assert again.success, again.message
    assert cell.put_over == cell.things
