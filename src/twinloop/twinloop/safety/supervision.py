# SPDX-License-Identifier: Apache-2.0
"""Brings nodes up in order, notices those that die or hang, and says what to do about it.

No ROS here: heartbeats and the ends of transitions come in, transitions and kills to carry out come
out. All times are seconds on one steady clock.

A node depends on others. It is brought up when they are active, and deactivated when one of them is
lost. A node that stops itself, or is stopped by an operator, is alive to be asked: that alone stops
nobody else. A process that died comes back through its launcher, under a new process id; one that
hangs is killed first. A node that was lost more often than the policy allows is given up: it stays
stopped, and so does what depends on it.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import Enum
from typing import Literal

from twinloop.safety.supervision_policy import Policy

TransitionKind = Literal["configure", "activate", "deactivate"]
Level = Literal["info", "warn", "error"]
_RESULT: dict[TransitionKind, str] = {
    "configure": "inactive",
    "activate": "active",
    "deactivate": "inactive",
}


class Phase(Enum):
    """Where a node stands, as the supervisor sees it."""

    ABSENT = "absent"
    INACTIVE = "inactive"
    ACTIVE = "active"
    FAILED = "given up"


@dataclass(frozen=True)
class Heartbeat:
    """What a node said of itself."""

    node: str
    host: str
    pid: int
    state: str
    """Lifecycle state."""
    fault: str = ""
    """Not empty: it cannot work, and why."""


@dataclass(frozen=True)
class Transition:
    """Ask a node for a lifecycle transition."""

    node: str
    kind: TransitionKind


@dataclass(frozen=True)
class Kill:
    """Kill a process that no longer answers, if it still is that node's."""

    node: str
    host: str
    pid: int


@dataclass(frozen=True)
class Event:
    """Something to tell the operator."""

    level: Level
    text: str


@dataclass
class _Watched:
    name: str
    depends_on: tuple[str, ...]
    absent_since_s: float
    phase: Phase = Phase.ABSENT
    state: str = "unknown"
    host: str = ""
    pid: int | None = None
    last_beat_s: float | None = None
    pending: TransitionKind | None = None
    pending_since_s: float = 0.0
    ignore_state_until_s: float = 0.0
    retry_at_s: float = 0.0
    restarts_s: deque[float] = field(default_factory=deque)
    was_active: bool = False
    is_wanted: bool = True
    has_stopped_itself: bool = False
    must_be_killed: bool = False
    killed_pid: int | None = None
    reason: str = ""


class Supervision:
    """Watches nodes and decides.

    Args:
        nodes: names in the order in which they are brought up.
        dependencies: for a node, those it depends on. One that is not a key depends on all that
            stand before it in `nodes`.
        policy: times and bounds.
        now_s: the time at which the watch begins.

    Raises:
        ValueError: a name that repeats or is unknown, or a node that depends on a later one.
    """

    def __init__(
        self,
        nodes: Sequence[str],
        dependencies: Mapping[str, Sequence[str]],
        policy: Policy,
        now_s: float,
    ) -> None:
        if len(set(nodes)) != len(nodes):
            raise ValueError(f"a supervised node is named twice in {list(nodes)}")
        for name in dependencies:
            if name not in nodes:
                raise ValueError(f"dependencies name '{name}', which is not among {list(nodes)}")
        self._policy = policy
        self._watched: dict[str, _Watched] = {}
        self._events: list[Event] = []
        self._last_tick_s = now_s
        for index, name in enumerate(nodes):
            before = tuple(nodes[:index])
            depends_on = tuple(dependencies.get(name, before))
            for other in depends_on:
                if other not in before:
                    raise ValueError(
                        f"'{name}' depends on '{other}', which does not stand before it in "
                        f"{list(nodes)}"
                    )
            self._watched[name] = _Watched(name, depends_on, absent_since_s=now_s)

    @property
    def phases(self) -> dict[str, Phase]:
        return {watched.name: watched.phase for watched in self._watched.values()}

    @property
    def failures(self) -> dict[str, str]:
        """Return the nodes that were given up, each with the reason."""
        return {w.name: w.reason for w in self._watched.values() if w.phase is Phase.FAILED}

    @property
    def restarts(self) -> dict[str, int]:
        """Return how often each node was restarted within the window."""
        return {watched.name: len(watched.restarts_s) for watched in self._watched.values()}

    @property
    def is_up(self) -> bool:
        """Whether every node was active once, or will not be."""
        return all(_is_settled(watched) for watched in self._watched.values())

    def take_events(self) -> list[Event]:
        """Return what happened since the last call."""
        events, self._events = self._events, []
        return events

    def heartbeat(self, beat: Heartbeat, now_s: float) -> None:
        """Take in a heartbeat; one of a node that is not watched is ignored."""
        watched = self._watched.get(beat.node)
        if watched is None:
            return
        if (watched.host, watched.pid) != (beat.host, beat.pid):
            self._take_new_process(watched, beat, now_s)
        elif watched.phase is Phase.ABSENT and beat.state != "finalized":
            self._tell("info", f"{watched.name} answers again")
        if beat.state == "finalized":
            # Its last word: nothing leads out of this state but a new process.
            if watched.phase in (Phase.INACTIVE, Phase.ACTIVE):
                self._lose(watched, "has ended", now_s, "info")
            return
        watched.last_beat_s = now_s
        pending = watched.pending
        if pending and beat.state == _RESULT[pending] != watched.state:
            # The answer to the request was lost, or is still under way.
            self.transition_ended(beat.node, pending, True, now_s)
        elif pending is None and now_s >= watched.ignore_state_until_s:
            self._take_state(watched, beat, now_s)
        if watched.phase is not Phase.FAILED:
            watched.phase = Phase.ACTIVE if watched.state == "active" else Phase.INACTIVE
            watched.was_active |= watched.phase is Phase.ACTIVE

    def transition_ended(
        self, node: str, kind: TransitionKind, succeeded: bool, now_s: float
    ) -> None:
        """Take in a node's answer to a transition that `tick` asked for."""
        watched = self._watched[node]
        if watched.pending != kind:
            return
        watched.pending = None
        watched.last_beat_s = now_s
        if not succeeded:
            # A node that will not stop is stopped from outside.
            watched.must_be_killed |= kind == "deactivate"
            self._set_back(watched, f"could not {kind}", now_s)
            return
        watched.state = _RESULT[kind]
        watched.has_stopped_itself = False
        # Heartbeats that left the node before its transition may still arrive.
        watched.ignore_state_until_s = now_s + 0.3
        self._tell("info", f"{node}: {kind} done")
        if watched.phase is not Phase.FAILED:
            watched.phase = Phase.ACTIVE if watched.state == "active" else Phase.INACTIVE
            watched.was_active |= watched.phase is Phase.ACTIVE

    def transition_not_sent(self, node: str) -> None:
        """Take back a transition that could not be asked for; it is tried again."""
        self._watched[node].pending = None

    def tick(self, now_s: float) -> list[Transition | Kill]:
        """Return what is to be done now; call some twenty times a second."""
        self._forgive_own_stall(now_s)
        for watched in self._watched.values():
            self._check_silence(watched, now_s)
        kills = [kill for w in self._watched.values() if (kill := self._kill(w, now_s))]
        transitions: list[Transition | Kill] = []
        earlier_are_up = True
        for watched in self._watched.values():
            kind = self._wanted_transition(watched, earlier_are_up, now_s)
            if kind is not None:
                watched.pending, watched.pending_since_s = kind, now_s
                transitions.append(Transition(watched.name, kind))
            earlier_are_up &= _is_settled(watched)
        # First what stops, then what starts.
        transitions.sort(key=lambda action: getattr(action, "kind", "") != "deactivate")
        return [*kills, *transitions]

    def _take_new_process(self, watched: _Watched, beat: Heartbeat, now_s: float) -> None:
        was_known = watched.pid is not None
        if was_known and watched.phase in (Phase.INACTIVE, Phase.ACTIVE):
            self._lose(watched, "its process was replaced", now_s)
        watched.host, watched.pid = beat.host, beat.pid
        watched.pending = None
        watched.must_be_killed = False
        watched.is_wanted, watched.has_stopped_itself = True, False
        watched.state = beat.state
        watched.ignore_state_until_s = 0.0
        watched.retry_at_s = now_s + self._policy.settle_s
        if was_known and watched.phase is not Phase.FAILED:
            watched.restarts_s.append(now_s)
            self._tell("warn", f"{watched.name} is back after restart {len(watched.restarts_s)}")

    def _take_state(self, watched: _Watched, beat: Heartbeat, now_s: float) -> None:
        stopped = watched.phase is Phase.ACTIVE and beat.state == "inactive"
        watched.state = beat.state
        watched.has_stopped_itself |= stopped
        if beat.state == "active":
            watched.is_wanted, watched.has_stopped_itself = True, False
        elif stopped and beat.fault:
            self._set_back(watched, f"stopped itself: {beat.fault}", now_s)
        elif stopped:
            watched.is_wanted = False
            self._tell("warn", f"{watched.name} was deactivated by someone else; left so")

    def _forgive_own_stall(self, now_s: float) -> None:
        # Heartbeats wait unread while the supervisor itself is held up.
        stall_s = now_s - self._last_tick_s - 0.2
        self._last_tick_s = now_s
        if stall_s <= 0.0:
            return
        for watched in self._watched.values():
            if watched.last_beat_s is not None:
                watched.last_beat_s += stall_s
            watched.pending_since_s += stall_s

    def _check_silence(self, watched: _Watched, now_s: float) -> None:
        policy = self._policy
        while watched.restarts_s and now_s - watched.restarts_s[0] > policy.restart_window_s:
            watched.restarts_s.popleft()
        if watched.phase is Phase.ABSENT:
            if now_s - watched.absent_since_s > policy.start_timeout_s:
                self._give_up(watched, f"no heartbeat within {policy.start_timeout_s:g} s")
            return
        if watched.last_beat_s is None:
            return
        silence_s = now_s - watched.last_beat_s
        if watched.pending is not None:
            waited_s = now_s - watched.pending_since_s
            beat_since = (
                watched.last_beat_s - watched.pending_since_s > policy.request_timeout_s / 2
            )
            if waited_s > policy.request_timeout_s and beat_since:
                watched.pending = None
            elif waited_s <= (
                policy.stop_timeout_s
                if watched.pending == "deactivate"
                else policy.transition_timeout_s
            ):
                return
        if silence_s > policy.heartbeat_timeout_s and watched.phase is not Phase.FAILED:
            self._lose(watched, f"no heartbeat for {silence_s:.2f} s", now_s)

    def _kill(self, watched: _Watched, now_s: float) -> Kill | None:
        if watched.pid is None or watched.killed_pid == watched.pid or watched.pending:
            return None
        is_lost = watched.phase in (Phase.ABSENT, Phase.FAILED) and watched.last_beat_s is not None
        is_hung = is_lost and now_s - (watched.last_beat_s or 0.0) > self._policy.kill_after_s
        if not (is_hung or watched.must_be_killed):
            return None
        watched.killed_pid = watched.pid
        return Kill(watched.name, watched.host, watched.pid)

    def _wanted_transition(
        self, watched: _Watched, earlier_are_up: bool, now_s: float
    ) -> TransitionKind | None:
        if watched.pending is not None or now_s < watched.retry_at_s or watched.last_beat_s is None:
            return None
        others = [self._watched[name] for name in watched.depends_on]
        can_work = all(
            other.phase is Phase.ACTIVE
            or (watched.phase is Phase.ACTIVE and self._has_only_paused(other))
            for other in others
        )
        if watched.phase is Phase.FAILED:
            is_beating = now_s - watched.last_beat_s <= self._policy.heartbeat_timeout_s
            return "deactivate" if watched.state == "active" and is_beating else None
        if watched.phase is Phase.ACTIVE:
            return None if can_work else "deactivate"
        if watched.phase is Phase.ABSENT or not can_work or not watched.is_wanted:
            return None
        if not (watched.was_active or earlier_are_up):
            return None
        if watched.state == "unconfigured":
            return "configure"
        return "activate" if watched.state == "inactive" else None

    def _has_only_paused(self, watched: _Watched) -> bool:
        return watched.phase is Phase.INACTIVE and watched.has_stopped_itself

    def _lose(self, watched: _Watched, reason: str, now_s: float, level: Level = "error") -> None:
        watched.phase = Phase.ABSENT
        watched.absent_since_s = now_s
        watched.pending = None
        self._tell(level, f"{watched.name}: {reason}")
        if len(watched.restarts_s) >= self._policy.max_restarts:
            self._give_up(watched, self._too_often(watched, reason))

    def _set_back(self, watched: _Watched, reason: str, now_s: float) -> None:
        self._tell("error", f"{watched.name} {reason}")
        watched.retry_at_s = now_s + self._policy.retry_delay_s
        if len(watched.restarts_s) >= self._policy.max_restarts:
            self._give_up(watched, self._too_often(watched, reason))
        else:
            watched.restarts_s.append(now_s)

    def _too_often(self, watched: _Watched, reason: str) -> str:
        return (
            f"{reason}, after {len(watched.restarts_s)} restarts in "
            f"{self._policy.restart_window_s:g} s"
        )

    def _give_up(self, watched: _Watched, reason: str) -> None:
        if watched.phase is not Phase.FAILED:
            watched.phase = Phase.FAILED
            watched.reason = reason
            self._tell("error", f"{watched.name} is given up: {reason}")

    def _tell(self, level: Level, text: str) -> None:
        self._events.append(Event(level, text))


def _is_settled(watched: _Watched) -> bool:
    return watched.was_active or watched.phase is Phase.FAILED or not watched.is_wanted
