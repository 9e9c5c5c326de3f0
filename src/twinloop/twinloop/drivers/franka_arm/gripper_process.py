# SPDX-License-Identifier: Apache-2.0
"""The process that talks to the gripper: `python -m twinloop.drivers.franka_arm.gripper_process`.

libfranka's calls wait until the fingers have arrived, and let nothing else of their process run
meanwhile; hence a process of its own. While the fingers move it tells nothing.
"""

from __future__ import annotations

import contextlib
import signal
import socket
import sys
import time
from typing import Any

from twinloop.drivers.franka_arm.link import LinkLost, Words
from twinloop.drivers.franka_arm.texts import plain

_ANY_WIDTH_M = 1.0
_NEAR_M = 0.001


def main() -> None:
    words = Words(socket.socket(fileno=int(sys.argv[2])))
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the node says when to end
    with contextlib.suppress(LinkLost):
        _run(words)


def _run(words: Words) -> None:
    message = words.hear()
    while message is None:
        time.sleep(0.001)
        message = words.hear()
    try:
        import pylibfranka as library

        gripper = library.Gripper(message[0]["address"])
        _tell(words, gripper)
    except (ImportError, RuntimeError) as error:
        words.say({"event": "missing", "text": plain(str(error))})
        return
    while True:
        message = words.hear()
        try:
            if message is not None:
                word = message[0]
                if word["do"] == "end":
                    return
                _do(words, gripper, word)
            _tell(words, gripper)
        except RuntimeError as error:
            words.say({"event": "lost", "text": plain(str(error))})
            return


def _tell(words: Words, gripper: Any) -> Any:
    state = gripper.read_once()
    words.say(
        {
            "event": "state",
            "width": state.width,
            "widest": state.max_width,
            "is_grasped": state.is_grasped,
            "temperature": state.temperature,
        }
    )
    return state


def _do(words: Words, gripper: Any, word: dict[str, Any]) -> None:
    error = ""
    try:
        if word["do"] == "home":
            is_done = gripper.homing()
        else:
            is_done = _go(gripper, word["width"], word["speed"], word["force"])
        error = "" if is_done else "the gripper did not do it"
    except RuntimeError as refusal:
        # A lost gripper says so again when it is asked for its state.
        error = plain(str(refusal))
    state = _tell(words, gripper)
    words.say({"event": "done", "number": word["order"], "width": state.width, "error": error})


def _go(gripper: Any, width: float, speed: float, force: float) -> bool:
    """Open to a width, m; or close to it, at most, with a force, N, on what is between."""
    at = gripper.read_once().width
    if abs(width - at) < _NEAR_M / 10:
        return True
    if width > at:
        return bool(gripper.move(width, speed))
    gripper.grasp(width, speed, force, _ANY_WIDTH_M, _ANY_WIDTH_M)
    if gripper.read_once().width < width - _NEAR_M:
        # Nothing was there: it went on until its fingers met.
        return bool(gripper.move(width, speed))
    return True


if __name__ == "__main__":
    main()
