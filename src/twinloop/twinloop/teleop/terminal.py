# SPDX-License-Identifier: Apache-2.0
"""Keys of a terminal, one by one, and what they are called."""

from __future__ import annotations

import os
import select
import termios
import tty
from collections.abc import Callable, Iterator
from contextlib import contextmanager

_NAMED = {
    "\x1b[A": "up",
    "\x1b[B": "down",
    "\x1b[C": "right",
    "\x1b[D": "left",
    "\x1bOA": "up",
    "\x1bOB": "down",
    "\x1bOC": "right",
    "\x1bOD": "left",
    " ": "space",
    "\r": "enter",
    "\n": "enter",
}
QUIT = ("q", "\x03", "\x04")  # and Ctrl-C, Ctrl-D


class NoTerminal(OSError):
    """Keys cannot be read one by one: it is no terminal."""


@contextmanager
def raw(descriptor: int) -> Iterator[Callable[[Callable[[], None]], None]]:
    """Let a terminal hand over each key at once, and put it back whatever happens.

    Yields what calls a function that prints lines, with the terminal as it was.

    Raises:
        NoTerminal: it is none.
    """
    try:
        before = termios.tcgetattr(descriptor)
    except termios.error as error:
        raise NoTerminal("standard input is no terminal, expected one whose keys are read") from (
            error
        )

    def usually(prints: Callable[[], None]) -> None:
        termios.tcsetattr(descriptor, termios.TCSADRAIN, before)
        prints()
        tty.setraw(descriptor)

    try:
        tty.setraw(descriptor)
        yield usually
    finally:
        termios.tcsetattr(descriptor, termios.TCSADRAIN, before)


def read_keys(descriptor: int, wait_s: float) -> list[str]:
    """Return the keys that were pressed, waiting for the first at most `wait_s`."""
    if not select.select([descriptor], [], [], wait_s)[0]:
        return []
    data = os.read(descriptor, 1024)
    # A line that was hung up reads as nothing, again and again.
    return split_keys(data.decode(errors="ignore")) if data else [QUIT[0]]


def split_keys(text: str) -> list[str]:
    """Return the names of keys: arrows and the like by name, others as they are."""
    keys = []
    while text:
        length = 3 if text[:3] in _NAMED else 1
        keys.append(_NAMED.get(text[:length], text[:length]))
        text = text[length:]
    return keys
