# SPDX-License-Identifier: Apache-2.0
"""Whatever comes back over a Dynamixel bus, it ends in data or in a fault, and soon."""

from __future__ import annotations

import os
import pty
import random
import struct
import sys
import threading
import time
import tty
from collections.abc import Iterator
from pathlib import Path

import pytest
from twinloop.drivers.dynamixel_bus import Bus
from twinloop.drivers.faults import DriverFault

sys.path.insert(0, str(Path(__file__).parents[1] / "peers"))
from dynamixel_servos import STATUS, crc16, packet

INPUTS = 800
LONGEST_S = 1.0
LENGTHS = (0, 1, 2, 3, 4, 5, 14, 1000, 1024, 1025, 65535)


def nonsense(rng: random.Random) -> bytes:
    """Noise, odd packets, packets of odd length with good sums, and good ones."""
    servo, kind = rng.choice([1, 2, 3, rng.randrange(256)]), rng.randrange(5)
    if kind == 0:
        return rng.randbytes(rng.randrange(40))
    if kind in (1, 2):
        marks = bytes(rng.choice([0xFF, 0xFD, 0, rng.randrange(256)]) for _ in range(20))
        return packet(servo, bytes([rng.choice([STATUS, 7]), rng.randrange(256)]) + marks)
    if kind == 3:
        head = b"\xff\xff\xfd\x00" + struct.pack("<BH", servo, rng.choice(LENGTHS))
        head += bytes(rng.choice([STATUS, 0xFD, 0xFF]) for _ in range(rng.randrange(14)))
        return head + struct.pack("<H", crc16(head))
    return packet(servo, bytes([STATUS, 0]) + bytes(10))


@pytest.fixture
def bus() -> Iterator[Bus]:
    """A bus whose other end answers everything with nonsense."""
    rng = random.Random(4)
    master, slave = pty.openpty()
    tty.setraw(slave)

    def answer() -> None:
        while True:
            if b"\xfe\xfe\xfe" in os.read(master, 4096):
                return
            os.write(master, b"".join(nonsense(rng) for _ in range(rng.randrange(1, 4))))

    thread = threading.Thread(target=answer, daemon=True)
    thread.start()
    bus = Bus(os.ttyname(slave), 1_000_000, 0.002)
    bus.open()
    yield bus
    bus.close()
    os.write(slave, b"\xfe\xfe\xfe")
    thread.join(5.0)
    os.close(slave)
    os.close(master)


def test_nonsense_on_the_bus_ends_in_data_or_a_fault(bus: Bus) -> None:
    slowest_s, faults = 0.0, 0
    for turn in range(INPUTS):
        begun_s = time.monotonic()
        try:
            if turn % 4 == 0:
                assert all(
                    len(data) == 10 for _, data in bus.sync_read([1, 2, 3], 126, 10).values()
                )
            elif turn % 4 == 1:
                assert len(bus.read(1, 126, 10)[1]) == 10
            elif turn % 4 == 2:
                bus.write(2, 64, b"\1")
            else:
                bus.ping(3)
        except DriverFault:
            faults += 1
        slowest_s = max(slowest_s, time.monotonic() - begun_s)
    print(f"\n{INPUTS} answers of nonsense, {faults} faults, slowest call {1e3 * slowest_s:.0f} ms")
    assert slowest_s < LONGEST_S
    assert 0 < faults < INPUTS
