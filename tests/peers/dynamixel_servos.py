# SPDX-License-Identifier: Apache-2.0
"""Dynamixel servos on a pseudo-terminal: Protocol 2.0 as the e-manual tells it, and its faults.

A process of its own. It says the link that stands for the port, then takes one JSON command a line
and answers each by a line.
"""

from __future__ import annotations

import json
import os
import pty
import select
import struct
import sys
import termios
import time
import tty
from typing import Any

BROADCAST = 0xFE
PING, READ, WRITE, REBOOT, SYNC_READ, SYNC_WRITE = 0x01, 0x02, 0x03, 0x08, 0x82, 0x83
STATUS = 0x55
ALERT = 0x80
INSTRUCTION_ERROR, RANGE_ERROR, LENGTH_ERROR, ACCESS_ERROR = 2, 4, 5, 7
SIZE = 147
FIELDS = {
    "model": (0, "H"),
    "id": (7, "B"),
    "baud_rate": (8, "B"),
    "return_delay": (9, "B"),
    "drive_mode": (10, "B"),
    "operating_mode": (11, "B"),
    "temperature_limit": (31, "B"),
    "current_limit": (38, "H"),
    "shutdown": (63, "B"),
    "torque": (64, "B"),
    "status_level": (68, "B"),
    "hardware_error": (70, "B"),
    "watchdog": (98, "B"),
    "goal_current": (102, "h"),
    "goal_position": (116, "i"),
    "current": (126, "h"),
    "velocity": (128, "i"),
    "position": (132, "i"),
    "voltage": (144, "H"),
    "temperature": (146, "B"),
}
BAUD_RATES = (9600, 57600, 115200, 1000000, 2000000, 3000000, 4000000)
SPEEDS = {rate: getattr(termios, f"B{rate}") for rate in BAUD_RATES}
FASTEST = 5500.0  # units a second, some 8 rad/s
REBOOT_S = 0.1


def _crc_table() -> list[int]:
    table = []
    for byte in range(256):
        crc = byte << 8
        for _ in range(8):
            crc = ((crc << 1) ^ 0x8005 if crc & 0x8000 else crc << 1) & 0xFFFF
        table.append(crc)
    return table


CRC_TABLE = _crc_table()


def crc16(data: bytes) -> int:
    crc = 0
    for byte in data:
        crc = ((crc << 8) ^ CRC_TABLE[((crc >> 8) ^ byte) & 0xFF]) & 0xFFFF
    return crc


def packet(servo: int, body: bytes) -> bytes:
    """A packet of an instruction, or status and error, and its parameters."""
    stuffed = body.replace(b"\xff\xff\xfd", b"\xff\xff\xfd\xfd")
    head = b"\xff\xff\xfd\x00" + struct.pack("<BH", servo, len(stuffed) + 2) + stuffed
    return head + struct.pack("<H", crc16(head))


class Servo:
    """One servo's control table, and a motor that goes where it is told."""

    def __init__(self, servo: int, model: int, baud_rate: int, position: int) -> None:
        self.id = servo
        self.memory = bytearray(SIZE)
        self.off_until_s = 0.0
        self.travel = 0  # ticks, to and fro
        self.heard_s = self.moved_s = time.monotonic()
        for name, value in {
            "model": model,
            "id": servo,
            "baud_rate": BAUD_RATES.index(baud_rate),
            "return_delay": 0,
            "operating_mode": 3,
            "temperature_limit": 80,
            "current_limit": 1193,
            "shutdown": 0x34,
            "position": position,
            "voltage": 120,
            "temperature": 35,
        }.items():
            self[name] = value
        self._power_up()

    def _power_up(self) -> None:
        for name in ("torque", "hardware_error", "watchdog"):
            self[name] = 0
        self["status_level"] = 2
        self["goal_current"] = self["current_limit"]
        self["goal_position"] = self["position"]

    def __getitem__(self, name: str) -> int:
        address, form = FIELDS[name]
        return int(struct.unpack_from(f"<{form}", self.memory, address)[0])

    def __setitem__(self, name: str, value: int) -> None:
        address, form = FIELDS[name]
        struct.pack_into(f"<{form}", self.memory, address, value)

    def hear(self, now_s: float) -> None:
        """An instruction is on the bus: time has gone on."""
        patience_s = 0.02 * self["watchdog"]
        if 0 < self["watchdog"] < 0xFF and now_s - self.heard_s > patience_s:
            self["watchdog"] = 0xFF
            self["goal_position"] = self["position"]
        self.heard_s = now_s
        if self["hardware_error"] & self["shutdown"]:
            self["torque"] = 0
        way = float(self["goal_position"] - self["position"]) if self["torque"] else 0.0
        most = FASTEST * (now_s - self.moved_s)
        step = round(max(-most, min(most, way)))
        self["position"] = self["position"] + step
        self.travel += abs(step)
        limit = self["goal_current"] if self["operating_mode"] == 5 else self["current_limit"]
        self["current"] = max(-limit, min(limit, round(way)))
        self.moved_s = now_s

    def write(self, address: int, data: bytes) -> int:
        """Take a write; returns the error."""
        if address + len(data) > SIZE:
            return RANGE_ERROR
        if address < 64 and self["torque"]:
            return ACCESS_ERROR
        if address >= 100 and self["watchdog"] == 0xFF:
            return RANGE_ERROR
        if (address, bytes(data)) == (64, b"\x01") and self["hardware_error"]:
            return 0
        self.memory[address : address + len(data)] = data
        return 0

    def reboot(self, now_s: float) -> None:
        self._power_up()
        self.off_until_s = now_s + REBOOT_S

    @property
    def alert(self) -> int:
        return ALERT if self["hardware_error"] else 0


class Bus:
    """The servos of a port, what they answer, and what goes wrong on the way."""

    def __init__(self, link: str, ids: list[int], model: int, baud_rate: int, start: int) -> None:
        self.link = link
        self.servos = {servo: Servo(servo, model, baud_rate, start) for servo in ids}
        self.silent: set[int] = set()
        self.damage: dict[str, int] = {"corrupt": 0, "drop": 0, "partial": 0, "refuse": 0}
        self.stall_s = 0.0
        self.goals: list[tuple[float, list[int]]] = []
        self.counts = {"instructions": 0, "bad": 0}
        self.master: int | None = None
        self._heard = b""
        self.plug()

    def plug(self) -> None:
        self.master, slave = pty.openpty()
        tty.setraw(slave)
        temporary = f"{self.link}.new"
        os.symlink(os.ttyname(slave), temporary)
        os.replace(temporary, self.link)
        # Kept: without anybody at the other end a read of the master fails.
        self._slave = slave
        self._heard = b""

    def unplug(self) -> None:
        if self.master is not None:
            os.close(self._slave)
            os.close(self.master)
            self.master = None

    def take(self) -> None:
        """Read what came, and answer each whole packet."""
        assert self.master is not None
        self._heard += os.read(self.master, 4096)
        while True:
            begin = self._heard.find(b"\xff\xff\xfd\x00")
            if begin < 0 or len(self._heard) < begin + 7:
                return
            servo, length = struct.unpack_from("<BH", self._heard, begin + 4)
            end = begin + 7 + length
            if len(self._heard) < end:
                return
            whole, self._heard = self._heard[begin:end], self._heard[end:]
            if len(whole) < 10 or struct.pack("<H", crc16(whole[:-2])) != whole[-2:]:
                self.counts["bad"] += 1
                continue
            body = whole[7:-2].replace(b"\xff\xff\xfd\xfd", b"\xff\xff\xfd")
            self._answer(servo, body[0], body[1:])

    def _answer(self, servo: int, instruction: int, parameters: bytes) -> None:
        assert self.master is not None
        now_s = time.monotonic()
        self.counts["instructions"] += 1
        speed = termios.tcgetattr(self.master)[5]
        heard = [
            each
            for each in self.servos.values()
            if SPEEDS[BAUD_RATES[each["baud_rate"]]] == speed and now_s >= each.off_until_s
        ]
        for each in heard:
            each.hear(now_s)
        if instruction == SYNC_READ:
            answers = self._sync_read(heard, parameters)
        elif instruction == SYNC_WRITE:
            answers = self._sync_write(heard, parameters, now_s)
        else:
            answers = [
                packet(each.id, bytes([STATUS, error]) + data)
                for each in heard
                if servo in (each.id, BROADCAST) and each.id not in self.silent
                for error, data in [self._single(each, instruction, parameters, now_s)]
            ]
        self._send(answers, len(heard))

    def _sync_read(self, heard: list[Servo], parameters: bytes) -> list[bytes]:
        address, length = struct.unpack_from("<HH", parameters)
        present = {each.id: each for each in heard}
        answers = []
        for wanted in parameters[4:]:
            # Each waits for the one before it: behind a silent servo all are silent.
            if wanted not in present or wanted in self.silent:
                break
            each = present[wanted]
            data = bytes(each.memory[address : address + length])
            answers.append(packet(wanted, bytes([STATUS, each.alert]) + data))
        return answers

    def _sync_write(self, heard: list[Servo], parameters: bytes, now_s: float) -> list[bytes]:
        address, length = struct.unpack_from("<HH", parameters)
        present = {each.id: each for each in heard if each.id not in self.silent}
        for at in range(4, len(parameters), length + 1):
            if parameters[at] in present:
                present[parameters[at]].write(address, parameters[at + 1 : at + 1 + length])
        if address == FIELDS["goal_position"][0]:
            self.goals.append((now_s, [each["goal_position"] for each in self.servos.values()]))
            del self.goals[:-3000]
        return []

    def _single(
        self, each: Servo, instruction: int, parameters: bytes, now_s: float
    ) -> tuple[int, bytes]:
        data, error = b"", 0
        if instruction == PING:
            data = bytes(each.memory[0:2]) + b"\x2d"
        elif instruction == READ:
            address, length = struct.unpack("<HH", parameters)
            data = bytes(each.memory[address : address + length])
        elif instruction == WRITE:
            if self.damage["refuse"]:
                self.damage["refuse"] -= 1
                error = RANGE_ERROR
            else:
                error = each.write(struct.unpack_from("<H", parameters)[0], parameters[2:])
        elif instruction == REBOOT:
            each.reboot(now_s)
        else:
            error = INSTRUCTION_ERROR
        return error | each.alert, data

    def _send(self, answers: list[bytes], listeners: int) -> None:
        assert self.master is not None
        if self.stall_s:
            time.sleep(self.stall_s)
            self.stall_s = 0.0
        delays = [2e-6 * each["return_delay"] for each in self.servos.values()]
        if answers and any(delays):
            time.sleep(sum(delays[: len(answers)]))
        data = b""
        for answer in answers:
            if self._is_due("corrupt"):
                answer = answer[:10] + bytes([answer[10] ^ 0x40]) + answer[11:]
            if self._is_due("partial"):
                answer = answer[: len(answer) // 2]
            if not self._is_due("drop"):
                data += answer
        if data:
            os.write(self.master, data)

    def _is_due(self, damage: str) -> bool:
        if not self.damage[damage]:
            return False
        self.damage[damage] -= 1
        return True

    # What the tests ask.

    def obey(self, order: dict[str, Any]) -> Any:
        name = order.pop("do")
        return getattr(self, f"on_{name}")(**order)

    def on_set(self, ids: list[int] | None = None, **fields: int) -> None:
        for servo in ids or self.servos:
            for name, value in fields.items():
                self.servos[servo][name] = value

    def on_get(self, field: str) -> list[int]:
        return [each[field] for each in self.servos.values()]

    def on_travel(self) -> list[int]:
        return [each.travel for each in self.servos.values()]

    def on_silence(self, ids: list[int]) -> float:
        self.silent = set(ids)
        return time.monotonic()

    def on_damage(self, **counts: int) -> float:
        self.damage |= counts
        return time.monotonic()

    def on_alert(self, ids: list[int], bits: int) -> float:
        self.on_set(ids, hardware_error=bits)
        return time.monotonic()

    def on_restart(self, ids: list[int]) -> None:
        """The power of some servos fails for an instant."""
        for servo in ids:
            self.servos[servo].reboot(time.monotonic() - REBOOT_S)

    def on_unplug(self) -> float:
        now_s = time.monotonic()
        self.unplug()
        return now_s

    def on_plug(self) -> float:
        self.plug()
        return time.monotonic()

    def on_stall(self, seconds: float) -> None:
        self.stall_s = seconds

    def on_goals(self) -> list[tuple[float, list[int]]]:
        return self.goals

    def on_counts(self) -> dict[str, int]:
        return self.counts


def main() -> None:
    link, ids, model, baud_rate, start = json.loads(sys.argv[1])
    bus = Bus(link, ids, model, baud_rate, start)
    print(json.dumps(link), flush=True)
    while True:
        sources = [sys.stdin] if bus.master is None else [sys.stdin, bus.master]
        ready, _, _ = select.select(sources, [], [], 1.0)
        if sys.stdin in ready:
            line = sys.stdin.readline()
            if not line:
                return
            print(json.dumps(bus.obey(json.loads(line))), flush=True)
        if bus.master in ready:
            bus.take()


if __name__ == "__main__":
    main()
