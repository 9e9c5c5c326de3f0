# SPDX-License-Identifier: Apache-2.0
"""Images of two sources are paired by their stamps, or dropped and counted."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from twinloop.perception.image_files import ImageRefused
from twinloop.perception.stereo_pairs import MAX_SKEW, Pair, StereoPairs

PERIOD_NS = 33_000_000
PERIOD_S = PERIOD_NS * 1e-9
IMAGE = np.zeros((18, 28, 3), np.uint8)
HOUR_NS = 3600 * 10**9


def fed(pairs: StereoPairs, events: list[tuple[str, float]]) -> list[tuple[float, float]]:
    """Feed images with stamps in periods; the stamps of the pairs that come of it."""
    made = []
    for name, periods in events:
        pair = pairs.feed(name, round(periods * PERIOD_NS), IMAGE)
        if pair is not None:
            made.append(stamps(pair))
    return made


def stamps(pair: Pair) -> tuple[float, float]:
    right_ns = pair.stamp_ns + pair.skew_ns
    return round(pair.stamp_ns / PERIOD_NS, 6), round(right_ns / PERIOD_NS, 6)


def eyes(*periods: float) -> list[tuple[str, float]]:
    return [(name, time) for time in periods for name in ("left", "right")]


def test_images_of_one_stamp_are_pairs_in_whatever_order_they_come() -> None:
    pairs = StereoPairs(PERIOD_S)
    assert fed(pairs, [*eyes(0, 1), ("right", 2), ("left", 2)]) == [(0, 0), (1, 1), (2, 2)]
    assert pairs.counts.paired == 3
    assert pairs.counts.skewed == 0


def test_a_pair_holds_left_as_left() -> None:
    pairs = StereoPairs(PERIOD_S)
    assert pairs.feed("right", 5, IMAGE + 2) is None
    pair = pairs.feed("left", 3, IMAGE + 1)
    assert pair is not None
    assert (pair.left[0, 0, 0], pair.right[0, 0, 0], pair.stamp_ns, pair.skew_ns) == (1, 2, 3, 2)


def test_one_eye_may_be_delivered_late() -> None:
    late = [("left", 0), ("left", 1), ("right", 0), ("left", 2), ("right", 1), ("right", 2)]
    pairs = StereoPairs(PERIOD_S)
    assert fed(pairs, late) == [(0, 0), (1, 1), (2, 2)]
    assert pairs.counts.skewed == 0


def test_row_20_a_pair_skewed_by_over_a_period_is_dropped_and_counted() -> None:
    pairs = StereoPairs(PERIOD_S)
    skewed = [("left", 0), ("right", 1.01), ("left", 5), ("right", 6.5)]
    assert fed(pairs, skewed) == []
    assert fed(pairs, eyes(10)) == [(10, 10)]
    assert (pairs.counts.paired, pairs.counts.skewed) == (1, 4)


def test_after_a_lost_image_its_partner_is_not_paired_with_the_next() -> None:
    pairs = StereoPairs(PERIOD_S)
    jitter = 0.02
    events = [*eyes(0), ("left", 1), *eyes(2 - jitter), *eyes(3)]
    assert fed(pairs, events) == [(0, 0), (2 - jitter, 2 - jitter), (3, 3)]
    assert pairs.counts.skewed == 1


@pytest.mark.parametrize("offset", [0.3, 0.45, 0.55, 0.7])
def test_cameras_that_run_freely_are_paired_with_their_nearest(offset: float) -> None:
    pairs = StereoPairs(PERIOD_S)
    events = [event for k in range(50) for event in (("left", k), ("right", k + offset))]
    made = fed(pairs, events)
    assert len(made) >= 48
    assert all(abs(right - left) <= MAX_SKEW for left, right in made)


def test_a_source_that_is_alone_waits_in_bounded_memory() -> None:
    pairs = StereoPairs(PERIOD_S)
    assert fed(pairs, [("left", k) for k in range(1000)]) == []
    assert pairs.counts.skewed == 996
    assert fed(pairs, [("right", 999)]) == [(999, 999)]


def test_an_image_that_comes_twice_is_taken_once() -> None:
    pairs = StereoPairs(PERIOD_S)
    assert len(fed(pairs, [*eyes(1), *eyes(1), *eyes(0.5), *eyes(2)])) == 2
    assert pairs.counts.late == 4


def test_after_the_clock_was_set_back_pairs_go_on() -> None:
    pairs = StereoPairs(PERIOD_S)
    far = HOUR_NS / PERIOD_NS
    made = fed(pairs, [*eyes(far, far + 1), ("left", far + 2), *eyes(0, 1, 2)])
    assert [left for left, _ in made[2:]] == [0, 1, 2]


def test_depth_and_colour_are_paired_alike() -> None:
    pairs = StereoPairs(PERIOD_S, names=("depth", "color"))
    assert fed(pairs, [("color", 0.1), ("depth", 0), ("depth", 1), ("color", 2.2)]) == [(0, 0.1)]


def test_row_19_an_image_of_another_size_is_refused_and_counted() -> None:
    pairs = StereoPairs(PERIOD_S, {"left": (28, 18), "right": (28, 18)})
    for image, complaint in (
        (IMAGE[:9], "left image is 28x9 pixels, expected 28x18"),
        (IMAGE[:, :0], "left image is empty: an array \\[18, 0, 3\\]"),
        (np.zeros(0, np.uint8), "left image is empty: an array \\[0\\]"),
    ):
        with pytest.raises(ImageRefused, match=complaint):
            pairs.feed("left", 0, image)
    assert pairs.counts.refused == 3
    assert fed(pairs, eyes(0)) == [(0, 0)]


@pytest.mark.parametrize("period_s", [0.0, -1.0, float("nan"), float("inf")])
def test_a_period_that_is_none_is_refused(period_s: float) -> None:
    with pytest.raises(ValueError, match="period of the images"):
        StereoPairs(period_s)


@settings(max_examples=200, deadline=None)
@given(
    st.lists(
        st.tuples(st.sampled_from(["left", "right"]), st.floats(-1e6, 1e6, allow_nan=False)),
        max_size=60,
    )
)
def test_whatever_the_stamps_no_pair_is_skewed_and_no_image_is_lost_count_of(
    events: list[tuple[str, float]],
) -> None:
    pairs = StereoPairs(PERIOD_S)
    for left, right in fed(pairs, events):
        assert abs(left - right) <= MAX_SKEW + 1e-6
    counts = pairs.counts
    assert 2 * counts.paired + counts.skewed + counts.late <= len(events)
