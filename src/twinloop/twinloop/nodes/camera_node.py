# SPDX-License-Identifier: Apache-2.0
"""What the nodes of all cameras share: a reader in a thread, its health, and its services."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

from std_srvs.srv import Trigger

from twinloop.drivers.frame_reader import FrameReader, ReaderSettings, ReaderStatus, Source
from twinloop.nodes.base import ERROR, OK, WARN, Health, Node
from twinloop.nodes.camera_topics import CameraTopics
from twinloop.nodes.hardware_entry import HARDWARE, hardware_entry
from twinloop.nodes.parameters import ParameterRefused, ParameterSpec
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
_STOPPED = "stopped on request: recover to go on"


def reader_parameters(hung_s: float) -> tuple[ParameterSpec, ...]:
    """Return the parameters of every camera; `hung_s` is how long it may take to be opened."""
    return (
        HARDWARE,
        ParameterSpec(
            "device", "", "Which camera of the hardware file; what it says goes before parameters"
        ),
        ParameterSpec("silent_s", 0.3, "Without images for longer it is at fault [s]", 0.02, 60.0),
        ParameterSpec("hung_s", hung_s, "A call that takes longer is given up [s]", 0.1, 600.0),
        ParameterSpec("reconnect_s", 2.0, "Longest wait for a lost camera [s]", 0.1, 60.0),
        ParameterSpec("jpeg_quality", 90, "Of compressed images", 1, 100),
        ParameterSpec("temperature_warn_c", 70.0, "Warn of a warmer camera [°C]", 0.0, 200.0),
        ParameterSpec("jitter_warn_ms", 20.0, "Warn of more jitter of the images [ms]", 0.0, 1e4),
        ParameterSpec("lost_warn", 0.2, "Warn of a greater share of lost images", 0.0, 1.0),
    )


class CameraNode(Node):
    """Reads frames while it is active; subclasses make the reader and publish what it reads."""

    def __init__(self, name: str) -> None:
        super().__init__(name)
        self._reader: FrameReader | None = None
        self._topics: dict[str, CameraTopics] = {}
        self._services: list[Any] = []
        self._is_stopped = False
        self._device = ""
        self.temperature_c = math.nan

    def take_hardware(self, driver: str) -> None:
        """Let the hardware file, where one is named, say what the parameters would.

        Raises:
            HardwareRefused, ParameterRefused: naming what is wrong.
        """
        if not self.param("hardware"):
            return
        name, settings = hardware_entry(self, "device")
        if settings.driver != driver:
            raise ParameterRefused(
                f"parameter device is {name!r}, whose driver is {settings.driver!r}; expected one "
                f"with the driver {driver!r}"
            )
        for field in settings.model_fields_set - {"driver"}:
            self._values[field] = self._specs[field].check(getattr(settings, field))

    def read_from(
        self,
        device: str,
        open_source: Callable[[], Source],
        on_frame: Callable[[Any], None],
        stamp_of: Callable[[Any], int],
        topics: dict[str, CameraTopics],
    ) -> None:
        """Set up the reader of a device, named for people; a part of configure."""
        settings = ReaderSettings(
            self.param("silent_s"),
            self.param("hung_s"),
            longest_wait_s=self.param("reconnect_s"),
        )
        self._device = device
        self._topics = topics
        self._reader = FrameReader(open_source, on_frame, stamp_of, settings)
        self._ticker = self.create_timer(_TICK_S, self._tick, clock=self.steady_clock)
        self._services = [
            self.create_service(Trigger, "~/recover", self._on_recover),
            self.create_service(Trigger, "~/stop", self._on_stop),
        ]

    def activate(self) -> None:
        if self._reader is not None and not self._is_stopped:
            self._reader.start()

    def deactivate(self) -> None:
        if self._reader is not None:
            self._reader.stop()

    def cleanup(self) -> None:
        self.deactivate()
        self.destroy_timer(self._ticker)
        for service in self._services:
            self.destroy_service(service)
        self._services.clear()
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
        timing = status.timing
        values = {
            "device": self._device,
            "driver": "stopped" if self._is_stopped else status.state,
            "cycle_ms": f"{1e3 * timing.period_s:.2f}",
            "jitter_ms": f"{timing.jitter_ms:.2f}",
            "longest_ms": f"{timing.longest_ms:.1f}",
            "lost": str(timing.dropped),
            "connects": str(status.opened),
            "frames": str(status.frames),
            "rate_hz": f"{timing.rate_hz:.2f}",
            "refused": str(status.refused),
            **self.more_values(),
        }
        if math.isfinite(self.temperature_c):
            values["temperature"] = f"{self.temperature_c:.0f}"
        if self._is_stopped:
            return Health(WARN, _STOPPED, values)
        level, text = _LEVELS[status.state], status.text
        warnings = self._warnings(status)
        if warnings and level in (OK, WARN):
            return Health(WARN, "; ".join([*warnings, text]), values)
        return Health(level, text, values)

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

    def _warnings(self, status: ReaderStatus) -> list[str]:
        found = []
        if self.temperature_c > self.param("temperature_warn_c"):
            found.append(f"it is at {self.temperature_c:.0f} °C")
        if status.state == "reading":
            if status.timing.jitter_ms > self.param("jitter_warn_ms"):
                found.append(f"the images' jitter is {status.timing.jitter_ms:.1f} ms")
            if status.timing.lost_share > self.param("lost_warn"):
                found.append(f"{status.timing.lost_share:.1%} of the images are lost")
        return found

    def _tick(self) -> None:
        if self._reader is None or not self.is_active:
            return
        status = self._reader.status()
        if status.state == "crashed":
            self.fail(status.text)

    def _on_stop(self, _request: Trigger.Request, response: Trigger.Response) -> Trigger.Response:
        assert self._reader is not None
        self._is_stopped = True
        self._reader.stop()
        response.success, response.message = True, "stopped"
        self._beat()
        return response

    def _on_recover(
        self, _request: Trigger.Request, response: Trigger.Response
    ) -> Trigger.Response:
        assert self._reader is not None
        was_stopped, self._is_stopped = self._is_stopped, False
        if not self.is_active:
            response.success, response.message = False, "the driver is not active"
        elif not was_stopped and self._reader.status().state == "reading":
            response.success, response.message = True, "was not at fault"
        else:
            self._reader.start()
            response.success, response.message = True, f"opens {self._device}"
        self._beat()
        return response
