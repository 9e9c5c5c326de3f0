# SPDX-License-Identifier: Apache-2.0
"""Bad commands to whatever has a command guard: refused by name, and nothing moves."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from graph import hear, running
from hypothesis import given
from hypothesis import strategies as st
from messages import TEXTS, broken
from peers.template import PlainJoints
from tally import TALLY, examples
from twin_station import CUP, NAMES, TICK_NS, command
from twinloop.nodes.joint_driver import JointDriverNode
from twinloop.robots.hand24 import HAND24
from twinloop.safety.guard import CommandGuard
from twinloop.safety.verdict import GuardSettings
from twinloop_sim.nodes.twin import TwinNode

SECOND_NS = 10**9


@pytest.fixture
def twin() -> Iterator[TwinNode]:
    with running(TwinNode) as node:
        yield node


def submitted(node: Any, guard: CommandGuard, message: Any, kind: str) -> None:
    """Give a node a command; refused, it leaves no trace, accepted, it is within every limit."""
    before, refused, holds = guard.goal, guard.counters.refused, guard.counters.holds

    def reason() -> str:
        hear(node, "command", message)
        return guard.last_refusal if guard.counters.refused > refused else ""

    if TALLY.ask(kind, reason):
        # A driver's loop goes on meanwhile: its guard may find the source silent, and hold.
        if guard.counters.holds == holds:
            np.testing.assert_array_equal(guard.goal, before)
        return
    robot, most = guard.robot, guard.settings.joint_speed * guard.settings.period_s
    assert np.isfinite(guard.goal).all()
    assert (guard.goal >= robot.lower).all()
    assert (guard.goal <= robot.upper).all()
    # A command without a point asks for rest: then the goal is where the joints come to it.
    if guard.counters.holds == holds:
        assert np.abs(guard.goal - before).max() <= most + 1e-9


@examples(1000)
@given(data=st.data())
def test_the_twin_refuses_bad_commands(twin: TwinNode, data: st.DataObject) -> None:
    guarded = twin._guarded
    assert guarded is not None
    guarded.sim_ns += TICK_NS  # else none is newer than the first that is accepted
    message = data.draw(broken(lambda: command(CUP, guarded.now_ns, "tester")))
    submitted(twin, guarded.guard, message, "command to the twin")


@pytest.fixture
def claw(tmp_path: Path) -> Iterator[JointDriverNode]:
    path = tmp_path / "hardware.yaml"
    with PlainJoints() as peer:
        path.write_text(yaml.safe_dump({"dclaw": peer.settings()}))
        with running(JointDriverNode, hardware=path, require_emergency_stop=False) as node:
            loop = node._loop
            assert loop is not None
            end_s = time.monotonic() + 20.0
            while loop.status().state != "running":
                assert time.monotonic() < end_s, loop.status()
                time.sleep(0.01)
            yield node


@examples(600)
@given(data=st.data())
def test_a_driver_refuses_bad_commands(claw: JointDriverNode, data: st.DataObject) -> None:
    assert claw._loop is not None
    guard, names = claw._loop.guard, claw._names
    assert guard is not None
    now_ns = claw.get_clock().now().nanoseconds
    message = data.draw(broken(lambda: command(guard.goal, now_ns, "tester", names)))
    submitted(claw, guard, message, "command to a driver")


NUMBERS = st.one_of(
    st.lists(st.floats(width=64), max_size=30),
    st.lists(st.floats(), min_size=24, max_size=24),
)


@examples(1000)
@given(
    names=st.sampled_from([NAMES, NAMES[:-1], [*NAMES[:-1], NAMES[0]], []])
    | st.lists(TEXTS, max_size=3)
    | st.permutations(NAMES),
    positions=NUMBERS,
    stamp_ns=st.sampled_from([0, SECOND_NS, -1, 2**63 - 1, -(2**63)]) | st.integers(0, 2**62),
    source=TEXTS,
)
def test_the_guard_refuses_whatever_it_is_given(
    names: list[str], positions: list[float], stamp_ns: int, source: str
) -> None:
    guard = CommandGuard(HAND24, GuardSettings(), CUP)

    def reason() -> str:
        return guard.submit(names, positions, stamp_ns, source, SECOND_NS, 1.0).detail

    verdict = TALLY.ask("command to the guard", reason)
    applied = [guard.tick(SECOND_NS, 1.0 + 0.01 * tick) for tick in range(12)]
    if guard.counters.accepted:
        assert np.isfinite(applied).all()
    else:
        assert verdict
        np.testing.assert_array_equal(applied, [np.clip(CUP, HAND24.lower, HAND24.upper)] * 12)


@examples(150)
@given(position=st.lists(st.floats(), max_size=30))
def test_the_guard_stands_nowhere_but_at_a_finite_place(position: list[float]) -> None:
    if len(position) == 24 and all(math.isfinite(value) for value in position):
        return
    TALLY.read(
        "position for the guard",
        lambda: CommandGuard(HAND24, GuardSettings(), position),
        (ValueError,),
        ("guard position must be 24 finite rad",),
    )


@examples(100)
@given(start=TEXTS, seed=st.integers(0, 2**64 - 1))
def test_the_twin_refuses_scenes_that_there_are_not(twin: TwinNode, start: str, seed: int) -> None:
    guarded = twin._guarded
    assert guarded is not None
    before = guarded.guard.goal
    if start == "cup" and seed < 2**63:
        return
    wrong = "seed" if start == "cup" else "start"
    TALLY.read("scene to reset", lambda: guarded.reset(seed, start), (ValueError,), (wrong,))
    np.testing.assert_array_equal(guarded.guard.goal, before)
