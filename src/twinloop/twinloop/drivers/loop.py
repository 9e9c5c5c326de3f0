# SPDX-License-Identifier: Apache-2.0
"""The control loop of a joint driver: a guard before the device, and a thread of its own."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

from twinloop.drivers.base import JointDriver
from twinloop.drivers.faults import DriverFault
from twinloop.drivers.guarded_joints import GuardedJoints
from twinloop.drivers.loop_settings import Cycle, LoopSettings, LoopStatus
from twinloop.safety.verdict import GuardSettings

__all__ = ["Cycle", "DriverLoop", "LoopSettings", "LoopStatus"]

_SETTLE_S = 0.5  # for a motion to come to rest when the loop ends


class DriverLoop(GuardedJoints):
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
        super().__init__(driver, guard_settings, ros_now, settings, on_cycle, on_change, steady_now)
        self._ending = threading.Event()
        self._thread: threading.Thread | None = None

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

    def recover(self, patience_s: float = 5.0) -> tuple[bool, str]:
        """Clear the device's faults, engage it where it stands and re-arm the guard.

        Returns whether it is done, and why not; after `patience_s` it goes on by itself.
        """
        return self._ask(self._recover, patience_s)

    def stop(self, patience_s: float = 5.0) -> tuple[bool, str]:
        """Take the joints' power away until `recover`; returns as that does."""
        return self._ask(self._stop, patience_s)

    def _ask(self, action: Callable[[], str], patience_s: float) -> tuple[bool, str]:
        if not self.is_alive:
            return False, "the driver is not active"
        return self._requests.ask(action, patience_s, lambda: self._text)

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
            self._requests.serve()
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
