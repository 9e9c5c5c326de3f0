# SPDX-License-Identifier: Apache-2.0
"""A joint driver behind its command guard, one control period at a time."""

from __future__ import annotations

import contextlib
import time
from collections import deque
from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import ArrayLike

from twinloop.drivers.base import JointDriver, JointReading
from twinloop.drivers.faults import DeviceLost, DriverFault, JointFault, SampleLost
from twinloop.drivers.guard_access import GuardAccess
from twinloop.drivers.loop_requests import LoopRequests
from twinloop.drivers.loop_settings import Cycle, LoopSettings, LoopStatus, State
from twinloop.drivers.loop_timing import LoopTiming
from twinloop.safety.verdict import GuardSettings, GuardState, Verdict

_LOSSES = 500  # newest samples whose losses are told as a share


class GuardedJoints(GuardAccess):
    """What a control loop does in each period, and its states; `DriverLoop` gives it a thread.

    Args: see `DriverLoop`.
    """

    def __init__(
        self,
        driver: JointDriver,
        guard_settings: GuardSettings,
        ros_now: Callable[[], int],
        settings: LoopSettings | None = None,
        on_cycle: Callable[[Cycle], None] = lambda cycle: None,
        on_change: Callable[[], None] = lambda: None,
        steady_now: Callable[[], float] = time.monotonic,
    ) -> None:
        super().__init__(driver.robot, driver.period_s, guard_settings, ros_now, steady_now)
        self.driver = driver
        self.settings = settings or LoopSettings()
        self._on_cycle = on_cycle
        self._on_change = on_change
        self._timing = LoopTiming()
        self._state: State = "idle"
        self._text = "not started"
        self._reading: JointReading | None = None
        self._is_engaged = False
        self._must_recover = False
        self._failing_since_s: float | None = None
        self._lost = self._stalls = self._connects = 0
        self._losses: deque[bool] = deque(maxlen=_LOSSES)
        self._requests = LoopRequests()

    def status(self) -> LoopStatus:
        """Say how it is."""
        return LoopStatus(
            self._state,
            self._text,
            self._reading,
            self._timing,
            self._lost,
            float(np.mean(list(self._losses) or [False])),
            self._stalls,
            self._connects,
        )

    def submit(
        self, names: Sequence[str], positions: ArrayLike, stamp_ns: int, source: str
    ) -> Verdict | None:
        """Hand a command to the guard, as far as coupled joints can follow it."""
        targets = self.driver.reachable(names, np.asarray(positions, np.float64))
        return super().submit(names, targets, stamp_ns, source)

    def rearm(self) -> tuple[bool, str]:
        """End a stop of the guard; a device at fault stays so. See `CommandGuard.rearm`."""
        with self.lock:
            guard, reading = self.guard, self._reading
            if guard is None or reading is None:
                return False, self._text
            if guard.state is GuardState.STOPPED and self._state != "running":
                return False, f"{self._text}: recover first"
            now_ns = self._ros_now()
            was_stopped = guard.state in (GuardState.STOPPED, GuardState.EMERGENCY_STOP)
            done, text = guard.rearm(reading.position, now_ns, self._steady_now())
            if done and was_stopped:
                self._hang_over(reading.position)
                if self._state != "running":
                    guard.stop(self._text, now_ns)
            return done, text

    def connect(self) -> None:
        """Open the device and engage it, or tell why it waits; the loop's thread does it.

        Raises:
            DriverFault: it cannot be opened.
        """
        if self._state not in ("connecting", "fault"):
            self._set("connecting", f"opens {self.driver.name}")
        self._is_engaged = False
        self.driver.connect()
        reading = self.driver.read()
        self._connects += 1
        self._timing.pause()
        self._failing_since_s = None
        with self.lock:
            self._reading = reading
            self._stand(reading.position)
        if self._must_recover:
            self._fault(f"{self.driver.name} is back: recover to go on")
            return
        try:
            guard = self.guard
            assert guard is not None
            if guard.state is GuardState.STOPPED:
                raise DriverFault(f"{guard.reason}: recover to go on")
            self._engage(reading)
        except DriverFault as fault:
            self._fault(str(fault))

    def cycle(self) -> None:
        """Read, guard, write: one period; the loop's thread does it.

        Raises:
            DeviceLost: the device is gone.
        """
        begin_s = self._steady_now()
        self._note_stall(self._timing.begin(begin_s))
        self._requests.serve()
        reading = self._read(begin_s)
        with self.lock:
            guard = self.guard
            assert guard is not None
            stamp_ns = self._ros_now()
            self._losses.append(reading is None)
            if reading is not None:
                self._reading = reading
            setpoint = self._led_back(guard.tick(stamp_ns, self._steady_now()))
        if self._is_engaged:
            try:
                self.driver.write(setpoint)
            except SampleLost:
                self._lost += 1
        self._on_cycle(Cycle(stamp_ns, reading, setpoint))

    def _read(self, begin_s: float) -> JointReading | None:
        try:
            reading = self.driver.read()
        except SampleLost as fault:
            self._lost += 1
            if self._failing_since_s is None:
                self._failing_since_s = begin_s
            silent_s = self._steady_now() - self._failing_since_s
            if silent_s >= self.settings.silent_s and self._state != "fault":
                self._fault(f"no good sample for {silent_s:.2f} s: {fault}")
            return None
        self._failing_since_s = None
        if reading.faults and self._state == "running":
            self._fault(str(JointFault(reading.faults)))
        return reading

    def _note_stall(self, period_s: float) -> None:
        if self._failing_since_s is not None:
            return  # the device was waited for
        late_s = period_s - self.driver.period_s
        if late_s <= self.settings.stall_limit_s:
            return
        self._stalls += 1
        with self.lock:
            if self.guard is not None and self.guard.state is GuardState.ACTIVE:
                reason = f"the control loop stalled for {late_s * 1e3:.0f} ms"
                self.guard.stop(reason, self._ros_now())

    def _recover(self) -> str:
        if self._state == "connecting":
            raise DriverFault(self._text)
        guard = self.guard
        if guard is not None and guard.state is GuardState.EMERGENCY_STOP:
            raise DriverFault(f"{guard.reason}: release it and re-arm first")
        if self._state == "running":
            return "was not at fault"
        try:
            self.driver.recover()
            self._engage(self.driver.read())
        except DeviceLost:
            raise
        except DriverFault as fault:
            self._fault(str(fault))
            raise
        self._failing_since_s = None
        self._timing.pause()
        return "recovered"

    def _stop(self) -> str:
        self._stop_guard("stopped on request")
        if self._state == "connecting":
            self._must_recover = True
            raise DriverFault(f"{self._text}; it will not be engaged before it is recovered")
        self._is_engaged = False
        self._must_recover = True
        try:
            self.driver.stop()
        finally:
            self._set("stopped", "stopped on request: recover to go on")
        return "stopped"

    def _engage(self, reading: JointReading) -> None:
        robot = self.driver.robot
        if reading.faults:
            raise JointFault(reading.faults)
        slack = self.settings.tolerance_rad
        outside = {
            joint: f"stands at {at:.3f} rad, outside {low:g} to {high:g}: "
            "move it by hand, or check its zero"
            for joint, at, low, high in zip(
                robot.joint_names, reading.position, robot.lower, robot.upper, strict=True
            )
            if not low - slack <= at <= high + slack
        }
        if outside:
            raise JointFault(outside)
        with self.lock:
            guard = self.guard
            assert guard is not None
            if guard.state is GuardState.STOPPED:
                done, text = guard.rearm(reading.position, self._ros_now(), self._steady_now())
                if not done:
                    raise DriverFault(text)
            # In an emergency stop the guard stands where it did; the joints stay where they are.
            self._hang_over(reading.position)
        self.driver.engage(reading.position)
        self._is_engaged = True
        self._must_recover = False
        self._set("running", "engaged")

    def _fault(self, text: str) -> None:
        self._must_recover = True
        self._stop_guard(text)
        self._set("fault", text)

    def _lose(self, text: str) -> None:
        """The device is gone, or cannot be opened: stop, and try again later."""
        if self._is_engaged or self._state == "fault":
            self._must_recover = True
        self._is_engaged = False
        if self._must_recover:
            self._stop_guard(text)
        self._set("connecting", text)

    def _set(self, state: State, text: str) -> None:
        if (state, text) != (self._state, self._text):
            self._state, self._text = state, text
            with contextlib.suppress(RuntimeError):
                self._on_change()

    def _is_at_rest(self) -> bool:
        return not self._is_engaged or self._is_guard_at_rest()
