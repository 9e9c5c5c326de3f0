# SPDX-License-Identifier: Apache-2.0
"""Reads a camera in a thread of its own, and gets it back when it is lost.

Whoever asks for the status is never blocked by a device: one that hangs inside its driver is left
behind with its thread, and opened anew.
"""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol

from twinloop.drivers.faults import DriverFault, EndOfStream
from twinloop.drivers.frame_timing import FrameTiming
from twinloop.perception.image_files import ImageRefused

_MAX_LEFT_BEHIND = 3
_SILENT_PERIODS = 3.0
_REFUSAL_PAUSE_S = 0.005  # a device that gives nothing but refuse does not keep a core busy


class Source(Protocol):
    """An open device."""

    rate_hz: float
    """Nominal; 0 where it is not known."""

    def read(self) -> Any:
        """Return the next frame; raises DriverFault, EndOfStream or ImageRefused."""

    def close(self) -> None:
        """Let go of the device."""


@dataclass(frozen=True)
class ReaderSettings:
    """How patient a reader is.

    Attributes:
        silent_s: without a good image for longer, and for three periods, a camera is at fault.
        hung_s: a device that has not returned from a call for longer, and for three periods, is
            opened anew.
        first_wait_s: before a lost device is opened again; doubled each time it fails.
        longest_wait_s: likewise, at most.
    """

    silent_s: float = 0.3
    hung_s: float = 3.0
    first_wait_s: float = 0.1
    longest_wait_s: float = 2.0


State = Literal["idle", "opening", "reading", "silent", "ended", "crashed"]


@dataclass
class ReaderStatus:
    """What a reader says of itself.

    Attributes:
        state: `silent` while a camera is at fault; the text says since when and why.
        text: for people.
        frames: good images so far.
        refused: empty or otherwise unfit ones.
        opened: times the device was opened.
        timing: rate, jitter and lost images.
    """

    state: State
    text: str
    frames: int
    refused: int
    opened: int
    timing: FrameTiming


@dataclass
class _Worker:
    """One thread and the device in its hands."""

    stop: threading.Event = field(default_factory=threading.Event)
    thread: threading.Thread | None = None
    busy_since_s: float | None = None  # inside a call of the device since then, steady


class FrameReader:
    """Keeps a device open and hands on its frames.

    Args:
        open_source: opens the device; raises DriverFault.
        on_frame: takes a frame, in the reader's thread.
        stamp_of: gives a frame's stamp, ns.
        settings: how patient it is.
    """

    def __init__(
        self,
        open_source: Callable[[], Source],
        on_frame: Callable[[Any], None],
        stamp_of: Callable[[Any], int],
        settings: ReaderSettings | None = None,
    ) -> None:
        self._open_source = open_source
        self._on_frame = on_frame
        self._stamp_of = stamp_of
        self.settings = settings or ReaderSettings()
        self._lock = threading.Lock()
        self._timing = FrameTiming()
        self._frames = self._refused = self._opened = 0
        self._nominal_hz = 0.0
        self._problem = ""
        self._end: tuple[State, str] | None = None
        self._good_s = time.monotonic()
        self._worker: _Worker | None = None
        self._left_behind: list[_Worker] = []

    def start(self) -> None:
        """Begin to read."""
        self.stop()
        self._end, self._problem, self._good_s = None, "", time.monotonic()
        self._begin()

    def stop(self, patience_s: float = 0.3) -> None:
        """Cease to read; no frame comes after. A device that hangs is not waited for longer."""
        with self._lock:
            worker, self._worker = self._worker, None
        if worker is not None:
            worker.stop.set()
            if worker.thread is not None:
                worker.thread.join(patience_s)

    def status(self) -> ReaderStatus:
        """Say how the camera is, and replace a thread that hangs; ask several times a second."""
        self._leave_behind_if_hung()
        state, text = self._judge()
        return ReaderStatus(state, text, self._frames, self._refused, self._opened, self._timing)

    def _judge(self) -> tuple[State, str]:
        if self._end is not None:
            return self._end
        if self._worker is None:
            return "idle", "not reading"
        silent_s = time.monotonic() - self._good_s
        if silent_s > max(self.settings.silent_s, self._long_s):
            why = self._problem or "the device is silent"
            return "silent", f"no images for {silent_s:.1f} s: {why}"
        if not self._frames:
            return "opening", "waits for the first image"
        return "reading", f"{self._timing.rate_hz:.1f} images/s"

    @property
    def _long_s(self) -> float:
        """Time in which a slow camera too has delivered something."""
        nominal_s = 1.0 / self._nominal_hz if self._nominal_hz > 0.0 else 0.0
        return _SILENT_PERIODS * max(self._timing.period_s, nominal_s)

    def _begin(self) -> None:
        worker = self._worker = _Worker()
        worker.thread = threading.Thread(
            target=self._run, args=(worker,), name="frame-reader", daemon=True
        )
        worker.thread.start()

    def _leave_behind_if_hung(self) -> None:
        worker = self._worker
        since_s = worker.busy_since_s if worker is not None else None
        if worker is None or since_s is None:
            return
        self._left_behind = [w for w in self._left_behind if w.thread and w.thread.is_alive()]
        hung_s = time.monotonic() - since_s
        limit_s = max(self.settings.hung_s, self._long_s)
        if hung_s < limit_s or len(self._left_behind) >= _MAX_LEFT_BEHIND:
            return
        with self._lock:
            worker.stop.set()
            self._problem = "the device hangs in its driver"
            self._left_behind.append(worker)
            self._begin()

    def _run(self, worker: _Worker) -> None:
        wait_s = self.settings.first_wait_s
        while not worker.stop.is_set():
            frames_before = self._frames
            try:
                self._read_on(worker)
            except DriverFault as fault:
                self._set_problem(worker, str(fault))
            except EndOfStream as end:
                if self._problem:
                    self._finish(worker, "silent", f"{end} has ended: {self._problem}")
                else:
                    self._finish(worker, "ended", f"{end} has ended")
                return
            except Exception as error:
                self._finish(worker, "crashed", f"{type(error).__name__}: {error}")
                return
            if self._frames > frames_before:
                wait_s = self.settings.first_wait_s
            worker.stop.wait(wait_s)
            wait_s = min(2.0 * wait_s, self.settings.longest_wait_s)

    def _read_on(self, worker: _Worker) -> None:
        """Open the device and hand on its frames until it fails or the worker is stopped."""
        source = self._timed(worker, self._open_source)
        self._opened += 1
        self._nominal_hz = source.rate_hz
        self._timing.pause()
        try:
            while not worker.stop.is_set():
                try:
                    frame = self._timed(worker, source.read)
                except ImageRefused as refusal:
                    self._refused += 1
                    self._set_problem(worker, str(refusal))
                    worker.stop.wait(_REFUSAL_PAUSE_S)
                    continue
                with self._lock:
                    if self._worker is not worker:
                        return
                    self._frames += 1
                    self._timing.observe(self._stamp_of(frame))
                    self._problem, self._good_s = "", time.monotonic()
                    self._on_frame(frame)
        finally:
            with contextlib.suppress(Exception):
                source.close()

    def _timed(self, worker: _Worker, call: Callable[[], Any]) -> Any:
        worker.busy_since_s = time.monotonic()
        try:
            return call()
        finally:
            worker.busy_since_s = None

    def _set_problem(self, worker: _Worker, text: str) -> None:
        if self._worker is worker:
            self._problem = text

    def _finish(self, worker: _Worker, state: State, text: str) -> None:
        if self._worker is worker:
            self._end = (state, text)
