# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import math

import numpy as np
import orbiting_balls as orbit
import pytest
import torch
from twinloop.learning.episode import Episode
from twinloop.learning.gate import Decision, GateConfig, NotEnoughHeldOut, judge, score

CONTRACT = orbit.contract()
HELD_OUT = [orbit.episode(seed) for seed in range(4)]


def test_errors_are_distances_in_millimetres_after_one_and_seven_steps():
    off = score(orbit.Known(turn=orbit.TURN, offset_m=0.001), HELD_OUT, CONTRACT)
    # All three axes are off by 1 mm after one step.
    assert off.one_step_mm == pytest.approx(math.sqrt(3), rel=1e-3)
    exact = score(orbit.Known(), HELD_OUT, CONTRACT)
    assert exact.seven_step_mm == pytest.approx(0, abs=1e-4)
    still = score(None, HELD_OUT, CONTRACT)
    chord = 2 * 30 * math.sin(7 * orbit.TURN / 2)
    assert still.seven_step_mm == pytest.approx(chord, rel=0.15)


def test_windows_fall_into_bands_by_the_line_through_the_balls():
    episode = orbit.episode(0, steps=20, radius_m=0.03)
    fixed = np.tile(episode.observations[:1], (21, 1))
    angle = math.radians(100)  # half a turn more is the same band
    line = np.array([math.cos(angle), 0, math.sin(angle)]) * 0.03
    fixed[:, 1:4], fixed[:, 4:7] = -line, line
    held = Episode(fixed, episode.actions)
    bands = score(None, [held], CONTRACT, GateConfig(total_windows=1, band_windows=5)).bands
    assert [band.windows for band in bands] == [0, 0, 0, 14, 0, 0]
    assert (bands[3].from_deg, bands[3].to_deg, bands[3].seven_step_mm) == (90, 120, 0.0)
    assert bands[0].seven_step_mm is None


def test_a_better_model_is_promoted_and_the_record_has_every_figure():
    better, worse = orbit.Known(offset_m=0.0005), orbit.Known(offset_m=0.001)
    decision = judge(better, worse, "v0003", HELD_OUT, CONTRACT)
    assert decision.verdict == "promoted"
    assert decision.compared_with == "v0003"
    assert decision.held_out == tuple(f"orbit-{n:04d}" for n in range(4))
    assert decision.running is not None
    assert decision.running.one_step_mm == pytest.approx(2 * decision.candidate.one_step_mm)
    assert Decision.model_validate_json(decision.model_dump_json()) == decision


@pytest.mark.parametrize("offset_m", [0.001, 0.002])
def test_an_equal_or_worse_model_is_rejected(offset_m):
    decision = judge(
        orbit.Known(offset_m=offset_m), orbit.Known(offset_m=0.001), "v0001", HELD_OUT, CONTRACT
    )
    assert decision.verdict == "rejected"
    assert "seven-step error over bands" in decision.reason


def stuck_at(angle_deg: float, steps: int) -> Episode:
    """Return an episode in which nothing moves."""
    angle = math.radians(angle_deg)
    line = np.array([math.cos(angle), 0, math.sin(angle)]) * 0.03
    row = np.concatenate([[0.0], line, -line])
    return Episode(np.tile(row, (steps + 1, 1)), np.zeros((steps, 1)), {"episode_id": "stuck"})


class OffByBand(orbit.Known):
    """Predicts no motion, but for an error in the band of 60-90 deg and another elsewhere."""

    def __init__(self, there_m: float, elsewhere_m: float) -> None:
        super().__init__(turn=0.0)
        self._errors = there_m, elsewhere_m

    def predict(self, observation, action):
        result = super().predict(observation, action)
        there = torch.atan2(observation[..., 3], observation[..., 1]) > math.radians(60)
        result[..., 2] += torch.where(there, *self._errors)
        return result


def test_a_model_that_is_better_only_where_the_hand_is_stuck_is_rejected():
    # The mean over all windows falls, because most of them are in the first band.
    held_out = [stuck_at(15, 400), stuck_at(75, 60)]
    candidate, running = OffByBand(0.0015, 0.0008), OffByBand(0.001, 0.001)
    decision = judge(candidate, running, "v0001", held_out, CONTRACT)
    assert decision.candidate.seven_step_mm < decision.running.seven_step_mm
    assert decision.verdict == "rejected"
    assert "over bands" in decision.reason


def test_a_model_that_loses_too_much_in_one_band_is_rejected():
    held_out = [stuck_at(15, 400), stuck_at(75, 60)]
    candidate, running = OffByBand(0.0015, 0.0002), OffByBand(0.001, 0.001)
    decision = judge(candidate, running, "v0001", held_out, CONTRACT)
    assert decision.candidate.seven_step_banded_mm < decision.running.seven_step_banded_mm
    assert decision.verdict == "rejected"
    assert "at 60-90 deg" in decision.reason


@pytest.mark.parametrize("running", [None, orbit.Known(offset_m=0.001)])
def test_nan_predictions_are_never_promoted(running):
    decision = judge(orbit.Known(offset_m=math.nan), running, "v0001", HELD_OUT, CONTRACT)
    assert decision.verdict == "rejected"
    assert "NaN" in decision.reason
    assert decision.candidate.one_step_mm is None


def test_nan_in_one_place_is_enough_to_be_rejected():
    class SometimesNan(orbit.Known):
        def predict(self, observation, action):
            result = super().predict(observation, action)
            result[:, 0] = math.nan
            return result

    decision = judge(SometimesNan(), orbit.Known(offset_m=0.001), "v0001", HELD_OUT, CONTRACT)
    assert decision.verdict == "rejected"


def test_without_a_running_model_it_has_to_beat_no_motion():
    assert judge(orbit.Known(), None, None, HELD_OUT, CONTRACT).verdict == "promoted"
    backwards = judge(orbit.Known(turn=-orbit.TURN), None, None, HELD_OUT, CONTRACT)
    assert backwards.verdict == "rejected"
    assert "no motion" in backwards.reason


def test_a_finite_model_replaces_one_that_predicts_nan():
    decision = judge(orbit.Known(), orbit.Known(offset_m=math.nan), "v0001", HELD_OUT, CONTRACT)
    assert decision.verdict == "promoted"


def test_too_few_held_out_steps_are_an_error_that_says_how_many():
    with pytest.raises(NotEnoughHeldOut, match="4 windows of 7 steps, expected at least 40"):
        judge(orbit.Known(), None, None, [orbit.episode(0, steps=10)], CONTRACT)
