# SPDX-License-Identifier: Apache-2.0
"""A small state machine: named states with a timeout each, retries by the name of the failure.

A state is a method that does its work, waits by `Run.until` and returns the next state's name.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from twinloop.resets.devices import Clock
from twinloop.resets.faults import Fault, StepFailed

DONE = "done"
_FINAL = (Fault.CANCELLED, Fault.STOPPED)  # whoever stops a task means it


@dataclass(frozen=True)
class State:
    """One state.

    Attributes:
        run: does its work; returns the name of the next state, or `DONE`.
        timeout_s: after which it has failed.
        fault: the name of that failure.
        percent: of the task that is done when it begins; where it goes in rounds, of a round.
        again: state that a failure with retries left leads to.
    """

    run: Callable[[], str]
    timeout_s: float
    fault: Fault
    percent: float
    again: str


@dataclass(frozen=True)
class Outcome:
    """How a task ended.

    Attributes:
        fault: None where it succeeded.
        message: one sentence for a person.
        seconds: of robot time.
        failures: that were lived through, and the last one: state and fault of each.
        times: robot time spent in each state, s.
    """

    fault: Fault | None
    message: str
    seconds: float
    failures: tuple[tuple[str, Fault], ...]
    times: Mapping[str, float]

    @property
    def success(self) -> bool:
        return self.fault is None


@dataclass
class Run:
    """One passage through a machine.

    Args:
        clock: tells and passes time.
        poll_s: between two looks at what is waited for.
        watch: called at each of them; raises `StepFailed` where the task cannot go on.
        tell: is told each state's name and percent when it begins.
    """

    clock: Clock
    poll_s: float
    watch: Callable[[], None]
    tell: Callable[[str, float], None] = lambda _name, _percent: None
    _state: str = ""
    _timeout: State | None = None
    _deadline_s: float = float("inf")
    _failures: list[tuple[str, Fault]] = field(default_factory=list)
    _forgiven: int = 0
    _times: defaultdict[str, float] = field(default_factory=lambda: defaultdict(float))

    def through(
        self,
        states: Mapping[str, State],
        start: str,
        retries: Mapping[str, int],
        done: str = "both balls are in the palm",
    ) -> Outcome:
        """Go from state to state until `DONE` or a failure that has no retries left.

        Args:
            done: the message of a success.
        """
        began_s = self.clock.now_s()
        name, fault, message = start, None, done
        while name != DONE:
            state = states[name]
            since_s = self.clock.now_s()
            self._state, self._timeout = name, state
            self._deadline_s = since_s + state.timeout_s
            self.tell(name, state.percent)
            try:
                self.watch()  # a state's first command is not given to who was just stopped
                name = state.run()
            except StepFailed as failure:
                self._failures.append((name, failure.fault))
                counted = self._failures[self._forgiven :]
                many = sum(one == failure.fault for _, one in counted)
                if failure.fault in _FINAL or many > retries.get(failure.fault.value, 0):
                    fault, message = failure.fault, f"{name}: {failure}"
                    break
                name = state.again
            finally:
                self._times[self._state] += self.clock.now_s() - since_s
        self._timeout = None
        seconds = self.clock.now_s() - began_s
        return Outcome(fault, message, seconds, tuple(self._failures), dict(self._times))

    def forgive(self) -> None:
        """Count retries anew: something was achieved."""
        self._forgiven = len(self._failures)

    def until(self, reached: Callable[[], bool], every: Callable[[], None] | None = None) -> None:
        """Wait until something holds; `every` is called at each look before.

        Raises:
            StepFailed: by the watch, or the state's time is over.
        """
        while True:
            self.watch()
            if every is not None:
                every()
            if reached():
                return
            state = self._timeout
            if state is not None and self.clock.now_s() > self._deadline_s:
                raise StepFailed(state.fault, f"took longer than {state.timeout_s:g} s")
            self.clock.wait(self.poll_s)

    def pause(self, seconds: float) -> None:
        """Wait for a time; raises as `until` does."""
        end_s = self.clock.now_s() + seconds - 1e-9
        self.until(lambda: self.clock.now_s() >= end_s)
