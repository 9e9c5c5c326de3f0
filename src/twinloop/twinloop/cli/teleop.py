# SPDX-License-Identifier: Apache-2.0
"""`twinloop teleop`: steer a running cell from a terminal's keyboard."""

from __future__ import annotations

import math
import sys
import time
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.table import Table

from twinloop.cli.errors import CommandError
from twinloop.teleop.keys import HeldKeys
from twinloop.teleop.settings import ORDERS, TeleopSettings, load_settings
from twinloop.teleop.terminal import QUIT, NoTerminal, raw, read_keys

_PERIOD_S = 0.02
_STATUS_S = 0.2
_WHO = ("autonomy commands", "you command", "shared", "held: press and let go to go on")


def teleop(
    config: Annotated[
        Path | None,
        typer.Option(help="Keys and speeds; by default config/teleop/cell.yaml's."),
    ] = None,
    namespace: Annotated[str, typer.Option(help="Of the cell.")] = "",
) -> None:
    """Steer a cell that runs with teleop:=true from the keyboard; q ends it.

    A key moves as long as it is held: its repetition is the dead-man. Nothing moves without keys.
    """
    try:
        settings = load_settings(config)
    except (ValueError, OSError) as error:
        raise CommandError(str(error)) from error
    try:
        with raw(sys.stdin.fileno()) as show:
            show(lambda: Console().print(table_of(settings)))
            _steer(settings, namespace)
    except NoTerminal as error:
        raise CommandError(str(error)) from error


def table_of(settings: TeleopSettings) -> Table:
    """Return which key does what, motions in pairs."""
    table = Table("keys", "motion", "keys", "order", title="held keys move; q ends")
    keys = settings.keyboard.keys
    pairs: dict[str, list[str]] = {}
    for key, name in keys.items():
        pairs.setdefault(name.removeprefix("-"), []).append(key)
    motions = [(" ".join(keys), name) for name, keys in pairs.items() if name not in ORDERS]
    orders = [(" ".join(keys), name) for name, keys in pairs.items() if name in ORDERS]
    for index in range(max(len(motions), len(orders))):
        left = motions[index] if index < len(motions) else ("", "")
        right = orders[index] if index < len(orders) else ("", "")
        table.add_row(*left, *right)
    return table


def pressed(settings: TeleopSettings, held: HeldKeys, keys: list[str], now_s: float) -> bool:
    """Take keys; returns whether one of them ends it all."""
    for key in keys:
        if key in QUIT:
            return True
        name = settings.keyboard.keys.get(key)
        if name is not None:
            held.press(name.removeprefix("-"), -1.0 if name.startswith("-") else 1.0, now_s)
    return False


def _steer(settings: TeleopSettings, namespace: str) -> None:
    """Say what is held until it ends, and at last that nothing is."""
    import rclpy
    from rclpy.context import Context
    from rclpy.executors import SingleThreadedExecutor
    from rclpy.signals import SignalHandlerOptions

    from twinloop.nodes import qos
    from twinloop.nodes.pilot_messages import pilot_input
    from twinloop_interfaces.msg import ControlStatus, PilotInput, PilotStatus

    context = Context()
    rclpy.init(context=context, signal_handler_options=SignalHandlerOptions.NO)
    node = rclpy.create_node("keyboard", context=context, namespace=namespace or None)
    said: dict[str, Any] = {}
    publisher = node.create_publisher(PilotInput, "pilot_input", qos.SENSOR)
    node.create_subscription(
        ControlStatus, "control_status", lambda m: said.update(control=m), qos.latched()
    )
    node.create_subscription(
        PilotStatus, "pilot_status", lambda m: said.update(pilot=m), qos.latched()
    )
    executor = SingleThreadedExecutor(context=context)
    executor.add_node(node)
    held = HeldKeys(settings.keyboard)
    shown_s = 0.0
    ends = False
    try:
        while not ends:
            keys = read_keys(sys.stdin.fileno(), _PERIOD_S)
            now_s = time.monotonic()
            ends = pressed(settings, held, keys, now_s)
            if ends:
                held.release()
            wish = held.wish(now_s)
            publisher.publish(pilot_input(node, "keyboard", wish))
            executor.spin_once(timeout_sec=0.0)
            if now_s - shown_s > _STATUS_S:
                shown_s = now_s
                line = status_line(said.get("control"), said.get("pilot"))
                sys.stdout.write(f"\r\x1b[K{line}")
                sys.stdout.flush()
    finally:
        sys.stdout.write("\r\n")
        executor.shutdown()
        node.destroy_node()
        context.try_shutdown()


def status_line(control: Any, pilot: Any) -> str:
    """Say in one line who commands, how much is shared and which joints are chosen."""
    if pilot is None:
        return "no teleop node is heard: start the cell with teleop:=true"
    parts = [f"joints {pilot.joint}"]
    if control is not None:
        parts.insert(0, _WHO[control.who] if control.who < len(_WHO) else "?")
        if control.sharing:
            parts.append("sharing")
        if not math.isnan(control.alpha):
            parts.append(f"alpha {control.alpha:.2f}")
    return " | ".join(parts)[:120]
