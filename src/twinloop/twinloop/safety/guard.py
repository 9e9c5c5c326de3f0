# SPDX-License-Identifier: Apache-2.0
"""The command guard: every command to a robot or twin passes it, and nothing reaches a joint else.

It knows no ROS. Its caller hands it commands as they arrive (`submit`), emergency-stop heartbeats
(`emergency_stop`), and calls `tick` at the device's rate; what `tick` returns goes to the device.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray

from twinloop.robots.base import Robot
from twinloop.safety.braking import braking
from twinloop.safety.limits import limit_goal
from twinloop.safety.ramp import Ramp
from twinloop.safety.stamps import Freshness, StampJudge
from twinloop.safety.verdict import (
    GoalChange,
    GuardCounters,
    GuardSettings,
    GuardState,
    Refusal,
    Verdict,
)
from twinloop.safety.watchdog import Watchdog

Array = NDArray[np.float64]

_WATCH_S = 0.02
_STALL_S = 0.05


class CommandGuard:
    """Lets one source at a time move the joints, inside every limit, and stops when in doubt.

    A command is refused whole or accepted whole. Accepted targets are clamped to the position
    limits and to one step's change from the last goal; the joints then follow a `Ramp`, so
    velocity, acceleration and jerk are limited whatever the commands were.

    Silence of the source ends in a hold, as its own wish does, from which its next command goes
    on. A hold brakes as hard as the limits allow (`braking`). The emergency stop latches: only
    `rearm`, after the release, ends it. ROS time (ns) dates commands; steady time (s) drives every
    watchdog.

    Args:
        robot: joints, order and limits.
        settings: times and speeds.
        position: where the joints stand, [J] rad. Nothing moves until a command is accepted.

    Raises:
        ValueError: a position that is not finite or has the wrong length.
    """

    def __init__(self, robot: Robot, settings: GuardSettings, position: ArrayLike) -> None:
        self.robot = robot
        self.settings = settings
        self.counters = GuardCounters()
        self.source = ""
        self.reason = "no command yet"
        self.last_refusal = ""
        self._names = list(robot.joint_names)
        self._index = {name: i for i, name in enumerate(robot.joint_names)}
        self._ramp = Ramp(robot.velocity, robot.acceleration, robot.jerk, settings.tick_s)
        self._max_change = settings.joint_speed * settings.period_s
        self._stamps = StampJudge(settings.max_age_s, settings.max_ahead_s, settings.tick_s)
        self._commands = Watchdog(settings.command_timeout_s)
        self._lease = Watchdog(settings.lease_s)
        self._heartbeat = Watchdog(settings.heartbeat_timeout_s)
        self._watched_s = math.inf
        self._pressed = False
        self._last_stamp_ns: int | None = None
        self._changes: list[GoalChange] = []
        self._repeat_ticks = max(1, round(settings.period_s / settings.tick_s))
        self._goal: Array
        self._trail: Array  # the last three positions [3, J], newest last
        self._braking: list[Array]  # positions on the way to rest
        self._pending: Array | None = None
        self._pending_ticks = 0
        self._ticks_held = 0
        self.state = GuardState.HOLDING
        self._stand(position)
        if settings.requires_emergency_stop:
            self.state = GuardState.EMERGENCY_STOP
            self.reason = "emergency stop not heard yet"

    @property
    def goal(self) -> Array:
        """Newest accepted or held target, [J] rad."""
        return self._goal.copy()

    @property
    def applied(self) -> Array:
        """What the last `tick` returned, [J] rad."""
        return self._applied.copy()

    def pace(self, factor: float) -> None:
        """Scale the patience with the command source: `1 / rtf` for a slow simulation.

        `inf` waits for ever: for a caller that itself waits for each command (lock-step).
        The emergency stop always keeps real time.
        """
        self._commands.scale(factor)
        self._lease.scale(factor)

    def submit(
        self,
        names: Sequence[str],
        positions: ArrayLike,
        stamp_ns: int,
        source: str,
        now_ns: int,
        steady_s: float,
    ) -> Verdict:
        """Judge one command; when accepted, its goal applies from stamp + command delay on.

        Args:
            names: joint names, all of the robot's, in any order.
            positions: targets in the order of `names`, rad.
            stamp_ns: ROS time of the control step it belongs to, ns.
            source: who sends it.
            now_ns: ROS time of the next tick, ns.
            steady_s: steady time, s.
        """
        self._observe(now_ns, steady_s)
        targets = np.array(positions, dtype=np.float64)
        if targets.shape != (len(self._names),):
            return self.refuse(
                Refusal.LENGTH, f"{targets.size} positions, expected {len(self._names)}"
            )
        if names != self._names:
            order = self._order(names)
            if isinstance(order, str):
                return self.refuse(Refusal.NAMES, order)
            targets = targets[order]
        if not np.isfinite(targets).all():
            broken = [n for n, t in zip(self._names, targets, strict=True) if not math.isfinite(t)]
            return self.refuse(Refusal.NON_FINITE, ", ".join(broken))
        if not source:
            return self.refuse(Refusal.UNNAMED, "name the source in header.frame_id")
        freshness, age_ns = self._stamps.judge(stamp_ns, now_ns, steady_s)
        if freshness is not Freshness.FRESH:
            refusal = Refusal.STALE if freshness is Freshness.STALE else Refusal.FUTURE
            return self.refuse(refusal, f"stamp is {age_ns * 1e-9:.3f} s old")
        if self.state is GuardState.EMERGENCY_STOP:
            return self.refuse(Refusal.EMERGENCY_STOP, self.reason)
        if self.state is GuardState.STOPPED:
            return self.refuse(Refusal.STOPPED, self.reason)
        if source != self.source and self.source and not self._lease.is_expired(steady_s):
            return self.refuse(Refusal.FOREIGN, f"{source!r} commands, {self.source!r} has it")
        present_ns = now_ns - age_ns
        if self._last_stamp_ns is not None and present_ns <= self._last_stamp_ns:
            return self.refuse(Refusal.REPEATED, f"{self._last_stamp_ns - present_ns} ns older")
        return self._accept(targets, present_ns, source, now_ns, steady_s)

    def refuse(self, refusal: Refusal, detail: str) -> Verdict:
        """Count a refusal; for callers too, whose message holds no command to submit."""
        counters = self.counters
        counters.refused += 1
        counters.by_reason[refusal] = counters.by_reason.get(refusal, 0) + 1
        counters.non_finite += refusal is Refusal.NON_FINITE
        counters.stale += refusal in (Refusal.STALE, Refusal.FUTURE, Refusal.REPEATED)
        counters.foreign += refusal is Refusal.FOREIGN
        self.last_refusal = f"{refusal}: {detail}"
        return Verdict(None, refusal, self.last_refusal)

    def submit_hold(self, source: str, now_ns: int, steady_s: float) -> Verdict:
        """Let the source come to rest at once: a command without a point.

        It needs no stamp, since late is as good as never for a stop that was wanted before. The
        goal in force is told in any case, see `take_changes`.

        Args: as those of `submit`.
        """
        self._observe(now_ns, steady_s)
        if not source:
            return self.refuse(Refusal.UNNAMED, "name the source in header.frame_id")
        if source != self.source and self.source and not self._lease.is_expired(steady_s):
            return self.refuse(Refusal.FOREIGN, f"{source!r} commands, {self.source!r} has it")
        if self.state is GuardState.ACTIVE:
            self.hold(f"{source!r} holds", now_ns)
        else:
            self._report(now_ns)
        return Verdict(self._goal.copy(), None, self.reason)

    def tick(self, now_ns: int, steady_s: float) -> Array:
        """Advance one tick; returns the positions to apply, [J] rad, inside the limits.

        Args:
            now_ns: ROS time at the start of the tick, ns.
            steady_s: steady time, s.
        """
        self.watch(now_ns, steady_s)
        if self._pending is not None:
            if self._pending_ticks <= 0:
                self._target, self._pending = self._pending, None
            else:
                self._pending_ticks -= 1
        if self.state is not GuardState.EMERGENCY_STOP:
            moved = self._braking.pop(0) if self._braking else self._ramp.step(self._target)
            self._move(np.minimum(np.maximum(moved, self.robot.lower), self.robot.upper))
        if self.state is not GuardState.ACTIVE:
            self._repeat(now_ns)
        return self._applied.copy()

    def watch(self, now_ns: int, steady_s: float) -> None:
        """Look at the watchdogs; every `tick` does, callers that tick rarely do between ticks.

        To be called every 20 ms of steady time. A caller that was itself stalled for longer has
        heard nobody, and may find their messages waiting: its own stall is nobody's silence.
        """
        self._observe(now_ns, steady_s)
        stalled_s = steady_s - self._watched_s
        self._watched_s = steady_s
        if stalled_s > _STALL_S:
            for watchdog in (self._heartbeat, self._commands, self._lease):
                watchdog.excuse(stalled_s - _WATCH_S)
        if self._heartbeat.is_expired(steady_s) and self.state is not GuardState.EMERGENCY_STOP:
            self._stop_at_once("emergency-stop heartbeat lost", now_ns)
        if self.state is GuardState.ACTIVE and self._commands.is_expired(steady_s):
            self.hold(f"{self.source!r} is silent", now_ns)

    def hold(self, reason: str, now_ns: int) -> None:
        """Come to rest within the limits and stay, until the source commands again."""
        if self.state is GuardState.ACTIVE:
            self.state = GuardState.HOLDING
            self.counters.holds += 1
            self.reason = reason
            self._settle(now_ns)

    def stop(self, reason: str, now_ns: int) -> None:
        """Come to rest within the limits and refuse every command until `rearm`: a fault."""
        if self.state is not GuardState.EMERGENCY_STOP:
            self.state = GuardState.STOPPED
            self.reason = reason
            self._release()
            self._settle(now_ns)

    def lose_source(self, now_ns: int) -> None:
        """The middleware lost a command source: hold, and let whoever commands next take over."""
        self.hold("command source lost", now_ns)
        self._release()

    def emergency_stop(self, is_pressed: bool, now_ns: int, steady_s: float) -> None:
        """Take one heartbeat of the emergency stop; a press stops at once and latches."""
        self._heartbeat.feed(steady_s)
        self._pressed = is_pressed
        if is_pressed and self.state is not GuardState.EMERGENCY_STOP:
            self._stop_at_once("emergency stop pressed", now_ns)

    def rearm(self, position: ArrayLike, now_ns: int, steady_s: float) -> tuple[bool, str]:
        """End a stop on an operator's explicit word; returns whether it did, and why.

        Args:
            position: where the joints stand now, [J] rad; they stay there.
        """
        if self._pressed:
            return False, "the emergency stop is pressed: release it first"
        if self._heartbeat.is_expired(steady_s) or (
            self.settings.requires_emergency_stop and not self._heartbeat.is_watching
        ):
            return False, "no heartbeat of the emergency stop: start its supervisor first"
        if self.state in (GuardState.HOLDING, GuardState.ACTIVE):
            return True, "was not stopped"
        self._restart(position, now_ns, "re-armed")
        return True, "re-armed"

    def check_restart(self) -> None:
        """Raise RuntimeError while stopped, as `restart` would."""
        if self.state in (GuardState.EMERGENCY_STOP, GuardState.STOPPED):
            raise RuntimeError(f"the guard is stopped ({self.reason}): re-arm it first")

    def restart(self, position: ArrayLike, now_ns: int, reason: str) -> None:
        """Stand at `position`, [J] rad, and wait for a source: after a scene reset.

        ROS time may have jumped ahead meanwhile; commands from before that are stale.

        Raises:
            RuntimeError: while stopped; only `rearm` ends that.
            ValueError: a position that is not finite or has the wrong length.
        """
        self.check_restart()
        self._stamps.restart()
        self._restart(position, now_ns, reason)

    def take_changes(self) -> list[GoalChange]:
        """Goals that the guard set by itself since the last call, oldest first.

        While no command is in force the goal is repeated once a period, for observers that want
        it fresh.
        """
        changes, self._changes = self._changes, []
        return changes

    def _observe(self, now_ns: int, steady_s: float) -> None:
        step_ns = self._stamps.observe(now_ns, steady_s)
        if step_ns and self._last_stamp_ns is not None:
            self._last_stamp_ns += step_ns

    def _order(self, names: Sequence[str]) -> NDArray[np.intp] | str:
        """Indices that bring `names` into the robot's order, or what is wrong with them."""
        missing = self._index.keys() - set(names)
        unknown = set(names) - self._index.keys()
        if missing or unknown:
            return f"missing {sorted(missing)}, unknown {sorted(unknown)}"
        if len(names) != len(self._names):
            return f"{len(names)} names, expected {len(self._names)}: some repeat"
        return np.argsort([self._index[name] for name in names])

    def _accept(
        self, targets: Array, stamp_ns: int, source: str, now_ns: int, steady_s: float
    ) -> Verdict:
        goal, outside, too_far = limit_goal(
            targets, self._goal, self.robot.lower, self.robot.upper, self._max_change
        )
        clamped, limited = self._named(outside), self._named(too_far)
        counters = self.counters
        counters.accepted += 1
        counters.clamped += bool(clamped)
        counters.limited += bool(limited)
        detail = ""
        if clamped:
            detail = f"outside the limits: {', '.join(clamped)}. "
        if limited:
            detail += f"too fast: {', '.join(limited)}."
        self._goal = self._pending = goal
        wait_s = (stamp_ns - now_ns) * 1e-9 + self.settings.command_delay_s
        self._pending_ticks = max(0, round(wait_s / self.settings.tick_s))
        self._last_stamp_ns = stamp_ns
        self.source = source
        self._commands.feed(steady_s)
        self._lease.feed(steady_s)
        self.state = GuardState.ACTIVE
        self.reason = "commanded"
        return Verdict(goal.copy(), None, detail, clamped, limited, stamp_ns)

    def _named(self, mask: NDArray[np.bool_]) -> tuple[str, ...]:
        if not mask.any():
            return ()
        return tuple(name for name, marked in zip(self._names, mask, strict=True) if marked)

    def _stand(self, at: ArrayLike) -> None:
        position = np.asarray(at, dtype=np.float64)
        if position.shape != (len(self._names),) or not np.isfinite(position).all():
            raise ValueError(
                f"guard position must be {len(self._names)} finite rad, got {position}"
            )
        inside = np.minimum(np.maximum(position, self.robot.lower), self.robot.upper)
        self._ramp.reset(inside)
        self._trail = np.tile(inside, (3, 1))
        self._braking = []
        self._applied = self._target = self._goal = inside
        self._pending = None
        self._ticks_held = 0

    def _restart(self, position: ArrayLike, now_ns: int, reason: str) -> None:
        self._stand(position)
        self._release()
        self.state = GuardState.HOLDING
        self.reason = reason
        self._report(now_ns)

    def _move(self, applied: Array) -> None:
        self._applied = applied
        self._trail[:2], self._trail[2] = self._trail[1:], applied

    def _settle(self, now_ns: int) -> None:
        robot = self.robot
        stop = braking(self._trail, robot.acceleration, robot.jerk, self.settings.tick_s)
        self._braking = list(np.minimum(np.maximum(stop, robot.lower), robot.upper))
        self._pending = None
        self._target = self._goal = self._braking[-1] if self._braking else self._applied
        self._ramp.reset(self._target)
        self._ticks_held = 0
        self._report(now_ns)

    def _stop_at_once(self, reason: str, now_ns: int) -> None:
        # An emergency stop ranks above smoothness: the next tick repeats the last position.
        self._stand(self._applied)
        self.state = GuardState.EMERGENCY_STOP
        self.reason = reason
        self.counters.emergency_stops += 1
        self._release()
        self._report(now_ns)

    def _release(self) -> None:
        self.source = ""
        self._commands.release()
        self._lease.release()

    def _repeat(self, now_ns: int) -> None:
        self._ticks_held += 1
        if self._ticks_held % self._repeat_ticks == self._repeat_ticks // 2:
            self._report(now_ns)

    def _report(self, now_ns: int) -> None:
        # Half a tick on, so that it never shares a stamp with a command and its observation.
        stamp_ns = now_ns + round(self.settings.tick_s * 0.5e9)
        self._changes.append(GoalChange(stamp_ns, self._goal.copy(), self.reason))
