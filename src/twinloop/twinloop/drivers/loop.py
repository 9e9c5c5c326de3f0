# SPDX-License-Identifier: Apache-2.0
"""The control loop of a joint driver: a guard before the device, and a thread of its own."""

from __future__ import annotations

import contextlib
import dataclasses
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from twinloop.drivers.base import JointDriver, JointReading
from twinloop.drivers.faults import DeviceLost, DriverFault, JointFault, SampleLost
from twinloop.drivers.loop_timing import LoopTiming
from twinloop.safety.guard import CommandGuard
from twinloop.safety.verdict import GoalChange, GuardSettings, GuardState, Verdict

Array = NDArray[np.float64]
State = Literal["idle", "connecting", "running", "stopped", "fault", "crashed"]

_LOSSES = 500  # newest samples whose losses are told as a share
_SETTLE_S = 0.5  # for a motion to come to rest when the loop ends
_EASE = 0.2  # share of a joint's speed at which it is led back inside its limits


@dataclass(frozen=True)
class LoopSettings:
    """How patient a control loop is.

    Attributes:
        stall_limit_s: a cycle that comes later than this stops a motion, s.
        silent_s: without a good sample for longer the device is at fault, s.
        first_wait_s: before a lost device is opened again, s; doubled each time it fails.
        longest_wait_s: likewise, at most, s.
        tolerance_rad: how far outside its limits a joint may stand to be engaged, rad.
    """

    stall_limit_s: float = 0.03
    silent_s: float = 0.045
    first_wait_s: float = 0.1
    longest_wait_s: float = 2.0
    tolerance_rad: float = 0.1


@dataclass(frozen=True)
class Cycle:
    """One control period.

    Attributes:
        stamp_ns: ROS time of the reading, ns.
        reading: what was measured; None where the sample was lost.
        setpoint: what was written, [J] rad.
    """

    stamp_ns: int
    reading: JointReading | None
    setpoint: Array


@dataclass(frozen=True)
class LoopStatus:
    """What a loop says of itself; `text` is for people."""

    state: State
    text: str
    reading: JointReading | None
    timing: LoopTiming
    lost: int
    lost_share: float
    stalls: int
    connects: int


class DriverLoop:
    """Runs a device behind a command guard.

    Nothing moves when it starts: the joints are held where they were measured to stand. What is
    wrong with the device ends in a fault that latches, with the joints at rest; only `recover` ends
    it. A device that is lost is opened again, and waits for `recover` likewise.

    Public methods may be called from any thread.

    Args:
        driver: the device; its period is the guard's tick.
        guard_settings: of the guard.
        ros_now: ROS time, ns.
        settings: how patient it is.
        on_cycle: called after each cycle, in the loop's thread.
        on_change: called when state or text have changed, in the loop's thread.
        steady_now: the steady clock, s.
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
        self.driver = driver
        self.settings = settings or LoopSettings()
        self.guard: CommandGuard | None = None
        self.lock = threading.RLock()
        self._guard_settings = dataclasses.replace(guard_settings, tick_s=driver.period_s)
        self._ros_now = ros_now
        self._on_cycle = on_cycle
        self._on_change = on_change
        self._steady_now = steady_now
        self._timing = LoopTiming()
        self._state: State = "idle"
        self._text = "not started"
        self._reading: JointReading | None = None
        self._overhang = np.zeros(len(driver.robot.joint_names))
        self._is_engaged = False
        self._must_recover = False
        self._failing_since_s: float | None = None
        self._lost = self._stalls = self._connects = 0
        self._losses: deque[bool] = deque(maxlen=_LOSSES)
        self._requests: list[tuple[Callable[[], str], Future[str]]] = []
        self._ending = threading.Event()
        self._thread: threading.Thread | None = None

    # The life of the loop.

    def start(self) -> None:
        """Begin to open the device, and run."""
        self.halt()
        self._ending.clear()
        self._must_recover = False
        self._thread = threading.Thread(target=self._run, name="driver-loop", daemon=True)
        self._thread.start()

    def halt(self, reason: str = "the driver was deactivated", patience_s: float = 3.0) -> None:
        """Bring the joints to rest, let go of the device and end; joints that hold hold on.

        Raises:
            RuntimeError: a call of the device does not return.
        """
        thread, self._thread = self._thread, None
        if thread is None:
            return
        self.hold(reason)
        self._ending.set()
        thread.join(patience_s)
        if thread.is_alive():
            self._thread = thread
            raise RuntimeError(f"{self.driver.name} has not let go within {patience_s:g} s")

    @property
    def is_alive(self) -> bool:
        """Whether its thread runs."""
        return self._thread is not None and self._thread.is_alive()

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

    # What it is told.

    def submit(
        self, names: Sequence[str], positions: ArrayLike, stamp_ns: int, source: str
    ) -> Verdict | None:
        """Hand a command to the guard; None where there is none yet. See `CommandGuard.submit`."""
        with self.lock:
            if self.guard is None:
                return None
            return self.guard.submit(
                names, positions, stamp_ns, source, self._ros_now(), self._steady_now()
            )

    def emergency_stop(self, is_pressed: bool) -> None:
        """Take one heartbeat of the emergency stop."""
        with self.lock:
            if self.guard is not None:
                self.guard.emergency_stop(is_pressed, self._ros_now(), self._steady_now())

    def hold(self, reason: str) -> None:
        """Come to rest from the next cycle on, and stay until a source commands."""
        with self.lock:
            if self.guard is not None:
                self.guard.hold(reason, self._ros_now())

    def lose_source(self) -> None:
        """The middleware lost a command source."""
        with self.lock:
            if self.guard is not None:
                self.guard.lose_source(self._ros_now())

    def take_changes(self) -> list[GoalChange]:
        """Goals that the guard set by itself since the last call."""
        with self.lock:
            return self.guard.take_changes() if self.guard is not None else []

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

    def recover(self, patience_s: float = 5.0) -> tuple[bool, str]:
        """Clear the device's faults, engage it where it stands and re-arm the guard.

        Returns whether it is done, and why not; after `patience_s` it goes on by itself.
        """
        return self._request(self._recover, patience_s)

    def stop(self, patience_s: float = 5.0) -> tuple[bool, str]:
        """Take the joints' power away until `recover`; returns as that does."""
        return self._request(self._stop, patience_s)

    # The loop's thread.

    def _run(self) -> None:
        wait_s = self.settings.first_wait_s
        while not self._ending.is_set():
            cycles = self._connects
            try:
                self.connect()
                self._cycle_on()
            except DriverFault as fault:
                self._lose(str(fault))
            except Exception as error:
                self._lose(f"{type(error).__name__}: {error}")
                self._set("crashed", self._text)
                break
            finally:
                self.driver.close()
            wait_s = self.settings.first_wait_s if self._connects > cycles else wait_s
            self._serve_requests()
            self._ending.wait(wait_s)
            wait_s = min(2.0 * wait_s, self.settings.longest_wait_s)
        self._is_engaged = False
        if self._state != "crashed":
            self._set("idle", "not running")

    def _cycle_on(self) -> None:
        due_s = self._steady_now()
        ends_s = float("inf")
        while True:
            if self._ending.is_set():
                ends_s = min(ends_s, self._steady_now() + _SETTLE_S)
                if self._is_at_rest() or self._steady_now() >= ends_s:
                    return
            self.cycle()
            due_s = max(due_s + self.driver.period_s, self._steady_now())
            # Not the event of the end: a motion that ends is ended in regular cycles too.
            time.sleep(max(0.0, due_s - self._steady_now()))

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
        self._serve_requests()
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

    # What may be asked of it.

    def _request(self, action: Callable[[], str], patience_s: float) -> tuple[bool, str]:
        if not self.is_alive:
            return False, "the driver is not active"
        answer: Future[str] = Future()
        with self.lock:
            self._requests.append((action, answer))
        try:
            return True, answer.result(patience_s)
        except DriverFault as fault:
            return False, str(fault)
        except TimeoutError:
            return False, f"under way, not done within {patience_s:g} s: {self._text}"

    def _serve_requests(self) -> None:
        while self._requests:
            with self.lock:
                action, answer = self._requests.pop(0)
            try:
                text = action()
            except DeviceLost as fault:
                answer.set_exception(fault)
                raise
            except DriverFault as fault:
                answer.set_exception(fault)
            else:
                answer.set_result(text)

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
        with self.lock:
            if self.guard is not None:
                self.guard.stop("stopped on request", self._ros_now())
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

    # Standing, engaging, faults.

    def _stand(self, position: Array) -> None:
        """Have the guard stand where the joints do; a stop of it stays one."""
        old = self.guard
        if old is None:
            self.guard = CommandGuard(self.driver.robot, self._guard_settings, position)
        elif old.state in (GuardState.HOLDING, GuardState.ACTIVE):
            old.restart(position, self._ros_now(), "connected")

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
        with self.lock:
            if self.guard is not None:
                self.guard.stop(text, self._ros_now())
        self._set("fault", text)

    def _lose(self, text: str) -> None:
        """The device is gone, or cannot be opened: stop, and try again later."""
        if self._is_engaged or self._state == "fault":
            self._must_recover = True
        self._is_engaged = False
        with self.lock:
            if self.guard is not None and self._must_recover:
                self.guard.stop(text, self._ros_now())
        self._set("connecting", text)

    def _set(self, state: State, text: str) -> None:
        if (state, text) != (self._state, self._text):
            self._state, self._text = state, text
            with contextlib.suppress(RuntimeError):
                self._on_change()

    # Joints that do not stand where the guard does, outside their limits say, stay where they are;
    # once commanded they are led back without a jump.

    def _hang_over(self, position: Array) -> None:
        assert self.guard is not None
        self._overhang = position - self.guard.applied

    def _led_back(self, setpoint: Array) -> Array:
        assert self.guard is not None
        if not self._overhang.any():
            return setpoint
        if self.guard.state is GuardState.ACTIVE:
            step = _EASE * self.driver.robot.velocity * self.driver.period_s
            self._overhang -= np.clip(self._overhang, -step, step)
        return setpoint + self._overhang

    def _is_at_rest(self) -> bool:
        guard = self.guard
        return (
            not self._is_engaged
            or guard is None
            or bool(np.array_equal(guard.applied, np.clip(guard.goal, *self._limits)))
        )

    @property
    def _limits(self) -> tuple[Array, Array]:
        return self.driver.robot.lower, self.driver.robot.upper
