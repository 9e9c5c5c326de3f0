# SPDX-License-Identifier: Apache-2.0
"""Synergies and single joints of the hand, and the file that names them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from twinloop.paths import share
from twinloop.robots.hand24 import HAND24
from twinloop.teleop.hand import HandJog
from twinloop.teleop.settings import HAND_CHOSEN, load_settings

SETTINGS = load_settings()
HAND = SETTINGS.hand
CUP = HAND24.poses["cup"]
DT = 0.02


def moved(jog: HandJog, motions: dict[str, float], seconds: float) -> np.ndarray:
    """Targets [T, 24] of a pilot whom the guard follows at once."""
    targets = [CUP]
    for _ in range(round(seconds / DT)):
        targets.append(jog.step(motions, targets[-1], DT))
    return np.array(targets)


@pytest.mark.parametrize("name", sorted(HAND.synergies))
def test_a_synergy_moves_its_joints_alone_no_faster_than_allowed(name: str) -> None:
    targets = moved(HandJog(HAND), {f"hand/{name}": 1.0}, 1.0)
    speed = np.diff(targets, axis=0) / DT
    assert np.abs(speed).max() <= HAND.joint_speed + 1e-9
    assert np.abs(np.diff(speed, axis=0)).max() <= 2 * HAND.joint_speed  # at a limit it ends
    went = {j for j, d in zip(HAND24.joint_names, np.ptp(targets, axis=0), strict=True) if d}
    assert went
    assert went <= set(HAND.synergies[name])
    assert (targets >= HAND24.lower).all()
    assert (targets <= HAND24.upper).all()


def test_targets_begin_slowly_and_where_the_hand_is() -> None:
    targets = moved(HandJog(HAND), {"hand/close": 1.0}, 0.5)
    speed = np.abs(np.diff(targets, axis=0)).max(axis=1) / DT
    assert speed[0] <= HAND.acceleration * DT + 1e-9
    assert speed[-1] == pytest.approx(HAND.joint_speed)
    assert (np.diff(speed) <= HAND.acceleration * DT + 1e-9).all()


def test_single_joints_are_moved_by_name_or_by_choice() -> None:
    jog = HandJog(HAND)
    targets = moved(jog, {"joint/rh_MFJ3": 1.0}, 0.5)
    assert np.flatnonzero(np.ptp(targets, axis=0)).tolist() == [HAND24.joint_names.index("rh_MFJ3")]
    jog.rest()
    jog.choose(-1)
    assert jog.chosen_joint == "rh_THJ1"
    targets = moved(jog, {HAND_CHOSEN: -1.0, "arm/x": 1.0}, 0.5)
    assert np.flatnonzero(np.ptp(targets, axis=0)).tolist() == [23]


def test_a_target_does_not_run_away_from_a_hand_that_is_held() -> None:
    jog = HandJog(HAND)
    for _ in range(200):
        target = jog.step({"hand/close": 1.0}, CUP, DT)
        assert np.abs(target - CUP).max() <= HAND.lead_rad + 1e-9
    far = CUP - np.where(np.arange(24) == 5, 3 * HAND.lead_rad, 0.0)
    assert (jog.step({}, far, DT) == np.clip(far, HAND24.lower, HAND24.upper)).all()
    jog.rest()
    assert (jog.step({}, CUP, DT) == CUP).all()


def test_the_pilots_speed_is_not_the_planners() -> None:
    from twinloop.contract.baoding import JOINT_SPEED

    assert HAND.joint_speed < JOINT_SPEED


@pytest.mark.parametrize(
    ("before", "after", "why"),
    [
        ("rh_FFJ4: -1.0", "rh_FFJ9: -1.0", "synergy spread: no joint 'rh_FFJ9' in hand24"),
        ("w: hand/close", "w: hand/clsoe", "no motion or order 'hand/clsoe'"),
        ("timeout_s: 0.05", "timeout_s: 0.5", "timeout_s: .* less than or equal to 0.1"),
        ("stop_at_m: 0.02", "stop_at_m: 0.2", "stop_at_m is 0.2, expected less than slow_at_m"),
        ("frame: base", "frame: elbow", "arm.frame"),
    ],
)
def test_a_file_that_is_wrong_says_where(before: str, after: str, why: str, tmp_path: Path) -> None:
    text = share("config", "teleop", "cell.yaml").read_text()
    assert before in text
    path = tmp_path / "mine.yaml"
    path.write_text(text.replace(before, after))
    with pytest.raises(ValueError, match=why) as caught:
        load_settings(path)
    assert str(path) in str(caught.value)
