# SPDX-License-Identifier: Apache-2.0
"""One row of the fault matrix, as a test measures it."""

from __future__ import annotations

import math
from collections.abc import Callable

from fault_table import Figure
from stalls import StallProbe

ATTEMPTS = 5


class Row:
    """Keeps what was measured of a row, and asserts its bounds.

    Args:
        number: of the matrix, 1 to 30.
        entry: on what the fault is injected.
        keep: takes each figure.
        repetitions: how often `measure` measures; 0 where it shall only show that it can be met.
        machine: tells when the machine itself stood still.
    """

    def __init__(
        self,
        number: int,
        entry: str,
        keep: Callable[[Figure], None],
        repetitions: int = 0,
        machine: StallProbe | None = None,
    ) -> None:
        self.number = number
        self.entry = entry
        self._keep = keep
        self._repetitions = repetitions
        self._machine = machine

    def measured(
        self,
        what: str,
        value: float,
        unit: str = "",
        at_most: float | None = None,
        at_least: float | None = None,
    ) -> None:
        """State a figure, and assert its bound.

        Raises:
            AssertionError: it is beyond the bound, or not finite.
        """
        self._state(what, [value], unit, at_most, at_least)

    def timed(self, what: str, value: float, unit: str, at_most: float) -> None:
        """State a time that a busy machine prolongs; `make faults` alone asserts its bound."""
        self._state(what, [value], unit, at_most if self.is_kept else None)

    @property
    def is_kept(self) -> bool:
        """Whether figures are to be kept, so that all is set as it is on a robot."""
        return self._repetitions > 0

    def measure(
        self,
        what: str,
        attempt: Callable[[], float],
        unit: str = "",
        at_most: float | None = None,
        attempts: int = ATTEMPTS,
        most: int | None = None,
        busy_at_most: float | None = None,
    ) -> list[float]:
        """Inject the fault again and again, and assert the bound of all figures.

        A busy machine delays what is measured and never hastens it. So a run of all tests looks for
        one attempt of a few that keeps to the bound. `make faults` asserts it of every repetition
        but those during which the machine itself stood still, which it counts.

        Args:
            attempt: injects the fault once; NaN where that was in vain.
            attempts: of a run of all tests; so many repetitions at least may be void.
            most: repetitions, where one takes long.
            busy_at_most: bound of a run of all tests, where that sets the nodes to be patient.

        Returns:
            The figures, one a repetition.
        """
        if not self._repetitions:
            at_most = at_most if busy_at_most is None else busy_at_most
            found = []
            for _ in range(attempts):
                found.append(attempt())
                if at_most is None or found[-1] <= at_most:
                    break
            best = min((one for one in found if not math.isnan(one)), default=math.nan)
            self._state(what, [best], unit, at_most)
            return [best]
        wanted = min(self._repetitions, most or self._repetitions)
        figures: list[float] = []
        void = 0
        while len(figures) < wanted and void < max(attempts, wanted):
            start = self._machine.now() if self._machine else 0.0
            try:
                figure = attempt()
            except AssertionError:
                if not self._stood_still(start):
                    raise
                figure = math.nan
            is_late = at_most is not None and figure > at_most
            if math.isnan(figure) or (is_late and self._stood_still(start)):
                void += 1
            else:
                figures.append(figure)
        self._state(what, figures, unit, at_most, void=void)
        return figures

    def _stood_still(self, since_s: float) -> bool:
        return self._machine is not None and self._machine.stalled_since(since_s)

    def _state(
        self,
        what: str,
        values: list[float],
        unit: str,
        at_most: float | None = None,
        at_least: float | None = None,
        void: int = 0,
    ) -> None:
        values = [float(value) for value in values]
        figure = Figure(self.number, self.entry, what, tuple(values), unit, at_most, at_least, void)
        self._keep(figure)
        assert figure.holds, f"fault row {self.number}, {self.entry}: {figure.text()}"
