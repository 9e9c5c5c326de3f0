# SPDX-License-Identifier: Apache-2.0
"""Counts the balls by what the cameras see, once they lie still."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from twinloop.perception.tray import TrayOutcome, TraySight
from twinloop.resets.devices import Devices, PalmSight
from twinloop.resets.faults import Fault, StepFailed
from twinloop.resets.machine import Run
from twinloop.resets.settings import ResetSettings

Array = NDArray[np.float64]


@dataclass(frozen=True)
class Count:
    """Where the balls are.

    Attributes:
        tray: centres [3], m, world, of those that lie still; the first one first.
        palm: centres [3], m, palm frame.
        held: in the gripper.
    """

    tray: tuple[Array, ...]
    palm: tuple[Array, ...]
    held: int

    @property
    def total(self) -> int:
        return len(self.tray) + len(self.palm) + self.held


class Sights:
    """Looks, and looks again until two looks agree.

    Args:
        devices: of the cell.
        settings: of the reset.
        run: waits.
    """

    def __init__(self, devices: Devices, settings: ResetSettings, run: Run) -> None:
        self._devices = devices
        self._settings = settings
        self._run = run

    def count(self, holds: bool) -> Count:
        """Return where the balls are, as soon as all of them are seen at rest.

        After `settle_s` it returns those that are.

        Raises:
            StepFailed: one of the cameras shows nothing.
        """
        clock, look = self._devices.clock, self._settings.look
        began_s = clock.now_s()
        sight = self._tray(began_s)
        while True:
            before, looked_s = sight, clock.now_s()
            self._run.pause(look.tray_apart_s)
            sight = self._tray(looked_s)
            tray = self._at_rest(before, sight)
            # What is in the tray is not in the palm, whatever the tracker makes of fingers.
            most = self._settings.balls - len(tray) - int(holds)
            palm = self.palm(look.unseen_s)[: max(most, 0)]
            found = Count(tray, palm, int(holds))
            if found.total >= self._settings.balls:
                return found
            if clock.now_s() - began_s > look.settle_s:
                return found

    def palm(self, patience_s: float) -> tuple[Array, ...]:
        """Return the balls [3], m, palm frame, that lie in the palm in several sights in a row.

        Raises:
            StepFailed: nothing came for that long.
        """
        clock, look = self._devices.clock, self._settings.look
        lower, upper = np.array(look.palm_lower), np.array(look.palm_upper)
        last_s = clock.now_s()
        inside: list[NDArray[np.bool_]] = []
        position = np.zeros((2, 3))
        while len(inside) < look.palm_samples:
            sight = self._palm_sight(last_s, patience_s)
            last_s, position = sight.stamp_s, sight.position
            with np.errstate(invalid="ignore"):  # a ball that was never seen is nowhere
                within = ((position > lower) & (position < upper)).all(axis=-1)
            inside.append(within & ~sight.stale & (sight.speed < look.rest_speed))
        return tuple(position[np.all(inside, axis=0)])

    def _palm_sight(self, after_s: float, patience_s: float) -> PalmSight:
        """Return the first sight of the palm after a time; raises StepFailed for none."""
        clock, palm = self._devices.clock, self._devices.palm
        latest_s = clock.now_s() + patience_s
        self._run.until(lambda: palm.look(after_s) is not None or clock.now_s() > latest_s)
        sight = palm.look(after_s)
        if sight is None:
            raise StepFailed(Fault.PALM_UNSEEN, f"no tracked balls for {patience_s:g} s")
        return sight

    def _tray(self, after_s: float) -> TraySight:
        """Return the first sight of the tray after a time.

        Raises:
            StepFailed: there is none, or the tray cannot be seen in it.
        """
        clock, look = self._devices.clock, self._settings.look
        since_s = clock.now_s()
        outcome = ""

        def is_seen() -> bool:
            nonlocal outcome
            sight = self._devices.tray.look(after_s)
            outcome = "" if sight is None else sight.outcome
            return (
                sight is not None and sight.outcome is not TrayOutcome.BLOCKED
            ) or clock.now_s() - since_s > look.unseen_s

        self._run.until(is_seen)
        sight = self._devices.tray.look(after_s)
        if sight is None or sight.outcome is TrayOutcome.BLOCKED:
            why = "something blocks its view" if outcome else "no image came"
            raise StepFailed(Fault.TRAY_UNSEEN, f"the tray camera: {why} for {look.unseen_s:g} s")
        return sight

    def _at_rest(self, before: TraySight, now: TraySight) -> tuple[Array, ...]:
        """Return the balls of a sight that are where they were in the one before."""
        moved = self._settings.look.tray_moved_m
        found = [
            ball.position
            for ball in now.balls
            if any(np.linalg.norm(ball.position - one.position) < moved for one in before.balls)
        ]
        return tuple(found)
