# SPDX-License-Identifier: Apache-2.0
"""Bytes that are no messages, sent over DDS to a twin that runs: it stands, and goes on."""

from __future__ import annotations

import random
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from rclpy.serialization import serialize_message
from std_msgs.msg import Bool
from tally import IS_FULL
from twin_station import CUP, Station, command

MESSAGES = 20_000 if IS_FULL else 2000
BURST = 5  # fewer than the twin's queue of commands holds


@pytest.fixture
def station() -> Iterator[Station]:
    made = Station()
    yield made
    made.close()


def nonsense(rng: random.Random, sound: bytes) -> bytes:
    """Serialised bytes cut short, with lengths that lie, or of nothing at all."""
    data, way = bytearray(sound), rng.randrange(4)
    if way == 0:
        return bytes(data[: rng.randrange(len(data))])
    if way == 1:
        for _ in range(rng.randrange(1, 8)):
            data[rng.randrange(len(data))] = rng.randrange(256)
    elif way == 2:
        place = rng.randrange(4, len(data) - 4)
        data[place : place + 4] = rng.choice([b"\xff" * 4, b"\xff\xff\xff\x7f", b"\0\0\0\x10"])
    else:
        return rng.randbytes(rng.randrange(300))
    return bytes(data)


def test_a_running_twin_stands_whatever_comes(station: Station) -> None:
    rng = random.Random(None if IS_FULL else 6)
    station.spin(0.3)
    record = station.record
    before, stood, since = record.statuses[-1], record.setpoints[-1][1], len(record.setpoints)
    # Of somebody who never commands: what is sound by chance is refused as that of nobody.
    sound = serialize_message(command(CUP, station.now_ns - 10**12, ""))
    stop = station._stop
    for number in range(MESSAGES):
        station._publisher.publish(nonsense(rng, sound))
        if number % 10 == 0:
            stop.publish(rng.randbytes(rng.randrange(4)) or serialize_message(Bool())[:3])
        if number % BURST == 0:
            station._executor.spin_once(timeout_sec=0.005)
    station.spin(0.3)
    assert station.twin.poll() is None, "the twin has ended"
    after = record.statuses[-1]
    setpoints: list[Any] = [setpoint for _, setpoint in record.setpoints[since:]]
    print(f"\n{MESSAGES} messages, {after.refused - before.refused} came as commands, all refused")
    assert after.accepted == before.accepted
    assert after.refused > before.refused
    np.testing.assert_array_equal(setpoints, [stood] * len(setpoints))
    # It still does what it is told.
    station.drive(lambda k: CUP + 0.01 * (k + 1) if k < 3 else None)
    station.spin_until(lambda: record.statuses[-1].accepted >= after.accepted + 3, 10.0)
