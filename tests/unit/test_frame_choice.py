# SPDX-License-Identifier: Apache-2.0
from twinloop_sim.nodes.frame_choice import FrameChoice

TICK_NS = 10_000_000
PHASES = {0: 2, 3: 1, 7: 0}  # tick of a control step: exposures left before the next one


def drawn(choice: FrameChoice, drawing_s: float, rtf: float = 1.0, steps: int = 40) -> list[int]:
    """Phases of the exposures that are taken in the second half of some control steps."""
    taken, busy_until_s = [], 0.0
    for step in range(steps):
        for phase, left in PHASES.items():
            tick = 10 * step + phase
            now_s = max(tick * 0.01 / rtf, busy_until_s)
            if choice.takes(tick * TICK_NS, left, now_s):
                busy_until_s = now_s + drawing_s
                choice.drew(drawing_s)
                taken += [phase] if step >= steps // 2 else []
    return taken


def test_who_is_quick_takes_every_exposure() -> None:
    assert drawn(FrameChoice(3, 0.03), 0.010) == [0, 3, 7] * 20


def test_the_rate_wanted_is_kept_to() -> None:
    assert drawn(FrameChoice(2, 0.03), 0.010) == [3, 7] * 20
    assert drawn(FrameChoice(1, 0.03), 0.010) == [7] * 20


def test_who_is_slow_takes_what_serves_control_steps() -> None:
    choice = FrameChoice(3, 0.03)
    assert drawn(choice, 0.050) == [7] * 20
    assert choice.left_out >= 40


def test_in_slow_time_there_is_time_for_all() -> None:
    assert drawn(FrameChoice(3, 0.03), 0.040, rtf=0.5) == [0, 3, 7] * 20


def test_in_fast_time_less_is_taken() -> None:
    assert drawn(FrameChoice(3, 0.03), 0.010, rtf=4.0) == [7] * 20


def test_where_time_waits_nothing_is_left_out() -> None:
    assert drawn(FrameChoice(3, 0.03, takes_all=True), 0.5) == [0, 3, 7] * 20


def test_a_reset_in_between_says_nothing_about_the_pace() -> None:
    choice = FrameChoice(3, 0.03)
    drawn(choice, 0.010)
    choice.takes(10**12, 2, 1e6)
    choice.takes(10**12 + 3 * TICK_NS, 1, 1e6 + 0.03)
    assert abs(choice.slowness - 1.0) < 0.05
