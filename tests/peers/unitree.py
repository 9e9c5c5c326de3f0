# SPDX-License-Identifier: Apache-2.0
"""A Go1's controller on loopback: it checks each command and answers with a low-level state.

Layouts are those on the wire: packed, least significant byte first, 20 motors of which 12 are
there, and at the end a CRC of whole words (polynomial 0x04c11db7, highest bit first, begun with all
bits set, not inverted) over the words before the last.
"""

from __future__ import annotations

import contextlib
import importlib.util
import socket
import struct
import threading
from typing import Any, Self

import numpy as np
from twinloop.robots.go1 import GO1

ROBOT = GO1
_IS_THERE = importlib.util.find_spec("unitree_legged_sdk") is not None
SKIP = "" if _IS_THERE else "unitree-legged-sdk is not installed"

COMMAND_BYTES, STATE_BYTES = 614, 807
HEAD = bytes([0xFE, 0xEF, 0xFF])
MOTORS_AT, JOINTS, MOTORS = {"command": 22, "state": 75}, 12, 20
# mode, position, velocity, torque / 256, stiffness / 32, damping / 16, reserve
MOTOR_COMMAND = struct.Struct("<Bffhhh12s")
# mode, position, velocity, acceleration, torque / 256, three raw ones, temperature, reserve
MOTOR_STATE = struct.Struct("<Bffhhffhb8s")
CHARGE_AT = 718
NO_POSITION = 2.0e9


def _row(byte: int) -> int:
    value = byte << 24
    for _ in range(8):
        value = (value << 1) ^ (0x04C11DB7 if value & 0x80000000 else 0)
    return value & 0xFFFFFFFF


_ROWS = [_row(byte) for byte in range(256)]


def checksum(packet: bytes) -> int:
    """CRC of all whole words of a packet but the last."""
    words = len(packet) // 4 - 1
    value = 0xFFFFFFFF
    for byte in np.frombuffer(packet, "<u4", words).astype(">u4").tobytes():
        value = ((value << 8) & 0xFFFFFFFF) ^ _ROWS[(value >> 24) ^ byte]
    return value


class Go1:
    """Legs that go where they are commanded while they are stiff, and stay where they are else."""

    def __init__(self) -> None:
        self.position = GO1.poses["stand"].copy()
        self.stiffness = np.zeros(JOINTS)
        self.damping = np.zeros(JOINTS)
        self.temperature = np.full(JOINTS, 35)
        self.heard = self.refused = 0
        self.is_silent = self.is_damaging = False
        self._socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self._socket.bind(("127.0.0.1", 0))
        self._port = self._socket.getsockname()[1]
        self._thread = threading.Thread(target=self._serve, daemon=True)

    def settings(self, **changes: Any) -> dict[str, Any]:
        """What a hardware file would say of it, patient enough for a busy machine."""
        given = {"driver": "unitree", "address": "127.0.0.1", "port": self._port}
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
            probe.bind(("127.0.0.1", 0))
            local_port = probe.getsockname()[1]
        return {**given, "local_port": local_port, "answer_timeout_s": 0.25} | changes

    def unplug(self) -> None:
        """Be gone, at once and for good."""
        with contextlib.suppress(OSError):  # not connected; it wakes the thread all the same
            self._socket.shutdown(socket.SHUT_RDWR)
        self._thread.join()
        self._socket.close()

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self._thread.is_alive():
            self.unplug()

    def _serve(self) -> None:
        while True:
            try:
                packet, sender = self._socket.recvfrom(4096)
                if not packet:
                    return
                if self._take(packet) and not self.is_silent:
                    self._socket.sendto(self.state(), sender)
            except OSError:
                return

    def _take(self, packet: bytes) -> bool:
        is_good = (
            len(packet) == COMMAND_BYTES
            and packet[:3] == HEAD
            and int.from_bytes(packet[-4:], "little") == checksum(packet)
        )
        self.heard += is_good
        self.refused += not is_good
        for joint in range(JOINTS if is_good else 0):
            at = MOTORS_AT["command"] + joint * MOTOR_COMMAND.size
            mode, target, _, _, stiffness, damping, _ = MOTOR_COMMAND.unpack_from(packet, at)
            self.stiffness[joint], self.damping[joint] = stiffness / 32, damping / 16
            if mode == 0x0A and stiffness > 0 and abs(target) < NO_POSITION:
                self.position[joint] = target
        return is_good

    def state(self) -> bytes:
        packet = bytearray(STATE_BYTES)
        packet[:3] = HEAD
        for joint, (position, celsius) in enumerate(
            zip(self.position, self.temperature, strict=True)
        ):
            at = MOTORS_AT["state"] + joint * MOTOR_STATE.size
            values = (0x0A, position, 0.0, 0, 256, position, 0.0, 0, int(celsius), bytes(8))
            MOTOR_STATE.pack_into(packet, at, *values)
        packet[CHARGE_AT] = 77
        packet[-4:] = (checksum(bytes(packet)) ^ self.is_damaging).to_bytes(4, "little")
        return bytes(packet)


PEER = Go1
