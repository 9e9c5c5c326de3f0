# SPDX-License-Identifier: Apache-2.0
"""Joystick node: `joy` from a Linux joystick, with a dead-man button."""

from __future__ import annotations

import time
from pathlib import Path

from sensor_msgs.msg import Joy

from twinloop.drivers.faults import DriverFault
from twinloop.drivers.hardware import load_hardware
from twinloop.drivers.joystick import Joystick, JoystickSettings
from twinloop.nodes import qos
from twinloop.nodes.base import ERROR, OK, WARN, Health, Node, run
from twinloop.nodes.parameters import ParameterRefused, ParameterSpec

_FIRST_WAIT_S = 0.1


class JoystickNode(Node):
    """Publishes how a joystick stands, at a steady rate; released while its device is gone."""

    parameters = (
        ParameterSpec("device", "/dev/input/js0", "Joystick device, or event device with evdev"),
        ParameterSpec(
            "dead_man_button", 4, "Without it all is told as released; -1: none needed", -1, 63
        ),
        ParameterSpec("dead_zone", 0.05, "Of each axis", 0.0, 0.9),
        ParameterSpec("hardware", "", "Hardware file with a `joystick`, in the others' place"),
        ParameterSpec("rate", 50.0, "Messages a second", 1.0, 500.0),
        ParameterSpec("reconnect_s", 2.0, "Longest wait for a lost device [s]", 0.1, 60.0),
    )

    def __init__(self) -> None:
        super().__init__("joystick")
        self._joystick: Joystick | None = None

    def configure(self) -> None:
        self._joystick = Joystick(self._settings())
        self._problem = ""
        self._wait_s, self._open_at_s = _FIRST_WAIT_S, 0.0
        self._joy = self.create_publisher(Joy, "joy", qos.SENSOR)
        self._ticker = self.create_timer(
            1.0 / self.param("rate"),
            self.guarded(self._tick),
            clock=self.steady_clock,
            autostart=False,
        )

    def _settings(self) -> JoystickSettings:
        if not self.param("hardware"):
            return JoystickSettings(
                device=self.param("device"),
                dead_man_button=self.param("dead_man_button"),
                dead_zone=self.param("dead_zone"),
            )
        devices = load_hardware(Path(self.param("hardware")).expanduser())
        settings = devices.get("joystick")
        if not isinstance(settings, JoystickSettings):
            raise ParameterRefused(f"parameter hardware: {self.param('hardware')} has no joystick")
        return settings

    def activate(self) -> None:
        self._ticker.reset()

    def deactivate(self) -> None:
        if self._joystick is not None:
            self._ticker.cancel()
            self._joystick.close()
            self._publish()

    def cleanup(self) -> None:
        self.deactivate()
        self.destroy_timer(self._ticker)
        self.destroy_publisher(self._joy)
        self._joystick = None

    def health(self) -> Health:
        if self._joystick is None:
            return Health(WARN, "not configured")
        values = {
            "device": self._joystick.name,
            "dead_man": "pressed" if self._joystick.is_allowed else "released",
        }
        if self.is_active and self._problem:
            return Health(ERROR, self._problem, values)
        return Health(OK, "open" if self._joystick.is_open else "not open", values)

    def _tick(self) -> None:
        joystick = self._joystick
        assert joystick is not None
        now_s = time.monotonic()
        try:
            if not joystick.is_open:
                if now_s < self._open_at_s:
                    return
                joystick.open()
            joystick.read()
        except DriverFault as fault:
            # At once: who moves by it must hear that it is released.
            self._problem = str(fault)
            self._open_at_s = now_s + self._wait_s
            self._wait_s = min(2.0 * self._wait_s, self.param("reconnect_s"))
        else:
            self._problem, self._wait_s = "", _FIRST_WAIT_S
        self._publish()

    def _publish(self) -> None:
        assert self._joystick is not None
        state = self._joystick.state
        message = Joy(axes=list(state.axes), buttons=list(state.buttons))
        message.header.stamp = self.get_clock().now().to_msg()
        self._joy.publish(message)


def main() -> None:
    run(JoystickNode)
