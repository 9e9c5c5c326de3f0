# SPDX-License-Identifier: Apache-2.0
"""Pairs images of two sources, left and right or depth and colour, by when they were exposed."""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

from numpy.typing import NDArray

from twinloop.perception.image_files import ImageRefused

EYES = ("left", "right")
# Half a period: any more, and after one lost image each would be paired with its partner's
# successor, for good.
MAX_SKEW = 0.5
_WAITING = 4  # images of one source that may wait while the other's are on their way
_CLOCK_STEP_NS = 10**9


class Pair(NamedTuple):
    """Two images of one moment."""

    stamp_ns: int
    """Of the left one, or the first source's."""
    left: NDArray[Any]
    right: NDArray[Any]
    skew_ns: int
    """How much later the right one was exposed."""


@dataclass
class PairCounts:
    """What became of the images.

    Attributes:
        paired: pairs made.
        skewed: images dropped because none of the other source was exposed near enough.
        late: images dropped because they are no newer than the one before.
        refused: images that were not what was expected.
    """

    paired: int = 0
    skewed: int = 0
    late: int = 0
    refused: int = 0


class StereoPairs:
    """Makes pairs of images that come one by one, in the order of their stamps.

    Args:
        period_s: of the sources. Images that are more than half of it apart are no pair.
        sizes: width and height that each source's images must have; none for any.
        names: of the sources, in the order of a pair's fields.

    Raises:
        ValueError: the period is not above 0.
    """

    def __init__(
        self,
        period_s: float,
        sizes: Mapping[str, tuple[int, int]] | None = None,
        names: tuple[str, str] = EYES,
    ) -> None:
        if not 0.0 < period_s < float("inf"):
            raise ValueError(f"period of the images is {period_s} s, expected more than 0")
        self.counts = PairCounts()
        self._max_skew_ns = round(MAX_SKEW * period_s * 1e9)
        self._sizes = dict(sizes or {})
        self._names = names
        self._waiting: dict[str, deque[tuple[int, NDArray[Any]]]] = {}
        self.reset()

    def reset(self) -> None:
        """Forget the images that wait; counts stay."""
        self._waiting = {name: deque() for name in self._names}
        self._newest_ns: dict[str, int | None] = dict.fromkeys(self._names)

    def refuse(self) -> None:
        """Count an image that could not even be read."""
        self.counts.refused += 1

    def feed(self, name: str, stamp_ns: int, image: NDArray[Any]) -> Pair | None:
        """Take an image [H, W(, C)] of a source; returns the pair that it completes.

        Raises:
            ImageRefused: it is empty or not of its source's size; it is counted.
        """
        self._check_size(name, image)
        newest_ns = self._newest_ns[name]
        if newest_ns is not None and stamp_ns <= newest_ns:
            if newest_ns - stamp_ns < _CLOCK_STEP_NS:
                self.counts.late += 1
                return None
            self.reset()  # the clock was set back
        self._newest_ns[name] = stamp_ns
        other = self._names[1 - self._names.index(name)]
        partner = self._partner(other, stamp_ns)
        if partner is None:
            self._wait(name, other, stamp_ns, image)
            return None
        # Whatever waited before these two has missed its partner.
        self.counts.skewed += len(self._waiting[name])
        self._waiting[name].clear()
        self.counts.paired += 1
        ends = {name: (stamp_ns, image), other: partner}
        (left_ns, left), (right_ns, right) = (ends[each] for each in self._names)
        return Pair(left_ns, left, right, right_ns - left_ns)

    def _check_size(self, name: str, image: NDArray[Any]) -> None:
        found = (image.shape[1], image.shape[0]) if image.ndim >= 2 else (0, 0)
        expected = self._sizes.get(name, found)
        if min(found) >= 1 and found == expected:
            return
        self.counts.refused += 1
        if min(found) < 1:
            raise ImageRefused(f"{name} image is empty: an array {list(image.shape)}")
        raise ImageRefused(
            f"{name} image is {found[0]}x{found[1]} pixels, expected {expected[0]}x{expected[1]}"
        )

    def _partner(self, other: str, stamp_ns: int) -> tuple[int, NDArray[Any]] | None:
        """Take the other source's nearest image, and drop those before it."""
        waiting = self._waiting[other]
        nearest = min(waiting, key=lambda item: abs(item[0] - stamp_ns), default=None)
        if nearest is None or abs(nearest[0] - stamp_ns) > self._max_skew_ns:
            return None
        while (item := waiting.popleft()) is not nearest:
            self.counts.skewed += 1
        return item

    def _wait(self, name: str, other: str, stamp_ns: int, image: NDArray[Any]) -> None:
        other_ns = self._newest_ns[other]
        if other_ns is not None and other_ns - stamp_ns > self._max_skew_ns:
            # The other source is past it already.
            self.counts.skewed += 1
            return
        waiting = self._waiting[name]
        waiting.append((stamp_ns, image))
        if len(waiting) > _WAITING:
            waiting.popleft()
            self.counts.skewed += 1
