# SPDX-License-Identifier: Apache-2.0
"""What the nodes of all cameras share: a reader in a thread, and its health."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from twinloop.drivers.frame_reader import FrameReader, ReaderSettings, Source
from twinloop.nodes.base import ERROR, OK, WARN, Health, Node
from twinloop.nodes.camera_topics import CameraTopics
from twinloop.nodes.parameters import ParameterSpec
from twinloop.perception.camera_model import CameraModel, load_camera

_TICK_S = 0.1
_LEVELS = {
    "idle": OK,
    "opening": WARN,
    "reading": OK,
    "ended": OK,
    "silent": ERROR,
    "crashed": ERROR,
}


def reader_parameters(hung_s: float) -> tuple[ParameterSpec, ...]:
    """Return the parameters of every camera; `hung_s` is how long it may take to be opened."""
    return (
        ParameterSpec("silent_s", 0.3, "Without images for longer it is at fault [s]", 0.02, 60.0),
        ParameterSpec("hung_s", hung_s, "A call that takes longer is given up [s]", 0.1, 600.0),
        ParameterSpec("jpeg_quality", 90, "Of compressed images", 1, 100),
    )


class CameraNode(Node):
    """Reads frames while it is active; subclasses make the reader and publish what it reads."""

    def __init__(self, name: str) -> None:
        super().__init__(name)
        self._reader: FrameReader | None = None
        self._topics: dict[str, CameraTopics] = {}

    def read_from(
        self,
        open_source: Callable[[], Source],
        on_frame: Callable[[Any], None],
        stamp_of: Callable[[Any], int],
        topics: dict[str, CameraTopics],
    ) -> None:
        """Set up the reader; a part of configure."""
        settings = ReaderSettings(self.param("silent_s"), self.param("hung_s"))
        self._topics = topics
        self._reader = FrameReader(open_source, on_frame, stamp_of, settings)
        self._ticker = self.create_timer(_TICK_S, self._tick, clock=self.steady_clock)

    def activate(self) -> None:
        if self._reader is not None:
            self._reader.start()

    def deactivate(self) -> None:
        if self._reader is not None:
            self._reader.stop()

    def cleanup(self) -> None:
        self.deactivate()
        self.destroy_timer(self._ticker)
        for topics in self._topics.values():
            topics.destroy()
        self._topics.clear()
        self._reader = None

    def close(self) -> None:
        if self._reader is not None:
            # A device that is still being read when the process ends may not be found again.
            self._reader.stop(patience_s=2.0)

    def health(self) -> Health:
        if self._reader is None:
            return Health(WARN, "not configured")
        status = self._reader.status()
        values = {
            "frames": str(status.frames),
            "rate_hz": f"{status.timing.rate_hz:.2f}",
            "jitter_ms": f"{status.timing.jitter_ms:.2f}",
            "dropped": str(status.timing.dropped),
            "refused": str(status.refused),
            "opened": str(status.opened),
            **self.more_values(),
        }
        return Health(_LEVELS[status.state], status.text, values)

    def more_values(self) -> dict[str, str]:
        """Return what else the heartbeat tells."""
        return {}

    def calibration(self, parameter: str) -> CameraModel | None:
        """Return the camera of a calibration file; None where the parameter names none.

        Raises:
            FileNotFoundError, ValueError: as `load_camera` says.
        """
        path = self.param(parameter)
        return load_camera(Path(path).expanduser()) if path else None

    def _tick(self) -> None:
        if self._reader is None or not self.is_active:
            return
        status = self._reader.status()
        if status.state == "crashed":
            self.fail(status.text)
