# SPDX-License-Identifier: Apache-2.0
"""Starts PyBullet servers and loads the hand into them."""

from __future__ import annotations

import ctypes
import os
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pybullet as bullet
from pybullet_utils.bullet_client import BulletClient  # type: ignore[import-untyped]
from twinloop.robots.description import hand_joint_names, hand_urdf


def connect() -> BulletClient:
    """Return a client with a physics server of its own, in this process and without a window."""
    with _silent_stdout():
        return BulletClient(connection_mode=bullet.DIRECT)


def load_hand(client: BulletClient, side: str) -> tuple[int, list[int]]:
    """Load a hand, fixed to the world; returns its body and its joints' indices [24] in order."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "hand.urdf"
        path.write_text(hand_urdf(side))
        body = client.loadURDF(str(path), useFixedBase=True)
    found = {
        client.getJointInfo(body, index)[1].decode(): index
        for index in range(client.getNumJoints(body))
    }
    return body, [found[name] for name in hand_joint_names(side)]


@contextmanager
def _silent_stdout() -> Iterator[None]:
    """Drop what C code prints: PyBullet writes `argv[0]=` on connecting, which would end up in
    the JSON that a command prints."""
    libc = ctypes.CDLL(None)
    sys.stdout.flush()
    libc.fflush(None)
    kept = os.dup(1)
    sink = os.open(os.devnull, os.O_WRONLY)
    try:
        os.dup2(sink, 1)
        yield
        libc.fflush(None)
    finally:
        os.dup2(kept, 1)
        os.close(kept)
        os.close(sink)
